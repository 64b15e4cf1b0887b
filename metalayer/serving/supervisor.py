"""BentoML's supervisor, the process that starts and ends the workers, set up for our service.

Two servers with one store would share one folder of counts, which each empties when it starts; it takes the end of
its terminal for a wish to restart the workers, and goes on with nobody there to end it; and it listens on two ports of
the loopback address, where any user of the machine may order it to start, stop and change processes.
"""

from __future__ import annotations

import atexit
import os
import re
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import Any

from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.utils import circus
from circus.sighandler import SysHandler

from metalayer.files import alive

_COUNTS = "metalayer-counts-{host}-"


class _Alone(circus.Arbiter):  # type: ignore[misc]
    """A supervisor that signals order about, and nobody else: nothing outside its process reaches these addresses."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        addresses = {"endpoint": "inproc://commands", "pubsub_endpoint": "inproc://events"}
        super().__init__(*arguments, **(options | addresses))


def set_up() -> None:
    """To be called when the service is loaded, which the supervisor does before it starts."""
    _own_counts()
    _end_on_hangup()
    circus.Arbiter = _Alone


def _own_counts() -> None:
    """Let the folder of counts be this server's; BentoML makes it where it serves. Those of killed ones go."""
    prefix = _COUNTS.format(host=re.sub(r"\W", "_", socket.gethostname()))  # other hosts have process ids of their own
    place = Path(tempfile.gettempdir())
    for left in place.glob(f"{prefix}*"):
        pid = left.name.removeprefix(prefix)
        if pid.isdecimal() and not alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    folder = place / f"{prefix}{os.getpid()}"
    BentoMLContainer.prometheus_multiproc_dir.set(str(folder))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _end_on_hangup() -> None:
    """Let SIGHUP do what SIGTERM does; under nohup it does nothing."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    SysHandler.handle_hup = (lambda _: None) if ignored else SysHandler.handle_term
