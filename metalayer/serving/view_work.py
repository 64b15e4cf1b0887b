"""The work on a request of the page: what is looked at, and why a score is what it is; see `view.py`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import polars as pl

from metalayer.release.contract import SEQUENCE, Mistakes, RequestError
from metalayer.release.variant_contract import VARIANT
from metalayer.release.view_contract import SCORES, parse_explain, parse_view
from metalayer.serving.media import JSON
from metalayer.serving.metrics import LETTERS, SCORED_VARIANTS
from metalayer.serving.view import Viewer
from metalayer.serving.work import Asked, Part, log_request, refuse_late

_BYTES_OF_A_BASE = 120
"""Of a letter that is scored: itself as text and token, scores of base and meta in float32 and as text."""
_VIEW, _EXPLAIN = "view", "explain"


def view_work(asked: Asked, body: bytes) -> tuple[float, Iterator[Part | None]]:
    """A gene, region, sequence or variant to letters, scores, annotation and called sites.

    Raises:
        RequestError: as in `parse_view` and `Viewer`, and of query parameters.
    """
    looked, viewer = parse_view(body, asked.settings.limits), _viewer(asked)
    assert asked.sources is not None
    pace, options, scored = asked.sources.pace, asked.sources.options(asked.query), _wants_scores(asked)
    if looked.kind == VARIANT:
        way = f"{_VIEW} {VARIANT} {max(options.distance, options.context)}"

        def variant() -> Iterator[Part | None]:
            begun = time.perf_counter()
            found = viewer.variant(asked.engine, looked.text, options)
            pace.note(way, 1, time.perf_counter() - begun)
            SCORED_VARIANTS.inc()
            yield _part(asked, found)

        return pace.seconds(way, 1), variant()
    count, steps = viewer.look(asked.engine, looked, scored=scored)
    asked.claim.hold(_BYTES_OF_A_BASE * count)

    def parts() -> Iterator[Part | None]:
        begun = time.perf_counter()
        for found in steps:
            if found is None:
                refuse_late(asked, time.perf_counter() - begun, SEQUENCE, count, pace.seconds(_VIEW, 1))
                yield None
                continue
            if count:
                pace.note(_VIEW, count, time.perf_counter() - begun)
                LETTERS.inc(count)
            if looked.kind == SEQUENCE:
                log_request(asked, pl.Series([looked.text]))
            yield _part(asked, found)

    return pace.seconds(_VIEW, count), parts()


def explain_work(asked: Asked, body: bytes) -> tuple[float, Iterator[Part | None]]:
    """A site to what each input of the model adds to its score.

    Raises:
        RequestError: as in `parse_explain` and `Viewer.explain`.
    """
    explained, viewer = parse_explain(body, asked.settings.limits), _viewer(asked)
    assert asked.sources is not None
    pace = asked.sources.pace

    def parts() -> Iterator[Part | None]:
        begun = time.perf_counter()
        found = viewer.explain(asked.engine, explained)
        pace.note(_EXPLAIN, 1, time.perf_counter() - begun)
        yield _part(asked, found)

    return pace.seconds(_EXPLAIN, 1), parts()


def _wants_scores(asked: Asked) -> bool:
    """Raises `RequestError` of a value that cannot be."""
    given, mistakes = asked.query.get(SCORES, "true"), Mistakes()
    if given not in ("true", "false"):
        mistakes.add(None, SCORES, given[:80], "true or false")
    mistakes.raise_if_any()
    return given == "true"


def _viewer(asked: Asked) -> Viewer:
    """Raises `RequestError` of another form than JSON."""
    if asked.form != JSON:
        raise RequestError(f"Content-Type {asked.form!r}; this call takes {JSON} alone", 415)
    if asked.wanted != JSON:
        raise RequestError(f"Accept {asked.wanted!r}; this call answers with {JSON} alone", 406)
    assert asked.sources is not None
    return Viewer(asked.sources, asked.settings.max_sequence_bp)


def _part(asked: Asked, found: dict[str, Any]) -> Part:
    note = f"; {asked.settings.standing}" if asked.settings.standing else ""
    model = {"name": asked.engine.name, "version": asked.engine.version}
    note = f"research predictions{note}"
    return Part(json.dumps({**found, "model": model, "note": note}, allow_nan=False).encode(), last=True)
