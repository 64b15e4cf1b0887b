"""MLflow: the run that is active, else one of our own at `$MLFLOW_TRACKING_URI`."""

from __future__ import annotations

from collections.abc import Mapping

import mlflow


class MlflowTracker:
    """Logs to the active MLflow run; a run that the user opened stays open."""

    def __init__(self) -> None:
        active = mlflow.active_run()
        self._own = active is None
        self._run_id: str = (active or mlflow.start_run()).info.run_id
        self._client = mlflow.MlflowClient()

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        """As of `Tracker`."""
        for name, value in figures.items():
            self._client.log_metric(self._run_id, name, value, step=epoch)

    def close(self) -> None:
        """As of `Tracker`."""
        if self._own:
            mlflow.end_run()
