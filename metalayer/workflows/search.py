"""A hyperparameter search on the split of a pipeline run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metalayer.core import MetaLayerConfig
from metalayer.models.meta import MetaSpliceModel
from metalayer.settings.network import ModelConfig
from metalayer.settings.run import RunConfig
from metalayer.settings.sections import TrainConfig
from metalayer.training.parts import Loaders
from metalayer.training.search import hyperparameter_search
from metalayer.workflows.train import split_parts


def search_bundle(
    rows: Path,
    tracks: Path | None,
    manifest: Mapping[str, Any],
    config: RunConfig,
    scratch: Path,
    study: Path,
    variants: Path | None = None,
) -> dict[str, Any]:
    """Search settings on the training and validation genes; test genes are never opened.

    Args:
        rows: labelled rows.
        tracks: canonical per-nucleotide scores, if there are any.
        manifest: of `make_split`.
        config: the run; `config.search` says what to search.
        scratch: folder for what is needed meanwhile.
        study: folder of this search and no other; one that is there and was cut off goes on, and comes to the same
            end as one that was not.
        variants: `VARIANT_WEIGHTS_FILE` of the rows, where there are variants.

    Returns:
        metric, best (the `model` and `train` sections of the best trial) and trials, best first: JSON-ready.

    Raises:
        ConfigError: settings that do not exist or fit.
        TrainingError: no trial that came to an end.
    """
    parts = split_parts(rows, tracks, manifest, variants, config.train)

    def loaders(model: MetaSpliceModel, trial: MetaLayerConfig) -> Loaders:
        return parts.loaders(model, trial, scratch / "crops")

    base = MetaLayerConfig(**dict(config.data), **dict(config.model), **dict(config.train))
    best, trials = hyperparameter_search(
        base,
        config.search.choices(),
        config.search.n_trials,
        config.search.metric,
        "minimize" if config.search.metric == "loss" else "maximize",
        study,
        resume=True,
        in_all=True,
        make_loaders=loaders,
    )
    values = best.model_dump(mode="json")
    sections = {
        section.section: {name: values[name] for name in section.model_fields} for section in (ModelConfig, TrainConfig)
    }
    return {"metric": config.search.metric, "best": sections, "trials": trials}
