"""Where the figures of a run go: TensorBoard files, an offline W&B run, an MLflow run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metalayer.training.trackers import Tracker
from metalayer.training.trainer import Trainer
from tests.test_resume import trainer


def history_of(folder: Path, tracker: Tracker) -> Trainer:
    it = trainer(folder, max_epochs=2)
    it.trackers = [tracker]
    it.train()
    return it


def test_tensorboard_files_hold_every_figure(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    it = trainer(tmp_path, max_epochs=2)
    history = it.train()
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    assert [event.value for event in events.Scalars("val_loss")] == pytest.approx([e["val_loss"] for e in history])
    assert [event.step for event in events.Scalars("train_loss")] == [1, 2]  # epoch 0 has none


@pytest.mark.integration
def test_mlflow_takes_the_run_that_is_open(tmp_path: Path) -> None:
    import mlflow

    from metalayer.training.trackers.mlflow import MlflowTracker

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    try:
        experiment = mlflow.create_experiment("e", artifact_location=(tmp_path / "files").as_uri())
        with mlflow.start_run(experiment_id=experiment) as run:
            it = history_of(tmp_path / "run", MlflowTracker())
            assert mlflow.active_run() is not None
        logged = mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_pr_auc_splice")
        assert [m.value for m in logged] == pytest.approx([e["val_pr_auc_splice"] for e in it.history])
    finally:
        mlflow.set_tracking_uri(before)


@pytest.mark.integration
def test_wandb_offline_of_its_own(tmp_path: Path) -> None:
    """In a process of its own: wandb keeps the folder of the first run of a process."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "import wandb\n"
        "from metalayer.training.trainer import Trainer\n"
        "from tests.test_resume import loaders, trainer\n"
        "it = trainer(None, max_epochs=1)\n"
        "Trainer(it.model, *loaders(), it.config, Path('run'), use_wandb=True).train()\n"
        "assert wandb.run is None, 'opened and not closed'\n"
    )
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(tmp_path)}
    command = [sys.executable, "-c", program, str(root)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("wandb/offline-run-*"))
