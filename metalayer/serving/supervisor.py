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
from typing import Any, ClassVar

from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.utils import circus
from bentoml.exceptions import BentoMLException
from circus.sighandler import SysHandler

from metalayer.errors import ConfigError
from metalayer.files import alive
from metalayer.serving.metrics import counts_folder
from metalayer.serving.metrics_port import serve_metrics
from metalayer.serving.settings import ServingSettings

_COUNTS = "metalayer-counts-{host}-"


class _Alone(circus.Arbiter):  # type: ignore[misc]
    """A supervisor that signals order about, and nobody else: nothing outside its process reaches these addresses."""

    settings: ClassVar[ServingSettings]

    def __init__(self, watchers: list[Any], **options: Any) -> None:
        addresses = {"endpoint": "inproc://commands", "pubsub_endpoint": "inproc://events"}
        super().__init__(watchers, **(options | addresses))
        (self._counts,) = {counts_folder(watcher.env) for watcher in watchers}

    def initialize(self) -> None:
        """Listen on all ports; no worker runs yet."""
        super().initialize()
        port = self.settings.metrics_port
        if port is not None and self._counts is not None:
            try:
                serve_metrics(self.settings, port, self._counts)
            except ConfigError as error:
                raise BentoMLException(str(error)) from None  # which its command line shows as it is


def set_up(settings: ServingSettings) -> None:
    """To be called when the service is loaded, which the supervisor does before it starts."""
    _own_counts()
    _end_on_hangup()
    _Alone.settings = settings
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
