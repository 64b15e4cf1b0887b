"""The training pipeline: artifacts in, a gated, registered, packaged model out."""

from __future__ import annotations

from zenml import pipeline
from zenml.steps import BaseStep

from metalayer.settings.encoders import LANGUAGE_MODELS
from metalayer.settings.network import ModelConfig
from metalayer.settings.run import RunConfig
from steps.evaluate import evaluate
from steps.gate import gate
from steps.label import label
from steps.load_artifacts import load_artifacts
from steps.package import package
from steps.policy import NEVER_CACHED
from steps.promote import promote
from steps.register import register
from steps.report import report
from steps.split import split
from steps.train import train

CACHED = ("load_artifacts", "label", "split", "train")
"""Steps that the cache may answer for."""
GPU_STEPS = ("train",)
"""Steps for the stack's step operator, where it has one; else they run in process."""
STEPS = (*CACHED, "evaluate", "gate", "register", "package", "promote", "report")


def train_step(model: ModelConfig) -> BaseStep:
    """The step that trains; a language model's checkpoint may change in its place, so the cache never answers."""
    if model.sequence_encoder in LANGUAGE_MODELS:
        return train.with_options(enable_cache=False, cache_policy=NEVER_CACHED)
    return train


@pipeline(name="training")
def training(config: RunConfig, data_hash: str, code_hash: str) -> None:
    """Load, label, split and train (from the cache where data, code and settings are the same); judge again."""
    versions = {"data_hash": data_hash, "code_hash": code_hash}
    rows, tracks, genes, load_report = load_artifacts(data=config.data, **versions)
    weighed = tracks if config.data.variant_source else None
    labelled, variants, label_report = label(rows, genes, load_report, data=config.data, **versions, tracks=weighed)
    manifest, _, drift = split(
        labelled, genes, load_report, base_model=config.data.base_model, config=config.split, **versions
    )
    model, history = train_step(config.model)(
        labelled,
        tracks,
        variants,
        manifest,
        data=config.data,
        split=config.split,
        model=config.model,
        config=config.train,
        **versions,
    )
    evaluation, golden, answers, _ = evaluate(model, labelled, tracks, manifest, history, config=config)
    decision = gate(evaluation, policy=config.gate)
    registration = register(model, golden, answers, evaluation, decision, base_model=config.data.base_model)
    bento = package(registration, decision)
    promote(registration, bento, evaluation, config=config)
    report(evaluation, decision, manifest, load_report, label_report, history, drift, registration, config=config)
