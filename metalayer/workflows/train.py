"""From labelled rows and a split to a model directory."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.config import RunConfig, TrainConfig
from metalayer.data.dataset import RowLoader, Rows, RowTable
from metalayer.data.gene_parts import gene_loaders, genes_with_tracks
from metalayer.data.prevalence import prevalence_weights
from metalayer.data.same_genes import SEEN_KEY, described, known_genes
from metalayer.data.tracks import TrackStore
from metalayer.data.variant_weights import Unit, VariantWeights
from metalayer.device import use_threads
from metalayer.errors import ModelError, SchemaError
from metalayer.evaluation.calibration import Calibration, beyond_chance, fit, mixed, shrinkage_factors
from metalayer.files import scratch_directory
from metalayer.inference import Predictor
from metalayer.inference.predictor import base_probabilities
from metalayer.models.build import build_model
from metalayer.models.bundle import save_model
from metalayer.schema import POSITIONS, ROWS, WAYS
from metalayer.training.checkpoint import LAST
from metalayer.training.trainer import Loader, Trainer, best_epoch, seed_everything

logger = logging.getLogger(__name__)

TrainingUnit = Literal["rows", "genes"]
_UNIT: dict[TrainingUnit, Unit] = {"rows": "rows", "genes": "positions"}


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
    checkpoints: Path | None = None,
    variants: Path | None = None,
) -> dict[str, Any]:
    """Train a model and publish it as a model directory.

    Normalisation, weights and training see the training genes alone; the best epoch and the
    calibration come from the validation genes; test genes are never opened. Started by torchrun, each process
    takes its share of every batch, and the first publishes.

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
    use_threads(config.train.threads)
    seed_everything(config.train.seed)
    model = build_model(config.model)
    unit = config.train.training_unit
    with scratch_directory(output_dir.with_name(f"{output_dir.name}-arrays")) as folder:
        store = open_tracks(tracks)
        weights = VariantWeights.read(variants)
        loaders: tuple[Loader, Loader]
        if unit == "genes":
            train, valid = (genes_with_tracks(store, manifest[part]["genes"], part) for part in ("train", "valid"))
            loaders = gene_loaders(train, valid, config.train, model.reach_bp, model.reads_features, folder, weights)
            counts = {part: len(loader.labels) for part, loader in zip(("train", "valid"), loaders, strict=True)}
            learned = pl.DataFrame({"gene_id": list(train.gene_ids)})
        else:
            train_rows, valid_rows = (Part.read(rows, tracks, manifest[part]["genes"]) for part in ("train", "valid"))
            loaders = train_rows.training(config.train), valid_rows.validation(config.train)
            counts = {"train": len(train_rows.table), "valid": len(valid_rows.table)}
            learned = train_rows.table.frame.select("gene_id", "position")
        logger.info("training on %s %s, validating on %s", f"{counts['train']:,}", _UNIT[unit], f"{counts['valid']:,}")
        used = weights_used(weights, unit, learned)
        trainer = Trainer(model, loaders[0], loaders[1], config.train, checkpoints)
        if checkpoints is not None:
            resume(trainer, checkpoints / LAST)
        history = trainer.train()
        if not trainer.world.is_first:
            return {}
        predictor = Predictor(trainer.model, {}, "", config.train.device)
        tracked = [gene_id for gene_id in manifest["valid"]["genes"] if store and gene_id in store]
        if store and tracked:
            calibration = calibrate_on_genes(predictor, store, tracked, weights)
        else:
            table = valid_rows.table
            calibration = calibrate_on_rows(predictor, table, np.arange(len(table)), valid_rows.in_genes, weights)
    learned_from = [gene_id for part in ("train", "valid") for gene_id in manifest[part]["genes"]]
    result = {
        "history": history,
        "best_epoch": best_epoch(history, config.train.early_stopping_metric)["epoch"],
        "calibration": calibration,
        "parameters": sum(p.numel() for p in model.parameters()),
        _UNIT[unit]: counts,
        "sample_weights": used,
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
            SEEN_KEY: described(known_genes(store, learned_from)) if store else [],
            "calibration": result["calibration"],
            "best_epoch": result["best_epoch"],
            "trained_on": unit,
            "sample_weights": used,
        },
    )
    return result


def weights_used(weights: VariantWeights | None, unit: TrainingUnit, training: pl.DataFrame) -> dict[str, Any] | None:
    """What variants weigh in a training, which is logged: the model directory says this and nothing more.

    Args:
        weights: None where there are no variants.
        unit: what is trained on.
        training: gene_id of the training genes; of rows also their position.

    Returns:
        As `VariantWeights.used`; None without variants.
    """
    if weights is None:
        return None
    used = weights.used(_UNIT[unit], training)
    found = tuple(f"{used[name]:,}" for name in ("variants", "weighed", "genes"))
    if used["weighed"]:
        logger.info("%s variants weigh %s %s of %s training genes", *found[:2], _UNIT[unit], found[2])
    else:
        logger.warning("no variant touches a training gene: all %s weigh alike", _UNIT[unit])
    return used


def resume(trainer: Trainer, checkpoint: Path) -> None:
    """Go on from a checkpoint, if there is one; one that cannot be read is logged and passed over."""
    if not checkpoint.is_file():
        return
    try:
        trainer.resume(checkpoint)
    except (ModelError, SchemaError) as error:
        logger.warning("%s; training starts again", error)
    else:
        logger.info("going on after epoch %d, from the checkpoint of an earlier attempt", trainer.history[-1]["epoch"])


def calibrate_on_genes(
    predictor: Predictor, store: TrackStore, gene_ids: Sequence[str], weights: VariantWeights | None = None
) -> dict[str, dict[str, Any]]:
    """Fit shrinkage factors and calibration on all positions of validation genes, and put them into the model.

    Each way of asking that the network answers on a path of its own is fitted alone: rows, where they do without the
    scores around a position, on the same positions with those masked. Answers that no correction is left of are the
    base's, and recalibrated only where that is `beyond_chance`.

    Args:
        predictor: of the model.
        store: per-nucleotide scores with letters.
        gene_ids: the validation genes that are there.
        weights: doubtful positions of these are left out, as are those that another gene labels differently.

    Returns:
        By way of asking: shrinkage (donor, acceptor), scale, bias, what they were fitted on, how many were left out of
        it, and the reason where they change nothing. JSON-ready.
    """
    ways = WAYS if predictor.masks_rows else (POSITIONS,)
    doubtful = weights.doubtful("positions", gene_ids) if weights else {}
    found = {way: _fitted_on_genes(predictor, store, gene_ids, way, doubtful) for way in ways}
    return {way: found.get(way, found[POSITIONS]) for way in WAYS}


def _fitted_on_genes(
    predictor: Predictor,
    store: TrackStore,
    gene_ids: Sequence[str],
    way: str,
    doubtful: Mapping[str, NDArray[np.int64]],
) -> dict[str, Any]:
    logger.info("calibrating answers for %s on all positions of %d validation genes", way, len(gene_ids))
    answers, bases, labels, left_out = [], [], [], 0
    for track in store.read_many(list(gene_ids)):
        gene_id = track.gene.gene_id
        out = np.union1d(doubtful.get(gene_id, []), store.contradicted(gene_id)).astype(np.int64)
        answers.append(np.delete(predictor.log_probabilities(track, way), out, axis=0))
        bases.append(np.delete(np.log(base_probabilities(track.scores)), out, axis=0))
        labels.append(np.delete(track.labels, out))
        left_out += len(out)
    log_p, log_base, truth = np.concatenate(answers), np.concatenate(bases), np.concatenate(labels)
    genes = np.repeat(np.arange(len(answers)), [len(answer) for answer in answers])
    shrinkage = shrinkage_factors(log_base, log_p, truth, genes)
    predictor.model.calibrator(way).set_shrinkage(*shrinkage)
    probabilities = np.exp(mixed(log_base, log_p, shrinkage))
    calibration = fit(probabilities, truth)
    if not calibration.reason and not any(shrinkage) and not beyond_chance(calibration, probabilities, truth, genes):
        calibration = Calibration(reason="answers are the base's, which the validation genes do not show to be off")
    return _put(predictor, way, calibration, "positions", left_out, shrinkage)


def calibrate_on_rows(
    predictor: Predictor,
    table: RowTable,
    rows: Rows,
    in_genes: NDArray[np.float32],
    weights: VariantWeights | None = None,
) -> dict[str, dict[str, Any]]:
    """Fit the calibration of a model on validation rows and put it into the model.

    Where the model reads the scores around a position, which rows do not carry, its answers for positions stay
    uncalibrated, and that is said.

    Args:
        predictor: of the model.
        table: where the rows are.
        rows: the validation rows.
        in_genes: how many positions of their genes each stands for, float32 (n,).
        weights: doubtful rows of these are left out.

    Returns:
        As in `calibrate_on_genes`.
    """
    logger.info("calibrating on %d validation rows", len(rows))
    log_p = predictor.row_log_probabilities(table.features[rows], table.windows[rows])
    doubtful = np.zeros(len(rows), dtype=bool)
    if weights:
        places = table.frame.select("gene_id", pl.col("position").cast(pl.Int64))[rows]
        found = weights.doubtful("rows", places["gene_id"].unique().to_list())
        for gene_id, at in found.items():
            doubtful |= (places["gene_id"] == gene_id).to_numpy() & np.isin(places["position"].to_numpy(), at)
    calibration = fit(np.exp(log_p), table.labels[rows], np.where(doubtful, 0.0, in_genes))
    fitted = _put(predictor, ROWS, calibration, "rows", int(doubtful.sum()))
    if not predictor.masks_rows:
        return dict.fromkeys(WAYS, fitted)
    logger.warning("no validation gene has per-nucleotide scores: answers for positions are not calibrated")
    return {POSITIONS: _put(predictor, POSITIONS, Calibration(), "nothing", 0), ROWS: fitted}


def _put(
    predictor: Predictor,
    way: str,
    calibration: Calibration,
    unit: str,
    left_out: int,
    shrinkage: Sequence[float] = (1.0, 1.0),
) -> dict[str, Any]:
    predictor.model.calibrator(way).set_calibration(calibration.scale, calibration.bias)
    return {
        "shrinkage": list(shrinkage),
        "scale": calibration.scale,
        "bias": list(calibration.bias),
        "fitted_on": unit,
        "left_out": left_out,
        "reason": calibration.reason,
    }
