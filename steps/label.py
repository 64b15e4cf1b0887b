"""label: classes and sample weights."""

from typing import Annotated, Any

from zenml import step

from metalayer.config import DataConfig
from metalayer.data.labels import label_rows
from steps.inputs import local_inputs
from steps.materializers import TableRef
from steps.workspace import step_dir


@step(enable_cache=True)
def label(
    rows: TableRef, genes: TableRef, load_report: dict[str, Any], data: DataConfig, data_hash: str, code_hash: str
) -> tuple[Annotated[TableRef, "labelled_rows"], Annotated[dict[str, Any], "label_report"]]:
    """Add class labels, and weights from SpliceVarDB when configured."""
    output = step_dir("label") / "labelled_rows.parquet"
    found = local_inputs(data, data_hash, step_dir("inputs")) if data.variant_source else data
    report = label_rows(rows.file, genes.path, found, output, load_report["genome_build"])
    return TableRef.of(output), report
