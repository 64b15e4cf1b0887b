"""Why a run failed: what its steps, its pods and its artifact store say of it."""

from __future__ import annotations

import sys
from logging import getLogger
from typing import Any

from metalayer import extras
from metalayer.errors import ConfigError, MetalayerError
from pipelines import console, pods

logger = getLogger(__name__)


def explained(run_name: str, error: Exception) -> tuple[str, BaseException]:
    """Where a run failed, and why.

    Args:
        run_name: of the run, which ZenML may not know.
        error: that ended the program.

    Returns:
        The place in words, and the error to tell: of the first step that failed, or of its pod, which when killed
        leaves no error with ZenML; else that of the program.
    """
    if "zenml.client" not in sys.modules:
        return console.BEFORE, error
    try:
        run = _run(run_name)
    except KeyError:  # no such run
        return console.BEFORE, _cause(error)
    except Exception:  # of whatever kind ZenML raises
        logger.debug("run %s cannot be looked at", run_name, exc_info=True)
        return "where ZenML cannot say", _cause(error)
    failed = sorted((step for step in run.steps.values() if step.status.is_failed), key=lambda step: step.created)
    troubles = error.troubles if isinstance(error, pods.PodError) else ()
    if failed:
        step = failed[0]
        mine = [trouble for trouble in troubles if trouble.step == step.name]
        if step.exception_info:
            cause = _reconstructed(step)
        elif mine:
            cause = pods.PodError(mine)
        else:
            cause = _lost(run) or RuntimeError(f"step {step.name} failed")
        return f"step {step.name}", cause
    unmended = [trouble for trouble in troubles if not _succeeded(run, trouble.step)]
    if unmended:
        return f"step {unmended[-1].step}", pods.PodError(unmended)
    begun = "between its steps" if run.steps else console.BEFORE
    where = "after the last step" if run.status.is_successful else begun
    cause = _cause(error)
    return where, cause if isinstance(cause, MetalayerError) else _lost(run) or cause


def lacking(error: BaseException) -> ConfigError | None:
    """What to install, where a package of the extra `pipeline` is missing."""
    text = (
        extras.explained(error, ("", "pipeline", "kubernetes", "kubeflow"))
        if isinstance(error, ModuleNotFoundError)
        else None
    )
    return ConfigError(text) if text else None


def _reconstructed(step: Any) -> BaseException:
    """The error of a step, which orchestrators tell only as text."""
    from zenml.utils.exception_utils import reconstruct_exception

    error: BaseException = reconstruct_exception(step.exception_info, f"step {step.name} failed")
    return error


def require_completed(run_name: str) -> None:
    """See that all steps of a run have succeeded: ZenML's Kubernetes orchestrator returns from others too.

    Raises:
        MetalayerError: some have not.
    """
    status = _run(run_name).status
    if not status.is_successful:
        raise MetalayerError(f"run {run_name} ended as {status}")


def _cause(error: BaseException) -> BaseException:
    return error.__cause__ or error if isinstance(error, pods.PodError) else error


def _succeeded(run: Any, name: str) -> bool:
    return name in run.steps and run.steps[name].status.is_successful


def _lost(run: Any) -> MetalayerError | None:
    """That the artifact store no longer holds what a step of this run took from the cache."""
    from zenml.client import Client
    from zenml.enums import ExecutionStatus

    try:
        store = Client().active_stack.artifact_store
        for step in run.steps.values():
            for artifact in (one for given in step.outputs.values() for one in given):
                if step.status == ExecutionStatus.CACHED and not store.exists(artifact.uri):
                    return MetalayerError(
                        f"{artifact.uri} is gone from the artifact store, where an earlier run had left it in step "
                        f"{step.name}; run again with --no-cache"
                    )
    except Exception:  # no store: the first error is what matters
        logger.debug("the artifact store cannot be looked at", exc_info=True)
    return None


def _run(run_name: str) -> Any:
    from zenml.client import Client

    return Client().get_pipeline_run(run_name)
