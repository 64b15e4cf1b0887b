"""The Bento of a model: of the champion, or of what was followed last; of another version; of a model directory."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from metalayer.errors import InputError, MetalayerError, RegistryError
from metalayer.models.description import read_description
from metalayer.registry import names, tracking, versions
from metalayer.registry.bento import (
    bento_directory,
    bentoml_home,
    build_bento,
    find_bento,
    package_version,
    writable_home,
)
from metalayer.registry.line import RETIRED_TAG
from metalayer.release.folder import GOLDEN, read_facts
from metalayer.release.golden import made_up_golden
from metalayer.serving.kept import FOLDER, Followed, Kept, kept_models
from metalayer.settings.mistakes import closest

UNREGISTERED = "unregistered"
"""Instead of a version, of a model that no registry has."""

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
    tracking.require_store(tracking.default_tracking_uri())  # a server follows the champion, too
    found = {version.name: version for version in versions.champions()}
    if not found and name is None:
        raise NoChampionError(_no_champion())
    if name is None and len(found) > 1:
        raise InputError(
            names.choose("several models have a champion", list(found), "metalayer serve --model {}".format)
        )
    wanted = name or next(iter(found))
    version = found.get(wanted) or found.get(versions.registered_name(wanted))
    if version is None:
        raise NoChampionError(_no_champion_of(wanted, list(found)))
    return version_bento(version)


def version_bento(version: versions.ModelVersion) -> str:
    """The tag of a version's Bento, built where it was not packaged here; errors like `package_version`'s."""
    if tag := find_bento(version.name, version.version, version.digest):
        return tag
    writable_home()
    return package_version(version, required_tag=False)


def folder_bento(directory: Path) -> str:
    """The tag of a Bento of a model directory that no registry has, made here.

    Its golden rows are made up, with the answers that the model gives here: they show that the package says what the
    directory says, on this machine.

    Raises:
        ModelError, SchemaError: damaged, or of another format or feature schema.
        RegistryError: BentoML failed.
    """
    info = read_description(directory)
    writable_home()
    with tempfile.TemporaryDirectory() as scratch:
        golden = made_up_golden(directory, Path(scratch) / GOLDEN)
        name = versions.registered_name(str(info.get("base_model")))
        return build_bento(directory, golden, name=name, version=UNREGISTERED, facts={})


def _no_champion_of(wanted: str, found: list[str]) -> str:
    """What to do where this name has no champion, and others have."""
    others = [one for one in versions.all_versions() if one.name in (wanted, versions.registered_name(wanted))]
    if others:
        return f"--model {wanted}: no version of {others[0].name} is {versions.CHAMPION}; {_asked_for(others)}"
    there = list(dict.fromkeys([*found, *(one.name for one in versions.all_versions())]))
    if not there:
        return f"--model {wanted}: {_no_champion()}"
    near = closest(wanted, [names.short(one) for one in there])
    meant = f". Did you mean {versions.registered_name(near)}?" if near else ""
    has = f"no champion of that name; there are: {', '.join(found)}" if found else "no model of that name"
    return f"--model {wanted}: {has}{meant}"


def _asked_for(there: list[versions.ModelVersion]) -> str:
    """How versions that are no champion are served."""
    last = there[-1]
    command = f"metalayer serve --model {names.short(last.name)}/{last.version}"
    return f"`{command}` serves version {last.version} all the same, and says what it is"


def _no_champion() -> str:
    """What to do where no version is champion."""
    there = versions.all_versions()
    passed = [
        one for one in there if one.tags.get(versions.DECISION_TAG) == versions.PROMOTED and RETIRED_TAG not in one.tags
    ]
    if not passed:
        return (
            f"no promoted model in the registry {tracking.shown_uri()}; name the state folder of another run in "
            "METALAYER_HOME, or run the pipeline first: python pipelines/run.py --stack local"
            + (f". {_asked_for(there)}" if there else "")
        )
    listed = ", ".join(f"{one.name} version {one.version}" for one in passed)
    return (
        f"{tracking.shown_uri()}: no registered version has the alias {versions.CHAMPION}: it was taken away, or the "
        f"version deleted. Passed the gate: {listed}. `metalayer registry promote VERSION --model {passed[-1].name}` "
        "makes one champion"
    )
