"""The container images, built and run: the demo without a network, and servers that answer and drain.

Needs a Docker daemon; `../shared/cluster/up docker` starts one, and `eval "$(../shared/cluster/env)"` names it.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import mlflow
import numpy as np
import pytest
from releases import expected, make_bundle, make_champion, make_golden, score_rows

from metalayer.registry.bento import build_bento
from pipelines.checkout import git_commit
from tests import checkpoints
from tests.bed import answers
from tests.servers import free_port, mlflow_server
from tests.test_pipeline import FAILING, QUICK, command

pytestmark = pytest.mark.container
ROOT = Path(__file__).resolve().parents[1]
NAME, TAG = "metalayer-pwm", "tested"
UNPRIVILEGED = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges")
CONFINED = ("--read-only", "--tmpfs", "/tmp", *UNPRIVILEGED)
STATE = ("--tmpfs", "/state:uid=10001")
INSTALLED = "import importlib.metadata as m, json; print(json.dumps({d.name: d.version for d in m.distributions()}))"


def docker(*arguments: str, timeout: int = 120) -> str:
    """Standard output of a docker command that succeeds."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def make(*arguments: str) -> None:
    command = ["make", f"PYTHON={sys.executable}", f"TAG={TAG}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def image(name: str) -> str:
    return f"metalayer-{name}:{TAG}"


@pytest.fixture(scope="module", autouse=True)
def images() -> None:
    """Built from this checkout; what has not changed comes from Docker's cache."""
    try:
        answer = subprocess.run(["docker", "version"], capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        pytest.skip("no docker command; ../shared/cluster/up docker installs it and starts a daemon")
    if answer.returncode != 0:
        pytest.skip(f"no Docker daemon answers: {answer.stderr.strip()}")
    make("images")


@pytest.fixture(scope="module")
def volume() -> Iterator[str]:
    """A volume for /state, as a user has it."""
    name = docker("volume", "create")
    yield name
    docker("volume", "rm", name)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model directory, and the folder of its Bento."""
    folder = tmp_path_factory.mktemp("container")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "bentoml"))
        bundle = make_bundle(folder / "bundle")
        tag = build_bento(bundle, make_golden(bundle, folder / "golden.parquet"), name=NAME, version=3, facts={})
    return bundle, folder / "bentoml" / "bentos" / tag.replace(":", "/")


@contextmanager
def running(*arguments: str, url: str = "") -> Iterator[tuple[str, str]]:
    """Id and address of a server's container that is ready; `url` where its port is not published."""
    container = docker("run", "--detach", *UNPRIVILEGED, *arguments)
    try:
        if not url:
            published = docker("port", container, "3000/tcp").splitlines()[0]
            url = f"http://{published}"
        until = time.monotonic() + 120
        while not answers(f"{url}/readyz"):
            assert docker("inspect", "--format", "{{.State.Running}}", container) == "true", logs(container)
            assert time.monotonic() < until, logs(container)
            time.sleep(0.2)
        yield container, url
    finally:
        docker("rm", "--force", "--volumes", container)


def logs(container: str) -> str:
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout + done.stderr


def refused(code: int, *arguments: str) -> str:
    """What a container says that ends with this status."""
    command = ["docker", "run", "--rm", *CONFINED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def assert_scores(url: str, bundle: Path, **headers: str) -> None:
    rows = score_rows(40)
    response = httpx.post(f"{url}/v1/score", json={"rows": rows}, headers=headers)
    assert response.status_code == 200, response.text
    given = np.array([list(row.values()) for row in response.json()["rows"]])
    assert np.abs(given - expected(bundle, rows)).max() <= 1e-6


@pytest.mark.parametrize("name", ["serving", "serving-language", "pipeline", "pipeline-gpu"])
def test_an_image_holds_what_is_pinned_and_says_what_it_is(name: str) -> None:
    (facts,) = json.loads(docker("image", "inspect", image(name)))
    assert facts["Config"]["User"] == "10001:10001"
    assert facts["Config"]["Labels"]["org.opencontainers.image.title"] == f"metalayer-{name}"
    assert facts["Config"]["Labels"]["org.opencontainers.image.revision"] == git_commit()
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").split())
    pinned = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    found = json.loads(docker("run", "--rm", "--network", "none", *CONFINED, image(name), "python", "-c", INSTALLED))
    there = {re.sub(r"[-_.]+", "-", name).lower(): version.partition("+")[0] for name, version in found.items()}
    del there["metalayer"]
    assert {name: version for name, version in there.items() if pinned.get(name) != version} == {}
    assert "pip" not in there
    assert ("transformers" in there) == (name != "serving")
    if name.startswith("serving"):
        assert not {"zenml", "mlflow", "evidently", "pandas"} & there.keys()


def test_the_serving_image_is_the_smaller() -> None:
    serving, pipeline = (
        int(docker("image", "inspect", "--format", "{{.Size}}", image(name))) for name in ("serving", "pipeline")
    )
    assert serving < 0.7 * pipeline


def test_a_gpu_is_asked_for_by_its_image_alone() -> None:
    for name, asked in (("pipeline", False), ("pipeline-gpu", True)):
        settings = json.loads(docker("image", "inspect", "--format", "{{json .Config.Env}}", image(name)))
        assert ("NVIDIA_VISIBLE_DEVICES=all" in settings) == asked


def test_the_demo_runs_without_a_network_and_its_model_is_served(volume: str) -> None:
    """By the commands of the README, with images, volume and port of the test's own."""
    own = {"metalayer-pipeline": image("pipeline"), "metalayer-serving": image("serving")}
    own |= {"metalayer:/state": f"{volume}:/state", "127.0.0.1:3000:3000": "127.0.0.1::3000"}
    lines = re.findall(r"^docker run (.*)$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    demo, serve = ([own.get(word, word) for word in line.split()] for line in lines)
    assert "none" in demo
    told = docker("run", *UNPRIVILEGED, *demo, timeout=1200)
    assert re.search(r"^PR-AUC splice ", told, re.MULTILINE), told
    tag = re.search(rf"{NAME}:\d+-\w+", told)[0]
    state = ("--volume", f"{volume}:/state")
    query = docker("run", "--rm", *CONFINED, *state, image("serving"), "cat", "/state/query.json")
    with running(*(tag if word == "TAG" else word for word in serve)) as (_, url):
        response = httpx.post(f"{url}/v1/score", content=query, headers={"content-type": "application/json"})
        assert response.status_code == 200
        assert len(response.json()["rows"]) == 3
        assert httpx.get(f"{url}/v1/model").json()["git_commit"] == git_commit()
    # The registry is in the volume too, but needs what the serving image is without.
    assert "name an MLflow server in MLFLOW_TRACKING_URI" in refused(2, *state, image("serving"))


def test_training_in_two_processes(simulation: Path) -> None:
    """As by two GPUs of a pod: torchrun from the container's first process, on a read-only root."""
    data = ("--volume", f"{simulation}:/data:ro", *STATE, "--env", "PET_NPROC_PER_NODE=2", "--network", "none")
    changes = command((*QUICK, *FAILING), ("--config", "pipelines/configs/demo.yaml", "--data-root", "/data"))
    told = refused(3, *data, image("pipeline"), "python", "pipelines/run.py", *changes)
    assert "training in 2 processes" in told
    assert "epoch 2/2: loss" in told


def test_a_mounted_bento_is_served_and_drains(model: tuple[Path, Path]) -> None:
    """`docker stop`: what is in hand is answered, then the server ends by itself."""
    bundle, bento = model
    mounted = ("--volume", f"{bento}:/bento:ro", *STATE, "--publish", "127.0.0.1::3000")
    settings = (
        "--env",
        "BENTOML_HOST=0.0.0.0",
        "--env",
        "METALAYER_SERVE_DRAIN_S=2",
        "--env",
        "METALAYER_SERVE_WORKERS=1",
    )
    with running(*CONFINED, *mounted, *settings, image("serving"), "metalayer", "serve", "--bento", "/bento") as (
        container,
        url,
    ):
        assert_scores(url, bundle)
        long = {"rows": score_rows(64) * 150}
        with httpx.Client(timeout=60) as client, ThreadPoolExecutor() as pool:
            sent = [pool.submit(client.post, f"{url}/v1/score", json=long) for _ in range(2)]
            time.sleep(1)
            stopped = pool.submit(docker, "stop", "--time", "60", container)
            time.sleep(0.7)
            assert httpx.get(f"{url}/readyz").status_code == 503
            for answer in sent:
                assert answer.result().status_code == 200
                assert len(answer.result().json()["rows"]) == 64 * 150
            stopped.result()
        assert docker("inspect", "--format", "{{.State.ExitCode}}", container) == "0", logs(container)


def test_without_keys_a_container_is_reached_from_inside_only(model: tuple[Path, Path]) -> None:
    mounted = ("--volume", f"{model[1]}:/bento:ro", *STATE, "--publish", "127.0.0.1::3000")
    container = docker(
        "run", "--detach", *CONFINED, *mounted, image("serving"), "metalayer", "serve", "--bento", "/bento"
    )
    try:
        until = time.monotonic() + 120
        while docker("inspect", "--format", "{{.State.Health.Status}}", container) != "healthy":
            assert time.monotonic() < until, logs(container)
            time.sleep(0.5)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://{docker('port', container, '3000/tcp')}/livez")
    finally:
        docker("rm", "--force", "--volumes", container)


def test_a_model_of_transformers_needs_the_other_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HyenaDNA is code of ours, and needs no other image than a plain model."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    chunks = {"chunk_bp": 48, "stride_bp": 16, "output_dim": 12}
    bert = {"model": str(checkpoints.bert(tmp_path / "bert", checkpoints.kmers(3))), **chunks}
    hyena = {"model_size": str(checkpoints.hyenadna(tmp_path / "hyena")), **chunks}
    chosen = {"huggingface": (bert, "serving-language"), "hyenadna": (hyena, "serving")}
    for encoder, (options, name) in chosen.items():
        bundle = make_bundle(tmp_path / encoder, sequence_encoder=encoder, sequence_encoder_config=options)
        tag = build_bento(bundle, make_golden(bundle, tmp_path / f"{encoder}.parquet"), name=NAME, version=1, facts={})
        folder = tmp_path / "bentoml" / "bentos" / tag.replace(":", "/")
        mounted = ("--volume", f"{folder}:/bento:ro", *STATE)
        served = ("metalayer", "serve", "--bento", "/bento")
        open_to_all = ("--publish", "127.0.0.1::3000", "--env", "BENTOML_HOST=0.0.0.0")
        with running(*CONFINED, *mounted, *open_to_all, image(name), *served) as (_, url):
            assert_scores(url, bundle)
        if name != "serving":
            told = refused(2, *mounted, image("serving"), *served)
            assert "needs transformers" in told
            assert "metalayer-serving-language" in told


def test_an_image_with_its_model_needs_no_volume_but_tmpfs(model: tuple[Path, Path]) -> None:
    bundle, bento = model
    make("image-model", f"BENTO={bento}")
    settings = ("--env", "METALAYER_SERVE_API_KEYS=k1", "--publish", "127.0.0.1::3000", *STATE)
    with running(*CONFINED, *settings, image("model")) as (_, url):
        assert httpx.get(f"{url}/v1/model").status_code == 401
        assert_scores(url, bundle, authorization="Bearer k1")


def test_the_champion_of_a_registry_is_served_and_followed(tmp_path: Path) -> None:
    bundles = [make_bundle(tmp_path / str(seed), seed) for seed in range(2)]
    with mlflow_server(tmp_path / "mlflow") as uri:
        for bundle in bundles:
            make_champion(bundle, make_golden(bundle, bundle.with_suffix(".parquet")), uri)
        port = free_port()
        given = {"MLFLOW_TRACKING_URI": uri, "METALAYER_SERVE_FOLLOW_EVERY_S": "0.3", "METALAYER_SERVE_WORKERS": "1"}
        settings = [word for name, value in given.items() for word in ("--env", f"{name}={value}")]
        here = (*CONFINED, "--network", "host", *STATE, *settings)
        with running(
            *here, image("serving"), "metalayer", "serve", "--port", str(port), url=f"http://127.0.0.1:{port}"
        ) as (
            container,
            url,
        ):
            assert_scores(url, bundles[1])
            mlflow.MlflowClient(uri, uri).set_registered_model_alias(NAME, "champion", "1")
            until = time.monotonic() + 60
            while httpx.get(f"{url}/v1/model").headers["x-model-version"] != "1":
                assert time.monotonic() < until, logs(container)
                time.sleep(0.2)
            assert_scores(url, bundles[0])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((image("serving"),), "a file needs all of mlflow, and only mlflow-skinny is here; name an MLflow server"),
        (
            (image("serving"), "metalayer", "serve", "--bento", "metalayer-pwm:7-abc"),
            "/state/bentoml: Read-only file system; mount a volume there",
        ),
        (
            (*STATE, image("serving"), "metalayer", "serve", "--bento", "/bento"),
            "Bento /bento: no bento.yaml in /bento",
        ),
    ],
)
def test_what_a_server_misses_is_said(arguments: tuple[str, ...], says: str) -> None:
    assert says in refused(2, *arguments)
