"""A trained model directory through evaluation, gate, registry and Bento: `metalayer register`."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from metalayer.base.origin import seen_by_base
from metalayer.core import ArtifactLoader
from metalayer.core.loader import GENES, ROWS, TRACKS
from metalayer.data.discovery import BaseLayerFiles
from metalayer.data.gene_names import GeneNames
from metalayer.data.gene_table import genes_from_frame
from metalayer.data.same_genes import KnownGene, Same, known_genes, same_as, seen_by
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError, InputError
from metalayer.evaluation.error_file import ERRORS, ERRORS_TEXT, write_text
from metalayer.evaluation.gate import decide
from metalayer.evaluation.html import write_report
from metalayer.gene_groups import related, united
from metalayer.genome import chrom_order
from metalayer.inference import Predictor
from metalayer.models.description import read_description
from metalayer.provenance import code_hash
from metalayer.schema import CLASSES
from metalayer.settings.evidence import files_of
from metalayer.settings.run import RunConfig
from metalayer.training.trainer import HISTORY
from metalayer.workflows import gated
from metalayer.workflows.asked_evidence import asked_sources
from metalayer.workflows.evaluate import ANSWERS, EVALUATION, GOLDEN
from metalayer.workflows.outcome import commands_for

REPORT = "report.html"
MORE = "further files with --scores, of genes that it has not seen"
"""How more test genes are given."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Registered:
    """What became of a model.

    Attributes:
        evaluation: of `gated.judge`.
        decision: of the gate.
        registration: of `gated.enter`.
        bento: of `gated.package`.
        promotion: of `gated.promote`.
        seen: genes of the files that the model had seen, and why each counts as seen.
        folder: with the report, the evaluation, errors, golden rows and answers; the caller's.
    """

    evaluation: dict[str, Any]
    decision: dict[str, Any]
    registration: dict[str, Any]
    bento: dict[str, Any]
    promotion: dict[str, Any]
    seen: dict[str, Same]
    folder: Path


def register_model(
    model: Path,
    scores: Sequence[Path],
    config: RunConfig,
    folder: Path,
    tracking_uri: str | None = None,
) -> Registered:
    """Judge a model on genes that it has not seen, register it, and promote it where it passes the gate.

    Genes that it was trained or validated on, by name, place, letters or paralog group, are not counted, and human ones
    that its base model was trained on as `evaluate_bundle` says. Rows, which servers answer too (unless the model is a
    stack), are drawn from the files as a base-layer pass draws them.

    Args:
        model: model directory, of `metalayer train` or any other.
        scores: per-nucleotide Parquet, with letters and labels.
        config: of data the gene table, aliases, evidence and `allow_introns` are read, of train device and threads, and
            evaluate and gate; `data.base_model` is the model's.
        folder: gets the report, the evaluation, errors, golden rows and answers.
        tracking_uri: of the registry; None takes its default.

    Raises:
        ConfigError: a network alone over several base models; evidence that the model does not read, or reads and is
            not there.
        InputError: files that cannot be used; no gene that the model has not seen, or none with donors or acceptors;
            all of them on chromosomes that the base was trained on, where others are new to it; a model that does not
            say what it was trained on; a champion that lost its alias, or was moved meanwhile.
        ModelError: a damaged model directory, or one of another format.
        RegistryError: the registry cannot be reached or refuses, or packaging failed.
    """
    from metalayer.registry import evidence, promotion, versions

    info = read_description(model)
    base_model = info.get("base_model")
    if not base_model:
        raise InputError(f"{model}: its model.json names no base model; train it again with --base-model")
    gated.check_head(info["model"]["head"], base_model)
    trained_on = seen_by(info)
    if not trained_on:
        raise InputError(
            f"{model}: its model.json does not say which genes it was trained on, so none can be known to be unseen; "
            "train it again"
        )
    sources = asked_sources(Predictor.load(model), scores, config.data.evidence)
    own = {"base_model": base_model, "evidence": sources}
    config = config.model_copy(update={"data": config.data.model_copy(update=own)})
    name = versions.registered_name(base_model)
    promotion.require_whole(name, tracking_uri)
    with tempfile.TemporaryDirectory() as scratch:
        read = Path(scratch)
        loader = ArtifactLoader(config.data, _files(scores, config))
        load_report = loader.load(read, labelled=True)
        manifest, seen = _unseen(read, trained_on, base_model)
        _refuse_seen_by_base(manifest, config)
        judged = read / "judged"
        evaluation = gated.judge(model, read / ROWS, read / TRACKS, manifest, config, judged, tracking_uri)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (EVALUATION, GOLDEN, ANSWERS):
            shutil.move(judged / name, folder / name)
        if evaluation["positions"]:
            write_text(judged / ERRORS, folder / ERRORS_TEXT)
    decided = decide(evaluation, config.gate)
    decision = decided.to_dict()
    facts = {"code_hash": code_hash(), "test_data_hash": loader.fingerprint(), "registered_by": "metalayer register"}
    tags = {**facts, **gated.judged_tags(evaluation), "base_model": base_model}
    with evidence.logged_run(folder.name, tags, gated.test_metrics(evaluation), tracking_uri) as run_id:
        registration = asdict(
            gated.enter(
                model,
                folder / GOLDEN,
                folder / ANSWERS,
                evaluation,
                decision,
                base_model,
                facts,
                tracking_uri,
                run_id=run_id,
            )
        )
        write_report(
            folder / REPORT,
            evaluation=evaluation,
            decision=decided,
            manifest=manifest | {"seen_in_training": {gene_id: str(why) for gene_id, why in sorted(seen.items())}},
            load_report=load_report,
            run={
                **facts,
                "model": {name: info.get(name) for name in ("data_hash", "seed", "best_epoch", "trained_on")},
            },
            training=_training(model, info),
            commands=commands_for(registration, decision),
            errors_file=ERRORS_TEXT if evaluation["positions"] else None,
            more=MORE,
        )
        digests = {"test": facts["test_data_hash"]}
        gated.record(run_id, evaluation, decision, folder / REPORT, config, digests, manifest, tracking_uri)
    bento = gated.package(registration, decision, tracking_uri)
    promoted = gated.promote(registration, bento, evaluation, tracking_uri)
    return Registered(evaluation, decision, registration, bento, promoted, seen, folder)


def _training(model: Path, info: Mapping[str, Any]) -> dict[str, Any] | None:
    """The history of a training run whose output folder holds the model; None where it is not there, or another's."""
    try:
        history = json.loads((model.parent / HISTORY).read_text(encoding="utf-8"))
        return {"history": history, "best_epoch": info["best_epoch"]} if info["best_epoch"] < len(history) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _files(scores: Sequence[Path], config: RunConfig) -> BaseLayerFiles:
    for path in scores:
        if not path.is_file():
            raise ArtifactError(f"--scores: given {path}, which is no file")
    return BaseLayerFiles(
        directory=scores[0].parent,
        genome_build=config.data.genome_build,
        annotation_source=None,
        artifacts=(),
        nucleotide_scores=tuple(scores),
        gene_table=config.data.gene_table,
        variants=None,
        aliases=config.data.aliases,
        evidence=tuple(files_of(config.data.evidence)),
    )


def _refuse_seen_by_base(manifest: Mapping[str, Any], config: RunConfig) -> None:
    """Refuse genes that could only be rejected, where others would not be."""
    seen = manifest["seen_by_base"]["test"]
    if seen and len(seen["genes"]) == seen["of"] and seen["unseen_chroms"] and not config.gate.allow_seen_by_base:
        raise InputError(
            f"--scores: {seen['note']}. Give files of genes on chromosomes that are new to the base "
            f"({', '.join(seen['unseen_chroms'])}), or count these all the same: --set gate.allow_seen_by_base=true"
        )


def _unseen(read: Path, trained_on: Sequence[KnownGene], base_model: str) -> tuple[dict[str, Any], dict[str, Same]]:
    """A split's manifest, as far as an evaluation reads it, of the genes that a model has not seen; and those it has.

    Args:
        read: folder of `ArtifactLoader.load`.
        trained_on: what the model was trained and validated on.
        base_model: its own.

    Raises:
        InputError: no gene is left, or none with donors or acceptors.
    """
    store = TrackStore(read / TRACKS)
    table = genes_from_frame(pl.read_parquet(read / GENES))
    there = [replace(one, paralog_group=table[one.gene_id].paralog_group) for one in known_genes(store, store.genes())]
    names = GeneNames(table)
    trained = [_with_group(one, names) for one in trained_on]
    seen = same_as(there, trained)
    genes = [one.gene_id for one in there if one.gene_id not in seen]
    ways = ", ".join(f"{sum(why.by == by for why in seen.values())} by {by}" for by in _ways(seen))
    if seen:
        logger.warning(
            "%d of %d genes were trained or validated on (%s) and are not counted; %d are left",
            *(len(seen), len(there), ways, len(genes)),
        )
    else:
        logger.info("%d genes, none of which was trained or validated on", len(genes))
    counted = pl.scan_parquet(read / ROWS).filter(pl.col("gene_id").is_in(genes))
    classes = dict(counted.group_by("splice_type").len().collect().iter_rows())
    lacking = [name for name in ("donor", "acceptor") if not classes.get(name)]
    if lacking:
        raise InputError(
            f"--scores: {len(there)} genes, of which the model was trained or validated on {len(seen)}; the "
            f"{len(genes)} that are left have no {' and no '.join(lacking)}: give files of genes that it has not seen"
        )
    together = united(genes, related(table[gene_id] for gene_id in genes))
    chromosomes = sorted({table[gene_id].interval.chrom for gene_id in genes}, key=chrom_order)
    test = {
        "genes": genes,
        "rows": sum(classes.values()),
        "classes": {name: classes.get(name, 0) for name in CLASSES},
        "chromosomes": chromosomes,
    }
    of_base = seen_by_base(base_model, ((one, table[one].interval.chrom, store.genome_build) for one in genes))
    return {
        "test": test,
        "related_test_genes": [group for group in together if len(group) > 1],
        "seen_by_base": {"test": of_base},
    }, seen


def _with_group(one: KnownGene, names: GeneNames) -> KnownGene:
    """A gene with its paralog group, where a gene table has it."""
    found = names.find(one.gene_id, one.gene.interval.chrom) if one.gene else names.get(one.gene_id)
    return replace(one, paralog_group=found.paralog_group) if found else one


def _ways(seen: Mapping[str, Same]) -> list[str]:
    return list(dict.fromkeys(why.by for why in seen.values()))
