"""Runs at set times: a CronJob of the cluster that starts `run.py --if-changed` in the pipeline image.

ZenML's own schedule repeats a compiled run, and with it the hash of the data it was compiled for, so that the
cache would answer for new data. This one starts again each time: it finds and hashes the files, ends at once where
a finished run has seen them, and otherwise goes the whole way, gate included.
"""

from __future__ import annotations

import hashlib
import logging
import re
import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metalayer.errors import ConfigError
from pipelines.cluster import Cluster, ClusterError
from pipelines.stacks import Stack

_LABELS = {"app.kubernetes.io/name": "metalayer-pipeline", "app.kubernetes.io/part-of": "metalayer"}
_OURS = "metalayer-schedule"
_CLAIM = "metalayer-data"
"""Claim of the volume with the base-layer files, mounted where the run's data root is."""
_SECRETS = {
    "metalayer-zenml": "--from-literal=ZENML_STORE_API_KEY=...",
    "metalayer-s3": "--from-literal=AWS_ACCESS_KEY_ID=... --from-literal=AWS_SECRET_ACCESS_KEY=...",
}
"""By name, with what `kubectl create secret generic` makes them of."""
_OPTIONAL_SECRET = "metalayer-mlflow"  # noqa: S105
"""Of an MLflow server with authentication."""
_CONFIG_FOLDER = "/config"
_NAME_LENGTH = 52
_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_PART = re.compile(r"(\*|(\d+)(?:-(\d+))?)(?:/(\d+))?")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScheduledRun:
    """What a schedule starts.

    Attributes:
        pipeline: as `--pipeline`.
        config: YAML of the run; None is the demo.
        data_root: folder in the pod where the data volume is mounted; None where the run brings its own data.
        overrides: as `--set`.
    """

    pipeline: str
    config: Path | None
    data_root: Path | None
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the CronJob; the ConfigMap with the configuration has its beginning."""
        given = f"metalayer-{self.pipeline}-{self.config.stem if self.config else 'demo'}"
        return re.sub(r"[^a-z0-9]+", "-", given.lower())[:_NAME_LENGTH].strip("-")


def manifests(stack: Stack, run: ScheduledRun, cron: str, time_zone: str) -> list[dict[str, Any]]:
    """The CronJob, and the ConfigMap with the run's configuration, if it has one.

    Raises:
        ConfigError: times or a time zone that no cluster would take; a stack without a cluster.
    """
    orchestrator = _orchestrator(stack)
    _check_times(cron, time_zone)
    pod = orchestrator["pod_settings"]
    command = ["python", "pipelines/run.py", "--stack", stack.name, "--pipeline", run.pipeline, "--if-changed"]
    volumes, mounts = list(pod["volumes"]), list(pod["volume_mounts"])
    documents = []
    namespace = orchestrator["kubernetes_namespace"]
    labels = {**_LABELS, _OURS: run.name}
    metadata = {"name": run.name, "namespace": namespace, "labels": labels}
    if run.config:
        file, content = run.config.name, run.config.read_text(encoding="utf-8")
        # Named by its content, so that the CronJob takes up another whole or not at all.
        kept = f"{run.name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
        documents.append(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {**metadata, "name": kept}, "data": {file: content}}
        )
        command += ["--config", f"{_CONFIG_FOLDER}/{file}"]
        volumes.append({"name": "config", "configMap": {"name": kept}})
        mounts.append({"name": "config", "mountPath": _CONFIG_FOLDER, "readOnly": True})
    if run.data_root:
        command += ["--data-root", str(run.data_root)]
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": _CLAIM, "readOnly": True}})
        mounts.append({"name": "data", "mountPath": str(run.data_root), "readOnly": True})
    for change in run.overrides:
        command += ["--set", change]
    container = {
        "name": "run",
        "image": stack.settings["docker"]["parent_image"],
        "command": command,
        "env": [*pod["env"], *({"name": key, "value": value} for key, value in stack.environment.items())],
        "envFrom": [
            *({"secretRef": {"name": name}} for name in _SECRETS),
            {"secretRef": {"name": _OPTIONAL_SECRET, "optional": True}},
        ],
        "resources": pod["resources"],
        "securityContext": pod["container_security_context"],
        "volumeMounts": mounts,
    }
    spec = {
        "serviceAccountName": orchestrator["service_account_name"],
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "securityContext": pod["additional_pod_spec_args"]["security_context"],
        "containers": [container],
        "volumes": volumes,
    }
    documents.append(
        {
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "metadata": metadata,
            "spec": {
                "schedule": cron,
                "timeZone": time_zone,
                "concurrencyPolicy": "Forbid",
                "startingDeadlineSeconds": 3600,
                "successfulJobsHistoryLimit": 3,
                "failedJobsHistoryLimit": 3,
                "jobTemplate": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "backoffLimit": 0,  # steps retry by themselves, and a rejected model is not trained again
                        "activeDeadlineSeconds": stack.longest_s,
                        "template": {"metadata": {"labels": labels}, "spec": spec},
                    },
                },
            },
        }
    )
    return documents


def apply(stack: Stack, documents: Sequence[dict[str, Any]]) -> bool:
    """Make a schedule, or bring it up to date; returns whether it was there before.

    A suspended schedule stays suspended. Rights that only a look needs, and that we have not, stop nothing: what was
    not looked at is logged.

    Args:
        stack: with the cluster.
        documents: as in `manifests`.

    Raises:
        ConfigError: a Secret or claim that its pods mount is not there; the schedule of this name starts another run;
            no such context.
        ClusterError: the cluster refuses.
    """
    cluster, cron_job = _cluster(stack), documents[-1]
    name = cron_job["metadata"]["name"]
    _require_mounted(cluster, cron_job)
    before = _found(cluster, f"{_path(stack, 'CronJob')}/{name}")
    if before and _container(before)["command"] != _container(cron_job)["command"]:
        raise ConfigError(
            f"schedule {name} is there, and starts another run\n"
            f"there: {' '.join(_container(before)['command'])}\n"
            f"given: {' '.join(_container(cron_job)['command'])}\n"
            f"delete it (python pipelines/run.py schedule delete {name}), or copy the configuration to a file of "
            "another name and give that as --config"
        )
    for document in documents:
        path = _path(stack, document["kind"])
        try:
            cluster.ask("POST", path, document)
        except ClusterError as error:
            if error.status != 409:  # there already
                raise
            cluster.ask("PATCH", f"{path}/{document['metadata']['name']}", document)
    return before is not None


def listed(stack: Stack) -> list[str]:
    """A line for each schedule: name, times, time zone, suspended or not, when it last started a run.

    Raises:
        ConfigError: a stack without a cluster; no such context.
        ClusterError: the cluster refuses.
    """
    lines = []
    for item in _cluster(stack).ask("GET", f"{_path(stack, 'CronJob')}?labelSelector={_OURS}")["items"]:
        spec = item["spec"]
        state = "suspended" if spec.get("suspend") else "active"
        last = item.get("status", {}).get("lastScheduleTime", "never")
        lines.append(f"{item['metadata']['name']}  {spec['schedule']}  {spec.get('timeZone')}  {state}  last {last}")
    return lines


def suspend(stack: Stack, name: str, *, suspended: bool) -> None:
    """Start no further run, or start runs again.

    Raises:
        ConfigError: a stack without a cluster; no such context.
        ClusterError: no such schedule, or the cluster refuses.
    """
    _cluster(stack).ask("PATCH", f"{_path(stack, 'CronJob')}/{name}", {"spec": {"suspend": suspended}})


def delete(stack: Stack, name: str) -> None:
    """Remove a schedule with its configuration, and the pod that waits for a run; the run itself goes on.

    Raises:
        ClusterError: no such schedule, or the cluster refuses.
    """
    cluster = _cluster(stack)
    cluster.ask("DELETE", f"{_path(stack, 'CronJob')}/{name}?propagationPolicy=Background")
    configurations = _path(stack, "ConfigMap")
    for item in cluster.ask("GET", f"{configurations}?labelSelector={_OURS}%3D{name}")["items"]:
        cluster.ask("DELETE", f"{configurations}/{item['metadata']['name']}")


def _cluster(stack: Stack) -> Cluster:
    return Cluster(_orchestrator(stack)["kubernetes_context"])


def _orchestrator(stack: Stack) -> dict[str, Any]:
    orchestrator = stack.components["orchestrator"]
    if orchestrator["flavor"] != "kubernetes":
        raise ConfigError(f"--schedule needs a cluster: given --stack {stack.name}; use --stack kubernetes")
    return orchestrator


def _require_mounted(cluster: Cluster, cron_job: dict[str, Any]) -> None:
    """Without them a pod waits and its Job does not fail, while `Forbid` keeps further runs from starting."""
    namespace = cron_job["metadata"]["namespace"]
    wanted = {
        f"secrets/{name}": f"kubectl -n {namespace} create secret generic {name} {values}"
        for name, values in _SECRETS.items()
    }
    if any("persistentVolumeClaim" in volume for volume in _pod(cron_job)["volumes"]):
        wanted[f"persistentvolumeclaims/{_CLAIM}"] = (
            "make a PersistentVolumeClaim of this name, with the files that --data-root names (docs/kubernetes.md)"
        )
    missing = []
    for thing, fix in wanted.items():
        try:
            there = _found(cluster, f"/api/v1/namespaces/{namespace}/{thing}")
        except ClusterError as error:
            if error.status != 403:
                raise
            logger.warning("unchecked: %s: %s", thing, error)
            continue
        if there is None:
            missing.append(f"{thing} -> {fix}")
    if missing:
        raise ConfigError(f"namespace {namespace} lacks what a scheduled run needs:\n" + "\n".join(missing))


def _found(cluster: Cluster, path: str) -> dict[str, Any] | None:
    try:
        return cluster.ask("GET", path)
    except ClusterError as error:
        if error.status != 404:
            raise
        return None


def _pod(cron_job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return pod


def _container(cron_job: dict[str, Any]) -> dict[str, Any]:
    container: dict[str, Any] = _pod(cron_job)["containers"][0]
    return container


def _path(stack: Stack, kind: str) -> str:
    namespace = _orchestrator(stack)["kubernetes_namespace"]
    group = {"CronJob": "/apis/batch/v1", "ConfigMap": "/api/v1"}[kind]
    return f"{group}/namespaces/{namespace}/{kind.lower()}s"


def _check_times(cron: str, time_zone: str) -> None:
    fields = cron.split()
    if len(fields) != len(_FIELDS) or not all(map(_field_is_possible, fields, _FIELDS)):
        raise ConfigError(
            f"--schedule: given {cron!r}; expected minute, hour, day of month, month and day of week (0, Sunday, to 6) "
            "in numbers, as in '0 3 * * 1' for Mondays at 3"
        )
    if time_zone not in zoneinfo.available_timezones():
        raise ConfigError(f"--time-zone: given {time_zone!r}; expected a name such as Etc/UTC or Europe/Berlin")


def _field_is_possible(field: str, limits: tuple[int, int]) -> bool:
    low, high = limits
    for part in field.split(","):
        match = _PART.fullmatch(part)
        if not match:
            return False
        first, last, step = (int(text) if text else None for text in match.group(2, 3, 4))
        if any(number is not None and not low <= number <= high for number in (first, last)) or step == 0:
            return False
        if first is not None and last is not None and first > last:
            return False
    return True
