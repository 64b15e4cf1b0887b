"""The server follows the alias: over MLflow's own registry, and over a socket while it moves."""

import contextlib
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import httpx
import mlflow
import numpy as np
import polars as pl
import psutil
import pytest
from releases import expected, make_bundle, make_champion, make_golden, score_rows

from metalayer.errors import ConfigError
from metalayer.registry import download, registration, versions
from metalayer.registry.bento import bento_environment, package_version
from metalayer.release.engine import Engine
from metalayer.schema import CLASSES
from metalayer.serving import follow
from metalayer.serving.follow import Follower
from metalayer.serving.kept import Kept
from metalayer.serving.metrics import SWAPS
from metalayer.serving.serve import serve_command
from metalayer.serving.settings import ServingSettings
from metalayer.serving.state import Serving
from tests.servers import free_port, wait_until_ready

pytestmark = pytest.mark.integration
NAME = "metalayer-pwm"


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Path]]:
    """A registry with versions 1 to 3 of different weights, the last of which is champion, and their bundles."""
    folder = tmp_path_factory.mktemp("registered")
    uri = f"sqlite:///{folder}/mlflow.db"
    bundles = [make_bundle(folder / str(seed), seed) for seed in range(3)]
    for bundle in bundles:
        make_champion(bundle, make_golden(bundle, bundle.with_suffix(".parquet")), uri)
    return uri, bundles


def move(uri: str, version: int) -> None:
    mlflow.MlflowClient(uri, uri).set_registered_model_alias(NAME, "champion", str(version))


def engine_of(uri: str, version: int, folder: Path) -> Engine:
    found = next(one for one in versions.all_versions(uri) if one.version == version)
    return Engine(download.fetch_release(found, uri, folder))


def followed_by(serving: Serving, uri: str, folder: Path) -> Follower:
    """A follower of a server that came with version 1, and keeps in a folder what it follows."""
    home = folder / "home"
    home.mkdir(exist_ok=True)
    found = next(one for one in versions.all_versions(uri) if one.version == 1)
    return Follower(serving, uri, download.fetch_release(found, uri, home), Kept(home / "followed", uri, NAME))


def outcome(name: str) -> float:
    return float(SWAPS.labels(name)._value.get())


def test_the_alias_is_followed_and_a_bad_version_refused(
    registered: tuple[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, bundles = registered
    move(uri, 1)
    first = engine_of(uri, 1, tmp_path)
    serving = Serving(first)
    follower = followed_by(serving, uri, tmp_path)
    follower.look()
    assert serving.engine is first

    move(uri, 2)
    follower.look()
    second = serving.engine
    assert (second.version, second.digest) == ("2", versions.find_version(NAME, "2", uri).digest)
    assert serving.previous is first
    move(uri, 1)  # a rollback: nothing is loaded
    follower.look()
    assert serving.engine is first
    assert serving.previous is second

    loaded = []
    real = download.fetch_release

    def spoiled(version: versions.ModelVersion, uri: str | None, folder: Path) -> Path:
        loaded.append(version.version)
        directory = real(version, uri, folder)
        golden = directory / "golden.parquet"
        pl.read_parquet(golden).with_columns(pl.col("donor") + 1e-3).write_parquet(golden)
        return directory

    monkeypatch.setattr(download, "fetch_release", spoiled)
    refused = outcome("refused")
    move(uri, 3)
    follower.look()
    follower.look()
    assert serving.engine is first
    assert loaded == [3]  # not again before its pause is over
    assert outcome("refused") == refused + 1
    move(uri, 2)
    follower.look()
    assert serving.engine is second

    lacking_one = Follower(serving, uri, follower._packaged, Kept(tmp_path / "other", uri, NAME))

    def lacking(*_: object) -> Path:
        raise ConfigError("sequence_encoder 'huggingface' needs the package transformers")

    monkeypatch.setattr(download, "fetch_release", lacking)
    move(uri, 3)
    lacking_one.look()
    assert serving.engine is second
    assert outcome("refused") == refused + 2

    unreachable = outcome("unreachable")
    away = f"sqlite:///{bundles[0]}/model.json"
    Follower(serving, away, follower._packaged, Kept(tmp_path / "other", away, NAME)).look()
    assert serving.engine is second
    assert outcome("unreachable") == unreachable + 1


def test_a_version_of_the_same_number_in_another_registry_is_another(
    registered: tuple[str, list[Path]], tmp_path: Path
) -> None:
    uri, _ = registered
    other = make_bundle(tmp_path / "other", seed=7)
    elsewhere = f"sqlite:///{tmp_path}/mlflow.db"
    make_champion(other, make_golden(other, tmp_path / "other.parquet"), elsewhere)
    move(uri, 1)
    serving = Serving(engine_of(elsewhere, 1, tmp_path))
    followed_by(serving, uri, tmp_path).look()
    assert (serving.engine.version, serving.engine.digest) == (
        "1",
        versions.find_version(NAME, "1", uri).digest,
    )


def test_a_version_that_fails_is_tried_again_after_growing_pauses(
    registered: tuple[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, _ = registered
    move(uri, 1)
    serving = Serving(engine_of(uri, 1, tmp_path), ServingSettings(follow_every_s=10))
    follower, clock, attempts = followed_by(serving, uri, tmp_path), [0.0], []
    monkeypatch.setattr(follow, "time", SimpleNamespace(monotonic=lambda: clock[0], time=time.time))
    real = download.fetch_release

    def broken(*arguments: object) -> Path:
        attempts.append(clock[0])
        raise KeyError("an artifact store that answers nonsense")

    monkeypatch.setattr(download, "fetch_release", broken)
    move(uri, 2)
    for look in range(600):  # 100 minutes
        clock[0] = 10.0 * look
        with contextlib.suppress(KeyError):
            follower.look()
    assert attempts == [0, 10, 30, 70, 150, 310, 630, 1270, 2170, 3070, 3970, 4870, 5770]
    move(uri, 1)
    follower.look()
    move(uri, 3)  # another version has nothing to wait for
    with pytest.raises(KeyError):
        follower.look()
    monkeypatch.setattr(download, "fetch_release", real)
    clock[0] += 10
    follower.look()
    assert serving.engine.version == "3"


@dataclass(frozen=True)
class Served:
    """A server of two workers that follow a registry."""

    url: str
    process: subprocess.Popen

    def workers(self) -> list[psutil.Process]:
        children = psutil.Process(self.process.pid).children()
        return [one for one in children if "_bentoml_impl.worker.service" in one.cmdline()]

    def versions_after_all_workers_were_killed(self) -> set[str]:
        """The versions that are answered with from then on until two new workers are there, and for a while."""
        killed = self.workers()
        for one in killed:
            one.kill()
        seen: set[str] = set()
        until = time.monotonic() + 300
        calm = 0
        while calm < 40:
            assert time.monotonic() < until
            try:
                answer = httpx.get(f"{self.url}/v1/model", timeout=30)
            except httpx.TransportError:  # of a worker that was killed meanwhile
                continue
            if answer.status_code == 200:
                seen.add(answer.headers["x-model-version"])
                new = {one.pid for one in self.workers()} - {one.pid for one in killed}
                calm += len(new) == len(killed)
            else:
                assert answer.status_code == 503
            time.sleep(0.05)
        return seen


@pytest.fixture
def served(registered: tuple[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Version 1 as `bentoml serve` serves it, with two workers that follow the registry."""
    uri, _ = registered
    move(uri, 1)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    for name, value in (("REGISTRY_URI", uri), ("FOLLOW_EVERY_S", "0.3"), ("WORKERS", "2")):
        monkeypatch.setenv(f"METALAYER_SERVE_{name}", value)
    port, log = free_port(), tmp_path / "server.log"
    command = serve_command(package_version(versions.find_champion(NAME, uri), uri), port=port)
    process = subprocess.Popen(command, env=bento_environment(), stdout=log.open("w"), stderr=subprocess.STDOUT)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(process, url, log)
        until = time.monotonic() + 180
        while not re.search(r'^metalayer_registry{state="following"} 2.0$', httpx.get(f"{url}/metrics").text, re.M):
            assert time.monotonic() < until, log.read_text()  # one that is late would begin with what is champion then
            time.sleep(0.1)
        yield Served(url, process)
    finally:
        process.terminate()
        process.wait(60)


def swaps(url: str, outcome: str) -> float:
    """What all workers together have counted."""
    found = re.search(rf'^metalayer_swaps_total{{outcome="{outcome}"}} (\S+)$', httpx.get(f"{url}/metrics").text, re.M)
    return float(found[1]) if found else 0.0


def wait_for(url: str, outcome: str, count: float) -> None:
    until = time.monotonic() + 180
    while swaps(url, outcome) < count:
        assert time.monotonic() < until
        time.sleep(0.1)


def test_no_request_fails_while_the_champion_moves(
    registered: tuple[str, list[Path]], served: Served, tmp_path: Path
) -> None:
    """1,000 requests over 16 connections across 20 swaps; each answer is that of the version in its header."""
    uri, bundles = registered
    rows = score_rows(2)
    answers = {str(number + 1): expected(bundle, rows) for number, bundle in enumerate(bundles)}
    over = threading.Event()

    def ask(_: int) -> list[str]:
        seen: list[str] = []
        with httpx.Client(base_url=served.url, timeout=60) as client:
            while len(seen) < 63 or not over.is_set():
                response = client.post("/v1/score", json={"rows": rows})
                assert response.status_code == 200, response.text
                version = response.headers["x-model-version"]
                given = np.array([[row[name] for name in CLASSES] for row in response.json()["rows"]], dtype=np.float32)
                assert np.abs(given - answers[version]).max() <= 1e-6
                seen.append(version)
        return seen

    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask, number) for number in range(16)]
        try:
            for number in range(20):
                move(uri, 1 + (number + 1) % 3)  # never the one before, so that each is loaded anew
                wait_for(served.url, "done", 2 * (number + 1))
        finally:
            over.set()
        seen = [version for one in asked for version in one.result()]
    assert len(seen) >= 1000
    assert set(seen) == {"1", "2", "3"}
    assert swaps(served.url, "done") == 40

    # A version that misses its golden rows never answers, and is not fetched at every look.
    bundle = make_bundle(tmp_path / "bad", seed=9)
    registration.register(
        bundle, make_golden(bundle, tmp_path / "bad.parquet"), base_model="pwm", promoted=False, tracking_uri=uri
    )
    (golden,) = Path(uri.removeprefix("sqlite:///")).parent.rglob("mlartifacts/**/bad.parquet")
    pl.read_parquet(golden).with_columns(pl.col("donor") + 1e-3).write_parquet(golden)
    move(uri, 4)
    wait_for(served.url, "refused", 4)
    time.sleep(6)
    assert swaps(served.url, "refused") <= 14  # 40 at every look
    assert {httpx.get(f"{served.url}/v1/model").headers["x-model-version"] for _ in range(10)} == {"3"}
    move(uri, 1)
    wait_for(served.url, "done", 42)


def test_workers_that_are_restarted_answer_as_the_champion_whether_the_registry_is_there_or_not(
    registered: tuple[str, list[Path]], served: Served
) -> None:
    uri, _ = registered
    move(uri, 2)  # version 1 is in the Bento
    wait_for(served.url, "done", 2)
    assert served.versions_after_all_workers_were_killed() == {"2"}
    database = Path(uri.removeprefix("sqlite:///"))
    away = database.rename(database.with_suffix(".away"))
    database.write_text("no database")
    try:
        assert served.versions_after_all_workers_were_killed() == {"2"}
        assert httpx.get(f"{served.url}/v1/model").json()["registry"]["state"] == "unreachable"
        assert re.search(
            r'^metalayer_registry{state="unreachable"} 2.0$', httpx.get(f"{served.url}/metrics").text, re.M
        )
    finally:
        away.replace(database)
