"""Every YAML file that metalayer reads or writes, by the rules of YAML 1.2 (its core schema).

`yes`, `no` and `on` are text, `1e-5` is a number, `1:30`, `1_000` and dates are text. What two readers would take
differently is refused, with its line: a key given twice, `010`, infinities, tags, merged keys, several documents. What
is written here reads back the same, also by readers of YAML 1.1.

PyYAML parses; what a value means is stated here. ruamel.yaml, which calls itself YAML 1.2, has dates, `1_000` and
merged keys.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from metalayer.errors import ConfigError
from metalayer.file_kinds import YAML, head_of, kind_of

_CORE = {
    "null": (r"~|null|Null|NULL|", "~nN"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    "endless": (r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
}
"""Kind of value: how it is written (YAML 1.2.2, 10.3.2), and the characters that it begins with."""
_TAG = "tag:yaml.org,2002:"
_OCTAL = re.compile(r"[-+]?0[0-9]+")
_MOST_DIGITS = 300
_MOST_VALUES = 100_000


def parse(text: str) -> Any:
    """What a YAML document holds: dictionaries, lists, text, numbers, true, false and None.

    Raises:
        ValueError: no YAML, or what is refused; the message names the line.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {})
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(where + (error.problem or error.context or "no YAML")) from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read(path: Path) -> Any:
    """`parse` of a file in UTF-8.

    Raises:
        OSError: no such file.
        ValueError: not in UTF-8, or as in `parse`.
    """
    data = Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"line {line}: byte 0x{data[error.start]:02x} is no UTF-8; save the file in UTF-8") from None
    return parse(text)


def read_mapping(path: Path) -> dict[str, Any]:
    """The sections or keys of a file; none of an empty one.

    Raises:
        ConfigError: no file, no YAML as in `parse`, or not a mapping.
    """
    try:
        values = read(path)
    except OSError as error:
        raise ConfigError(f"configuration file {path}: {error.strerror or error}") from None
    except ValueError as error:
        kind = kind_of(head_of(path, "configuration file", ConfigError))
        what = f". This is {kind}; needed is YAML" if kind not in (None, YAML) else ""
        raise ConfigError(f"configuration file {path}: {error}{what}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"configuration file {path}: expected sections with keys, given {type(values).__name__}")
    return values


def setting(override: str, form: str) -> tuple[str, Any]:
    """Key and value of `--set KEY=VALUE`, of which the value is YAML.

    Args:
        override: as given.
        form: how it should look, for the message.

    Raises:
        ConfigError: no key, or a value that is no YAML.
    """
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override}: expected {form}")
    try:
        return key.strip(), parse(text)
    except ValueError as error:
        raise ConfigError(f"--set {override}: {error}") from None


def dump(values: Any) -> str:
    """YAML of dictionaries, lists, text, numbers, true, false and None, in their order."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


class _Loader(yaml.SafeLoader):
    """Values as in the core schema; dictionaries with each key once."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise yaml.composer.ComposerError(None, None, f"a tag, {tag}; leave it out", event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = {}
        lines: dict[Hashable, int] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            mark = key_node.start_mark
            if not isinstance(key, str | int | float | None):
                raise yaml.constructor.ConstructorError(None, None, "a key is a word, not a list or section", mark)
            if key == "<<":
                problem = "merged keys, <<, are not of YAML 1.2; write the keys themselves"
                raise yaml.constructor.ConstructorError(None, None, problem, mark)
            if key in found:
                problem = f"{key}: given before, in line {lines[key]}; keep one of them"
                raise yaml.constructor.ConstructorError(None, None, problem, mark)
            found[key] = self.construct_object(value_node, deep=True)
            lines[key] = mark.line + 1
        return found

    def _null(self, _node: yaml.Node) -> None:
        return None

    def _bool(self, node: yaml.ScalarNode) -> bool:
        return str(node.value).lower() == "true"

    def _int(self, node: yaml.ScalarNode) -> int:
        text = str(node.value)
        if _OCTAL.fullmatch(text):
            problem = f"{text}: a number with zeros in front, which readers of YAML take for different numbers; "
            problem += f"write {int(text)}, or '{text}' if it is a name"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        if len(text) > _MOST_DIGITS:
            raise yaml.constructor.ConstructorError(None, None, f"{len(text)} digits", node.start_mark)
        return int(text, 0)

    def _float(self, node: yaml.ScalarNode) -> float:
        value = float(node.value)
        return value if abs(value) != float("inf") else self._endless(node)

    def _endless(self, node: yaml.ScalarNode) -> float:
        problem = f"{str(node.value)[:20]}: no finite number; write '{str(node.value)[:20]}' if it is a name"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)

    def _section(self, node: yaml.MappingNode) -> dict[Hashable, Any]:
        return self.construct_mapping(node)

    def _list(self, node: yaml.SequenceNode) -> list[Any]:
        return [self.construct_object(item, deep=True) for item in node.value]


def _size(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """How many values a node holds where each alias is written out.

    Raises:
        yaml.MarkedYAMLError: too many, as aliases of aliases make, or a value that holds itself.
    """
    if node not in known:
        known[node] = _MOST_VALUES + 1  # what holds itself is met here again
        inner = [it for pair in node.value for it in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[node] = 1 if isinstance(node, yaml.ScalarNode) else 1 + sum(_size(it, known) for it in inner)
    if known[node] > _MOST_VALUES:
        problem = f"more than {_MOST_VALUES:,} values, with aliases written out"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return known[node]


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else, and writes no aliases."""

    def ignore_aliases(self, _data: Any) -> bool:
        return True


_Loader.yaml_implicit_resolvers, _Loader.yaml_constructors = {}, {}  # none of YAML 1.1
for _kind, (_pattern, _beginnings) in _CORE.items():
    _whole = re.compile(rf"^(?:{_pattern})$")
    _first = [*_beginnings, ""] if _kind == "null" else list(_beginnings)
    _Loader.add_implicit_resolver(_TAG + _kind, _whole, _first)
    _Dumper.add_implicit_resolver(_TAG + _kind, _whole, _first)
_METHODS: dict[str, Any] = {
    "null": _Loader._null,
    "bool": _Loader._bool,
    "int": _Loader._int,
    "float": _Loader._float,
    "endless": _Loader._endless,
    "map": _Loader._section,
    "seq": _Loader._list,
    "str": _Loader.construct_scalar,
}
for _kind, _method in _METHODS.items():
    _Loader.add_constructor(_TAG + _kind, _method)
