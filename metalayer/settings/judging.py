"""The settings of a command that judges a model which is there already: those of a run, as far as they act."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metalayer.errors import ConfigError
from metalayer.settings.door import override
from metalayer.settings.run import RunConfig
from metalayer.settings.sections import DataConfig, TrainConfig

SECTIONS = ("evaluate", "gate")


def judging(path: Path | None, overrides: Sequence[str], data: Mapping[str, Any], device: str) -> RunConfig:
    """Settings of comparison and gate from a run's YAML and from overrides; all else stays at its default.

    Args:
        path: YAML of a run, whose other sections are checked and not read; None for none.
        overrides: `section.key=value` of `SECTIONS`.
        data: settings of section `data` that this command has options for.
        device: of the network.

    Raises:
        ConfigError: a file that cannot be read, mistakes, or settings that do not act here.
    """
    for text in overrides:
        section, _, _ = override(text)
        if section not in SECTIONS:
            raise ConfigError(f"--set {text}: the model is trained already; allowed are settings of evaluate and gate")
    read = RunConfig.load(path, overrides)
    return RunConfig(data=DataConfig(**data), train=TrainConfig(device=device), evaluate=read.evaluate, gate=read.gate)
