"""From labelled rows and a split to a model directory."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalayer.config import RunConfig, TrainConfig
from metalayer.data.dataset import RowLoader, Rows, RowTable
from metalayer.data.prevalence import prevalence_weights
from metalayer.data.tracks import TrackStore
from metalayer.device import use_threads
from metalayer.evaluation.calibration import fit
from metalayer.inference import Predictor
from metalayer.models.build import build_model
from metalayer.models.bundle import save_model
from metalayer.training.trainer import Trainer, best_epoch, seed_everything

logger = logging.getLogger(__name__)


def open_tracks(tracks: Path | None) -> TrackStore | None:
    """Per-nucleotide scores that whole genes can be scored from: with letters; else None."""
    if tracks is None:
        return None
    store = TrackStore(tracks)
    return store if store.has_letters else None


@dataclass(frozen=True)
class Part:
    """Rows of the genes of one part of a split.

    Attributes:
        table: the rows.
        in_genes: float32 (n,), positions of whole genes that each row stands for.
    """

    table: RowTable
    in_genes: NDArray[np.float32]

    @classmethod
    def read(cls, rows: Path, tracks: Path | None, gene_ids: Sequence[str]) -> Part:
        """Rows of these genes from labelled rows, weighed with per-nucleotide scores, if there are any."""
        table = RowTable.read(rows, gene_ids)
        return cls(table, prevalence_weights(table, TrackStore(tracks) if tracks else None))

    def training(self, config: TrainConfig) -> RowLoader:
        """Shuffled, weighted by variants too."""
        weights = self.table.weights * self.in_genes
        return RowLoader(self.table, config.batch_size, weights=weights, shuffle=True, seed=config.seed)

    def validation(self, config: TrainConfig) -> RowLoader:
        """In order, weighted as whole genes: variants weigh what is learned, not what is measured."""
        return RowLoader(self.table, config.batch_size, weights=self.in_genes)


def train_bundle(
    rows: Path,
    tracks: Path | None,
    manifest: Mapping[str, Any],
    config: RunConfig,
    output_dir: Path,
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    """Train a model and publish it as a model directory.

    Normalisation, weights and training see the training genes alone; the best epoch and the
    calibration come from the validation genes; test genes are never opened.

    Args:
        rows: labelled rows.
        tracks: canonical per-nucleotide scores, if there are any.
        manifest: of `make_split`.
        config: the run.
        output_dir: the model directory.
        provenance: facts that travel with the model (data_hash, git_commit ...).

    Returns:
        history (one entry an epoch), best_epoch, calibration, rows and parameters: JSON-ready.

    Raises:
        TrainingError: a loss that is not finite.
    """
    use_threads(config.train.threads)
    seed_everything(config.train.seed)
    train, valid = (Part.read(rows, tracks, manifest[part]["genes"]) for part in ("train", "valid"))
    logger.info("training on %d rows, validating on %d", len(train.table), len(valid.table))
    model = build_model(config.model)
    trainer = Trainer(model, train.training(config.train), valid.validation(config.train), config.train)
    history = trainer.train()
    predictor = Predictor(trainer.model, {}, "", config.train.device)
    calibration = calibrate_model(
        predictor,
        valid.table,
        np.arange(len(valid.table)),
        valid.in_genes,
        open_tracks(tracks),
        manifest["valid"]["genes"],
    )
    result = {
        "history": history,
        "best_epoch": best_epoch(history)["epoch"],
        "calibration": calibration,
        "parameters": sum(p.numel() for p in model.parameters()),
        "rows": {"train": len(train.table), "valid": len(valid.table)},
        "device": str(trainer.device),
    }
    save_model(
        model,
        output_dir,
        {
            **provenance,
            "base_model": config.data.base_model,
            "config": config.model_dump(mode="json", include={"data", "split", "model", "train"}),
            "seed": config.train.seed,
            "split": {part: manifest[part]["genes"] for part in ("train", "valid", "test")},
            "calibration": result["calibration"],
            "best_epoch": result["best_epoch"],
        },
    )
    return result


def calibrate_model(
    predictor: Predictor,
    table: RowTable,
    rows: Rows,
    weights: NDArray[np.float32],
    store: TrackStore | None,
    gene_ids: Sequence[str],
) -> dict[str, Any]:
    """Fit the calibration of a model on validation genes and put it into the model.

    On all positions of the genes that have per-nucleotide scores, or on rows where none has.

    Args:
        predictor: of the model.
        table: where the rows are.
        rows: the validation rows.
        weights: of those rows, float32 (n,).
        store: per-nucleotide scores with letters, if there are any.
        gene_ids: the validation genes.

    Returns:
        scale, bias and what it was fitted on: JSON-ready.
    """
    tracked = [gene_id for gene_id in gene_ids if store and gene_id in store]
    if store and tracked:
        logger.info("calibrating on all positions of %d validation genes", len(tracked))
        answers, labels = [], []
        for track in store.read_many(tracked):
            answers.append(predictor.log_probabilities(track))
            labels.append(track.labels)
        calibration, unit = fit(np.exp(np.concatenate(answers)), np.concatenate(labels)), "positions"
    else:
        logger.info("calibrating on %d validation rows", len(rows))
        log_p = predictor.row_log_probabilities(table.features[rows], table.windows[rows])
        calibration, unit = fit(np.exp(log_p), table.labels[rows], weights), "rows"
    model = predictor.model
    model.calibration_scale.fill_(calibration.scale)
    model.calibration_bias.copy_(model.calibration_bias.new_tensor(calibration.bias))
    return {"scale": calibration.scale, "bias": list(calibration.bias), "fitted_on": unit}
