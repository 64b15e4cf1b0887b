"""Where the settings of a run come from: a named file, that of the user's data, what their files say, or the demo."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metalayer import yaml12
from metalayer.errors import ConfigError
from metalayer.settings.door import SECTION_OF, override, sectioned
from metalayer.settings.run import RunConfig
from metalayer.settings.section import Section
from metalayer.workflows import own_data
from pipelines import console, environment

DEMO = environment.ROOT / "pipelines" / "configs" / "demo.yaml"
_DEFAULT = "default"


@dataclass(frozen=True)
class Configuration:
    """The settings of a run, and who set each.

    Attributes:
        config: all of them.
        file: YAML that they were read from; None where they follow from the data.
        is_demo: whether the data are the built-in demo's.
        notes: what to say of data whose settings follow from them, a line each.
        sources: by `section.key`, where a value comes from; others are defaults.
    """

    config: RunConfig
    file: Path | None
    is_demo: bool
    notes: tuple[str, ...]
    sources: Mapping[str, str]

    def text(self) -> str:
        """All settings that act, each with where it comes from, as YAML."""
        lines = []
        for name, section in self.config:
            if not isinstance(section, Section):
                continue
            lines.append(f"{name}:")
            idle = section.idle()
            for key, value in section.model_dump(mode="json").items():
                if key in idle:
                    continue
                first, *rest = yaml12.dump({key: value}).rstrip("\n").split("\n")
                lines.append(f"  {first}  # {self.sources.get(f'{name}.{key}', _DEFAULT)}")
                lines += [f"  {line}" for line in rest]
        return "\n".join(lines)


def read(options: argparse.Namespace, state: Path) -> Configuration:
    """The settings that a command line asks for.

    `--config FILE`, else `run.yaml` in `--data-root DIR`, else what the files of DIR say, else the demo; then `--set`.

    Args:
        options: of `run.py`.
        state: folder of the demo's data.

    Raises:
        MetalayerError: a file, data or settings that cannot be used.
    """
    changes = [override(text) for text in options.overrides]
    named = {f"{section or SECTION_OF.get(key, '')}.{key}": value for section, key, value in changes}
    makes_data = options.pipeline in ("base_layer", "variants")  # or needs none of a data root
    root = None if makes_data else options.data_root or _path(named.get("data.data_root"))
    demo = options.config is None or options.config.resolve() == DEMO
    is_demo = demo and root is None and not makes_data
    file: Path | None = options.config
    notes: tuple[str, ...] = ()
    values: Mapping[str, Any]
    written: Mapping[Any, Any]
    if file is None and root is not None and (root / own_data.CONFIG_NAME).is_file():
        file = root / own_data.CONFIG_NAME
    if file is None and root is not None:
        elsewhere = any(name in named for name in ("data.artifacts_dir", "data.nucleotide_scores"))
        values, notes = ({}, ()) if elsewhere else _of_data(root, named.get("data.base_model"), options.pipeline)
        written = values
    else:
        file = file or DEMO
        written = yaml12.read_mapping(file)
        values, _ = sectioned(written)  # what is given twice is refused by `merged`
    source = f"of the files in {console.shown(root)}" if file is None and root else console.shown(file or DEMO)
    sources = {
        f"{section}.{key}": source for section, given in values.items() if isinstance(given, Mapping) for key in given
    }
    sources |= dict.fromkeys(named, "--set")
    data_root = state / "demo" if is_demo else options.data_root
    if data_root is not None:
        sources["data.data_root"] = "the demo's data" if is_demo else "--data-root"
    config = RunConfig.merged(written, options.overrides, data_root)
    return Configuration(config, file, is_demo, tuple(notes), sources)


def _of_data(root: Path, base_model: Any, pipeline: str) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """Settings that follow from a folder's files, and what to say of them."""
    trains = pipeline in ("training", "search")
    if base_model is not None and not trains:
        return {}, ()
    found = own_data.contents(root)
    base = own_data.chosen_base(found, base_model)
    if not trains:
        return {"data": {"base_model": base.name}}, ()
    made = own_data.plan(found, base, own_data.genes_of(found, base))
    where = console.shown(root)
    said = f"no {own_data.CONFIG_NAME} in {where}: settings follow from the files (metalayer init {where} writes them)"
    return made.values, (said, *own_data.summary(found, made))


def run_name(options: argparse.Namespace) -> str:
    """What runs of a command line are called: after the file of settings, else the folder of data."""
    if options.config is not None:
        return str(options.config.stem)
    return options.data_root.resolve().name or "run" if options.data_root else DEMO.stem


def require_file(configuration: Configuration, what: str) -> None:
    """Refuse settings that are in no file, where they must outlive this command.

    Raises:
        ConfigError: there is no file.
    """
    if configuration.file is None:
        root = console.shown(configuration.config.data.data_root)
        raise ConfigError(f"{what}: its settings are in no file; write them first: metalayer init {root}")


def _path(value: Any) -> Path | None:
    return None if value is None else Path(str(value))
