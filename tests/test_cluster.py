"""On the test bed (`make test-cluster`): manifests, rights, a whole run whose training pod is lost, mishaps."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipelines import pods, stack_check, stacks
from pipelines.checkout import git_commit
from pipelines.cluster import Cluster
from pipelines.stack_check import Finding
from tests import bed, forked
from tests.bed import NAMESPACE, kubectl, objects, wait_for
from tests.door import basic, guarded_door
from tests.test_pipeline import FAILING, QUICK, RUN, SMALL, STEPS, command, found

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:metalayer-pipeline"
USER, PASSWORD = "ada", "l0velace-of-the-test"
MLFLOW_URI = bed.MLFLOW_URI
TRAINING = "app.kubernetes.io/name=metalayer-pipeline,step_name=train"
CUT_EPOCHS = 20

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a run on the bed, with the overlay applied and images pushed."""
    with bed.up() as given, pytest.MonkeyPatch.context() as patch:
        ours = bed.prepared(tmp_path_factory.getbasetemp())
        for name, value in ours.items():
            patch.setenv(name, value)
        yield given | ours


@pytest.fixture
def stack(environment: dict[str, str]) -> stacks.Stack:
    return stacks.read("kubernetes", {"state": os.environ["METALAYER_HOME"], "tracking_uri": MLFLOW_URI})


@pytest.fixture(scope="module")
def untainted(environment: dict[str, str]) -> Iterator[None]:
    """The bed has one node: a run also needs it for its steps without a GPU."""
    with bed.taint(on=False):
        yield


@pytest.mark.usefixtures("environment")
class TestManifests:
    def test_are_taken(self) -> None:
        found = kubectl("-n", NAMESPACE, "get", "deployments,services,networkpolicies,roles", "-o", "name").split()
        for name in ("deployment.apps/metalayer-serving", "deployment.apps/metalayer-mlflow"):
            assert name in found
        assert "service/metalayer-mlflow" in found
        assert "networkpolicy.networking.k8s.io/metalayer-mlflow" in found

    @pytest.mark.parametrize(
        ("verb", "resource", "namespace", "allowed"),
        [
            ("create", "jobs.batch", NAMESPACE, True),
            ("delete", "jobs.batch", NAMESPACE, True),
            ("get", "pods/log", NAMESPACE, True),
            ("create", "secrets", NAMESPACE, True),
            ("get", "secrets", NAMESPACE, False),
            ("create", "pods", NAMESPACE, False),
            ("create", "rolebindings.rbac.authorization.k8s.io", NAMESPACE, False),
            ("create", "jobs.batch", "default", False),
        ],
    )
    def test_rights_of_runs(self, verb: str, resource: str, namespace: str, allowed: bool) -> None:
        asked = ["kubectl", "auth", "can-i", verb, resource, "-n", namespace, "--as", ACCOUNT]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False).stdout.strip()
        assert answer == ("yes" if allowed else "no")

    def test_rights_as_the_check_sees_them(self) -> None:
        cluster = Cluster("metalayer")
        assert stack_check._denied(cluster, NAMESPACE, "metalayer-pipeline") == []
        (finding,) = stack_check._denied(cluster, NAMESPACE, "metalayer-gpu-step")
        assert "create jobs" in finding.text


def test_only_the_gpu_step_goes_where_the_taint_is(stack: stacks.Stack) -> None:
    gpu = stack.components["step_operator"]["pod_settings"]
    step = stack.components["orchestrator"]["pod_settings"]
    with bed.taint(on=True), made({"tainted-gpu": gpu, "tainted-step": step}, ["true"]):
        wait_for("the GPU pod has a node", 60, lambda: scheduled("tainted-gpu")["status"] == "True")
        kept_out = scheduled("tainted-step")
        assert kept_out["status"] == "False"
        assert re.search(r"taint.*that the pod didn't tolerate", kept_out["message"])


class TestRuns:
    """In order: each run leaves its registry and its cache to the next."""

    def test_a_run_whose_training_pod_is_lost_equals_that_on_this_machine(
        self, environment: dict[str, str], untainted: None, simulation: Path, tmp_path: Path
    ) -> None:
        """All steps as Jobs, training on the GPU node; MLflow behind a door whose password stands in no manifest.

        Training goes on from the last checkpoint, to the metrics of a run that nothing befell; the gate, asked too
        much, rejects. On 1.20 the Job of a pod that is deleted starts another; later versions fail that Job, and the
        step starts another one. Both are seen: the pod is deleted, then the Job.
        """
        changes = (*SMALL, *FAILING, "train.threads=1", f"train.max_epochs={CUT_EPOCHS}", "train.patience=100")
        settings = command(changes, ("--data-root", str(simulation)))
        begun, went_on = rf"epoch [1-9]\d?/{CUT_EPOCHS}: loss", rf"going on after epoch (\d+),.*epoch \d+/{CUT_EPOCHS}"
        with (
            guarded_door(bed.MLFLOW, 5000, {basic(USER, PASSWORD)}, host="0.0.0.0") as port,
            process_of(on_the_bed(settings), behind(port, environment)) as process,
            process_of(*here(tmp_path / "state", settings)) as same,
        ):

            def training_past(pattern: str, *others: str) -> Any:
                assert process.poll() is None, process.communicate()[1]
                return training_pod_past(pattern, others)

            first = wait_for("training begins", 600, lambda: training_past(begun))
            assert checkpoints(environment)
            kubectl("-n", NAMESPACE, "delete", "pod", first, "--wait=false")
            second = wait_for("another pod goes on", 300, lambda: training_past(went_on, first))
            kubectl("-n", NAMESPACE, "delete", "job", second.rpartition("-")[0], "--wait=false")
            third = wait_for("another Job goes on", 300, lambda: training_past(went_on, first, second))
            assert third.rpartition("-")[0] != second.rpartition("-")[0]
            told = wait_for("it has trained", 300, lambda: trained_epochs(third))
            out, errors = process.communicate(timeout=600)
            _, local_errors = same.communicate(timeout=600)
        assert process.returncode == 3, errors
        assert same.returncode == 3, local_errors
        assert found(r"^cached +(.+)$", out) == "no step"
        resumed = int(re.search(went_on, told, re.DOTALL)[1])  # type: ignore[index]
        assert resumed > 1
        epochs = [int(epoch) for epoch in re.findall(rf"epoch (\d+)/{CUT_EPOCHS}: loss", told)]
        assert epochs == list(range(resumed + 1, CUT_EPOCHS + 1))
        assert not checkpoints(environment)
        jobs = {job["metadata"]["labels"].get("step_name") for job in objects("jobs", "pipeline=training")}
        assert jobs >= {*STEPS}
        for pod in objects("pods", "pipeline=training"):
            assert pod["spec"]["serviceAccountName"] in ("metalayer-pipeline", "metalayer-gpu-step")
        (trained,) = [pod for pod in objects("pods", TRAINING) if gpus(pod)]
        assert trained["spec"]["serviceAccountName"] == "metalayer-gpu-step"
        assert trained["spec"]["nodeSelector"] == {"accelerator": "nvidia"}
        everything = kubectl("-n", NAMESPACE, "get", "jobs,pods,configmaps", "-o", "yaml")
        assert PASSWORD not in everything
        assert environment["ZENML_STORE_PASSWORD"] not in everything
        assert_same_metrics(MLFLOW_URI, f"sqlite:///{tmp_path / 'state' / 'mlflow.db'}")

    def test_runs_at_once_share_the_credentials(self, environment: dict[str, str]) -> None:
        """The first to end leaves them to the other."""
        program = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from pipelines import environment, mlflow_service\n"
            "environment.prepare(local=False)\n"
            "from zenml.client import Client\n"
            "with mlflow_service.access('http://there', local=False):\n"
            "    with mlflow_service.access('http://there', local=False) as settings:\n"
            "        assert settings['tracking_token'] == '{{metalayer-mlflow.MLFLOW_TRACKING_TOKEN}}', settings\n"
            "    print(Client().get_secret(mlflow_service.SECRET).secret_values)\n"
        )
        given = {**os.environ, "MLFLOW_TRACKING_TOKEN": "t"}
        done = forked.run(["-c", program, str(bed.ROOT)], given, bed.ROOT, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "{'MLFLOW_TRACKING_TOKEN': 't'}"

    def test_ends_on_sigterm_as_the_first_process(self, environment: dict[str, str]) -> None:
        """As the pod of a CronJob is stopped: the kernel gives a first process no signal that it does not handle."""
        image = f"metalayer-pipeline:{bed.TAG}"
        started = ["docker", "run", "--detach", "--rm", "--network", "none", image]
        name = subprocess.run(started, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
        wait_for("the demo begins", 120, lambda: "simulating" in docker_log(name))
        waiting = subprocess.Popen(["docker", "wait", name], stdout=subprocess.PIPE, text=True)
        subprocess.run(["docker", "kill", "--signal", "TERM", name], capture_output=True, timeout=60, check=True)
        assert waiting.communicate(timeout=20)[0].strip() == str(128 + signal.SIGTERM)


@pytest.mark.usefixtures("untainted")
class TestMishaps:
    """Each is told in seconds, by what it is, with what to do."""

    def test_nothing_is_missing(self, stack: stacks.Stack) -> None:
        # Of an image made from a changed tree it cannot be told whether it is of the same change.
        allowed = {"ok", "unchecked"} if git_commit().endswith("-dirty") else {"ok"}
        assert [finding for finding in stack_check.check(stack) if finding.state not in allowed] == []

    @pytest.mark.parametrize(
        ("variable", "value", "component", "text"),
        [
            ("METALAYER_KUBE_CONTEXT", "elsewhere", "orchestrator", "context 'elsewhere' cannot be used"),
            ("METALAYER_IMAGE_TAG", "absent", "container_registry", "metalayer-pipeline:absent is not in the registry"),
            ("METALAYER_REGISTRY", "127.0.0.1:9", "container_registry", "no registry at 127.0.0.1:9"),
            ("METALAYER_BUCKET", "s3://absent/folder", "artifact_store", "cannot be written: NoSuchBucket"),
            ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9", "artifact_store", "no S3 service at http://127.0.0.1:9"),
            ("ZENML_STORE_URL", "http://127.0.0.1:9", "zenml server", "nobody answers"),
            ("ZENML_STORE_PASSWORD", "wrong", "zenml server", "does not let us in: HTTP 401"),
            ("MLFLOW_TRACKING_URI", "http://127.0.0.1:9", "experiment_tracker", "no MLflow server at"),
        ],
    )
    def test_a_service_that_is_not_there(
        self,
        environment: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
        variable: str,
        value: str,
        component: str,
        text: str,
    ) -> None:
        monkeypatch.setenv(variable, value)
        places = {"state": os.environ["METALAYER_HOME"], "tracking_uri": os.environ["MLFLOW_TRACKING_URI"]}
        assert_found(stack_check.check(stacks.read("kubernetes", places)), component, text)

    def test_a_namespace_that_is_not_there(self, stack: stacks.Stack) -> None:
        stack.components["orchestrator"]["kubernetes_namespace"] = "elsewhere"
        assert_found(stack_check.check(stack), "orchestrator", "namespace elsewhere is not there")

    def test_no_permission(
        self, stack: stacks.Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, environment: dict[str, str]
    ) -> None:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig_of("metalayer-gpu-step", tmp_path)))
        assert_found(stack_check.check(stack), "orchestrator", "you may not create jobs, get jobs")

    def test_no_gpu_node(self, stack: stacks.Stack) -> None:
        (node,) = kubectl("get", "nodes", "-o", "name").split()
        kubectl("label", node, "accelerator-")
        try:
            assert_found(stack_check.check(stack), "step_operator", "no ready node has the label accelerator=nvidia")
        finally:
            kubectl("label", node, "accelerator=nvidia")

    def test_the_taint_keeps_steps_out(self, stack: stacks.Stack) -> None:
        with bed.taint(on=True):
            assert_found(stack_check.check(stack), "orchestrator", "has a taint it does not tolerate: nvidia.com/gpu")

    def test_quota(self, stack: stacks.Stack) -> None:
        kubectl("-n", NAMESPACE, "create", "quota", "small", "--hard=limits.memory=4Gi,pods=50")
        try:
            count = wait_for("the quota is counted", 30, lambda: objects("quota")[0]["status"].get("used"))
            assert "limits.memory" in count
            assert_found(stack_check.check(stack), "orchestrator", "quota small: .* of limits.memory left, a run needs")
            with made({"refused": stack.components["orchestrator"]["pod_settings"]}, ["true"]):
                trouble = wait_for("the refusal is told", 30, lambda: told_of("refused"))
            assert "exceeded quota: small" in trouble.text
            assert trouble.fix == "wait for other runs, or ask for a larger quota"
        finally:
            kubectl("-n", NAMESPACE, "delete", "quota", "small")

    def test_a_pod_that_does_not_fare_well(self, stack: stacks.Stack) -> None:
        step = stack.components["orchestrator"]["pod_settings"]
        small = {**step, "resources": {"limits": {"memory": "64Mi"}}}
        large = {**step, "resources": {"requests": {"memory": "900Gi"}}}
        program = ["python", "-c", "b = bytearray(1 << 30)"]
        image = f"{os.environ['METALAYER_REGISTRY']}/metalayer-pipeline:absent"
        with made({"greedy": small, "large": large}, program), made({"absent": step}, program, image):
            greedy = wait_for("it is killed", 60, lambda: told_of("greedy"))
            absent = wait_for("it finds no image", 60, lambda: told_of("absent"))
            no_node = wait_for("it finds no node", 60, lambda: told_of("large"))
        assert greedy.text == "out of memory: its pod was killed at the limit 64Mi (OOMKilled)"
        assert "raise limits.memory" in greedy.fix
        assert f"image {image} cannot be fetched by the node" in absent.text
        assert "Insufficient memory" in no_node.text
        assert [greedy.waits, absent.waits, no_node.waits] == [False, False, True]

    def test_a_run_whose_training_is_out_of_memory(self, untainted: None, simulation: Path) -> None:
        """Its pods' end is the run's, though ZenML has no traceback of it."""
        program = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from pipelines import environment, run, stacks; environment.prepare(local=False)\n"
            "read = stacks.read\n"
            "def little(*given):\n"
            "    stack = read(*given)\n"
            "    resources = stack.components['step_operator']['pod_settings']['resources']\n"
            "    for kind in ('requests', 'limits'): resources[kind]['memory'] = '200Mi'\n"
            "    stack.gpu_step['retry'] = {'max_retries': 1}\n"
            "    return stack\n"
            "stacks.read = little\n"
            "sys.exit(run.main(sys.argv[2:]))\n"
        )
        settings = command((*QUICK, "train.seed=3"), ("--data-root", str(simulation)))
        given = ["-c", program, str(bed.ROOT), "--stack", "kubernetes", *settings]
        ended = forked.run(given, os.environ, bed.ROOT, timeout=600)
        assert ended.returncode == 1
        assert "failed  step train" in ended.stderr
        assert "cause   out of memory: its pod was killed at the limit 200Mi (OOMKilled)" in ended.stderr
        assert "raise limits.memory of its pod settings" in ended.stderr


def on_the_bed(arguments: list[str]) -> list[str]:
    """Program of a run on the bed, from this machine."""
    return forked.command([str(RUN), "--stack", "kubernetes", *arguments])


def here(state: Path, arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Program and environment of the same run on this machine."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return forked.command([str(RUN), *arguments]), {**plain, "METALAYER_HOME": str(state)}


def behind(port: int, environment: dict[str, str]) -> dict[str, str]:
    """The environment of a run whose MLflow is behind a door of this machine, which pods reach by its address."""
    host = environment["AWS_ENDPOINT_URL_S3"].rpartition(":")[0]
    return {
        **os.environ,
        "MLFLOW_TRACKING_URI": f"{host}:{port}",
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    }


@contextmanager
def process_of(program: list[str], environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process, killed where the test fails before its end; the environment is this one unless given."""
    pipe = subprocess.PIPE
    with subprocess.Popen(program, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def gpus(pod: dict[str, Any]) -> str | None:
    """How many GPUs a pod has."""
    found: str | None = pod["spec"]["containers"][0]["resources"].get("limits", {}).get("nvidia.com/gpu")
    return found


def log_of(pod: str) -> str:
    asked = ["kubectl", "-n", NAMESPACE, "logs", pod]
    return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False).stdout


def docker_log(name: str) -> str:
    done = subprocess.run(["docker", "logs", name], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


def training_pod_past(pattern: str, others: tuple[str, ...]) -> str | None:
    """Name of a training pod that runs, once its log says so; others do not count."""
    for pod in objects("pods", TRAINING):
        name: str = pod["metadata"]["name"]
        if gpus(pod) and name not in others and pod["status"]["phase"] == "Running":
            return name if re.search(pattern, log_of(name), re.DOTALL) else None
    return None


def trained_epochs(pod: str) -> str | None:
    """Log of a training pod that has come to the last epoch."""
    told = log_of(pod)
    return told if f"epoch {CUT_EPOCHS}/{CUT_EPOCHS}: loss" in told else None


def checkpoints(environment: dict[str, str]) -> list[str]:
    """Objects that are checkpoints."""
    import boto3

    client = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL_S3"])
    bucket, _, folder = environment["METALAYER_BUCKET"].removeprefix("s3://").partition("/")
    found = client.list_objects_v2(Bucket=bucket, Prefix=f"{folder}/checkpoints/")
    return [item["Key"] for item in found.get("Contents", [])]


def assert_same_metrics(one: str, other: str) -> None:
    """All metrics of the newest run of two MLflow's are equal to 1e-6, but for what tells the time."""
    found = []
    for uri in (one, other):
        from mlflow import MlflowClient

        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("metalayer")
        assert experiment is not None
        newest = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])[0]
        found.append({name: value for name, value in newest.data.metrics.items() if name != "seconds"})
    assert len(found[0]) > 100
    assert found[0] == pytest.approx(found[1], abs=1e-6, rel=0)


def assert_found(findings: list[Finding], component: str, text: str) -> None:
    """Among what is missing is this, with what to do."""
    missing = [finding for finding in findings if finding.state == "missing"]
    here = [finding for finding in missing if finding.component == component and re.search(text, finding.text)]
    assert here, missing
    assert all(finding.fix for finding in here) or component == "orchestrator"


def kubeconfig_of(account: str, folder: Path) -> Path:
    """A kubeconfig that logs in as a service account."""
    config = json.loads(kubectl("config", "view", "--raw", "-o", "json"))
    (secret,) = [
        item
        for item in objects("secrets")
        if item["metadata"].get("annotations", {}).get("kubernetes.io/service-account.name") == account
    ]
    config["users"] = [
        {"name": user["name"], "user": {"token": base64.b64decode(secret["data"]["token"]).decode()}}
        for user in config["users"]
    ]
    file = folder / "kubeconfig"
    file.write_text(json.dumps(config))
    return file


@contextmanager
def made(settings: dict[str, dict[str, Any]], program: list[str], image: str = "") -> Iterator[None]:
    """Jobs of one pod each, as ZenML makes them with pod settings of a stack; afterwards they are gone."""
    from kubernetes.client import ApiClient
    from zenml.integrations.kubernetes import manifest_utils
    from zenml.integrations.kubernetes.pod_settings import KubernetesPodSettings

    for name, given in settings.items():
        labels = {"run_name": name, "step_name": name}
        pod = manifest_utils.build_pod_manifest(
            pod_name=None,
            image_name=image or f"{os.environ['METALAYER_REGISTRY']}/metalayer-pipeline:{bed.TAG}",
            command=program[:1],
            args=program[1:],
            privileged=False,
            pod_settings=KubernetesPodSettings(**given),
            service_account_name="metalayer-gpu-step",
            env={},
            labels=labels,
        )
        template = manifest_utils.pod_template_manifest_from_pod(pod)
        job = manifest_utils.build_job_manifest(job_name=name, pod_template=template, backoff_limit=0, labels=labels)
        manifest = {"apiVersion": "batch/v1", "kind": "Job", **ApiClient().sanitize_for_serialization(job)}
        kubectl("-n", NAMESPACE, "apply", "--validate=false", "-f", "-", given=json.dumps(manifest))
    try:
        yield
    finally:
        for name in settings:
            kubectl("-n", NAMESPACE, "delete", "job", name, "--wait=false")


def scheduled(name: str) -> dict[str, str]:
    """What the scheduler says of the pod of such a Job; not asked yet is False."""
    for pod in objects("pods", f"run_name={name}"):
        for condition in pod["status"].get("conditions", []):
            if condition["type"] == "PodScheduled":
                found: dict[str, str] = condition
                return found
    return {"status": "", "message": ""}


def told_of(name: str) -> pods.Trouble | None:
    asked = (Cluster("metalayer"), NAMESPACE, f"run_name%3D{name}")
    found = pods.troubles_of_pods(*asked) + pods.troubles_of_jobs(*asked)
    return found[0] if found else None
