"""docs/settings.md: every setting of a run, of encoders and of a server, from the types that check them.

`python -m metalayer.settings_page` prints the page, which a test holds against docs/settings.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from metalayer.serving.settings import PREFIX, ServingSettings
from metalayer.settings.encoders import KINDS, Options
from metalayer.settings.mistakes import Needs
from metalayer.settings.run import RunConfig
from metalayer.settings.section import Section

_HEAD = """\
# Settings

Made from the types that check them; to make this page again:

```bash
.venv/bin/python -m metalayer.settings_page
```

A run reads `--config FILE`, else `run.yaml` of `--data-root`, else what `metalayer init` would write there; then each
`--set SECTION.NAME=VALUE`. `--print-config` shows all settings of a run, each with where it comes from.
"""
_SERVING = f"""\
## Server

Environment variables of `metalayer serve` and of the containers, `{PREFIX}<NAME>`. An empty one counts as not set,
which is `null` here.
"""
_OPTIONS = """\
## Options of encoders

They stand in `model.sequence_encoder_config` and `model.track_encoder_config`, and are those of the encoder that
`model.sequence_encoder` or `model.track_encoder` names.
"""


_BOUNDS = ((Ge, "ge", "from"), (Gt, "gt", "above"), (Le, "le", "to"), (Lt, "lt", "below"))


def page() -> str:
    """docs/settings.md."""
    return "\n".join([_HEAD, *_sections(), _OPTIONS, *_encoders(), _SERVING, *_server()])


def takes(field: FieldInfo) -> str:
    """What a setting takes, in words: its kind, with range or choices."""
    kinds, limits = _kinds(field.annotation), list(field.metadata)
    for inner in get_args(field.annotation):
        if get_origin(inner) is Annotated:
            limits += get_args(inner)[1:]
    if said := next((limit.text for limit in limits if isinstance(limit, Needs)), None):
        return said.removeprefix("needs ").removeprefix("allowed are ")
    words = [_kind(kind) for kind in kinds if kind is not NoneType]
    return " or ".join(dict.fromkeys(words)) + _range(limits)


def default(field: FieldInfo) -> str:
    """The value where none is given, as YAML has it."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "needed"
    if isinstance(value, Mapping):
        return "none" if not value else f"`{dict(value)}`"
    if value is None or value in ((), ""):
        return "`null`" if value is None else "none"
    if isinstance(value, Path):
        return f"`{value}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value}`"


def _sections() -> Iterator[str]:
    for name, field in RunConfig.model_fields.items():
        kind = next(one for one in _kinds(field.annotation) if one is not NoneType)
        assert issubclass(kind, Section), name
        yield f"## `{name}`\n\n{_sentence(kind.__doc__)}\n"
        yield from _table(kind.model_fields, "setting")


def _encoders() -> Iterator[str]:
    for setting, encoders in KINDS.items():
        for encoder, options in encoders.items():
            if options.names():
                yield f"### `{setting}: {encoder}`\n"
                yield from _table({name: options.model_fields[name] for name in options.names()}, "option")


def _server() -> Iterator[str]:
    yield from _table(ServingSettings.model_fields, "variable", PREFIX)


def _table(fields: Mapping[str, FieldInfo], head: str, prefix: str = "") -> Iterator[str]:
    rows = [f"| {head} | takes | default | what |", "|---|---|---|---|"]
    for name, field in fields.items():
        shown = f"{prefix}{name.upper()}" if prefix else name
        row = f"| `{shown}` | {takes(field)} | {default(field)} | {' '.join((field.description or '').split())} |"
        rows.append(re.sub(r"(?<!`)\bNone\b", "null", row))
    yield "\n".join(rows) + "\n"


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split("\n\n")[0].split())


def _kinds(annotation: Any) -> list[Any]:
    """The types of a union, or the one type, without what is annotated to them."""
    if get_origin(annotation) is Annotated:
        return _kinds(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [kind for inner in get_args(annotation) for kind in _kinds(inner)]
    return [annotation]


def _kind(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (tuple, list):
        return f"list of {_kind(_kinds(inner[0])[0])}s" if inner and inner[0] is not Any else "list"
    if origin is dict or (isinstance(kind, type) and issubclass(kind, (Options, Mapping))):
        return "options by name"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "section"
    names = {bool: "`true`, `false`", int: "whole number", float: "number", Path: "path", str: "text"}
    return names.get(kind, "text")


def _range(limits: list[Any]) -> str:
    """As in ` from 1 to 100`, ` above 0`."""
    parts = [
        f"{word} {_number(getattr(one, name))}"
        for one in limits
        for kind, name, word in _BOUNDS
        if isinstance(one, kind)
    ]
    parts += [f"with {one.min_length} at least" for one in limits if isinstance(one, MinLen)]
    parts += [f"with {one.max_length} letters at most" for one in limits if isinstance(one, MaxLen)]
    return "".join(f" {part}" for part in parts)


def _number(value: Any) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


if __name__ == "__main__":
    sys.stdout.write(page())
