"""report: the run as one HTML page."""

from typing import Annotated, Any

from zenml import step
from zenml.types import HTMLString

from metalayer.evaluation.gate import Decision
from metalayer.evaluation.html import write_report
from metalayer.settings.run import RunConfig
from steps.policy import NEVER_CACHED
from steps.tracking import run_facts
from steps.workspace import step_dir


@step(enable_cache=False, cache_policy=NEVER_CACHED)
def report(
    evaluation: dict[str, Any],
    decision: dict[str, Any],
    manifest: dict[str, Any],
    load_report: dict[str, Any],
    label_report: dict[str, Any],
    training: dict[str, Any],
    drift: dict[str, Any],
    config: RunConfig,
) -> Annotated[HTMLString, "html_report"]:
    """Write the page; it is kept in the artifact store and shown in the dashboard.

    It links to `drift.html` beside it, the page of the `split` step.
    """
    page = write_report(
        step_dir("report") / "report.html",
        evaluation=evaluation,
        decision=Decision.from_dict(decision),
        manifest=manifest,
        load_report={**load_report, "labels": label_report},
        run={
            **run_facts(),
            "config": config.model_dump(mode="json"),
            "training": training,
            "drift": {name: value for name, value in drift.items() if name != "columns"},
        },
        drift_html="drift.html",
    )
    return HTMLString(page.read_text("utf-8"))
