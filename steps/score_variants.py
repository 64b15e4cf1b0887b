"""score_variants: what some of the variants of a file do."""

from pathlib import Path
from typing import Annotated, Any

from zenml import step

from metalayer.settings.sections import VariantsConfig
from metalayer.workflows import variant_shards
from steps.inputs import local_files
from steps.materializers import ModelRef, TableRef
from steps.policy import AT_ONCE_RETRY
from steps.workspace import step_dir


@step(enable_cache=True, retry=AT_ONCE_RETRY)
def score_variants(
    shard: variant_shards.VariantShard,
    config: VariantsConfig,
    inputs: dict[str, variant_shards.Files],
    code_hash: str,
    model: ModelRef | None = None,
) -> tuple[Annotated[TableRef, "answers"], Annotated[dict[str, Any], "shard_manifest"]]:
    """Score a shard; the cache answers where its records, files, model, settings and code are the same.

    Args:
        shard: which records.
        config: of the run.
        inputs: files by use.
        code_hash: of metalayer's source.
        model: model directory of ours.

    Returns:
        Answers by the number of their record, and what they are of.
    """
    folder = step_dir("score_variants")
    folders = {}
    for use, given in inputs.items():
        place = folder / use.replace(":", "-")
        place.mkdir()
        folders[use] = local_files(given.files, given.folder, place)[0].parent
    output = folder / "answers.parquet"
    directory: Path | None = model.path if model else None
    manifest = variant_shards.score_shard(shard, config, inputs, folders, directory, output)
    return TableRef.of(output), manifest
