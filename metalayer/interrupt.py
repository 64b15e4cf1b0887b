"""SIGINT and SIGTERM end a program within seconds, whatever it is doing, and all that it started.

Python runs a handler between two steps of its own, and so not while a library waits in code of its own. Its signal
number is therefore also written to a pipe, which a thread reads.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

_OVER = 0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CHILDREN_S = 3.0
"""What processes that this one started have, from SIGTERM to SIGKILL."""


@contextlib.contextmanager
def ending(before: Callable[[], object] = lambda: None, *, unwind_s: float = 0.0) -> Iterator[None]:
    """Within this block either signal ends the process, with the status 128 and its number.

    Args:
        before: called first, to say something.
        unwind_s: seconds in which the main thread may leave its blocks; 0 ends it where it is.
    """
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield
        return
    numbers, send = os.pipe()
    os.set_blocking(send, False)
    active = True

    def forked() -> None:  # a copy of this process is without the thread, and has the pipe
        if active:
            restore()

    def restore() -> None:
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def handle(number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):  # written before
            os.write(send, bytes([number]))
        if unwind_s:
            raise SystemExit(128 + number)
        while True:  # go on with nothing
            time.sleep(1)

    def watch() -> None:
        number = _OVER - 1
        while number not in (_OVER, *_SIGNALS):  # others with a handler in Python are written too
            number = os.read(numbers, 1)[0]
        if number == _OVER:
            os.close(numbers)
            return
        before()
        main.join(unwind_s)
        _end_children()
        os._exit(128 + number)

    main = threading.main_thread()
    handlers = {number: signal.signal(number, handle) for number in _SIGNALS}
    wakeup = signal.set_wakeup_fd(send, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=forked)
    threading.Thread(target=watch, name="interrupt", daemon=True).start()
    try:
        yield
    except SystemExit:
        _end_children()
        raise
    finally:
        active = False
        restore()
        with contextlib.suppress(OSError):  # the thread is on its way out
            os.write(send, bytes([_OVER]))
        os.close(send)


def _end_children() -> None:
    """End the processes that this one started, and theirs."""
    started = _descendants(os.getpid())
    for number, limit_s in ((signal.SIGTERM, _CHILDREN_S), (signal.SIGKILL, 1.0)):
        for pid in started:
            _send(pid, number)
        until = time.monotonic() + limit_s
        while started and time.monotonic() < until:
            living = _living()
            started = {pid: born for pid, born in started.items() if pid in living and living[pid][1] == born}
            time.sleep(0.02)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _descendants(pid: int) -> dict[int, str]:
    """When each process below this one was started, by its number."""
    living = _living()
    found: dict[int, str] = {}
    parents = {pid}
    while parents:
        children = {child: born for child, (parent, born) in living.items() if parent in parents}
        found |= children
        parents = set(children)
    return found


def _living() -> dict[int, tuple[int, str]]:
    """Parent and start of every process that has not ended, by its number; empty where the system does not tell."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended meanwhile
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if fields[0] != "Z":
                found[int(stat.parent.name)] = (int(fields[1]), fields[19])
    return found
