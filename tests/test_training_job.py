"""k8s/training: a Job of several pods, and its command run as two nodes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from metalayer.cli import _parser
from metalayer.core import MetaLayerConfig
from tests.manifests import K8S, VERSIONS, assert_restricted, kustomize, pod_specs, validate
from tests.servers import free_port

SETTINGS = """
base_model: pwm
max_epochs: 2
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
    (tmp_path / "train.yaml").write_text(SETTINGS)
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
    alone = ["train", f"--config={tmp_path}/train.yaml", f"--data-root={simulation}", f"--output-dir={tmp_path}/one"]
    done = subprocess.run(
        [sys.executable, "-m", "metalayer", *alone], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / name / "last_model.pt", weights_only=True)["model"] for name in ("one", "two"))
    for key, value in one.items():
        assert torch.allclose(value, two[key], atol=1e-5), key
