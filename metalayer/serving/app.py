"""The HTTP interface: an ASGI application over an `Engine`.

Every answer, errors included, says which model gave it (X-Model-Name, X-Model-Version,
X-Model-Digest) and to which request (X-Request-Id); errors are JSON. Parsing, scoring and encoding run
in threads, one block a turn, so that a short request does not wait for all of a long one, probes
answer meanwhile and the deadline is kept between blocks; what takes a few milliseconds needs no thread.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import anyio
import anyio.to_thread
import numpy as np
import polars as pl
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from metalayer.release.contract import SEQUENCE, RequestError, parse_rows, parse_sequence
from metalayer.release.engine import SEQUENCE_COLUMNS, Engine
from metalayer.schema import CLASSES, POSITIONS, ROWS
from metalayer.serving import arrow
from metalayer.serving.admission import SHORT_S, Claim, Room, busy, client_name
from metalayer.serving.bodies import read_body
from metalayer.serving.keys import Keys
from metalayer.serving.media import JSON, answer_form, body_coding, body_form, decode
from metalayer.serving.metrics import (
    IN_HAND,
    INTERRUPTED,
    LETTERS,
    LOGGED,
    MEDIA_TYPE,
    OTHER,
    REQUESTS,
    SCORED_ROWS,
    SECONDS,
    counts_folder,
    exposition,
)
from metalayer.serving.openapi import METRICS_PATH, document, page
from metalayer.serving.request_log import Answered, RequestLog
from metalayer.serving.settings import ServingSettings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """A request whose body is there: the engine that answers, the form of the answer, and who wants to know."""

    engine: Engine
    form: str
    wanted: str
    settings: ServingSettings
    request_id: str
    log: RequestLog | None
    claim: Claim


@dataclass(frozen=True)
class Part:
    """A part of an answer."""

    content: bytes
    last: bool


Work = Callable[[Asked, bytes], tuple[float, Iterator[Part | None]]]
"""Request and its decoded body: the seconds that it takes; None for each block done, then the parts of the answer."""

INLINE_BYTES = 32 * 2**10
"""Rows in JSON up to this are scored without a thread: handing over takes as long as scoring them."""
_JSON_ROWS = 8192
"""Rows of a part of an answer in JSON: as Python numbers and text they take thirty times their bytes."""
_POSITION_BYTES = 4 * (2 * len(SEQUENCE_COLUMNS) + len(CLASSES)) + 2
"""Of a letter that is scored: itself, a label; in float32 its base scores, and its answers by block and as a whole."""
CERTAIN = 2
"""How many times the time that is left work has to take for it to be ended early: a machine may become faster."""
_AT_A_TIME = 2**18
"""Bytes of an answer that are sent before it is seen whether the client takes them."""
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._:/+=-]{1,128}$")

logger = logging.getLogger(__name__)


class Serving:
    """What answers now: the engine, which each request keeps from its start to its end, and the settings."""

    def __init__(self, engine: Engine | None = None, settings: ServingSettings | None = None) -> None:
        self.engine = engine
        self.previous: Engine | None = None
        self.settings = settings or ServingSettings()
        self.registry: dict[str, str | None] = {
            "state": "not followed",
            "since": None,
            "last_answer": None,
            "says": "this server stays with the version it was packaged with",
        }
        self.draining = False
        self.room = Room(self.settings)
        self.log = _request_log(self.settings)
        self.keys, self.metrics_keys = Keys(self.settings.all_keys()), Keys(self.settings.metrics_keys())
        self.document = document(self.settings)

    def swap(self, engine: Engine) -> None:
        """Answer with another engine from the next request on; the one before stays loaded."""
        self.previous, self.engine = self.engine, engine

    def close(self) -> None:
        """Write what the request log still holds; nothing is answered after this."""
        if self.log is not None:
            self.log.close()

    def admit(self, authorization: str, path: str) -> bool:
        """Whether a request with this header may enter."""
        keys = self.metrics_keys if path == METRICS_PATH in self.document["paths"] else self.keys
        return keys.admit(authorization)

    def client(self, address: str | None, authorization: str) -> str:
        """Who sent a request that is admitted: the owner of its key, where there are several, else its address."""
        return authorization.partition(" ")[2].strip() if len(self.keys) > 1 else client_name(address)


def _request_log(settings: ServingSettings) -> RequestLog | None:
    if settings.log_dir is None:
        return None

    def count(outcome: str, rows: int) -> None:
        LOGGED.labels(outcome).inc(rows)

    return RequestLog(
        settings.log_dir,
        count,
        key=settings.log_key,
        queue_bytes=settings.log_queue_bytes,
        every_s=settings.log_every_s,
        max_bytes=settings.log_max_bytes,
    )


def create_app(serving: Serving) -> AsgiApp:
    """The application; `serving.engine` may be set after this and before the first request.

    It is a plain ASGI callable on purpose: BentoML lets a mounted Starlette application fall through
    to its own pages, and unknown paths would not be answered in JSON.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:  # of servers that tell; BentoML has its own hook
        yield
        serving.close()

    routes = [
        Route("/v1/score", _score, methods=["POST"]),
        Route("/v1/score_sequence", _score_sequence, methods=["POST"]),
        Route("/v1/model", _model, methods=["GET"]),
        Route("/openapi.json", _openapi, methods=["GET"]),
        Route("/docs", _docs, methods=["GET"]),
    ]
    if serving.settings.metrics_port is None:
        routes.append(Route(METRICS_PATH, _metrics, methods=["GET"]))
    app = Starlette(
        lifespan=lifespan,
        routes=routes,
        exception_handlers={RequestError: _refuse, HTTPException: _http_error, Exception: _failure},
    )
    app.router.redirect_slashes = False  # which sends clients to whatever address their Host header names

    async def identified(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        engine, arrived = serving.engine, time.monotonic()
        request_id = _request_id(scope)
        scope.setdefault("state", {}).update(serving=serving, engine=engine, arrived=arrived, request_id=request_id)
        headers = [(b"x-request-id", request_id.encode())]
        if engine is not None:
            headers += [
                (b"x-model-name", engine.name.encode()),
                (b"x-model-version", engine.version.encode()),
                (b"x-model-digest", engine.digest.encode()),
            ]

        path = scope["path"] if scope["path"] in serving.document["paths"] else OTHER
        address, _ = scope.get("client") or (None, None)
        client = serving.client(address, Request(scope).headers.get("authorization", ""))
        scope["state"]["claim"] = claim = Claim(serving.room, client, arrived + serving.settings.deadline_s)
        status = 0

        async def send_identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                closing = [(b"connection", b"close")] if serving.draining else []
                message["headers"] = [*message.get("headers", ()), *headers, *closing]
            await send(message)

        with IN_HAND.track_inprogress():
            try:
                await answer(scope, receive, send_identified)
            finally:
                claim.release()
                REQUESTS.labels(path, status or "none").inc()
                SECONDS.labels(path).observe(time.monotonic() - arrived)

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        admitted = serving.admit(Request(scope).headers.get("authorization", ""), scope["path"])
        await (app if admitted else key_needed())(scope, receive, send)

    return identified


def key_needed() -> Response:
    """The answer to who has no key."""
    error = {"error": "an API key is needed: Authorization: Bearer KEY", "details": []}
    return JSONResponse(error, status_code=401, headers={"WWW-Authenticate": "Bearer"})


def _request_id(scope: Message) -> str:
    """The client's X-Request-Id where it is short and harmless, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.match(text := value.decode("latin-1")):
            return str(text)
    return uuid.uuid4().hex


def _engine(request: Request) -> Engine:
    engine: Engine | None = request.state.engine
    if engine is None:
        state = request.state.serving.registry["state"]
        message = f"no model answers yet (registry: {state}); ask /readyz and try again"
        raise HTTPException(503, message, {"Retry-After": "5"})
    return engine


async def _score(request: Request) -> Response:
    return await _answer(request, _rows_work)


async def _score_sequence(request: Request) -> Response:
    return await _answer(request, _sequence_work)


async def _model(request: Request) -> Response:
    serving: Serving = request.state.serving
    described = _engine(request).describe() | {"registry": serving.registry, "limits": asdict(serving.settings.limits)}
    return JSONResponse(described)


async def _openapi(request: Request) -> Response:
    return JSONResponse(request.state.serving.document)


async def _metrics(_: Request) -> Response:
    return Response(await anyio.to_thread.run_sync(exposition, counts_folder()), media_type=MEDIA_TYPE)


async def _docs(request: Request) -> Response:
    return HTMLResponse(page(request.state.serving.document))


async def _answer(request: Request, work: Work) -> Response:
    """Read the body, then do the work block by block, within the limits and the deadline."""
    serving: Serving = request.state.serving
    settings, claim = serving.settings, request.state.claim
    engine = _engine(request)
    form, coding = body_form(request.headers), body_coding(request.headers)
    wanted = answer_form(request.headers, form)
    asked = Asked(engine, form, wanted, settings, request.state.request_id, serving.log, claim)
    try:
        body = [await read_body(request, claim, settings, request.state.arrived)]
        short = work is _rows_work and form == JSON and coding == "identity" and len(body[0]) <= INLINE_BYTES
        with claim.place():
            kind = f"{request.url.path} {form} {coding}"
            if not short:
                claim.take_on(engine.pace.seconds(kind, len(body[0])))
            steps, first = _steps(work, asked, body, kind, coding), None
            while first is None:
                first = await _step(request, steps, short=short)
            claim.done()
    except ClientDisconnect:
        INTERRUPTED.labels("disconnect").inc()
        return Response(status_code=400)
    return _Sent(first, wanted, lambda: _step(request, steps, begun=True))


def _steps(work: Work, asked: Asked, body: list[bytes], kind: str, coding: str) -> Iterator[Part | None]:
    """The work on a body, which is taken from its list and not kept longer than it is needed.

    What bodies of its kind took by the byte says before one is decoded and read whether there is time for it: by then
    more is known than when it came.
    """
    claim, pace = asked.claim, asked.engine.pace
    sent, begun = len(body[0]), time.perf_counter()
    claim.take_on(pace.seconds(kind, sent))

    def decoded() -> bytes:
        found = decode(body.pop(), coding, asked.settings.max_body_bytes, claim.hold_more)
        claim.hold(len(found))
        return found

    seconds, parts = work(asked, decoded())
    if sent > INLINE_BYTES:  # of small ones each byte takes much longer
        pace.note(kind, sent, time.perf_counter() - begun + seconds)
    claim.take_on(seconds)
    yield from parts


async def _step(
    request: Request, steps: Iterator[Part | None], *, short: bool = False, begun: bool = False
) -> Part | None:
    """One step of the work, when it is this client's turn; none where the client has gone or the deadline is over.

    Args:
        request: of the client.
        steps: of the work.
        short: whether a step takes less time than a thread.
        begun: whether the answer is being sent, for which there is no deadline.
    """
    serving: Serving = request.state.serving
    claim, deadline_s = request.state.claim, serving.settings.deadline_s
    async with serving.room.turn(claim.client):
        if await request.is_disconnected():
            raise ClientDisconnect
        if not begun and claim.time_left_s() < 0:
            INTERRUPTED.labels("deadline").inc()
            raise HTTPException(504, f"not done within {deadline_s:g} s: send fewer rows, or letters")
        return next(steps) if short else await anyio.to_thread.run_sync(next, steps)


class _Sent(Response):  # type: ignore[misc]
    """An answer that is sent part by part, as fast as its client takes it; further parts are made meanwhile."""

    def __init__(self, first: Part, media_type: str, further: Callable[[], Awaitable[Part | None]]) -> None:
        super().__init__(first.content if first.last else b"", media_type=media_type)
        self._first, self._further = first, further

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        headers = [header for header in self.raw_headers if self._first.last or header[0] != b"content-length"]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        part: Part | None = self._first
        while part is not None:
            size = len(part.content)
            for start in range(0, size, _AT_A_TIME):
                content, more = part.content[start : start + _AT_A_TIME], not part.last or start + _AT_A_TIME < size
                await send({"type": "http.response.body", "body": content, "more_body": more})
            if part.last:
                return
            try:
                part = await self._further()
            except ClientDisconnect:
                INTERRUPTED.labels("disconnect").inc()
                return


def _rows_work(asked: Asked, body: bytes) -> tuple[float, Iterator[Part | None]]:
    rows = (parse_rows if asked.form == JSON else arrow.read_rows)(body, asked.settings.limits)
    asked.claim.hold(rows.nbytes + 8 * len(CLASSES) * len(rows))  # with its answers, by block and as a whole

    def note(answers: NDArray[np.float32]) -> None:
        SCORED_ROWS.inc(len(answers))
        _log(asked, rows.sequences, rows.index, rows.row_scores, answers)

    parts = _by_block(asked, asked.engine.score(rows), len(rows), CLASSES, ROWS, note)
    return asked.engine.pace.seconds(ROWS, len(rows)), parts


def _sequence_work(asked: Asked, body: bytes) -> tuple[float, Iterator[Part | None]]:
    given = (parse_sequence if asked.form == JSON else arrow.read_sequence)(body, asked.settings.limits)
    asked.claim.hold(_POSITION_BYTES * len(given))

    def note(answers: NDArray[np.float32]) -> None:
        LETTERS.inc(len(answers))
        _log(asked, pl.Series([given.sequence]))

    parts = _by_block(asked, asked.engine.score_sequence(given), len(given), SEQUENCE_COLUMNS, POSITIONS, note)
    return asked.engine.pace.seconds(POSITIONS, len(given)), parts


def _log(
    asked: Asked,
    sequences: pl.Series,
    index: NDArray[np.int64] | None = None,
    row_scores: NDArray[np.float32] | None = None,
    answers: NDArray[np.float32] | None = None,
) -> None:
    if asked.log is not None:
        engine = asked.engine
        model = (engine.name, engine.version, engine.digest)
        asked.log.put(Answered(asked.request_id, *model, sequences, index, row_scores, answers))


def _by_block(
    asked: Asked,
    blocks: Iterator[NDArray[np.float32]],
    count: int,
    names: Sequence[str],
    way: str,
    note: Callable[[NDArray[np.float32]], None],
) -> Iterator[Part | None]:
    """None for each block done, then the parts of the answer.

    Args:
        asked: the request.
        blocks: answers (n, k).
        count: rows or letters of all blocks.
        names: of the k columns.
        way: of asking.
        note: hears of all answers.

    Raises:
        HTTPException: 429 of what will not be done in time any more.
        RequestError: 413 of what takes longer than the deadline on its own.
    """
    claim, pace = asked.claim, asked.engine.pace
    done: list[NDArray[np.float32]] = []
    ready, spent, begun = 0, 0.0, time.perf_counter()
    for block in blocks:
        done.append(block)
        ready += len(block)
        taken = time.perf_counter() - begun
        spent += taken
        pace.note(way, len(block), taken)
        claim.left_s = pace.seconds(way, count - ready)
        if spent > SHORT_S and claim.left_s > CERTAIN * claim.time_left_s():
            raise _too_late(claim, way, count, asked.settings.deadline_s / pace.seconds(way, 1))
        yield None
        begun = time.perf_counter()
    answers = np.concatenate(done)
    done.clear()
    if not np.isfinite(answers).all():
        raise ValueError("the model gave numbers that are not finite")
    note(answers)
    yield from encode_answer(answers, names, asked.engine.answered(way), asked.wanted)


def _too_late(claim: Claim, way: str, count: int, possible: float) -> HTTPException | RequestError:
    """The refusal of work that has begun and cannot be done before its deadline."""
    if count < possible:
        return busy("this worker is busy, and this would not be done in time", claim.left_s, "deadline")
    INTERRUPTED.labels("deadline").inc()
    field, units = ("rows", "rows") if way == ROWS else (SEQUENCE, "letters")
    most = max(1, int(possible / 2))
    detail = {"row": None, "field": field, "given": f"{count} {units}", "allowed": f"here, about {most} at a time"}
    return RequestError(f"{count} {units} cannot be answered in time here: send about {most} at a time", 413, [detail])


def encode_answer(
    answers: NDArray[np.float32], names: Sequence[str], answered: Mapping[str, str], form: str = JSON
) -> Iterator[Part]:
    """Answers (n, k) as `{"rows": [{name: p, ...}, ...], ...}`, or as an Arrow stream of k columns, in parts.

    Args:
        answers: probabilities.
        names: of the columns.
        answered: what the answer says of itself: further fields, or metadata of the Arrow schema.
        form: media type.
    """
    if form != JSON:
        yield Part(arrow.encode(answers, names, answered), last=True)
        return
    for start in range(0, len(answers), _JSON_ROWS):
        last = start + _JSON_ROWS >= len(answers)
        rows = [dict(zip(names, row, strict=True)) for row in answers[start : start + _JSON_ROWS].tolist()]
        text = json.dumps(rows, separators=(",", ":"), allow_nan=False)[1:-1]
        before, after = "," if start else '{"rows":[', f"],{json.dumps(dict(answered))[1:]}" if last else ""
        yield Part(f"{before}{text}{after}".encode(), last=last)


async def _refuse(_: Request, error: RequestError) -> Response:
    return JSONResponse({"error": str(error), "details": error.details}, status_code=error.status)


async def _http_error(request: Request, error: HTTPException) -> Response:
    message, status, headers = error.detail, error.status_code, dict(error.headers or {})
    paths, path = request.state.serving.document["paths"], request.url.path
    if status == 404 and path in paths:  # a probe, which BentoML answers, by another method
        status, headers["Allow"] = 405, ", ".join(paths[path]).upper()
    if status == 404:
        there = [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]
        message = f"no {path}; there are {', '.join(there)}"
    elif status == 405:
        message = f"{request.method} on {path}; allowed: {headers['Allow']}"
    return JSONResponse({"error": message, "details": []}, status_code=status, headers=headers)


async def _failure(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "internal error; the server's log has the cause", "details": []}, status_code=500)
