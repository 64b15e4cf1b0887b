"""A promoted model in pods of the test bed: under load while pods are replaced, killed, added and stopped.

In a namespace of its own, with MLflow on the bed's PostgreSQL and S3, and images built from this checkout. What was
measured is printed: `pytest -s -m cluster`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from metalayer.client import MetaLayerClient
from metalayer.registry import promotion, registration
from tests import bed
from tests.bed import kubectl, push_images
from tests.manifests import K8S
from tests.releases import expected, make_bundle, make_golden, score_rows

pytestmark = pytest.mark.cluster
NAMESPACE, DATABASE, NAME = "metalayer-serving-test", "metalayer_serving_test", "metalayer-pwm"
MLFLOW = "10.96.0.51"
SERVING = "deployment/metalayer-serving"
CONNECTIONS, PAUSE_S = 6, 0.1
BEFORE_S = 3
"""Load before something befalls the pods, to compare with."""
ROWS = 8
"""Of each request of the load."""
KEY = {"authorization": "Bearer k1"}


@dataclass
class Load:
    """Requests of `CONNECTIONS` clients, each after the answer before.

    Half of them keep their connection, and so their pod; the others make one for each request.
    """

    url: str
    body: bytes = json.dumps({"rows": score_rows(ROWS)}).encode()
    sent: list[tuple[float, float, str]] = field(default_factory=list)
    """Start, end and what came of it: "" of an answer, else what went wrong."""
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self, keep: bool) -> None:
        # A connection that is refused is tried again, since nothing was sent; a request never is.
        limits = httpx.Limits(max_keepalive_connections=1 if keep else 0)
        transport = httpx.HTTPTransport(retries=5, limits=limits)
        headers = {**KEY, "content-type": "application/json"}
        with httpx.Client(transport=transport, headers=headers, timeout=60) as client:
            while not self.over.is_set():
                started = time.monotonic()
                try:
                    response = client.post(f"{self.url}/v1/score", content=self.body)
                    right = response.status_code == 200 and len(response.json()["rows"]) == ROWS
                    wrong = "" if right else f"{response.status_code}: {response.text}"
                except httpx.TransportError as error:
                    wrong = f"{type(error).__name__}: {error}"
                self.sent.append((started, time.monotonic(), wrong))
                time.sleep(PAUSE_S)

    def between(self, start: float, end: float) -> list[tuple[float, float, str]]:
        return [one for one in self.sent if start <= one[0] < end]

    def most_in_flight(self, start: float, end: float) -> int:
        """At one moment of a time."""
        moments = [start, *(one[0] for one in self.between(start, end)), end]
        return max(sum(begun <= at <= ended for begun, ended, _ in self.sent) for at in moments)


@contextmanager
def load(url: str) -> Iterator[Load]:
    """Load on a service for as long as this lasts."""
    one = Load(url)
    threads = [threading.Thread(target=one.ask, args=(number % 2 == 0,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    try:
        yield one
    finally:
        one.over.set()
        for thread in threads:
            thread.join()


def told(what: str, before: list[tuple[float, float, str]], during: list[tuple[float, float, str]]) -> None:
    """Print what was measured."""
    failed = [wrong for _, _, wrong in during if wrong]
    p99 = [float(np.percentile([end - start for start, end, _ in part], 99)) * 1e3 for part in (before, during)]
    print(f"\n{what}: {len(during)} requests, {len(failed)} failed; p99 {p99[0]:.0f} ms before, {p99[1]:.0f} ms during")
    for wrong in failed:
        print(f"  {wrong}")


def run(*arguments: str, timeout: int = 120) -> str:
    """What kubectl prints, in the namespace of this test; it must succeed."""
    return kubectl("-n", NAMESPACE, *arguments, timeout=timeout)


def overlay(folder: Path, registry_url: str) -> Path:
    """The bed's overlay in a namespace of its own."""
    images = [
        {"name": f"metalayer-{name}", "newName": f"{registry_url}/metalayer-{name}", "newTag": bed.TAG}
        for name in ("serving", "pipeline")
    ]
    settings = {
        "metalayer-serving": [f"MLFLOW_TRACKING_URI=http://{MLFLOW}:5000", "METALAYER_SERVE_FOLLOW_EVERY_S=2"],
        "metalayer-mlflow": [
            f"MLFLOW_ARTIFACTS_DESTINATION=s3://zenml/{NAMESPACE}",
            f"MLFLOW_SERVER_ALLOWED_HOSTS={MLFLOW}:5000,172.17.*",
        ],
    }
    address = [{"op": "replace", "path": "/spec/clusterIP", "value": MLFLOW}]
    content = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": NAMESPACE,
        "resources": [os.path.relpath(K8S / "overlays" / "bed", folder)],
        "images": images,
        "configMapGenerator": [
            {"name": name, "behavior": "merge", "literals": lines} for name, lines in settings.items()
        ],
        "patches": [{"target": {"kind": "Service", "name": "metalayer-mlflow"}, "patch": yaml.safe_dump(address)}],
    }
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    return folder


def docker(*arguments: str) -> str:
    """What docker prints; it must succeed."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def secret(name: str, **values: str) -> None:
    run("create", "secret", "generic", name, *(f"--from-literal={key}={value}" for key, value in values.items()))


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [make_bundle(folder / str(seed), seed) for seed in range(2)]


@pytest.fixture(scope="module")
def promote(bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], int]:
    """Registers a model with the cluster's MLflow and promotes it, as `metalayer registry promote` does."""
    home = tmp_path_factory.mktemp("home")

    def do(number: int) -> int:
        uri, bundle = f"http://{MLFLOW}:5000", bundles[number]
        golden = make_golden(bundle, home / f"{number}.parquet")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("METALAYER_HOME", str(home))
            patch.delenv("BENTOML_HOME", raising=False)
            made = registration.register(bundle, golden, base_model="pwm", promoted=True, tracking_uri=uri)
            return promotion.promote(NAME, made.version, uri).version

    return do


@pytest.fixture(scope="module")
def url(promote: Callable[[int], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the Service, whose one pod serves the champion; everything goes at the end."""
    with bed.up() as given:
        push_images(given["REGISTRY"], "serving", "pipeline")
        kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=180)
        kubectl("create", "namespace", NAMESPACE)
        try:
            keys = {name: given[name] for name in given if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"}
            secret("metalayer-s3", **keys)
            secret("metalayer-mlflow-database", uri=bed.empty_database(given["POSTGRES_URL"], DATABASE))
            secret("metalayer-api-keys", **{"api-keys": "k1"})
            folder = overlay(tmp_path_factory.mktemp("k8s") / "overlay", given["REGISTRY"])
            run("apply", "--validate=false", "-k", str(folder))
            run("scale", SERVING, "--replicas=0")  # a pod without a champion would wait, and try again ever later
            run("rollout", "status", "deployment/metalayer-mlflow", "--timeout=180s", timeout=200)
            bed.wait_for("MLflow at its service", 60, lambda: bed.answers(f"http://{MLFLOW}:5000/health"))
            assert promote(0) == 1
            scale(1)
            service = run("get", "service", "metalayer-serving", "-o", "jsonpath={.spec.clusterIP}")
            until(lambda: bed.answers(f"http://{service}/readyz"))  # once kube-proxy knows the pod
            yield f"http://{service}"
        finally:
            kubectl("delete", "namespace", NAMESPACE, "--wait=false")
            run("delete", "pods", "--all", "--force", "--grace-period=0")  # nobody waits for what they have in hand
            kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=180)


def scale(replicas: int) -> None:
    run("scale", SERVING, f"--replicas={replicas}")
    run("rollout", "status", SERVING, "--timeout=240s", timeout=260)


def pods() -> dict[str, str]:
    """Address of each pod that is ready and stays."""
    found = json.loads(run("get", "pods", "-l", "app.kubernetes.io/name=metalayer-serving", "-o", "json"))["items"]
    return {
        pod["metadata"]["name"]: f"http://{pod['status']['podIP']}:3000"
        for pod in found
        if "deletionTimestamp" not in pod["metadata"]
        and any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))
    }


def rows_answered(pod: str) -> float:
    counts = httpx.get(f"{pod.replace(':3000', ':3001')}/metrics", headers=KEY, timeout=30).text
    found = re.search(r"^metalayer_rows_total (\S+)$", counts, re.MULTILINE)
    return float(found[1]) if found else 0.0


def until(true: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, run("get", "pods", "-o", "wide")
        time.sleep(0.25)


def assert_answers(url: str, bundle: Path, version: int) -> None:
    rows = score_rows(20, seed=8)
    response = httpx.post(f"{url}/v1/score", json={"rows": rows}, headers=KEY, timeout=60)
    assert response.status_code == 200, response.text
    assert response.headers["x-model-version"] == str(version)
    given = np.array([list(row.values()) for row in response.json()["rows"]])
    assert np.abs(given - expected(bundle, rows)).max() <= 1e-6


def test_the_champion_is_served_to_those_with_a_key(url: str, bundles: list[Path]) -> None:
    assert_answers(url, bundles[0], 1)
    assert httpx.post(f"{url}/v1/score", json={"rows": score_rows(1)}).status_code == 401


def test_two_replicas_both_answer(url: str) -> None:
    scale(2)
    until(lambda: len(pods()) == 2)
    before = {name: rows_answered(pod) for name, pod in pods().items()}
    with load(url):
        time.sleep(BEFORE_S)
    answered = {name: rows_answered(pod) - before[name] for name, pod in pods().items()}
    print(f"\ntwo replicas: rows answered by each {sorted(answered.values())}")
    assert len(answered) == 2
    assert all(answered.values())


def test_the_champion_moves_under_load(url: str, bundles: list[Path], promote: Callable[[int], int]) -> None:
    with load(url) as loaded:
        time.sleep(BEFORE_S)
        moved = time.monotonic()
        version = promote(1)
        for pod in pods().values():
            until(
                lambda pod=pod: httpx.get(f"{pod}/v1/model", headers=KEY, timeout=30).json()["version"] == str(version)
            )
        done = time.monotonic()
    told("champion moved", loaded.between(0, moved), loaded.between(moved, done))
    assert [wrong for _, _, wrong in loaded.sent if wrong] == []
    assert_answers(url, bundles[1], version)


def test_a_rolling_update_fails_no_request(url: str) -> None:
    before = set(pods())
    with load(url) as loaded:
        time.sleep(BEFORE_S)
        begun = time.monotonic()
        run("rollout", "restart", SERVING)
        run("rollout", "status", SERVING, "--timeout=400s", timeout=420)
        until(
            lambda: len(run("get", "pods", "-l", "app.kubernetes.io/name=metalayer-serving", "-o", "name").split()) == 2
        )
        done = time.monotonic()
        time.sleep(3)
    told(f"rolling update of 2 pods in {done - begun:.0f} s", loaded.between(0, begun), loaded.between(begun, done))
    assert not before & set(pods())
    assert len(loaded.between(begun, done)) > 100
    assert [wrong for _, _, wrong in loaded.sent if wrong] == []


@pytest.mark.parametrize("how", ["the container is killed", "the pod is deleted by force"])
def test_a_lost_pod_fails_no_more_than_it_had_in_hand(url: str, how: str) -> None:
    until(lambda: len(pods()) == 2)
    rows = score_rows(50)
    with load(url) as loaded, MetaLayerClient(url, api_key="k1") as patient:
        time.sleep(BEFORE_S)
        asked, over = [], threading.Event()

        def ask() -> None:
            while not over.is_set():
                asked.append(len(patient.score(rows)))
                time.sleep(PAUSE_S)

        thread = threading.Thread(target=ask)
        thread.start()
        name, _ = pods().popitem()
        labels = {"io.kubernetes.pod.name": name, "io.kubernetes.container.name": "serving"}
        filters = [part for key, value in labels.items() for part in ("--filter", f"label={key}={value}")]
        container = docker("ps", "-q", *filters)
        with subprocess.Popen(["docker", "wait", container], stdout=subprocess.DEVNULL) as waits:
            time.sleep(1)
            killed = time.monotonic()
            if how == "the container is killed":
                docker("kill", "--signal", "KILL", container)
            else:
                run("delete", "pod", name, "--grace-period=0", "--force")
            waits.wait(60)
            dead = time.monotonic()
        time.sleep(5)
        until(lambda: len(pods()) == 2, 240)
        done = time.monotonic()
        time.sleep(3)
        over.set()
        thread.join(180)
    failed = [one for one in loaded.sent if one[2]]
    in_flight = loaded.most_in_flight(killed, dead)
    told(f"{how}; two ready again after {done - killed:.0f} s", loaded.between(0, killed), loaded.between(killed, done))
    print(
        f"  it ended within {dead - killed:.2f} s, {in_flight} requests in flight; a client that tries again: ", end=""
    )
    print(f"{len(asked)} answers, no failure")
    assert len(failed) <= in_flight
    assert all(start <= dead and killed <= end for start, end, _ in failed)  # once it is gone, none is sent to it
    assert not thread.is_alive()
    assert set(asked) == {50}


def test_a_pod_that_is_to_end_answers_what_it_has_in_hand(url: str) -> None:
    name, pod = pods().popitem()
    long = {"rows": score_rows(64) * 150}
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(httpx.post(f"{pod}/v1/score", json=long, headers=KEY, timeout=60))

    thread = threading.Thread(target=ask)
    thread.start()
    time.sleep(0.5)
    run("delete", "pod", name, "--wait=false")
    with httpx.Client(timeout=30) as client:
        until(lambda: client.get(f"{pod}/readyz").status_code == 503, 30)
        late = client.post(f"{pod}/v1/score", json={"rows": score_rows(1)}, headers=KEY)
    assert (late.status_code, late.headers["connection"]) == (200, "close")
    thread.join(60)
    assert len(answers[0].json()["rows"]) == 64 * 150
    until(lambda: name not in run("get", "pods", "-o", "name"))
