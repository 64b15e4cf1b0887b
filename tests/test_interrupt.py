"""SIGINT and SIGTERM end a program, whatever it waits for, and what it started."""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]
# The child ignores SIGTERM; the wait is one that no handler of Python interrupts, or a step of Python's own.
PROGRAM = """
import sys; sys.path.insert(0, {root!r})
import ctypes, os, subprocess, time
from metalayer import interrupt
child = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(100)"
lock, library = ctypes.create_string_buffer(64), ctypes.CDLL(None)
with interrupt.ending(lambda: os.write(2, b"interrupted"), unwind_s={unwind_s}):
    started = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
    started.stdout.readline()
    if not os.fork():  # ends by itself
        os.kill(os.getpid(), 15)
    os.wait()
    try:
        print(started.pid, flush=True)
        if {stuck}:
            library.pthread_mutex_lock(lock), library.pthread_mutex_lock(lock)
        time.sleep(100)
    finally:
        print("unwound", flush=True)
"""


def until_waiting(pid: int) -> None:
    """Until the main thread has been asleep at each of many looks: it is in the wait, not on its way there."""
    asleep, until = 0, time.monotonic() + 60
    while asleep < 20 and time.monotonic() < until:
        asleep = asleep + 1 if psutil.Process(pid).status() == psutil.STATUS_SLEEPING else 0
        time.sleep(0.01)
    assert asleep == 20


class Case(NamedTuple):
    number: int
    stuck: bool
    unwind_s: float


class Ended(NamedTuple):
    code: int
    out: str
    err: str
    child: psutil.Process


CASES = [
    Case(number, stuck, unwind_s)
    for number in (signal.SIGINT, signal.SIGTERM)
    for stuck, unwind_s in ((True, 0), (True, 0.5), (False, 0), (False, 60))
]


def signalled(case: Case) -> Ended:
    program = PROGRAM.format(root=str(ROOT), stuck=case.stuck, unwind_s=case.unwind_s)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        until_waiting(process.pid)
        process.send_signal(case.number)
        out, err = process.communicate(timeout=60)
    return Ended(process.returncode, out, err, child)


@pytest.fixture(scope="module")
def ended() -> dict[Case, Ended]:
    """All at once: what ends takes its three seconds."""
    with ThreadPoolExecutor(len(CASES)) as pool:
        return dict(zip(CASES, pool.map(signalled, CASES), strict=True))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_signal_ends_all(case: Case, ended: dict[Case, Ended]) -> None:
    code, out, err, child = ended[case]
    assert code == 128 + case.number
    assert err == "interrupted"
    assert out == ("unwound\n" if case.unwind_s and not case.stuck else "")
    gone = not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert gone


def test_a_signal_of_others_ends_nothing() -> None:
    """One with a handler in Python, as libraries have of SIGCHLD, goes to the same pipe."""
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import signal, time; from metalayer import interrupt\n"
        "signal.signal(signal.SIGCHLD, lambda *_: print('seen', flush=True))\n"
        "with interrupt.ending(unwind_s=0):\n"
        "    signal.raise_signal(signal.SIGCHLD)\n"
        "    time.sleep(2)\n"
        "print('went on')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "seen\nwent on\n"), done.stderr
