"""The HTTP interface: an ASGI application over an `Engine`.

Every answer, errors included, says which model gave it (X-Model-Name, X-Model-Version,
X-Model-Digest) and to which request (X-Request-Id); errors are JSON. Parsing, scoring and encoding run
in threads, one block a turn, so that a short request does not wait for all of a long one, probes
answer meanwhile and the deadline is kept between blocks; what takes a few milliseconds needs no thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
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

from metalayer.monitoring.request_log import Answered, RequestLog
from metalayer.schema import CLASSES, POSITIONS, ROWS
from metalayer.serving import arrow
from metalayer.serving.bodies import Bodies, busy
from metalayer.serving.engine import SEQUENCE_COLUMNS, Engine
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
    exposition,
)
from metalayer.serving.openapi import document, page
from metalayer.serving.schemas import Limits, RequestError, parse_rows, parse_sequence
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
    limits: Limits
    request_id: str
    log: RequestLog | None


Work = Callable[[Asked, bytes], Iterator[bytes | None]]
"""Request and its decoded body: None for each block done, the answer last."""

METRICS_PATH = "/metrics"
INLINE_BYTES = 32 * 2**10
"""Rows in JSON up to this are scored without a thread: handing over takes as long as scoring them."""
_JSON_ROWS = 8192
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
        self.in_hand = 0
        self.bodies = Bodies(self.settings)
        self.turns = anyio.CapacityLimiter(self.settings.threads)
        self.log = _request_log(self.settings)
        self._keys = [_digest(key) for key in self.settings.all_keys()]
        self._metrics_keys = [_digest(self.settings.metrics_key)] if self.settings.metrics_key else []
        self.document = document(
            self.settings, keys=bool(self._keys), metrics_key=bool(self._keys + self._metrics_keys)
        )

    def swap(self, engine: Engine) -> None:
        """Answer with another engine from the next request on; the one before stays loaded."""
        self.previous, self.engine = self.engine, engine

    def close(self) -> None:
        """Write what the request log still holds; nothing is answered after this."""
        if self.log is not None:
            self.log.close()

    def admits(self, authorization: str, path: str) -> bool:
        """Whether a request with this header may enter; the time it takes says nothing about the keys."""
        keys = self._keys
        if path == METRICS_PATH:
            keys = keys + self._metrics_keys
        scheme, _, key = authorization.partition(" ")
        given = _digest(key.strip() if scheme.lower() == "bearer" else "")
        return not keys or any([hmac.compare_digest(given, known) for known in keys])


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


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()


def create_app(serving: Serving) -> AsgiApp:
    """The application; `serving.engine` may be set after this and before the first request.

    It is a plain ASGI callable on purpose: BentoML lets a mounted Starlette application fall through
    to its own pages, and unknown paths would not be answered in JSON.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:  # of servers that tell; BentoML has its own hook
        yield
        serving.close()

    app = Starlette(
        lifespan=lifespan,
        routes=[
            Route("/v1/score", _score, methods=["POST"]),
            Route("/v1/score_sequence", _score_sequence, methods=["POST"]),
            Route("/v1/model", _model, methods=["GET"]),
            Route("/openapi.json", _openapi, methods=["GET"]),
            Route("/docs", _docs, methods=["GET"]),
            Route(METRICS_PATH, _metrics, methods=["GET"]),
        ],
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
                REQUESTS.labels(path, status or "none").inc()
                SECONDS.labels(path).observe(time.monotonic() - arrived)

    async def answer(scope: Message, receive: Receive, send: Send) -> None:
        if serving.admits(Request(scope).headers.get("authorization", ""), scope["path"]):
            await app(scope, receive, send)
            return
        error = {"error": "an API key is needed: Authorization: Bearer KEY", "details": []}
        refusal = JSONResponse(error, status_code=401, headers={"WWW-Authenticate": "Bearer"})
        await refusal(scope, receive, send)

    return identified


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
    return Response(await anyio.to_thread.run_sync(exposition), media_type=MEDIA_TYPE)


async def _docs(request: Request) -> Response:
    return HTMLResponse(page(request.state.serving.document))


async def _answer(request: Request, work: Work) -> Response:
    """Read the body, then do the work block by block, within the limits and the deadline."""
    serving: Serving = request.state.serving
    settings = serving.settings
    engine = _engine(request)
    form, coding = body_form(request.headers), body_coding(request.headers)
    wanted = answer_form(request.headers, form)
    asked = Asked(engine, form, wanted, settings.limits, request.state.request_id, serving.log)
    try:
        async with serving.bodies.read(request, request.state.arrived) as body:
            if serving.in_hand >= settings.max_concurrent:
                raise busy(f"{serving.in_hand} requests are in hand, the most that are")
            serving.in_hand += 1
            try:
                answer = await _work(request, work, asked, body, coding)
            finally:
                serving.in_hand -= 1
    except ClientDisconnect:
        INTERRUPTED.labels("disconnect").inc()
        return Response(status_code=400)
    return Response(answer, media_type=wanted)


async def _work(request: Request, work: Work, asked: Asked, body: bytes, coding: str) -> bytes:
    """The answer, block by block; none where the client has gone or the deadline is over."""
    serving: Serving = request.state.serving
    settings = serving.settings

    def steps() -> Iterator[bytes | None]:
        yield from work(asked, decode(body, coding, settings.max_body_bytes))

    short = work is _rows_work and asked.form == JSON and coding == "identity" and len(body) <= INLINE_BYTES
    iterator, answer = steps(), None
    while answer is None:
        async with serving.turns:
            if await request.is_disconnected():
                raise ClientDisconnect
            if time.monotonic() - request.state.arrived > settings.deadline_s:
                INTERRUPTED.labels("deadline").inc()
                raise HTTPException(504, f"not done within {settings.deadline_s:g} s: send fewer rows, or letters")
            answer = next(iterator) if short else await anyio.to_thread.run_sync(next, iterator)
    return answer


def _rows_work(asked: Asked, body: bytes) -> Iterator[bytes | None]:
    rows = (parse_rows if asked.form == JSON else arrow.read_rows)(body, asked.limits)

    def note(answers: NDArray[np.float32]) -> None:
        SCORED_ROWS.inc(len(answers))
        _log(asked, rows.sequences, rows.index, rows.row_scores, answers)

    return _by_block(asked, asked.engine.score(rows), CLASSES, ROWS, note)


def _sequence_work(asked: Asked, body: bytes) -> Iterator[bytes | None]:
    given = (parse_sequence if asked.form == JSON else arrow.read_sequence)(body, asked.limits)

    def note(answers: NDArray[np.float32]) -> None:
        LETTERS.inc(len(answers))
        _log(asked, pl.Series([given.sequence]))

    return _by_block(asked, asked.engine.score_sequence(given), SEQUENCE_COLUMNS, POSITIONS, note)


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
    names: Sequence[str],
    way: str,
    note: Callable[[NDArray[np.float32]], None],
) -> Iterator[bytes | None]:
    """None for each block done, the answer last."""
    done = []
    for block in blocks:
        done.append(block)
        yield None
    answers = np.concatenate(done)
    encoded = encode_answer(answers, names, asked.engine.answered(way), asked.wanted)
    note(answers)
    yield encoded


def encode_answer(
    answers: NDArray[np.float32], names: Sequence[str], answered: Mapping[str, str], form: str = JSON
) -> bytes:
    """Answers (n, k) as `{"rows": [{name: p, ...}, ...], ...}`, or as an Arrow stream of k columns.

    Args:
        answers: probabilities.
        names: of the columns.
        answered: what the answer says of itself: further fields, or metadata of the Arrow schema.
        form: media type.
    """
    if form != JSON:
        return arrow.encode(answers, names, answered)
    parts = []
    for start in range(0, len(answers), _JSON_ROWS):  # Python numbers of all rows at once would take much memory
        rows = [dict(zip(names, row, strict=True)) for row in answers[start : start + _JSON_ROWS].tolist()]
        parts.append(json.dumps(rows, separators=(",", ":"), allow_nan=False)[1:-1])
    return f'{{"rows":[{",".join(parts)}],{json.dumps(dict(answered))[1:]}'.encode()


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
