"""`--stack kubeflow`: what is compiled, field by field, and its execution by kfp's SubprocessRunner.

A real ZenML server, as Kubeflow's pods need one; MLflow and artifacts in files, and a Kubeflow that is fake: its API
takes the run and has kfp's local runner execute it.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from metalayer.errors import ConfigError
from pipelines import stacks
from tests import forked
from tests.fakes import FakeServer, fake_server
from tests.servers import zenml_server
from tests.test_pipeline import PASSING, QUICK, Ended, First, command, first, found, metrics  # noqa: F401
from tests.test_stacks import ENVIRONMENT, PLACES, SECRET

ROOT = Path(__file__).resolve().parents[1]
USER, PASSWORD = "ada", "l0velace-of-the-test"
STARTED = """
import sys, yaml
from pathlib import Path
sys.path.insert(0, {root!r})
from pipelines import run, stack_check, stacks
stack = yaml.safe_load((stacks.FOLDER / "kubeflow.yaml").read_text())
stack["components"]["artifact_store"] = {{"flavor": "local", "path": "{{state}}/artifacts"}}
stacks.FOLDER = Path({folder!r})
stacks.FOLDER.mkdir(exist_ok=True)
(stacks.FOLDER / "kubeflow.yaml").write_text(yaml.safe_dump(stack))
stack_check.require = lambda stack: None
sys.exit(run.main(sys.argv[1:]))
"""
"""`run.py` with the artifacts on this machine; what is checked before a run is tested with the stacks."""
SNAPSHOT = """
import json
from zenml.client import Client
run = Client().get_pipeline_run({run!r})
steps = run.snapshot.step_configurations
print("STEPS", json.dumps({{name: step.spec.upstream_steps for name, step in steps.items()}}), run.snapshot.id)
"""
EXECUTED = """
import sys
from pathlib import Path
from kfp import components, local
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=sys.argv[2])
components.load_component_from_text(Path(sys.argv[1]).read_text())()
"""


@dataclass
class Kubeflow:
    """ZenML's server, and a state folder with what runs need.

    Attributes:
        folder: of everything.
        url: of the server.
        key: what the Secret `metalayer-zenml` would hold.
    """

    folder: Path
    url: str
    key: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **ENVIRONMENT,
            "METALAYER_HOME": str(self.folder / "state"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db",
            "ZENML_CONFIG_PATH": str(self.folder / "state" / "zenml"),
            "ZENML_STORE_URL": self.url,
            "ZENML_STORE_USERNAME": USER,
            "ZENML_STORE_PASSWORD": PASSWORD,
        }

    def python(self, program: str, *arguments: str, **changes: str) -> Ended:
        done = forked.run(["-c", program, *arguments], {**self.environment, **changes}, ROOT, timeout=600)
        return Ended(done.returncode, done.stdout, done.stderr)

    def run(self, data: Path, **changes: str) -> Ended:
        program = STARTED.format(root=str(ROOT), folder=str(self.folder / "stacks"))
        chosen = command((*QUICK, *PASSING), ("--stack", "kubeflow", "--no-cache", "--data-root", str(data)))
        return self.python(program, *chosen, **changes)


@pytest.fixture(scope="module")
def kubeflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubeflow]:
    folder = tmp_path_factory.mktemp("kubeflow")
    with zenml_server(folder, USER, PASSWORD) as url, httpx.Client(base_url=f"{url}/api/v1") as api:
        token = api.post("login", data={"username": USER, "password": PASSWORD}).json()["access_token"]
        api.headers["Authorization"] = f"Bearer {token}"
        account = api.post("service_accounts", json={"name": "pods", "active": True}).json()["id"]
        key = api.post(f"service_accounts/{account}/api_keys", json={"name": "key"}).json()["body"]["key"]
        yield Kubeflow(folder, url, key)


@pytest.mark.integration
@pytest.mark.slow
def test_compiled_field_by_field(kubeflow: Kubeflow, simulation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = kubeflow.run(simulation)
    assert done.code == 0, done.err
    assert done.out.endswith("exit status 0: compiled\n")
    package = Path(found(r"^compiled (\S+),", done.out))
    assert package.parent == kubeflow.folder / "state" / "kubeflow"
    text = package.read_text()
    for secret in (SECRET, PASSWORD, "eyJ"):  # the last is how a token begins
        assert secret not in text
    spec, platform = yaml.safe_load_all(text)
    tasks, executors = spec["root"]["dag"]["tasks"], spec["deploymentSpec"]["executors"]
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]

    given = kubeflow.python(SNAPSHOT.format(run=package.stem))
    steps_text, snapshot = found(r"^STEPS (.+)$", given.out).rsplit(" ", 1)
    upstream = json.loads(steps_text)
    assert {name.replace("-", "_") for name in tasks} == set(upstream)
    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    stack = stacks.read("kubeflow", PLACES)
    for step, names in upstream.items():
        task = tasks[step.replace("_", "-")]
        assert {name.replace("-", "_") for name in task.get("dependentTasks", [])} == set(names), step
        assert task["taskInfo"]["name"] == step
        assert task["cachingOptions"] == {}
        inputs = {name: value["runtimeValue"]["constant"] for name, value in task["inputs"]["parameters"].items()}
        assert inputs["run_id"] == "{{$.pipeline_job_uuid}}"
        assert inputs["arguments"][-4:] == ["--snapshot_id", snapshot, "--step_name", step]
        label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
        wanted = stack.gpu_step["settings"] if step == "train" else {"docker": stack.settings["docker"]}
        pod = wanted.get("orchestrator", stack.components["orchestrator"])["pod"]
        assert executors[label]["container"]["image"] == wanted["docker"]["parent_image"]
        assert_is_pod(executors[label]["container"], pods[label], pod)


def assert_is_pod(container: dict[str, Any], written: dict[str, Any], pod: dict[str, Any]) -> None:
    """An executor of the package says what a pod of the stack's file does, all of it and nothing else."""
    resources, limits, requests = container["resources"], pod["resources"]["limits"], pod["resources"]["requests"]
    assert resources["resourceMemoryLimit"] == limits["memory"]
    assert (resources["resourceCpuRequest"], resources["resourceMemoryRequest"]) == (
        requests["cpu"],
        requests["memory"],
    )
    gpus = limits.get("nvidia.com/gpu")
    accelerator = resources.get("accelerator", {})
    assert (accelerator.get("resourceType"), accelerator.get("resourceCount")) == (
        ("nvidia.com/gpu", gpus) if gpus else (None, None)
    )
    plain = {variable["name"]: variable["value"] for variable in container["env"]}
    secret = {}
    for variable in pod["env"]:
        if "value" in variable:
            assert plain[variable["name"]] == variable["value"]
        else:
            assert variable["name"] not in plain
            key = variable["valueFrom"]["secretKeyRef"]
            secret[variable["name"]] = (key["name"], key["key"])
    assert secret == {
        key["envVar"]: (item["secretName"], key["secretKey"])
        for item in written["secretAsEnv"]
        for key in item["keyToEnv"]
    }
    places = {mount["name"]: mount["mountPath"] for mount in pod["volume_mounts"]}
    assert written["emptyDirMounts"] == [
        {"volumeName": volume["name"], "mountPath": places[volume["name"]], **volume["emptyDir"]}
        for volume in pod["volumes"]
    ]
    assert written["podMetadata"]["labels"] == pod["labels"]
    assert written.get("nodeSelector", {}).get("labels", {}) == pod.get("node_selectors", {})
    assert written.get("tolerations", []) == pod.get("tolerations", [])
    identity = {
        name: str(value) if type(value) is int else value for name, value in pod["container_security_context"].items()
    }
    assert written["securityContext"] == identity
    assert set(written) - {"nodeSelector", "tolerations"} == {
        "secretAsEnv", "emptyDirMounts", "podMetadata", "securityContext"
    }  # fmt: skip


class FakeKubeflow:
    """Its API as kfp's client calls it; the run is executed by kfp's local runner, without images and Secrets."""

    def __init__(self, server: FakeServer, kubeflow: Kubeflow) -> None:
        self.kubeflow = kubeflow
        self.process: subprocess.Popen[bytes] | None = None
        self.log = kubeflow.folder / "tasks.log"
        experiment = {"experiment_id": "e", "display_name": "Default", "namespace": ""}
        server.answers.update(
            {
                "GET /apis/v2beta1/healthz": (200, {"multi_user": False}),
                "GET /apis/v2beta1/experiments": (200, {"experiments": [experiment]}),
                "POST /apis/v2beta1/experiments": (200, experiment),
                "POST /apis/v2beta1/runs": (200, self.start),
                "GET /apis/v2beta1/runs/r": (200, self.state),
            }
        )

    def start(self, body: dict[str, Any]) -> dict[str, str]:
        given = body["pipeline_spec"]
        text = yaml.safe_dump_all([given["pipeline_spec"], {"platforms": given["platform_spec"]["platforms"]}])
        # What is an image's and a pod's own: where the code is, and where there is room.
        text = text.replace("value: /app", f"value: {ROOT}").replace(
            "value: /state", f"value: {self.kubeflow.folder}/pod"
        )
        package = self.kubeflow.folder / "package.yaml"
        package.write_text(text)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ZENML_")}
        python = forked.executable(self.kubeflow.folder / "python")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(python), "-c", EXECUTED, str(package), str(self.kubeflow.folder / "kfp")],
                env={**environment, "ZENML_STORE_API_KEY": self.kubeflow.key},
                stdout=log,
                stderr=log,
            )
        return {"run_id": "r", "experiment_id": "e", "display_name": body["display_name"]}

    def state(self, _: Any) -> dict[str, str]:
        assert self.process
        states = {None: "RUNNING", 0: "SUCCEEDED"}
        return {"run_id": "r", "experiment_id": "e", "state": states.get(self.process.poll(), "FAILED")}


@pytest.mark.integration
@pytest.mark.slow
def test_executed_as_on_this_machine(kubeflow: Kubeflow, simulation: Path, first: First) -> None:  # noqa: F811
    with fake_server() as server:
        fake = FakeKubeflow(server, kubeflow)
        done = kubeflow.run(simulation, KF_PIPELINES_ENDPOINT=server.url)
    assert done.code == 0, done.err + fake.log.read_text()
    (submitted,) = [body for key, body in server.asked if key == "POST /apis/v2beta1/runs"]
    assert submitted["experiment_id"] == "e"
    assert "gate: promoted" in done.out
    judged = [ended.out[ended.out.index("22 held-out") :].partition("\nmodel  ")[0] for ended in (done, first)]
    assert judged[0] == judged[1]
    there = metrics(f"sqlite:///{kubeflow.folder}/mlflow.db", submitted["display_name"])
    assert there == pytest.approx(first.metrics, abs=1e-6)


@pytest.mark.integration
@pytest.mark.slow
def test_refused(kubeflow: Kubeflow, simulation: Path) -> None:
    with fake_server() as server:
        FakeKubeflow(server, kubeflow)
        server.answers["POST /apis/v2beta1/runs"] = (403, {"message": "not yours"})
        done = kubeflow.run(simulation, KF_PIPELINES_ENDPOINT=server.url)
    assert done.code == 1
    assert f"Kubeflow at {server.url} takes no run" in done.err
    assert "not yours" in done.err


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"host_ipc": True, "scheduler_name": "mine"}, "host_ipc, scheduler_name"),
        (
            {"resources": {"limits": {"memory": "1Gi", "ephemeral-storage": "1Gi"}}},
            "resources.limits.ephemeral-storage",
        ),
        ({"resources": {"limits": {"a/b": "1", "c/d": "1"}}}, "resources.limits.c/d"),
        ({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]}, "env.A"),
        ({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]}, "volumes.data"),
        ({"volume_mounts": [{"name": "v", "mountPath": "/v", "readOnly": True}]}, "volume_mounts.readOnly"),
        ({"container_security_context": {"readOnlyRootFilesystem": True}}, r"container_security_context\.readOnlyRoot"),
    ],
)
def test_what_does_not_reach_kubeflow_is_refused(given: dict[str, Any], named: str) -> None:
    from zenml.integrations.kubernetes.pod_settings import KubernetesPodSettings

    from pipelines import kubeflow

    with pytest.raises(ConfigError, match=f"pod of step train: given {named}"):
        kubeflow._check_pods({"train": KubernetesPodSettings(**given)})


def test_what_zenml_does_fails_with_this_kfp() -> None:
    """Why `pipelines/kubeflow.py` compiles by itself: where this passes no more, it may no longer have to."""
    from kfp import dsl
    from zenml.config import ResourceSettings
    from zenml.integrations.kubeflow.orchestrators.kubeflow_orchestrator import KubeflowOrchestrator

    @dsl.container_component
    def one():  # kfp reads annotations as objects, and here they are text
        return dsl.ContainerSpec(image="image")

    of_8_gb = ResourceSettings(memory="8GB")
    with pytest.raises(ValueError, match="only supports PipelineTask"):
        dsl.pipeline(lambda: one().after(one), name="after-a-component")
    with pytest.raises(TypeError, match="expected string"):
        dsl.pipeline(lambda: KubeflowOrchestrator._configure_container_resources(None, one(), of_8_gb), name="memory")
