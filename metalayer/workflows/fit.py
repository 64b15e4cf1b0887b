"""The one way to a trained model, whoever brings the data: seed, network, training, calibration, model directory."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metalayer.data.same_genes import SEEN_KEY, alike, described, known_genes
from metalayer.data.variant_weights import Unit
from metalayer.device import resolve_device
from metalayer.errors import ArtifactError
from metalayer.gene_groups import related, united
from metalayer.inference import Predictor
from metalayer.models.bundle import save_model
from metalayer.models.meta import MetaSpliceModel
from metalayer.models.stack import STACK
from metalayer.settings.sections import TrainConfig
from metalayer.training import distributed
from metalayer.training.checkpoint import LAST
from metalayer.training.parts import Part, TrainingParts
from metalayer.training.stacking import Stacking, fit_stack
from metalayer.training.trainer import Epoch, Trainer, best_epoch
from metalayer.workflows.calibrate import calibrate

logger = logging.getLogger(__name__)

EVIDENCE = "evidence"
"""Of `model.json`: how the evidence that the model reads is scaled, by name."""
_UNITS: dict[str, Unit] = {"rows": "rows", "genes": "positions"}
"""What a training unit counts."""


@dataclass(frozen=True)
class Fitted:
    """A model that was fitted.

    Attributes:
        trainer: its training, in each process of several; None of a stack alone, which has no epochs.
        history: one entry an epoch.
        best_epoch: whose weights are kept; 0 of a stack alone.
        calibration: by way of asking; empty in a process that is not the first, which wrote no model.
        counts: by part, of what was trained and validated on.
        unit: what these are.
        sample_weights: what variants weighed; None without.
        is_written: whether this process wrote the model directory.
        device: of the network.
    """

    trainer: Trainer | None
    history: list[Epoch]
    best_epoch: int
    calibration: dict[str, dict[str, Any]]
    counts: dict[str, int]
    unit: Unit
    sample_weights: dict[str, Any] | None
    is_written: bool
    device: str


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
    validation part. A stack (`model.head`) is fitted to the training part, too; a network on top of it learns from what
    training genes are answered by a stack that was not fitted to them, and a stack alone is calibrated on that, too.
    Same parts, settings and seed give the same bits on a CPU, whoever calls. Started by torchrun, each process takes
    its share of every batch, and the first publishes.

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
    unit = _UNITS[config.training_unit]
    options = model.options
    stacking = _stacked(parts, config.seed, options["base_dropout"]) if options["head"] != "network" else None
    if stacking:
        parts = replace(parts, train=_starting_from(parts.train, stacking), valid=_starting_from(parts.valid, stacking))
    used = _sample_weights(parts, config, unit)
    trainer: Trainer | None = None
    history: list[Epoch] = []
    best = 0
    if model.options["head"] == "stack":
        world = distributed.join(resolve_device(config.device))
        counts = {name: _positions(part) for name, part in (("train", parts.train), ("valid", parts.valid))}
    else:
        loaders = parts.loaders(model, config, arrays)
        counts = {part: len(loader.labels) for part, loader in zip(("train", "valid"), loaders, strict=True)}
        logger.info("training on %s %s, validating on %s", f"{counts['train']:,}", unit, f"{counts['valid']:,}")
        trainer = Trainer(model, *loaders, config, checkpoints, use_wandb)
        if resume and checkpoints is not None:
            trainer.resume(checkpoints / LAST)
        history = trainer.train()
        best = int(best_epoch(history, config.early_stopping_metric)["epoch"])
        model, world = trainer.model, trainer.world
    calibration: dict[str, dict[str, Any]] = {}
    if world.is_first:
        also = parts.train if trainer is None else None
        calibration = calibrate(Predictor(model, {}, "", world.device), parts.valid, parts.variants, also=also)
        learned_from = [
            gene
            for part in (parts.train, parts.valid)
            if part.store
            for gene in known_genes(part.store, part.tracked())
        ]
        save_model(
            model,
            directory,
            {
                **facts,
                "seed": config.seed,
                SEEN_KEY: described(learned_from),
                **({STACK: stacking.stack.described()} if stacking else {}),
                **({EVIDENCE: scaled.described()} if (scaled := model.tracks and model.tracks.evidence) else {}),
                "calibration": calibration,
                "best_epoch": best,
                "trained_on": config.training_unit,
                "sample_weights": used,
            },
        )
    return Fitted(trainer, history, best, calibration, counts, unit, used, world.is_first, world.device)


def _stacked(parts: TrainingParts, seed: int, base_dropout: bool) -> Stacking:
    """A stack of the base models of the training part."""
    store, gene_ids = parts.train.store, parts.train.tracked()
    if store is None or not gene_ids:
        raise ArtifactError("model.head: a stack is fitted to per-nucleotide scores, and the training genes have none")
    genes = store.genes()
    together = [*related(genes[gene_id] for gene_id in gene_ids), *alike(known_genes(store, gene_ids))]
    return fit_stack(store, gene_ids, united(gene_ids, together), seed, base_dropout=base_dropout)


def _starting_from(part: Part, stacking: Stacking) -> Part:
    return replace(part, store=part.store and part.store.starting_from(stacking.held_out))


def _positions(part: Part) -> int:
    genes = part.store.genes() if part.store else {}
    return sum(len(genes[gene_id]) for gene_id in part.tracked())


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
