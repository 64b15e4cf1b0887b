"""Bodies on their way: how large one may be, how large all of a worker together, and how slowly one may come.

A body takes no place among the requests in hand before it is whole, so that clients that send slowly, or
nothing, hold up nobody; what they cost is what they have sent.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request

from metalayer.serving.arrow import too_large
from metalayer.serving.metrics import INTERRUPTED
from metalayer.serving.settings import BODY_GRACE_S, ServingSettings

LARGEST_AT_ONCE = 4
"""Bodies of the largest size that all bodies of a worker together may come to."""
RETRY_AFTER_S = 1


class Bodies:
    """The bodies that a worker has, from their first byte to the answer."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._held = 0

    @contextlib.asynccontextmanager
    async def read(self, request: Request, arrived: float) -> AsyncIterator[bytes]:
        """A whole body, counted as held until this ends.

        Args:
            request: not read yet.
            arrived: when it did, of `time.monotonic`.

        Raises:
            RequestError: 413.
            HTTPException: 408 of one that comes too slowly, 429 where there are too many.
            ClientDisconnect: the client has gone.
        """
        limit, most = self._settings.max_body_bytes, LARGEST_AT_ONCE * self._settings.max_body_bytes
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            raise too_large("the body", limit)
        size, parts, stream = 0, [], request.stream()
        try:
            while (part := await self._next(stream, arrived, size)) is not None:
                size += len(part)
                self._held += len(part)
                if size > limit:
                    raise too_large("the body", limit)
                if self._held > most:
                    raise busy(f"the bodies of all requests come to more than {most} bytes, the most that they may")
                parts.append(part)
            body = b"".join(parts)
            parts.clear()
            yield body
        finally:
            self._held -= size

    async def _next(self, stream: AsyncIterator[bytes], arrived: float, size: int) -> bytes | None:
        """The next part, None behind the last; in time, and on average not too slowly."""
        deadline_s, rate = self._settings.deadline_s, self._settings.min_body_rate
        until = arrived + min(deadline_s, BODY_GRACE_S + size / rate)
        try:
            with anyio.fail_after(until - time.monotonic()):
                return await anext(stream, None)
        except TimeoutError:
            INTERRUPTED.labels("slow body").inc()
            raise HTTPException(
                408, f"the body was not there within {deadline_s:g} s, or came slower than {rate:g} bytes/s"
            ) from None


def busy(why: str) -> HTTPException:
    """The 429 of a request that there is no room for."""
    INTERRUPTED.labels("busy").inc()
    return HTTPException(429, f"{why}; try again in {RETRY_AFTER_S} s", {"Retry-After": str(RETRY_AFTER_S)})
