"""Tables with a base a line: CSV, TSV or Parquet, of whatever column names, ours and those of others.

`position` is 1-based; a column called as `start` by `--columns` is 0-based. Scores that are empty are missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from metalayer.errors import ConfigError, InputError
from metalayer.file_kinds import unpacked
from metalayer.formats.pieces import MOST_POSITIONS, Piece, Places, joined
from metalayer.formats.text import Block, blocks, table
from metalayer.genome import normalise_gene_id
from metalayer.integrity import PARQUET_ERRORS, open_parquet
from metalayer.schema import BASE_SCORES, CLASSES

KNOWN = {
    "chrom": ("chrom", "chr", "chromosome", "seqnames", "seqname", "seqid", "contig"),
    "position": ("genomic_position", "position", "pos"),
    "start": (),
    "strand": ("strand",),
    "gene_id": ("gene_id", "gene"),
    **{
        name: (score, name, f"{name}_prob", f"{name}_probability")
        for name, score in zip(CLASSES, BASE_SCORES, strict=True)
    },
}
"""What a table may have, and the names by which it is found: the first that is there, in any case."""
_KINDS: Mapping[str, Any] = {
    **dict.fromkeys(KNOWN, pl.String),
    **dict.fromkeys(("position", "start"), pl.Int64),
    **dict.fromkeys(CLASSES, pl.Float64),
}
_STRANDS = {"+": "+", "-": "-", "1": "+", "-1": "-", "plus": "+", "minus": "-"}
_SEPARATORS = ("\t", ",", ";")
_NEEDS = "position is a whole number, scores are numbers or empty"


def columns_of(given: Sequence[str]) -> dict[str, str]:
    """Column by what it is, of texts as `chrom=seqnames`.

    Raises:
        ConfigError: another form, or a name that is none of `KNOWN`.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, column = text.partition("=")
        if not equals or not column or name not in KNOWN:
            raise ConfigError(
                f"--columns: given {text!r}; allowed is NAME=COLUMN with NAME one of {', '.join(KNOWN)} (position is "
                "1-based, start 0-based), as in chrom=seqnames"
            )
        found[name] = column
    if {"position", "start"} <= found.keys():
        raise ConfigError(
            "--columns: given position and start; a base has one place: position is 1-based, start 0-based"
        )
    return found


@dataclass(frozen=True)
class Header:
    """Where a table has what.

    Attributes:
        columns: of the file, in its order.
        found: column by what it is, a part of `KNOWN`.
        separator: of text.
        is_comment: the line with the names begins with #.
    """

    columns: tuple[str, ...]
    found: Mapping[str, str]
    separator: str = "\t"
    is_comment: bool = False

    @classmethod
    def of(cls, columns: Sequence[str], asked: Mapping[str, str], path: Path) -> Header:
        """Find the columns.

        Raises:
            InputError: a column that is asked for is not there.
        """
        if lacking := [f"{name}={column}" for name, column in asked.items() if column not in columns]:
            raise InputError(
                f"{path}: no column for --columns {' '.join(lacking)}; its columns are {', '.join(columns)}"
            )
        plain = {column.lower(): column for column in reversed(columns)}
        found = {
            name: next((plain[known] for known in names if known in plain), "") for name, names in KNOWN.items()
        } | dict(asked)
        if "start" in asked:
            found["position"] = ""
        return cls(tuple(columns), {name: column for name, column in found.items() if column})

    @property
    def is_table(self) -> bool:
        """Whether there are scores in it."""
        return bool(self.found.keys() & {"donor", "acceptor"})

    def check(self, path: Path) -> None:
        """See that bases can be placed.

        Raises:
            InputError: they cannot.
        """
        lacking = []
        if not self.found.keys() & {"position", "start"}:
            lacking.append("position (1-based; or start, 0-based)")
        lacking += [name for name in ("chrom", "strand") if name not in self.found and "gene_id" not in self.found]
        if not self.is_table:
            lacking.append("donor or acceptor")
        if lacking:
            raise InputError(
                f"{path}: no column for {', '.join(lacking)}; its columns are {', '.join(self.columns)}. Say which is "
                "which: --columns NAME=COLUMN, as in --columns chrom=seqnames position=pos"
            )


def text_header(path: Path, asked: Mapping[str, str]) -> Header | None:
    """The header of a text table; None where its first line names no columns with scores."""
    with unpacked(path, "table") as handle:
        lines = handle.peek(1 << 16)[: 1 << 16].decode("utf-8", "replace").splitlines()
    first = next((line for line in lines if line.strip() and not line.startswith("##")), "")
    plain = first.lstrip("#").strip("\r\n")
    for separator in _SEPARATORS:
        columns = [name.strip().strip('"') for name in plain.split(separator)]
        if len(columns) > 1 and not any(_is_number(name) for name in columns):
            header = Header.of(columns, asked, path)
            return replace(header, separator=separator, is_comment=first.startswith("#"))
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


class Table:
    """A table of scores."""

    def __init__(self, path: Path, header: Header, *, is_parquet: bool) -> None:
        header.check(path)
        self.path = path
        self.header = header
        self._is_parquet = is_parquet
        self._kept = [kind for kind, name in enumerate(CLASSES) if name in header.found]
        self.gives = frozenset((kind, strand) for kind in self._kept for strand in ("+", "-"))

    def check(self, places: Places) -> None:
        """Nothing; see `Reader`."""

    def notes(self) -> list[str]:
        """Which column is what, where that was guessed, and what is not used."""
        found = ", ".join(f"{name} {column}" for name, column in self.header.found.items())
        unused = " Its labels are not used: they come from the annotation." * ("label" in self.header.columns)
        return [f"{self.path.name}: columns taken: {found}.{unused}"]

    def pieces(self, places: Places, skip: int) -> Iterator[Piece]:
        """In the order of the file; see `Reader`."""
        number = 0
        names: dict[str, str | None] = {}
        scores = [CLASSES[kind] for kind in self._kept]
        for frame, share in self._from_parquet() if self._is_parquet else self._from_text():
            by = [name for name in ("gene_id", "chrom", "strand") if name in frame.columns]
            for part in frame.partition_by(by, maintain_order=True):
                gene_id, contig, strand = (
                    str(part[name][0]) if name in by else "" for name in ("gene_id", "chrom", "strand")
                )
                number += 1
                if number <= skip:
                    continue
                gene = places.find(normalise_gene_id(gene_id), places.key(contig) or "") if gene_id else None
                if not contig:
                    contig = places.names.get(gene.interval.chrom, "") if gene else ""
                names[contig] = key = places.key(contig)
                strand = strand or (gene.strand if gene else "+")
                if strand not in _STRANDS:
                    raise InputError(f"{self.path}: strand {strand!r}; allowed are + and -")
                positions = part["position"].to_numpy() - 1 if "position" in part.columns else part["start"].to_numpy()
                if (positions < 0).any():
                    raise InputError(
                        f"{self.path}: position {positions.min() + 1} on {contig}; positions begin at 1. Where they "
                        "begin at 0, say so: --columns start=COLUMN"
                    )
                if key and positions.max() >= places.lengths[key]:
                    raise InputError(
                        f"{self.path}: {contig} has a score at base {positions.max() + 1:,}, but "
                        f"{places.lengths[key]:,} nt in {places.fasta}: are they of one genome build?"
                    )
                values = {kind: part[name].to_numpy() for kind, name in zip(self._kept, scores, strict=True)}
                yield Piece(contig, _STRANDS[strand], *joined(self.path, contig, positions, values), gene_id, share)
        if names and not any(names.values()):
            raise InputError(places.foreign(self.path, [name for name in names if name] or ["not named"]))

    def _from_text(self) -> Iterator[tuple[pl.DataFrame, float]]:
        found = self.header.found
        columns = {name: _KINDS[name] for name in found}
        at = [self.header.columns.index(column) for column in found.values()]
        is_first = not self.header.is_comment
        for block in blocks(self.path, "table"):
            kept = block
            if is_first:
                _, _, rest = block.content.lstrip(b"\n").partition(b"\n")
                skipped = block.content[: len(block.content) - len(rest)].count(b"\n")
                kept, is_first = Block(block.line + skipped, rest, block.share), False
            yield (
                table(
                    self.path,
                    kept,
                    columns,
                    _NEEDS,
                    separator=self.header.separator,
                    at=at,
                    quote='"',
                    optional=CLASSES,
                ),
                block.share,
            )

    def _from_parquet(self) -> Iterator[tuple[pl.DataFrame, float]]:
        found = self.header.found
        file = open_parquet(self.path, "copy it again")
        done, rows = 0, max(file.metadata.num_rows, 1)
        batches = file.iter_batches(MOST_POSITIONS, columns=list(dict.fromkeys(found.values())))
        while True:
            try:
                batch = next(batches, None)
                if batch is None:
                    return
                frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch]))).select(
                    pl.col(column).cast(_KINDS[name]).alias(name) for name, column in found.items()
                )
            except PARQUET_ERRORS as error:
                raise InputError(f"{self.path}: damaged within ({error}); copy it again") from None
            except pl.exceptions.PolarsError as error:
                raise InputError(f"{self.path}: {str(error).splitlines()[0]}; {_NEEDS}") from None
            empty = [name for name in frame.columns if name not in CLASSES and frame[name].null_count()]
            if empty:
                raise InputError(f"{self.path}: empty fields in {found[empty[0]]}; only scores may be empty")
            done += len(frame)
            yield frame, done / rows
