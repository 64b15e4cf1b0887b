"""Base against meta (and champion) on held-out genes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from metalayer.data.dataset import RowTable
from metalayer.data.tracks import TrackStore, open_tracks
from metalayer.device import use_threads
from metalayer.evaluation.answers import test_set_digest, write_answers
from metalayer.evaluation.looks import widened
from metalayer.evaluation.metrics import GeneScores
from metalayer.evaluation.report import evaluate
from metalayer.evaluation.scored_genes import ScoresOnDisk
from metalayer.files import publish_file
from metalayer.inference import Predictor
from metalayer.inference.predictor import base_probabilities
from metalayer.integrity import content_hash
from metalayer.models.bundle import content_of
from metalayer.release.folder import MADE_WITH, made_with
from metalayer.schema import CLASSES, POSITIONS, PROBABILITY_SUM_TOLERANCE, ROW_SCORES, ROWS
from metalayer.settings.run import RunConfig
from metalayer.workflows.champions import Champion, TestGenes, against_line

logger = logging.getLogger(__name__)

GOLDEN, ANSWERS, EVALUATION = "golden.parquet", "answers.parquet", "evaluation.json"
GOLDEN_ROWS = 64
SYSTEMS = ("base", "meta", "uncalibrated")


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

    A few test genes without tracks (a share of at most `data.max_bad_share`) are left out of the
    positions, and named; with more of them the rows are what counts.

    Args:
        bundle: the model directory.
        rows: labelled rows.
        tracks: canonical per-nucleotide scores, if there are any.
        manifest: of `make_split`.
        config: the run.
        champions: of the line, the one that stands first.
        output_dir: gets `evaluation.json`, `golden.parquet` (rows with the answers expected of them) and
            `answers.parquet` (what the model answered, for later comparisons).
        decisions_before: how many other models were judged on a test set, by its digest and this model's; None: none.

    Returns:
        primary ("positions" where whole genes could be scored, else "rows"), positions, rows, champion,
        best_champion: the reports of `metalayer.evaluation`; looks: the test set, which decision on it this is,
        and the confidence for that. JSON-ready.
    """
    use_threads(config.train.threads)
    test_genes = list(manifest["test"]["genes"])
    predictor = Predictor.load(bundle, config.train.device)
    table = RowTable.read(rows, test_genes, predictor.schema.window_bp)
    row_genes = _score_rows(predictor, table)
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
    primary_genes = position_genes if complete else row_genes
    test_set, model_digest = test_set_digest(primary_genes), content_of(bundle)
    looks = 1 + (decisions_before(test_set, model_digest) if decisions_before else 0)
    settings = config.evaluate.model_copy(update={"confidence": widened(config.evaluate.confidence, looks)})
    logger.info("intervals from %d resamples of gene clusters", settings.n_bootstrap)
    related = manifest.get("related_test_genes", ())
    evaluation: dict[str, Any] = {
        "primary": "positions" if complete else "rows",
        "positions": evaluate(position_genes, settings, unit="positions", related_genes=related)
        if position_genes
        else None,
        "rows": evaluate(row_genes, settings, unit="rows", related_genes=related),
        "row_answers": evaluate(row_answers, settings, unit="positions", related_genes=related)
        if row_answers
        else None,
        "ways": predictor.ways(),
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
    output_dir.mkdir(parents=True, exist_ok=True)
    _write_golden(bundle, table, output_dir / GOLDEN)
    write_answers(primary_genes, output_dir / ANSWERS)
    with publish_file(output_dir / EVALUATION) as draft:
        draft.write_text(json.dumps(evaluation, indent=1), encoding="utf-8")
    return evaluation


def _score_rows(predictor: Predictor, table: RowTable) -> list[GeneScores]:
    """Base, meta and uncalibrated meta on rows, by gene."""
    log_p = predictor.row_log_probabilities(table.features, table.windows)
    meta = predictor.calibrated(log_p, ROWS)
    base = base_probabilities(table.features[:, : len(CLASSES)])
    out = []
    for gene_id, chrom, at in table.by_gene():
        scores = dict(zip(SYSTEMS, (base[at], meta[at], np.exp(log_p[at])), strict=True))
        letters = content_hash(table.windows[at])
        out.append(GeneScores(gene_id, chrom, table.labels[at].astype(np.uint8), scores, letters=letters))
    return out


def score_positions(
    predictor: Predictor, store: TrackStore, gene_ids: Sequence[str], way: str = POSITIONS
) -> ScoresOnDisk:
    """Base, meta and uncalibrated meta at every exon base of each gene, answered in a way of asking."""
    return ScoresOnDisk(_scored(predictor, store, gene_ids, way), SYSTEMS)


def _scored(predictor: Predictor, store: TrackStore, gene_ids: Sequence[str], way: str) -> Iterator[GeneScores]:
    for number, track in enumerate(store.read_many(list(gene_ids)), start=1):
        log_p = predictor.log_probabilities(track, way)
        answers = (base_probabilities(track.scores), predictor.calibrated(log_p, way), np.exp(log_p))
        gene = track.gene
        place = (gene, track.paralog, store.genome_build)
        letters = content_hash(track.tokens)
        scores = dict(zip(SYSTEMS, answers, strict=True))
        yield GeneScores(gene.gene_id, gene.interval.chrom, track.labels, scores, *place, letters)
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
    scores = row_scores.astype(np.float64)
    golden = (
        table.frame[rows]
        .select("gene_id", "chrom", "position", "splice_type", "sequence", "index")
        .hstack(
            [pl.Series(name, scores[:, i]) for i, name in enumerate(ROW_SCORES)]
            + [pl.Series(name, answers[:, i].astype(np.float64)) for i, name in enumerate(CLASSES)]
        )
    )
    with publish_file(path) as draft:
        made = golden.to_arrow(compat_level=pl.CompatLevel.oldest())
        facts = {MADE_WITH: json.dumps(made_with())}
        pq.write_table(made.replace_schema_metadata(facts), draft, compression="zstd")
