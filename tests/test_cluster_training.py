"""k8s/training: a Job of several pods, its command run as two nodes of this machine, and its pods on the test bed."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from metalayer.cli import _parser
from metalayer.core import MetaLayerConfig
from tests import bed
from tests.bed import kubectl, wait_for
from tests.manifests import K8S, VERSIONS, assert_restricted, kustomize, pod_specs, validate
from tests.servers import free_port

SETTINGS = """
base_model: pwm
max_epochs: {epochs}
patience: 1000
hidden_dim: 32
batch_size: 32
dropout: 0.0
device: cpu
threads: 1
"""


@pytest.fixture(scope="module")
def documents() -> dict[str, dict[str, Any]]:
    """By kind; there is one of each."""
    found = kustomize(K8S / "training")
    by_kind = {document["kind"]: document for document in found}
    assert len(by_kind) == len(found)
    return by_kind


@pytest.mark.parametrize("version", VERSIONS)
def test_schema(documents: dict[str, dict[str, Any]], version: str) -> None:
    for document in documents.values():
        validate(document, version)


def options_of(container: dict[str, Any]) -> Any:
    """The command as torchrun and metalayer read it."""
    from torch.distributed.run import get_args_parser

    assert container["command"] == ["python", "-m", "torch.distributed.run"]
    # As Kubernetes fills it in, in an Indexed Job.
    arguments = [argument.replace("$(JOB_COMPLETION_INDEX)", "1") for argument in container["args"]]
    options = get_args_parser().parse_args(arguments)
    assert options.module
    assert options.training_script == "metalayer"
    return options


def test_pods_find_each_other(documents: dict[str, dict[str, Any]]) -> None:
    job, service = documents["Job"], documents["Service"]
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    options = options_of(container)
    assert job["spec"]["completionMode"] == "Indexed"
    assert int(options.nnodes) == job["spec"]["completions"] == job["spec"]["parallelism"]
    assert options.node_rank == 1
    assert options.master_addr == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert spec["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    labels = job["spec"]["template"]["metadata"]["labels"]
    policy = documents["NetworkPolicy"]["spec"]
    (sender,) = policy["ingress"][0]["from"]
    for selector in (service["spec"]["selector"], policy["podSelector"]["matchLabels"]):
        assert selector.items() <= labels.items()
    assert sender["podSelector"] == policy["podSelector"]
    assert "ports" not in policy["ingress"][0]
    assert [options.master_port] == [port["port"] for port in service["spec"]["ports"]]
    assert [options.master_port] == [port["containerPort"] for port in container["ports"]]


def test_pods(documents: dict[str, dict[str, Any]]) -> None:
    (spec,) = pod_specs(list(documents.values())).values()
    assert_restricted(spec)
    assert spec["automountServiceAccountToken"] is False
    assert spec["restartPolicy"] == "OnFailure"
    (container,) = spec["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounted) == {volume["name"] for volume in spec["volumes"]}
    given = _parser().parse_args(options_of(container).training_script_args)
    assert given.resume
    assert str(given.data_root) == mounted["data"]
    assert str(given.output_dir).startswith(mounted["data"] + "/")
    assert str(given.config) == mounted["config"] + "/train.yaml"
    MetaLayerConfig.from_yaml(K8S / "training" / "train.yaml")


@pytest.mark.slow
def test_the_command_as_two_nodes(documents: dict[str, dict[str, Any]], simulation: Path, tmp_path: Path) -> None:
    """They end with the model of one process."""
    (tmp_path / "train.yaml").write_text(SETTINGS.format(epochs=2))
    (container,) = documents["Job"]["spec"]["template"]["spec"]["containers"]
    port = free_port()
    places = {
        "--nproc-per-node=gpu": "--nproc-per-node=1",
        "metalayer-training-0.metalayer-training": "127.0.0.1",
        "=29500": f"={port}",
        "/config": str(tmp_path),
        "/data/models/training": str(tmp_path / "two"),
        "=/data": f"={simulation}",
    }
    text = "\n".join(container["args"])
    for given, here in places.items():
        assert given in text
        text = text.replace(given, here)
    nodes = []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "METALAYER_HOME": str(tmp_path / "state")}
    for index in range(2):
        arguments = text.replace("$(JOB_COMPLETION_INDEX)", str(index)).split("\n")
        with (tmp_path / f"{index}.log").open("wb") as log:
            command = [sys.executable, "-m", "torch.distributed.run", *arguments]
            nodes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    for index, node in enumerate(nodes):
        assert node.wait(timeout=200) == 0, (tmp_path / f"{index}.log").read_text()
    assert_model_of_one(tmp_path / "two", tmp_path / "train.yaml", simulation, tmp_path / "one")


def assert_model_of_one(trained: Path, settings: Path, data: Path, folder: Path) -> None:
    """Training in one process of this machine, into `folder`, ends with the same weights to 1e-5."""
    command = ["train", f"--config={settings}", f"--data-root={data}", f"--output-dir={folder}"]
    done = subprocess.run([sys.executable, "-m", "metalayer", *command], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    one, other = (torch.load(path / "last_model.pt", weights_only=True)["model"] for path in (folder, trained))
    for key, value in one.items():
        assert torch.allclose(value, other[key], atol=1e-5), key


# ---- on the test bed

NAMESPACE = "metalayer-training-test"
EPOCHS = 7
KILL = """
import os, signal
from pathlib import Path
for entry in Path("/proc").glob("[0-9]*"):
    words = (entry / "cmdline").read_bytes().split(b"\\0")
    if b"--resume" in words and b"torch.distributed.run" not in words:
        os.kill(int(entry.name), signal.SIGKILL)
"""


@pytest.fixture
def registry() -> Iterator[str]:
    """The bed's, with our images, and a namespace of our own, gone at the end."""
    with bed.up() as given:
        bed.push_images(given["REGISTRY"], "pipeline")
        kubectl("create", "namespace", NAMESPACE)
        try:
            yield given["REGISTRY"]
        finally:
            kubectl("delete", "namespace", NAMESPACE)


def on_the_bed(documents: dict[str, dict[str, Any]], image: str, settings: str, folder: Path) -> list[dict[str, Any]]:
    """The Job's pods for Kubernetes 1.20, which has no indexed Jobs, on a CPU, without cluster DNS or a shared claim.

    Pod 0 has an address of its own, and what would be its name is in the pods' /etc/hosts.
    """
    address = "10.96.0.77"
    config, service = (copy.deepcopy(documents[kind]) for kind in ("ConfigMap", "Service"))
    config["data"]["train.yaml"] = settings
    service["spec"] |= {"clusterIP": address, "selector": {"index": "0"}}
    pods = []
    for index in range(documents["Job"]["spec"]["completions"]):
        template = copy.deepcopy(documents["Job"]["spec"]["template"])
        spec = template["spec"]
        (container,) = spec["containers"]
        del spec["nodeSelector"], spec["serviceAccountName"], container["resources"]
        name = f"{documents['Job']['metadata']['name']}-{index}"
        container["image"] = image
        container["args"] = [argument.replace("=gpu", "=1") for argument in container["args"]]
        container["env"] += [{"name": "JOB_COMPLETION_INDEX", "value": str(index)}]
        meeting = next(argument for argument in container["args"] if "master-addr" in argument).partition("=")[2]
        spec["hostname"] = name
        spec["hostAliases"] = [{"ip": address if index else "127.0.0.1", "hostnames": [meeting]}]
        (data,) = (volume for volume in spec["volumes"] if volume["name"] == "data")
        del data["persistentVolumeClaim"]
        data["hostPath"] = {"path": str(folder)}
        labels = {**template["metadata"]["labels"], "index": str(index)}
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec})
    for document in (config, service, documents["NetworkPolicy"], *pods):
        document["metadata"]["namespace"] = NAMESPACE
    return [config, service, documents["NetworkPolicy"], *pods]


@pytest.mark.cluster
@pytest.mark.slow
def test_two_pods_and_one_of_them_lost(
    registry: str, documents: dict[str, dict[str, Any]], simulation: Path, tmp_path: Path
) -> None:
    """A process is killed: both pods start again, go on from the checkpoint, and end with the model of one."""
    folder, settings = tmp_path / "data", SETTINGS.format(epochs=EPOCHS)
    shutil.copytree(simulation, folder)
    subprocess.run(["chmod", "-R", "a+rwX", str(folder)], check=True)
    items = on_the_bed(documents, f"{registry}/metalayer-pipeline:{bed.TAG}", settings, folder)
    kubectl(
        "apply", "--validate=false", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    )
    trained = folder / "models" / "training"

    def epochs() -> int:
        history = trained / "history.json"
        return len(json.loads(history.read_text())) - 1 if history.exists() else -1

    wait_for("two epochs", 180, lambda: epochs() >= 2)
    kubectl("-n", NAMESPACE, "exec", "metalayer-training-1", "--", "python", "-c", KILL)
    assert epochs() < EPOCHS

    def statuses() -> list[dict[str, Any]]:
        return [pod["status"] for pod in json.loads(kubectl("-n", NAMESPACE, "get", "pods", "-o", "json"))["items"]]

    wait_for("the end of both", 300, lambda: {status["phase"] for status in statuses()} == {"Succeeded"})
    assert [status["containerStatuses"][0]["restartCount"] > 0 for status in statuses()] == [True, True]
    assert epochs() == EPOCHS
    (tmp_path / "train.yaml").write_text(settings)
    assert_model_of_one(trained, tmp_path / "train.yaml", simulation, tmp_path / "one")
