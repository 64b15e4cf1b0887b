"""The dashboards of MLflow and ZenML on the state folder: started on this machine, without an account or a form."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import IO

from metalayer import environment, extras, network
from metalayer.environment import state_dir
from metalayer.errors import InputError, MetalayerError

DASHBOARDS = {"mlflow": 5000, "zenml": 8237}
"""Dashboard to its usual port."""
_HOST = "127.0.0.1"
_STARTS_WITHIN_S = 180
_MLFLOW = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Jobs are of its generative AI: for them it would start six processes, which import all of MLflow and wait."""
_NO_RUN = "no run has written to it yet; run the pipeline first, or set METALAYER_HOME to the folder that has the runs"

logger = logging.getLogger(__name__)


def show(dashboard: str, port: int | None = None, ready: Callable[[str], None] = print) -> int:
    """Serve a dashboard until it is interrupted; returns its exit status.

    It listens to this machine only, and asks nobody on it for a password while it runs.

    Args:
        dashboard: one of `DASHBOARDS`.
        port: to listen at; None for the usual one.
        ready: is given what to say when it answers: its address.

    Raises:
        ConfigError: a port that cannot be listened at.
        InputError: nothing to show, or a server that is elsewhere already.
        MetalayerError: it ended, or did not answer in time.
    """
    number = network.port(DASHBOARDS[dashboard] if port is None else port, "--port")
    network.check_listening(_HOST, number, ("--host", "--port"))
    command, variables = (_mlflow if dashboard == "mlflow" else _zenml)(number)
    address = f"http://{_HOST}:{number}"
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, env=environment.child(**variables), stdout=log, stderr=log) as process,
    ):
        try:
            _wait(process, f"{address}/health", dashboard, log)
            page = (_runs_of_mlflow if dashboard == "mlflow" else _runs_of_zenml)(address)
            ready(f"{page} shows the runs in {state_dir()}; interrupt to end it")
            return process.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            process.terminate()


def _mlflow(port: int) -> tuple[list[str], dict[str, str]]:
    """Command and environment."""
    from metalayer.registry import tracking

    uri = tracking.default_tracking_uri()
    if not uri.startswith("sqlite:///"):
        raise InputError(f"runs are kept by the MLflow server {tracking.shown_uri(uri)}; open that in a browser")
    if tracking.not_made_yet(uri):
        raise InputError(f"{uri.removeprefix('sqlite:///')}: {_NO_RUN}")
    command = ["-m", "mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1"]
    return [sys.executable, *command, "--backend-store-uri", uri], _MLFLOW


def _zenml(port: int) -> tuple[list[str], dict[str, str]]:
    """Likewise."""
    folder = state_dir() / "zenml"
    if server := environment.get("ZENML_STORE_URL"):
        raise InputError(f"runs are kept by the ZenML server {server}; open that in a browser")
    if not (folder / "stores" / "default_zen_store" / "zenml.db").exists():
        raise InputError(f"{folder}: {_NO_RUN}")
    variables = {
        "ZENML_CONFIG_PATH": str(folder),
        "ZENML_LOCAL_STORES_PATH": str(folder / "stores"),
        "ZENML_ANALYTICS_OPT_IN": "false",
        "ZENML_SERVER": "true",
        "ZENML_SERVER_DEPLOYMENT_TYPE": "local",
        "ZENML_SERVER_AUTH_SCHEME": "NO_AUTH",
    }
    command = ["-m", "uvicorn", "zenml.zen_server.zen_server_api:app", "--host", _HOST, "--port", str(port)]
    return [sys.executable, *command], variables


def _wait(process: subprocess.Popen[bytes], url: str, dashboard: str, log: IO[bytes]) -> None:
    """Until it answers."""
    until = time.monotonic() + _STARTS_WITHIN_S
    logger.info("starting the dashboard of %s", dashboard)
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310  of this machine
                return
        except (urllib.error.URLError, OSError):
            pass
        if process.poll() is not None:
            log.seek(0)
            last = (log.read().decode("utf-8", "replace").strip().splitlines() or ["it says nothing"])[-1]
            lacking = f"; install it: {extras.install('pipeline')}" if "No module named" in last else ""
            raise MetalayerError(
                f"the dashboard of {dashboard} ended with status {process.returncode}: {last}{lacking}"
            )
        if time.monotonic() > until:
            raise MetalayerError(f"the dashboard of {dashboard} does not answer after {_STARTS_WITHIN_S} s")
        time.sleep(0.3)


def _runs_of_mlflow(address: str) -> str:
    """The page of our runs, as those of models: by itself MLflow 3 shows an experiment as one of generative AI."""
    from metalayer.registry.tracking import EXPERIMENT

    url = f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}"
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
        number = json.load(answer)["experiment"]["experiment_id"]
    return f"{address}/#/experiments/{number}?workflowType=machine_learning"


def _runs_of_zenml(address: str) -> str:
    """Likewise; its questions to a new user, who is asked for name and mail before anything is shown, get a no."""
    page, url = f"{address}/projects/default/runs", f"{address}/api/v1/current-user"
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
        if json.load(answer)["body"]["email_opted_in"] is not None:
            return page
    body = json.dumps({"email_opted_in": False, "user_metadata": {"finished_onboarding_survey": True}}).encode()
    request = urllib.request.Request(  # noqa: S310
        url, body, {"Content-Type": "application/json"}, method="PUT"
    )
    with urllib.request.urlopen(request, timeout=30):  # noqa: S310
        return page
