"""The scoring pipeline: per-nucleotide files and a model in, scores of every position of all genes out."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

from zenml import pipeline
from zenml.client import Client

from metalayer.settings.sections import ScoreConfig
from metalayer.workflows.score_genome import ScoringModel, ScoringPlan, Shard
from pipelines import environment
from pipelines import shards as shards_of
from steps.merge_shards import merge_shards
from steps.score_shard import score_shard

STEPS = ("merge_shards",)
"""Beside a step a shard, see `shard_steps`."""
CACHED = STEPS
GPU_STEPS: tuple[str, ...] = ()


def given(plan: ScoringPlan, scorer: ScoringModel) -> dict[str, Any]:
    """What the pipeline is called with beside configuration and hashes; puts the model into the artifact store.

    Args:
        plan: the shards.
        scorer: the model.

    Returns:
        Arguments of `score` by name.
    """
    facts = {
        **plan.facts(),
        "model": scorer.facts(),
        "code_hash": environment.code_hash(),
    }
    return {
        "shards": list(plan.shards),
        "source": plan.folder,
        "model": shards_of.put_model(scorer, "scoring_model"),
        "facts": facts,
    }


def shard_steps(config: ScoreConfig) -> tuple[str, ...]:
    """Names of the steps that score, in the order of the shards."""
    return shards_of.steps_of(config, "score_shard")


def gpu_steps(config: ScoreConfig) -> tuple[str, ...]:
    """Those that are sent to the stack's step operator, see `shards.on_a_gpu`."""
    return shards_of.on_a_gpu(config, "score_shard")


@pipeline(name="score")
def score(
    config: ScoreConfig,
    data_hash: str,
    code_hash: str,
    shards: list[Shard],
    source: Path,
    model: UUID,
    facts: dict[str, Any],
) -> None:
    """A step a shard, beside each other where the stack can, and one that puts them together.

    Args:
        config: as given.
        data_hash: of files and model, for `--if-changed`.
        code_hash: of metalayer's source.
        shards: of all genes.
        source: folder of the per-nucleotide files.
        model: artifact of the model directory.
        facts: for the manifest.
    """
    scorer = Client().get_artifact_version(model)
    made = [
        score_shard(
            model=scorer,
            shard=shard,
            source=source,
            device=config.device,
            threads=config.threads,
            code_hash=code_hash,
            id=name,
        )
        for name, shard in zip(shard_steps(config), shards, strict=True)
    ]
    merge_shards([scores for scores, _ in made], [manifest for _, manifest in made], shards=shards, facts=facts)
