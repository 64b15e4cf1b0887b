"""What is told of pods that do not fare well, from answers of an API as Kubernetes gives them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from metalayer.errors import MetalayerError
from pipelines import pods, stacks
from tests.fakes import FakeServer, fake_server
from tests.test_stacks import NAMESPACE, read_kubernetes

JOBS = "/apis/batch/v1/namespaces/metalayer/jobs"


def pod(status: dict[str, Any], state: dict[str, Any] | None = None, step: str = "train") -> dict[str, Any]:
    """A pod of a step, with the state of its container."""
    container = {"name": "main", "image": "r/metalayer-pipeline:1", "state": state or {}, "lastState": {}}
    return {
        "metadata": {"name": "p", "labels": {"step_name": step, "run_name": "run-1"}},
        "spec": {"containers": [{"name": "main", "resources": {"limits": {"memory": "8Gi"}}}]},
        "status": {"containerStatuses": [container] if state else [], **status},
    }


UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
}
KILLED = pod({}, {"terminated": {"reason": "OOMKilled", "exitCode": 137}})


@pytest.mark.parametrize(
    ("found", "text", "fix", "waits"),
    [
        (KILLED, "killed at the limit 8Gi (OOMKilled)", "raise limits.memory", False),
        (pod({"conditions": [UNSCHEDULABLE]}), "finds no node: 0/1 nodes are available", "add a node", True),
        (pod({}, {"waiting": {"reason": "ImagePullBackOff"}}), "metalayer-pipeline:1 cannot be fetched", "push", False),
        (pod({"reason": "Evicted", "message": "low on memory"}), "evicted: low on memory", "a larger node", False),
        (
            pod({}, {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}}),
            'cannot start: secret "s" not found',
            "make what is missing",
            False,
        ),
    ],
)
def test_troubles(found: dict[str, Any], text: str, fix: str, waits: bool) -> None:
    (trouble,) = pods.pod_troubles(found)
    assert trouble.step == "train"
    assert text in trouble.text
    assert fix in trouble.fix
    assert trouble.waits == waits


def test_a_pod_that_runs_has_none() -> None:
    assert pods.pod_troubles(pod({"conditions": [{"type": "Ready", "status": "True"}]}, {"running": {}})) == []


def test_the_error_of_a_run_is_what_its_pod_died_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pods, "_POLL_S", 0.05)
    with fake_server() as server:
        stack = watched_stack(server, tmp_path, monkeypatch)
        server.answers[f"GET {NAMESPACE}/pods"] = (200, {"items": [KILLED]})
        with pytest.raises(pods.PodError) as caught, pods.watched(stack, "run-1"):
            wait_for_warning(caplog)
            raise RuntimeError("Step `train` failed with status `failed`.")
    assert isinstance(caught.value, MetalayerError)
    assert [trouble.step for trouble in caught.value.troubles] == ["train"]
    assert "OOMKilled" in str(caught.value)
    assert caplog.text.count("OOMKilled") == 1


def test_a_refused_pod_is_told_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And stays no part of the error: it may have passed."""
    monkeypatch.setattr(pods, "_POLL_S", 0.05)
    monkeypatch.setattr(pods, "_PATIENCE_S", 0.2)
    event = {"involvedObject": {"name": "job-1"}, "message": "pods are forbidden: exceeded quota: small"}
    other = {"involvedObject": {"name": "of-another-run"}, "message": "exceeded quota: small"}
    with fake_server() as server:
        stack = watched_stack(server, tmp_path, monkeypatch)
        job = {"metadata": {"name": "job-1", "labels": {"step_name": "label"}}, "status": {}}
        server.answers[f"GET {JOBS}"] = (200, {"items": [job]})
        server.answers[f"GET {NAMESPACE}/events"] = (200, {"items": [event, other]})
        started = time.monotonic()
        with pytest.raises(RuntimeError, match="another cause"), pods.watched(stack, "run-1"):
            wait_for_warning(caplog)
            assert time.monotonic() - started >= 0.2
            raise RuntimeError("another cause")
    (record,) = caplog.records
    assert "step label: its pod is refused: pods are forbidden: exceeded quota: small" in record.getMessage()
    assert "-> wait for other runs, or ask for a larger quota" in record.getMessage()


def test_pods_that_wait_in_turn_are_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However often the scheduler puts it in other words; a Job whose pod was refused and now runs is none of them."""
    monkeypatch.setattr(pods, "_POLL_S", 0.05)
    monkeypatch.setattr(pods, "_PATIENCE_S", 0.2)
    with fake_server() as server:
        stack = watched_stack(server, tmp_path, monkeypatch)
        job = {"metadata": {"name": "job-1", "labels": {"step_name": "label"}}, "status": {"active": 1}}
        event = {"involvedObject": {"name": "job-1"}, "message": "pods are forbidden: exceeded quota: small"}
        server.answers[f"GET {JOBS}"] = (200, {"items": [job]})
        server.answers[f"GET {NAMESPACE}/events"] = (200, {"items": [event]})
        with pods.watched(stack, "run-1"):
            until, number = time.monotonic() + 30, 0
            while number < 20:  # all three wait until it is said, however busy this machine is
                condition = {**UNSCHEDULABLE, "message": f"0/{number} nodes are available"}
                waiting = [pod({"conditions": [condition]}) | {"metadata": labelled(f"shard_{i}")} for i in range(3)]
                server.answers[f"GET {NAMESPACE}/pods"] = (200, {"items": waiting[number // 8 :]})
                time.sleep(0.05)
                number += bool(number < 7 or caplog.records or time.monotonic() > until)
    (record,) = caplog.records
    assert record.getMessage().startswith("step shard_0 and 2 more: its pod finds no node: 0/")


def labelled(step: str) -> dict[str, Any]:
    return {"labels": {"step_name": step}}


def test_what_may_not_be_seen_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And what may be seen is told all the same."""
    monkeypatch.setattr(pods, "_POLL_S", 0.05)
    with fake_server() as server:
        stack = watched_stack(server, tmp_path, monkeypatch)
        server.answers[f"GET {NAMESPACE}/pods"] = (403, {"message": "pods is forbidden: User ada cannot list"})
        server.answers[f"GET {JOBS}"] = (403, {"message": "jobs is forbidden: User ada cannot list"})
        with pods.watched(stack, "run-1"):
            wait_for_warning(caplog)
            time.sleep(0.5)
            server.answers[f"GET {NAMESPACE}/pods"] = (200, {"items": [KILLED]})
            time.sleep(0.5)
    told = [record.getMessage() for record in caplog.records]
    assert told[:2] == [
        f"what happens to the pods of this run is not fully known: {kind} is forbidden: User ada cannot list"
        for kind in ("pods", "jobs")
    ]
    assert len(told) == 3
    assert "OOMKilled" in told[2]


def watched_stack(server: FakeServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> stacks.Stack:
    """The stack, on a cluster where the run has no pods yet."""
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(folder)))
    for path in (f"{NAMESPACE}/pods", JOBS, f"{NAMESPACE}/events"):
        server.answers[f"GET {path}"] = (200, {"items": []})
    return read_kubernetes(monkeypatch)


def wait_for_warning(caplog: pytest.LogCaptureFixture) -> None:
    until = time.monotonic() + 10
    while not caplog.records:
        assert time.monotonic() < until
        time.sleep(0.02)
