"""Publishing files whole or not at all, and locks between processes.

Written beside the target under a hidden temporary name, flushed to disk, then renamed: a full disk
or a kill -9 in mid-write leaves what was there before. A draft's name is random and a lock is held on it while it
is written, so that the next writer can tell a draft that is being written from one that was left behind, and removes
the latter. A process number would not tell: in a container every main process is number 1.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from metalayer.errors import MetalayerError

_LEFT = re.compile(r"\.(?P<name>.+)\.draft-(?P<number>[0-9a-f]+)(?P<rest>[-.].*)?", re.DOTALL)
"""A draft, its lock, what was set aside for it, or what a tool wrote beside it (a database's journal)."""
_LOCK, _OLD = ".lock", "-old"


@contextlib.contextmanager
def publish_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write; on success it becomes `path` in one step, on failure it goes.

    The path is new, and is to be opened for writing once. What a tool leaves beside it is removed.
    """
    path = Path(path)
    with _draft(path) as draft:
        yield draft
        flush(draft)
        draft.replace(path)


@contextlib.contextmanager
def publish_directory(path: Path) -> Iterator[Path]:
    """Give a temporary directory to fill; on success it becomes `path`, replacing what was there."""
    path = Path(path)
    with scratch_directory(path) as draft:
        yield draft
        flush(draft)
        old = draft.with_name(draft.name + _OLD)
        with taking_turns(path):
            if path.exists():
                path.rename(old)  # a directory cannot be renamed over a full one
            try:
                draft.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise


@contextlib.contextmanager
def scratch_directory(path: Path) -> Iterator[Path]:
    """Give an empty hidden directory beside `path`, for what is needed while that is made; it goes in the end."""
    with _draft(Path(path)) as draft:
        draft.mkdir()
        yield draft


@contextlib.contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A name beside `path` that nobody else has, locked before anything of that name is there.

    An error of the disk names `path`.
    """
    draft = path.with_name(f".{path.name}.draft-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, path.name)
        with _waited_for(draft.with_name(draft.name + _LOCK)):
            try:
                yield draft
            finally:
                _remove(draft)
    except OSError as error:
        if error.errno and (error.filename is None or str(error.filename).startswith(str(draft))):
            error.filename = str(path)
        raise


def sweep(folder: Path, name: str) -> None:
    """Remove what killed processes left of drafts in a folder, and put back what they had set aside.

    Args:
        folder: of the targets.
        name: of the target; a last `*` stands for any end.
    """
    for found in list(folder.iterdir()):
        match = _LEFT.fullmatch(found.name)
        if not match or (match["rest"] == _LOCK and found.with_name(found.name.removesuffix(_LOCK)).exists()):
            continue  # the lock is looked at with its draft
        target = match["name"]
        if target != name and not (name.endswith("*") and target.startswith(name[:-1])):
            continue
        draft = folder / f".{target}.draft-{match['number']}"
        with contextlib.suppress(OSError), _at_once(draft.with_name(draft.name + _LOCK)) as free:
            if not free:
                continue
            old, path = draft.with_name(draft.name + _OLD), folder / target
            if old.exists():
                with taking_turns(path):
                    if not path.exists():
                        old.rename(path)
            _remove(draft)


def _remove(draft: Path) -> None:
    """Remove a draft and what lies beside it under its name, but for its lock."""
    for found in list(draft.parent.iterdir()):
        rest = found.name.removeprefix(draft.name)
        if rest in (found.name, _LOCK) or rest[:1] not in ("", "-", "."):
            continue
        if found.is_dir() and not found.is_symlink():
            shutil.rmtree(found, ignore_errors=True)
        else:
            found.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have a file, or all files of a directory, written to disk."""
    for part in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if part.is_file():
            with part.open("rb") as handle:
                os.fsync(handle.fileno())


def alive(pid: int) -> bool:
    """Whether a process of this machine is there, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def taking_turns(path: Path) -> Iterator[None]:
    """One process or thread at a time does what is to be done with `path`; the others wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _waited_for(path.with_name(f".{path.name}.turn")):
        yield


@contextlib.contextmanager
def only_one(lock: Path, advice: str) -> Iterator[None]:
    """Hold a lock file; the lock goes with the process, however it ends.

    Args:
        lock: the file, in the folder that it stands for.
        advice: what else than waiting can be done.

    Raises:
        MetalayerError: another process holds it, or nothing can be written into its folder.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    _refuse_read_only(lock.parent)
    with _at_once(lock) as free:
        if not free:
            holder = lock.read_text(encoding="utf-8").strip() if lock.exists() else ""
            raise MetalayerError(
                f"another run ({holder or 'of an unknown process'}) is using {lock.parent}; wait until it has "
                f"ended, or {advice}"
            )
        lock.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield


def _refuse_read_only(folder: Path) -> None:
    """A lock that cannot be made there looks as if another process held it.

    Raises:
        MetalayerError: nothing can be written into the folder.
    """
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MetalayerError(
            f"nothing can be written into {folder.absolute()} ({error.strerror or error}): it is read-only, full, or "
            "another user's; give another place for the output"
        ) from None


@contextlib.contextmanager
def _at_once(lock: Path) -> Iterator[bool]:
    """Take a lock if nobody holds it, and say whether it was taken."""
    held = _lock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        free = False
    else:
        free = True
    with _released(held, lock) if free else contextlib.nullcontext():
        yield free


@contextlib.contextmanager
def _waited_for(lock: Path) -> Iterator[None]:
    held = _lock(lock)
    held.acquire()
    with _released(held, lock):
        yield


@contextlib.contextmanager
def _released(held: BaseFileLock, lock: Path) -> Iterator[None]:
    """Remove the file while the lock is held: who waits for it sees that it is gone, and makes a new one."""
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        held.release()


def _lock(path: Path) -> BaseFileLock:
    # Released by whichever thread ends the work; a link in the file's place is not followed.
    return FileLock(path, thread_local=False)


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
