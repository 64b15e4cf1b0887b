"""Blocks of whole lines from text of any size, plain or packed, with the number of the first."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from metalayer.errors import InputError
from metalayer.file_kinds import unpacked

_BLOCK_BYTES = 1 << 24
MISSING = ("", "NA", "N/A", "na", "nan", "NaN", "null", "NULL", "None", ".")
"""How tables write a score that is not there."""
Columns = Mapping[str, pl.DataType | type[pl.DataType]]
_COMMENTS = (b"#", b"track", b"browser")


class Block(NamedTuple):
    """Whole lines.

    Attributes:
        line: number of the first, from 1.
        content: the lines, without those of comments, `track` and `browser`.
        share: of the file that is read with them.
    """

    line: int
    content: bytes
    share: float


def blocks(path: Path, what: str) -> Iterator[Block]:
    """Blocks of lines; lines end with LF or CRLF."""
    size = max(path.stat().st_size, 1)
    line = 1
    with unpacked(path, what) as handle:
        raw = handle
        while hasattr(raw, "raw"):
            raw = raw.raw
        while content := handle.read(_BLOCK_BYTES):
            content += handle.readline()
            count = content.count(b"\n") + (not content.endswith(b"\n"))
            if b"\r" in content:
                content = content.replace(b"\r\n", b"\n")
            if content.startswith(_COMMENTS) or any(b"\n" + mark in content for mark in _COMMENTS):
                content = b"".join(
                    b"\n" if one.startswith(_COMMENTS) else one for one in content.splitlines(keepends=True)
                )
            yield Block(line, content, min(_told(raw) / size, 1.0))
            line += count


def _told(handle: object) -> int:
    """Bytes of the packed file that were read, where that can be known."""
    for name in ("fileobj", "_fp", "_fileobj"):
        handle = getattr(handle, name, handle)
    try:
        return int(handle.tell())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return 0


def first_lines(path: Path, what: str, count: int = 20) -> list[str]:
    """The first lines with content, without those of comments."""
    with unpacked(path, what) as handle:
        lines = handle.peek(1 << 16)[: 1 << 16].splitlines()
    kept = [line for line in lines if line.strip() and not line.startswith(_COMMENTS)]
    return [line.decode("utf-8", "replace") for line in kept[:count]]


def table(
    path: Path,
    block: Block,
    columns: Columns,
    needs: str,
    *,
    separator: str = "\t",
    at: Sequence[int] | None = None,
    quote: str | None = None,
    optional: Collection[str] = (),
) -> pl.DataFrame:
    """The fields of a block in columns of these names and types; empty lines are passed over.

    Args:
        path: of the file, for messages.
        block: its lines.
        columns: name to type.
        needs: what is needed, for messages.
        separator: of the fields.
        at: which field each column is, from 0; None: the first ones.
        quote: character around fields.
        optional: columns whose fields may be missing.

    Raises:
        InputError: a line that has not these fields, named by its number.
    """
    at = range(len(columns)) if at is None else at
    content = block.content.lstrip(b"\n")  # the first line says how many fields there are
    first = block.line + len(block.content) - len(content)
    if not content:
        return pl.DataFrame(schema=dict(columns))
    head = content.partition(b"\n")[0].decode("utf-8", "replace")
    names = [str(number) for number in range(_width(head, separator, quote))]
    try:
        frame = pl.read_csv(
            content,
            separator=separator,
            has_header=False,
            schema=dict.fromkeys(names, pl.String),
            quote_char=quote,
            truncate_ragged_lines=True,
        )
    except pl.exceptions.PolarsError:
        frame = pl.DataFrame()
    if not set(map(str, at)) <= set(frame.columns):
        raise InputError(
            f"{path}, line {first} or after it: other fields, or other bytes than text: {head[:80]!r}; {needs}"
        )
    frame = frame.select(
        pl.col(str(number)).str.strip_chars().alias(name) for name, number in zip(columns, at, strict=True)
    )
    blank = frame.select(pl.all_horizontal(pl.all().is_null() | (pl.all() == ""))).to_series()
    typed = frame.with_columns(pl.col(name).cast(kind, strict=False) for name, kind in columns.items())
    is_wrong = [
        typed[name].is_null() & (~frame[name].fill_null("").is_in(MISSING) if name in optional else True)
        for name in columns
    ]
    wrong = pl.select(pl.any_horizontal(is_wrong)).to_series() & ~blank
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        seen = "  ".join(str(field) for field in frame.row(row) if field is not None)
        raise InputError(f"{path}, line {first + row}: {seen[:80]!r}; {needs}")
    return typed.filter(~blank)


def _width(line: str, separator: str, quote: str | None) -> int:
    """How many fields a line has."""
    if quote is None:
        return line.count(separator) + 1
    return len(next(csv.reader([line], delimiter=separator, quotechar=quote)))


def as_tabs(block: Block) -> Block:
    """A block whose fields are separated by blanks, with tabs instead."""
    lines = io.BytesIO(block.content)
    return block._replace(content=b"\n".join(b"\t".join(line.split()) for line in lines) + b"\n")
