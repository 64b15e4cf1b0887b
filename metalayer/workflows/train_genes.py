"""Training on whole genes: from per-nucleotide score files to a model directory."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metalayer.core import MetaLayerConfig
from metalayer.data.gene_parts import GenePart, gene_loaders
from metalayer.data.score_files import ScoreFile
from metalayer.data.splits import split_genes
from metalayer.data.tracks import TrackStore
from metalayer.device import use_threads
from metalayer.errors import SplitError
from metalayer.files import sha256
from metalayer.genome import Gene, unversioned
from metalayer.inference import Predictor
from metalayer.models.build import build_model
from metalayer.models.bundle import save_model
from metalayer.training import distributed
from metalayer.training.checkpoint import LAST
from metalayer.training.trainer import Trainer, best_epoch, seed_everything
from metalayer.workflows.train import calibrate_on_genes
from metalayer.workflows.train_meta import MODEL, resumed_config

logger = logging.getLogger(__name__)

TRAIN_TRACKS, VALID_TRACKS = "train_tracks.parquet", "valid_tracks.parquet"


def train_on_scores(
    scores: Sequence[Path],
    valid_scores: Sequence[Path],
    config: MetaLayerConfig,
    output_dir: Path,
    *,
    use_wandb: bool = False,
    resume: bool = False,
) -> dict[str, Any]:
    """Train on every position of the genes in per-nucleotide score files.

    Writes into `output_dir` what `train_meta_model` writes: checkpoints, history, curves and `model/`, the
    model directory.

    Args:
        scores: labelled Parquet files with letters, to train on.
        valid_scores: likewise, to pick the best epoch and to calibrate on; none: `val_split` of the genes of
            `scores`, whole genes, overlapping ones together.
        config: model and training.
        output_dir: folder to write.
        use_wandb: log to Weights & Biases.
        resume: go on from `last_model.pt` of a run that was cut off, where there is one.

    Returns:
        history, best_epoch, calibration, genes of each part and paths; JSON-ready but for the paths.

    Raises:
        ArtifactError: files that cannot be used.
        ConfigError: settings that this does not read, such as `variant_source`.
        SplitError: a gene to train on that is, or overlaps, one to validate on, or a part without genes.
        TrainingError: a part without sites, or a loss that is not finite.
    """
    config = MetaLayerConfig.for_scores(config.given(), separate=bool(valid_scores))
    folder = Path(output_dir)
    resumed = resume and (folder / LAST).exists()
    if resumed:
        config = resumed_config(folder / LAST, config)
    world = distributed.join(config.get_device())
    use_threads(config.threads)
    seed_everything(config.seed)
    model = build_model(config)
    data = folder / "data"
    if world.is_first:
        read_tracks(scores, valid_scores, data, allow_introns=config.allow_introns)
    world.wait()
    train, valid = gene_parts(data, bool(valid_scores), config)
    logger.info("training on %d genes, validating on %d", len(train.gene_ids), len(valid.gene_ids))
    arrays = data / f"process-{world.rank}"
    loaders = gene_loaders(train, valid, config, model.reach_bp, model.reads_features, arrays)
    if resumed:
        trainer = Trainer.from_checkpoint(
            folder / LAST, *loaders, use_wandb=use_wandb, max_epochs=config.max_epochs, device=config.device
        )
    else:
        trainer = Trainer(model, *loaders, config, folder, use_wandb)
    history = trainer.train()
    shutil.rmtree(arrays, ignore_errors=True)  # they stay mapped while they are used
    best = best_epoch(history, config.early_stopping_metric)
    result: dict[str, Any] = {
        "history": history,
        "best_epoch": int(best["epoch"]),
        "genes": {"train": sorted(train.gene_ids), "valid": sorted(valid.gene_ids)},
        "paths": {"model": folder / MODEL},
    }
    if not world.is_first:
        return result
    trainer.plot_history()
    predictor = Predictor(trainer.model, {}, "", str(trainer.device))
    result["calibration"] = calibrate_on_genes(predictor, valid.store, valid.gene_ids)
    save_model(
        trainer.model,
        folder / MODEL,
        {
            "base_model": config.base_model,
            "data_hash": {path.name: sha256(path) for path in (*scores, *valid_scores)},
            "config": config.model_dump(mode="json"),
            "seed": config.seed,
            "split": {**result["genes"], "test": []},
            "calibration": result["calibration"],
            "best_epoch": result["best_epoch"],
            "trained_on": "genes",
            "sample_weights": None,
        },
    )
    return result


def read_tracks(scores: Sequence[Path], valid_scores: Sequence[Path], data: Path, *, allow_introns: bool) -> None:
    """Read the files to train and to validate on into the folder `data`, for `gene_parts`.

    Args:
        scores: files to train on.
        valid_scores: files to validate on; perhaps none.
        data: folder to write.
        allow_introns: introns may begin and end with anything, not GT or GC and AG alone.

    Raises:
        ArtifactError: files that cannot be used.
    """
    ScoreFile.read(scores, data / TRAIN_TRACKS, {}, allow_introns=allow_introns)
    if valid_scores:
        ScoreFile.read(valid_scores, data / VALID_TRACKS, {}, allow_introns=allow_introns)


def gene_parts(data: Path, separate: bool, config: MetaLayerConfig) -> tuple[GenePart, GenePart]:
    """The genes to train and to validate on.

    Args:
        data: folder of `read_tracks`.
        separate: whether there were files to validate on; else `val_split` of the genes is drawn by `seed`.
        config: share and seed.

    Raises:
        SplitError: a gene to train on that is, or overlaps, one to validate on, or a part without genes.
    """
    store = TrackStore(data / TRAIN_TRACKS)
    genes = store.genes()
    if separate:
        other = TrackStore(data / VALID_TRACKS)
        refuse_crossing(genes, other.genes(), "--scores", "--valid-scores")
        return GenePart(store, list(genes)), GenePart(other, list(other.genes()))
    chrom_of = {gene_id: gene.interval.chrom for gene_id, gene in genes.items()}
    part_of = split_genes(chrom_of, genes, {"valid": config.val_split}, config.seed)
    parts = {part: [gene_id for gene_id in genes if part_of[gene_id] == part] for part in ("train", "valid")}
    for part, there in parts.items():
        if not there:
            raise SplitError(
                f"{len(genes)} genes to train on leave none for the {part} part at val_split {config.val_split:g}; "
                "give more genes, another share, or --valid-scores"
            )
    return GenePart(store, parts["train"]), GenePart(store, parts["valid"])


def refuse_crossing(genes: Mapping[str, Gene], others: Mapping[str, Gene], option: str, other_option: str) -> None:
    """Refuse genes on both sides, by name, in any version, or by place.

    Args:
        genes: gene by id.
        others: gene by id.
        option: which files `genes` are of.
        other_option: which files `others` are of.

    Raises:
        SplitError: a gene that is, or overlaps, one of the others.
    """
    versions = set(map(unversioned, others))
    both = sorted(gene_id for gene_id in genes if unversioned(gene_id) in versions)
    if both:
        raise SplitError(
            f"{len(both)} genes are in {option} and in {other_option} ({', '.join(both[:5])}): what was learned from "
            "them would be judged on them. Give each gene once"
        )
    for mine in genes.values():
        for other in others.values():
            if mine.interval.overlaps(other.interval):
                raise SplitError(
                    f"gene {mine.gene_id} of {option} overlaps {other.gene_id} of {other_option}; leave one of them out"
                )
