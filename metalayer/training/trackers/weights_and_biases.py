"""Weights & Biases: the run that the user has open, else one of our own.

With `WANDB_MODE=offline` it needs no account and no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import wandb

PROJECT = "metalayer"


class WandbTracker:
    """Logs to `wandb.run`; a run that the user opened stays open."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._own = wandb.run is None
        self._run = wandb.run or wandb.init(project=PROJECT, config=dict(config))

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        """As of `Tracker`."""
        self._run.log({**figures, "epoch": epoch})

    def close(self) -> None:
        """As of `Tracker`."""
        if self._own:
            self._run.finish()
