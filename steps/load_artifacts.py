"""load_artifacts: base-layer files to typed tables."""

from typing import Annotated, Any

from zenml import step

from metalayer.core import ArtifactLoader
from metalayer.core.loader import GENES, ROWS, TRACKS
from metalayer.settings.sections import DataConfig
from steps.inputs import local_inputs
from steps.materializers import TableRef
from steps.workspace import step_dir


@step(enable_cache=True)
def load_artifacts(
    data: DataConfig, data_hash: str, code_hash: str
) -> tuple[
    Annotated[TableRef, "rows"],
    Annotated[TableRef, "tracks"],
    Annotated[TableRef, "genes"],
    Annotated[dict[str, Any], "load_report"],
]:
    """Read the files of a base model.

    Args:
        data: which files.
        data_hash: of their contents; with `code_hash` it decides whether the cache answers.
        code_hash: of metalayer's source.

    Returns:
        Rows, per-nucleotide scores and gene table (the last two may be absent), and what was found.
    """
    folder = step_dir("load_artifacts")
    found = local_inputs(data, data_hash, step_dir("inputs"))
    report = ArtifactLoader(found).load(folder)
    tables = (TableRef.of(folder / ROWS), TableRef.of(folder / TRACKS), TableRef.of(folder / GENES))
    return *tables, {**report, "data_hash": data_hash}
