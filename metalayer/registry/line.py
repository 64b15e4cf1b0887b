"""The line of champions of a registered name, and the one door through which it changes.

The alias `champion` is the truth, which servers follow. Which versions were champion before, in order, stands in the
tag `champions` of the name. A change is made under a lease (`lease.py`), and only where the line is still the one that
was looked at: of two processes one wins, and the other is refused. The tag `champion_move` is written before and taken
away after, with the line as it was and as it is to be: whichever of them the alias supports is the line, so a process
that is killed in between leaves nothing to repair by hand. A version that was retired has a tag `retired`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from metalayer.errors import InputError
from metalayer.registry import tracking, versions
from metalayer.registry.versions import CHAMPION

if TYPE_CHECKING:
    import mlflow

HISTORY_TAG, MOVE_TAG = "champions", "champion_move"
RETIRED_TAG, RETIRED_AT_TAG = "retired", "retired_at"
_HISTORY_LENGTH = 500

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Line:
    """Champions of one registered name.

    Attributes:
        name: registered name.
        champion: the version that carries the alias; None where none does.
        history: versions that were promoted, one after the other, up to the champion. Where the alias is gone and
            nobody retired the champion, up to the last one that is known.
    """

    name: str
    champion: int | None
    history: tuple[int, ...]

    @property
    def lost(self) -> bool:
        """Whether there was a champion, and something else than we took its alias away."""
        return self.champion is None and bool(self.history)


def read(name: str, tracking_uri: str | None = None) -> Line:
    """The line as it stands; one that was edited by hand ends with the version that carries the alias.

    A tag that holds no list of versions counts as none, and a warning says so.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    with tracking.service(tracking_uri or tracking.default_tracking_uri()) as client:
        return _read(client, name)


def move(
    before: Line,
    history: Sequence[int],
    tracking_uri: str | None = None,
    *,
    retired: tuple[int, str] | None = None,
) -> None:
    """Let a history be the line, and its last version the champion; an empty one leaves no champion.

    Args:
        before: the line as it was looked at.
        history: as it is to be.
        tracking_uri: of the service; None takes its default.
        retired: a version that leaves the line for good, and why.

    Raises:
        InputError: another process has changed the line since; this one changes nothing.
        RegistryError: the service cannot be reached or refuses.
    """
    name, after = before.name, list(history)[-_HISTORY_LENGTH:]
    from metalayer.registry import lease

    with tracking.service(tracking_uri or tracking.default_tracking_uri()) as client, lease.held(client, name) as mine:
        now = _read(client, name)
        if now != before:
            raise InputError(
                f"{name}: the champion was {_named(before.champion)} when this began, and by now another process has "
                f"moved it: it is {_named(now.champion)}. Nothing was changed here; see `metalayer registry list`, and "
                "run the same command again if that is still wanted"
            )
        champion = after[-1] if after else None
        client.set_registered_model_tag(
            name, MOVE_TAG, json.dumps({"from": before.history[-_HISTORY_LENGTH:], "to": after})
        )
        if retired:
            version, reason = retired
            client.set_model_version_tag(name, str(version), RETIRED_TAG, reason)
            client.set_model_version_tag(name, str(version), RETIRED_AT_TAG, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
        mine.require(client)
        if champion is not None:
            client.set_registered_model_alias(name, CHAMPION, str(champion))
        elif before.champion is not None:
            client.delete_registered_model_alias(name, CHAMPION)
        client.set_registered_model_tag(name, HISTORY_TAG, json.dumps(after))
        client.delete_registered_model_tag(name, MOVE_TAG)
    logger.info("%s: %s is %s", name, _named(champion), CHAMPION)


def _named(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"


def _read(client: mlflow.MlflowClient, name: str) -> Line:
    tags = versions.name_tags(client, name)
    standing = versions.by_alias(client, name, CHAMPION)
    champion = standing.version if standing else None
    kept = _versions(name, HISTORY_TAG, _parsed(tags.get(HISTORY_TAG, "[]")))
    begun = _parsed(tags.get(MOVE_TAG, "null"))
    if isinstance(begun, Mapping):  # a move that was cut off
        for end in ("to", "from"):
            found = _versions(name, MOVE_TAG, begun.get(end))
            if (found[-1] if found else None) == champion:
                return Line(name, champion, found)
    if champion is None:
        return Line(name, None, kept)
    if champion not in kept:
        return Line(name, champion, (*kept, champion))
    return Line(name, champion, kept[: len(kept) - kept[::-1].index(champion)])


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _versions(name: str, tag: str, found: Any) -> tuple[int, ...]:
    """A list of version numbers; anything else is none, with a warning."""
    if isinstance(found, list) and all(type(one) is int and one > 0 for one in found):
        return tuple(found)
    logger.warning("%s: its tag %s is no list of versions (%.60r), and counts as none", name, tag, found)
    return ()
