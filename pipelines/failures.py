"""Why a run failed: what its steps, its pods and its artifact store say of it."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from metalayer.errors import MetalayerError
from pipelines import console, pods


def explained(run_name: str, error: Exception) -> tuple[str, BaseException]:
    """Where a run failed, and the error to tell, for one that ended the program."""
    if "zenml.client" not in sys.modules:
        return console.BEFORE, error
    step, cause = _failed_step(run_name) or (None, error)
    if isinstance(error, pods.PodError) and step in (None, error.step):
        step, cause = error.step, error  # a pod that was killed has left no error with ZenML
    elif not isinstance(cause, MetalayerError):
        cause = _lost(run_name) or cause
    if step:
        return f"step {step}", cause
    return "after the last step" if _is_over(run_name) else console.BEFORE, cause


def require_completed(run_name: str) -> None:
    """See that all steps of a run have succeeded: ZenML's Kubernetes orchestrator returns from others too.

    Raises:
        MetalayerError: some have not.
    """
    status = _run(run_name).status
    if not status.is_successful:
        raise MetalayerError(f"run {run_name} ended as {status}")


def _failed_step(run_name: str) -> tuple[str, BaseException] | None:
    """The first step that failed and its error, which orchestrators tell only as text; None before the first step."""
    from zenml.enums import ExecutionStatus
    from zenml.utils.exception_utils import reconstruct_exception

    with contextlib.suppress(Exception):  # no such run, or no database: the first error is what matters
        failed = [step for step in _run(run_name).steps.values() if step.status == ExecutionStatus.FAILED]
        for step in sorted(failed, key=lambda step: step.created):
            return str(step.name), reconstruct_exception(step.exception_info, f"step {step.name} failed")
    return None


def _lost(run_name: str) -> MetalayerError | None:
    """That the artifact store no longer holds what a step of this run took from the cache."""
    from zenml.client import Client
    from zenml.enums import ExecutionStatus

    with contextlib.suppress(Exception):  # no such run, or no store: the first error is what matters
        store = Client().active_stack.artifact_store
        for step in _run(run_name).steps.values():
            for artifact in (one for given in step.outputs.values() for one in given):
                if step.status == ExecutionStatus.CACHED and not store.exists(artifact.uri):
                    return MetalayerError(
                        f"{artifact.uri} is gone from the artifact store, where an earlier run had left it in step "
                        f"{step.name}; run again with --no-cache"
                    )
    return None


def _is_over(run_name: str) -> bool:
    with contextlib.suppress(Exception):  # no such run
        return bool(_run(run_name).status.is_successful)
    return False


def _run(run_name: str) -> Any:
    from zenml.client import Client

    return Client().get_pipeline_run(run_name)
