"""Where the figures of a training run go besides its history: one small protocol, one vendor a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Tracker(Protocol):
    """Takes the figures of each epoch."""

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        """Finite figures of one epoch, by name."""

    def close(self) -> None:
        """Write what is still held; the training run has ended or stopped."""
