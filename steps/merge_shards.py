"""merge_shards: one table of all shards, where they are complete."""

from typing import Annotated, Any

from zenml import step

from metalayer.workflows import score_genome
from steps.materializers import TableRef
from steps.policy import AT_ONCE_RETRY
from steps.workspace import step_dir


@step(enable_cache=True, retry=AT_ONCE_RETRY)
def merge_shards(
    scores: list[TableRef],
    manifests: list[dict[str, Any]],
    shards: list[score_genome.Shard],
    facts: dict[str, Any],
) -> tuple[Annotated[TableRef, "genome_scores"], Annotated[dict[str, Any], "genome_manifest"]]:
    """Check that every gene and position is there once and of one model, and put the shards together.

    Args:
        scores: of each shard.
        manifests: of each shard, in the same order.
        shards: those there must be.
        facts: base_model, genome_build, model and code_hash, for the manifest.
    """
    output = step_dir("merge_shards") / "scores.parquet"
    parts = list(zip([table.file for table in scores], manifests, strict=True))
    manifest = score_genome.merge_shards(shards, parts, facts, output)
    return TableRef.of(output), manifest
