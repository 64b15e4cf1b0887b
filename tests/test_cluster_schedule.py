"""What a schedule starts, on the test bed: Jobs of its CronJob's template, which 1.20 has only in an older version."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import schedule, stacks
from tests.bed import NAMESPACE, kubectl, objects, wait_for
from tests.test_cluster import MLFLOW_URI, environment, log_of, untainted  # noqa: F401
from tests.test_pipeline import CONFIGS, PASSING, QUICK, STEPS, found

ENDED = ("Succeeded", "Failed")
FROM_HERE = "load_artifacts, label, split"
"""Steps that a run of test_cluster.py, from this machine and without MLflow's credentials, has left in the cache."""

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def cron_job(
    environment: dict[str, str],  # noqa: F811
    simulation: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, Any]]:
    """Of a small run; what its pods mount is there as long as this lasts."""
    now = time.strftime("%Y%m%d-%H%M%S")
    folder = tmp_path_factory.mktemp("scheduled")
    shutil.copytree(simulation, folder / "data")
    subprocess.run(["chmod", "-R", "a+rX", str(folder / "data")], check=True)
    run = schedule.ScheduledRun(
        pipeline="training",
        config=Path(shutil.copy(CONFIGS / "demo.yaml", folder / "scheduled.yaml")),
        # Where the data lie here: what was made of them by a run from this machine comes from the cache.
        data_root=simulation,
        # The bed's ZenML knows the runs of other days, whose settings are then others.
        overrides=(*QUICK, *PASSING, "train.threads=1", f"train.learning_rate=0.002000{now[-6:]}"),
    )
    stack = stacks.read("kubernetes", {"state": os.environ["METALAYER_HOME"], "tracking_uri": MLFLOW_URI})
    config_map, cron_job = schedule.manifests(stack, run, "0 3 * * 1", "Etc/UTC")
    size = {"storage": "1Gi"}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"metalayer-data-{now}"},
        "spec": {
            "storageClassName": "",
            "accessModes": ["ReadWriteOnce"],
            "capacity": size,
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(folder / "data")},
        },
    }
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "metalayer-data", "namespace": NAMESPACE},
        "spec": {
            "storageClassName": "",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": size},
            "volumeName": volume["metadata"]["name"],
        },
    }
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "metalayer-zenml", "namespace": NAMESPACE},
        "stringData": {name: environment[name] for name in ("ZENML_STORE_USERNAME", "ZENML_STORE_PASSWORD")},
    }
    mounted = json.dumps({"apiVersion": "v1", "kind": "List", "items": [volume, claim, secret, config_map]})
    kubectl("apply", "--validate=false", "-f", "-", given=mounted)
    try:
        yield cron_job
    finally:
        kubectl("-n", NAMESPACE, "delete", "jobs", "-l", f"metalayer-schedule={run.name}")
        kubectl("delete", "-f", "-", given=mounted)


def ran(cron_job: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """The pod of a Job of the CronJob's template once it has ended, and what it has said."""
    template = copy.deepcopy(cron_job["spec"]["jobTemplate"])
    pod = template["spec"]["template"]["spec"]
    # The run's other pods leave this one little of the bed's two cores.
    pod["containers"][0]["resources"]["requests"] = {"cpu": "50m", "memory": "512Mi"}
    metadata = {**template["metadata"], "name": name, "namespace": NAMESPACE}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]}
    kubectl("apply", "--validate=false", "-f", "-", given=json.dumps(job))

    def ended() -> list[dict[str, Any]]:
        return [pod for pod in objects("pods", f"job-name={name}") if pod["status"]["phase"] in ENDED]

    (pod,) = wait_for(f"the end of {name}", 1200, ended)
    return pod, log_of(pod["metadata"]["name"])


@pytest.mark.usefixtures("untainted")
def test_trains_from_within_the_cluster_and_not_twice(cron_job: dict[str, Any]) -> None:
    from metalayer.registry import versions

    pod, told = ran(cron_job, "scheduled-first")
    assert pod["status"]["phase"] == "Succeeded", told
    assert pod["spec"]["serviceAccountName"] == "metalayer-pipeline"
    cached = found(r"^cached +(.+)$", told)
    assert cached in (FROM_HERE, "no step")  # the last where this file runs alone
    labels = [job["metadata"]["labels"] for job in objects("jobs", "pipeline=training")]
    started = {of.get("step_name") for of in labels if of.get("run_name", "").startswith("scheduled-")}
    assert started >= {*STEPS} - {*cached.split(", ")}
    champion = versions.find_champion("metalayer-pwm", MLFLOW_URI)
    assert champion is not None
    assert found(r"^model +(.+)$", told) == f"metalayer-pwm version {champion.version}, alias champion"
    assert found(r"^Bento +(\S+)$", told).startswith(f"metalayer-pwm:{champion.version}-")
    pod, told = ran(cron_job, "scheduled-second")
    assert pod["status"]["phase"] == "Succeeded", told
    assert found(r"^nothing new: run (scheduled)-\S+ has seen these data with these settings$", told)
    assert "exit status 0: skipped" in told
