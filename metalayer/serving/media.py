"""What HTTP says about bodies: media types, codings and preferences."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import pyarrow as pa

from metalayer.release.contract import RequestError
from metalayer.serving import arrow
from metalayer.serving.arrow import too_large

JSON = "application/json"
ARROW = arrow.MEDIA_TYPE
FORMS = (JSON, ARROW)
CODINGS = ("identity", "gzip", "zstd")
_PART_BYTES = 2**20


def body_form(headers: Mapping[str, str]) -> str:
    """The media type of a body, of `FORMS`.

    Raises:
        RequestError: 415.
    """
    given = headers.get("content-type", "")
    kind, *parameters = [part.strip().lower() for part in given.split(";")]
    charset = next((p.partition("=")[2].strip('" ') for p in parameters if p.startswith("charset=")), "utf-8")
    if kind not in FORMS or charset not in ("utf-8", "utf8"):
        raise RequestError(f"Content-Type {given!r}; supported is {' (UTF-8) and '.join(FORMS)}", 415)
    return kind


def body_coding(headers: Mapping[str, str]) -> str:
    """The coding of a body, of `CODINGS`.

    Raises:
        RequestError: 415.
    """
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in CODINGS:
        raise RequestError(f"Content-Encoding {coding!r}; supported is one of {', '.join(CODINGS)}", 415)
    return coding


def answer_form(headers: Mapping[str, str], form: str) -> str:
    """The media type that `Accept` asks for; without a preference that of the body.

    Raises:
        RequestError: 406.
    """
    accept = headers.get("accept", "*/*")
    if accept in ("*/*", form):
        return form
    wanted = {kind: _quality(accept, kind) for kind in (form, *FORMS)}  # the first of equals is the body's own
    best = max(wanted, key=lambda kind: wanted[kind])
    if not wanted[best]:
        raise RequestError(f"Accept {accept!r}; answers come as {' or '.join(FORMS)}", 406)
    return best


def _quality(accept: str, kind: str) -> float:
    """How much a media type is wanted, 0 to 1: by the most specific range that covers it."""
    found: dict[str, float] = {}
    for item in accept.split(","):
        name, *parameters = [part.strip().lower() for part in item.split(";")]
        q = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        found[name] = float(q) if re.fullmatch(r"[01](\.\d*)?", q) else 1.0
    return next((found[name] for name in (kind, "application/*", "*/*") if name in found), 0.0)


def decode(body: bytes, coding: str, limit: int, more: Callable[[int], None] = lambda _: None) -> bytes:
    """The body without its coding; never holds more than `limit` bytes of it.

    Args:
        body: as it was sent.
        coding: of `CODINGS`.
        limit: bytes that it may become.
        more: hears of bytes before they are kept, and may raise.

    Raises:
        RequestError: 413 of one that becomes larger, 422 of one that is damaged or cut off.
    """
    if coding == "identity":
        return body
    parts: list[pa.Buffer] = []
    size = 0
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), coding) as stream:
            while part := stream.read_buffer(_PART_BYTES):  # `read` never frees its part of a damaged stream
                size += len(part)
                if size > limit:
                    raise too_large("the decoded body", limit)
                more(len(part))
                parts.append(part)
    except (OSError, pa.ArrowException) as error:
        detail = {"row": None, "field": "body", "given": str(error), "allowed": f"a whole {coding} stream"}
        raise RequestError(f"the body is not {coding}: {error}", 422, [detail]) from None
    return b"".join(parts)
