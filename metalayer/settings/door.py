"""The door: YAML files and `--set`, of one kind for pipelines and the command line.

Settings are in sections: `train: {max_epochs: 3}` in a file, `--set train.max_epochs=3`. The guide's flat names
(`max_epochs: 3`), which are those of data, model and train, are accepted too, and put into their sections here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from metalayer import yaml12
from metalayer.errors import ConfigError
from metalayer.settings.mistakes import joined
from metalayer.settings.network import ModelConfig
from metalayer.settings.sections import DataConfig, SplitConfig, TrainConfig

logger = logging.getLogger(__name__)

FORM = "section.key=value, as in train.max_epochs=3"
"""Of `--set`."""
SECTION_OF = {name: kind.section for kind in (DataConfig, ModelConfig, TrainConfig) for name in kind.model_fields} | {
    "top_k_values": "evaluate"
}
"""Flat name to its section."""
_SECTIONS = ("data", "model", "train", "evaluate")
LIBRARY_ALONE = {
    "max_samples": "a pipeline trains on all rows",
    **dict.fromkeys(
        ("train_split", "val_split", "test_split"), "a pipeline divides the genes as its section split says"
    ),
    "num_workers": "a pipeline reads its batches from mapped memory",
}
"""Flat names that pipelines have not, with the reason."""
_PIPELINES_ALONE = ("gate", "search", "score", "base", "variants")
"""Sections of steps that training from the command line does not have."""


def override(text: str) -> tuple[str, str, Any]:
    """Section, key and value of `--set SECTION.KEY=VALUE`; the section is empty where there is none.

    Raises:
        ConfigError: another form, or a value that is no YAML.
    """
    name, value = yaml12.setting(text, FORM)
    parts = name.split(".")
    if len(parts) > 2 or not all(parts):
        raise ConfigError(f"--set {text}: expected {FORM}")
    return ("" if len(parts) == 1 else parts[0]), parts[-1], value


def flat_name(section: str, name: str) -> str:
    """A setting's flat name; one that there is not keeps its section in front."""
    return name if SECTION_OF.get(name) == section else f"{section}.{name}"


def sectioned(values: Mapping[Any, Any]) -> tuple[dict[Any, Any], list[str]]:
    """Settings with flat names in their sections, and those that were given in both forms."""
    found = {name: given for name, given in values.items() if name not in SECTION_OF}
    mistakes = []
    for name in (name for name in values if name in SECTION_OF):
        section = SECTION_OF[name]
        inside = found.get(section)
        if inside is not None and not isinstance(inside, Mapping):
            continue  # which is the mistake
        if inside and name in inside:
            mistakes.append(_twice(section, name))
        found[section] = {**(inside or {}), name: values[name]}
    return found, mistakes


def flattened(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """Settings of a file by their flat names; what is unknown keeps its section's name in front.

    Sections that pipelines alone read are left out, which is logged.

    Raises:
        ConfigError: settings in both forms, no section where one belongs, or a split that would not be made.
    """
    found = {name: given for name, given in values.items() if name not in (*_SECTIONS, *_PIPELINES_ALONE, "split")}
    mistakes, unread = [], []
    for section in [name for name in values if name not in found]:
        given = values[section] or {}
        if not isinstance(given, Mapping):
            mistakes.append(f"{section}: given {given!r}; a section holds keys and values")
        elif section == "split":
            if SplitConfig(**given).given():
                mistakes.append(
                    "split: no effect here, where train_split, val_split and test_split draw the genes; leave it out, "
                    "or train with pipelines/run.py"
                )
        elif section in _PIPELINES_ALONE:
            unread.append(section)
        else:
            for name, value in given.items():
                flat = flat_name(section, name)
                if section == "evaluate" and flat not in SECTION_OF:
                    unread.append(flat)
                    continue
                if flat in values:
                    mistakes.append(_twice(section, name))
                found[flat] = value
    if mistakes:
        raise ConfigError(joined(mistakes))
    if unread:
        logger.info("not read here, as pipelines alone have these steps: %s", ", ".join(unread))
    return found


def _twice(section: str, name: str) -> str:
    return f"{section}.{name}: given twice, also as {name}; leave one of them out"
