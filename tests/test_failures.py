"""Which error is told of a run that failed: of its step, its pods, its artifact store or the program."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
from zenml.client import Client
from zenml.enums import ExecutionStatus
from zenml.models import ExceptionInfo

from metalayer.errors import ConfigError, MetalayerError
from pipelines import failures, pods

MEMORY = pods.Trouble("train", "out of memory", "raise the limit")
IMAGE = pods.Trouble("label", "image cannot be fetched", "push it")
OWN = ExceptionInfo(message="a label is wrong", source="builtins.ValueError", traceback="")


def step(name: str, status: str, told: ExceptionInfo | None = None, artifact: str = "") -> SimpleNamespace:
    outputs = {"out": [SimpleNamespace(uri=artifact)]} if artifact else {}
    return SimpleNamespace(
        name=name, status=ExecutionStatus(status), exception_info=told, created=time.monotonic(), outputs=outputs
    )


def explained(
    patch: pytest.MonkeyPatch, error: Exception, *steps: SimpleNamespace, status: str = "failed"
) -> tuple[str, BaseException]:
    run = SimpleNamespace(steps={one.name: one for one in steps}, status=ExecutionStatus(status))
    store = SimpleNamespace(exists=lambda uri: "gone" not in uri)
    patch.setattr(Client, "get_pipeline_run", lambda *_: run)
    patch.setattr(Client, "active_stack", SimpleNamespace(artifact_store=store))
    return failures.explained("run-1", error)


def pod_error(*troubles: pods.Trouble) -> pods.PodError:
    error = pods.PodError(troubles)
    error.__cause__ = ConnectionError("the server is gone")
    return error


@pytest.mark.parametrize(
    ("error", "steps", "where", "said"),
    [
        # A pod that was killed has left no error with ZenML.
        (pod_error(IMAGE, MEMORY), [step("train", "failed")], "step train", "out of memory"),
        # The second attempt had an error of its own.
        (pod_error(MEMORY), [step("train", "failed", OWN)], "step train", "a label is wrong"),
        # Trouble of another step, that passed.
        (pod_error(IMAGE), [step("label", "completed"), step("train", "failed")], "step train", "step train failed"),
        # Trouble that passed before the program lost its connection.
        (pod_error(MEMORY), [step("train", "completed")], "between its steps", "the server is gone"),
        (pod_error(MEMORY), [step("train", "running")], "step train", "out of memory"),
        (RuntimeError("x"), [step("a", "failed", OWN), step("b", "failed")], "step a", "a label is wrong"),
        (RuntimeError("x"), [step("a", "cached", artifact="s3://gone"), step("b", "failed")], "step b", "s3://gone is"),
        (ConfigError("c"), [step("a", "cached", artifact="s3://gone")], "between its steps", "c"),
        (RuntimeError("x"), [], "before the first step", "x"),
    ],
)
def test_what_is_told(
    monkeypatch: pytest.MonkeyPatch, error: Exception, steps: list[Any], where: str, said: str
) -> None:
    found, cause = explained(monkeypatch, error, *steps)
    assert found == where
    assert said in str(cause)


def test_after_the_last_step(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = step("merge", "cached", artifact="s3://gone")
    where, cause = explained(monkeypatch, RuntimeError("x"), lost, status="completed")
    assert where == "after the last step"
    assert isinstance(cause, MetalayerError)
    assert "left it in step merge; run again with --no-cache" in str(cause)


@pytest.mark.parametrize(
    ("raised", "where"), [(KeyError("run-1"), "before the first step"), (OSError(), "where ZenML cannot say")]
)
def test_zenml_does_not_tell(monkeypatch: pytest.MonkeyPatch, raised: Exception, where: str) -> None:
    def fails(*_: object) -> None:
        raise raised

    monkeypatch.setattr(Client, "get_pipeline_run", fails)
    error = RuntimeError("x")
    assert failures.explained("run-1", error) == (where, error)


@pytest.mark.parametrize(("status", "passes"), [("completed", True), ("cached", True), ("failed", False)])
def test_a_run_that_is_not_whole(monkeypatch: pytest.MonkeyPatch, status: str, passes: bool) -> None:
    monkeypatch.setattr(Client, "get_pipeline_run", lambda *_: SimpleNamespace(status=ExecutionStatus(status)))
    if passes:
        failures.require_completed("run-1")
    else:
        with pytest.raises(MetalayerError, match="run run-1 ended as failed"):
            failures.require_completed("run-1")
