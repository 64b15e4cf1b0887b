"""Pages that the server shows in a browser, all from this package: no other address, no text of a request in them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_HERE = Path(__file__).parent
_HTML, _SCRIPT, _STYLE = (f"text/{kind}; charset=utf-8" for kind in ("html", "javascript", "css"))
_VIEW = ("page.js", "answers.js", "browser.js", "panels.js", "downloads.js", "igv.esm.min.js")
"""Modules of the page at `/`, igv.js among them."""
_FILES = {
    "/": ("view_page/index.html", _HTML),
    "/view/page.css": ("view_page/page.css", _STYLE),
    **{f"/view/{name}": (f"view_page/{name}", _SCRIPT) for name in _VIEW},
    "/docs": ("docs_page/index.html", _HTML),
    "/docs/page.js": ("docs_page/page.js", _SCRIPT),
    "/docs/page.css": ("docs_page/page.css", _STYLE),
    "/docs/swagger-ui-bundle.js": ("docs_page/swagger-ui-bundle.js", _SCRIPT),
    "/docs/swagger-ui.css": ("docs_page/swagger-ui.css", _STYLE),
}
OPEN = tuple(_FILES)
"""Paths that need no key: they are the same on every server, and ask for one before they show what this one has."""
_HEADERS = {
    # swagger-ui and igv.js set styles of their own, and draw with images in their text.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "max-age=3600",
}


def routes() -> list[Route]:
    """The page to look at genes at `/`, that of all calls at `/docs`, and their files."""
    return [Route(path, _file(name, media), methods=["GET"]) for path, (name, media) in _FILES.items()]


def _file(name: str, media: str) -> Callable[[Request], object]:
    async def answer(_: Request) -> Response:
        content = await anyio.to_thread.run_sync(_content, name)
        return Response(content, media_type=media, headers=_HEADERS)

    return answer


@functools.cache
def _content(name: str) -> bytes:
    return (_HERE / name).read_bytes()
