"""The contract of the score endpoints: what a row or a sequence holds, and every message about one that does not.

`parse_rows` and `parse_sequence` read JSON; `validate_columns` and `validate_sequence` check values
wherever they come from (JSON, Arrow, MLflow, golden rows), so all of them have one schema and one set
of messages. Nothing is defaulted in silence but `index`, whose default is part of the contract.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.errors import InputError
from metalayer.genome import token_table
from metalayer.schema import (
    BASE_SCORES,
    PROBABILITY_SUM_TOLERANCE,
    ROW_SCORES,
    SPLICED_SCORE,
    evidence_column,
    score_columns,
)

SEQUENCE, INDEX = "sequence", "index"
REQUIRED: tuple[str, ...] = (SEQUENCE, *ROW_SCORES)
FIELDS: tuple[str, ...] = (*REQUIRED, INDEX)
SEQUENCE_FIELDS: tuple[str, ...] = (SEQUENCE, *BASE_SCORES)
"""Of a sequence whose every position is scored; the scores, one a letter each, all or none. Those of several base
models, side by side, are named as in their files: `donor_score.NAME` and so on, or `spliced_score.NAME`."""

MAX_DETAILS = 100
"""Mistakes listed in one answer; the message counts all of them."""
_SHOWN_LETTERS = 80
_CHECKED_ROWS = 1024
_PLAIN_BYTES = 2**20
_ODD_LETTER = re.compile("[^ACGTNacgtn]")

_ALLOWED_SEQUENCE = "text of one or more of A, C, G, T, N"
_ALLOWED_SCORE = "a number in [0, 1]"
_ALLOWED_INDEX = "a whole number, 0 <= index < length of the sequence; left out: length // 2"
_ALLOWED_BODY = 'a JSON object {"rows": [{...}, ...]} or {"columns": {"sequence": [...], ...}}'
_ALLOWED_SEQUENCE_BODY = (
    f'a JSON object {{"sequence": "..."}}, and a list of numbers for each of {", ".join(BASE_SCORES)} or for none'
)
_ALLOWED_SCORES = "a list of numbers in [0, 1], one a letter; all three lists or none"
_ALLOWED_NAMED = f"{', '.join(SEQUENCE_FIELDS)}; of several base models {BASE_SCORES[0]}.NAME ..., {SPLICED_SCORE}.NAME"
_EVIDENCE = evidence_column("")
"""Before the name of evidence, in fields of a sequence."""
ALLOWED_EVIDENCE = "a list of numbers, one a letter, null where there is none; or null for all letters"
_ALLOWED_NUMBER = "a finite number that float32 holds, or null"
_ALLOWED_ROW = f"an object with {', '.join(REQUIRED)} and optionally {INDEX}"
_SUM_FIELD = "+".join(BASE_SCORES)
_values = itemgetter(*REQUIRED)
_DEFAULT = object()  # stands for an `index` that was left out; None is a given null


class RequestError(InputError):
    """A request that is answered with `status` and `details` instead of scores.

    Attributes:
        status: HTTP status.
        details: {"row", "field", "given", "allowed"} of each mistake; rows count from 0, None where
            a mistake is not in one row.
    """

    def __init__(self, message: str, status: int = 422, details: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.details = [dict(detail) for detail in details]


@dataclass(frozen=True)
class Limits:
    """What one request may hold."""

    max_body_bytes: int = 64 * 2**20
    """Bytes of the body."""
    max_rows: int = 65_536
    """Rows."""
    max_sequence_bp: int = 1_000_000
    """Letters of a sequence of which every position is scored."""


@dataclass(frozen=True)
class Rows:
    """Validated rows.

    Attributes:
        row_scores: float32 (n, 7), columns `ROW_SCORES`.
        sequences: text (n,), letters ACGTN in either case.
        index: int64 (n,), 0-based labelled base of each sequence.
    """

    row_scores: NDArray[np.float32]
    sequences: pl.Series
    index: NDArray[np.int64]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return int(self.row_scores.nbytes + self.index.nbytes + self.sequences.estimated_size())

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class SequenceInput:
    """A validated sequence.

    Attributes:
        sequence: letters (L), ACGTN in either case, transcript sense.
        bases: scores at exon bases by base model, float32 (L, 3), donor, acceptor, neither, or (L, 1), P(spliced);
            under an empty name where the request names none; empty where none were given.
        evidence: float32 (L,) by name, NaN where missing.
    """

    sequence: str
    bases: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    evidence: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sequence)


class Mistakes:
    """Collects mistakes and raises them together."""

    def __init__(self) -> None:
        self._found: list[tuple[int | None, str, Any, str]] = []

    def add(self, row: int | None, field: str, given: Any, allowed: str) -> None:
        """Note a mistake; `row` is None where it is not in one row."""
        self._found.append((row, field, given, allowed))

    def raise_if_any(self) -> None:
        """Raise the 422 of what was noted.

        Raises:
            RequestError: with the details of at most `MAX_DETAILS` mistakes.
        """
        if not self._found:
            return
        order = {name: place for place, name in enumerate(FIELDS)}
        self._found.sort(key=lambda item: (-1 if item[0] is None else item[0], order.get(item[1], len(order))))
        details = [
            {"row": row, "field": _text(field), "given": _shown(given), "allowed": allowed}
            for row, field, given, allowed in self._found[:MAX_DETAILS]
        ]
        count = len(self._found)
        more = f", the first {MAX_DETAILS} are listed" if count > MAX_DETAILS else ""
        first = details[0]
        where = "" if first["row"] is None else f"row {first['row']}, "
        raise RequestError(
            f"{count} mistake{'s' if count > 1 else ''} in the request{more}; nothing was scored. The first: {where}"
            f"{first['field']}: given {first['given']!r}, allowed {first['allowed']}",
            422,
            details,
        )


def parse_rows(body: bytes, limits: Limits | None = None) -> Rows:
    """Read and check the JSON body of a score request.

    Args:
        body: UTF-8 JSON, rows or columns.
        limits: bounds on the number of rows.

    Raises:
        RequestError: 422 with all mistakes, 413 with too many rows.
    """
    limits = limits or Limits()
    # In rows each value but the first follows a comma; a column more or a few mistakes may follow too.
    document = load(body, _ALLOWED_BODY, (limits.max_rows + 16) * (len(FIELDS) + 1))
    mistakes = Mistakes()
    if not isinstance(document, dict) or len(document) != 1 or not document.keys() <= {"rows", "columns"}:
        given = sorted(document) if isinstance(document, dict) else document
        mistakes.add(None, "body", f"keys {given}" if isinstance(given, list) else given, _ALLOWED_BODY)
        mistakes.raise_if_any()
    if "rows" in document:
        return validate_columns(_transpose(document["rows"], limits, mistakes), limits)
    if not isinstance(document["columns"], dict):
        mistakes.add(None, "columns", document["columns"], 'an object {"sequence": [...], ...} of lists of one length')
        mistakes.raise_if_any()
    return validate_columns(document["columns"], limits)


def validate_columns(columns: Mapping[str, Any], limits: Limits | None = None) -> Rows:
    """Check columns of plain Python values.

    Args:
        columns: a list of each of `REQUIRED`, and optionally of `index`; all of one length.
        limits: bounds on the number of rows.

    Raises:
        RequestError: 422 with all mistakes, 413 with too many rows.
    """
    limits = limits or Limits()
    mistakes = Mistakes()
    check_names(None, columns.keys(), mistakes)
    for name, values in columns.items():
        if not isinstance(values, list):
            mistakes.add(None, name, values, "a list with one value a row")
    mistakes.raise_if_any()
    count = len(columns[SEQUENCE])
    for name, values in columns.items():
        if len(values) != count:
            mistakes.add(None, name, f"{len(values)} values", f"{count} values, as many as {SEQUENCE}")
    if not count:
        mistakes.add(None, "rows", [], f"1 to {limits.max_rows} rows")
    mistakes.raise_if_any()
    check_count(count, limits)
    lengths = _check_sequences(columns[SEQUENCE], mistakes)
    scores = _check_all_scores(ROW_SCORES, columns, mistakes)
    _check_sums(scores[:, : len(BASE_SCORES)], mistakes, _SUM_FIELD)
    index = _check_index(columns.get(INDEX), lengths, mistakes)
    mistakes.raise_if_any()
    return Rows(scores.astype(np.float32, order="C"), pl.Series(SEQUENCE, columns[SEQUENCE], dtype=pl.String), index)


def parse_sequence(body: bytes, limits: Limits | None = None) -> SequenceInput:
    """Read and check the JSON body of a request for every position of a sequence.

    Args:
        body: UTF-8 JSON, {"sequence": "...", "donor_score": [...], "acceptor_score": [...], "neither_score": [...]},
            the three scores all or none; of several base models named as `SEQUENCE_FIELDS` says; `evidence.NAME`
            where the model reads evidence, as `ALLOWED_EVIDENCE` says.
        limits: bounds on the length.

    Raises:
        RequestError: 422 with all mistakes, 413 of a sequence that is too long.
    """
    limits = limits or Limits()
    document = load(body, _ALLOWED_SEQUENCE_BODY, (limits.max_sequence_bp + 16) * len(BASE_SCORES))
    if not isinstance(document, dict):
        mistakes = Mistakes()
        mistakes.add(None, "body", document, _ALLOWED_SEQUENCE_BODY)
        mistakes.raise_if_any()
    return validate_sequence(document, limits)


def validate_sequence(fields: Mapping[str, Any], limits: Limits | None = None) -> SequenceInput:
    """Check the fields of a sequence, plain Python values; rows count its letters.

    Raises:
        RequestError: 422 with all mistakes, 413 of a sequence that is too long.
    """
    limits = limits or Limits()
    mistakes = Mistakes()
    check_sequence_names(None, fields.keys(), mistakes)
    given = _fields_by_base(fields)
    for name in (name for theirs in given.values() for name in theirs):
        if name in fields and not isinstance(fields[name], list):
            mistakes.add(None, name, fields[name], _ALLOWED_SCORES)
    pieces = [name for name in fields if name.startswith(_EVIDENCE)]
    for name in pieces:
        if fields[name] is not None and not isinstance(fields[name], list):
            mistakes.add(None, name, fields[name], ALLOWED_EVIDENCE)
    sequence = fields.get(SEQUENCE)
    if SEQUENCE in fields and (not isinstance(sequence, str) or not sequence):
        mistakes.add(None, SEQUENCE, sequence, _ALLOWED_SEQUENCE)
    mistakes.raise_if_any()
    assert isinstance(sequence, str)
    length = len(sequence)
    if length > limits.max_sequence_bp:
        allowed = f"1 to {limits.max_sequence_bp} letters"
        detail = {"row": None, "field": SEQUENCE, "given": f"{length} letters", "allowed": allowed}
        raise RequestError(
            f"a sequence of {length} letters; allowed are at most {limits.max_sequence_bp}: score parts", 413, [detail]
        )
    listed = [name for theirs in given.values() for name in theirs] + [one for one in pieces if fields[one] is not None]
    for name in listed:
        if len(fields[name]) != length:
            mistakes.add(None, name, f"{len(fields[name])} values", f"{length} values, one a letter of {SEQUENCE}")
    _check_letters(sequence, mistakes)
    mistakes.raise_if_any()
    scores = {base: _check_all_scores(theirs, fields, mistakes) for base, theirs in given.items()}
    for base, values in scores.items():
        if values.shape[1] > 1:
            _check_sums(values, mistakes, "+".join(given[base]))
    evidence = {name.removeprefix(_EVIDENCE): _numbers(name, fields[name], length, mistakes) for name in pieces}
    mistakes.raise_if_any()
    bases = {base: values.astype(np.float32, order="C") for base, values in scores.items()}
    return SequenceInput(sequence, bases, evidence)


def _numbers(name: str, values: list[Any] | None, length: int, mistakes: Mistakes) -> NDArray[np.float32]:
    """Evidence of each letter, float32 (L,), NaN where it is null."""
    if values is None:
        return np.full(length, np.nan, np.float32)
    largest = float(np.finfo(np.float32).max)
    for row, value in enumerate(values):
        if value is not None and not (type(value) in (int, float) and -largest <= value <= largest):  # NaN neither
            mistakes.add(row, name, value, _ALLOWED_NUMBER)
    kept = [value if type(value) in (int, float) and -largest <= value <= largest else math.nan for value in values]
    return np.array(kept, np.float32)


def _fields_by_base(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Fields of scores by base model, whole sets of them: under an empty name those that name none."""
    given = [name for name in names if not name.startswith(_EVIDENCE)]
    bases = dict.fromkeys(name.partition(".")[2] for name in given if name != SEQUENCE)
    found = {}
    for base in bases:
        for kind in (BASE_SCORES, (SPLICED_SCORE,)):
            theirs = score_columns(base, kind) if base else kind
            if set(theirs) & set(given):
                found[base] = theirs
    return found


def score_fields(bases: Mapping[str, NDArray[np.floating]]) -> dict[str, NDArray[np.floating]]:
    """The fields of a sequence's scores, (L,) each: what `SequenceInput.bases` is made of.

    Args:
        bases: (L, 3) or (L, 1) by base model; under an empty name of a single one without its name.
    """
    found: dict[str, NDArray[np.floating]] = {}
    for base, scores in bases.items():
        columns = BASE_SCORES if scores.shape[1] == len(BASE_SCORES) else (SPLICED_SCORE,)
        found |= dict(zip(score_columns(base, columns) if base else columns, scores.T, strict=True))
    return found


def evidence_fields(evidence: Mapping[str, NDArray[np.floating]]) -> dict[str, list[float | None]]:
    """The fields of a sequence's evidence, by name (L,), null where it is NaN."""
    return {
        evidence_column(name): [None if np.isnan(value) else float(str(value)) for value in values]
        for name, values in evidence.items()
    }


def load(body: bytes, allowed: str, max_values: int) -> Any:
    """JSON of a body, keeping NaN and Infinity (reported by row later), refusing a field given twice.

    A value takes up to thirty times its bytes once it is read, so values are counted before. One letter that is not
    ASCII makes text of four bytes a letter; no field has any, so that in large bodies they are looked for before too.
    """
    if len(body) > max_values and body.count(b",") + body.count(b"[") + body.count(b"{") > max_values:
        detail = {"row": None, "field": "body", "given": f"more than {max_values} values", "allowed": allowed}
        raise RequestError(f"the body holds more than {max_values} values: split the request", 413, [detail])
    if len(body) > _PLAIN_BYTES and (b"\\" in body or not body.isascii()):
        detail = {"row": None, "field": "body", "given": "letters beyond ASCII, or escaped by \\", "allowed": allowed}
        raise RequestError("the body has letters beyond ASCII, or escaped by \\, which no field has", 422, [detail])
    try:
        text = body.decode("utf-8")
        document = json.loads(text)
        # A field given twice is one key and two colons. Asking for each object would take three times as long.
        if body.count(b":") != _count_fields(document):
            del document
            document = json.loads(text, object_pairs_hook=_unique)
        return document
    except RequestError:
        raise
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is not UTF-8"
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:
        reason = str(error)
    detail = {"row": None, "field": "body", "given": _text(reason), "allowed": allowed}
    raise RequestError(f"the body is not JSON: {_text(reason)}", 422, [detail])


def _count_fields(document: Any) -> int:
    """Fields of a request that is as it should be; of another some number."""
    if not isinstance(document, dict):
        return 0
    count = len(document)
    for value in document.values():
        if isinstance(value, dict):
            count += len(value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            count += sum(len(row) for row in value if isinstance(row, dict))
    return count


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [name for name, _ in pairs]
        twice = _text(next(name for name in names if names.count(name) > 1))
        detail = {"row": None, "field": twice, "given": "the field twice in one object", "allowed": "each field once"}
        raise RequestError(f"field {twice!r} is given twice in one object; nothing was scored", 422, [detail])
    return values


def _transpose(rows: Any, limits: Limits, mistakes: Mistakes) -> dict[str, list[Any]]:
    """Rows to columns, checking that each row has the fields."""
    if not isinstance(rows, list) or not rows:
        mistakes.add(None, "rows", rows, f"a list of 1 to {limits.max_rows} rows")
        mistakes.raise_if_any()
    check_count(len(rows), limits)
    required, full = set(REQUIRED), set(FIELDS)
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            mistakes.add(number, "row", row, _ALLOWED_ROW)
        elif row.keys() != required and row.keys() != full:
            check_names(number, row.keys(), mistakes)
    mistakes.raise_if_any()
    columns = dict(zip(REQUIRED, map(list, zip(*map(_values, rows), strict=True)), strict=True))
    if any(len(row) > len(REQUIRED) for row in rows):
        columns[INDEX] = [row.get(INDEX, _DEFAULT) for row in rows]
    return columns


def check_sequence_names(row: int | None, given: Iterable[Any], mistakes: Mistakes) -> None:
    """Note fields of a sequence that are missing or unknown, and base models that are named beside one that is not."""
    names = list(map(str, given))
    if SEQUENCE not in names:
        mistakes.add(row, SEQUENCE, "missing", _ALLOWED_SEQUENCE)
    by_base = _fields_by_base(names)
    scores = [name for theirs in by_base.values() for name in theirs if name != SPLICED_SCORE]
    for name in scores:
        if name not in names:
            mistakes.add(row, name, "missing", _ALLOWED_SCORES)
    for name in names:
        if name not in (SEQUENCE, *scores) and not (name.startswith(_EVIDENCE) and name != _EVIDENCE):
            mistakes.add(row, name, "an unknown field", f"the fields {_ALLOWED_NAMED}")
    if "" in by_base and len(by_base) > 1:
        mistakes.add(row, BASE_SCORES[0], "scores without a name beside those of named base models", _ALLOWED_NAMED)


def check_count(count: int, limits: Limits, what: str = "rows") -> None:
    """Refuse more rows, or variants, than a request may hold.

    Raises:
        RequestError: 413.
    """
    if count > limits.max_rows:
        detail = {"row": None, "field": what, "given": count, "allowed": f"1 to {limits.max_rows} {what}"}
        raise RequestError(f"{count} {what}; a request holds at most {limits.max_rows}: split it", 413, [detail])


def check_names(row: int | None, given: Iterable[Any], mistakes: Mistakes) -> None:
    """Note fields of a row that are missing or unknown."""
    names = list(given)
    for name in REQUIRED:
        if name not in names:
            mistakes.add(row, name, "missing", _allowed(name))
    for name in names:
        if name not in FIELDS:
            mistakes.add(row, str(name), "an unknown field", f"the fields {', '.join(FIELDS)}")


def _allowed(name: str) -> str:
    return {SEQUENCE: _ALLOWED_SEQUENCE, INDEX: _ALLOWED_INDEX}.get(name, _ALLOWED_SCORE)


def _check_letters(sequence: str, mistakes: Mistakes) -> None:
    """Each letter of a sequence is a row."""
    letters = np.frombuffer(sequence.encode("ascii", "replace"), dtype=np.uint8)
    for at in np.flatnonzero(token_table()[letters] == 255).tolist():
        mistakes.add(at, SEQUENCE, sequence[at], "A, C, G, T or N")


def _check_sequences(values: list[Any], mistakes: Mistakes) -> NDArray[np.int64]:
    """Lengths (n,); 0 where a value is no text."""
    texts = values
    if not set(map(type, values)) <= {str}:
        for row, value in enumerate(values):
            if not isinstance(value, str):
                mistakes.add(row, SEQUENCE, value, _ALLOWED_SEQUENCE)
        texts = [value if isinstance(value, str) else "" for value in values]
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    for row in np.flatnonzero(lengths == 0).tolist():
        if isinstance(values[row], str):
            mistakes.add(row, SEQUENCE, "", _ALLOWED_SEQUENCE)
    for start in range(0, len(texts), _CHECKED_ROWS):  # together once more would take as much memory as the rows
        for row, place in _odd_letters(texts[start : start + _CHECKED_ROWS]):
            letter = _text(texts[start + row][place])
            mistakes.add(start + row, SEQUENCE, f"{letter!r} at {place}", _ALLOWED_SEQUENCE)
    return lengths


def _odd_letters(texts: list[str]) -> Iterator[tuple[int, int]]:
    """Row and position of the first letter of each text that is none of a sequence."""
    if not all(map(str.isascii, texts)):  # a text with one such letter has up to four bytes a letter
        for row, text in enumerate(texts):
            if found := _ODD_LETTER.search(text):
                yield row, found.start()
        return
    tokens = "".join(texts).encode("ascii").translate(token_table().tobytes())
    bad = np.flatnonzero(np.frombuffer(tokens, dtype=np.uint8) == 255)
    if bad.size:
        ends = np.cumsum([len(text) for text in texts])
        rows, first = np.unique(np.searchsorted(ends, bad, side="right"), return_index=True)
        for row, at in zip(rows.tolist(), bad[first].tolist(), strict=True):
            yield row, at - int(ends[row] - len(texts[row]))


def _check_all_scores(
    names: tuple[str, ...], columns: Mapping[str, list[Any]], mistakes: Mistakes
) -> NDArray[np.float64]:
    """float64 (n, k) of k columns, NaN where a value is not allowed."""
    given = [columns[name] for name in names]
    if len(given[0]) <= _CHECKED_ROWS and all(set(map(type, values)) <= {float} for values in given):
        numbers = np.array(given)
        if ((numbers >= 0.0) & (numbers <= 1.0)).all():
            return numbers.T
    return np.stack([_check_scores(name, values, mistakes) for name, values in zip(names, given, strict=True)], axis=1)


def _check_scores(name: str, values: list[Any], mistakes: Mistakes) -> NDArray[np.float64]:
    """float64 (n,), NaN where a value is not allowed."""
    if set(map(type, values)) <= {float, int}:
        try:
            numbers = np.array(values, dtype=np.float64)
        except OverflowError:  # a whole number beyond float64
            numbers = np.array([value if isinstance(value, float) else _clip(value) for value in values])
    else:
        numbers = np.array([_clip(value) if type(value) in (float, int) else math.nan for value in values])
    bad = ~((numbers >= 0.0) & (numbers <= 1.0))
    for row in np.flatnonzero(bad).tolist():
        mistakes.add(row, name, values[row], _ALLOWED_SCORE)
    return np.where(bad, math.nan, numbers)


def _check_sums(scores: NDArray[np.float64], mistakes: Mistakes, fields: str) -> None:
    """Donor, acceptor and neither (n, 3) add up; NaN where a score is wrong already."""
    total = scores.sum(axis=1)
    for row in np.flatnonzero(np.abs(total - 1.0) > PROBABILITY_SUM_TOLERANCE).tolist():
        mistakes.add(row, fields, float(total[row]), f"scores that sum to 1 within {PROBABILITY_SUM_TOLERANCE}")


def _clip(value: float) -> float:
    """A number that float64 holds, on the same side of 0 and 1."""
    return value if isinstance(value, float) else float(max(-1, min(2, value)))


def _check_index(values: list[Any] | None, lengths: NDArray[np.int64], mistakes: Mistakes) -> NDArray[np.int64]:
    """Labelled base of each row, int64 (n,)."""
    index = lengths // 2
    if values is None:
        return index
    for row, value in enumerate(values):
        if value is _DEFAULT:
            continue
        whole = type(value) is int or (type(value) is float and value.is_integer())  # 7.0 is 7, in JSON as in pandas
        if not whole or value < 0 or (value >= lengths[row] and lengths[row] > 0):
            mistakes.add(row, INDEX, value, _ALLOWED_INDEX)
        elif lengths[row] > 0:
            index[row] = value
    return index


def _shown(value: Any) -> Any:
    """What was given, as JSON can say it, bounded in size."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**63 else _text(str(value))
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return "an object" if isinstance(value, dict) else _text(str(value))


def _text(text: str) -> str:
    """Text that UTF-8 can carry (no lone surrogates), cut to a readable length."""
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= _SHOWN_LETTERS else clean[:_SHOWN_LETTERS] + "..."
