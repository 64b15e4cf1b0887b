"""A model against its base on every position of the genes in per-nucleotide score files."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from metalayer.config import EvaluateConfig
from metalayer.data.nucleotide_scores import write_tracks
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError
from metalayer.evaluation.report import evaluate
from metalayer.files import publish_file
from metalayer.inference import Predictor
from metalayer.workflows.evaluate import score_positions

logger = logging.getLogger(__name__)


def evaluate_scores(
    model: Path, scores: Sequence[Path], output: Path, config: EvaluateConfig | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Compare a model with its base on all positions of labelled genes.

    Genes that the model was trained or validated on are counted in the report, and told.

    Args:
        model: model directory, or output folder of a training run.
        scores: per-nucleotide Parquet files with letters and labels.
        output: JSON to publish.
        config: bootstrap, coverage and k.
        device: of the network.

    Returns:
        What was written: the report of `evaluation.report.evaluate`, with files and genes_seen_in_training.

    Raises:
        ArtifactError: a file that cannot be used, without labels or letters, or a gene in two files.
        ModelError: a model directory that is absent or damaged.
    """
    from metalayer.device import resolve_device

    predictor = Predictor.load(model, resolve_device(device))
    for path in scores:
        if not path.is_file():
            raise ArtifactError(f"--scores: given {path}, which is no file")

    def no_rows() -> pl.DataFrame:
        raise ArtifactError(
            "the score files have no column label, so there is nothing to compare with; write them with "
            "`metalayer base run`, or add donor, acceptor, neither at exon bases"
        )

    with tempfile.TemporaryDirectory() as folder:
        tracks = Path(folder) / "tracks.parquet"
        found = write_tracks(scores, tracks, {}, no_rows)
        if not found.letters:
            raise ArtifactError("the score files have no letters, so whole genes cannot be scored")
        for gene_id, cause in found.genes_dropped.items():
            logger.warning("gene %s is left out: %s", gene_id, cause)
        store = TrackStore(tracks)
        genes = list(store.genes())
        split = predictor.info.get("split") or {}
        seen = sorted(set(genes) & {gene for part in ("train", "valid") for gene in split.get(part, ())})
        if seen:
            logger.warning(
                "%d of %d genes were seen in training (%s ...): their figures are too good",
                *(len(seen), len(genes), ", ".join(seen[:3])),
            )
        scored = score_positions(predictor, store, genes)
    report = evaluate(scored, config or EvaluateConfig(), unit="positions")
    report |= {
        "files": [path.name for path in scores],
        "genes_dropped": found.genes_dropped,
        "genes_seen_in_training": seen,
        "model_digest": predictor.digest,
    }
    with publish_file(output) as draft:
        draft.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return report
