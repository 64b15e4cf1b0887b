"""Servers in processes of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

KEYS_OF_METRICS: tuple[tuple[dict[str, str], str, int], ...] = (
    ({}, "", 200),
    ({"api_keys": "k1"}, "", 401),
    ({"api_keys": "k1"}, "k1", 200),
    ({"api_keys": "k1", "metrics_key": "m"}, "m", 200),
    ({"metrics_key": "m"}, "", 401),
    ({"metrics_key": "m"}, "k", 401),
)
"""Settings of a server, the key that /metrics is asked with, and the status of the answer."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(process: subprocess.Popen, url: str, log: Path) -> None:
    """Until /readyz says so; fails with the log where the server ended or takes two minutes."""
    until = time.monotonic() + 120
    while True:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.2)


@contextmanager
def mlflow_server(folder: Path, *options: str, **variables: str) -> Iterator[str]:
    """Address of an MLflow server that keeps everything in a folder; without options it asks nobody who they are."""
    folder.mkdir(exist_ok=True)
    uri = f"http://127.0.0.1:{free_port()}"
    program = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        uri.rpartition(":")[2],
        "--workers",
        "1",
    ]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "files")]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment = {**os.environ, **quiet, **variables}
    with subprocess.Popen(
        [*program, *stores, *options], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            until = time.monotonic() + 180
            while not _answers(f"{uri}/health"):
                assert time.monotonic() < until, "the MLflow server does not answer"
                time.sleep(0.25)
            yield uri
        finally:
            process.terminate()


@contextmanager
def zenml_server(folder: Path, user: str, password: str) -> Iterator[str]:
    """Address of a ZenML server that keeps everything in a folder."""
    url = f"http://127.0.0.1:{free_port()}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ZENML_STORE_")},
        "ZENML_CONFIG_PATH": str(folder / "config"),
        "ZENML_LOCAL_STORES_PATH": str(folder / "stores"),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_SERVER": "true",
        "ZENML_SERVER_DEPLOYMENT_TYPE": "other",
        "ZENML_SERVER_AUTO_ACTIVATE": "true",
        "ZENML_SERVER_JWT_SECRET_KEY": "of-a-test",
        "ZENML_DEFAULT_USER_NAME": user,
        "ZENML_DEFAULT_USER_PASSWORD": password,
    }
    program = [sys.executable, "-m", "uvicorn", "zenml.zen_server.zen_server_api:app", "--port", url.rpartition(":")[2]]
    log = folder / "server.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(program, env=environment, cwd=folder, stdout=output, stderr=output) as process,
    ):
        try:
            until = time.monotonic() + 120
            while not _answers(f"{url}/health"):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.25)
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.TransportError:
        return False


_FORKING = """
import json, os, sys, torch, uvicorn
from metalayer.serving.app import create_app
from metalayer.serving.state import Serving
from metalayer.release.engine import Engine
from metalayer.serving.settings import ServingSettings
torch.set_num_threads(1)
for line in sys.stdin:
    release, port, settings = json.loads(line)
    child = os.fork()
    if not child:
        os.environ.update(settings)
        serving = Serving(Engine(release), ServingSettings.from_environment())
        uvicorn.run(create_app(serving), port=port, log_level="error")
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Imports once; of each line that it is sent it forks a server, of which there is one at a time."""


class Server:
    """A process that starts servers, one after the other."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _FORKING], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._pid = 0

    def start(self, released: Path, port: int = 0, **settings: str) -> str:
        """Its address."""
        port = port or free_port()
        given = {f"METALAYER_SERVE_{name.upper()}": value for name, value in settings.items()}
        self._process.stdin.write(json.dumps([str(released), port, given]) + "\n")
        self._process.stdin.flush()
        self._pid = int(self._process.stdout.readline())
        url, until = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while time.monotonic() < until:
            try:
                httpx.get(f"{url}/v1/model")
                return url
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError("no server")

    def kill(self, number: int = signal.SIGKILL) -> int:
        """The exit status of the server that was started, after a signal."""
        os.kill(self._pid, number)
        self._pid = 0
        return int(self._process.stdout.readline())

    def close(self) -> None:
        if self._pid:
            self.kill()
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
