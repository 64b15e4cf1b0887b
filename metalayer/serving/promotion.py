"""Moving `champion`: to a version that passed the gate, or back along the history of champions.

The version is proved and packaged first, so that no champion is without its Bento; servers that follow the
registry take it up by themselves. The pipeline and `metalayer registry` both come through here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from metalayer.errors import InputError
from metalayer.serving import registry
from metalayer.serving.packaging import package_version
from metalayer.serving.registry import CHAMPION, DECISION_TAG, PROMOTED


@dataclass(frozen=True)
class Move:
    """What became of the alias.

    Attributes:
        name: registered name.
        version: the champion now.
        instead_of: the champion until now, None where there was none, or it was this one already.
        before: where the next `rollback` goes, None where there is nothing to go back to.
        bento: tag of the Bento of the champion.
    """

    name: str
    version: int
    instead_of: int | None
    before: int | None
    bento: str


def promote(
    name: str,
    version: int,
    tracking_uri: str | None = None,
    *,
    bento: str | None = None,
    instead_of: Collection[int | None] | None = None,
) -> Move:
    """Move `champion` to a version that passed the gate, once it answers its golden rows here and is packaged.

    A version that is the champion already stays it, so that an attempt that was cut off can be made again.

    Args:
        name: registered name.
        version: of it.
        tracking_uri: of the service; None takes `default_tracking_uri`.
        bento: tag of its Bento where `package_version` has just built that; None packages it now.
        instead_of: versions whose place it may take, None among them where there may be no champion: those that it
            was compared with. None: of any.

    Raises:
        InputError: no such version, one that the gate rejected, or another champion by now than `instead_of` has.
        ModelError: damaged files, or golden rows that come out otherwise; the alias stays.
        RegistryError: the service cannot be reached or refuses, or packaging failed; the alias stays.
    """
    decision = registry.known_version(name, version, tracking_uri).tags.get(DECISION_TAG)
    if decision != PROMOTED:
        raise InputError(
            f"{name} version {version}: the gate's decision was {decision!r}; only a version that it {PROMOTED} may "
            f"become {CHAMPION}: train and evaluate again"
        )
    history = registry.champion_history(name, tracking_uri)
    stands = history[-1:] == [version]
    now = history[-1] if history else None
    if not stands and instead_of is not None and now not in instead_of:
        then = " or ".join(f"version {one}" if one else "no champion" for one in instead_of)
        raise InputError(
            f"{name} version {version} was compared with {then}, and {CHAMPION} is now {now or 'none'}: run the same "
            "command again, which compares it with that"
        )
    return _move(name, history, history if stands else [*history, version], tracking_uri, bento)


def rollback(name: str, tracking_uri: str | None = None) -> Move:
    """Undo the last promotion: `champion` goes to the version that stood before it.

    Each call goes one promotion further back, and the last one says that there is none left.

    Args:
        name: registered name.
        tracking_uri: of the service; None takes `default_tracking_uri`.

    Raises:
        InputError: no champion, or none before it.
        ModelError: damaged files, or golden rows that come out otherwise; the alias stays.
        RegistryError: the service cannot be reached or refuses, or packaging failed; the alias stays.
    """
    history = registry.champion_history(name, tracking_uri)
    if not history:
        raise InputError(f"{name} has no {CHAMPION}: nothing to go back from; see `metalayer registry list`")
    if len(history) == 1:
        raise InputError(
            f"{name} version {history[0]} is the first {CHAMPION}: there is none to go back to. `metalayer registry "
            "promote VERSION` takes any version that passed the gate"
        )
    return _move(name, history, history[:-1], tracking_uri, None)


def _move(name: str, before: Sequence[int], after: Sequence[int], tracking_uri: str | None, bento: str | None) -> Move:
    """Prove and package the version where a history ends, then let that be the history."""
    version = after[-1]
    bento = bento or package_version(registry.known_version(name, version, tracking_uri), tracking_uri)
    registry.set_champion(name, after, tracking_uri)
    return Move(
        name,
        version,
        instead_of=before[-1] if before and before[-1] != version else None,
        before=after[-2] if len(after) > 1 else None,
        bento=bento,
    )
