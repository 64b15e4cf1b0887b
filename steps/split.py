"""split: which genes train, validate and test."""

from typing import Annotated, Any

from zenml import step

from metalayer.config import SplitConfig
from metalayer.data.splits import make_split
from steps.materializers import TableRef


@step(enable_cache=True)
def split(
    rows: TableRef, genes: TableRef, config: SplitConfig, data_hash: str, code_hash: str
) -> Annotated[dict[str, Any], "split_manifest"]:
    """Assign whole genes to parts and prove that nothing crosses."""
    return make_split(rows.file, genes.path, config)
