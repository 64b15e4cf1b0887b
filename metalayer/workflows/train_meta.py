"""The training guide in one call: from base-layer files to an evaluated model."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from metalayer.core import ArtifactLoader, MetaLayerConfig
from metalayer.data.dataset import MetaLayerDataset
from metalayer.data.gene_parts import gene_loaders, genes_with_tracks
from metalayer.data.loaders import check_shares, configured_dataloaders
from metalayer.data.prepare import MANIFEST, TRAINING_DATA, prepare_training_dataset
from metalayer.data.same_genes import SEEN_KEY, described, known_genes
from metalayer.data.variant_weights import VARIANT_WEIGHTS_FILE, VariantWeights
from metalayer.device import use_threads
from metalayer.errors import ArtifactError, ConfigError
from metalayer.files import publish_file
from metalayer.inference import Predictor
from metalayer.integrity import FILES, check_files, read_json, unsealed
from metalayer.models.build import build_model
from metalayer.models.bundle import save_model
from metalayer.provenance import code_hash
from metalayer.training import distributed
from metalayer.training.checkpoint import BEST, LAST, load_checkpoint
from metalayer.training.evaluator import MetaLayerEvaluator
from metalayer.training.trainer import CONFIG, HISTORY, LOGS, Loader, Trainer, best_epoch, seed_everything
from metalayer.workflows.train import (
    calibrate_on_genes,
    calibrate_on_rows,
    open_tracks,
    weights_used,
)

logger = logging.getLogger(__name__)

DATA, MODEL, METRICS = "data", "model", "metrics.json"
_DATA_SETTINGS = (
    *("base_model", "data_root", "annotation_source", "genome_build", "artifacts_dir", "gene_table"),
    *("nucleotide_scores", "variant_source", "splicevardb_path", "variant_radius_bp", "max_bad_share", "max_samples"),
    "allow_introns",
)


def train_meta_model(
    config: MetaLayerConfig, output_dir: str | Path, use_wandb: bool = False, resume: bool = False
) -> dict[str, Any]:
    """Prepare the training set, train, calibrate and evaluate.

    Writes into `output_dir`: `data/` (the training set, kept while files, settings and code are the same),
    checkpoints and history of the `Trainer`, `history.png`, `model/` (the model directory that
    `metalayer score` and `Predictor.load` take) and `metrics.json`.

    Args:
        config: data, model and training.
        output_dir: folder to write.
        use_wandb: log to Weights & Biases.
        resume: go on from `last_model.pt` of a run that was cut off, where there is one, with the settings
            of that run but for `max_epochs` and `device`.

    Returns:
        metrics (of the test genes' rows, see `MetaLayerEvaluator`), history, best_epoch, calibration and
        paths; JSON-ready but for the paths.

    Raises:
        InputError: files or settings that cannot be used.
        TrainingError: a loss that is not finite.
    """
    folder = Path(output_dir)
    resumed = resume and (folder / LAST).exists()
    if resumed:
        config = resumed_config(folder / LAST, config)
    check_shares(config.train_split, config.val_split, config.test_split)
    world = distributed.join(config.get_device())
    use_threads(config.threads)
    seed_everything(config.seed)
    model = build_model(config)
    if world.is_first:
        _prepared(config, folder / DATA)
        _ = MetaLayerDataset(folder / DATA / TRAINING_DATA).labels  # maps it, once for all processes
    world.wait()
    dataset = MetaLayerDataset(folder / DATA / TRAINING_DATA)
    train_loader, val_loader, test_loader = configured_dataloaders(dataset, config)
    genes = {
        part: sorted(dataset.frame["gene_id"].gather(loader.rows).unique().to_list())
        for part, loader in (("train", train_loader), ("valid", val_loader), ("test", test_loader))
    }
    store = open_tracks(dataset.beside("tracks.parquet"))
    weights = VariantWeights.read(dataset.beside(VARIANT_WEIGHTS_FILE))
    loaders: tuple[Loader, Loader] = train_loader, val_loader
    if config.training_unit == "genes":
        train, valid = (genes_with_tracks(store, genes[part], part) for part in ("train", "valid"))
        place = folder / DATA / f"process-{world.rank}"
        loaders = gene_loaders(train, valid, config, model.reach_bp, model.reads_features, place, weights)
        learned = pl.DataFrame({"gene_id": list(train.gene_ids)})
    else:
        learned = dataset.frame.select("gene_id", "position")[train_loader.rows]
        logger.info("training on %d rows, validating on %d", len(train_loader.rows), len(val_loader.rows))
    used = weights_used(weights, config.training_unit, learned)
    if resumed:
        trainer = Trainer.from_checkpoint(
            folder / LAST,
            *loaders,
            use_wandb=use_wandb,
            max_epochs=config.max_epochs,
            device=config.device,
        )
    else:
        trainer = Trainer(model, *loaders, config, folder, use_wandb)
    history = trainer.train()
    shutil.rmtree(folder / DATA / f"process-{world.rank}", ignore_errors=True)  # stays mapped while it is used
    paths = {
        "best_model": folder / BEST,
        "last_model": folder / LAST,
        "config": folder / CONFIG,
        "history": folder / HISTORY,
        "logs": folder / LOGS,
        "model": folder / MODEL,
        "training_data": folder / DATA / TRAINING_DATA,
        "metrics": folder / METRICS,
    }
    best = best_epoch(history, config.early_stopping_metric)
    if not world.is_first:
        return {"history": history, "best_epoch": int(best["epoch"]), "paths": paths}
    paths["curves"] = trainer.plot_history()
    model = trainer.model
    predictor = Predictor(model, {}, "", str(trainer.device))
    tracked = [gene_id for gene_id in genes["valid"] if store and gene_id in store]
    if store and tracked:
        calibration = calibrate_on_genes(predictor, store, tracked, weights)
    else:
        calibration = calibrate_on_rows(predictor, dataset, val_loader.rows, val_loader.weights, weights)
    metrics = MetaLayerEvaluator(config.top_k_values).evaluate_dataloader(model, test_loader, trainer.device)
    manifest = read_json(folder / DATA / MANIFEST, ArtifactError, f"remove {folder / DATA} and run again")
    save_model(
        model,
        folder / MODEL,
        {
            "base_model": config.base_model,
            "data_hash": manifest["data_hash"],
            "config": config.model_dump(mode="json"),
            "seed": config.seed,
            "split": genes,
            SEEN_KEY: described(known_genes(store, [*genes["train"], *genes["valid"]])) if store else [],
            "calibration": calibration,
            "best_epoch": int(best["epoch"]),
            "trained_on": config.training_unit,
            "sample_weights": used,
        },
    )
    with publish_file(paths["metrics"]) as draft:
        draft.write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    return {
        "metrics": metrics,
        "history": history,
        "best_epoch": int(best["epoch"]),
        "calibration": calibration,
        "paths": paths,
    }


def resumed_config(path: Path, asked: MetaLayerConfig) -> MetaLayerConfig:
    """The settings of the run that goes on; only how long and on what device it trains may change."""
    config = MetaLayerConfig(**load_checkpoint(path)["config"])
    free = {"max_epochs", "device"}
    other = [
        name
        for name, value in asked.model_dump(mode="json", exclude=free).items()
        if name in asked.model_fields_set and value != config.model_dump(mode="json")[name]
    ]
    if other:
        raise ConfigError(
            f"--resume: {', '.join(other)} differ from the run in {path.parent}; leave them as they were, or start "
            "a new run in another folder"
        )
    config.max_epochs, config.device = asked.max_epochs, asked.device
    return config


def _prepared(config: MetaLayerConfig, folder: Path) -> None:
    """Prepare the training set, unless it is there and was made of the same files with the same settings and code."""
    try:
        manifest = unsealed((folder / MANIFEST).read_text(encoding="utf-8"))
        check_files(folder, manifest[FILES], ArtifactError, "it is made again")
    except ArtifactError as error:
        logger.warning("%s", error)
        manifest = {}
    except (OSError, ValueError, KeyError):
        manifest = {}
    wanted = config.model_dump(mode="json")
    same = {name: wanted[name] for name in (*_DATA_SETTINGS, "seed")}
    made = {name: manifest.get("config", {}).get(name) for name in same}
    if (
        made == same
        and manifest.get("code_hash") == code_hash()
        and (folder / TRAINING_DATA).exists()
        and (folder / VARIANT_WEIGHTS_FILE).exists() == (config.variant_source is not None)
        and manifest.get("data_hash") == ArtifactLoader(config).fingerprint()
    ):
        logger.info("the training set in %s is of the same files, settings and code", folder)
        return
    prepare_training_dataset(config, output_dir=folder)
