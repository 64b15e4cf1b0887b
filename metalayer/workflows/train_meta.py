"""The training guide in one call: from base-layer files to an evaluated model."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from metalayer.core import ArtifactLoader, MetaLayerConfig
from metalayer.data.dataset import MetaLayerDataset
from metalayer.data.loaders import check_shares
from metalayer.data.prepare import MANIFEST, TRAINING_DATA, prepare_training_dataset
from metalayer.data.variant_weights import VARIANT_WEIGHTS_FILE
from metalayer.errors import ArtifactError, ConfigError
from metalayer.files import publish_file
from metalayer.integrity import FILES, check_files, read_json, unsealed
from metalayer.provenance import code_hash
from metalayer.training import distributed
from metalayer.training.checkpoint import BEST, LAST, load_checkpoint
from metalayer.training.evaluator import MetaLayerEvaluator
from metalayer.training.parts import TrainingParts
from metalayer.training.trainer import CONFIG, HISTORY, LOGS, new_model
from metalayer.workflows.fit import fit

logger = logging.getLogger(__name__)

DATA, MODEL, METRICS = "data", "model", "metrics.json"
_DATA_SETTINGS = (
    *("base_model", "data_root", "annotation_source", "genome_build", "artifacts_dir", "gene_table"),
    *("nucleotide_scores", "variant_source", "splicevardb_path", "variant_radius_bp", "max_bad_share", "max_samples"),
    *("allow_introns", "evidence"),
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
        metrics (of the test genes' rows, see `MetaLayerEvaluator`), base_metrics (the same of the base model's scores),
        history, best_epoch, calibration and paths; JSON-ready but for the paths.

    Raises:
        InputError: files or settings that cannot be used.
        TrainingError: a loss that is not finite.
    """
    folder = Path(output_dir)
    resumed = resume and (folder / LAST).exists()
    if resumed:
        config = resumed_config(folder / LAST, config)
    if config.head != "network":
        raise ConfigError(f"head: given {config.head!r}; a stack is fitted to whole genes: metalayer train --scores")
    check_shares(config.train_split, config.val_split, config.test_split)
    world = distributed.join(config.get_device())
    model = new_model(config, config, config.evidence)
    if world.is_first:
        _prepared(config, folder / DATA)
        _ = MetaLayerDataset(folder / DATA / TRAINING_DATA).labels  # maps it, once for all processes
    world.wait()
    dataset = MetaLayerDataset(folder / DATA / TRAINING_DATA)
    parts, test = TrainingParts.of_dataset(dataset, config)
    genes = {"train": parts.train.gene_ids, "valid": parts.valid.gene_ids, "test": test.gene_ids}
    arrays = folder / DATA / f"process-{world.rank}"
    manifest = read_json(folder / DATA / MANIFEST, ArtifactError, f"remove {folder / DATA} and run again")
    fitted = fit(
        model,
        parts,
        config,
        folder / MODEL,
        {
            "base_model": config.base_model,
            "data_hash": manifest["data_hash"],
            "config": config.model_dump(mode="json"),
            "split": genes,
        },
        arrays=arrays,
        checkpoints=folder,
        resume=resumed,
        use_wandb=use_wandb,
    )
    shutil.rmtree(arrays, ignore_errors=True)
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
    result: dict[str, Any] = {"history": fitted.history, "best_epoch": fitted.best_epoch, "paths": paths}
    if not fitted.is_written:
        return result
    assert fitted.trainer is not None  # a stack was refused
    paths["curves"] = fitted.trainer.plot_history()
    assert test.rows is not None
    test_loader = test.rows.validation(config.batch_size, config.num_workers)
    evaluator = MetaLayerEvaluator(config.top_k_values)
    metrics = evaluator.evaluate_dataloader(model, test_loader, fitted.trainer.device)
    base = evaluator.evaluate_base(test_loader)
    with publish_file(paths["metrics"]) as draft:
        draft.write_text(json.dumps({**metrics, "base": base}, indent=1), encoding="utf-8")
    return {"metrics": metrics, "base_metrics": base, "calibration": fitted.calibration, **result}


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
