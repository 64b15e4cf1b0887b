"""The Bento to serve where none is named: the champion's, or that of what was followed last."""

from __future__ import annotations

import contextlib
import logging
import time
from datetime import UTC, datetime
from pathlib import Path

from metalayer.errors import InputError, MetalayerError, RegistryError
from metalayer.registry import tracking, versions
from metalayer.registry.bento import (
    bento_directory,
    bentoml_home,
    build_bento,
    find_bento,
    package_version,
    writable_home,
)
from metalayer.registry.line import RETIRED_TAG
from metalayer.release.folder import (
    GOLDEN,
    read_facts,
)
from metalayer.serving.kept import FOLDER, Followed, Kept, kept_models

logger = logging.getLogger(__name__)


class NoChampionError(InputError):
    """The registry answers, and names no champion of what is asked for."""


def followed_place() -> Path:
    """Where what servers follow is kept."""
    return bentoml_home() / FOLDER


def followed_bento(name: str | None = None) -> str:
    """The tag of the champion's Bento, which is kept as followed; arguments and errors like those of `serve`.

    Where the registry does not answer, or names no champion, that of the version that was followed last.
    """
    uri, place = tracking.default_tracking_uri(), followed_place()
    try:
        seen_at, tag = time.time(), champion_bento(name)
    except (RegistryError, NoChampionError) as error:
        found = [
            one
            for one in kept_models(place, uri)
            if name in (None, one.name.removeprefix(versions.NAME_PREFIX), one.name)
        ]
        if len(found) != 1 or (current := found[0].current()) is None:
            raise
        tag = _kept_bento(found[0], current, error)
    else:
        directory = bento_directory(bentoml_home(), tag) / "src" / "release"
        facts = read_facts(directory)
        version, model_digest = str(facts["version"]), str(facts["digest"])
        kept = Kept(place, uri, str(facts["name"]))
        with contextlib.suppress(OSError):  # of which the server speaks
            with kept.taken_in(version, model_digest, fetch=lambda: directory):
                pass
            kept.set_current(version, model_digest, seen_at)
    return tag


def _kept_bento(kept: Kept, current: Followed, error: MetalayerError) -> str:
    """The tag of the Bento of the version that was followed last, built where it was not packaged here."""
    when = datetime.fromtimestamp(current.seen_at, UTC).isoformat(timespec="seconds")
    logger.warning("%s", error)
    logger.warning("serving %s version %s, which was champion at %s", kept.name, current.version, when)
    if found := find_bento(kept.name, current.version, current.digest):
        return found
    with kept.loading():
        directory = kept.release(current.version, current.digest)
        if directory is None:
            raise error
        golden, facts = directory / GOLDEN, read_facts(directory)
        return build_bento(
            directory, golden, name=kept.name, version=current.version, facts=facts, registered=current.digest
        )


def champion_bento(name: str | None = None) -> str:
    """The tag of the champion's Bento, built where it was not packaged here; arguments and errors like `serve`'s."""
    found = {version.name: version for version in versions.champions()}
    names = ", ".join(found)
    if not found:
        raise NoChampionError(_no_champion())
    if name is None and len(found) > 1:
        raise InputError(f"several models have a champion: {names}; name one with --model")
    wanted = name or next(iter(found))
    version = found.get(wanted) or found.get(versions.registered_name(wanted))
    if version is None:
        raise NoChampionError(f"--model {wanted}: no champion of that name; there are: {names}")
    if tag := find_bento(version.name, version.version, version.digest):
        return tag
    writable_home()
    return package_version(version, required_tag=False)


def _no_champion() -> str:
    """What to do where no version is champion."""
    passed = [
        one
        for one in versions.all_versions()
        if one.tags.get(versions.DECISION_TAG) == versions.PROMOTED and RETIRED_TAG not in one.tags
    ]
    if not passed:
        return (
            f"no promoted model in the registry {tracking.shown_uri()}; name the state folder of another run in "
            "METALAYER_HOME, or run the pipeline first: python pipelines/run.py --stack local"
        )
    listed = ", ".join(f"{one.name} version {one.version}" for one in passed)
    return (
        f"{tracking.shown_uri()}: no registered version has the alias {versions.CHAMPION}: it was taken away, or the "
        f"version deleted. Passed the gate: {listed}. `metalayer registry promote VERSION --model {passed[-1].name}` "
        "makes one champion"
    )
