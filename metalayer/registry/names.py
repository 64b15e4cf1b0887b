"""The one name of a model, which every command takes: a registered one in its several forms, or a folder.

`NAME` is its champion, `NAME@ALIAS` what carries another alias, `NAME/3` that version; MLflow's `models:/NAME/3` and
`models:/NAME@ALIAS` are the same. The prefix `metalayer-` of registered names may be left out. A folder that holds a
model is always that folder, whatever it is called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metalayer.environment import state_dir
from metalayer.errors import InputError
from metalayer.extras import require
from metalayer.settings.mistakes import closest

if TYPE_CHECKING:
    from metalayer.registry.versions import ModelVersion

FORMS = "NAME (its champion), NAME@ALIAS, NAME/VERSION, models:/NAME/VERSION, models:/NAME@ALIAS, or a model directory"
MODELS = "models"
"""Folder of the state directory with what was fetched of registries."""
_CHAMPION = "champion"
_MLFLOW = "models:/"
_REGISTERED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._+-]*)(?:@([A-Za-z][A-Za-z0-9._-]*)|/([0-9]{1,9}))?")


@dataclass(frozen=True)
class Registered:
    """A registered model as it was named.

    Attributes:
        name: with or without its prefix.
        version: that was asked for; None where an alias was, or nothing.
        alias: that was asked for; None where a version was.
        given: the whole name.
    """

    name: str
    version: int | None
    alias: str | None
    given: str

    @property
    def is_champion(self) -> bool:
        """Whether the champion is meant, whichever version that is."""
        return self.alias == _CHAMPION


@dataclass(frozen=True)
class NamedModel:
    """A model with its directory on this machine.

    Attributes:
        directory: the model directory.
        registered: the version; None of a folder that was named.
    """

    directory: Path
    registered: ModelVersion | None = None


def parse(text: str, option: str = "--model") -> Path | Registered:
    """What a name means: the model directory of a folder, or a registered model, which is not looked for yet.

    Args:
        text: the name.
        option: that it was given with, for messages.

    Raises:
        InputError: a name in none of the forms, a file, or a folder without a model.
    """
    from metalayer.models.description import DESCRIPTION

    found = _REGISTERED.fullmatch(text.removeprefix(_MLFLOW))
    path = Path(text).expanduser()
    if not text.startswith(_MLFLOW):
        for directory in (path, path / "model"):
            if (directory / DESCRIPTION).is_file():
                return directory
    if found:
        name, alias, version = found.groups()
        return Registered(name, int(version) if version else None, alias or (None if version else _CHAMPION), text)
    if text and path.is_dir():
        raise InputError(
            f"{option}: given {text}, a folder without a model; a model directory holds {DESCRIPTION}, as `metalayer "
            "train` writes it"
        )
    what = "which is a file" if path.is_file() else "which is no folder"
    raise InputError(f"{option}: given {text}, {what}; allowed are {FORMS}")


def folder(text: str, option: str = "DIR") -> Path:
    """The model directory of a folder; registered names are not meant.

    Raises:
        InputError: no folder with a model.
        ModelError: one that is damaged, or of another format.
        SchemaError: of another feature schema.
    """
    from metalayer.models.description import read_description

    wanted = parse(text, option)
    if not isinstance(wanted, Path):
        raise InputError(f"{option}: given {text}, which is no model directory; it is what `metalayer train` writes")
    read_description(wanted)
    return wanted


def find(wanted: Registered, tracking_uri: str | None = None, option: str = "--model") -> ModelVersion:
    """The registered version that is meant.

    Raises:
        InputError: none of that name, version or alias; near names are offered.
        RegistryError: the registry cannot be reached or refuses.
    """
    from metalayer.registry import versions

    there = versions.all_versions(tracking_uri)
    name = _registered(wanted, there, option, tracking_uri, folders=True)
    if wanted.version is not None:
        return versions.known_version(name, wanted.version, tracking_uri)
    ours = [one for one in there if one.name == name]
    for one in ours:
        if wanted.alias in one.aliases:
            return one
    listed = ", ".join(f"{name}/{one.version}{_called(one)}" for one in ours)
    raise InputError(
        f"{option} {wanted.given}: no version of {name} is {wanted.alias}; name one of {listed}"
        + ("" if not wanted.is_champion else ", or train one that passes the gate")
    )


def fetch(text: str, tracking_uri: str | None = None, option: str = "--model") -> NamedModel:
    """The model that a name means, with its directory on this machine; what a registry has is fetched and checked.

    Args:
        text: in any of `FORMS`.
        tracking_uri: of the registry; None takes its default.
        option: that it was given with, for messages.

    Raises:
        InputError: no such model.
        RegistryError: the registry cannot be reached or refuses.
        ModelError: damaged, or of another format.
        SchemaError: of another feature schema.
    """
    from metalayer.models.description import read_description

    wanted = parse(text, option)
    if isinstance(wanted, Path):
        read_description(wanted)
        return NamedModel(wanted)
    from metalayer.registry import download

    require("mlflow")
    version = find(wanted, tracking_uri, option)
    directory = download.fetch(version.name, version.version, tracking_uri, state_dir() / MODELS).bundle
    read_description(directory, f"{version.name} version {version.version}")
    return NamedModel(directory, version)


def which(text: str | None, model: str | None, command: str, tracking_uri: str | None = None) -> tuple[str, int | None]:
    """Registered name and version that `metalayer registry COMMAND` is about.

    Args:
        text: a version's number, or a name in one of the registered forms; None where none was given.
        model: name beside the number; None where none was given.
        command: promote, rollback or retire.
        tracking_uri: of the registry; None takes its default.

    Returns:
        The name, and the version where one was named, by its number or by an alias other than that of the champion.

    Raises:
        InputError: nothing of that name, or none given where it may be one of several, all of which are listed.
        RegistryError: the registry cannot be reached or refuses.
    """
    from metalayer.registry import versions

    number = int(text) if text and text.isdecimal() else None
    named = text if text and number is None else model
    there = versions.all_versions(tracking_uri)
    if named is not None:
        wanted = parse(named, command)
        twice = number is not None and isinstance(wanted, Registered) and not wanted.is_champion
        if isinstance(wanted, Path) or twice or (model is not None and model != named):
            raise InputError(f"{command}: given {text} and --model {model}; give NAME/VERSION of a registered model")
        name = _registered(wanted, there, "--model" if named is model else command, tracking_uri)
        if number is not None or wanted.is_champion:
            return name, number
        return name, find(wanted, tracking_uri, command).version
    names = sorted({one.name for one in there})
    if not names:
        raise InputError(_none_registered(tracking_uri))
    able = sorted({one.name for one in there if one.version == number or (number is None and _is_champion(one))})
    if len(names) == 1 or len(able) == 1:
        return (able or names)[0], number
    of_version = "" if number is None else f"/{number}"
    reason = " --reason TEXT" if command == "retire" else ""
    raise InputError(
        choose(
            "several models are registered",
            able or names,
            lambda name: f"metalayer registry {command} {name}{of_version}{reason}",
        )
    )


def choose(why: str, names: Sequence[str], command: Callable[[str], str]) -> str:
    """A message that lists names, and the full command for each."""
    return "\n".join([f"{why}: {', '.join(names)}; choose one:", *(f"  {command(name)}" for name in names)])


def short(name: str) -> str:
    """A registered name without its prefix, as commands take it."""
    from metalayer.registry.versions import NAME_PREFIX

    return name.removeprefix(NAME_PREFIX)


def standing(version: ModelVersion) -> str:
    """What a version is where it is not the champion, in words; nothing of the champion."""
    from metalayer.registry import line, versions

    if versions.CHAMPION in version.aliases:
        return ""
    if (reason := version.tags.get(line.RETIRED_TAG)) is not None:
        return f"it was retired ({reason})"
    if version.tags.get(versions.DECISION_TAG) == versions.REJECTED:
        return "the gate rejected it"
    return "another version is, or none"


def _registered(
    wanted: Registered, there: Sequence[ModelVersion], option: str, tracking_uri: str | None, *, folders: bool = False
) -> str:
    """The registered name, with its prefix; `folders`: whether a model directory may have been meant as well."""
    from metalayer.registry import versions

    names = sorted({one.name for one in there})
    for name in (wanted.name, versions.registered_name(wanted.name)):
        if name in names:
            return name
    who = f"{option} {wanted.given}: no registered model of that name"
    if folders and wanted.given == wanted.name:
        who = f"{option}: given {wanted.given}, which is no folder; name a model directory, or a registered model"
    if not names:
        raise InputError(f"{who}: {_none_registered(tracking_uri)}")
    near = closest(wanted.name.removeprefix(versions.NAME_PREFIX), [short(name) for name in names])
    meant = f". Did you mean {versions.registered_name(near)}?" if near else ""
    raise InputError(f"{who}; there are: {', '.join(names)}{meant}")


def _none_registered(tracking_uri: str | None) -> str:
    from metalayer.registry.tracking import shown_uri

    return f"no registered model in {shown_uri(tracking_uri)}; name the state folder of another run in METALAYER_HOME"


def _is_champion(version: ModelVersion) -> bool:
    return _CHAMPION in version.aliases


def _called(version: ModelVersion) -> str:
    return f" ({', '.join(version.aliases)})" if version.aliases else ""
