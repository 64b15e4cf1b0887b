"""SIGTERM: not ready first, then no new connections, then the end once requests in flight have been answered.

The HTTP server stops listening as soon as it gets the signal, and what a load balancer still sends
then waits for nobody. So the signal first turns /readyz to 503, and reaches the HTTP server later.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from types import FrameType

from metalayer.serving.state import Serving

logger = logging.getLogger(__name__)


def drain_on_sigterm(serving: Serving) -> None:
    """From now on SIGTERM drains; to be called in the event loop of the HTTP server, after it set its own handlers."""
    loop = asyncio.get_running_loop()
    stop = signal.getsignal(signal.SIGTERM)
    settings = serving.settings

    def drain() -> None:
        logger.info("SIGTERM: not ready from now on; listening for another %g s", settings.drain_s)
        serving.draining = True
        if callable(stop):
            loop.call_later(settings.drain_s, stop, signal.SIGTERM, None)
            # The HTTP server takes SIGINT after SIGTERM as: wait no longer, for clients that do not read their answers.
            loop.call_later(settings.drain_s + settings.deadline_s, stop, signal.SIGINT, None)

    def handle(_: int, __: FrameType | None) -> None:
        loop.call_soon_threadsafe(drain)

    signal.signal(signal.SIGTERM, handle)
