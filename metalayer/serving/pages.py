"""Pages that the server shows in a browser, all from this package: no other address, no text of a request in them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import anyio
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

_FOLDER = Path(__file__).with_name("docs_page")
_FILES = {
    "/docs": ("index.html", "text/html; charset=utf-8"),
    "/docs/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/docs/page.css": ("page.css", "text/css; charset=utf-8"),
    "/docs/swagger-ui-bundle.js": ("swagger-ui-bundle.js", "text/javascript; charset=utf-8"),
    "/docs/swagger-ui.css": ("swagger-ui.css", "text/css; charset=utf-8"),
}
OPEN = ("/", *_FILES)
"""Paths that need no key: they are the same on every server, and ask for one before they show what this one has."""
_HEADERS = {
    # swagger-ui sets styles of its own, and draws with images in its text.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "max-age=3600",
}


def routes() -> list[Route]:
    """`/`, which leads to `/docs`, and that with its files."""
    return [
        Route("/", _home, methods=["GET"]),
        *(Route(path, _file(name, media), methods=["GET"]) for path, (name, media) in _FILES.items()),
    ]


async def _home(_: Request) -> Response:
    return RedirectResponse("docs")  # relative: whatever the client calls this server


def _file(name: str, media: str) -> Callable[[Request], object]:
    async def answer(_: Request) -> Response:
        content = await anyio.to_thread.run_sync(_content, name)
        return Response(content, media_type=media, headers=_HEADERS)

    return answer


@functools.cache
def _content(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()
