"""score_shard: every position of some of the genes."""

from pathlib import Path
from typing import Annotated, Any

from zenml import step

from metalayer.settings.evidence import Source, files_of, moved_sources
from metalayer.workflows import score_genome
from steps.inputs import local_files
from steps.materializers import ModelRef, TableRef
from steps.policy import AT_ONCE_RETRY
from steps.workspace import step_dir


@step(enable_cache=True, retry=AT_ONCE_RETRY)
def score_shard(
    model: ModelRef,
    shard: score_genome.Shard,
    source: Path,
    device: str,
    threads: int | None,
    code_hash: str,
) -> tuple[Annotated[TableRef, "scores"], Annotated[dict[str, Any], "shard_manifest"]]:
    """Score a shard; the cache answers where its genes, their files, the model and the code are the same.

    Args:
        model: model directory.
        shard: which genes, and the files that hold them.
        source: folder of the files on the machine that started the run.
        device: of the network.
        threads: CPU threads of the network.
        code_hash: of metalayer's source.

    Returns:
        Scores, and what they are of.
    """
    folder = step_dir("score_shard")
    files = local_files(shard.files, source, folder)
    shard = shard.model_copy(update={"evidence": _local_evidence(shard, folder)})
    output = folder / "scores.parquet"
    manifest = score_genome.score_shard(shard, files, model.path, output, device=device, threads=threads)
    return TableRef.of(output), manifest


def _local_evidence(shard: score_genome.Shard, folder: Path) -> dict[str, Source]:
    """Evidence with its files where they are on this machine."""
    paths = []
    for number, (path, digest) in enumerate(zip(files_of(shard.evidence), shard.evidence_files, strict=True)):
        place = folder / f"evidence-{number}"
        place.mkdir(exist_ok=True)
        paths += local_files({path.name: digest}, path.parent, place)
    return moved_sources(shard.evidence, paths)
