"""Artifact TSV rows to typed, checked rows, chunk by chunk.

Read by name, needed columns only. Rows with a null or NaN score or without a sequence are dropped and
counted; anything that cannot be a base-layer row (probability out of range, unknown letter, sequence
that does not reach its base) is an error that names file and row. Nothing is guessed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.contigs import Contigs
from metalayer.data.discovery import ArtifactFile
from metalayer.data.gene_table import normalised_chrom, normalised_gene_id, with_keys
from metalayer.data.windows import encode_windows
from metalayer.errors import ArtifactError, InputError
from metalayer.features import feature_matrix, mismatched_columns
from metalayer.file_kinds import TEXT, refuse_others, unpacked
from metalayer.genome import normalise_chrom
from metalayer.schema import (
    ARTIFACT_WINDOW_BP,
    CLASSES,
    DERIVED_FEATURES,
    FEATURES,
    PROBABILITY_SUM_TOLERANCE,
    ROW_SCORES,
)

TYPED_ROW: dict[str, Any] = {
    "gene_id": pl.String,
    "chrom": pl.String,
    "strand": pl.String,
    "position": pl.Int32,
    "index": pl.Int32,
    "sequence": pl.String,
    "splice_type": pl.String,
}
"""What a typed row is, before its scores or features: `index` is that of the labelled base in `sequence`."""
_REQUIRED = ("gene_id", "position", "strand", *ROW_SCORES, "splice_type", "window_start", "sequence")
BATCH_ROWS = 65_536
"""Rows held at a time."""
_ROW = "row of the file"
_TAIL_BYTES = 1_000_000


@dataclass
class ReadReport:
    """What reading found: counted, and shown to the user."""

    files: int = 0
    rows_read: int = 0
    rows_kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    mismatched_features: dict[str, int] = field(default_factory=dict)
    derived_in_files: int = 0
    acceptor_rows_lost: int = 0

    def add(self, counts: dict[str, int], found: dict[str, int]) -> None:
        """Add `found` to `counts`, leaving out zeros."""
        for name, count in found.items():
            if count:
                counts[name] = counts.get(name, 0) + count


def read_header(file: ArtifactFile) -> list[str]:
    """Column names of a chunk, after checking that the file is whole.

    Raises:
        ArtifactError: empty, cut in its last line, a column missing or twice.
    """
    path = file.path
    if path.stat().st_size == 0:
        raise ArtifactError(f"{path}: the file is empty; write it again with the base-layer pass, or remove it")
    refuse_others(path, "artifact rows", f"a table of {', '.join(_REQUIRED)}, tab separated", TEXT, ArtifactError)
    with unpacked(path, "artifact rows", ArtifactError) as handle:
        header = handle.readline()
        names = header.decode("utf-8", errors="replace").rstrip("\r\n").split("\t")
        missing = [name for name in _REQUIRED if name not in names]
        if missing:
            raise ArtifactError(
                f"{path}: no column {', '.join(missing)}. Needed are {', '.join(_REQUIRED)} (tab separated, any order)"
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ArtifactError(f"{path}: column {', '.join(twice)} stands there twice; keep one")
        tail = _tail(path, handle)
    fields = tail.rstrip(b"\n").rsplit(b"\n", 1)[-1].count(b"\t") + 1
    ending = "with" if tail.endswith(b"\n") else "without"
    if ending == "without" or fields != len(names):
        raise ArtifactError(
            f"{path}: the last line is cut short ({fields} of {len(names)} fields, {ending} a line end); copy or "
            "write the file again"
        )
    return names


def _tail(path: Path, handle: BinaryIO) -> bytes:
    """The end of the content; of a packed file all of it is read."""
    if path.suffix == ".tsv":
        handle.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return handle.read()
    tail = b""
    while block := handle.read(_TAIL_BYTES):
        tail = (tail + block)[-_TAIL_BYTES:]
    return tail


def read_artifacts(
    file: ArtifactFile, report: ReadReport, batch_rows: int = BATCH_ROWS, contigs: Contigs | None = None
) -> Iterator[pl.DataFrame]:
    """Typed rows of one chunk, checked, without features; chromosomes by the names that `contigs` has for them.

    Yields:
        gene_id, chrom, strand, position (Int32), index (Int32, labelled base in `sequence`), sequence,
        splice_type (one of `CLASSES`), and `ROW_SCORES` (Float64).

    Raises:
        ArtifactError: see the module.
    """
    names = read_header(file)
    derived = [name for name in DERIVED_FEATURES if name in names]
    last = names[-1]
    wanted = [name for name in names if name in {*_REQUIRED, "chrom", *derived, last}]
    report.files += 1
    report.derived_in_files = max(report.derived_in_files, len(derived))
    first, complete = 0, False
    with _parsing(file):
        scan = pl.scan_csv(file.path, separator="\t", schema=_kinds(names)).select(wanted)
        for batch in scan.collect_batches(chunk_size=batch_rows, maintain_order=True):
            # A line with too few fields reads as one whose last fields are empty.
            if not complete and batch[last].null_count():
                _check_field_counts(file, len(names))
                complete = True
            typed = _typed(batch, file, first, derived, report)
            first += len(batch)
            if len(typed):
                yield with_keys(typed, contigs or Contigs())


def read_sites(file: ArtifactFile) -> pl.DataFrame:
    """gene_id, position, splice_type of the donors and acceptors of one chunk, also of rows that cannot be used.

    Raises:
        ArtifactError: a file that cannot be parsed.
    """
    with _parsing(file):
        scan = pl.scan_csv(file.path, separator="\t", schema=_kinds(read_header(file)))
        return (
            scan.select(normalised_gene_id().alias("gene_id"), "position", _site_class())
            .filter(pl.col("splice_type").is_in(["donor", "acceptor"]))
            .collect()
        )


def count_rows(file: ArtifactFile) -> dict[str, dict[str, int]]:
    """Rows of one chunk by class, chromosome and gene, and without a value by column.

    Raises:
        ArtifactError: a file that cannot be parsed.
    """
    names = read_header(file)
    kinds = _kinds(names)
    wanted = [name for name in (*_REQUIRED, "chrom", *DERIVED_FEATURES) if name in names]
    with _parsing(file):
        scan = pl.scan_csv(file.path, separator="\t", schema=kinds).select(wanted)
        if "chrom" not in names:
            scan = scan.with_columns(pl.lit(file.chrom).alias("chrom"))
        empty = {
            name: pl.col(name).is_null() | (pl.col(name).is_nan() if kinds[name] == pl.Float64() else pl.lit(False))
            for name in wanted
            if name != "splice_type"  # null is the class neither
        }
        keys = [_site_class(), normalised_chrom().alias("chrom"), normalised_gene_id().alias("gene_id")]
        missing, *tables = pl.collect_all(
            [scan.select(expression.sum().alias(name) for name, expression in empty.items())]
            + [scan.select(key).group_by(pl.all()).len().sort(pl.all()) for key in keys]
        )
    classes, chromosomes, genes = ({str(k): n for k, n in table.iter_rows()} for table in tables)
    counts = {name: int(n) for name, n in missing.row(0, named=True).items() if n}
    return {"classes": classes, "chromosomes": chromosomes, "genes": genes, "missing": counts}


def _kinds(names: list[str]) -> dict[str, pl.DataType]:
    """Types to read a file's columns as."""
    kinds: dict[str, pl.DataType] = dict.fromkeys(names, pl.String())
    kinds.update((name, pl.Float64()) for name in (*ROW_SCORES, *DERIVED_FEATURES) if name in kinds)
    kinds.update((name, pl.Int64()) for name in ("position", "window_start"))
    return kinds


def _site_class() -> pl.Expr:
    """`neither` is null, empty or the word in any case."""
    return pl.col("splice_type").fill_null("").str.to_lowercase().replace("", "neither")


@contextlib.contextmanager
def _parsing(file: ArtifactFile) -> Iterator[None]:
    try:
        yield
    except pl.exceptions.PolarsError as error:
        text = str(error).splitlines()[0]
        if "utf-8" in text.lower():
            raise ArtifactError(f"{file.path}: letters that are no UTF-8, perhaps Latin-1; save it in UTF-8") from None
        raise ArtifactError(
            f"{file.path}: {text}. Every line needs the header's fields and numbers as numbers"
        ) from None


def _check_field_counts(file: ArtifactFile, expected: int) -> None:
    with unpacked(file.path, "artifact rows", ArtifactError) as handle:
        for number, line in enumerate(handle, start=1):
            fields = line.count(b"\t") + 1
            if fields != expected:
                raise ArtifactError(
                    f"{file.path}, line {number}: {fields} fields, but the header has {expected}; copy or write the "
                    "file again"
                )


def _typed(batch: pl.DataFrame, file: ArtifactFile, first: int, derived: list[str], report: ReadReport) -> pl.DataFrame:
    """Check and type one batch; `first` is the number of its first row in the file."""
    report.rows_read += len(batch)
    where = f"{file.path}, row {{}}"
    if "chrom" not in batch.columns:
        batch = batch.with_columns(pl.lit(file.chrom).alias("chrom"))
    batch = batch.with_columns(
        _site_class(),
        normalised_gene_id().alias("gene_id"),
        normalised_chrom().alias("chrom"),
    ).with_row_index(_ROW, offset=first)

    def refuse(bad: pl.Expr, text: str, *shown: str) -> None:
        mask = batch.select(bad).to_series()
        if mask.any():
            rows = batch.filter(mask)
            values = ", ".join(f"{name} {rows[name][0]!r}" for name in shown)
            raise ArtifactError(f"{where.format(rows[_ROW][0])}: {values}; {text} ({len(rows)} such rows)")

    identity = ("gene_id", "position", "window_start", "strand", "chrom")
    refuse(pl.any_horizontal(pl.col(*identity).is_null()), "none of these may be empty", *identity)
    negative = (pl.col("position") < 0) | (pl.col("window_start") < 0)
    refuse(negative, "positions count from 0", "position", "window_start")
    refuse(~pl.col("strand").is_in(["+", "-"]), "strand must be + or -", "strand")
    chrom = normalise_chrom(file.chrom)
    refuse(pl.col("chrom") != chrom, f"the file's name says chromosome {chrom}; which is right?", "gene_id", "chrom")
    refuse(~pl.col("splice_type").is_in(CLASSES), "allowed are donor, acceptor, neither or nothing", "splice_type")

    missing_score = pl.any_horizontal([pl.col(name).is_null() | pl.col(name).is_nan() for name in ROW_SCORES])
    missing_letters = pl.col("sequence").is_null() | (pl.col("sequence").str.len_bytes() == 0)
    counts = batch.select(scores=missing_score.sum(), sequence=(missing_letters & ~missing_score).sum()).row(0)
    report.add(report.dropped, {"null or NaN score": counts[0], "no sequence": counts[1]})
    if any(counts):
        batch = batch.filter(~missing_score & ~missing_letters)
    if not len(batch):
        return batch

    scores = batch.select(ROW_SCORES).to_numpy()
    _check_probabilities(scores, batch, where)
    report.add(report.mismatched_features, _mismatched(scores, batch, derived))
    index = (batch["position"] - batch["window_start"]).to_numpy()
    outside = (index < 0) | (index >= batch["sequence"].str.len_bytes().to_numpy())
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise ArtifactError(
            f"{where.format(batch[_ROW][row])}: the sequence of {len(batch['sequence'][row])} letters does not "
            f"reach the labelled base at index position - window_start = {index[row]} ({int(outside.sum())} such rows)"
        )
    report.rows_kept += len(batch)
    rows = batch.with_columns(pl.Series("index", index))
    return rows.select(*(pl.col(name).cast(kind) for name, kind in TYPED_ROW.items()), *ROW_SCORES)


def _check_probabilities(scores: NDArray[np.float64], batch: pl.DataFrame, where: str) -> None:
    out_of_range = (scores < 0.0) | (scores > 1.0)
    if out_of_range.any():
        row, column = (int(i[0]) for i in np.nonzero(out_of_range))
        raise ArtifactError(
            f"{where.format(batch[_ROW][row])}: {ROW_SCORES[column]} {scores[row, column]} is no probability; "
            f"scores lie in [0, 1] ({int(out_of_range.any(axis=1).sum())} such rows)"
        )
    total = scores[:, :3].sum(axis=1)
    off = np.abs(total - 1.0) > PROBABILITY_SUM_TOLERANCE
    if off.any():
        row = int(np.flatnonzero(off)[0])
        raise ArtifactError(
            f"{where.format(batch[_ROW][row])}: donor, acceptor and neither scores add up to {total[row]:.4f}; "
            f"must be 1 within {PROBABILITY_SUM_TOLERANCE} ({int(off.sum())} such rows)"
        )


def _mismatched(scores: NDArray[np.float64], batch: pl.DataFrame, derived: list[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    step = 8192  # stays in the processor's cache
    columns = {}
    for name in derived:
        column = batch[name]
        columns[name] = (column.fill_null(float("nan")) if column.null_count() else column).to_numpy()
    for start in range(0, len(scores), step):
        part = {name: values[start : start + step] for name, values in columns.items()}
        for name, count in mismatched_columns(scores[start : start + step], part).items():
            counts[name] = counts.get(name, 0) + count
    return counts


def with_features(rows: pl.DataFrame, row_scores: NDArray[np.float32], source: str = "rows") -> pl.DataFrame:
    """Typed rows with the 50 features, computed from `row_scores` float32 (n, 7).

    Raises:
        ArtifactError: a letter other than ACGTN; `source` is where the rows come from.
    """
    try:
        windows = encode_windows(rows["sequence"], rows["index"].to_numpy(), ARTIFACT_WINDOW_BP)
    except InputError as error:
        raise ArtifactError(f"{source}, rows from gene {rows['gene_id'][0]} on: {error}") from None
    features = feature_matrix(row_scores, windows, order="F")
    return rows.select(*TYPED_ROW).hstack([pl.Series(name, features[:, i]) for i, name in enumerate(FEATURES)])
