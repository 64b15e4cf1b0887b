"""From labelled rows and a split to a model directory: what the pipeline's train step does."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metalayer.data.loaders import RowPart
from metalayer.data.tracks import open_tracks
from metalayer.data.variant_weights import VariantWeights
from metalayer.errors import ModelError, SchemaError
from metalayer.files import scratch_directory
from metalayer.settings.run import RunConfig
from metalayer.settings.sections import TrainConfig
from metalayer.training.checkpoint import LAST, load_checkpoint
from metalayer.training.parts import Part, TrainingParts
from metalayer.training.trainer import new_model
from metalayer.workflows.fit import fit

logger = logging.getLogger(__name__)


def split_parts(
    rows: Path, tracks: Path | None, manifest: Mapping[str, Any], variants: Path | None, config: TrainConfig
) -> TrainingParts:
    """The training and validation part of a split; test genes are never opened.

    Args:
        rows: labelled rows.
        tracks: canonical per-nucleotide scores, if there are any.
        manifest: of `make_split`.
        variants: `VARIANT_WEIGHTS_FILE` of the rows, where there are variants.
        config: what is trained on; rows are read where it is rows.
    """
    store = open_tracks(tracks)

    def part(name: str) -> Part:
        gene_ids = manifest[name]["genes"]
        return Part(gene_ids, store, RowPart.read(rows, tracks, gene_ids) if config.training_unit == "rows" else None)

    return TrainingParts(part("train"), part("valid"), VariantWeights.read(variants))


def train_bundle(
    rows: Path,
    tracks: Path | None,
    manifest: Mapping[str, Any],
    config: RunConfig,
    output_dir: Path,
    provenance: Mapping[str, Any],
    checkpoints: Path | None = None,
    variants: Path | None = None,
) -> dict[str, Any]:
    """Train a model and publish it as a model directory, as `fit` does.

    Args:
        rows: labelled rows.
        tracks: canonical per-nucleotide scores, if there are any.
        manifest: of `make_split`.
        config: the run.
        output_dir: the model directory.
        provenance: facts that travel with the model (data_hash, git_commit ...).
        checkpoints: folder of this run and no other, for a checkpoint after each epoch; training goes on from the
            one that is there, and ends in the same model. None keeps none.
        variants: `VARIANT_WEIGHTS_FILE` of the rows, where there are variants.

    Returns:
        history (one entry an epoch), best_epoch, calibration, rows and parameters: JSON-ready; nothing where another
        process is the first.

    Raises:
        TrainingError: a loss that is not finite.
    """
    model = new_model(config.model, config.train, config.data.evidence)
    with scratch_directory(output_dir.with_name(f"{output_dir.name}-arrays")) as folder:
        fitted = fit(
            model,
            split_parts(rows, tracks, manifest, variants, config.train),
            config.train,
            output_dir,
            {
                **provenance,
                "base_model": config.data.base_model,
                "config": config.model_dump(mode="json", include={"data", "split", "model", "train"}),
                "split": {part: manifest[part]["genes"] for part in ("train", "valid", "test")},
            },
            arrays=folder,
            checkpoints=checkpoints,
            resume=checkpoints is not None and _can_go_on(checkpoints / LAST),
        )
    if not fitted.is_written:
        return {}
    return {
        "history": fitted.history,
        "best_epoch": fitted.best_epoch,
        "calibration": fitted.calibration,
        "parameters": sum(p.numel() for p in model.parameters()),
        fitted.unit: fitted.counts,
        "sample_weights": fitted.sample_weights,
        "device": fitted.device,
    }


def _can_go_on(checkpoint: Path) -> bool:
    """Whether a checkpoint is there and can be read; one that cannot is logged and passed over."""
    if not checkpoint.is_file():
        return False
    try:
        done = load_checkpoint(checkpoint)["history"][-1]["epoch"]
    except (ModelError, SchemaError) as error:
        logger.warning("%s; training starts again", error)
        return False
    logger.info("going on after epoch %d, from the checkpoint of an earlier attempt", done)
    return True
