"""Where the figures of a run go: TensorBoard files, an offline W&B run, an MLflow run."""

from __future__ import annotations

from pathlib import Path

import pytest

from metalayer.training.trackers import Tracker
from metalayer.training.trainer import Trainer
from tests.test_resume import loaders, trainer


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
@pytest.mark.slow
def test_wandb_offline_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    it = trainer(tmp_path / "run", max_epochs=1)
    again = Trainer(it.model, *loaders(), it.config, tmp_path / "run", use_wandb=True)
    again.train()
    assert wandb.run is None  # opened and closed
    assert list(tmp_path.glob("wandb/offline-run-*"))
