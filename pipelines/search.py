"""The search pipeline: artifacts in, the best settings of model and training out."""

from __future__ import annotations

from zenml import pipeline

from metalayer.settings.run import RunConfig
from steps.label import label
from steps.load_artifacts import load_artifacts
from steps.search import search as search_step
from steps.split import split

CACHED = ("load_artifacts", "label", "split", "search")
GPU_STEPS = ("search",)
STEPS = CACHED


@pipeline(name="search")
def search(config: RunConfig, data_hash: str, code_hash: str) -> None:
    """Load, label and split as for training, then search on the training and validation genes."""
    versions = {"data_hash": data_hash, "code_hash": code_hash}
    rows, tracks, genes, load_report = load_artifacts(data=config.data, **versions)
    weighed = tracks if config.data.variant_source else None
    labelled, variants, _ = label(rows, genes, load_report, data=config.data, **versions, tracks=weighed)
    manifest, _, _ = split(
        labelled, genes, load_report, base_model=config.data.base_model, config=config.split, **versions
    )
    search_step(
        labelled,
        tracks,
        variants,
        manifest,
        data=config.data,
        split=config.split,
        model=config.model,
        train=config.train,
        config=config.search,
        **versions,
    )
