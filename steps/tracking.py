"""What a run leaves in MLflow and on the ZenML model version, so that a served score leads back to its data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zenml import get_step_context, log_metadata
from zenml.client import Client
from zenml.enums import ModelStages

from metalayer.settings.run import RunConfig
from metalayer.workflows.gated import finite, judged_tags, test_metrics

_PARAMETER_LENGTH = 500
_TAG_LENGTH = 5000


def tracking_uri() -> str:
    """The MLflow service of the active stack."""
    uri: str = Client().active_stack.experiment_tracker.get_tracking_uri()
    return uri


def run_facts() -> dict[str, str]:
    """git_commit, data_hash and code_hash as the run was started with, and its name."""
    run = get_step_context().pipeline_run
    facts = {name: str(value) for name, value in run.config.extra.items()}
    return {**facts, "pipeline_run": run.name}


def active_run_id() -> str | None:
    """The MLflow run of this pipeline run, which all its steps share."""
    import mlflow

    run = mlflow.active_run()
    return run.info.run_id if run else None


def log_evaluation(evaluation: Mapping[str, Any], training: Mapping[str, Any], config: RunConfig) -> None:
    """Parameters, training history and metrics.

    Training is logged here, not by the training step, so that a run whose training came from the
    cache is as complete as any other.
    """
    import mlflow

    from metalayer.registry.run_contents import grouped

    settings = config.of_training()
    mlflow.log_params(
        {
            f"{section}.{key}": str(value)[:_PARAMETER_LENGTH]
            for section, values in settings.items()
            for key, value in values.items()
        }
    )
    for epoch in training["history"]:
        numbers = finite({name: value for name, value in epoch.items() if name != "epoch"})
        mlflow.log_metrics(grouped(numbers), step=int(epoch["epoch"]))
    metrics = test_metrics(evaluation)
    mlflow.log_metrics(grouped(metrics))
    mlflow.set_tags(
        {**run_facts(), **judged_tags(evaluation), "seed": config.train.seed, "base_model": config.data.base_model}
    )
    log_metadata({**run_facts(), "seed": config.train.seed, "config": settings, "metrics": metrics}, infer_model=True)


def log_decision(decision: Mapping[str, Any]) -> None:
    """Promoted or rejected, and why."""
    import mlflow

    word = "promoted" if decision["promoted"] else "rejected"
    first = sorted(decision["reasons"], key=lambda reason: bool(reason["passed"]))  # what failed
    reasons = [f"{'passed' if reason['passed'] else 'failed'}: {reason['text']}" for reason in first]
    mlflow.set_tags({"decision": word, "reasons": "\n".join(reasons)[:_TAG_LENGTH]})
    log_metadata({"decision": word, "reasons": reasons}, infer_model=True)


def log_registration(registration: Mapping[str, Any]) -> None:
    """Where the model is registered, and whether it is the champion's own."""
    import mlflow

    if registration["champion_again"]:
        mlflow.set_tag("champion_again", f"{registration['name']} version {registration['version']}")
    log_metadata({"registered": dict(registration)}, infer_model=True)


def log_promotion() -> None:
    """A champion is in production in ZenML's own model registry too."""
    get_step_context().model.set_stage(ModelStages.PRODUCTION, force=True)
