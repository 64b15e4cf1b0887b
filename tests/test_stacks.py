"""Stacks: their files, what ZenML makes of them, and what `stack check` says before a run."""

from __future__ import annotations

import base64
import json
import os
import socketserver
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from metalayer.errors import ConfigError, MetalayerError
from metalayer.settings.sections import ScoreConfig
from pipelines import stack_check, stacks
from pipelines.stack_check import Finding
from tests import forked
from tests.fakes import FakeServer, fake_server
from tests.manifests import VERSIONS, assert_restricted, validate

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "pipelines" / "run.py"
PLACES = {"state": "/state", "tracking_uri": "http://127.0.0.1:1"}
SECRET = "s3cret-of-the-test"
ENVIRONMENT = {
    "METALAYER_KUBE_CONTEXT": "here",
    "METALAYER_REGISTRY": "127.0.0.1:1",
    "METALAYER_IMAGE_TAG": "1",
    "METALAYER_BUCKET": "s3://bucket/folder",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:1",
    "ZENML_STORE_URL": "http://127.0.0.1:1",
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": SECRET,
}
NAMESPACE = "/api/v1/namespaces/metalayer"
COMPONENTS = (
    "orchestrator",
    "step_operator",
    "artifact_store",
    "container_registry",
    "image_builder",
    "experiment_tracker",
    "model_registry",
)
REVIEWS = "/apis/authorization.k8s.io/v1"


def read_kubernetes(monkeypatch: pytest.MonkeyPatch) -> stacks.Stack:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return stacks.read("kubernetes", PLACES)


@pytest.fixture
def kubernetes(monkeypatch: pytest.MonkeyPatch) -> stacks.Stack:
    return read_kubernetes(monkeypatch)


@pytest.mark.parametrize("name", stacks.names())
def test_shipped_stacks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    stack = stacks.read(name, PLACES)
    assert {"orchestrator", "artifact_store", "experiment_tracker", "image_builder"} <= stack.components.keys()
    plain = yaml.safe_dump([stack.components, stack.settings, stack.steps, stack.gpu_step])
    assert "{" not in plain.replace("{}", "")
    assert SECRET not in plain
    assert set(stacks.variables(name)) <= set(ENVIRONMENT)


def test_all_unset_variables_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("METALAYER_REGISTRY", "r")
    with pytest.raises(ConfigError) as caught:
        stacks.read("kubernetes", PLACES)
    for name in ENVIRONMENT:
        assert (name in str(caught.value)) == (name != "METALAYER_REGISTRY")
    with pytest.raises(ConfigError, match="kubeflow, kubernetes, local"):
        stacks.read("nonesuch", PLACES)


def test_all_variables_that_cannot_be_right_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "METALAYER_BUCKET": "mybucket",
        "AWS_ENDPOINT_URL_S3": "minio:9000",
        "ZENML_STORE_URL": "https://",
        "KF_PIPELINES_ENDPOINT": "localhost:8888",
    }
    for name, value in {**ENVIRONMENT, **wrong}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as caught:
        stacks.read("kubeflow", PLACES)
    head, *lines = str(caught.value).splitlines()
    assert "fix these environment variables" in head
    assert {line.partition(":")[0] for line in lines} == set(wrong)
    assert "METALAYER_BUCKET: given 'mybucket'; expected s3://..." in lines
    assert "AWS_ENDPOINT_URL_S3: given 'minio:9000'; expected http://... or https://..." in lines


def test_gpu_steps_go_to_the_operator(kubernetes: stacks.Stack) -> None:
    options = kubernetes.step_options(["train"])
    assert options["train"]["step_operator"] is True
    assert options["train"]["settings"]["docker"]["parent_image"] == "127.0.0.1:1/metalayer-pipeline-gpu:1"
    assert stacks.read("local", PLACES).step_options(["train"]) == {}


def test_pod_settings_go_with_the_run(kubernetes: stacks.Stack) -> None:
    """ZenML's server, which need not have Kubernetes' library, could not keep them with a component."""
    for component, names in {
        "orchestrator": {"pod_settings", "orchestrator_pod_settings"},
        "step_operator": {"pod_settings"},
    }.items():
        assert kubernetes.settings[component] == {name: kubernetes.components[component][name] for name in names}


def test_shards_go_to_the_operator_where_a_gpu_is_asked_for(kubernetes: stacks.Stack) -> None:
    from pipelines import score

    assert score.gpu_steps(ScoreConfig(shards=2)) == score.gpu_steps(ScoreConfig(device="cpu")) == ()
    options = kubernetes.step_options(score.gpu_steps(ScoreConfig(shards=2, device="cuda")))
    assert options.keys() == {"score_shard_1", "score_shard_2"}
    assert all(given["step_operator"] is True for given in options.values())


def pod_of(stack: stacks.Stack, component: str) -> dict[str, Any]:
    """The pod that ZenML makes by a component's settings, as the API server sees it."""
    from kubernetes.client import ApiClient
    from zenml.integrations.kubernetes.flavors import kubernetes_orchestrator_flavor, kubernetes_step_operator_flavor
    from zenml.integrations.kubernetes.manifest_utils import build_pod_manifest

    config = {
        "orchestrator": kubernetes_orchestrator_flavor.KubernetesOrchestratorConfig,
        "step_operator": kubernetes_step_operator_flavor.KubernetesStepOperatorConfig,
    }[component](**{key: value for key, value in stack.components[component].items() if key != "flavor"})
    pod = build_pod_manifest(
        pod_name="step",
        image_name="image",
        command=["python"],
        args=[],
        privileged=False,
        pod_settings=config.pod_settings,
        service_account_name=config.service_account_name,
        env={"ZENML_A": "b"},
    )
    return without_nulls(ApiClient().sanitize_for_serialization(pod))


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("component", ["orchestrator", "step_operator"])
def test_pods_of_steps(kubernetes: stacks.Stack, component: str) -> None:
    pod = pod_of(kubernetes, component)
    for version in VERSIONS:
        validate(pod, version)
    spec = pod["spec"]
    assert_restricted(spec)
    assert spec["enableServiceLinks"] is False
    assert pod["metadata"]["labels"]["app.kubernetes.io/part-of"] == "metalayer"  # MLflow's network policy
    (container,) = spec["containers"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounted) == {volume["name"] for volume in spec["volumes"]}
    assert {variable["name"]: variable["value"] for variable in container["env"]}["METALAYER_HOME"] == mounted["state"]
    on_gpu = component == "step_operator"
    assert (spec["serviceAccountName"] == "metalayer-gpu-step") == on_gpu
    assert (container["resources"]["limits"].get("nvidia.com/gpu") == "1") == on_gpu
    assert (spec.get("nodeSelector") == {"accelerator": "nvidia"}) == on_gpu
    assert bool(spec.get("tolerations")) == on_gpu
    assert ({"/dev/shm"} <= set(mounted.values())) == on_gpu


APPLY = """
import os, sys
sys.path.insert(0, {root!r})
from pipelines import commands
for name, changes in (
    ("kubernetes", {{}}),
    ("kubernetes", {{}}),
    ("kubernetes", {{"METALAYER_BUCKET": "s3://other"}}),
    ("kubernetes", {{"AWS_SECRET_ACCESS_KEY": "other"}}),
    ("kubeflow", {{}}),
    ("kubeflow", {{}}),
):
    os.environ.update(changes)
    print("RUN", flush=True)
    assert commands.main(["stack", "apply", name]) == 0
"""


@pytest.mark.integration
def test_applied_twice_changes_nothing(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "METALAYER_HOME": str(tmp_path / "state"),
        "ZENML_STORE_URL": f"sqlite:///{tmp_path}/zenml.db",
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
    }
    done = forked.run(["-c", APPLY.format(root=str(ROOT))], environment, tmp_path, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
    _, first, second, bucket, secret, kubeflow, again = done.stdout.split("RUN\n")
    created = {"secret metalayer-s3", "stack created", *(f"{kind} created" for kind in COMPONENTS)}
    assert created <= set(first.splitlines())
    assert second == "nothing to change\n"
    assert bucket == "artifact_store updated\n"
    assert secret == "secret metalayer-s3\n"
    assert "orchestrator created" in kubeflow
    assert again == "nothing to change\n"
    with sqlite3.connect(tmp_path / "zenml.db") as database:
        rows = database.execute("SELECT configuration FROM stack_component").fetchall()
    kept = [json.loads(base64.b64decode(row[0])) for row in rows]
    ours = {config["service_account_name"]: config for config in kept if "service_account_name" in config}
    assert ours.keys() == {"metalayer-pipeline", "metalayer-gpu-step"}
    assert not any(config.get("pod_settings") for config in ours.values())


COMPILE = """
import json, sys
sys.path.insert(0, {root!r})
from pipelines import environment, stacks
environment.prepare(local=False)
stack = stacks.read("kubernetes", {{"state": "/s", "tracking_uri": "http://127.0.0.1:1"}})
stacks.apply(stack, {{"experiment_tracker": {{"tracking_token": "none"}}}})
from zenml.client import Client
from zenml.config.compiler import Compiler
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from metalayer.settings.run import RunConfig
from pipelines.training import GPU_STEPS, training
pipeline = training.with_options(settings=stack.settings)
pipeline.prepare(config=RunConfig(data={{"base_model": "pwm"}}), data_hash="d", code_hash="c")
options = PipelineRunConfiguration(steps=stack.step_options(GPU_STEPS))
active = Client().active_stack
compiled = Compiler().compile(pipeline=pipeline, stack=active, run_configuration=options)
run = active.orchestrator.get_settings(compiled)
found = {{"": [run.orchestrator_pod_settings.resources, run.active_deadline_seconds]}}
for name, step in compiled.step_configurations.items():
    component = active.step_operator if step.config.uses_step_operator("kubernetes") else active.orchestrator
    settings = component.get_settings(step)
    image = step.config.docker_settings.parent_image
    resources, deadline = settings.pod_settings.resources, settings.active_deadline_seconds
    found[name] = [resources, deadline, settings.service_account_name, image]
    if step.config.uses_step_operator("kubernetes"):
        found["retries"] = step.config.retry.max_retries
print("FOUND" + json.dumps(found))
"""


@pytest.mark.integration
def test_what_zenml_gives_each_step(kubernetes: stacks.Stack, tmp_path: Path) -> None:
    """As it compiles the pipeline: image, pod, deadline and account, and more attempts where a pod may be lost."""
    environment = {
        **os.environ,
        "METALAYER_HOME": str(tmp_path / "state"),
        "ZENML_STORE_URL": f"sqlite:///{tmp_path}/zenml.db",
    }
    done = forked.run(["-c", COMPILE.format(root=str(ROOT))], environment, tmp_path, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.partition("FOUND")[2])
    orchestrator, operator = (kubernetes.components[kind] for kind in ("orchestrator", "step_operator"))
    deadline = 172800
    assert found.pop("") == [orchestrator["orchestrator_pod_settings"]["resources"], deadline]
    assert found.pop("retries") == 3
    resources = operator["pod_settings"]["resources"]
    assert found.pop("train") == [resources, deadline, "metalayer-gpu-step", "127.0.0.1:1/metalayer-pipeline-gpu:1"]
    assert len(found) == 9  # with promotion
    for given in found.values():
        resources = orchestrator["pod_settings"]["resources"]
        assert given == [resources, deadline, "metalayer-pipeline", "127.0.0.1:1/metalayer-pipeline:1"]


# ---- stack check


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with fake_server() as it:
        yield it


COMMIT = "c0ffee"
MANIFEST = {"config": {"digest": "sha256:1"}}
PROOF = {"digest": "sha256:2", "platform": {"os": "unknown"}}


def labelled(commit: str) -> dict[str, Any]:
    """What an image says of itself."""
    return {"config": {"Labels": {"org.opencontainers.image.revision": commit}}}


def node(**changes: Any) -> dict[str, Any]:
    """A GPU node that takes every pod of the stack but those without a toleration."""
    return {
        "metadata": {"name": "node1", "labels": {"accelerator": "nvidia"}},
        "spec": {"taints": []},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "1"},
        },
    } | changes


@pytest.fixture
def ready(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """Everything that a run on Kubernetes needs, behind one port."""
    allowed = {"status": {"allowed": True}}
    server.answers.update(
        {
            "GET /version": (200, {"gitVersion": "v1.33.0"}),
            f"POST {REVIEWS}/selfsubjectaccessreviews": (201, allowed),
            f"POST {REVIEWS}/subjectaccessreviews": (201, allowed),
            f"GET {NAMESPACE}/serviceaccounts/metalayer-pipeline": (200, {}),
            f"GET {NAMESPACE}/serviceaccounts/metalayer-gpu-step": (200, {}),
            "GET /api/v1/nodes": (200, {"items": [node()]}),
            f"GET {NAMESPACE}/limitranges": (200, {"items": []}),
            f"GET {NAMESPACE}/resourcequotas": (200, {"items": []}),
            "GET /api/v1/info": (200, {"version": "0.98.0"}),
            "POST /api/v1/login": (200, {"access_token": "t"}),
            "PUT /bucket/folder/stack-check": (200, b""),
            "DELETE /bucket/folder/stack-check": (204, b""),
            "GET /v2/": (200, {}),
            "GET /v2/metalayer-pipeline/manifests/1": (200, MANIFEST),
            "GET /v2/metalayer-pipeline/blobs/sha256:1": (200, labelled(COMMIT)),
            "GET /v2/metalayer-pipeline-gpu/manifests/1": (
                200,
                {"manifests": [PROOF, {"digest": "sha256:0", "platform": {"os": "linux"}}]},
            ),
            "GET /v2/metalayer-pipeline-gpu/manifests/sha256:0": (200, MANIFEST),
            "GET /v2/metalayer-pipeline-gpu/blobs/sha256:1": (200, labelled(COMMIT)),
            "GET /api/2.0/mlflow/experiments/get-by-name": (
                200,
                {"experiment": {"experiment_id": "1", "name": "metalayer", "lifecycle_stage": "active"}},
            ),
        }
    )
    changes = {
        **ENVIRONMENT,
        "METALAYER_REGISTRY": f"127.0.0.1:{server.port}",
        "AWS_ENDPOINT_URL_S3": server.url,
        "MLFLOW_TRACKING_URI": server.url,
        "ZENML_STORE_URL": server.url,
        "KUBECONFIG": str(server.kubeconfig(tmp_path)),
        "METALAYER_HOME": str(tmp_path / "state"),
        "METALAYER_GIT_COMMIT": COMMIT,
    }
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    return server


def checked(context: str = "here") -> list[Finding]:
    os.environ["METALAYER_KUBE_CONTEXT"] = context
    return stack_check.check(
        stacks.read("kubernetes", {"state": "/s", "tracking_uri": os.environ["MLFLOW_TRACKING_URI"]})
    )


def only_missing(findings: list[Finding]) -> Finding:
    (found,) = [finding for finding in findings if finding.state == "missing"]
    assert found.fix or "Set KUBECONFIG" in found.text
    assert SECRET not in "\n".join(stack_check.lines(findings))
    return found


def test_ready_stack(ready: FakeServer) -> None:
    findings = checked()
    assert [finding for finding in findings if finding.state != "ok"] == []
    assert stack_check.exit_code(findings) == 0
    stack_check.require(stacks.read("kubernetes", {"state": "/s", "tracking_uri": ready.url}))
    assert {finding.component for finding in findings} == {
        "zenml server", "orchestrator", "step_operator", "artifact_store", "container_registry", "experiment_tracker"
    }  # fmt: skip


QUOTA = {
    "metadata": {"name": "team"},
    "status": {"hard": {"requests.nvidia.com/gpu": "1", "pods": "9"}, "used": {"requests.nvidia.com/gpu": "1"}},
}
DENIED = {"status": {"allowed": False}}


def denied_to_pods(review: dict[str, Any]) -> dict[str, Any]:
    attributes = review["spec"]["resourceAttributes"]
    assert review["spec"]["user"] == "system:serviceaccount:metalayer:metalayer-pipeline"
    return {"status": {"allowed": attributes["verb"] != "create" or attributes["resource"] != "jobs"}}


@pytest.mark.parametrize(
    ("key", "answer", "component", "message"),
    [
        ("GET /version", (401, {"message": "Unauthorized"}), "orchestrator", "Unauthorized"),
        (f"GET {NAMESPACE}/serviceaccounts/metalayer-pipeline", None, "orchestrator", "namespace metalayer is not"),
        (
            f"POST {REVIEWS}/selfsubjectaccessreviews",
            (201, DENIED),
            "orchestrator",
            "you may not create jobs, get jobs",
        ),
        (
            f"POST {REVIEWS}/subjectaccessreviews",
            (201, denied_to_pods),
            "orchestrator",
            "service account metalayer-pipeline may not create jobs in namespace metalayer",
        ),
        (
            f"GET {NAMESPACE}/resourcequotas",
            (200, {"items": [QUOTA]}),
            "orchestrator",
            "quota team: 0 of requests.nvidia",
        ),
        ("GET /api/v1/info", None, "zenml server", "HTTP 404"),
        ("POST /api/v1/login", (401, {}), "zenml server", "does not let us in"),
        ("PUT /bucket/folder/stack-check", (403, b""), "artifact_store", "cannot be written: 403"),
        (
            "GET /v2/metalayer-pipeline-gpu/manifests/1",
            None,
            "container_registry",
            "metalayer-pipeline-gpu:1 is not in",
        ),
        (
            "GET /api/2.0/mlflow/experiments/get-by-name",
            (401, {"error_code": "UNAUTHENTICATED", "message": "who?"}),
            "experiment_tracker",
            "who",
        ),
    ],
)
def test_what_is_missing(ready: FakeServer, key: str, answer: Any, component: str, message: str) -> None:
    del ready.answers[key]
    if answer:
        ready.answers[key] = answer
    found = only_missing(checked())
    assert found.component == component
    assert message in found.text
    with pytest.raises(ConfigError, match="is not ready"):
        stack_check.require(stacks.read("kubernetes", {"state": "/s", "tracking_uri": ready.url}))


@pytest.mark.parametrize(
    ("host", "answer", "state", "message"),
    [
        ("", None, "unchecked", "KF_PIPELINES_ENDPOINT is not set: a run is compiled to a file"),
        ("{url}/", (200, {"multi_user": False}), "ok", "Kubeflow Pipelines at {url}"),
        ("{url}", None, "missing", "no Kubeflow Pipelines at {url}: HTTP 404"),
        ("http://127.0.0.1:1", None, "missing", "no Kubeflow Pipelines at http://127.0.0.1:1: nobody answers"),
    ],
)
def test_kubeflow(
    ready: FakeServer, host: str, answer: Any, state: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KF_PIPELINES_ENDPOINT", host.format(url=ready.url))
    if answer:
        ready.answers["GET /apis/v2beta1/healthz"] = answer
    stack = stacks.read("kubeflow", {"state": "/s", "tracking_uri": ready.url})
    assert stack.only_compiles == (not host)
    findings = stack_check.check(stack)
    (found,) = [finding for finding in findings if finding.component == "orchestrator"]
    assert (found.state, found.text.startswith(message.format(url=ready.url))) == (state, True)
    assert {finding.state for finding in findings if finding is not found} == {"ok"}


TAINT = {"key": "team", "value": "a", "effect": "NoSchedule"}
NO_GPU = {
    "conditions": [{"type": "Ready", "status": "True"}],
    "allocatable": {"cpu": "8", "memory": "32Gi"},
}


@pytest.mark.parametrize(
    ("nodes", "component", "message"),
    [
        ([node(status=NO_GPU)], "step_operator", "no node has enough nvidia.com/gpu (1 asked for)"),
        ([node(metadata={"name": "cpu"})], "step_operator", "no ready node has the label accelerator=nvidia"),
        ([node(spec={"taints": [TAINT]}), node(metadata={"name": "cpu"})], "step_operator", "team=a:NoSchedule"),
        (
            [node(spec={"taints": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]})],
            "orchestrator",
            "nvidia.com/gpu=present:NoSchedule",
        ),
    ],
)
def test_nodes(ready: FakeServer, nodes: list[dict[str, Any]], component: str, message: str) -> None:
    ready.answers["GET /api/v1/nodes"] = (200, {"items": nodes})
    found = only_missing(checked())
    assert found.component == component
    assert message in found.text


@pytest.mark.parametrize(
    "nodes", [[], [node(metadata={"name": "cpu"})], [node(status=NO_GPU)], [node(spec={"taints": [TAINT]})]]
)
def test_nodes_on_demand(ready: FakeServer, nodes: list[dict[str, Any]], tmp_path: Path) -> None:
    """What no node can take now does not stop a run, and is said."""
    ready.answers["GET /api/v1/nodes"] = (200, {"items": nodes})
    stack = stacks.read("kubernetes", {"state": str(tmp_path), "tracking_uri": ready.url})
    assert stack_check.exit_code(stack_check.check(stack)) == 2
    findings = stack_check.check(replace(stack, nodes_on_demand=True))
    assert stack_check.exit_code(findings) == 0
    waiting = [finding for finding in findings if finding.state == "unchecked"]
    assert "step_operator" in {finding.component for finding in waiting}
    assert all("nodes_on_demand is set" in finding.text for finding in waiting)


def test_no_node_at_all(ready: FakeServer) -> None:
    ready.answers["GET /api/v1/nodes"] = (200, {"items": [node(spec={"unschedulable": True})]})
    assert {finding.text for finding in checked() if finding.state == "missing"} == {"no node is ready and schedulable"}


def test_what_may_not_be_seen_stops_no_run(ready: FakeServer) -> None:
    ready.answers["GET /api/v1/nodes"] = (403, {"message": "nodes is forbidden"})
    ready.answers[f"POST {REVIEWS}/subjectaccessreviews"] = (403, {"message": "forbidden"})
    findings = checked()
    assert [finding.state for finding in findings].count("unchecked") == 2
    assert stack_check.exit_code(findings) == 0


def test_no_such_context(ready: FakeServer) -> None:
    found = only_missing(checked(context="elsewhere"))
    assert "'elsewhere'" in found.text
    assert "kubectl config get-contexts" in found.text


@pytest.mark.parametrize(
    ("variable", "component"),
    [
        ("AWS_ENDPOINT_URL_S3", "artifact_store"),
        ("METALAYER_REGISTRY", "container_registry"),
        ("MLFLOW_TRACKING_URI", "experiment_tracker"),
        ("ZENML_STORE_URL", "zenml server"),
    ],
)
def test_unreachable(ready: FakeServer, variable: str, component: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, ENVIRONMENT[variable])
    assert only_missing(checked()).component == component


@pytest.fixture
def no_http() -> Iterator[str]:
    """The URL of a port that speaks something else, as SSH."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(1024)
            self.wfile.write(b"SSH-2.0-other\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize(
    ("variable", "component"), [("MLFLOW_TRACKING_URI", "experiment_tracker"), ("ZENML_STORE_URL", "zenml server")]
)
def test_a_port_without_http(
    ready: FakeServer, no_http: str, variable: str, component: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, no_http)
    assert only_missing(checked()).component == component


def test_a_web_page_is_no_zenml_server(ready: FakeServer) -> None:
    ready.answers["GET /api/v1/info"] = (200, b"<html></html>")
    assert "no ZenML server answers there" in only_missing(checked()).text


def test_a_url_that_boto_refuses(ready: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://mi nio")
    assert "no S3 service at http://mi nio (ValueError)" in only_missing(checked()).text


def test_an_image_of_other_code(ready: FakeServer) -> None:
    """Its pods would compute with that, and models be registered as made by this."""
    ready.answers["GET /v2/metalayer-pipeline-gpu/blobs/sha256:1"] = (200, labelled("0ff1ce"))
    found = only_missing(checked())
    assert found.component == "container_registry"
    assert "metalayer-pipeline-gpu:1 was built from commit 0ff1ce, and this is c0ffee" in found.text


@pytest.mark.parametrize(
    ("there", "here", "states"),
    [
        (COMMIT, f"{COMMIT}-dirty", ["missing", "missing"]),
        (f"{COMMIT}-dirty", f"{COMMIT}-dirty", ["unchecked", "missing"]),
        (f"{COMMIT}-dirty", COMMIT, ["unchecked", "ok"]),
        (COMMIT, "unknown", ["unchecked", "unchecked"]),
        (None, COMMIT, ["unchecked", "ok"]),
    ],
)
def test_what_cannot_be_told_of_an_image(
    there: str | None, here: str, states: list[str], ready: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = labelled(there) if there else {"config": {"Labels": None}}
    ready.answers["GET /v2/metalayer-pipeline/blobs/sha256:1"] = (200, config)
    monkeypatch.setenv("METALAYER_GIT_COMMIT", here)
    found = stack_check._images(stacks.read("kubernetes", PLACES))
    assert [finding.state for finding in found] == states


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLFLOW_TRACKING_URI", "http://me:pa55@127.0.0.1:5000"),
        ("MLFLOW_TRACKING_URI", "postgresql://mlflow:pa55@127.0.0.1/mlflow"),
        ("ZENML_STORE_URL", "https://:pa55@zenml"),
        ("ZENML_STORE_URL", "root:pa55@zenml"),
        ("AWS_ENDPOINT_URL_S3", "http://key:pa55@127.0.0.1"),
        ("METALAYER_REGISTRY", "me:pa55@registry"),
    ],
)
def test_a_password_in_an_address_is_not_shown(
    variable: str, value: str, ready: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv("METALAYER_KUBE_CONTEXT", "me@here")  # as kubeadm names them
    with pytest.raises(ConfigError) as caught:
        stacks.read("kubernetes", PLACES)
    assert f"{variable}: carries a user or password" in str(caught.value)
    assert "pa55" not in str(caught.value)
    assert "KUBE_CONTEXT" not in str(caught.value)


def test_a_registry_that_only_nodes_reach(ready: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a scheduled run, which starts in a pod."""
    monkeypatch.setenv("METALAYER_REGISTRY", "127.0.0.1:9")
    assert only_missing(checked()).text == "no registry at 127.0.0.1:9"
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    (found,) = stack_check._images(stacks.read("kubernetes", PLACES))
    assert (found.state, found.text) == ("unchecked", "no registry at 127.0.0.1:9, as this pod sees it")


@pytest.mark.parametrize("registry", ["docker.io", "index.docker.io"])
def test_docker_hub(registry: str, ready: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its API and its credentials go by other names than the registry; there is no network here to ask it."""
    asked = []

    def hub(url: str, *_: Any, authorization: str = "", **__: Any) -> tuple[int, bytes, dict[str, str]]:
        asked.append((url, authorization))
        if url.startswith("https://auth.example/token"):
            return 200, b'{"token": "of-the-hub"}', {}
        wanted = 'Bearer realm="https://auth.example/token",service="registry.docker.io",scope="repository:a:pull"'
        return (200, b"{}", {}) if authorization else (401, b"", {"www-authenticate": wanted})

    (tmp_path / "config.json").write_text('{"auths": {"https://index.docker.io/v1/": {"auth": "bWU6cGFzcw=="}}}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("METALAYER_REGISTRY", f"{registry}/user")
    monkeypatch.setattr(stack_check, "_http", hub)
    findings = stack_check._images(stacks.read("kubernetes", PLACES))
    assert [finding.state for finding in findings] == ["unchecked", "unchecked"]  # there, without a label
    manifest = "https://registry-1.docker.io/v2/user/metalayer-pipeline/manifests/1"
    assert asked[0] == ("https://registry-1.docker.io/v2/", "")
    assert asked[1:4] == [
        (manifest, ""),
        ("https://auth.example/token?service=registry.docker.io&scope=repository%3Aa%3Apull", "Basic bWU6cGFzcw=="),
        (manifest, "Bearer of-the-hub"),
    ]


def test_cluster_that_is_down(ready: FakeServer, tmp_path: Path) -> None:
    file = ready.kubeconfig(tmp_path)
    file.write_text(file.read_text().replace(str(ready.port), "1"))
    assert "no API server at http://127.0.0.1:1" in only_missing(checked()).text


def test_mlflow_in_a_file(ready: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////state/mlflow.db")
    assert "pods cannot reach" in only_missing(checked()).text


def limit_range(kind: str, **defaults: dict[str, str]) -> dict[str, Any]:
    return {"spec": {"limits": [{"type": kind, **defaults}]}}


@pytest.mark.parametrize(
    ("hard", "ranges", "message"),
    [
        ({"limits.cpu": "20"}, [], "quota team is on limits.cpu: the API refuses pods that set no limits.cpu"),
        ({"limits.cpu": "20"}, [limit_range("Container", default={"cpu": "2"})], None),
        ({"limits.cpu": "5"}, [limit_range("Container", default={"cpu": "2"})], "5 of limits.cpu left, a run needs 6"),
        ({"limits.cpu": "20"}, [limit_range("Pod", max={"cpu": "2"})], "pods that set no limits.cpu"),
        ({"cpu": "1"}, [], "quota team: 1 of cpu left, a run needs 1.6"),
        ({"requests.nvidia.com/gpu": "1", "limits.memory": "26Gi"}, [], None),  # not of each pod
        ({"requests.nvidia.com/gpu": "0"}, [], "0 of requests.nvidia.com/gpu left, a run needs 1"),
        ({"requests.storage": "2Pi", "count/secrets": "of another day"}, [], None),  # nothing that a run asks for
    ],
)
def test_quotas(ready: FakeServer, hard: dict[str, str], ranges: list[dict[str, Any]], message: str | None) -> None:
    quota = {"metadata": {"name": "team"}, "status": {"hard": hard, "used": dict.fromkeys(hard, "0")}}
    ready.answers[f"GET {NAMESPACE}/resourcequotas"] = (200, {"items": [quota]})
    ready.answers[f"GET {NAMESPACE}/limitranges"] = (200, {"items": ranges})
    findings = checked()
    if message:
        assert message in only_missing(findings).text
    else:
        assert {finding.state for finding in findings} == {"ok"}


def test_a_quota_for_some_pods_only(ready: FakeServer) -> None:
    quota = {"metadata": {"name": "short"}, "spec": {"scopes": ["Terminating"]}, "status": {"hard": {"pods": "0"}}}
    ready.answers[f"GET {NAMESPACE}/resourcequotas"] = (200, {"items": [quota]})
    assert [finding.text for finding in checked() if finding.state != "ok"] == ["quota short is for some pods only"]


def test_quantities() -> None:
    texts = ("500m", "2Gi", "4", "1e3", "2k", "3Pi", "1Ei", "2P", "1E", "1E2", "5n", "5u", "1.5", ".5")
    assert [stack_check.amount(text) for text in texts] == pytest.approx(
        [0.5, 2.0**31, 4, 1000, 2000, 3 * 2.0**50, 2.0**60, 2e15, 1e18, 100, 5e-9, 5e-6, 1.5, 0.5]
    )
    with pytest.raises(MetalayerError, match="quantity"):
        stack_check.amount("much")


def run_command(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return forked.run([str(RUN), *arguments], {**os.environ, **changes}, ROOT, timeout=120)


def test_check_as_a_command(ready: FakeServer) -> None:
    done = run_command("stack", "check", "kubernetes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ok        zenml server")
    done = run_command("stack", "check", "kubernetes", METALAYER_REGISTRY="")
    assert done.returncode == 2
    assert done.stdout.splitlines()[0] == "missing   environment        METALAYER_REGISTRY is not set"


def unforeseen(*_: object) -> None:
    raise RuntimeError("the server is down")


def test_an_unforeseen_error_of_a_command_is_told_without_traceback(tmp_path: Path) -> None:
    program = """
import sys
from pipelines import commands, stacks
from tests.test_stacks import unforeseen
stacks.apply = unforeseen
sys.exit(commands.main(["stack", "apply", "local"]))
"""
    done = forked.run(["-c", program], {**os.environ, "METALAYER_HOME": str(tmp_path)}, ROOT, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "failed  stack apply local\ncause   RuntimeError: the server is down\n" in done.stderr
    (log_file,) = (tmp_path / "logs").glob("stack-*.log")
    assert "in unforeseen" in log_file.read_text()


@pytest.mark.integration
def test_a_run_is_refused_before_it_is_submitted(ready: FakeServer, simulation: Path, tmp_path: Path) -> None:
    del ready.answers["GET /v2/metalayer-pipeline/manifests/1"]
    done = run_command("--stack", "kubernetes", "--data-root", str(simulation))
    assert done.returncode == 2, done.stderr
    assert "the stack kubernetes is not ready" in done.stderr
    assert "metalayer-pipeline:1 is not in the registry" in done.stderr
    done = run_command("--stack", "kubeflow", "--data-root", str(simulation))
    assert done.returncode == 2
    assert "the stack kubeflow is not ready" in done.stderr
