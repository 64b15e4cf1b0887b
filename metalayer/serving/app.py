"""The HTTP interface: an ASGI application over an `Engine`.

Every answer, errors included, says which model gave it (X-Model-Name, X-Model-Version,
X-Model-Digest; X-Model-Standing, where it was asked for and is no champion) and to which request (X-Request-Id);
errors are JSON. Parsing, scoring and encoding run
in threads, one block a turn, so that a short request does not wait for all of a long one, probes
answer meanwhile and the deadline is kept between blocks; what takes a few milliseconds needs no thread.
"""

from __future__ import annotations

import contextlib
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from dataclasses import asdict
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from metalayer.release.contract import RequestError
from metalayer.release.engine import Engine
from metalayer.serving import pages
from metalayer.serving.admission import Claim
from metalayer.serving.bodies import read_body
from metalayer.serving.media import JSON, answer_form, body_coding, body_form, decode
from metalayer.serving.metrics import (
    IN_HAND,
    INTERRUPTED,
    MEDIA_TYPE,
    OTHER,
    REQUESTS,
    SECONDS,
    counts_folder,
    exposition,
)
from metalayer.serving.openapi import METRICS_PATH, SCORE_VARIANTS_PATH, of_model
from metalayer.serving.state import Serving
from metalayer.serving.variants import described as variants_described
from metalayer.serving.variants import missing
from metalayer.serving.view_openapi import EXPLAIN_PATH, VIEW_PATH
from metalayer.serving.view_work import explain_work, view_work
from metalayer.serving.work import Asked, Part, Work, rows_work, sequence_work, variants_work

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]


INLINE_BYTES = 32 * 2**10
"""Rows in JSON up to this are scored without a thread: handing over takes as long as scoring them."""
_AT_A_TIME = 2**18
"""Bytes of an answer that are sent before it is seen whether the client takes them."""
_SILENT_S = 0.02
"""Seconds without a look whether the client is there still."""
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._:/+=-]{1,128}$")

logger = logging.getLogger(__name__)


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
        *(Route(path, _on_reference(work), methods=["POST"]) for path, work in _ON_REFERENCE.items()),
        Route("/v1/model", _model, methods=["GET"]),
        Route("/openapi.json", _openapi, methods=["GET"]),
        *pages.routes(),
    ]
    if serving.settings.metrics_port is None:
        routes.append(Route(METRICS_PATH, _metrics, methods=["GET"]))
    app = Starlette(
        lifespan=lifespan,
        routes=routes,
        exception_handlers={RequestError: _refuse, HTTPException: _http_error, Exception: _failure},
    )
    app.router.redirect_slashes = False  # which sends clients to whatever address their Host header names

    standing = serving.settings.standing.encode("ascii", "replace")  # as headers are, whatever a folder is called

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
        if standing:
            headers.append((b"x-model-standing", standing))

        path = scope["path"] if scope["path"] in serving.document["paths"] else OTHER
        address, _ = scope.get("client") or (None, None)
        authorization = Request(scope).headers.get("authorization", "")
        client = serving.client(address, authorization)
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
                admitted = serving.admit(authorization, scope["path"])
                await (app if admitted else key_needed())(scope, receive, send_identified)
            finally:
                claim.release()
                REQUESTS.labels(path, status or "none").inc()
                SECONDS.labels(path).observe(time.monotonic() - arrived)

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
    return await _answer(request, rows_work)


async def _score_sequence(request: Request) -> Response:
    return await _answer(request, sequence_work)


_ON_REFERENCE: dict[str, Work] = {SCORE_VARIANTS_PATH: variants_work, VIEW_PATH: view_work, EXPLAIN_PATH: explain_work}
"""Calls that need a reference and an annotation."""


def _on_reference(work: Work) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        serving: Serving = request.state.serving
        if serving.variants is None:
            raise HTTPException(501, missing(serving.settings) or "the reference is not loaded yet; ask /readyz")
        return await _answer(request, work)

    return answer


async def _model(request: Request) -> Response:
    serving: Serving = request.state.serving
    settings, more = serving.settings, {}
    if settings.scores_variants:
        more = {"max_variants": settings.max_variants}
    described = _engine(request).describe() | {"registry": serving.registry, "limits": asdict(settings.limits) | more}
    described["variants"] = variants_described(serving.settings)
    described["examples"] = serving.variants.examples if serving.variants else {}
    described["standing"] = serving.settings.standing
    if serving.settings.standing:  # a package says what it was made for
        described["alias"] = None
    return JSONResponse(described)


async def _openapi(request: Request) -> Response:
    serving, engine = request.state.serving, request.state.engine
    return JSONResponse(of_model(serving.document, engine, serving.settings) if engine else serving.document)


async def _metrics(_: Request) -> Response:
    return Response(await anyio.to_thread.run_sync(exposition, counts_folder()), media_type=MEDIA_TYPE)


async def _answer(request: Request, work: Work) -> Response:
    """Read the body, then do the work block by block, within the limits and the deadline."""
    serving: Serving = request.state.serving
    settings, claim = serving.settings, request.state.claim
    engine = _engine(request)
    form, coding = body_form(request.headers), body_coding(request.headers)
    wanted = answer_form(request.headers, form)
    query = request.query_params if request.scope["query_string"] else {}
    log, sources = serving.log, serving.variants
    asked = Asked(engine, form, wanted, query, settings, request.state.request_id, log, claim, sources)
    try:
        body = [await read_body(request, claim, settings, request.state.arrived)]
        request.state.heard_of = time.monotonic()
        short = work is rows_work and form == JSON and coding == "identity" and len(body[0]) <= INLINE_BYTES
        with claim.place():
            kind = f"{request.scope['path']} {form} {coding}"
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

    The client is looked for where it was not heard of for `_SILENT_S`: a look takes as long as a short step.

    Args:
        request: of the client.
        steps: of the work.
        short: whether a step takes less time than a thread.
        begun: whether the answer is being sent, for which there is no deadline.
    """
    serving: Serving = request.state.serving
    claim, deadline_s = request.state.claim, serving.settings.deadline_s
    async with serving.room.turn(claim.client):
        if (now := time.monotonic()) - request.state.heard_of > _SILENT_S:
            if await request.is_disconnected():
                raise ClientDisconnect
            request.state.heard_of = now
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
