"""Training in two processes as the pipeline's step starts them: the model of one, failures told, none left behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from metalayer.errors import ConfigError, TrainingError
from metalayer.settings.sections import TrainConfig
from metalayer.workflows.launch import PROCESSES, processes, train_on_machine
from tests.test_pipeline import PASSING, QUICK, RUN, First, command, execute, first, found, metrics  # noqa: F401
from tests.test_workflows import Prepared, prepare

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import sys; sys.path.insert(0, {root!r})
import logging
from pathlib import Path
from metalayer.workflows.launch import train_on_machine
from tests.test_workflows import prepare
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
folder = Path(sys.argv[2])
it = prepare(Path(sys.argv[1]), folder, "train.max_epochs=10000", "train.patience=10000")
train_on_machine(it.rows, it.tracks, it.manifest, it.config, folder / "model", {{}})
"""


@pytest.fixture(scope="module")
def prepared(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(simulation, tmp_path_factory.mktemp("launch"))


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROCESSES, "2")


def test_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROCESSES, raising=False)
    assert processes(TrainConfig(device="cpu")) == processes(TrainConfig(device="cuda:0")) == 1
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert processes(TrainConfig(device="auto")) == processes(TrainConfig(device="cuda")) == 4
    monkeypatch.setenv(PROCESSES, "3")
    assert processes(TrainConfig(device="cpu")) == 3
    for wrong in ("gpu", "0", "-1"):
        monkeypatch.setenv(PROCESSES, wrong)
        with pytest.raises(ConfigError, match=f"given '{wrong}'"):
            processes(TrainConfig())


@pytest.mark.integration
@pytest.mark.usefixtures("two")
def test_two_processes_end_as_one(first: First, simulation: Path, tmp_path: Path) -> None:  # noqa: F811
    chosen = command((*QUICK, *PASSING), ("--data-root", str(simulation)))
    state = tmp_path / "two" / "state"
    state.parent.mkdir()
    done = execute(state, [str(RUN), *chosen])
    assert done.code == 0, done.err
    for ended in (done, first):
        assert ("training in 2 processes" in ended.err) == (ended == done)
        assert ended.err.count("epoch 2/2: ") == 1
        assert "gate: promoted" in ended.out
    name = Path(found(r"^report +(\S+)$", done.out)).parent.name
    left = metrics(f"sqlite:///{state}/mlflow.db", name)
    assert len(left) > 100
    assert left == pytest.approx(first.metrics, abs=1e-6)


@pytest.mark.usefixtures("two")
def test_a_failure_is_that_of_the_process(prepared: Prepared, tmp_path: Path) -> None:
    given = (prepared.rows, prepared.tracks, prepared.manifest)
    no_gpu = prepared.config.model_copy(deep=True)
    no_gpu.train.device = "cuda:7"
    with pytest.raises(ConfigError, match=r"^training process [01] of 2: device 'cuda:7' is not available here"):
        train_on_machine(*given, no_gpu, tmp_path / "model", {})
    with pytest.raises(TrainingError, match=r"^training process [01] of 2: FileNotFoundError: .*nowhere"):
        train_on_machine(tmp_path / "nowhere", *given[1:], prepared.config, tmp_path / "model", {})
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("victim", ["this", "a process"])
def test_none_outlives_the_others(
    victim: str, simulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PROCESSES, "2")
    program = [sys.executable, "-c", PROGRAM.format(root=str(ROOT)), str(simulation), str(tmp_path)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        assert any("epoch 1/10000" in line for line in process.stdout)
        (torchrun,) = psutil.Process(process.pid).children()
        workers = torchrun.children()
        assert len(workers) == 2
        if victim == "this":
            process.terminate()
        else:
            workers[1].kill()
        errors = process.communicate(timeout=90)[1]
        if victim == "this":
            assert process.returncode == -signal.SIGTERM
        else:
            assert process.returncode == 1
            assert "TrainingError: one of 2 training processes was ended by SIGKILL" in errors
        assert not psutil.wait_procs([torchrun, *workers], timeout=10)[1]
