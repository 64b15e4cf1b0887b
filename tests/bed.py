"""The test bed beside the checkout, `../shared/cluster`: a Kubernetes with all that a run on it needs."""

from __future__ import annotations

import functools
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.manifests import K8S

ROOT = Path(__file__).resolve().parents[1]
BED = ROOT.parent / "shared" / "cluster"
NAMESPACE = "metalayer"
TAG = "tested"
MLFLOW = "10.96.0.50"
"""Address of MLflow's service in `k8s/overlays/bed`: the bed has no cluster DNS."""
MLFLOW_URI = f"http://{MLFLOW}:5000"
_TAINT = "nvidia.com/gpu=present:NoSchedule"
_DATABASE = "metalayer_tested"


def _variables() -> dict[str, str]:
    """What `eval "$(env)"` of the bed sets; skips the test where there is no bed, or it is not up."""
    if not (BED / "env").is_file():
        pytest.skip("no test bed beside this checkout")
    lines = subprocess.run([str(BED / "env")], capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = (shlex.split(line)[1].partition("=") for line in lines if line.startswith("export "))
    found = {name: value for name, _, value in pairs if name != "PATH"}
    if "ZENML_STORE_URL" not in found:
        pytest.skip("the test bed was never up; make test-cluster starts it")
    return found


@contextmanager
def up() -> Iterator[dict[str, str]]:
    """The bed's variables, in the environment while this lasts; skips the test where the bed is not up."""
    given = _variables()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        patch.setenv("PATH", f"/usr/bin:{os.environ['PATH']}")  # Debian's docker, which the bed has
        _require_answers()
        yield given


def _require_answers() -> None:
    """Skip the test where the bed's Kubernetes or Docker does not answer; the environment names them."""
    for command in (["kubectl", "--request-timeout=5s", "get", "--raw", "/readyz"], ["docker", "version"]):
        try:
            subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        except FileNotFoundError:
            pytest.skip(f"no {command[0]}")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"the test bed is not up (make test-cluster): {command[0]}: {error.stderr.strip()[-200:]}")


def kubectl(*arguments: str, given: str | None = None, timeout: int = 120) -> str:
    """Standard output of a kubectl command that succeeds."""
    done = subprocess.run(
        ["kubectl", *arguments], input=given, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def objects(kind: str, selector: str = "") -> list[dict[str, Any]]:
    """Objects of a kind in our namespace."""
    found: list[dict[str, Any]] = json.loads(kubectl("-n", NAMESPACE, "get", kind, "-l", selector, "-o", "json"))[
        "items"
    ]
    return found


def wait_for(what: str, seconds: float, condition: Any) -> Any:
    """The first true answer; fails with `what` after so many seconds."""
    until = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < until, f"{what}: not within {seconds:g} s"
        time.sleep(1)
    return answer


def answers(url: str) -> bool:
    """Whether status 200 comes from there.

    A service's address leads out of the machine until kube-proxy knows its pod, which may be seconds after the pod is
    ready, and who answers then is somebody else.
    """
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def taint(on: bool) -> Iterator[None]:
    """The GPU's taint on the bed's one node, or none; afterwards as it was found.

    With it, pods that need no GPU have no node to go to.
    """
    (node,) = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    was = any(found["key"] == "nvidia.com/gpu" for found in node["spec"].get("taints", []))

    def put(wanted: bool) -> None:
        if wanted:
            kubectl("taint", "node", node["metadata"]["name"], "--overwrite", _TAINT)
        else:
            kubectl("taint", "node", node["metadata"]["name"], "nvidia.com/gpu-")

    if was != on:
        put(on)
    try:
        yield
    finally:
        if was != on:
            put(was)


def push_images(registry: str, *names: str) -> None:
    """Build images of metalayer (`pipeline`, ...) from this checkout, for pods of the bed; each once in this process.

    The node's Docker is the one that builds them, so no pod fetches them. The registry gets their names and labels,
    which is what runs look at there, and not the layers: to compress 2.6 GB costs minutes.
    """
    for name in names:
        _push(registry, name)


@functools.cache
def _push(registry: str, name: str) -> None:
    here, there = f"metalayer-{name}:{TAG}", f"{registry}/metalayer-{name}:{TAG}"
    _done("make", f"PYTHON={sys.executable}", f"TAG={TAG}", f"image-{name}")
    labels = json.loads(_done("docker", "image", "inspect", "--format", "{{json .Config.Labels}}", here))
    options = [part for label, value in labels.items() for part in ("--label", f"{label}={value}")]
    _done("docker", "build", "--quiet", "--tag", there, *options, "-", given="FROM scratch\n")
    _done("docker", "push", "--quiet", there)
    _done("docker", "tag", here, there)


def _done(*command: str, given: str | None = None) -> str:
    """Standard output of a command that succeeds, in this checkout."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    done = subprocess.run(
        command, input=given, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@functools.cache
def prepared(folder: Path) -> dict[str, str]:
    """What runs need to know, with the images pushed and the overlay applied: once for all files of tests.

    The environment is the bed's; what is made lies in `folder`.
    """
    registry = os.environ["REGISTRY"]
    push_images(registry, "pipeline", "pipeline-gpu")
    overlay = folder / "overlay"
    overlay.mkdir()
    apply(dict(os.environ), overlay)
    return {
        "METALAYER_KUBE_CONTEXT": os.environ["KUBE_CONTEXT"],
        "METALAYER_REGISTRY": registry,
        "METALAYER_IMAGE_TAG": TAG,
        # A folder of its own, since the bed's ZenML outlives its S3: no step comes from the cache of another day.
        "METALAYER_BUCKET": f"s3://{os.environ['S3_BUCKET']}/{time.strftime('%Y%m%d-%H%M%S')}",
        "METALAYER_HOME": str(folder / "bed-state"),
        "MLFLOW_TRACKING_URI": MLFLOW_URI,
    }


def apply(environment: dict[str, str], folder: Path) -> None:
    """The overlay for the bed with these images, its Secrets, no Jobs, and an MLflow with an empty database."""
    kubectl("apply", "--validate=false", "-f", str(K8S / "base" / "namespace.yaml"))
    # MLflow goes before its database does, and comes back once.
    kubectl("-n", NAMESPACE, "delete", "jobs,deployments", "--all", timeout=300)
    uri = empty_database(environment["POSTGRES_URL"], _DATABASE)
    secrets = {
        "metalayer-s3": {name: environment[name] for name in environment if name.startswith("AWS_")},
        "metalayer-mlflow-database": {"uri": uri, "password": urlsplit(uri).password or ""},
        "metalayer-api-keys": {"api-keys": "key-of-the-test"},
    }
    for name, values in secrets.items():
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}
        kubectl("-n", NAMESPACE, "apply", "--validate=false", "-f", "-", given=json.dumps(secret))
    image = {"newName": f"{environment['REGISTRY']}/metalayer-pipeline", "newTag": TAG}
    overlay = {
        "resources": [os.path.relpath(K8S / "overlays" / "bed", folder)],
        "images": [{"name": "metalayer-pipeline", **image}],
        "replicas": [{"name": "metalayer-serving", "count": 0}],
    }
    (folder / "kustomization.yaml").write_text(json.dumps(overlay))
    kubectl("apply", "--validate=false", "-k", str(folder))
    kubectl("-n", NAMESPACE, "rollout", "status", "deployment/metalayer-mlflow", "--timeout=300s", timeout=310)
    wait_for("MLflow at its service", 60, lambda: answers(f"{MLFLOW_URI}/health"))


def empty_database(uri: str, name: str) -> str:
    """The URI of a new database beside the given one."""
    import psycopg2

    connection = psycopg2.connect(uri)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        cursor.execute(f"CREATE DATABASE {name}")
    connection.close()
    return f"{uri.rpartition('/')[0]}/{name}"
