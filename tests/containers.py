"""Commands as the first process of a container: in a process namespace of their own, where they are number 1."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import pytest

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc")
MOUNTS = ("unshare", "--mount")
"""File systems of its own: what is mounted there goes with the process."""


def needs_namespaces() -> None:
    """Skip where this machine lets nobody make one."""
    if (
        shutil.which("unshare") is None
        or subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no process namespace can be made here: unshare is missing or not permitted")


def needs_mounts() -> None:
    """Skip where this machine lets nobody mount a file system, also not in a namespace."""
    tried = [*MOUNTS, "mount", "-t", "tmpfs", "a", "/tmp"]
    if shutil.which("unshare") is None or subprocess.run(tried, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here: unshare or mount is missing or not permitted")


def started(command: Sequence[str], log: Path, **environment: str) -> subprocess.Popen:
    """The command in a namespace of its own, as process 1."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [*NAMESPACE, *command],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", **environment},
            stdout=output,
            stderr=output,
        )


def end(process: subprocess.Popen, number: int = signal.SIGKILL) -> None:
    """Send a signal to process 1 of the namespace, with which all in it end; nothing where that has ended."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if process.poll() is None and (found := children.read_text().split()):
        os.kill(int(found[0]), number)
    process.wait(60)


def drafts(folder: Path) -> set[Path]:
    """Those below a folder in which others make and remove folders meanwhile, which `os.walk` passes over."""
    found = (Path(place) / name for place, folders, files in os.walk(folder) for name in folders + files)
    return {path for path in found if fnmatch(path.name, ".*.draft-*")}


def kill_while_publishing(
    command: Sequence[str], folder: Path, seconds: float, log: Path, **environment: str
) -> subprocess.Popen:
    """Start a command, and SIGKILL it so long after it has begun a draft below a folder."""
    before = drafts(folder)
    process = started(command, log, **environment)
    until = time.monotonic() + 300
    try:
        while drafts(folder) <= before:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.005)
        time.sleep(seconds)
    finally:
        end(process)
    return process
