"""Publishing files whole or not at all.

Written beside the target under a hidden temporary name, flushed to disk, then renamed: a full disk
or a kill -9 in mid-write leaves what was there before. Temporary names carry the process id; those
of dead processes are removed by the next writer.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from metalayer.errors import MetalayerError

_DRAFT = ".{name}.draft-{pid}"


@contextlib.contextmanager
def publish_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write; on success it becomes `path` in one step, on failure it goes."""
    draft = _draft(Path(path))
    try:
        yield draft
        _flush(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def publish_directory(path: Path) -> Iterator[Path]:
    """Give a temporary directory to fill; on success it becomes `path`, replacing what was there."""
    path = Path(path)
    draft = _draft(path)
    draft.mkdir()
    try:
        yield draft
        for part in sorted(draft.rglob("*")):
            if part.is_file():
                _flush(part)
        old = draft.with_name(draft.name + "-old")
        if path.exists():
            path.rename(old)  # a directory cannot be renamed over a full one
        try:
            draft.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _draft(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path)
    return path.with_name(_DRAFT.format(name=path.name, pid=os.getpid()))


def _sweep(path: Path) -> None:
    """Remove drafts of `path` whose process is gone; put back what a killed rename had set aside."""
    pattern = re.compile(re.escape(f".{path.name}.draft-") + r"(\d+)(-old)?$")
    for left in path.parent.iterdir():
        match = pattern.match(left.name)
        if not match or _alive(int(match[1])):
            continue
        if match[2] and not path.exists():
            left.rename(path)
        elif left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


@contextlib.contextmanager
def only_one(lock: Path, advice: str) -> Iterator[None]:
    """Hold a lock file; the lock goes with the process, however it ends, and the file stays.

    Args:
        lock: the file, in the folder that it stands for.
        advice: what else than waiting can be done.

    Raises:
        MetalayerError: another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+", encoding="utf-8") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise MetalayerError(
                f"another run (process {handle.read().strip() or 'unknown'}) is using {lock.parent}; wait until it has "
                f"ended, or {advice}"
            ) from None
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
