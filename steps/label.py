"""label: classes and sample weights."""

from typing import Annotated, Any

from zenml import step

from metalayer.data.labels import label_rows
from metalayer.data.variant_weights import VARIANT_WEIGHTS_FILE
from metalayer.settings.sections import DataConfig
from steps.inputs import local_inputs
from steps.materializers import TableRef
from steps.workspace import step_dir


@step(enable_cache=True)
def label(
    rows: TableRef,
    genes: TableRef,
    load_report: dict[str, Any],
    data: DataConfig,
    data_hash: str,
    code_hash: str,
    tracks: TableRef | None = None,
) -> tuple[
    Annotated[TableRef, "labelled_rows"],
    Annotated[TableRef, "variant_weights"],
    Annotated[dict[str, Any], "label_report"],
]:
    """Add class labels, and weights from SpliceVarDB when configured: of rows, and of positions of `tracks`."""
    output = step_dir("label") / "labelled_rows.parquet"
    found = local_inputs(data, data_hash, step_dir("inputs")) if data.variant_source else data
    report = label_rows(
        rows.file, genes.path, found, output, load_report["genome_build"], tracks.path if tracks else None
    )
    return TableRef.of(output), TableRef.of(output.with_name(VARIANT_WEIGHTS_FILE)), report
