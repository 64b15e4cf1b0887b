"""`data.evidence`: numbers per base that people bring beside base scores, by name, and where each is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from metalayer import environment
from metalayer.errors import ConfigError
from metalayer.settings.mistakes import Needs, refuse

COLUMN, ABSENT = "column", "none"
"""In place of a path: the column `evidence.NAME` of the per-nucleotide files; or nothing, so that the evidence is
missing everywhere."""
OPTION_FORM = "NAME=PATH, NAME=PLUS,MINUS for a file a strand, NAME=column or NAME=none"
STRANDS = {"plus": "+", "minus": "-"}
"""Keys of a source with a file for each strand."""
Source = str | dict[str, str]
"""A path, `COLUMN`, `ABSENT`, or a path for each of `STRANDS`."""
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,46}[A-Za-z0-9])?")
_FORM = "names with a path each, as in {phylop: phylop.bw, junctions: {plus: plus.bw, minus: minus.bw}}"
MOST = 32
"""Pieces of evidence that a model reads, at most."""


def read_sources(given: Any) -> Any:
    """Sources by name, from YAML.

    Raises:
        ValueError: all that are none, one a line.
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        refuse([f"evidence: given {given!r}; needs {_FORM}"])
    mistakes: list[str] = []
    found: dict[str, Source] = {}
    for name, source in given.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            mistakes.append(f"evidence: given the name {name!r}; allowed are letters, digits, `_` and `-`, at most 48")
        elif source is None:
            found[name] = ABSENT
        elif isinstance(source, str | Path) and str(source):
            found[name] = str(environment.home(source, "evidence")) if str(source).startswith("~") else str(source)
        elif isinstance(source, Mapping) and set(source) == set(STRANDS) and all(map(_is_file, source.values())):
            found[name] = {strand: str(source[strand]) for strand in STRANDS}
        else:
            mistakes.append(
                f"evidence.{name}: given {source!r}; needs a path, {{plus: PATH, minus: PATH}}, `{COLUMN}` (of the "
                f"per-nucleotide scores) or `{ABSENT}`"
            )
    if len(found) > MOST:
        mistakes.append(f"evidence: given {len(found)} names; {MOST} at most")
    refuse(mistakes)
    return found


def named_sources(texts: Iterable[str], option: str = "--evidence") -> dict[str, Source]:
    """Sources of a command line, `NAME=PATH`, `NAME=PLUS,MINUS` (a file a strand), `NAME=column` or `NAME=none`.

    Raises:
        ConfigError: another form, or a name twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, named, path = text.partition("=")
        if not named or not path or name in found:
            why = "is named twice" if name in found else f"needed is {OPTION_FORM}"
            raise ConfigError(f"{option} {text}: {why}")
        paths = path.split(",")
        is_one = len(paths) != len(STRANDS) or Path(path).exists()
        found[name] = path if is_one else dict(zip(STRANDS, paths, strict=True))
    try:
        sources: dict[str, Source] = read_sources(found)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None
    return sources


def written_sources(sources: Mapping[str, Source]) -> list[str]:
    """Sources as `named_sources` reads them."""
    return [
        f"{name}={','.join(source.values()) if isinstance(source, dict) else source}"
        for name, source in sources.items()
    ]


def moved_sources(sources: Mapping[str, Source], paths: Iterable[Path]) -> dict[str, Source]:
    """The same sources with other paths, in the order of `files_of`."""
    new = iter(paths)
    return {
        name: source
        if source in (COLUMN, ABSENT)
        else {strand: str(next(new)) for strand in source}
        if isinstance(source, dict)
        else str(next(new))
        for name, source in sources.items()
    }


def absolute_sources(sources: Mapping[str, Source]) -> dict[str, Source]:
    """The same sources with whole paths."""
    return moved_sources(sources, [path.resolve() for path in files_of(sources)])


def _is_file(source: Any) -> bool:
    return isinstance(source, str | Path) and str(source) not in ("", COLUMN, ABSENT)


def files_of(sources: Mapping[str, Source]) -> Iterator[Path]:
    """All files that sources name."""
    for source in sources.values():
        if isinstance(source, dict):
            yield from map(Path, source.values())
        elif source not in (COLUMN, ABSENT):
            yield Path(source)


EvidenceSources = Annotated[dict[str, Source], BeforeValidator(read_sources), Needs(f"needs {_FORM}")]
