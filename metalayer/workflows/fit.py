"""The one way to a trained model, whoever brings the data: seed, network, training, calibration, model directory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metalayer.data.same_genes import SEEN_KEY, described, known_genes
from metalayer.data.variant_weights import Unit
from metalayer.inference import Predictor
from metalayer.models.bundle import save_model
from metalayer.models.meta import MetaSpliceModel
from metalayer.settings.sections import TrainConfig
from metalayer.training.checkpoint import LAST
from metalayer.training.parts import TrainingParts
from metalayer.training.trainer import Epoch, Trainer, best_epoch
from metalayer.workflows.calibrate import calibrate

logger = logging.getLogger(__name__)

_UNITS: dict[str, Unit] = {"rows": "rows", "genes": "positions"}
"""What a training unit counts."""


@dataclass(frozen=True)
class Fitted:
    """A model that was fitted.

    Attributes:
        trainer: its training; in each process of several.
        history: one entry an epoch.
        best_epoch: whose weights are kept.
        calibration: by way of asking; empty in a process that is not the first, which wrote no model.
        counts: by part, of what was trained and validated on.
        unit: what these are.
        sample_weights: what variants weighed; None without.
    """

    trainer: Trainer
    history: list[Epoch]
    best_epoch: int
    calibration: dict[str, dict[str, Any]]
    counts: dict[str, int]
    unit: Unit
    sample_weights: dict[str, Any] | None

    @property
    def is_written(self) -> bool:
        """Whether this process wrote the model directory."""
        return self.trainer.world.is_first


def fit(
    model: MetaSpliceModel,
    parts: TrainingParts,
    config: TrainConfig,
    directory: Path,
    facts: Mapping[str, Any],
    *,
    arrays: Path,
    checkpoints: Path | None = None,
    resume: bool = False,
    use_wandb: bool = False,
) -> Fitted:
    """Train and calibrate a model, and publish its directory.

    Normalisation, weights and training see the training part alone; the best epoch and the calibration come from the
    validation part. Same parts, settings and seed give the same bits on a CPU, whoever calls. Started by torchrun, each
    process takes its share of every batch, and the first publishes.

    Args:
        model: of `new_model`; trained in place.
        parts: what to train and to validate on.
        config: of training.
        directory: the model directory to write.
        facts: JSON-ready, travel with the model beside those of the training: base_model, data_hash, config, and
            split, the gene ids of each part.
        arrays: folder for what is mapped meanwhile; the caller removes it.
        checkpoints: folder for a checkpoint after each epoch, history and logs; None keeps none.
        resume: go on from the last checkpoint there.
        use_wandb: log to Weights & Biases.

    Returns:
        What came of it.

    Raises:
        ArtifactError: a part without what is to be trained on.
        ConfigError: a checkpoint of other rows, or settings that do not fit the data.
        ModelError: a checkpoint that is absent or damaged.
        TrainingError: a part without sites, or a loss that is not finite.
    """
    loaders = parts.loaders(model, config, arrays)
    unit = _UNITS[config.training_unit]
    counts = {part: len(loader.labels) for part, loader in zip(("train", "valid"), loaders, strict=True)}
    logger.info("training on %s %s, validating on %s", f"{counts['train']:,}", unit, f"{counts['valid']:,}")
    used = _sample_weights(parts, config, unit)
    trainer = Trainer(model, *loaders, config, checkpoints, use_wandb)
    if resume and checkpoints is not None:
        trainer.resume(checkpoints / LAST)
    history = trainer.train()
    best = int(best_epoch(history, config.early_stopping_metric)["epoch"])
    calibration: dict[str, dict[str, Any]] = {}
    if trainer.world.is_first:
        calibration = calibrate(Predictor(trainer.model, {}, "", str(trainer.device)), parts.valid, parts.variants)
        learned_from = [
            gene
            for part in (parts.train, parts.valid)
            if part.store
            for gene in known_genes(part.store, part.tracked())
        ]
        save_model(
            trainer.model,
            directory,
            {
                **facts,
                "seed": config.seed,
                SEEN_KEY: described(learned_from),
                "calibration": calibration,
                "best_epoch": best,
                "trained_on": config.training_unit,
                "sample_weights": used,
            },
        )
    return Fitted(trainer, history, best, calibration, counts, unit, used)


def _sample_weights(parts: TrainingParts, config: TrainConfig, unit: Unit) -> dict[str, Any] | None:
    """What variants weigh in a training, which is logged: the model directory says this and nothing more."""
    if parts.variants is None:
        return None
    used = parts.variants.used(unit, parts.learned(config))
    found = tuple(f"{used[name]:,}" for name in ("variants", "weighed", "genes"))
    if used["weighed"]:
        logger.info("%s variants weigh %s %s of %s training genes", *found[:2], unit, found[2])
    else:
        logger.warning("no variant touches a training gene: all %s weigh alike", unit)
    return used
