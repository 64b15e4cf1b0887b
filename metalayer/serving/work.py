"""The work on the body of a request: read it, score it block by block, encode the answer.

Nothing here waits or knows of connections: `app.py` takes one step after the other, each in its turn.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.release import answer
from metalayer.release.contract import SEQUENCE, RequestError, parse_rows, parse_sequence
from metalayer.release.engine import Engine
from metalayer.release.variant_contract import VARIANTS, parse_variants
from metalayer.schema import CLASSES, POSITIONS, ROWS
from metalayer.serving import arrow
from metalayer.serving.admission import SHORT_S, Claim, busy
from metalayer.serving.media import JSON
from metalayer.serving.metrics import INTERRUPTED, LETTERS, SCORED_ROWS, SCORED_VARIANTS
from metalayer.serving.request_log import Answered, RequestLog
from metalayer.serving.settings import ServingSettings
from metalayer.serving.variants import ANSWER_COLUMNS, VariantSources
from metalayer.variants.answers import arrow_schema


@dataclass(frozen=True)
class Asked:
    """A request whose body is there: the engine that answers, form and columns of the answer, and who wants to know."""

    engine: Engine
    form: str
    wanted: str
    query: Mapping[str, str]
    settings: ServingSettings
    request_id: str
    log: RequestLog | None
    claim: Claim
    sources: VariantSources | None = None


@dataclass(frozen=True)
class Part:
    """A part of an answer."""

    content: bytes
    last: bool


Work = Callable[[Asked, bytes], tuple[float, Iterator[Part | None]]]
"""Request and its decoded body: the seconds that it takes; None for each block done, then the parts of the answer."""

_JSON_ROWS = 8192
"""Rows of a part of an answer in JSON: as Python numbers and text they take thirty times their bytes."""
_POSITION_BYTES = 4 * (2 * len(answer.SEQUENCE_COLUMNS) + len(CLASSES)) + 2
"""Of a letter that is scored: itself, a label; in float32 its base scores, and its answers by block and as a whole."""
_VARIANT_BYTES = 20_000
"""Of a variant: its rows as Python numbers, and their text."""
VARIANTS_NOTE = "gains and losses of splice sites between the two haplotypes, by gene and model; a research prediction"
CERTAIN = 2
"""How many times the time that is left work has to take for it to be ended early: a machine may become faster."""


def rows_work(asked: Asked, body: bytes) -> tuple[float, Iterator[Part | None]]:
    """Rows to the meta model's scores, with the base scores they came with where those are asked for.

    Raises:
        RequestError: as in `parse_rows`, and of a model that does not answer rows.
    """
    base = _wants_base(asked.query)
    asked.engine.refuse_rows()
    rows = (parse_rows if asked.form == JSON else arrow.read_rows)(body, asked.settings.limits)
    names = answer.row_columns(base)
    asked.claim.hold(rows.nbytes + 8 * len(names) * len(rows))  # with its answers, by block and as a whole

    def finish(meta: NDArray[np.float32]) -> NDArray[np.float32]:
        SCORED_ROWS.inc(len(meta))
        log_request(asked, rows.sequences, rows.index, rows.row_scores, meta)
        return answer.beside(meta, rows.row_scores) if base else meta

    facts = asked.engine.answered(ROWS)
    parts = _by_block(asked, asked.engine.score(rows), len(rows), names, facts, finish)
    return asked.engine.pace.seconds(ROWS, len(rows)), parts


def sequence_work(asked: Asked, body: bytes) -> tuple[float, Iterator[Part | None]]:
    """A sequence to base and meta scores of its positions.

    Raises:
        RequestError: as in `parse_sequence`, and of a query parameter of rows that cannot be.
    """
    _wants_base(asked.query)
    given = (parse_sequence if asked.form == JSON else arrow.read_sequence)(body, asked.settings.limits)
    # What a stack makes of several: in float64 the logarithms of each, and its own.
    asked.claim.hold(
        (_POSITION_BYTES + 8 * (len(given.evidence) + sum(scores.shape[1] for scores in given.bases.values())))
        * len(given)
    )

    def finish(scores: NDArray[np.float32]) -> NDArray[np.float32]:
        LETTERS.inc(len(scores))
        log_request(asked, pl.Series([given.sequence]))
        return scores

    blocks = asked.engine.score_sequence(given)
    facts = asked.engine.answered(POSITIONS, given)
    parts = _by_block(asked, blocks, len(given), answer.SEQUENCE_COLUMNS, facts, finish)
    return asked.engine.pace.seconds(POSITIONS, len(given)), parts


def variants_work(asked: Asked, body: bytes) -> tuple[float, Iterator[Part | None]]:
    """Variants to rows of gains and losses, by gene and model.

    Raises:
        RequestError: as in `parse_variants`, of a text that is no variant, and of query parameters.
    """
    sources = asked.sources
    assert sources is not None
    options = sources.options(asked.query)
    given = (parse_variants if asked.form == JSON else arrow.read_variants)(body, asked.settings.variant_limits)
    asked.claim.hold(_VARIANT_BYTES * len(given))
    variants, way = sources.variants(given), f"{VARIANTS} {options.distance}"

    def parts() -> Iterator[Part | None]:
        rows: list[dict[str, Any]] = []
        begun = time.perf_counter()
        done = 0
        for count, found in sources.rows(asked.engine, options, variants):
            rows += found
            done += count
            spent = time.perf_counter() - begun
            sources.pace.note(way, 1, spent / done)
            asked.claim.left_s = spent / done * (len(variants) - done)
            refuse_late(asked, spent, VARIANTS, len(variants), spent / done)
            yield None
        SCORED_VARIANTS.inc(len(variants))
        note = VARIANTS_NOTE + (f"; {asked.settings.standing}" if asked.settings.standing else "")
        facts = answer.facts(VARIANTS, note)
        if asked.wanted == JSON:
            yield Part(json.dumps({"rows": rows, **facts}, allow_nan=False).encode(), last=True)
        else:
            yield Part(arrow.encode_table(rows, arrow_schema(ANSWER_COLUMNS, facts)), last=True)

    return sources.pace.seconds(way, len(variants)), parts()


def _wants_base(query: Mapping[str, str]) -> bool:
    """Whether base scores are to stand beside the meta scores of rows.

    Raises:
        RequestError: 422.
    """
    given = query.get(answer.BASE, "false")
    if given not in ("true", "false"):
        detail = {"row": None, "field": answer.BASE, "given": given[:80], "allowed": "true or false"}
        raise RequestError(
            f"query parameter {answer.BASE}: given {given[:80]!r}, allowed is true or false", 422, [detail]
        )
    return given == "true"


def log_request(
    asked: Asked,
    sequences: pl.Series,
    index: NDArray[np.int64] | None = None,
    row_scores: NDArray[np.float32] | None = None,
    answers: NDArray[np.float32] | None = None,
) -> None:
    """Put a request into the log, where there is one; arguments as of `Answered`."""
    if asked.log is not None:
        engine = asked.engine
        model = (engine.name, engine.version, engine.digest)
        asked.log.put(Answered(asked.request_id, *model, sequences, index, row_scores, answers))


def _by_block(
    asked: Asked,
    blocks: Iterator[NDArray[np.float32]],
    count: int,
    names: Sequence[str],
    facts: dict[str, str],
    finish: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> Iterator[Part | None]:
    """None for each block done, then the parts of the answer.

    Args:
        asked: the request.
        blocks: scores (n, k).
        count: rows or letters of all blocks.
        names: of the columns of the answer.
        facts: of `Engine.answered`.
        finish: of the scores of all blocks makes those columns.

    Raises:
        HTTPException: 429 of what will not be done in time any more.
        RequestError: 413 of what takes longer than the deadline on its own.
    """
    claim, pace, way = asked.claim, asked.engine.pace, facts[answer.WAY]
    done: list[NDArray[np.float32]] = []
    ready, spent, begun = 0, 0.0, time.perf_counter()
    for block in blocks:
        done.append(block)
        ready += len(block)
        taken = time.perf_counter() - begun
        spent += taken
        pace.note(way, len(block), taken)
        claim.left_s = pace.seconds(way, count - ready)
        refuse_late(asked, spent, "rows" if way == ROWS else "letters", count, pace.seconds(way, 1))
        yield None
        begun = time.perf_counter()
    scores = np.concatenate(done)
    done.clear()
    if not np.isfinite(scores).all():
        raise ValueError("the model gave numbers that are not finite")
    if asked.settings.standing:
        facts[answer.NOTE] += f"; {asked.settings.standing}"
    yield from encode_answer(finish(scores), names, facts, asked.wanted)


def refuse_late(asked: Asked, spent_s: float, units: str, count: int, each_s: float) -> None:
    """Refuse work that has begun and cannot be done before its deadline.

    Raises:
        HTTPException: 429 of what could be done if there were time.
        RequestError: 413 of what takes longer than the deadline on its own.
    """
    claim = asked.claim
    if spent_s <= SHORT_S or claim.left_s <= CERTAIN * claim.time_left_s():
        return
    possible = asked.settings.deadline_s / each_s
    if count < possible:
        raise busy("this worker is busy, and this would not be done in time", claim.left_s, "deadline")
    INTERRUPTED.labels("deadline").inc()
    most = max(1, int(possible / 2))
    field = SEQUENCE if units == "letters" else units
    detail = {"row": None, "field": field, "given": f"{count} {units}", "allowed": f"here, about {most} at a time"}
    raise RequestError(f"{count} {units} cannot be answered in time here: send about {most} at a time", 413, [detail])


def encode_answer(
    scores: NDArray[np.float32], names: Sequence[str], facts: Mapping[str, str], form: str = JSON
) -> Iterator[Part]:
    """Scores (n, k) as `{"rows": [{name: p, ...}, ...], ...}`, or as an Arrow stream of k columns, in parts.

    Args:
        scores: probabilities, all finite.
        names: of the columns.
        facts: what the answer says of itself: further fields, or metadata of the Arrow schema.
        form: media type.
    """
    if form != JSON:
        yield Part(arrow.encode(scores, names, facts), last=True)
        return
    row = "{" + ",".join(f'"{name}":%r' for name in names) + "}"  # the text that `json` writes, in half its time
    for start in range(0, len(scores), _JSON_ROWS):
        part = scores[start : start + _JSON_ROWS]
        last = start + _JSON_ROWS >= len(scores)
        text = ",".join([row] * len(part)) % tuple(part.ravel().tolist())
        before, after = "," if start else '{"rows":[', f"],{json.dumps(dict(facts))[1:]}" if last else ""
        yield Part(f"{before}{text}{after}".encode(), last=last)
