"""Output that nobody reads any more stops no program: a pipe into `head`, a terminal that is gone, `2>&-`.

What is still to be written goes nowhere; log files, what was computed and the exit status stand.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO

_UNREAD = (errno.EPIPE, errno.EIO, errno.EBADF)


class _Lasting(io.FileIO):
    """A file descriptor that is turned to the null device once nobody reads it."""

    def write(self, data: Any, /) -> int:
        try:
            written: int = super().write(data)
        except OSError as error:
            if error.errno not in _UNREAD:
                raise
            _silence(self.fileno())
            return len(memoryview(data).cast("B"))
        return written


def outlive_readers() -> None:
    """Let standard output and error of this process outlive whoever reads them."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file opened would take its place
            _silence(number)
        given = getattr(sys, name)
        if number and (given is None or given is getattr(sys, f"__{name}__")):
            setattr(sys, name, lasting(number, encoding=given.encoding if given else "utf-8"))


def lasting(descriptor: int, encoding: str = "utf-8") -> TextIO:
    """A text stream on a file descriptor that outlives its reader."""
    raw = io.BufferedWriter(_Lasting(descriptor, "wb", closefd=False))
    return io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", line_buffering=True)


def _silence(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
