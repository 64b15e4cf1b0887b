"""The per-nucleotide Parquet that users see: every position of genes, `schema.TRACK_COLUMNS` and label.

A base model that does not tell donors from acceptors has `SPLICED_SCORE` in place of the three.

One file a base model and chromosome, a row group a gene. Whatever gives the scores (a base-layer pass, the simulator,
an import) writes them here.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from metalayer.files import publish_file
from metalayer.genome import Gene, chrom_in_file_names, one_based, reverse_complement
from metalayer.integrity import PAGE_CHECKSUMS, seal_metadata
from metalayer.schema import (
    BASE_MODEL_KEY,
    BASE_SCORES,
    CLASSES,
    CONTIGS_KEY,
    GENOME_BUILD_KEY,
    MARK_COLUMNS,
    SITE_CONVENTION,
    SITE_KINDS,
)
from metalayer.site_labels import SiteMarks

BUILD_UNKNOWN = "unknown"
SCORES_FOLDER = "nucleotide_scores"
"""Below a data root."""


def file_name(base_model: str, chrom: str) -> str:
    """Of the scores of a base model on a chromosome, below `SCORES_FOLDER`."""
    return f"{base_model}_chr{chrom_in_file_names(chrom)}.parquet"


def remove_stale(folder: Path, base_model: str, written: Collection[str]) -> None:
    """Remove the files of a base model that are not among those just written, by name."""
    for path in folder.glob(f"{base_model}_chr*.parquet"):
        if path.name not in written:
            path.unlink()


class NucleotideFile:
    """Writes genes of one chromosome."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer = writer

    @classmethod
    @contextlib.contextmanager
    def publish(
        cls,
        path: Path,
        base_model: str,
        chrom: str,
        build: str,
        *,
        is_long: bool = False,
        contigs: Mapping[str, str] | None = None,
        columns: Sequence[str] = BASE_SCORES,
        marked: bool = False,
        metadata: Mapping[str, str] | None = None,
    ) -> Iterator[NucleotideFile]:
        """Give a file to write genes to; it is there, whole, when the block ends without an error.

        Args:
            path: of the file.
            base_model: whose scores they are.
            chrom: its chromosome.
            build: of its positions; `BUILD_UNKNOWN` is not written.
            is_long: positions are int64, for those beyond `LARGEST_32_BIT`.
            contigs: names of chromosomes in the FASTA, by ours.
            columns: names of the scores.
            marked: its genes come with marks of their sites.
            metadata: more of the file's.
        """
        schema = _schema(base_model, build, chrom, is_long, contigs or {}, columns, marked, metadata or {})
        # The writer closes before its draft is published: entered later, left earlier.
        with (
            publish_file(path) as draft,
            pq.ParquetWriter(draft, schema, compression="zstd", **PAGE_CHECKSUMS) as writer,
        ):
            yield cls(writer)

    def write(
        self,
        gene: Gene,
        tokens: NDArray[np.uint8],
        scores: NDArray[np.float32],
        labels: NDArray[np.uint8],
        marks: SiteMarks | None = None,
    ) -> None:
        """Write a gene.

        Args:
            gene: L bases.
            tokens: uint8 (L,), transcript sense.
            scores: float32 (L, columns), at exon bases, transcript sense; NaN is missing.
            labels: uint8 (L,), class at exon bases, transcript sense.
            marks: of which isoforms they are sites, transcript sense, where the file is one with marks.
        """
        table = _table(gene, tokens, scores, labels, marks, self._writer.schema)
        self._writer.write_table(table, row_group_size=len(gene))

    def close(self) -> None:
        """No more genes come: the file is complete, and appears when the block ends."""
        self._writer.close()


def _schema(
    base_model: str,
    build: str,
    chrom: str,
    is_long: bool,
    contigs: Mapping[str, str],
    columns: Sequence[str],
    marked: bool,
    more: Mapping[str, str],
) -> pa.Schema:
    metadata = {
        **more,
        "metalayer.format_version": "1",
        "metalayer.site_convention": SITE_CONVENTION,
        BASE_MODEL_KEY: base_model,
    }
    if chrom in contigs:
        metadata[CONTIGS_KEY] = json.dumps({chrom: contigs[chrom]})
    if build != BUILD_UNKNOWN:
        metadata[GENOME_BUILD_KEY] = build
    text = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            ("gene_id", text),
            ("chrom", text),
            ("strand", text),
            ("position", pa.int64() if is_long else pa.int32()),
            ("base", text),
            *((name, pa.float32()) for name in columns),
            ("label", text),
            *(zip(MARK_COLUMNS, (text, pa.int32()), strict=True) if marked else ()),
        ],
        metadata=seal_metadata(metadata),
    )


def _table(
    gene: Gene,
    tokens: NDArray[np.uint8],
    scores: NDArray[np.float32],
    labels: NDArray[np.uint8],
    marks: SiteMarks | None,
    schema: pa.Schema,
) -> pa.Table:
    """All positions of a gene, ascending in genomic position, letters of the plus strand."""
    length = len(gene)
    if gene.strand == "-":
        tokens, scores, labels = reverse_complement(tokens), scores[::-1], labels[::-1]
        marks = marks and marks.backwards()

    def constant(value: str) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(np.zeros(length, np.int32)), [value])

    columns = [
        constant(f"gene-{gene.gene_id}"),
        constant(f"chr{gene.interval.chrom}"),
        constant(gene.strand),
        pa.array(
            np.arange(length) + one_based(gene.interval.start, gene.interval.end)[0], schema.field("position").type
        ),
        pa.DictionaryArray.from_arrays(pa.array(tokens.astype(np.int32)), list("ACGTN")),
        *(
            pa.array(np.ascontiguousarray(scores[:, i], dtype=np.float32), mask=np.isnan(scores[:, i]))
            for i in range(scores.shape[1])
        ),
        pa.DictionaryArray.from_arrays(pa.array(labels.astype(np.int32)), list(CLASSES)),
    ]
    if marks:
        kinds = pa.DictionaryArray.from_arrays(pa.array(marks.kinds.astype(np.int32)), list(SITE_KINDS))
        columns += [kinds, pa.array(marks.transcripts)]
    return pa.Table.from_arrays(columns, schema=schema)
