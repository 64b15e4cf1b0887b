"""A hyperparameter search on the split of a pipeline run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metalayer.config import ModelConfig, RunConfig, TrainConfig
from metalayer.core import MetaLayerConfig
from metalayer.data.gene_parts import gene_loaders, genes_with_tracks
from metalayer.data.variant_weights import VariantWeights
from metalayer.device import use_threads
from metalayer.models.build import build_model
from metalayer.training.search import hyperparameter_search
from metalayer.training.trainer import Loader
from metalayer.workflows.train import Part, open_tracks


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
    use_threads(config.train.threads)
    parts = ("train", "valid")
    if config.train.training_unit == "genes":
        store = open_tracks(tracks)
        train_genes, valid_genes = (genes_with_tracks(store, manifest[part]["genes"], part) for part in parts)

        def loaders(trial: MetaLayerConfig) -> tuple[Loader, Loader]:
            model = build_model(trial)  # how far it reads may be what is searched
            place = scratch / "crops"
            weights = VariantWeights.read(variants)
            return gene_loaders(train_genes, valid_genes, trial, model.reach_bp, model.reads_features, place, weights)

    else:
        train, valid = (Part.read(rows, tracks, manifest[part]["genes"]) for part in parts)

        def loaders(trial: MetaLayerConfig) -> tuple[Loader, Loader]:
            return train.training(trial), valid.validation(trial)

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
