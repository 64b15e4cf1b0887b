"""report: the run as one HTML page."""

from typing import Annotated, Any

from zenml import step
from zenml.types import HTMLString

from metalayer.evaluation.error_file import ERRORS_TEXT
from metalayer.evaluation.gate import Decision
from metalayer.evaluation.html import write_report
from metalayer.settings.run import RunConfig
from metalayer.workflows.gated import record
from metalayer.workflows.outcome import commands_for
from steps.policy import NEVER_CACHED, SERVICE_RETRY
from steps.tracking import active_run_id, run_facts, tracking_uri
from steps.workspace import step_dir


@step(enable_cache=False, cache_policy=NEVER_CACHED, retry=SERVICE_RETRY, experiment_tracker=True)
def report(
    evaluation: dict[str, Any],
    decision: dict[str, Any],
    manifest: dict[str, Any],
    load_report: dict[str, Any],
    label_report: dict[str, Any],
    training: dict[str, Any],
    drift: dict[str, Any],
    registration: dict[str, Any],
    config: RunConfig,
) -> Annotated[HTMLString, "html_report"]:
    """Write the page; it is kept in the artifact store, shown in the dashboard, and put on the MLflow run.

    It links to what lies beside it once it is published: `drift.html`, the page of the `split` step, and the errors.
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
            "training": {name: value for name, value in training.items() if name != "history"},
            "drift": {name: value for name, value in drift.items() if name != "columns"},
        },
        training=training,
        commands=commands_for(registration, decision),
        errors_file=ERRORS_TEXT if evaluation["positions"] else None,
        drift_html="drift.html",
    )
    if run_id := active_run_id():
        digests = {"training": load_report["data_hash"]}
        record(run_id, evaluation, decision, page, config, digests, manifest, tracking_uri())
    return HTMLString(page.read_text("utf-8"))
