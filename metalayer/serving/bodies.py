"""Bodies on their way: how large one may be, and how slowly it may come.

A body takes no place among the requests in hand before it is whole, so that clients that send slowly, or
nothing, hold up nobody; what they cost is what they have sent.
"""

from __future__ import annotations

import asyncio
import time

from starlette.exceptions import HTTPException
from starlette.requests import Request

from metalayer.serving.admission import Claim
from metalayer.serving.arrow import too_large
from metalayer.serving.metrics import INTERRUPTED
from metalayer.serving.settings import BODY_GRACE_S, ServingSettings


async def read_body(request: Request, claim: Claim, settings: ServingSettings, arrived: float) -> bytes:
    """A whole body, which the claim holds.

    Args:
        request: not read yet.
        claim: of the request.
        settings: with the limits.
        arrived: when it did, of `time.monotonic`.

    Raises:
        RequestError: 413.
        HTTPException: 408 of one that comes too slowly, 429 where there are too many.
        ClientDisconnect: the client has gone.
    """
    limit = settings.max_body_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large("the body", limit)
    deadline_s, rate = settings.deadline_s, settings.min_body_rate
    loop, size, parts = asyncio.get_running_loop(), 0, []
    begun = loop.time() - (time.monotonic() - arrived)
    try:
        async with asyncio.timeout_at(begun + min(deadline_s, BODY_GRACE_S)) as patience:
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise too_large("the body", limit)
                claim.hold_more(len(part))
                parts.append(part)
                patience.reschedule(begun + min(deadline_s, BODY_GRACE_S + size / rate))
    except TimeoutError:
        INTERRUPTED.labels("slow body").inc()
        raise HTTPException(
            408, f"the body was not there within {deadline_s:g} s, or came slower than {rate:g} bytes/s"
        ) from None
    return b"".join(parts)
