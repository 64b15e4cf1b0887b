"""From labelled rows and a split to a model directory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalayer.config import RunConfig
from metalayer.data.dataset import RowLoader, RowTable
from metalayer.data.prevalence import prevalence_weights
from metalayer.data.tracks import TrackStore
from metalayer.device import use_threads
from metalayer.evaluation.calibration import Calibration, fit
from metalayer.inference import Predictor
from metalayer.models.bundle import save_model
from metalayer.models.meta import MetaSpliceModel
from metalayer.training.trainer import Trainer, best_epoch, seed_everything

logger = logging.getLogger(__name__)


def open_tracks(tracks: Path | None) -> TrackStore | None:
    """Per-nucleotide scores that whole genes can be scored from: with letters; else None."""
    if tracks is None:
        return None
    store = TrackStore(tracks)
    return store if store.has_letters else None


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
    store = TrackStore(tracks) if tracks else None
    train = RowTable.read(rows, manifest["train"]["genes"])
    valid = RowTable.read(rows, manifest["valid"]["genes"])
    logger.info("training on %d rows, validating on %d", len(train), len(valid))
    # Variants weigh what is learned; what is measured looks like whole genes.
    in_genes = prevalence_weights(valid, store)
    loaders = [
        RowLoader(table, config.train.batch_size, weights=weights, shuffle=shuffle, seed=config.train.seed)
        for table, weights, shuffle in (
            (train, train.weights * prevalence_weights(train, store), True),
            (valid, in_genes, False),
        )
    ]
    model = MetaSpliceModel(
        sequence_encoder=config.model.sequence_encoder,
        sequence_encoder_config=config.model.sequence_encoder_config,
        hidden_dim=config.model.hidden_dim,
        dropout=config.model.dropout,
    )
    trainer = Trainer(model, loaders[0], loaders[1], config.train)
    history = trainer.train()
    predictor = Predictor(trainer.model, {}, "", config.train.device)
    calibration, calibrated_on = _calibrate(predictor, valid, in_genes, open_tracks(tracks), manifest)
    model.calibration_scale.fill_(calibration.scale)
    model.calibration_bias.copy_(model.calibration_bias.new_tensor(calibration.bias))
    result = {
        "history": history,
        "best_epoch": best_epoch(history)["epoch"],
        "calibration": {"scale": calibration.scale, "bias": list(calibration.bias), "fitted_on": calibrated_on},
        "parameters": sum(p.numel() for p in model.parameters()),
        "rows": {"train": len(train), "valid": len(valid)},
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


def _calibrate(
    predictor: Predictor,
    valid: RowTable,
    weights: NDArray[np.float32],
    store: TrackStore | None,
    manifest: Mapping[str, Any],
) -> tuple[Calibration, str]:
    """Fit calibration on all positions of the validation genes, or on their rows where there are no tracks."""
    tracked = [gene_id for gene_id in manifest["valid"]["genes"] if store and gene_id in store]
    if store and tracked:
        logger.info("calibrating on all positions of %d validation genes", len(tracked))
        answers, labels = [], []
        for track in store.read_many(tracked):
            answers.append(predictor.log_probabilities(track))
            labels.append(track.labels)
        return fit(np.exp(np.concatenate(answers)), np.concatenate(labels)), "positions"
    logger.info("calibrating on %d validation rows", len(valid))
    log_p = predictor.row_log_probabilities(valid.features, valid.windows)
    return fit(np.exp(log_p), valid.labels, weights), "rows"
