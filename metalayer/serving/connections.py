"""Connections: what one may cost before, between and after its requests.

Requests go to our application at once; only probes go through BentoML's own layers, which keep something of each
request until a time is over, whoever sent it. uvicorn bounds neither the head of a request nor the time until it is
there, nor an answer that nobody reads, nor a body that goes on after its answer. Here heads are bounded in
bytes, number of headers and seconds, before anything is done; a connection without a request is closed after some
seconds; and one whose client takes nothing of its answer is given up. `metalayer_connections_closed` counts
them by reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import sys
import termios
from typing import Any, ClassVar

import uvicorn.protocols.http.auto
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from metalayer.serving.app import AsgiApp, Message, Receive, Send
from metalayer.serving.metrics import CLOSED

PROBES = frozenset({"/livez", "/readyz", "/healthz"})
HEAD_BYTES, HEADERS = 32 * 2**10, 100
"""Of the request line and the headers together; and how many headers."""
WAITING = 1000
"""Requests of a connection that wait behind the one that is answered."""
HEAD_S = 10.0
"""Seconds from the first byte of a head, or from the start of a connection, until the head is there."""
LINGER_S = 5.0
"""Seconds that a body may go on after its answer."""
UNREAD_S = 20.0
"""Seconds in which a client has to take some of its answer."""


def bound_connections(app: AsgiApp) -> None:
    """Let uvicorn use `BoundedProtocol` with an application; BentoML leaves the choice to it, without any setting."""
    BoundedProtocol.direct = staticmethod(app)
    uvicorn.protocols.http.auto.AutoHTTPProtocol = BoundedProtocol


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with bounds.

    Attributes:
        direct: answers all but probes.
    """

    direct: ClassVar[AsgiApp]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        probed: AsgiApp = self.app

        async def app(scope: Message, receive: Receive, send: Send) -> None:
            await (probed if scope["path"] in PROBES else type(self).direct)(scope, receive, send)

        self.app = app
        self.ws_protocol_class = None  # an upgrade is not done, the request is answered
        self._patience: asyncio.TimerHandle | None = None
        self._reading: asyncio.TimerHandle | None = None
        self._head_bytes: int | None = None
        self._refusal: tuple[int, str] | None = None
        self._unread, self._taken = 0, False
        self._answered: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection: its first head is waited for."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """No connection, no timers."""
        self._stop_waiting()
        if self._reading is not None:
            self._reading.cancel()
        self.pipeline.clear()
        if self._answered is not None and not self._answered.response_complete:  # uvicorn takes the last for it
            self._answered.disconnected = True
            self._answered.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of heads and bodies."""
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self._patience is None:
            self._wait_for_head()
        in_head = self._head_bytes is not None
        super().data_received(data)
        if not in_head or self._head_bytes is None:  # of a head that began or ended here the parts are counted
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse_head(431, f"the head is larger than {HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header more."""
        super().on_header(name, value)
        if len(self.headers) > HEADERS:
            self._stop_parsing(431, f"more than {HEADERS} headers")

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._head_bytes = None
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES:
            self._stop_parsing(431, f"the head is larger than {HEAD_BYTES} bytes")
        self._stop_waiting()
        super().on_headers_complete()
        if len(self.pipeline) > WAITING:
            self._give_up("too many requests at once")
            raise ValueError  # what else came is not parsed

    def on_message_complete(self) -> None:
        """The body is there."""
        super().on_message_complete()
        if self.cycle is not None and self.cycle.response_complete:
            self._stop_waiting()
            self._wait_for_head()

    def on_response_complete(self) -> None:
        """The answer is written, and may not be sent yet."""
        body_goes_on = self.cycle.response_complete and self.cycle.more_body  # not of a request that waits behind it
        super().on_response_complete()
        if body_goes_on and not self.transport.is_closing():
            self._stop_waiting()
            self._patience = self.loop.call_later(LINGER_S, self._give_up, "body after the answer")
        self._watch_reader()

    def pause_writing(self) -> None:
        """The client takes the answer slower than it comes."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The client has taken most of what was written, and more is about to be."""
        self._taken = True
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request; uvicorn's own is plain text."""
        if self.transport.is_closing():
            return
        status, message = self._refusal or (400, "the request is no HTTP")
        self._refusal = None
        CLOSED.labels("bad head").inc()
        self._stop_waiting()
        body = json.dumps({"error": message, "details": []}).encode()
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self.transport.close()
        self._watch_reader()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        pass

    def _stop_parsing(self, status: int, message: str) -> None:
        self._refusal = status, message
        raise ValueError(message)  # which the parser passes on as an error of its own

    def _refuse_head(self, status: int, message: str) -> None:
        self._refusal = status, message
        self.send_400_response(message)

    def _wait_for_head(self) -> None:
        self._patience = self.loop.call_later(HEAD_S, self._no_head)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _no_head(self) -> None:
        self._patience = None
        if self._head_bytes is None:  # not even its first byte
            self._give_up("idle")
        else:
            self._refuse_head(408, f"the head was not there within {HEAD_S:g} s")

    def _give_up(self, reason: str) -> None:
        self._patience = None
        CLOSED.labels(reason).inc()
        self.transport.abort()

    def _watch_reader(self) -> None:
        """Look after a while whether the client has taken some of what is written."""
        if self._reading is None and self.transport.get_write_buffer_size():
            self._unread, self._taken = self._not_taken(), False
            self._reading = self.loop.call_later(UNREAD_S, self._look_at_reader)

    def _not_taken(self) -> int:
        """Bytes of the server's buffer and of the system's, which takes megabytes more only now and then."""
        system = bytearray(4)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, system)
        return self.transport.get_write_buffer_size() + int.from_bytes(system, sys.byteorder)

    def _look_at_reader(self) -> None:
        self._reading = None
        left = self.transport.get_write_buffer_size()
        if left and self._not_taken() >= self._unread and not self._taken:
            CLOSED.labels("unread answer").inc()
            self.transport.abort()
        else:
            self._watch_reader()
