"""/metrics on a port of its own, so that a network policy can tell who reads counts from who asks for scores.

The supervisor listens, in a thread: it lives as long as the server, whatever becomes of its workers, and reads the
counts that they have written. Connections are bounded as those of workers are, and in number, because the supervisor
needs files to start workers with; the ones that are closed early are in no count, which only workers keep.
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import anyio.to_thread
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from metalayer.network import listen
from metalayer.serving.app import AsgiApp, Message, Receive, Send, key_needed
from metalayer.serving.connections import BoundedProtocol
from metalayer.serving.keys import Keys
from metalayer.serving.metrics import MEDIA_TYPE, exposition
from metalayer.serving.openapi import METRICS_PATH
from metalayer.serving.settings import CIPHERS, PREFIX, ServingSettings

CONNECTIONS = 100
"""At the same time; further ones are closed."""
NAMES = f"{PREFIX}METRICS_HOST", f"{PREFIX}METRICS_PORT"


class _Protocol(BoundedProtocol):
    """Connections of this port."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """One connection more."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            self._give_up("too many connections")


def serve_metrics(settings: ServingSettings, port: int, counts: Path) -> None:
    """Answer /metrics on its port, until this process ends.

    Args:
        settings: of the server.
        port: to listen on.
        counts: folder of the workers' counts.

    Raises:
        ConfigError: a host or port that cannot be listened on.
    """
    app = metrics_app(Keys(settings.metrics_keys()), counts)
    _Protocol.direct = staticmethod(app)
    certificate, key = settings.certificate() or (None, None)
    config = uvicorn.Config(
        app,
        http=_Protocol,
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ssl_ciphers=CIPHERS,
    )
    listening = listen(settings.metrics_host, port, NAMES)
    threading.Thread(target=uvicorn.Server(config).run, args=([listening],), name="metrics", daemon=True).start()


def metrics_app(keys: Keys, counts: Path) -> AsgiApp:
    """The application of that port: /metrics, with a key where one is asked for, and nothing else."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await (await answer(Request(scope)))(scope, receive, send)

    async def answer(request: Request) -> Response:
        path = request.url.path
        if not keys.admit(request.headers.get("authorization", "")):
            return key_needed()
        if path != METRICS_PATH:
            return _refused(404, f"no {path}; there is GET {METRICS_PATH}")
        if request.method not in ("GET", "HEAD"):
            refused = _refused(405, f"{request.method} on {path}; allowed: GET, HEAD")
            refused.headers["Allow"] = "GET, HEAD"
            return refused
        return Response(await anyio.to_thread.run_sync(exposition, counts), media_type=MEDIA_TYPE)

    return app


def _refused(status: int, message: str) -> Response:
    return JSONResponse({"error": message, "details": []}, status_code=status)
