"""All settings of a pipeline run, in sections: one YAML of `pipelines/configs/`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import Field, ValidationError, model_validator

from metalayer import yaml12
from metalayer.errors import ConfigError
from metalayer.settings.door import FORM, LIBRARY_ALONE, SECTION_OF, override, sectioned
from metalayer.settings.mistakes import closest, joined, listed, refuse
from metalayer.settings.network import ModelConfig
from metalayer.settings.no_effect import PIPELINE
from metalayer.settings.search import SearchConfig, space_mistakes
from metalayer.settings.section import Section, mistakes_in, optional_fields, without_effect_in
from metalayer.settings.sections import (
    BaseConfig,
    DataConfig,
    EvaluateConfig,
    GateConfig,
    ScoreConfig,
    SplitConfig,
    TrainConfig,
    VariantsConfig,
)


class RunConfig(Section):
    """One pipeline run."""

    data: DataConfig = Field(default_factory=DataConfig)
    """Which files to read."""
    split: SplitConfig = Field(default_factory=SplitConfig)
    """Which genes train, validate and test."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    """The network."""
    train: TrainConfig = Field(default_factory=TrainConfig)
    """The training run."""
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    """The comparison with the base."""
    gate: GateConfig = Field(default_factory=GateConfig)
    """The bar for promotion."""
    search: SearchConfig = Field(default_factory=SearchConfig)
    """The hyperparameter search."""
    score: ScoreConfig = Field(default_factory=ScoreConfig)
    """Scores of all genes."""
    base: BaseConfig | None = None
    """The base-layer pass; needed by that pipeline alone."""
    variants: VariantsConfig | None = None
    """Scores of variants; likewise."""

    def of_training(self) -> dict[str, dict[str, Any]]:
        """The sections that a training run has, JSON-ready: those of other pipelines are left out."""
        return self.model_dump(mode="json", exclude={"base", "score", "variants"})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from nested dictionaries, or from flat names, see `door.py`.

        Raises:
            ConfigError: all unknown keys and impossible values, of all sections, in one message.
        """
        sections: dict[str, type[Section]] = {
            name: kind
            for name, field in cls.model_fields.items()
            for kind in (field.annotation, *get_args(field.annotation))  # of `Section | None` too
            if isinstance(kind, type) and issubclass(kind, Section)
        }
        values, mistakes = sectioned(values)
        built: dict[str, Any] = {}
        for name, given in values.items():
            if name in LIBRARY_ALONE:
                mistakes.append(f"{name}: given {given!r}; {LIBRARY_ALONE[name]}; leave it out")
            elif name not in sections:
                close = closest(name, [*sections, *SECTION_OF])
                hint = f"did you mean {close!r}?" if close else f"known sections: {', '.join(sections)}"
                mistakes.append(f"{name}: unknown section; {hint}")
            elif given is None and cls.model_fields[name].default is None:
                continue
            elif given is not None and not isinstance(given, Mapping):
                mistakes.append(f"{name}: given {given!r}; a section holds keys and values")
            elif given and not all(isinstance(key, str) for key in given):
                odd = ", ".join(repr(key) for key in given if not isinstance(key, str))
                mistakes.append(f"{name}.{odd}: unknown key; keys are words")
            else:
                try:
                    built[name] = sections[name].model_validate(dict(given or {}))
                except ValidationError as error:
                    mistakes.extend(mistakes_in(error, sections[name]))
                except ConfigError as error:
                    mistakes.extend(listed(error))
        named = {name: dict(given) for name, given in values.items() if name in sections and isinstance(given, Mapping)}
        settings = {**named, **{name: dict(section) for name, section in built.items()}}
        given = {name: {key: settings[name].get(key, value) for key, value in named[name].items()} for name in named}
        known = {line.split(": ", 1)[0] for line in mistakes}
        across = _across_sections(sections, settings, given)
        mistakes += [line for line in across if line.split(": ", 1)[0] not in known]
        if not {"model", "train", "search"} & (set(named) - set(built)):
            mistakes += _mistakes_of_search(built)
        if mistakes:
            raise ConfigError(joined(mistakes))
        return cls(**built)

    @model_validator(mode="after")
    def _act_together(self) -> Self:
        sections = {name: value for name, value in self.__dict__.items() if isinstance(value, Section)}
        given = {
            name: {key: section.__dict__[key] for key in section.model_fields_set} for name, section in sections.items()
        }
        kinds = {name: type(section) for name, section in sections.items()}
        mistakes = _across_sections(kinds, {name: section.__dict__ for name, section in sections.items()}, given)
        refuse(mistakes + _mistakes_of_search(sections))
        return self

    @classmethod
    def load(cls, path: Path | None, overrides: Sequence[str] = (), data_root: Path | None = None) -> Self:
        """Read a YAML file, then apply overrides, `section.key=value` or with a flat name, and `data_root`.

        Raises:
            ConfigError: a file that cannot be read, or mistakes in it or in the overrides.
        """
        return cls.merged(yaml12.read_mapping(path) if path else {}, overrides, data_root)

    @classmethod
    def merged(cls, written: Mapping[Any, Any], overrides: Sequence[str] = (), data_root: Path | None = None) -> Self:
        """As `load`, of settings that are read already; these stay as they are."""
        values, mistakes = sectioned(copy.deepcopy(dict(written)))
        if mistakes:
            raise ConfigError(joined(mistakes))
        for text in overrides:
            name, key, value = override(text)
            name = name or SECTION_OF.get(key, "")
            if not name:
                close = closest(key, SECTION_OF)
                raise ConfigError(
                    f"--set {text}: expected {FORM}" + (f"; did you mean {SECTION_OF[close]}.{close}?" if close else "")
                )
            section = values.setdefault(name, {})
            if not isinstance(section, dict):
                raise ConfigError(f"--set {text}: {name} is not a section")
            section[key] = value
        if data_root is not None:
            if not isinstance(values.setdefault("data", {}), dict):
                raise ConfigError(f"data: given {values['data']!r}; a section holds keys and values")
            values["data"]["data_root"] = data_root
        return cls.from_dict(values)


def _across_sections(
    kinds: Mapping[str, type[Section]],
    settings: Mapping[str, Mapping[str, Any]],
    given: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """Given settings that cannot act in a pipeline beside those of other sections.

    Args:
        kinds: by name of the section.
        settings: of each, by name; those that are left out have their defaults.
        given: those that were named.
    """
    known: dict[str, Any] = {PIPELINE: True}
    for name, kind in kinds.items():
        known |= {f"{name}.{key}": field.get_default(call_default_factory=True) for key, field in optional_fields(kind)}
        known |= {f"{name}.{key}": value for key, value in settings.get(name, {}).items()}
    found = []
    for name, named in given.items():
        fields = kinds[name].model_fields
        found += without_effect_in(kinds[name], {}, {key: named[key] for key in named if key in fields}, known)
    return found


def _mistakes_of_search(sections: Mapping[str, Section]) -> list[str]:
    search = sections.get("search")
    space = search.choices() if isinstance(search, SearchConfig) else None
    if space is None:
        return []
    settings = {**dict(sections.get("model") or ModelConfig()), **dict(sections.get("train") or TrainConfig())}
    return [f"search.space.{line}" for line in space_mistakes(space, settings)]
