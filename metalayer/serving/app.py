"""The HTTP interface: an ASGI application over an `Engine`.

POST /v1/score, GET /v1/model. Every answer, errors included, is JSON and says which model gave it
(X-Model-Name, X-Model-Version, X-Model-Digest) and to which request (X-Request-Id). Parsing and
scoring run in a thread, so that probes answer meanwhile.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import anyio.to_thread
import numpy as np
from numpy.typing import NDArray
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from metalayer.schema import CLASSES
from metalayer.serving.engine import Engine
from metalayer.serving.schemas import Limits, RequestError, parse_rows

JSON = "application/json"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]

_REQUEST_ID = re.compile(r"^[A-Za-z0-9._:/+=-]{1,128}$")


class Serving:
    """Holds the engine that answers now; each request keeps the one it started with."""

    def __init__(self, engine: Engine | None = None, limits: Limits | None = None) -> None:
        self.engine = engine
        self.limits = limits or Limits()


def create_app(serving: Serving) -> AsgiApp:
    """The application; `serving.engine` may be set after this and before the first request.

    It is a plain ASGI callable on purpose: BentoML lets a mounted Starlette application fall through
    to its own pages, and unknown paths would not be answered in JSON.
    """
    app = Starlette(
        routes=[
            Route("/v1/score", _score, methods=["POST"]),
            Route("/v1/model", _model, methods=["GET"]),
        ],
        exception_handlers={RequestError: _refuse, HTTPException: _http_error, Exception: _failure},
    )

    async def identified(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        engine = serving.engine
        scope.setdefault("state", {}).update(engine=engine, limits=serving.limits)
        headers = [(b"x-request-id", _request_id(scope).encode())]
        if engine is not None:
            headers += [
                (b"x-model-name", engine.name.encode()),
                (b"x-model-version", engine.version.encode()),
                (b"x-model-digest", engine.digest.encode()),
            ]

        async def send_identified(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        await app(scope, receive, send_identified)

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
        raise HTTPException(503, "the model is not loaded yet; ask /readyz and try again")
    return engine


async def _score(request: Request) -> Response:
    engine = _engine(request)
    _check_media_types(request)
    limits: Limits = request.state.limits
    try:
        body = await _read_body(request, limits.max_body_bytes)
    except ClientDisconnect:
        return Response(status_code=400)

    def answer() -> bytes:
        return encode_answer(engine.score(parse_rows(body, limits)))

    return Response(await anyio.to_thread.run_sync(answer), media_type=JSON)


async def _model(request: Request) -> Response:
    return JSONResponse(_engine(request).describe())


def encode_answer(probabilities: NDArray[np.float32]) -> bytes:
    """Probabilities (n, 3) as `{"rows": [{"donor": p, "acceptor": p, "neither": p}, ...]}`."""
    rows = [dict(zip(CLASSES, row, strict=True)) for row in probabilities.tolist()]
    return json.dumps({"rows": rows}, separators=(",", ":"), allow_nan=False).encode()


def _check_media_types(request: Request) -> None:
    """Refuse what cannot be read (415) or written (406)."""
    given = request.headers.get("content-type", "")
    kind, *parameters = [part.strip().lower() for part in given.split(";")]
    charset = next((p.partition("=")[2].strip('" ') for p in parameters if p.startswith("charset=")), "utf-8")
    if kind != JSON or charset not in ("utf-8", "utf8"):
        raise RequestError(f"Content-Type {given!r}; supported is {JSON} (UTF-8)", 415)
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise RequestError(f"Content-Encoding {coding!r}; supported is identity", 415)
    accept = request.headers.get("accept", "*/*")
    if not any(_accepts(item) for item in accept.split(",")):
        raise RequestError(f"Accept {accept!r}; answers come as {JSON}", 406)


def _accepts(item: str) -> bool:
    kind, *parameters = [part.strip().lower() for part in item.split(";")]
    refused = any(re.fullmatch(r"q=0(\.0*)?", parameter) for parameter in parameters)
    return kind in ("*/*", "application/*", JSON) and not refused


async def _read_body(request: Request, limit: int) -> bytes:
    """The body, never holding more than `limit` bytes of it."""
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    parts: list[bytes] = []
    if size <= limit:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                break
            parts.append(part)
    if size > limit:
        detail = {"row": None, "field": "body", "given": f"{size} bytes or more", "allowed": f"up to {limit} bytes"}
        raise RequestError(f"the body is larger than {limit} bytes: split the request", 413, [detail])
    return b"".join(parts)


async def _refuse(_: Request, error: RequestError) -> Response:
    return JSONResponse({"error": str(error), "details": error.details}, status_code=error.status)


async def _http_error(request: Request, error: HTTPException) -> Response:
    message = error.detail
    if error.status_code == 404:
        message = f"no {request.url.path}; there are POST /v1/score and GET /v1/model"
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.method} on {request.url.path}; allowed: {allowed}"
    return JSONResponse({"error": message, "details": []}, status_code=error.status_code, headers=error.headers)


async def _failure(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "internal error; the server's log has the cause", "details": []}, status_code=500)
