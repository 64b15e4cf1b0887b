"""A group of settings that is checked on construction and assignment, with all mistakes in one message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from metalayer import environment, yaml12
from metalayer.errors import ConfigError
from metalayer.settings.mistakes import Needs, closest, joined, lower_first
from metalayer.settings.no_effect import Need, is_given, without_effect

NO_EFFECT = "; no effect "
"""Stands in every text of a setting that cannot act."""


class Section(BaseModel):
    """A group of settings; mistakes raise one `ConfigError` that lists them all."""

    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, use_attribute_docstrings=True, allow_inf_nan=False
    )
    section: ClassVar[str] = ""
    refuses_idle: ClassVar[bool] = True
    """Whether settings that were given and cannot act are mistakes."""

    @field_validator("*", mode="before")
    @classmethod
    def _means_what_it_says(cls, value: Any, known: ValidationInfo) -> Any:
        """A truth value is no number, though Pydantic takes it for one; `~` is the home folder where a path begins."""
        kind = cls.model_fields[str(known.field_name)].annotation
        if not _holds(kind, bool) and _has_truth_value(value):
            raise PydanticCustomError(
                "no_truth_value", "a truth value, where {wanted} belongs", {"wanted": _wanted(kind)}
            )
        if _holds(kind, Path) and isinstance(value, str | Path) and str(value).startswith("~"):
            return environment.home(value, str(known.field_name))
        return value

    def __init__(self, **values: Any) -> None:
        mistakes: list[str] = []
        try:
            super().__init__(**values)
        except ValidationError as error:
            mistakes = mistakes_in(error, type(self))
            given = {name: value for name, value in values.items() if name in type(self).model_fields}
            settings = {
                name: field.get_default(call_default_factory=True) for name, field in optional_fields(type(self))
            } | given
        else:
            given, settings = {name: self.__dict__[name] for name in self.model_fields_set}, self.__dict__
        mistakes += without_effect_in(type(self), settings, given)
        if mistakes:
            raise ConfigError(joined(mistakes))

    def __iter__(self) -> Iterator[tuple[str, Any]]:  # type: ignore[override]
        """Settings by name, options of an encoder as a plain dictionary: ZenML takes each model for pairs."""
        for name, value in super().__iter__():
            yield name, dict(value) if isinstance(value, Mapping) else value

    def __str__(self) -> str:
        """All settings that act beside the others, as YAML."""
        values = self.model_dump(mode="json")
        for name in self.idle():
            values.pop(name, None)
        return yaml12.dump(values)

    def __setattr__(self, name: str, value: Any) -> None:
        before, named = self.__dict__.copy(), self.model_fields_set.copy()
        try:
            super().__setattr__(name, value)
            given = {key: self.__dict__[key] for key in self.model_fields_set}
            mistakes = without_effect_in(type(self), self.__dict__, given)
        except ValidationError as error:
            mistakes = mistakes_in(error, type(self))
        if mistakes:
            self.__dict__.clear()
            self.__dict__.update(before)
            self.__pydantic_fields_set__.clear()
            self.__pydantic_fields_set__.update(named)
            raise ConfigError(joined(mistakes))

    @classmethod
    def acting(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Settings by name without those that cannot act beside the others."""
        by_name = {qualified(cls, name): value for name, value in values.items()}
        idle = without_effect(by_name, by_name)
        return {name: value for name, value in values.items() if qualified(cls, name) not in idle}

    def idle(self) -> set[str]:
        """The settings that cannot act beside the others, given or not."""
        values = {name: self.__dict__[name] for name in type(self).model_fields}
        return set(values) - set(self.acting(values))

    def given(self) -> dict[str, Any]:
        """The settings that were given, see `no_effect.py`, by name."""
        kind, named = type(self), self.model_fields_set
        defaults = {name: field.get_default(call_default_factory=True) for name, field in optional_fields(kind)}
        return {
            name: value
            for name, value in self.__dict__.items()
            if name in named
            and (
                name not in defaults
                or value != defaults[name]
                or is_given(name, value, defaults[name], named, home_of(kind, name).model_fields)
            )
        }


def optional_fields(kind: type[Section]) -> Iterable[tuple[str, FieldInfo]]:
    """Fields that may be left out."""
    return ((name, field) for name, field in kind.model_fields.items() if not field.is_required())


def home_of(kind: type[Section], name: str) -> type[Section]:
    """The section that a field is of: in a flat configuration one of those it is made from."""
    bases = (base for base in kind.__mro__[1:] if issubclass(base, Section) and base.section)
    return next((base for base in bases if name in base.model_fields), kind)


def qualified(kind: type[Section], name: str) -> str:
    """The field's name with that of its section, as in `train.max_epochs`."""
    home = home_of(kind, name)
    return f"{home.section}.{name}" if home.section else name


def without_effect_in(
    kind: type[Section], settings: Mapping[str, Any], given: Mapping[str, Any], known: Mapping[str, Any] | None = None
) -> list[str]:
    """One text for each given setting of a section that cannot act, as `no_effect.py` says.

    Args:
        kind: the section.
        settings: by name, of the section.
        given: those that were named.
        known: settings of other sections, by `section.key`.
    """
    values = dict(known or {}) | {qualified(kind, name): value for name, value in settings.items()}
    named = {}
    for name, value in given.items():
        home, field = home_of(kind, name), kind.model_fields[name]
        default = field.get_default(call_default_factory=True)
        if is_given(name, value, default, given, home.model_fields):
            named[qualified(kind, name)] = name
    prefix = f"{kind.section}." if kind.section else ""
    found = without_effect(values, named) if kind.refuses_idle else {}
    return [f"{prefix}{no_effect_text(named[key], given[named[key]], need)}" for key, need in found.items()]


def no_effect_text(name: str, value: Any, need: Need) -> str:
    """That a setting was given, and why it cannot act."""
    return f"{name}: given {_shown(value)}{NO_EFFECT}{need.text}"


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, Path) else repr(value)


def _holds(kind: Any, part: type) -> bool:
    """Whether an annotation is or holds a type; one that takes anything holds each."""
    return kind in (part, Any) or any(_holds(inner, part) for inner in get_args(kind))


def _has_truth_value(value: Any) -> bool:
    return isinstance(value, bool) or (
        isinstance(value, list | tuple) and any(isinstance(item, bool) for item in value)
    )


def _wanted(kind: Any) -> str:
    """What a setting takes, in words."""
    if _holds(kind, int) or _holds(kind, float):
        return "a number"
    return "a path" if _holds(kind, Path) else "text"


def _list_wanted(key: str, section: type[Section]) -> str:
    """That a list is wanted, with one that the setting takes."""
    field = section.model_fields.get(key)
    return "needs a list, as in " + ("[10, 50]" if field and _holds(field.annotation, int) else "[1, 3]")


def mistakes_in(error: ValidationError, section: type[Section]) -> list[str]:
    """Pydantic's findings in the values of a section, in our words."""
    prefix = f"{section.section}." if section.section else ""
    lines = []
    for item in error.errors():
        if item["type"] == "value_error":  # of ours: each line names its setting
            lines += [f"{prefix}{line}" for line in item["msg"].removeprefix("Value error, ").split("\n")]
            continue
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] in ("extra_forbidden", "no_such_attribute"):
            close = closest(key.rpartition(".")[2], section.model_fields)
            hint = f"did you mean {close!r}?" if close else f"known keys: {', '.join(section.model_fields)}"
            lines.append(f"{prefix}{key}: unknown key; {hint}")
        elif item["type"] == "missing":
            field = section.model_fields.get(key)
            lines.append(f"{prefix}{key}: missing; {lower_first((field and field.description) or item['msg'])}")
        else:
            field = section.model_fields.get(str(item["loc"][0]))
            given = repr(item["input"]) if field is None or field.repr else "what is not shown here, as it may be a key"
            is_list = item["type"] in ("tuple_type", "list_type")
            wanted = _list_wanted(key, section) if is_list else lower_first(item["msg"])
            if item["type"] == "string_pattern_mismatch" and field is not None:
                wanted = next((part.text for part in field.metadata if isinstance(part, Needs)), wanted)
            lines.append(f"{prefix}{key}: given {given}; {wanted}")
    return lines
