"""Per-nucleotide scores of whole genes, in transcript sense.

On disk (canonical Parquet): rows ascend in 1-based genomic position, letters are the plus strand's,
one row group a gene. In memory: `GeneTrack`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.errors import ArtifactError
from metalayer.gene_track import GeneTrack
from metalayer.genome import N_TOKEN, Gene, reverse_complement, token_table
from metalayer.integrity import PARQUET_ERRORS, open_parquet
from metalayer.schema import BASE_SCORES, CONTIGS_KEY, GENOME_BUILD_KEY, PARALOG_UNKNOWN

GENE_INDEX_KEY = b"metalayer.genes"
"""Parquet metadata: JSON list of [gene_id, chrom, strand, start, end], one a row group."""
LETTERS_KEY = b"metalayer.letters"
"""Parquet metadata: whether `base` holds letters in every gene."""
_AGAIN = "write it again: run again with --no-cache, or with an empty output folder"
LETTER_HASHES_KEY = b"metalayer.letter_hashes"
"""Parquet metadata: JSON object, gene_id to `content_hash` of its tokens in transcript sense; empty where all are N."""
PARALOGS_KEY = b"metalayer.paralogs"
"""Parquet metadata: JSON object, gene_id to paralog flag."""
CONTRADICTED_KEY = b"metalayer.contradicted"
"""Parquet metadata: JSON object, gene_id to the exon bases (transcript sense) that another gene labels otherwise."""


class TrackStore:
    """Reads genes from a canonical per-nucleotide Parquet, one row group each."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._file = open_parquet(self.path, _AGAIN)
        self._metadata: dict[bytes, bytes] = self._file.metadata.metadata or {}
        listed = self._metadata.get(GENE_INDEX_KEY)
        if listed is None:
            raise ArtifactError(
                f"{self.path}: no gene index in its metadata; load per-nucleotide scores through ArtifactLoader first"
            )
        self._genes: dict[str, Gene] = {}
        self._group: dict[str, int] = {}
        self._paralogs: dict[str, int] = json.loads(self._metadata.get(PARALOGS_KEY, b"{}"))
        self._contradicted: dict[str, list[int]] = json.loads(self._metadata.get(CONTRADICTED_KEY, b"{}"))
        hashes = self._metadata.get(LETTER_HASHES_KEY)
        if hashes is None:
            raise ArtifactError(f"{self.path}: written by an earlier metalayer, without hashes of letters; {_AGAIN}")
        self._letter_hashes: dict[str, str] = json.loads(hashes)
        for group, (gene_id, chrom, strand, start, end) in enumerate(json.loads(listed)):
            self._genes[gene_id] = Gene.from_table(gene_id, chrom, strand, start, end)
            self._group[gene_id] = group

    def genes(self) -> dict[str, Gene]:
        """Gene by id, in file order."""
        return dict(self._genes)

    @property
    def has_letters(self) -> bool:
        """Whether the file carries the sequence, so that whole genes can be scored from it."""
        return self._metadata.get(LETTERS_KEY) == b"true"

    @property
    def genome_build(self) -> str | None:
        """The build of its positions, where all the files it was made from name the same one."""
        build = self._metadata.get(GENOME_BUILD_KEY.encode())
        return build.decode() if build else None

    @property
    def contigs(self) -> dict[str, str]:
        """Names of chromosomes in the FASTA, by ours, where the files it was made from name them."""
        found: dict[str, str] = json.loads(self._metadata.get(CONTIGS_KEY.encode(), b"{}"))
        return found

    def contradicted(self, gene_id: str) -> NDArray[np.int64]:
        """Exon bases of a gene, ascending, that an overlapping gene of its strand labels otherwise: ignored."""
        return np.array(self._contradicted.get(gene_id, ()), dtype=np.int64)

    def letters_of(self, gene_id: str) -> str:
        """Hash of a gene's letters in transcript sense; empty where there are none, or all are N."""
        return self._letter_hashes[gene_id]

    def __contains__(self, gene_id: str) -> bool:
        return gene_id in self._group

    def read(self, gene_id: str) -> GeneTrack:
        """One gene's track.

        Raises:
            ArtifactError: damaged within.
        """
        try:
            frame = pl.from_arrow(self._file.read_row_group(self._group[gene_id]))
        except PARQUET_ERRORS as error:
            raise ArtifactError(f"{self.path}: gene {gene_id}: damaged within ({error}); {_AGAIN}") from None
        assert isinstance(frame, pl.DataFrame)
        return _transcript_sense(self._genes[gene_id], frame, self._paralogs.get(gene_id, PARALOG_UNKNOWN))

    def read_many(self, gene_ids: list[str]) -> Iterator[GeneTrack]:
        """Tracks of those of `gene_ids` that are here, one at a time."""
        for gene_id in gene_ids:
            if gene_id in self._group:
                yield self.read(gene_id)


def tokens_of(gene: Gene, letters: pl.Series) -> NDArray[np.uint8]:
    """Tokens of a gene in transcript sense, uint8 (L,), from plus-strand letters in ascending genomic position."""
    tokens = token_table()[np.frombuffer("".join(letters.cast(pl.String).to_list()).encode(), dtype=np.uint8)]
    tokens[tokens > N_TOKEN] = N_TOKEN  # a file without letters; `has_letters` says so
    return reverse_complement(tokens) if gene.strand == "-" else tokens


def open_tracks(path: Path | None) -> TrackStore | None:
    """Per-nucleotide scores that whole genes can be scored from: with letters; else None."""
    if path is None:
        return None
    store = TrackStore(path)
    return store if store.has_letters else None


def _transcript_sense(gene: Gene, frame: pl.DataFrame, paralog: int) -> GeneTrack:
    """Canonical rows of one gene, ascending in genomic position, as a track."""
    tokens = tokens_of(gene, frame["base"])
    scores = frame.select(BASE_SCORES).to_numpy().astype(np.float32)
    labels = frame["label"].to_numpy().astype(np.uint8)
    if gene.strand == "-":
        scores, labels = scores[::-1], labels[::-1]
    return GeneTrack(gene, tokens, np.ascontiguousarray(scores), np.ascontiguousarray(labels), paralog)
