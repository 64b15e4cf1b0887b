"""What a worker takes on: requests, bytes and seconds of work; and how much of that one client may have.

Bytes are those that a request has at the moment: its body as it comes, what that is decoded to, rows, answer. Seconds
are estimated by the pace of the model on this machine. What there is no room for, or what could not be answered before
its deadline, is refused at once (429 with Retry-After), before others wait for it. Clients take turns, and so do the
requests of each, so that one with many requests holds up itself and not the others.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import math
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterator

import anyio
from starlette.exceptions import HTTPException

from metalayer.serving.metrics import INTERRUPTED
from metalayer.serving.settings import ServingSettings

HEADROOM = 0.8
"""Part of the time until its deadline that a request may be expected to take: bodies are read and answers written."""
SHORT_S = 1.0
"""Seconds of work below which a request is not weighed against the deadlines of longer ones."""
_NETWORK_BITS = 64  # of an IPv6 address; one client has all that follows


class Room:
    """What a worker has, and who holds what of it."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._held = 0
        self._bytes: Counter[str] = Counter()
        self._places: Counter[str] = Counter()
        self._working: set[Claim] = set()
        self._free = settings.threads
        self._waiting: dict[str, deque[anyio.Event]] = {}
        self._turns = 0
        self._last_turn: dict[str, int] = {}

    @property
    def held(self) -> int:
        """Bytes of all requests."""
        return self._held

    @property
    def in_hand(self) -> int:
        """Requests that are worked on or wait for their turn."""
        return self._places.total()

    @contextlib.asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """Compute one block: the clients that wait take turns."""
        if self._free:
            self._free -= 1
            self._note_turn(client)
        else:
            given = anyio.Event()
            self._waiting.setdefault(client, deque()).append(given)
            try:
                await given.wait()
            except BaseException:
                if given.is_set():
                    self._pass_on()
                else:
                    self._waiting[client].remove(given)
                    if not self._waiting[client]:
                        del self._waiting[client]
                raise
        try:
            yield
        finally:
            self._pass_on()

    def _note_turn(self, client: str) -> None:
        self._turns += 1
        self._last_turn[client] = self._turns

    def _pass_on(self) -> None:
        if not self._waiting:
            self._free += 1
            return
        client = min(self._waiting, key=lambda one: self._last_turn.get(one, 0))
        self._note_turn(client)
        queue = self._waiting[client]
        queue.popleft().set()
        if not queue:
            del self._waiting[client]

    def _hold(self, client: str, more: int) -> None:
        """Count bytes; where they are too many, they are not counted."""
        most, share = self._settings.held_bytes, self._settings.held_bytes_of_client
        with self._lock:
            if more > 0 and self._held + more > most:
                raise busy(f"all requests together hold {self._held} bytes, of {most} that they may")
            if more > 0 and self._bytes[client] + more > share:
                raise busy(f"your requests hold {self._bytes[client]} bytes, of {share} that those of one client may")
            self._held += more
            self._bytes[client] += more
            self._forget(self._bytes, client)
            if client not in self._bytes and client not in self._places:
                self._last_turn.pop(client, None)

    @contextlib.contextmanager
    def _place(self, client: str) -> Iterator[None]:
        most, share = self._settings.max_concurrent, self._settings.places_of_client
        if self.in_hand >= most:
            raise busy(f"{most} requests are in hand, the most that are")
        if self._places[client] >= share:
            raise busy(f"{share} of your requests are in hand, of {most} the most that are of one client")
        self._places[client] += 1
        try:
            yield
        finally:
            self._places[client] -= 1
            self._forget(self._places, client)

    @staticmethod
    def _forget(counts: Counter[str], client: str) -> None:
        if not counts[client]:
            del counts[client]

    def _take_on(self, claim: Claim, seconds: float) -> None:
        """Let a request have its seconds, unless it, or a long one that is in hand, would come too late."""
        with self._lock:
            claim.left_s = 0.0  # what was thought of it before
            others = [one for one in self._working if one is not claim and one.left_s > 0]
            long = [one for one in others if one.left_s >= SHORT_S and self._finish(one) <= one.time_left_s()]
            claim.left_s = seconds
            self._working.add(claim)
            late = self._finish(claim) - HEADROOM * claim.time_left_s()
            if seconds >= SHORT_S:
                late = max([late, *(self._finish(one) - one.time_left_s() for one in long)])
            if others and late > 0:
                self._working.discard(claim)
                claim.left_s = 0.0
                again = min(late, self._settings.deadline_s)  # by then all that is in hand is over
                raise busy(f"this takes about {seconds:.0f} s, and there is no time for it before its deadline", again)

    def _end(self, claim: Claim) -> None:
        with self._lock:
            claim.left_s = 0.0
            self._working.discard(claim)

    def _finish(self, claim: Claim) -> float:
        """Seconds until a request in hand is done, where clients, and the requests of each, take turns."""
        of_client: Counter[str] = Counter()
        mine = 0.0
        for one in self._working:
            if one.client == claim.client:
                mine += min(one.left_s, claim.left_s)
            else:
                of_client[one.client] += one.left_s  # type: ignore[assignment]
        return (mine + sum(min(left, mine) for left in of_client.values())) / self._settings.threads


class Claim:
    """What one request has of a worker, from its head to the last byte of its answer.

    Attributes:
        client: who sent it.
        left_s: seconds of work that are left, as far as that is known.
    """

    def __init__(self, room: Room, client: str, deadline: float) -> None:
        """Nothing is held yet.

        Args:
            room: of the worker.
            client: of `client_name`.
            deadline: of `time.monotonic`.
        """
        self._room, self.client, self._deadline = room, client, deadline
        self._bytes = 0
        self.left_s = 0.0

    def time_left_s(self) -> float:
        """Seconds until the deadline."""
        return self._deadline - time.monotonic()

    def hold(self, size: int) -> None:
        """Hold so many bytes, in place of those until now; `HTTPException` 429 where there is no room."""
        self._room._hold(self.client, size - self._bytes)
        self._bytes = size

    def hold_more(self, size: int) -> None:
        """Hold more bytes; errors as in `hold`."""
        self.hold(self._bytes + size)

    def place(self) -> contextlib.AbstractContextManager[None]:
        """One of the requests in hand; `HTTPException` 429 where there are too many."""
        return self._room._place(self.client)

    def take_on(self, seconds: float) -> None:
        """Begin work of so many seconds; `HTTPException` 429 where it would come too late.

        Where nothing else is worked on it may begin: whoever tries finds out how long it takes.
        """
        self._room._take_on(self, seconds)

    def done(self) -> None:
        """The work is done; bytes may be held still."""
        self._room._end(self)

    def release(self) -> None:
        """The request is over."""
        self.done()
        self.hold(0)


@functools.lru_cache(maxsize=1024)
def client_name(address: str | None) -> str:
    """The client of an address: of IPv6 its network, which one machine may have all addresses of."""
    try:
        found = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return address or "local"
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    return str(found.ipv4_mapped or ipaddress.ip_network((int(found), _NETWORK_BITS), strict=False))


def busy(why: str, after_s: float = 1.0, reason: str = "busy") -> HTTPException:
    """The 429 of a request that there is no room for, which is counted under a reason."""
    INTERRUPTED.labels(reason).inc()
    after = max(1, math.ceil(after_s))
    return HTTPException(429, f"{why}; try again in {after} s", {"Retry-After": str(after)})
