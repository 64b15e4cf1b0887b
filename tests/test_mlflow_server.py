"""A real MLflow server by URI: without authentication, with a token, with a user name and password."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from metalayer.errors import ConfigError
from tests.door import basic, bearer, guarded_door
from tests.servers import mlflow_server
from tests.test_pipeline import FAILING, QUICK, RUN, command

TOKEN, USER, PASSWORD = "t0ken-of-the-test", "ada", "l0velace"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a server that asks nobody who they are."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield int(uri.rpartition(":")[2])


@pytest.fixture(scope="module")
def guarded(server: int) -> Iterator[int]:
    """Port of a door to the same server that opens for those with a credential."""
    with guarded_door("127.0.0.1", server, {bearer(TOKEN), basic(USER, PASSWORD)}) as port:
        yield port


@pytest.mark.integration
@pytest.mark.slow
def test_runs_with_a_server(server: int, guarded: int, simulation: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    credentials = [
        (server, {}),
        (guarded, {"MLFLOW_TRACKING_TOKEN": TOKEN}),
        (guarded, {"MLFLOW_TRACKING_USERNAME": USER, "MLFLOW_TRACKING_PASSWORD": PASSWORD}),
    ]
    for number, (port, given) in enumerate(credentials, start=1):
        uri = f"http://127.0.0.1:{port}"
        environment = {**plain, "METALAYER_HOME": str(state), "MLFLOW_TRACKING_URI": uri, **given}
        arguments = command((*QUICK, *FAILING), ("--data-root", str(simulation)))
        program = [sys.executable, str(RUN), *arguments]
        done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 3, done.stderr
        assert f"metalayer-pwm version {number}, alias challenger" in done.stdout
        assert not (state / "mlflow.db").exists()
    for path in state.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert TOKEN.encode() not in content, path
            assert PASSWORD.encode() not in content, path
    refused = {**plain, "METALAYER_HOME": str(state), "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{guarded}"}
    done = subprocess.run(program, env=refused, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "401" in done.stderr
    assert "Traceback" not in done.stderr


def test_credentials_in_the_uri_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import mlflow_service

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{USER}:{PASSWORD}@127.0.0.1:1")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_PASSWORD") as caught:
        mlflow_service.prepare()
    assert PASSWORD not in str(caught.value)
