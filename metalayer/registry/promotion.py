"""Moving `champion`: to a version that passed the gate, back along the line, or out of it.

The version that takes the place is proved and packaged first, so that no champion is without its Bento; servers that
follow the registry take it up by themselves. The pipeline and `metalayer registry` all come through here, and from
here through `line.move`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from metalayer.errors import InputError, ModelError, SchemaError
from metalayer.registry import line, versions
from metalayer.registry.bento import package_version
from metalayer.registry.line import RETIRED_TAG, Line
from metalayer.registry.versions import CHAMPION, DECISION_TAG, PROMOTED, ModelVersion

_REASON_LENGTH = 1000


@dataclass(frozen=True)
class Move:
    """What became of the alias.

    Attributes:
        name: registered name.
        version: the champion now; None where a retirement left none.
        instead_of: the champion until now, None where there was none, or it was this one already.
        before: where the next `rollback` goes, None where there is nothing to go back to.
        bento: tag of the Bento of the champion; None where there is no champion, or it did not change.
        skipped: versions of the line that could not take the place, each with why.
    """

    name: str
    version: int | None
    instead_of: int | None
    before: int | None
    bento: str | None
    skipped: tuple[str, ...] = ()


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
        InputError: no such version, one that the gate rejected or that was retired, or another champion by now than
            `instead_of` has, or than there was when this began.
        ModelError: damaged files, or golden rows that come out otherwise; the alias stays.
        RegistryError: the service cannot be reached or refuses, or packaging failed; the alias stays.
    """
    wanted = versions.known_version(name, version, tracking_uri)
    if refused := _not_promoted(wanted) or _retired(wanted):
        raise InputError(f"{name} version {version}: {refused}; train and evaluate again")
    now = line.read(name, tracking_uri)
    stands = now.champion == version
    if not stands and instead_of is not None and now.champion not in instead_of:
        then = " or ".join(f"version {one}" if one else "no champion" for one in instead_of)
        raise InputError(
            f"{name} version {version} was compared with {then}, and {CHAMPION} is now {now.champion or 'none'}: run "
            "the same command again, which compares it with that"
        )
    bento = bento or package_version(wanted, tracking_uri)
    history = now.history if now.history[-1:] == (version,) else (*now.history, version)
    return _moved(now, history, bento, tracking_uri)


def rollback(name: str, tracking_uri: str | None = None) -> Move:
    """Undo the last promotion: `champion` goes to the version that stood before it.

    Versions that were deleted or retired since are passed over. Each call goes further back, and the last one says
    that there is none left. Where something else took the alias away, it goes to the last champion that is known.

    Args:
        name: registered name.
        tracking_uri: of the service; None takes `default_tracking_uri`.

    Raises:
        InputError: no champion, none before it, or one before it that the gate rejected.
        ModelError: damaged files, or golden rows that come out otherwise; the alias stays.
        RegistryError: the service cannot be reached or refuses, or packaging failed; the alias stays.
    """
    now = line.read(name, tracking_uri)
    there = _there(name, tracking_uri)
    if not now.history:
        raise InputError(
            f"{name} has no {CHAMPION}: nothing to go back from; see `metalayer registry list`. {_choices(there)}"
        )
    earlier = now.history if now.lost else now.history[:-1]
    skipped = []
    for end in range(len(earlier), 0, -1):
        version = earlier[end - 1]
        found = there.get(version)
        if version == now.champion:
            continue
        if gone := "was deleted" if found is None else _retired(found):
            skipped.append(f"version {version} {gone}")
            continue
        assert found is not None  # else it was deleted
        if refused := _not_promoted(found):
            raise InputError(
                f"{name}: rollback would go to version {version}, but {refused}, so it may not become {CHAMPION}. "
                f"{_choices(there)}"
            )
        bento = package_version(found, tracking_uri)
        return _moved(now, earlier[:end], bento, tracking_uri, skipped, there)
    only = f"version {now.history[-1]} is the first {CHAMPION} that is known"
    passed_over = f" ({'; '.join(skipped)})" if skipped else ""
    raise InputError(f"{name} {only}: there is none to go back to{passed_over}. {_choices(there)}")


def retire(name: str, version: int | None, reason: str, tracking_uri: str | None = None) -> Move:
    """Take a version out of the line for good, with the reason; it stays registered.

    Where it was the champion, the alias goes to the last one before it that answers its golden rows here, like a
    rollback, and where none does there is no champion: the next model that passes the gate takes the place without
    being compared. Servers that follow go on with the model that they have until there is another.

    Args:
        name: registered name.
        version: of it; None takes the champion.
        reason: one line, kept on the version.
        tracking_uri: of the service; None takes `default_tracking_uri`.

    Raises:
        InputError: no reason, no such version, no champion, or another process changed the line meanwhile.
        RegistryError: the service cannot be reached or refuses, or packaging failed; nothing was changed.
    """
    reason = " ".join(reason.split())
    if not reason or len(reason) > _REASON_LENGTH:
        raise InputError(f"--reason: given {len(reason)} letters; say in 1 to {_REASON_LENGTH} why it is retired")
    now = line.read(name, tracking_uri)
    there = _there(name, tracking_uri)
    if version is None:
        if now.champion is None:
            raise InputError(f"{name} has no {CHAMPION} to retire; name a version. {_choices(there)}")
        version = now.champion
    if version not in there and version not in now.history:
        versions.known_version(name, version, tracking_uri)
    note = (version, reason) if version in there else None
    rest = [one for one in now.history if one != version]
    if version != now.champion and not (now.lost and now.history[-1] == version):
        line.move(now, rest, tracking_uri, retired=note)
        return Move(name, now.champion, None, _before(rest[:-1], now.champion, there), None)
    skipped: list[str] = []
    while rest:
        found = there.get(rest[-1])
        bad = "was deleted" if found is None else _retired(found) or _not_promoted(found)
        if not bad and found is not None:
            try:
                bento = package_version(found, tracking_uri)
            except (ModelError, SchemaError) as error:
                bad = f"does not answer here: {error}"
            else:
                line.move(now, rest, tracking_uri, retired=note)
                before = _before(rest[:-1], rest[-1], there)
                return Move(name, rest[-1], version, before, bento, tuple(skipped))
        skipped.append(f"version {rest.pop()} {bad}")
    line.move(now, [], tracking_uri, retired=note)
    return Move(name, None, version, None, None, tuple(skipped))


def require_whole(name: str, tracking_uri: str | None = None) -> Line:
    """The line, before a run that may promote: whose models would take the place of nothing where the alias is gone.

    Raises:
        InputError: there was a champion, and something else than metalayer took its alias away.
        RegistryError: the service cannot be reached or refuses.
    """
    now = line.read(name, tracking_uri)
    if now.lost:
        there = _there(name, tracking_uri)
        last = now.history[-1]
        how = "was deleted in MLflow" if last not in there else f"lost its alias {CHAMPION} in MLflow"
        raise InputError(
            f"{name}: version {last} was the {CHAMPION} and {how}, so a new model would be compared with none. "
            f"`metalayer registry rollback --model {name}` makes the last champion that is there the champion again, "
            f"`metalayer registry retire {last} --model {name} --reason TEXT` goes on without it. {_choices(there)}"
        )
    return now


def _moved(
    before: Line,
    history: Sequence[int],
    bento: str,
    tracking_uri: str | None,
    skipped: Sequence[str] = (),
    there: dict[int, ModelVersion] | None = None,
) -> Move:
    """Let a history be the line, whose last version is packaged."""
    line.move(before, history, tracking_uri)
    version = history[-1]
    there = _there(before.name, tracking_uri) if there is None else there
    return Move(
        before.name,
        version,
        instead_of=before.champion if before.champion != version else None,
        before=_before(history[:-1], version, there),
        bento=bento,
        skipped=tuple(skipped),
    )


def _there(name: str, tracking_uri: str | None) -> dict[int, ModelVersion]:
    """Versions of a name that are registered, by number."""
    return {one.version: one for one in versions.all_versions(tracking_uri) if one.name == name}


def _before(history: Sequence[int], champion: int | None, there: dict[int, ModelVersion]) -> int | None:
    """Where a rollback from the champion would go."""
    for version in reversed(history):
        if version != champion and version in there and not _retired(there[version]):
            return version
    return None


def _retired(version: ModelVersion) -> str:
    """That it was retired and why; empty where it was not."""
    reason = version.tags.get(RETIRED_TAG)
    return "" if reason is None else f"was retired ({reason})"


def _not_promoted(version: ModelVersion) -> str:
    """That the gate did not promote it; empty where it did."""
    decision = version.tags.get(DECISION_TAG)
    if decision == PROMOTED:
        return ""
    return f"the gate's decision was {decision!r} and only a version that it {PROMOTED} may become {CHAMPION}"


def _choices(there: dict[int, ModelVersion]) -> str:
    """What may be promoted by hand."""
    able = [str(number) for number, one in sorted(there.items()) if not (_not_promoted(one) or _retired(one))]
    if not able:
        return "No registered version may be promoted: run the pipeline, which trains one"
    return f"`metalayer registry promote VERSION` takes any version that passed the gate: {', '.join(able)}"
