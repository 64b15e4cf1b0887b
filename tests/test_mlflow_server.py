"""A real MLflow server by URI: without authentication, with a token, with a user name and password."""

from __future__ import annotations

import base64
import http.client
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from metalayer.errors import ConfigError
from tests.servers import mlflow_server
from tests.test_pipeline import FAILING, QUICK, RUN, command

TOKEN, USER, PASSWORD = "t0ken-of-the-test", "ada", "l0velace"
ALLOWED = {f"Bearer {TOKEN}", "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Port of a server that asks nobody who they are."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as uri:
        yield int(uri.rpartition(":")[2])


@pytest.fixture(scope="module")
def guarded(server: int) -> Iterator[int]:
    """Port of a door to the same server that opens for `ALLOWED` alone."""

    class Door(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") not in ALLOWED:
                self.send_response(401)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            inside = http.client.HTTPConnection("127.0.0.1", server, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name not in ("Host", "Connection")}
            inside.request(self.command, self.path, body, headers)
            reply = inside.getresponse()
            content = reply.read()
            self.send_response(reply.status)
            for name, value in reply.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            inside.close()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, *_: object) -> None:
            pass

    door = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    threading.Thread(target=door.serve_forever, daemon=True).start()
    yield door.server_address[1]
    door.shutdown()


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
