"""`metalayer ui`: the dashboards of MLflow and ZenML over a socket, on a state folder that a run has left."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from metalayer.errors import ConfigError, InputError
from metalayer.workflows import ui
from tests import forked
from tests.servers import free_port


def opened(dashboard: str, state: Path) -> tuple[subprocess.Popen[str], str]:
    """A process that serves a dashboard, and the address that it prints."""
    command = [sys.executable, "-m", "metalayer", "ui", dashboard, "--port", str(free_port())]
    process = subprocess.Popen(
        command, env={**os.environ, "METALAYER_HOME": str(state)}, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout
    line = process.stdout.readline()
    assert f"shows the runs in {state}; interrupt to end it" in line
    return process, line.split()[0]


def interrupted(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGINT)
    return process.wait(timeout=60)


@pytest.mark.integration
def test_mlflow(tmp_path: Path) -> None:
    make = "from metalayer.registry import tracking; tracking.ensure_experiment()"
    forked.run(["-c", make], {**os.environ, "METALAYER_HOME": str(tmp_path)}, tmp_path, 120).check_returncode()
    process, address = opened("mlflow", tmp_path)
    try:
        assert "workflowType=machine_learning" in address  # else it is shown as one of generative AI
        home, _, page = address.partition("/#/")
        number = page.removeprefix("experiments/").partition("?")[0]
        with urllib.request.urlopen(f"{home}/api/2.0/mlflow/experiments/get?experiment_id={number}") as answer:
            assert json.load(answer)["experiment"]["name"] == "metalayer"
    finally:
        assert interrupted(process) in (0, 130)


@pytest.mark.integration
def test_zenml(tmp_path: Path) -> None:
    make = (
        "from pipelines import environment; state = environment.prepare(); "
        "from zenml.client import Client; Client().active_user; environment.mark_made(state)"
    )
    environment = {**os.environ, "METALAYER_HOME": str(tmp_path)}
    root = Path(__file__).resolve().parents[1]
    forked.run(["-c", make], environment, root, 180).check_returncode()
    process, address = opened("zenml", tmp_path)
    try:
        home = address.removesuffix("/projects/default/runs")
        with urllib.request.urlopen(f"{home}/api/v1/current-user") as answer:
            user = json.load(answer)
        # Else it asks for name and mail before it shows anything.
        assert user["body"]["email_opted_in"] is False
        assert user["metadata"]["user_metadata"] == {"finished_onboarding_survey": True}
    finally:
        assert interrupted(process) in (0, 130)


@pytest.mark.parametrize("dashboard", list(ui.DASHBOARDS))
def test_nothing_to_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dashboard: str) -> None:
    monkeypatch.setenv("METALAYER_HOME", str(tmp_path))
    with pytest.raises(InputError, match="no run has written to it yet"):
        ui.show(dashboard, free_port())
    assert not list(tmp_path.rglob("*.db"))


def test_a_server_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METALAYER_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    with pytest.raises(InputError, match=r"kept by the MLflow server https://mlflow\.example\.org"):
        ui.show("mlflow", free_port())
    monkeypatch.setenv("ZENML_STORE_URL", "https://zenml.example.org")
    with pytest.raises(InputError, match=r"kept by the ZenML server https://zenml\.example\.org"):
        ui.show("zenml", free_port())


@pytest.mark.parametrize("port", [0, 70000])
def test_a_port_that_is_none(port: int) -> None:
    with pytest.raises(ConfigError, match="--port"):
        ui.show("mlflow", port)
