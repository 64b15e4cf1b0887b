"""Arrow IPC streams in and out.

What a stream would become in memory is known from its metadata and checked before anything is
decompressed, only flat columns are taken (no dictionaries, no nesting but the lists of a sequence's
scores), and each batch is validated before a value is touched. A stream without its end marker was
cut off and is refused. Values then go through the checks of JSON.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from metalayer.genome import Variant
from metalayer.release.contract import (
    SEQUENCE,
    Limits,
    Mistakes,
    RequestError,
    Rows,
    SequenceInput,
    check_count,
    check_names,
    check_sequence_names,
    validate_columns,
    validate_sequence,
)
from metalayer.release.variant_contract import PARTS, VARIANT, VARIANTS, check_columns, of_columns

MEDIA_TYPE = "application/vnd.apache.arrow.stream"

_END = b"\xff\xff\xff\xff\x00\x00\x00\x00"
_MAX_BATCHES = 4096
_ALLOWED_ONE_ROW = "one row: a request holds one sequence"
_REFUSALS = (pa.ArrowException, OSError, ValueError, TypeError, ArithmeticError, LookupError, struct.error)
"""What reading a damaged stream may raise."""
_RECORD_BATCH = 3  # of the union MessageHeader


@dataclass(frozen=True)
class _Shape:
    """What columns a stream may have.

    Attributes:
        check: notes those that are missing or unknown.
        text: those of letters.
        lists: whether the others are lists, of one row.
        what: its rows, in words.
    """

    check: Callable[[int | None, Iterable[Any], Mistakes], None]
    text: Sequence[str]
    lists: bool = False
    what: str = "rows"


_ROWS = _Shape(check_names, (SEQUENCE,))
_SEQUENCE = _Shape(check_sequence_names, (SEQUENCE,), lists=True)
_VARIANTS = _Shape(check_columns, (VARIANT, *(name for name in PARTS if name != "pos")), what=VARIANTS)


def read_rows(body: bytes, limits: Limits) -> Rows:
    """Rows of a score request.

    Args:
        body: a stream with a column for each field, one row a row.
        limits: bounds on rows and on bytes in memory.

    Raises:
        RequestError: 422 with all mistakes, 413 with too much.
    """
    return validate_columns(_columns(body, limits, Mistakes(), _ROWS), limits)


def read_sequence(body: bytes, limits: Limits) -> SequenceInput:
    """The sequence of a request, and its base scores where it has them.

    Args:
        body: a stream of one row: `sequence`, and a list a class of scores.
        limits: bounds on letters and on bytes in memory.

    Raises:
        RequestError: 422 with all mistakes, 413 with too much.
    """
    mistakes = Mistakes()
    columns = _columns(body, limits, mistakes, _SEQUENCE)
    if len(columns[SEQUENCE]) != 1:
        mistakes.add(None, "rows", len(columns[SEQUENCE]), _ALLOWED_ONE_ROW)
        mistakes.raise_if_any()
    return validate_sequence({name: values[0] for name, values in columns.items()}, limits)


def read_variants(body: bytes, limits: Limits) -> list[str | Variant]:
    """Variants of a request.

    Args:
        body: a stream with the column `variant`, or with chrom, pos, ref and alt.
        limits: bounds on variants, as `max_rows`, and on bytes in memory.

    Raises:
        RequestError: 422 with all mistakes, 413 with too much.
    """
    return of_columns(_columns(body, limits, Mistakes(), _VARIANTS), limits)


def encode(answers: NDArray[np.float32], names: Sequence[str], answered: Mapping[str, str]) -> bytes:
    """Answers (n, k) as a stream with a float32 column for each name, and metadata of its schema."""
    schema = pa.schema([(name, pa.float32()) for name in names], metadata=dict(answered))
    return _stream(pa.record_batch([pa.array(column) for column in answers.T], schema=schema))


def encode_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> bytes:
    """Rows as a stream with the columns and metadata of a schema."""
    return _stream(pa.RecordBatch.from_pylist([dict(row) for row in rows], schema=schema))


def _stream(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


def _columns(body: bytes, limits: Limits, mistakes: Mistakes, shape: _Shape) -> dict[str, list[Any]]:
    """Values by column, of one sequence (`lists`) or of rows; what reading raises is a fault of the body."""
    if not body.endswith(_END):
        raise _malformed("the stream has no end marker: it was cut off")
    try:
        return _read(body, limits, mistakes, shape)
    except RequestError:
        raise
    except _REFUSALS as error:
        raise _malformed(str(error)) from None


def _read(body: bytes, limits: Limits, mistakes: Mistakes, shape: _Shape) -> dict[str, list[Any]]:
    with pa.ipc.open_stream(body) as reader:
        _check_schema(reader.schema, mistakes, shape)
        _check_announced(body, 4 * len(reader.schema), limits, mistakes, shape)
        table = reader.read_all()
    table.validate(full=True)
    there = [name for name in shape.text if name in table.column_names]
    letters = sum(_letters(chunk) for name in there for chunk in table[name].chunks)
    if letters > limits.max_body_bytes:  # views may name the same letters again and again
        raise too_large("the text of the Arrow stream", limits.max_body_bytes)
    return {name: table[name].to_pylist() for name in table.column_names}


def _check_announced(body: bytes, max_buffers: int, limits: Limits, mistakes: Mistakes, shape: _Shape) -> None:
    """Check what a stream would become, from its metadata alone.

    pyarrow's functions that take a message (`read_schema`, `read_record_batch`) are no use here: they
    crash on a message of another kind, which a stream reader refuses.
    """
    source = pa.BufferReader(body)
    rows = size = 0
    for number, message in enumerate(pa.ipc.MessageReader.open_stream(source)):
        if number == 0:  # the schema, which the stream reader has read
            continue
        if message.type != "record batch":
            raise _malformed(f"a message of type {message.type!r}; needed are record batches")
        count, decoded = _announced(message, max_buffers)
        rows, size = rows + count, size + decoded
        if shape.lists and rows > 1:
            mistakes.add(None, "rows", rows, _ALLOWED_ONE_ROW)
            mistakes.raise_if_any()
        check_count(rows, limits, shape.what)
        if size > limits.max_body_bytes:
            raise too_large("the Arrow stream", limits.max_body_bytes)
        if number > _MAX_BATCHES:
            raise _malformed(f"more than {_MAX_BATCHES} batches; put more rows into each")
    if source.tell() != len(body):
        raise _malformed("bytes behind the end marker")


def _check_schema(schema: pa.Schema, mistakes: Mistakes, shape: _Shape) -> None:
    twice = sorted({name for name in schema.names if schema.names.count(name) > 1}) if len(schema) < 1000 else []
    for name in twice:
        mistakes.add(None, name, "the column twice", "each column once")
    shape.check(None, schema.names, mistakes)
    for column in schema:
        kind = column.type
        if shape.lists and column.name not in shape.text and _is_list(kind):
            kind = kind.value_type
            known = pa.types.is_floating(kind) or pa.types.is_integer(kind)
        else:
            known = _is_flat(kind)
        if not known:
            mistakes.add(
                None,
                column.name,
                f"Arrow type {column.type}",
                f"text for {', '.join(shape.text)}, numbers for all else",
            )
    mistakes.raise_if_any()


def _is_flat(kind: pa.DataType) -> bool:
    types = pa.types
    tests = (
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_floating,
        types.is_integer,
        types.is_boolean,
        types.is_null,
    )
    return any(test(kind) for test in tests)


def _is_list(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list))


def _letters(column: pa.Array) -> int:
    """Letters that a column of text comes to as Python text; 0 of a column that is no text."""
    if pa.types.is_string_view(column.type):
        if not len(column):
            return 0
        # A view is 16 bytes, its length first; a buffer may end anywhere behind the last one.
        views = np.frombuffer(column.buffers()[1], dtype=np.int32, count=4 * (column.offset + len(column)))
        return int(views.reshape(-1, 4)[column.offset :, 0].sum(dtype=np.int64))
    return int(column.nbytes) if _is_flat(column.type) else 0


def _announced(message: pa.ipc.Message, max_buffers: int) -> tuple[int, int]:
    """Rows of a record batch and the bytes that its buffers come to, read from its metadata.

    Layout: https://arrow.apache.org/docs/format/Columnar.html and Message.fbs; pyarrow has verified that
    the tables of the metadata lie within it.
    """
    metadata = message.metadata.to_pybytes()

    def u32(at: int) -> int:
        return int(struct.unpack_from("<I", metadata, at)[0])

    def field(table: int, slot: int) -> int:
        """Where a field of a table is, 0 where it is left out."""
        vtable = table - struct.unpack_from("<i", metadata, table)[0]
        size = struct.unpack_from("<H", metadata, vtable)[0]
        place = 4 + 2 * slot
        offset = struct.unpack_from("<H", metadata, vtable + place)[0] if place < size else 0
        return table + offset if offset else 0

    root = u32(0)
    kind, header = field(root, 1), field(root, 2)
    if not kind or metadata[kind] != _RECORD_BATCH or not header:
        raise _malformed("a record batch without its header")
    batch = header + u32(header)
    rows_at, buffers_at = field(batch, 0), field(batch, 2)
    rows = struct.unpack_from("<q", metadata, rows_at)[0] if rows_at else 0
    if rows < 0 or not buffers_at:
        return max(rows, 0), 0
    vector = buffers_at + u32(buffers_at)
    count = u32(vector)
    if count > max_buffers:
        raise _malformed(f"{count} buffers in a batch")
    compressed = bool(field(batch, 3))
    size = 0
    for place in range(count):
        offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * place)
        size += max(length, 0)
        if compressed and length >= 8:
            size += max(struct.unpack_from("<q", message.body, offset)[0], 0)
    return rows, size


def too_large(what: str, limit: int) -> RequestError:
    """The 413 of a body that is, or becomes, larger than allowed."""
    detail = {"row": None, "field": "body", "given": f"more than {limit} bytes", "allowed": f"up to {limit} bytes"}
    return RequestError(f"{what} is larger than {limit} bytes: split the request", 413, [detail])


def _malformed(reason: str) -> RequestError:
    first = reason.splitlines()[0] if reason else "unreadable"
    detail = {"row": None, "field": "body", "given": first, "allowed": f"an Arrow IPC stream ({MEDIA_TYPE})"}
    return RequestError(f"the body is not an Arrow IPC stream: {first}", 422, [detail])
