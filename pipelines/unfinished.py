"""Runs that were killed: ZenML and MLflow show them as running for good, unless the next run ends them.

One run at a time holds a state folder (`run.lock`), so none that the folder's own ZenML database shows as under way is.
MLflow may be shared by many folders. There only runs of the same names are ended, and only by the folder in which they
ran: a copy of it has the names too, of runs that may be under way in the original.
"""

from __future__ import annotations

import logging
from pathlib import Path

from metalayer.errors import RegistryError
from pipelines import environment

_REASON = "the process of this run was killed"

logger = logging.getLogger(__name__)


def end(state: Path, tracking_uri: str) -> None:
    """End what earlier runs of this state folder left open, in MLflow and in its own ZenML database.

    Args:
        state: the folder, which this process holds and in which no run has begun yet.
        tracking_uri: of MLflow.
    """
    from zenml.client import Client
    from zenml.enums import ExecutionStatus
    from zenml.models import PipelineRunUpdate, StepRunUpdate

    from metalayer.registry import tracking

    client = Client()
    left = list(client.list_pipeline_runs(in_progress=True, size=1000).items)
    if not left:
        return
    try:
        if environment.is_own(state) or tracking_uri == f"sqlite:///{state / 'mlflow.db'}":
            tracking.end_runs({run.name for run in left}, tracking_uri)
        else:
            logger.warning(
                "runs that were killed may be shown as running in MLflow: this state folder is a copy, or was moved"
            )
    except RegistryError as error:
        logger.warning("runs that were killed stay shown as running: %s", error)
        return  # the next run finds them again
    for run in left:
        store = client.zen_store
        stopping = PipelineRunUpdate(status=ExecutionStatus.STOPPING, status_reason=_REASON)
        if not run.status.is_finished:
            store.update_run(run.id, stopping)
        for step in client.list_run_steps(pipeline_run_id=run.id, size=1000).items:
            if not step.status.is_finished:
                store.update_run_step(step.id, StepRunUpdate(status=ExecutionStatus.STOPPED))
        # ZenML derives the status of a run from those of its steps, of which there may be none.
        now = client.get_pipeline_run(run.id).status
        store.update_run(run.id, PipelineRunUpdate(status=now) if now.is_finished else stopping)
    logger.info("%d runs that were killed are marked as stopped", len(left))
