"""What a server last followed, kept on disk: a restarted worker begins with it while the registry is away.

One folder for each registry and model, shared by all workers and servers that follow it: a release directory for a
version, whole or not there, and `current.json`, which names the one that was champion when somebody last looked.
The one before is kept too, older ones go. A lock in the folder lets one process at a time change it, and
nobody remove what another is loading.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from metalayer.environment import without_password
from metalayer.files import publish_directory
from metalayer.integrity import unsealed, write_json

FOLDER = "followed"
_CURRENT, _LOCK = "current.json", "lock"
_SQLITE = "sqlite:///"
_DIGITS = 12

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Followed:
    """The version that was champion at the last look.

    Attributes:
        version: registered version, as text.
        digest: of its model.
        seen_at: seconds since 1970 of that look.
        previous: folder of the version before it, empty where there was none.
    """

    version: str
    digest: str
    seen_at: float
    previous: str = ""


class Kept:
    """The kept versions of one model of one registry."""

    def __init__(self, place: Path, registry_uri: str, name: str) -> None:
        """Nothing is made before something is kept.

        Args:
            place: folder of all that is kept.
            registry_uri: whose version numbers these are.
            name: registered name.
        """
        self.name = name
        self.folder = registry_folder(place, registry_uri) / quote(name, safe="")

    def current(self) -> Followed | None:
        """What was followed last, None where nothing is kept or the note cannot be read."""
        path = self.folder / _CURRENT
        try:
            return Followed(**unsealed(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            logger.warning("%s: %s; it counts as nothing kept", path, error)
            return None

    def release(self, version: str, digest: str) -> Path | None:
        """The release directory of a version that is kept."""
        directory = self.folder / _directory(version, digest)
        return directory if directory.is_dir() else None

    @contextlib.contextmanager
    def taken_in(self, version: str, digest: str, fetch: Callable[[], Path]) -> Iterator[Path]:
        """The release directory of a version, taken in where it is not kept yet; it stays while this holds.

        Args:
            version: registered version.
            digest: of its model.
            fetch: says where the release is; only called where it is needed, and by one process at a time.

        Raises:
            OSError: nothing can be written here.
        """
        directory = self.folder / _directory(version, digest)
        while True:
            with self._locked(fcntl.LOCK_SH):
                if directory.is_dir():
                    yield directory
                    return
            with self._locked(fcntl.LOCK_EX):
                if not directory.is_dir():
                    source = fetch()
                    with publish_directory(directory) as draft:
                        shutil.copytree(source, draft, copy_function=_link_or_copy, dirs_exist_ok=True)

    def discard(self, version: str, digest: str) -> None:
        """Forget a version that cannot be served, so that it is fetched again."""
        with contextlib.suppress(OSError), self._locked(fcntl.LOCK_EX):
            shutil.rmtree(self.folder / _directory(version, digest), ignore_errors=True)

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """What is kept now stays while this holds."""
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a folder that cannot be written, in which nothing is removed either
                stack.enter_context(self._locked(fcntl.LOCK_SH))
            yield

    def set_current(self, version: str, digest: str, seen_at: float) -> None:
        """Note a kept version as the champion; all but it and the one before go.

        Args:
            version: registered version.
            digest: of its model.
            seen_at: seconds since 1970 at which it was seen to be champion; an older look changes nothing.

        Raises:
            OSError: nothing can be written here.
        """
        with self._locked(fcntl.LOCK_EX):
            before, now = self.current(), _directory(version, digest)
            if self.release(version, digest) is None:  # gone since it was taken in: the next look takes it in again
                return
            later = before is not None and seen_at < before.seen_at <= time.time()
            if before is not None and (later or (before.version, before.digest) == (version, digest)):
                now, previous = _directory(before.version, before.digest), before.previous
            else:
                previous = _directory(before.version, before.digest) if before else ""
                write_json(self.folder / _CURRENT, asdict(Followed(version, digest, seen_at, previous)))
            for one in self.folder.iterdir():
                if one.is_dir() and one.name not in (now, previous):
                    shutil.rmtree(one, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / _LOCK).open("a") as handle:
            fcntl.flock(handle, how)
            yield


def kept_models(place: Path, registry_uri: str) -> list[Kept]:
    """What is kept of the models of a registry, by name."""
    folder = registry_folder(place, registry_uri)
    names = sorted(unquote(one.name) for one in folder.iterdir() if one.is_dir()) if folder.is_dir() else []
    return [one for name in names if (one := Kept(place, registry_uri, name)).current() is not None]


def registry_folder(place: Path, registry_uri: str) -> Path:
    """The folder of what is kept of a registry, one folder a model.

    A changed password is no other registry, nor is a database that moved with the state folder.
    """
    address = without_password(registry_uri).replace("***@", "").rstrip("/")
    if registry_uri.startswith(_SQLITE):
        address = os.path.relpath(registry_uri.removeprefix(_SQLITE), place)
    return place / hashlib.sha256(address.encode()).hexdigest()[:_DIGITS]


def _directory(version: str, digest: str) -> str:
    return f"{version}-{digest[:_DIGITS]}"


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)
