"""The variant pipeline: a VCF in, what its variants do to splicing out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

import zenml
from zenml import pipeline
from zenml.client import Client

from metalayer.models.description import DESCRIPTION, WEIGHTS
from metalayer.settings.sections import VariantsConfig
from metalayer.workflows.score_genome import ScoringModel
from metalayer.workflows.variant_shards import Files, VariantPlan, VariantShard
from steps.materializers import ModelMaterializer, ModelRef
from steps.score_variants import score_variants
from steps.workspace import step_dir

STEPS: tuple[str, ...] = ()
"""Beside a step a shard, see `shard_steps`."""
CACHED = STEPS
GPU_STEPS: tuple[str, ...] = ()


_ELSEWHERE: dict[str, Any] = {
    **dict.fromkeys(("file", "fasta", "annotation", "output"), Path()),
    **{"aliases": None, "calibration": None, "weights": (), "model": None, "shards": None},
}
"""Settings that a step has from its files and records, so that it comes from the cache wherever these lie."""


def given(plan: VariantPlan, scorer: ScoringModel | None) -> dict[str, Any]:
    """What the pipeline is called with beside configuration and hashes; puts a model into the artifact store.

    Args:
        plan: the shards.
        scorer: the model, if any.

    Returns:
        Arguments of `variants` by name.
    """
    model = None
    if scorer:
        folder = step_dir("variants_model")
        for name in (WEIGHTS, DESCRIPTION):  # a registered one has more beside them, which are not of its digest
            shutil.copyfile(scorer.directory / name, folder / name)
        model = zenml.save_artifact(ModelRef.of(folder), "variants_model", materializer=ModelMaterializer).id
    return {"shards": list(plan.shards), "inputs": plan.inputs, "model": model}


def shard_steps(config: VariantsConfig) -> tuple[str, ...]:
    """Names of the steps that score, in the order of the shards."""
    assert config.shards is not None  # that of the plan
    return tuple(f"score_variants_{number}" for number in range(1, config.shards + 1))


def gpu_steps(config: VariantsConfig) -> tuple[str, ...]:
    """Those that are sent to the stack's step operator, where it has one: none, unless a GPU is asked for."""
    return shard_steps(config) if config.device.startswith("cuda") else ()


@pipeline(name="variants")
def variants(
    config: VariantsConfig,
    data_hash: str,
    code_hash: str,
    shards: list[VariantShard],
    inputs: dict[str, Files],
    model: UUID | None,
) -> None:
    """A step a shard, beside each other where the stack can; the run's end puts them together.

    Args:
        config: as given.
        data_hash: of files and model, for `--if-changed`.
        code_hash: of metalayer's source.
        shards: of all records.
        inputs: files by use.
        model: artifact of the model directory.
    """
    asked = config.model_copy(update=_ELSEWHERE)
    beside = {"model": Client().get_artifact_version(model)} if model else {}
    for name, shard in zip(shard_steps(config), shards, strict=True):
        score_variants(shard=shard, config=asked, inputs=inputs, code_hash=code_hash, id=name, **beside)
