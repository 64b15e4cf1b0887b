"""Evidence by gene: numbers per base from BigWig or Parquet, of both strands alike or one file a strand.

A base without a number is missing (NaN), which is not 0. A file that lacks the contig of a gene, or ends before the
gene does, is of other names or another build, and refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.contigs import Contigs, listed
from metalayer.errors import InputError
from metalayer.file_kinds import BIGWIG, PARQUET, head_of, kind_of
from metalayer.genome import MITOCHONDRIAL, Gene
from metalayer.integrity import PARQUET_ERRORS
from metalayer.settings.evidence import ABSENT, COLUMN, STRANDS, Source

Floats = NDArray[np.float32]
VALUE = "value"
"""Column of numbers in Parquet, unless one has the name of the evidence."""


class _File(Protocol):
    def read(self, contig: str, start: int, end: int, strand: str) -> Floats:
        """Numbers (end - start,) of bases [start, end), 0-based, by our name of the contig; NaN where missing."""


class Evidence:
    """The evidence of some sources, read gene by gene.

    Attributes:
        names: of the evidence that is read here; what stands in a column of the per-nucleotide scores is not.
        columns: of evidence that stands there.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        contigs: Contigs | None = None,
        lengths: Mapping[str, int] | None = None,
    ) -> None:
        """Open the files.

        Args:
            sources: `data.evidence`.
            contigs: which names are of one contig; None for the rules alone.
            lengths: of contigs in nt by our names, where a reference says them; else those that `contigs` has.

        Raises:
            InputError: no such file, one that is neither BigWig nor Parquet or is damaged, contigs of other lengths.
        """
        contigs = contigs or Contigs()
        known = {**contigs.lengths(), **(lengths or {})}
        self.columns = tuple(name for name, source in sources.items() if source == COLUMN)
        self._by_strand: dict[str, Mapping[str, _File] | None] = {}
        for name, source in sources.items():
            if source == ABSENT:
                self._by_strand[name] = None
            elif isinstance(source, dict):
                self._by_strand[name] = {
                    STRANDS[strand]: _opened(name, Path(path), contigs, known) for strand, path in source.items()
                }
            elif source != COLUMN:
                self._by_strand[name] = dict.fromkeys("+-", _opened(name, Path(source), contigs, known))

    @property
    def names(self) -> tuple[str, ...]:
        """See the class."""
        return tuple(self._by_strand)

    def ascending(self, gene: Gene) -> dict[str, Floats]:
        """Numbers (L,) by name of a gene, ascending in genomic position.

        Raises:
            InputError: a file that lacks the gene's contig, ends before the gene, or is damaged there.
        """
        span, found = gene.interval, {}
        for name, files in self._by_strand.items():
            if files is None:
                found[name] = np.full(len(gene), np.nan, np.float32)
                continue
            try:
                found[name] = files[gene.strand].read(span.chrom, span.start, span.end, gene.strand)
            except InputError as error:
                raise InputError(f"evidence {name}: gene {gene.gene_id}: {error}") from None
            if np.isinf(found[name]).any():
                raise InputError(f"evidence {name}: gene {gene.gene_id}: infinite numbers; leave them out of the file")
        return found

    def values(self, gene: Gene) -> dict[str, Floats]:
        """As `ascending`, in transcript sense."""
        turn = slice(None, None, -1 if gene.strand == "-" else 1)
        return {name: np.ascontiguousarray(one[turn]) for name, one in self.ascending(gene).items()}


def _opened(name: str, path: Path, contigs: Contigs, lengths: Mapping[str, int]) -> _File:
    head = head_of(path, f"evidence {name}")
    if head[:4] == b"PAR1":
        return _Table(name, path, contigs)
    if kind_of(head) == BIGWIG:
        return _BigWig(name, path, contigs, lengths)
    found = kind_of(head) or "a file of an unknown kind"
    raise InputError(f"evidence {name}: {path} is {found}; needed is {BIGWIG}, or {PARQUET}")


class _BigWig:
    def __init__(self, name: str, path: Path, contigs: Contigs, lengths: Mapping[str, int]) -> None:
        import pyBigWig

        self._path, self._contigs = path, contigs
        try:
            self._file: Any = pyBigWig.open(str(path.resolve()))  # a name with :// in it would be fetched
            self._lengths: dict[str, int] = dict(self._file.chroms())
        except (RuntimeError, AttributeError):
            raise InputError(f"evidence {name}: {path}: not a whole BigWig file; copy it again") from None
        self._own = _own_names(self._lengths, contigs)
        for key, own in self._own.items():
            if key in lengths and lengths[key] != self._lengths[own] and key not in MITOCHONDRIAL:
                raise InputError(
                    f"evidence {name}: {path}: {own} has {self._lengths[own]:,} nt, but {lengths[key]:,} in the "
                    "reference: they are of different genome builds. Give the file of the build of the scores"
                )

    def read(self, contig: str, start: int, end: int, strand: str) -> Floats:
        own = _own_name(self._own, contig, self._path, self._contigs)
        if end > self._lengths[own]:
            raise InputError(
                f"{self._path}: {own} has {self._lengths[own]:,} nt, but the gene lies at {start + 1:,} to {end:,}: it "
                "is of another genome build. Give the file of the build of the scores"
            )
        try:
            found: Floats = self._file.values(own, start, end, numpy=True).astype(np.float32, copy=False)
        except RuntimeError:
            raise InputError(
                f"{self._path}: damaged at {own}:{start + 1:,}-{end:,} (a block cannot be read); copy it again"
            ) from None
        return found


class _Table:
    """Parquet with chrom, position (1-based) and value, and where numbers are of one strand, strand."""

    def __init__(self, name: str, path: Path, contigs: Contigs) -> None:
        self._path, self._contigs = path, contigs
        self._scan = pl.scan_parquet(path)
        self._held: tuple[str, pl.DataFrame] | None = None
        try:
            there = self._scan.collect_schema().names()
            self._value = name if name in there else VALUE
            if absent := [column for column in ("chrom", "position", self._value) if column not in there]:
                raise InputError(
                    f"evidence {name}: {path}: no column {', '.join(absent)}; needed are chrom, position (1-based) and "
                    f"{VALUE} (or {name}), and strand where numbers are of one"
                )
            self._is_stranded = "strand" in there
            chroms = self._scan.select(pl.col("chrom").cast(pl.String).unique()).collect()["chrom"].drop_nulls()
        except (pl.exceptions.PolarsError, *PARQUET_ERRORS) as error:
            raise InputError(f"evidence {name}: {path}: {str(error).splitlines()[0]}; write it again") from None
        self._own = _own_names(dict.fromkeys(chroms.sort().to_list(), 0), contigs)

    def read(self, contig: str, start: int, end: int, strand: str) -> Floats:
        rows = self._of(_own_name(self._own, contig, self._path, self._contigs))
        if self._is_stranded:
            rows = rows.filter(pl.col("strand") == strand)
        rows = rows.filter(pl.col("position").is_between(start + 1, end))
        at = rows["position"].to_numpy() - 1 - start
        if len(np.unique(at)) < len(at):
            raise InputError(f"{self._path}: a position of {contig} stands there twice; give each one number")
        found = np.full(end - start, np.nan, np.float32)
        found[at] = rows[VALUE].to_numpy()
        return found

    def _of(self, own: str) -> pl.DataFrame:
        """All rows of a contig, which are held: genes come one contig after the other."""
        if self._held is None or self._held[0] != own:
            columns = [pl.col("position").cast(pl.Int64), pl.col(self._value).cast(pl.Float32).alias(VALUE)]
            columns += [pl.col("strand").cast(pl.String)] * self._is_stranded
            try:
                rows = self._scan.filter(pl.col("chrom").cast(pl.String) == own).select(columns).collect()
            except (pl.exceptions.PolarsError, *PARQUET_ERRORS) as error:
                raise InputError(f"{self._path}: {str(error).splitlines()[0]}; write it again") from None
            self._held = own, rows.drop_nulls()
        return self._held[1]


def _own_names(names: Mapping[str, int], contigs: Contigs) -> dict[str, str]:
    """A file's names of contigs, by ours."""
    return {contigs.key(name): name for name in names}


def _own_name(own: Mapping[str, str], contig: str, path: Path, contigs: Contigs) -> str:
    key = contigs.key(contig)
    found = own.get(key) or own.get(contigs.twin(key) or "")
    if found is None:
        raise InputError(
            f"{path}: no contig {contig}; there are {listed(own.values())}. {contigs.hint([contig], own.values())}"
        )
    return found
