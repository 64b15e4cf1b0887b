"""A model against its base on every position of the genes in per-nucleotide score files."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metalayer.base.origin import seen_by_base
from metalayer.contigs import Contigs
from metalayer.data.gene_names import GeneNames
from metalayer.data.gene_table import genes_from_frame, read_gene_table
from metalayer.data.same_genes import Same, known_genes, same_as, seen_by
from metalayer.data.score_files import ScoreFile
from metalayer.errors import ArtifactError
from metalayer.evaluation.report import evaluate
from metalayer.evaluation.scored_genes import Chained
from metalayer.evaluation.tables import builds_note
from metalayer.files import publish_file
from metalayer.gene_groups import related
from metalayer.genome import builds_once, same_build
from metalayer.inference import Predictor
from metalayer.schema import POSITIONS, ROWS
from metalayer.settings.evidence import Source
from metalayer.settings.sections import EvaluateConfig
from metalayer.workflows.asked_evidence import evidence_for
from metalayer.workflows.evaluate import principal_report, score_positions

logger = logging.getLogger(__name__)


def evaluate_scores(
    model: Path,
    scores: Sequence[Path],
    output: Path,
    config: EvaluateConfig | None = None,
    device: str = "auto",
    gene_table: Path | None = None,
    aliases: Path | None = None,
    *,
    allow_introns: bool = False,
    evidence: Mapping[str, Source] | None = None,
) -> dict[str, Any]:
    """Compare a model with its base on all positions of labelled genes.

    Genes that the model was trained or validated on are counted in the report, and logged. Files of several
    genome builds may stand together: a gene of two builds counts, and is resampled, as one. A file that
    names no build may be of any: the same gene is then a copy of another build where it lies elsewhere, and
    the same gene twice where it lies at the same place.

    Args:
        model: model directory, or output folder of a training run.
        scores: per-nucleotide Parquet files with letters and labels; the build stands in their metadata as
            `genome_build`, or nowhere.
        output: JSON to publish.
        config: bootstrap, coverage and k.
        device: of the network.
        gene_table: where genes must lie, and their paralog groups, which are resampled as one; None for neither.
        aliases: names of contigs, where scores and gene table have different ones; see `contigs`.
        allow_introns: introns may begin and end with anything, not GT or GC and AG alone.
        evidence: that the model reads, by name; what is left out is read from the column `evidence.NAME` of the files.

    Returns:
        What was written: the report of `evaluation.report.evaluate`, with ways of asking, row_answers (the same
        report of what rows are answered, None where that is the same), principal_labels (the same report in which sites
        are those of principal transcripts and those of other isoforms alone do not count, None where no file marks
        any), files (name, genome_build, genes,
        positions, conventions), genome_builds (None for files that name none), genes_in_several_builds, genes_dropped,
        genes_seen_in_training, seen_because (by gene id), seen_by_base (of `base.origin`: the human genes that the base
        model itself was trained on, as published; None for none) and model_digest.

    Raises:
        ArtifactError: a file that cannot be used, without labels or letters, or whose letters, labels and scores do
            not keep one convention; a gene in two files of one build, or one that lies elsewhere than the gene table
            says; a gene table without most of them.
        ConfigError: evidence that the model does not read, or reads and is not there.
        InputError: aliases or evidence that cannot be used.
        ModelError: a model directory that is absent or damaged.
    """
    from metalayer.device import resolve_device

    predictor = Predictor.load(model, resolve_device(device))
    contigs = Contigs.of(aliases)
    read = evidence_for(predictor, scores, evidence or {}, contigs)
    table = GeneNames(genes_from_frame(read_gene_table(gene_table, contigs)) if gene_table else {})
    with tempfile.TemporaryDirectory() as folder:
        files = [
            ScoreFile.read(
                [path],
                Path(folder) / f"{i}.parquet",
                table,
                contigs,
                base_model=predictor.info.get("base_model"),
                allow_introns=allow_introns,
                evidence=read,
            )
            for i, path in enumerate(scores)
        ]
        table.check("the scores", f"gene table {gene_table}")
        builds = {
            "genome_builds": builds_once(file.store.genome_build for file in files),
            "genes_in_several_builds": _genes_in_several(files),
        }
        if note := builds_note(builds):
            logger.warning("%s", note)
        seen = _seen_in_training(predictor, files)
        settings, together = config or EvaluateConfig(), related(table.values())
        by_way: dict[str, dict[str, Any]] = {}
        principal: dict[str, Any] | None = None
        for way in predictor.ways_of_asking:
            scored = Chained([score_positions(predictor, file.store, list(file.store.genes()), way) for file in files])
            by_way[way] = evaluate(scored, settings, unit="positions", related_genes=together)
            if way == POSITIONS:
                principal = principal_report(scored, settings, together)
    report = by_way[POSITIONS]
    report |= builds | {
        "ways": predictor.ways(),
        "row_answers": by_way.get(ROWS),
        "principal_labels": principal,
        "files": [_facts(file) for file in files],
        "genes_dropped": {gene_id: cause for file in files for gene_id, cause in file.found.genes_dropped.items()},
        "genes_seen_in_training": sorted(seen),
        "seen_because": {gene_id: str(why) for gene_id, why in sorted(seen.items())},
        "seen_by_base": seen_by_base(
            predictor.info.get("base_model") or "",
            (
                (gene_id, gene.interval.chrom, file.store.genome_build)
                for file in files
                for gene_id, gene in file.store.genes().items()
            ),
        ),
        "model_digest": predictor.digest,
    }
    with publish_file(output) as draft:
        draft.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report


def _facts(file: ScoreFile) -> dict[str, Any]:
    return {
        "name": file.names,
        "genome_build": file.store.genome_build,
        "genes": file.found.genes,
        "positions": file.found.positions,
        "conventions": file.found.conventions,
    }


def _genes_in_several(files: Sequence[ScoreFile]) -> list[str]:
    """Genes of which there are copies in several builds, after refusing those that are there twice."""
    earlier: dict[str, list[ScoreFile]] = {}
    for file in files:
        for gene_id, gene in file.store.genes().items():
            for other in earlier.setdefault(gene_id, []):
                build, other_build = file.store.genome_build, other.store.genome_build
                named = build and other_build
                if same_build(build, other_build) if named else gene == other.store.genes()[gene_id]:
                    cause = f"both of genome build {build}" if named else "at the same coordinates"
                    raise ArtifactError(
                        f"gene {gene_id} is in two files: {other.paths} and {file.paths}, {cause}; give each gene "
                        "once. Files of several genome builds say so in their Parquet metadata, key genome_build"
                    )
            earlier[gene_id].append(file)
    return sorted(gene_id for gene_id, where in earlier.items() if len(where) > 1)


def _seen_in_training(predictor: Predictor, files: Sequence[ScoreFile]) -> dict[str, Same]:
    """Genes that the model was trained or validated on, whatever they are called here, and how that is known."""
    trained = seen_by(predictor.info)
    genes = [one for file in files for one in known_genes(file.store, file.store.genes())]
    seen = same_as(genes, trained)
    if seen:
        some = [gene_id if why.other == gene_id else f"{gene_id}, which {why}" for gene_id, why in sorted(seen.items())]
        logger.warning(
            "%d of %d genes were seen in training (%s ...): their figures are too good",
            *(len(seen), len(genes), "; ".join(some[:3])),
        )
    return seen
