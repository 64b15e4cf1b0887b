"""Calibrated scores of whole genes on disk: Parquet, one row group a gene.

Genes by chromosome, start, end and id; rows ascend in 1-based genomic position within a gene, so that genes
that overlap follow each other. Key: (gene_id, position). Metadata: where the genes lie, and a manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from metalayer.contigs import own_names
from metalayer.data.tracks import GENE_INDEX_KEY
from metalayer.errors import ArtifactError, InputError
from metalayer.genome import MITOCHONDRIAL, Gene, Interval, chrom_order, normalise_chrom, one_based
from metalayer.integrity import PAGE_CHECKSUMS, PARQUET_ERRORS, open_parquet, seal_metadata
from metalayer.schema import CLASSES, PROBABILITY_SUM_TOLERANCE, SCORED_COLUMNS

MANIFEST_KEY = b"metalayer.scores"
"""Parquet metadata: JSON, what was scored with which model."""
_AGAIN = "copy it again, or score again"
_TEXT = pa.dictionary(pa.int32(), pa.string())


def _schema(position: pa.DataType) -> pa.Schema:
    kinds = {"position": position} | dict.fromkeys(CLASSES, pa.float32())
    return pa.schema([(name, kinds.get(name, _TEXT)) for name in SCORED_COLUMNS])


_SCHEMA, _LONG_SCHEMA = _schema(pa.int32()), _schema(pa.int64())


def genome_order(gene: Gene) -> tuple[Any, ...]:
    """Sorts genes as files of scores have them."""
    return *chrom_order(gene.interval.chrom), gene.interval.start, gene.interval.end, gene.gene_id


class ScoredGenomeWriter:
    """Writes genes one after the other; as a context manager it ends the file, with its manifest in it."""

    def __init__(self, path: Path, manifest: Mapping[str, Any], *, is_long: bool = False) -> None:
        """Open a file.

        Args:
            path: to write; the caller publishes it.
            manifest: JSON-ready.
            is_long: there are genes beyond `LARGEST_32_BIT`, so that positions take 64 bits.
        """
        self._schema = _LONG_SCHEMA if is_long else _SCHEMA
        self._manifest = json.dumps(manifest)
        self._index: list[tuple[str, str, str, int, int]] = []
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            compression="zstd",
            use_dictionary=["gene_id", "chrom", "strand"],
            column_encoding={"position": "DELTA_BINARY_PACKED"} | dict.fromkeys(CLASSES, "BYTE_STREAM_SPLIT"),
            **PAGE_CHECKSUMS,
        )

    def __enter__(self) -> ScoredGenomeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        metadata = {GENE_INDEX_KEY.decode(): json.dumps(self._index), MANIFEST_KEY.decode(): self._manifest}
        self._writer.add_key_value_metadata(seal_metadata(metadata, self._schema.names))
        self._writer.close()

    def add(self, gene: Gene, probabilities: NDArray[np.float32]) -> None:
        """One gene, all of its positions.

        Args:
            gene: later in `genome_order` than the one before.
            probabilities: float32 (L, 3), donor, acceptor, neither at exon bases, transcript sense.

        Raises:
            ArtifactError: not L rows, or values that are no probabilities.
        """
        first, _ = one_based(gene.interval.start, gene.interval.end)
        ascending = probabilities if gene.strand == "+" else probabilities[::-1]

        def constant(value: str) -> pa.Array:
            return pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(ascending), np.int32)), [value])

        columns = [
            *(constant(value) for value in (gene.gene_id, gene.interval.chrom, gene.strand)),
            pa.array(np.arange(first, first + len(ascending)), self._schema.field("position").type),
            *(pa.array(np.ascontiguousarray(ascending[:, i])) for i in range(len(CLASSES))),
        ]
        self.copy(gene, pa.Table.from_arrays(columns, schema=self._schema))

    def copy(self, gene: Gene, rows: pa.Table) -> None:
        """One gene as another file of scores has it; errors as in `add`."""
        check_rows(gene, rows)
        self._writer.write_table(rows.cast(self._schema), row_group_size=len(rows))
        self._index.append(_index_line(gene))


def check_rows(gene: Gene, rows: pa.Table) -> None:
    """Every position of a gene, once and in order, with probabilities.

    Raises:
        ArtifactError: anything else.
    """
    start, end = one_based(gene.interval.start, gene.interval.end)
    position = rows["position"].to_numpy()
    if not np.array_equal(position, np.arange(start, end + 1)):
        raise ArtifactError(
            f"gene {gene.gene_id}: {len(position)} rows that are not the positions {start} to {end}, each once"
        )
    for name, value in zip(("gene_id", "chrom", "strand"), _index_line(gene)[:3], strict=True):
        if rows[name].unique().to_pylist() != [value]:
            raise ArtifactError(f"gene {gene.gene_id}: rows whose {name} is not {value}")
    values = np.stack([rows[name].to_numpy() for name in CLASSES])
    if not ((values >= 0) & (values <= 1)).all():  # False for NaN too
        raise ArtifactError(f"gene {gene.gene_id}: NaN, or scores outside [0, 1]")
    if (np.abs(values.sum(axis=0) - 1) > PROBABILITY_SUM_TOLERANCE).any():
        raise ArtifactError(f"gene {gene.gene_id}: scores that do not add up to 1 within {PROBABILITY_SUM_TOLERANCE}")


class ScoredGenome:
    """Reads a file of scores, gene by gene or by region."""

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            ArtifactError: absent, damaged, or of another kind.
        """
        self.path = Path(path)
        try:
            self._file = open_parquet(self.path, _AGAIN)
        except FileNotFoundError as error:
            raise ArtifactError(f"{path}: {error.strerror}; {_AGAIN}") from None
        metadata = self._file.metadata.metadata or {}
        if MANIFEST_KEY not in metadata:
            raise ArtifactError(f"{path}: no scores of whole genes; `--pipeline score` writes them")
        self.manifest: dict[str, Any] = json.loads(metadata[MANIFEST_KEY])
        lines = json.loads(metadata[GENE_INDEX_KEY])
        self._genes = [Gene.from_table(*line) for line in lines]
        self._group = {gene.gene_id: number for number, gene in enumerate(self._genes)}

    def genes(self) -> list[Gene]:
        """The genes, in file order."""
        return list(self._genes)

    def rows(self, gene_id: str) -> pa.Table:
        """The rows of a gene, `SCORED_COLUMNS`.

        Raises:
            InputError: no such gene.
            ArtifactError: damaged within.
        """
        if gene_id not in self._group:
            raise InputError(f"gene {gene_id!r} is not among the {len(self._genes)} of {self.path}")
        try:
            return self._file.read_row_group(self._group[gene_id])
        except PARQUET_ERRORS as error:
            raise ArtifactError(f"{self.path}: gene {gene_id}: damaged within ({error}); {_AGAIN}") from None

    def read(self, gene_id: str) -> NDArray[np.float32]:
        """Donor, acceptor, neither at every exon base of a gene, transcript sense: float32 (L, 3); errors as `rows`."""
        rows = self.rows(gene_id)
        values = np.stack([rows[name].to_numpy() for name in CLASSES], axis=1)
        return values if self._genes[self._group[gene_id]].strand == "+" else np.ascontiguousarray(values[::-1])

    def region(self, interval: Interval) -> pl.DataFrame:
        """The rows of all genes at the positions of an interval, gene after gene.

        Args:
            interval: on a chromosome, by our name, with or without `chr`, or by that of the FASTA where the file knows
                it; 0-based and half-open as all of ours.

        Returns:
            [n_rows] with the columns of the file; `position` is 1-based. Empty where no gene is.
        """
        interval = replace(interval, chrom=self._chrom(interval.chrom))
        start, end = one_based(interval.start, interval.end)
        parts = [
            pl.DataFrame(pl.from_arrow(self.rows(gene.gene_id))).filter(pl.col("position").is_between(start, end))
            for gene in self._genes
            if gene.interval.overlaps(interval)
        ]
        empty = pl.DataFrame(pl.from_arrow(self._file.schema_arrow.empty_table()))
        return pl.concat([empty, *parts]).cast(dict.fromkeys(("gene_id", "chrom", "strand"), pl.String))

    def _chrom(self, name: str) -> str:
        """Our name of a chromosome."""
        plain = normalise_chrom(name)
        there = {gene.interval.chrom for gene in self._genes}
        meant = (plain, own_names(self.manifest.get("contigs", {})).get(plain), MITOCHONDRIAL.get(plain))
        return next((chrom for chrom in meant if chrom in there), plain)


def _index_line(gene: Gene) -> tuple[str, str, str, int, int]:
    """[gene_id, chrom, strand, start, end] of `GENE_INDEX_KEY`."""
    return gene.gene_id, gene.interval.chrom, gene.strand, *one_based(gene.interval.start, gene.interval.end)
