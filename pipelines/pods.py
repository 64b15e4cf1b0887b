"""What the pods of a run suffer, reported while the run waits: ZenML says of it little, late, or nothing.

A pod that finds no node or cannot fetch its image waits without a word; one that is killed has no traceback.
"""

from __future__ import annotations

import contextlib
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging import getLogger
from typing import Any, TypeAlias

from metalayer.errors import MetalayerError
from pipelines.cluster import Cluster, ClusterError
from pipelines.stacks import Stack

_POLL_S = 3.0
_PATIENCE_S = 15.0
"""A pod may wait for so long, as for one that is just going."""
_FILE = "pipelines/stacks/kubernetes.yaml"
_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")

Look: TypeAlias = "Callable[[Cluster, str, str], list[Trouble]]"

logger = getLogger(__name__)


class PodError(MetalayerError):
    """Pods of a run were killed, or never came to run; its cause is the error that ended the run.

    Attributes:
        troubles: of the pods, the last one, which the message tells, at the end.
    """

    def __init__(self, troubles: Sequence[Trouble]) -> None:
        super().__init__(f"{troubles[-1].text}\n{troubles[-1].fix}")
        self.troubles = tuple(troubles)


@dataclass(frozen=True)
class Trouble:
    """Of one pod or Job.

    Attributes:
        step: name of the step; `orchestrator` is the pod that starts the others.
        text: what is wrong.
        fix: what to do.
        waits: it may pass by itself.
    """

    step: str
    text: str
    fix: str
    waits: bool = False


@contextlib.contextmanager
def watched(stack: Stack, run_name: str) -> Iterator[None]:
    """Say what goes wrong with the pods of a run, each thing once, as long as this lasts.

    Raises:
        PodError: from an error within, where pods were seen to end badly.
    """
    orchestrator = stack.components["orchestrator"]
    if orchestrator["flavor"] != "kubernetes":
        yield
        return
    from zenml.integrations.kubernetes.kube_utils import sanitize_label_value

    label = urllib.parse.quote(f"run_name={sanitize_label_value(run_name)}")
    over, told = threading.Event(), list[Trouble]()
    arguments = (Cluster(orchestrator["kubernetes_context"]), orchestrator["kubernetes_namespace"], label, told, over)
    watcher = threading.Thread(target=_watch, args=arguments, daemon=True)
    watcher.start()
    try:
        yield
    except Exception as error:
        if told:
            raise PodError(told) from error
        raise
    finally:
        over.set()
        watcher.join()


def _watch(cluster: Cluster, namespace: str, label: str, told: list[Trouble], over: threading.Event) -> None:
    since: dict[tuple[str, str], float] = {}
    told_waits = set[str]()
    unseen = set[tuple[Look, int]]()
    while not over.wait(_POLL_S):
        now = time.monotonic()
        found = []
        for look in (troubles_of_pods, troubles_of_jobs):
            try:
                found += look(cluster, namespace, label)
            except ClusterError as error:
                if (look, error.status) not in unseen:
                    unseen.add((look, error.status))
                    logger.warning("what happens to the pods of this run is not fully known: %s", error)
        for trouble in found:
            if not trouble.waits and trouble not in told:
                told.append(trouble)
                _tell(trouble.step, trouble)
        waits = {(trouble.step, trouble.fix): trouble for trouble in found if trouble.waits}
        since = {key: since.get(key, now) for key in waits}
        long = [trouble for key, trouble in waits.items() if now - since[key] >= _PATIENCE_S]
        for fix in {trouble.fix for trouble in long} - told_waits:  # once, however many wait: shards wait in turn
            told_waits.add(fix)
            first, *others = (trouble for trouble in long if trouble.fix == fix)
            _tell(f"{first.step} and {len(others)} more" if others else first.step, first)


def _tell(steps: str, trouble: Trouble) -> None:
    logger.warning("step %s: %s\n      -> %s", steps, trouble.text, trouble.fix)


def troubles_of_pods(cluster: Cluster, namespace: str, label: str) -> list[Trouble]:
    """Of all pods with a label.

    Raises:
        ClusterError: they cannot be seen.
    """
    pods = cluster.ask("GET", f"/api/v1/namespaces/{namespace}/pods?labelSelector={label}")["items"]
    return [trouble for pod in pods for trouble in pod_troubles(pod)]


def troubles_of_jobs(cluster: Cluster, namespace: str, label: str) -> list[Trouble]:
    """Of the Jobs with a label that get no pod.

    Raises:
        ClusterError: they or the events of the namespace cannot be seen.
    """
    jobs = cluster.ask("GET", f"/apis/batch/v1/namespaces/{namespace}/jobs?labelSelector={label}")["items"]
    waiting = {job["metadata"]["name"]: job for job in jobs if not {"active", "conditions"} & job["status"].keys()}
    refused = f"/api/v1/namespaces/{namespace}/events?fieldSelector=reason%3DFailedCreate"
    found = []
    for event in cluster.ask("GET", refused)["items"] if waiting else []:
        if job := waiting.get(event["involvedObject"]["name"]):
            text = f"its pod is refused: {event['message']}"
            quota = "wait for other runs, or ask for a larger quota" if "quota" in text else "fix what it says"
            found.append(Trouble(_step(job), text, quota, waits=True))
    return found


def pod_troubles(pod: Mapping[str, Any]) -> list[Trouble]:
    """What one pod says of itself, as the API has it."""
    step, status = _step(pod), pod["status"]
    found = []
    if status.get("reason") == "Evicted":
        text = f"its pod was evicted: {status.get('message', '')}"
        found.append(Trouble(step, text.strip(), f"give its pod what it lacks in {_FILE}, or a larger node"))
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            fix = f"wait for room; or see its pod settings in {_FILE}, and add a node that fits them"
            found.append(Trouble(step, f"its pod finds no node: {condition['message']}", fix, waits=True))
    limits = {one["name"]: one.get("resources", {}).get("limits", {}) for one in pod["spec"]["containers"]}
    for container in status.get("containerStatuses", []):
        waiting = container["state"].get("waiting", {})
        if waiting.get("reason") in _IMAGE:
            text = f"image {container['image']} cannot be fetched by the node ({waiting['reason']})"
            fix = "push it, or see that the nodes reach the registry and may read it; METALAYER_REGISTRY names it"
            found.append(Trouble(step, text, fix))
        elif waiting.get("reason") == "CreateContainerConfigError":
            found.append(Trouble(step, f"its pod cannot start: {waiting.get('message')}", "make what is missing"))
        for state in (container["state"], container.get("lastState", {})):
            if state.get("terminated", {}).get("reason") == "OOMKilled":
                limit = limits[container["name"]].get("memory", "of the node")
                text = f"out of memory: its pod was killed at the limit {limit} (OOMKilled)"
                fix = f"raise limits.memory of its pod settings in {_FILE}, or lower train.batch_size or batch_crops"
                found.append(Trouble(step, text, fix))
    return found


def _step(found: Mapping[str, Any]) -> str:
    return str(found["metadata"].get("labels", {}).get("step_name", "orchestrator"))
