"""Hyperparameter search: Optuna proposes, the Trainer trains, validation genes judge.

Test genes are never opened. Each trial trains from the same seed on the same rows.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import optuna

from metalayer.errors import ConfigError, TrainingError
from metalayer.files import publish_file, scratch_directory
from metalayer.metric_list import VALIDATION_METRICS
from metalayer.models.meta import MetaSpliceModel
from metalayer.settings.flat import MetaLayerConfig
from metalayer.settings.search import space_mistakes
from metalayer.training.parts import Loaders, TrainingParts
from metalayer.training.trainer import Epoch, Trainer, best_epoch, new_model

logger = logging.getLogger(__name__)

Space = Mapping[str, Sequence[Any]]
DEFAULT_SPACE: dict[str, Sequence[Any]] = {
    "learning_rate": (1e-5, 1e-3),
    "batch_size": [32, 64, 128, 256],
    "hidden_dim": [128, 256, 512],
    "dropout": (0.0, 0.3),
    "weight_decay": (0.0, 0.1),
}
"""The ranges of the training guide."""
STORAGE, RESULTS, BEST_CONFIG = "search.db", "results.json", "best_config.yaml"
_WARMUP_EPOCHS = 2
_WARMUP_TRIALS = 4
_LOG_RANGE = 30.0
"""A range whose ends are further apart than this factor is searched by its logarithm."""


MakeLoaders = Callable[[MetaSpliceModel, MetaLayerConfig], Loaders]
"""From the untrained network and the configuration of a trial to its training and validation loader."""


def hyperparameter_search(
    base_config: MetaLayerConfig,
    search_space: Space | None = None,
    n_trials: int = 10,
    metric: str = "pr_auc_splice",
    direction: Literal["maximize", "minimize"] = "maximize",
    output_dir: str | Path = "models/search",
    resume: bool = False,
    in_all: bool = False,
    make_loaders: MakeLoaders | None = None,
) -> tuple[MetaLayerConfig, list[dict[str, Any]]]:
    """Search settings of training and model.

    Trials are proposed by a tree-structured Parzen estimator; a trial that is behind the median of the earlier ones at
    the same epoch is pruned. Writes the study (`search.db`), `results.json` and `best_config.yaml`, after every trial.
    What is proposed depends on `base_config.seed` and the trials that are over, so that a search which was cut off
    and goes on proposes what it would have proposed.

    Args:
        base_config: all that is not searched.
        search_space: by setting a list of choices, or a tuple (low, high): a range, whole numbers where the
            setting is one; searched by its logarithm where it spans more than a factor of 30. None takes
            the guide's ranges.
        n_trials: how many to train; with `resume`, how many more.
        in_all: with `resume`, `n_trials` counts those of the study too.
        metric: a validation figure: pr_auc_splice, ap_splice, ap_donor, ap_acceptor, loss.
        direction: `maximize`, or `minimize` for the loss.
        output_dir: folder to write.
        resume: go on with the study in `output_dir`; else a study that is there is replaced.
        make_loaders: gives each trial its rows or genes; None prepares the training set of `base_config` in
            `output_dir`/data and splits it by gene.

    Returns:
        The best configuration, and of every trial: number, state, value, epoch and settings, best first.

    Raises:
        ConfigError: a setting, choice, metric or direction that does not exist or fit, all at once; or a study of
            another space to resume.
        TrainingError: no trial that came to an end.
    """
    space = search_space
    if space is None:  # of the guide's ranges those that act
        idle = base_config.idle()
        space = {name: values for name, values in DEFAULT_SPACE.items() if name not in idle}
    _check(base_config, space, n_trials, metric, direction)
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    loaders = make_loaders or _of_dataset(base_config, folder / "data")

    def objective(trial: optuna.Trial) -> float:
        config = _proposed(base_config, space, trial)
        logger.info("trial %d: %s", trial.number, ", ".join(_setting(k, v) for k, v in trial.params.items()))
        return _train(config, loaders, metric, direction, trial)

    asked = _asked(base_config, space, metric)
    base_config = _configured(base_config, {"early_stopping_metric": metric})
    with scratch_directory(folder / STORAGE) as scratch:
        study = _study(folder, scratch / STORAGE, direction, asked, resume)
        write = _writer(folder, scratch / STORAGE, base_config)
        over = len(study.trials)
        if over and in_all:
            logger.info("going on after %d of %d trials", over, n_trials)
        for number in range(over, n_trials if in_all else over + n_trials):
            study.sampler = optuna.samplers.TPESampler(seed=base_config.seed + number)
            study.optimize(objective, n_trials=1, catch=(TrainingError, ConfigError), callbacks=[write])
        results = _results(study)
    if not results or results[0]["state"] != "complete":
        raise TrainingError(
            f"none of {n_trials} trials came to an end ({', '.join(sorted({r['state'] for r in results}))}); see the "
            "log, and search smaller learning rates"
        )
    return _configured(base_config, results[0]["settings"]), results


def _of_dataset(base: MetaLayerConfig, folder: Path) -> MakeLoaders:
    from metalayer.data.prepare import prepare_training_dataset

    parts, _ = TrainingParts.of_dataset(prepare_training_dataset(base, output_dir=folder), base)  # judge all trials

    def make(model: MetaSpliceModel, config: MetaLayerConfig) -> Loaders:
        return parts.loaders(model, config, folder / "crops")

    return make


def _check(base: MetaLayerConfig, space: Space, n_trials: int, metric: str, direction: str) -> None:
    mistakes = [f"search_space.{line}" for line in space_mistakes(space, dict(base))]
    if n_trials < 1:
        mistakes.append(f"n_trials: given {n_trials}; at least 1")
    if metric not in VALIDATION_METRICS:
        mistakes.append(f"metric: given {metric!r}; there are {', '.join(VALIDATION_METRICS)}")
    if direction not in ("maximize", "minimize") or (direction == "minimize") != (metric == "loss"):
        mistakes.append(f"direction: given {direction!r}; maximize an average precision, minimize the loss")
    if mistakes:
        raise ConfigError("hyperparameter search: " + "; ".join(mistakes))


def _asked(base: MetaLayerConfig, space: Space, metric: str) -> dict[str, Any]:
    """What a study is of: one with another answer is another study."""
    kinds = {
        name: {"low": values[0], "high": values[1]} if isinstance(values, tuple) else list(values)
        for name, values in space.items()
    }
    rest = base.model_dump(mode="json", exclude={*space, "device", "threads", "num_workers"})
    asked: dict[str, Any] = json.loads(json.dumps({"space": kinds, "metric": metric, "base": rest}))
    return asked


def _study(folder: Path, storage: Path, direction: str, asked: dict[str, Any], resume: bool) -> optuna.Study:
    """The study, in a database of its own: a copy of it in `folder` has the trials that are over, and no other."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if resume and (folder / STORAGE).exists():
        shutil.copyfile(folder / STORAGE, storage)
    elif not resume:
        for name in (STORAGE, RESULTS, BEST_CONFIG):
            (folder / name).unlink(missing_ok=True)
    study = optuna.create_study(
        study_name="search",
        storage=f"sqlite:///{storage}",
        direction=direction,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_WARMUP_TRIALS, n_warmup_steps=_WARMUP_EPOCHS),
        load_if_exists=resume,
    )
    there = study.user_attrs.get("asked", asked)
    other = [name for name in asked if there.get(name) != asked[name]]
    if other:
        raise ConfigError(
            f"{folder / STORAGE} is a search with another {' and '.join(other)}; give the same to resume it, or "
            "another output_dir"
        )
    study.set_user_attr("asked", asked)
    return study


def _proposed(base: MetaLayerConfig, space: Space, trial: optuna.Trial) -> MetaLayerConfig:
    settings: dict[str, Any] = {}
    for name, values in space.items():
        if not isinstance(values, tuple):
            # Choices that are no plain values (kernel sizes) are named by their place.
            plain = all(value is None or isinstance(value, bool | int | float | str) for value in values)
            choice = trial.suggest_categorical(name, list(values) if plain else list(range(len(values))))
            settings[name] = choice if plain else values[int(choice)]
            continue
        low, high = values
        spans = low > 0 and high / low > _LOG_RANGE
        if type(base).model_fields[name].annotation is int:
            settings[name] = trial.suggest_int(name, int(low), int(high), log=spans)
        else:
            settings[name] = trial.suggest_float(name, float(low), float(high), log=spans)
    acting = type(base).acting({**base.model_dump(), **settings})
    trial.set_user_attr("settings", {name: value for name, value in settings.items() if name in acting})
    return _configured(base, settings)


def _setting(name: str, value: Any) -> str:
    return f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"


def _configured(base: MetaLayerConfig, settings: Mapping[str, Any]) -> MetaLayerConfig:
    """The settings put into the configuration; what cannot act beside them has its default."""
    return type(base)(**type(base).acting({**base.model_dump(), **settings}))


def _train(config: MetaLayerConfig, loaders: MakeLoaders, metric: str, direction: str, trial: optuna.Trial) -> float:
    model = new_model(config, config, config.evidence)
    train_loader, val_loader = loaders(model, config)
    better = max if direction == "maximize" else min
    best: list[float] = []

    def report(epoch: Epoch) -> None:
        value = epoch[f"val_{metric}"]
        best[:] = [better([value, *best])]
        trial.report(best[0], int(epoch["epoch"]))
        if trial.should_prune():
            raise optuna.TrialPruned(f"behind the other trials at epoch {epoch['epoch']}")

    config = _configured(config, {"early_stopping_metric": metric})
    history = Trainer(model, train_loader, val_loader, config, on_epoch=report).train()
    kept = best_epoch(history, metric)
    trial.set_user_attr("epoch", int(kept["epoch"]))
    return float(kept[f"val_{metric}"])


def _results(study: optuna.Study) -> list[dict[str, Any]]:
    """Trials, those that came to an end first, best first."""
    sign = -1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1.0
    out = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value if trial.value is not None and math.isfinite(trial.value) else None,
            "epoch": trial.user_attrs.get("epoch"),
            "settings": trial.user_attrs.get("settings", {}),
        }
        for trial in study.trials
    ]

    def order(result: dict[str, Any]) -> tuple[bool, float]:
        whole = result["state"] == "complete" and result["value"] is not None
        return not whole, sign * result["value"] if whole else 0.0

    return sorted(out, key=order)


def _writer(
    folder: Path, storage: Path, base: MetaLayerConfig
) -> Callable[[optuna.Study, optuna.trial.FrozenTrial], None]:
    def write(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        results = _results(study)
        done = trial.state.name == "COMPLETE" and trial.value is not None
        told = f"{trial.value:.4f}" if done else trial.state.name.lower()
        logger.info("trial %d: %s; best so far %.4f", trial.number, told, results[0]["value"] or math.nan)
        with publish_file(folder / STORAGE) as draft:
            shutil.copyfile(storage, draft)  # nothing is written to it between two trials
        with publish_file(folder / RESULTS) as draft:
            draft.write_text(json.dumps(results, indent=1), encoding="utf-8")
        if results[0]["state"] == "complete":
            _configured(base, results[0]["settings"]).to_yaml(folder / BEST_CONFIG)

    return write
