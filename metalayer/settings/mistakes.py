"""How mistakes in settings are worded: each names the setting, what was given and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from metalayer.errors import ConfigError


def refuse(mistakes: Sequence[str]) -> None:
    """Raise, in a validator, what is wrong.

    Raises:
        ValueError: the mistakes, one a line, where there are any.
    """
    if mistakes:
        raise ValueError("\n".join(mistakes))


def joined(mistakes: Sequence[str]) -> str:
    """Mistakes in one message."""
    if len(mistakes) == 1:
        return f"configuration: {mistakes[0]}"
    return f"configuration: {len(mistakes)} mistakes\n" + "\n".join(f"  {line}" for line in mistakes)


@dataclass(frozen=True)
class Needs:
    """What an option takes, in words, where type and bounds do not say it."""

    text: str


def listed(error: ConfigError) -> list[str]:
    """The single mistakes of a message made by `joined`."""
    first, *rest = str(error).removeprefix("configuration: ").split("\n")
    return [line.strip() for line in rest] if rest else [first]


def closest(given: object, known: Iterable[str]) -> str | None:
    """The known name that was probably meant; None where there is none like it."""
    return next(iter(difflib.get_close_matches(str(given), list(known), n=1)), None)


def choices(given: object, known: Iterable[str]) -> str:
    """What is allowed where a name is given, the likely one first."""
    names = list(known)
    close = closest(given, names)
    return f"{f'did you mean {close!r}? ' if close else ''}allowed are {', '.join(names)}"


def lower_first(text: str) -> str:
    """Text as it goes on behind a semicolon."""
    return text[:1].lower() + text[1:]
