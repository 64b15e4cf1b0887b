"""The variant pipeline: a VCF in, what its variants do to splicing out."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from zenml import pipeline
from zenml.client import Client

from metalayer.settings.sections import VariantsConfig
from metalayer.workflows.score_genome import ScoringModel
from metalayer.workflows.variant_shards import Files, VariantPlan, VariantShard
from pipelines import shards as shards_of
from steps.score_variants import score_variants

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
    model = shards_of.put_model(scorer, "variants_model") if scorer else None
    return {"shards": list(plan.shards), "inputs": plan.inputs, "model": model}


def shard_steps(config: VariantsConfig) -> tuple[str, ...]:
    """Names of the steps that score, in the order of the shards."""
    return shards_of.steps_of(config, "score_variants")


def gpu_steps(config: VariantsConfig) -> tuple[str, ...]:
    """Those that are sent to the stack's step operator, see `shards.on_a_gpu`."""
    return shards_of.on_a_gpu(config, "score_variants")


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
