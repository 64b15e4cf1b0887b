"""The server follows the alias: over MLflow's own registry, and over a socket while it moves."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import mlflow
import numpy as np
import polars as pl
import pytest
import uvicorn
from releases import expected, make_bundle, make_golden, score_rows

from metalayer.models.bundle import digest
from metalayer.schema import CLASSES
from metalayer.serving import registry
from metalayer.serving.app import Serving, create_app
from metalayer.serving.engine import Engine
from metalayer.serving.follow import Follower
from metalayer.serving.metrics import SWAPS
from metalayer.serving.settings import ServingSettings

pytestmark = [pytest.mark.integration, pytest.mark.slow]
NAME = "metalayer-pwm"


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Path]]:
    """A registry with versions 1 to 3 of different weights, the last of which is champion, and their bundles."""
    folder = tmp_path_factory.mktemp("registered")
    uri = f"sqlite:///{folder}/mlflow.db"
    bundles = [make_bundle(folder / str(seed), seed) for seed in range(3)]
    for bundle in bundles:
        golden = make_golden(bundle, bundle.with_suffix(".parquet"))
        registry.register(bundle, golden, base_model="pwm", promoted=True, tracking_uri=uri)
    return uri, bundles


def move(uri: str, version: int) -> None:
    mlflow.MlflowClient(uri, uri).set_registered_model_alias(NAME, "champion", str(version))


def engine_of(uri: str, version: int, folder: Path) -> Engine:
    found = next(one for one in registry.versions(uri) if one.version == version)
    return Engine(registry.fetch_release(found, uri, folder))


def outcome(name: str) -> float:
    return float(SWAPS.labels(name)._value.get())


def test_the_alias_is_followed_and_a_bad_version_refused(
    registered: tuple[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, bundles = registered
    move(uri, 1)
    first = engine_of(uri, 1, tmp_path)
    serving = Serving(first)
    follower = Follower(serving, uri)
    follower.look()
    assert serving.engine is first

    move(uri, 2)
    follower.look()
    second = serving.engine
    assert (second.version, second.digest) == ("2", digest(bundles[1]))
    assert serving.previous is first
    move(uri, 1)  # a rollback: nothing is loaded
    follower.look()
    assert serving.engine is first
    assert serving.previous is second

    loaded = []
    real = registry.fetch_release

    def spoiled(version: registry.ModelVersion, uri: str | None, folder: Path) -> Path:
        loaded.append(version.version)
        directory = real(version, uri, folder)
        golden = directory / "golden.parquet"
        pl.read_parquet(golden).with_columns(pl.col("donor") + 1e-3).write_parquet(golden)
        return directory

    monkeypatch.setattr(registry, "fetch_release", spoiled)
    refused = outcome("refused")
    move(uri, 3)
    follower.look()
    follower.look()
    assert serving.engine is first
    assert loaded == [3]  # tried once
    assert outcome("refused") == refused + 1
    move(uri, 2)
    follower.look()
    assert serving.engine is second

    unreachable = outcome("unreachable")
    Follower(serving, f"sqlite:///{bundles[0]}/model.json").look()
    assert serving.engine is second
    assert outcome("unreachable") == unreachable + 1


def test_no_request_fails_while_the_champion_moves(registered: tuple[str, list[Path]], tmp_path: Path) -> None:
    """1,000 requests over 16 connections across 20 swaps; each answer is that of the version in its header."""
    uri, bundles = registered
    move(uri, 1)
    rows = score_rows(2)
    answers = {str(number + 1): expected(bundle, rows) for number, bundle in enumerate(bundles)}
    serving = Serving(engine_of(uri, 1, tmp_path), ServingSettings(follow_every_s=0.05))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app(serving), port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    swaps, over = outcome("done"), threading.Event()
    following = Follower(serving, uri).start()

    def ask(_: int) -> tuple[list[str], int]:
        seen, count = [], 0
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            while count < 63 or not over.is_set():
                response = client.post("/v1/score", json={"rows": rows})
                assert response.status_code == 200, response.text
                version = response.headers["x-model-version"]
                given = np.array([[row[name] for name in CLASSES] for row in response.json()["rows"]], dtype=np.float32)
                assert np.abs(given - answers[version]).max() <= 1e-6
                seen.append(version)
                count += 1
        return seen, count

    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(ask, number) for number in range(16)]
        for number in range(20):
            version = 1 + (number + 1) % 3  # never the one before, so that each is loaded anew
            move(uri, version)
            until = time.monotonic() + 60
            while serving.engine.version != str(version):
                assert time.monotonic() < until
                time.sleep(0.01)
        over.set()
        found = [one.result() for one in asked]
    serving.draining = server.should_exit = True
    following.join(20)
    thread.join(20)
    assert sum(count for _, count in found) >= 1000
    assert outcome("done") >= swaps + 20
    assert {version for seen, _ in found for version in seen} == {"1", "2", "3"}
