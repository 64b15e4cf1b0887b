"""Base against meta (and champion) on held-out genes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from metalayer.data.row_table import RowTable
from metalayer.data.tracks import TrackStore, open_tracks
from metalayer.device import use_threads
from metalayer.errors import ArtifactError
from metalayer.evaluation.answers import test_set_digest, write_answers
from metalayer.evaluation.error_file import ERRORS, error_file
from metalayer.evaluation.gate import MEAN
from metalayer.evaluation.looks import widened
from metalayer.evaluation.metrics import GeneScores
from metalayer.evaluation.report import evaluate
from metalayer.evaluation.scored_genes import PrincipalLabels, ScoresOnDisk
from metalayer.files import publish_file
from metalayer.inference import Predictor
from metalayer.integrity import content_hash
from metalayer.models.description import content_of
from metalayer.models.stack import Stack
from metalayer.release.golden import (
    GOLDEN_ROWS,
    GOLDEN_SEQUENCES,
    golden_stretches,
    write_golden,
    write_golden_sequences,
)
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, POSITIONS, PROBABILITY_SUM_TOLERANCE, ROW_SCORES, ROWS
from metalayer.settings.run import RunConfig
from metalayer.settings.sections import EvaluateConfig, GateConfig
from metalayer.workflows.champions import Champion, TestGenes, against_line

logger = logging.getLogger(__name__)

GOLDEN, ANSWERS, EVALUATION = "golden.parquet", "answers.parquet", "evaluation.json"
SYSTEMS = ("base", "meta", "uncalibrated")
BASES = "bases."
"""Before the names of several base models, which stand beside `SYSTEMS` with their untrained mean."""


def evaluate_bundle(
    bundle: Path,
    rows: Path,
    tracks: Path | None,
    manifest: Mapping[str, Any],
    config: RunConfig,
    champions: Sequence[Champion],
    output_dir: Path,
    decisions_before: Callable[[str, str], int] | None = None,
) -> dict[str, Any]:
    """Evaluate a model on the test genes: on all their positions where there are tracks, and on their rows.

    Genes that the base model itself was trained on, as published, are no evidence of how a model does on new ones:
    they are left out, unless `gate.allow_seen_by_base` counts them or the others have no donors or no acceptors.

    A few test genes without tracks (a share of at most `data.max_bad_share`) are left out of the
    positions, and named; with more of them the rows are what counts.

    Args:
        bundle: the model directory.
        rows: labelled rows.
        tracks: canonical per-nucleotide scores, if there are any.
        manifest: of `make_split`.
        config: the run.
        champions: of the line, the one that stands first.
        output_dir: gets `evaluation.json`, `golden.parquet` (rows with the answers expected of them),
            `answers.parquet` (what the model answered, for later comparisons) and, where whole genes were scored,
            `errors.parquet` (every error, see `evaluation.error_file`).
        decisions_before: how many other models were judged on a test set, by its digest and this model's; None: none.

    Returns:
        primary ("positions" where whole genes could be scored, else "rows"), positions, principal_labels (the same of
        sites of principal transcripts, None where files mark none), rows (None of a model that does not answer them),
        champion,
        best_champion: the reports of `metalayer.evaluation`; seen_by_base: of `base.origin`, with left_out, whether the
        reports are without these genes; None where there are none; looks: the test set, which decision on it this is,
        and the confidence for that. JSON-ready.
    """
    use_threads(config.train.threads)
    test_genes, seen = _held_out(manifest, rows, config.gate)
    predictor = Predictor.load(bundle, config.train.device)
    table = RowTable.read(rows, test_genes, predictor.schema.window_bp)
    row_genes = [] if predictor.stack else _score_rows(predictor, table)
    store = open_tracks(tracks)
    tracked = [gene_id for gene_id in test_genes if store and gene_id in store]
    untracked = [gene_id for gene_id in test_genes if gene_id not in set(tracked)]
    position_genes: Sequence[GeneScores] = score_positions(predictor, store, tracked) if store else []
    row_answers: Sequence[GeneScores] = []
    if predictor.masks_rows:
        logger.info("rows: %s", predictor.note(ROWS))
        row_answers = score_positions(predictor, store, tracked, ROWS) if store else []
    complete = bool(tracked) and len(untracked) <= config.data.max_bad_share * len(test_genes)
    if tracked and untracked:
        logger.warning(
            "%d of %d test genes have no per-nucleotide scores (%s ...): %s",
            *(len(untracked), len(test_genes), ", ".join(untracked[:3])),
            "left out" if complete else "more than data.max_bad_share, so artifact rows are what counts",
        )
    if predictor.stack and not complete:
        raise ArtifactError(
            f"{len(untracked)} of {len(test_genes)} test genes have no per-nucleotide scores "
            f"({', '.join(untracked[:3])} ...), and this model answers whole genes alone: give scores of all of them, "
            "or test on other genes"
        )
    primary_genes = position_genes if complete else row_genes
    test_set, model_digest = test_set_digest(primary_genes), content_of(bundle)
    looks = 1 + (decisions_before(test_set, model_digest) if decisions_before else 0)
    settings = config.evaluate.model_copy(update={"confidence": widened(config.evaluate.confidence, looks)})
    logger.info("intervals from %d resamples of gene clusters", settings.n_bootstrap)
    related = manifest.get("related_test_genes", ())
    output_dir.mkdir(parents=True, exist_ok=True)
    positions = None
    if position_genes:
        with error_file(output_dir / ERRORS) as watch:
            positions = evaluate(position_genes, settings, unit="positions", related_genes=related, watch=watch)
    principal = principal_report(position_genes, settings, related)
    evaluation: dict[str, Any] = {
        "primary": "positions" if complete else "rows",
        "positions": positions,
        "principal_labels": principal,
        "rows": evaluate(row_genes, settings, unit="rows", related_genes=related) if row_genes else None,
        "row_answers": evaluate(row_answers, settings, unit="positions", related_genes=related)
        if row_answers
        else None,
        "ways": predictor.ways(),
        "seen_by_base": seen,
        "looks": {
            "test_set": test_set,
            "model_digest": model_digest,
            "decisions": looks,
            "confidence": settings.confidence,
        },
        "test_genes": len(test_genes),
        "test_genes_with_tracks": len(tracked),
        "test_genes_without_tracks": untracked if tracked else None,
    }
    genes = TestGenes(primary_genes, table, store if complete else None, related)
    evaluation |= against_line(champions, genes, config)
    if predictor.stack:
        some = tracked[:: max(1, len(tracked) // GOLDEN_SEQUENCES)][:GOLDEN_SEQUENCES]
        write_golden_sequences(
            *golden_stretches(list(store.read_many(some)) if store else []), bundle, output_dir / GOLDEN
        )
    else:
        _write_golden(bundle, table, output_dir / GOLDEN)
    write_answers(primary_genes, output_dir / ANSWERS)
    with publish_file(output_dir / EVALUATION) as draft:
        draft.write_text(json.dumps(evaluation, indent=1), encoding="utf-8")
    return evaluation


def principal_report(
    genes: Collection[GeneScores], settings: EvaluateConfig, related_genes: Sequence[Sequence[str]]
) -> dict[str, Any] | None:
    """The report in which sites of other isoforms alone do not count; None where no gene has any marked."""
    if not any(len(gene.alternative) for gene in genes):
        return None
    return evaluate(PrincipalLabels(genes), settings, unit="positions", related_genes=related_genes)


def _held_out(manifest: Mapping[str, Any], rows: Path, policy: GateConfig) -> tuple[list[str], dict[str, Any] | None]:
    """The test genes that count, and which of them all the base was trained on."""
    genes = list(manifest["test"]["genes"])
    seen = (manifest.get("seen_by_base") or {}).get("test")
    if not seen:
        return genes, None
    new = sorted(set(genes) - set(seen["genes"]))
    there = pl.scan_parquet(rows).filter(pl.col("gene_id").is_in(new)).select(pl.col("splice_type").unique()).collect()
    left_out = not policy.allow_seen_by_base and {CLASSES[DONOR], CLASSES[ACCEPTOR]} <= set(there["splice_type"])
    logger.warning("test genes: %s%s", seen["note"], "; these are left out" if left_out else "")
    return new if left_out else genes, seen | {"left_out": left_out}


def _score_rows(predictor: Predictor, table: RowTable) -> list[GeneScores]:
    """Base, meta and uncalibrated meta on rows, by gene."""
    log_p = predictor.row_log_probabilities(table.features, table.windows)
    meta = predictor.calibrated(log_p, ROWS)
    base = predictor.base_probabilities(table.features[:, : len(CLASSES)])
    out = []
    for gene_id, chrom, at in table.by_gene():
        scores = dict(zip(SYSTEMS, (base[at], meta[at], np.exp(log_p[at])), strict=True))
        letters = content_hash(table.windows[at])
        out.append(GeneScores(gene_id, chrom, table.labels[at].astype(np.uint8), scores, letters=letters))
    return out


def score_positions(
    predictor: Predictor, store: TrackStore, gene_ids: Sequence[str], way: str = POSITIONS
) -> ScoresOnDisk:
    """Base, meta and uncalibrated meta at every exon base of each gene, answered in a way of asking.

    Of a model with a stack of several base models, `base` is the one that was best on its training genes; their
    untrained mean, and each that tells donors from acceptors as `bases.NAME`, are there too.
    """
    return ScoresOnDisk(_scored(predictor, store, gene_ids, way), (*SYSTEMS, *_beside(predictor.stack)))


def _beside(stack: Stack | None) -> tuple[str, ...]:
    """Systems that a model of several base models is compared with, too."""
    return (MEAN, *(f"{BASES}{name}" for name in stack.telling)) if stack and len(stack.bases) > 1 else ()


def _scored(predictor: Predictor, store: TrackStore, gene_ids: Sequence[str], way: str) -> Iterator[GeneScores]:
    for number, track in enumerate(store.read_many(list(gene_ids)), start=1):
        log_p = predictor.log_probabilities(track, way)
        beside = _beside(predictor.stack)
        own = {f"{BASES}{name}": scores for name, scores in track.bases.items()} | {MEAN: track.scores}
        best = predictor.best_base(track)
        answers = (predictor.base_probabilities(best), predictor.calibrated(log_p, way), np.exp(log_p))
        gene = track.gene
        place = (gene, track.paralog, store.genome_build)
        letters = content_hash(track.tokens)
        scores = dict(zip(SYSTEMS, answers, strict=True))
        scores |= {name: predictor.base_probabilities(own[name]) for name in beside}
        rest = (letters, track.ignored, track.alternative)
        yield GeneScores(gene.gene_id, gene.interval.chrom, track.labels, scores, *place, *rest)
        if number % 10 == 0 or number == len(gene_ids):
            logger.info("scored %d of %d test genes", number, len(gene_ids))


def _write_golden(bundle: Path, table: RowTable, path: Path) -> None:
    """A spread of test rows of every class with the answers that a server of this model must give.

    They are given by the CPU, as a server's are: a GPU rounds otherwise. Rows whose donor and acceptor
    scores add up to more than 1 (two sites next to each other) are no valid request, and left out.
    """
    total = table.features[:, : len(CLASSES)].sum(axis=1, dtype=np.float64)
    valid = np.abs(total - 1.0) <= PROBABILITY_SUM_TOLERANCE
    chosen: list[np.ndarray] = []
    for site_class in range(len(CLASSES)):
        at = np.flatnonzero((table.labels == site_class) & valid)
        chosen.append(at[np.linspace(0, len(at) - 1, min(len(at), GOLDEN_ROWS // len(CLASSES) + 1)).astype(int)])
    rows = np.unique(np.concatenate(chosen))
    row_scores = table.features[rows][:, : len(ROW_SCORES)]
    answers = Predictor.load(bundle).predict_rows(row_scores, table.windows[rows])
    named = table.frame[rows].select("gene_id", "chrom", "position", "splice_type", "sequence", "index")
    write_golden(named, row_scores, answers, path)
