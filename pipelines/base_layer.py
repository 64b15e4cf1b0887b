"""The base-layer pipeline: a reference and an annotation in, a data root to train on out."""

from __future__ import annotations

from zenml import pipeline

from metalayer.settings.sections import BaseConfig
from steps.base_layer import base_layer as base_layer_step

CACHED = ("base_layer",)
GPU_STEPS = ("base_layer",)
STEPS = CACHED


@pipeline(name="base_layer")
def base_layer(config: BaseConfig, data_hash: str, code_hash: str) -> None:
    """One pass of one base model."""
    base_layer_step(config=config, data_hash=data_hash, code_hash=code_hash)
