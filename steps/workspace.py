"""Where a step writes before its outputs are stored: `work/` in the state folder, emptied by every run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from metalayer.environment import state_dir


def step_dir(step: str) -> Path:
    """An empty folder for a step of this process; a retry starts empty again."""
    folder = state_dir() / "work" / f"{step}-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def clear() -> None:
    """Remove what is left of all steps, also of runs that were killed."""
    shutil.rmtree(state_dir() / "work", ignore_errors=True)
