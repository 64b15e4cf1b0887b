"""split: which genes train, validate and test, and how far test rows differ from training rows."""

from typing import Annotated, Any

from zenml import step
from zenml.types import HTMLString

from metalayer.data.splits import make_split
from metalayer.evaluation.drift import row_drift
from metalayer.settings.sections import SplitConfig
from steps.materializers import TableRef
from steps.workspace import step_dir


@step(enable_cache=True)
def split(
    rows: TableRef,
    genes: TableRef,
    load_report: dict[str, Any],
    base_model: str,
    config: SplitConfig,
    data_hash: str,
    code_hash: str,
) -> tuple[
    Annotated[dict[str, Any], "split_manifest"],
    Annotated[HTMLString, "drift_report"],
    Annotated[dict[str, Any], "drift"],
]:
    """Assign whole genes to parts, prove that nothing crosses, and compare the parts; the cache keeps all of it."""
    manifest = make_split(rows.file, genes.path, config, base_model, load_report["genome_build"])
    page = step_dir("split") / "drift.html"
    drift = row_drift(rows.file, manifest, page, seed=config.seed)
    return manifest, HTMLString(page.read_text("utf-8")), drift
