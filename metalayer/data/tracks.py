"""Per-nucleotide scores of whole genes, in transcript sense.

On disk (canonical Parquet): rows ascend in 1-based genomic position, letters are the plus strand's,
one row group a gene; the scores of several base models may stand side by side. In memory: `GeneTrack`.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.data.mean import tells_kinds, untrained_mean
from metalayer.errors import ArtifactError
from metalayer.gene_track import GeneTrack
from metalayer.genome import N_TOKEN, Gene, reverse_complement, token_table
from metalayer.integrity import PARQUET_ERRORS, open_parquet
from metalayer.schema import (
    BASE_SCORES,
    CONTIGS_KEY,
    GENOME_BUILD_KEY,
    MARK_COLUMNS,
    PARALOG_UNKNOWN,
    SPLICED_SCORE,
    evidence_column,
    score_columns,
)
from metalayer.site_labels import SiteMarks

GENE_INDEX_KEY = b"metalayer.genes"
"""Parquet metadata: JSON list of [gene_id, chrom, strand, start, end], one a row group."""
LETTERS_KEY = b"metalayer.letters"
"""Parquet metadata: whether `base` holds letters in every gene."""
_AGAIN = "write it again: run again with --no-cache, or with an empty output folder"
LETTER_HASHES_KEY = b"metalayer.letter_hashes"
"""Parquet metadata: JSON object, gene_id to `content_hash` of its tokens in transcript sense; empty where all are N."""
PARALOGS_KEY = b"metalayer.paralogs"
"""Parquet metadata: JSON object, gene_id to paralog flag."""
PARALOG_GROUPS_KEY = b"metalayer.paralog_groups"
"""Parquet metadata: JSON object, gene_id to its paralog group in the gene table, of genes that have one there."""
CONTRADICTED_KEY = b"metalayer.contradicted"
"""Parquet metadata: JSON object, gene_id to the exon bases (transcript sense) that another gene labels otherwise."""
IGNORED_KEY = b"metalayer.ignored"
"""Parquet metadata: JSON object, gene_id to how many positions the column `ignored` marks, of genes with any."""


def score_columns_in(columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The score columns of each base model in a per-nucleotide file, in the order of the file.

    Args:
        columns: of the file.

    Returns:
        By name; the plain columns of a single base model under an empty name. Not all of them need be there.

    Raises:
        ArtifactError: plain columns beside those of named base models.
    """
    kinds = {scores[0]: scores for scores in _KINDS}
    named = {
        name: score_columns(name, kinds[column])
        for column, _, name in (one.partition(".") for one in columns)
        if name and column in kinds
    }
    plain = [first for first in kinds if first in columns]
    if named and plain:
        first = next(iter(named))
        raise ArtifactError(
            f"scores of an unnamed base model ({plain[0]}) beside those of {', '.join(named)}; name the columns of "
            f"all, as {named[first][0]}"
        )
    return named or {"": kinds[plain[0]] if plain else BASE_SCORES}


_KINDS = (BASE_SCORES, (SPLICED_SCORE,))
"""What a base model may give."""


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
        keys = (LETTER_HASHES_KEY, IGNORED_KEY, PARALOG_GROUPS_KEY)
        hashes, ignored, groups = (self._metadata.get(key) for key in keys)
        if hashes is None or ignored is None or groups is None:
            raise ArtifactError(f"{self.path}: written by an earlier metalayer, in an older format; {_AGAIN}")
        self._ignored: dict[str, int] = json.loads(ignored)
        self._columns = score_columns_in(self._file.schema_arrow.names)
        self._start: Callable[[GeneTrack], NDArray[np.float32]] | None = None
        self._letter_hashes: dict[str, str] = json.loads(hashes)
        paralogs: dict[str, str] = json.loads(groups)
        for group, (gene_id, chrom, strand, start, end) in enumerate(json.loads(listed)):
            known = paralogs.get(gene_id)
            self._genes[gene_id] = Gene.from_table(gene_id, chrom, strand, start, end, paralog_group=known)
            self._group[gene_id] = group

    def genes(self) -> dict[str, Gene]:
        """Gene by id, in file order; with paralog groups where the files were read with a gene table that has them."""
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

    @property
    def base_models(self) -> tuple[str, ...]:
        """The base models whose scores stand side by side; of one base model alone, an empty name."""
        return tuple(self._columns)

    @property
    def mark_columns(self) -> tuple[str, ...]:
        """`schema.MARK_COLUMNS` where the files have them, else none."""
        return MARK_COLUMNS if MARK_COLUMNS[0] in self._file.schema_arrow.names else ()

    def score_columns(self, base_model: str | None = None) -> tuple[str, ...]:
        """The columns of a base model, one of `base_models`; None: of the first."""
        return self._columns[self.base_models[0] if base_model is None else base_model]

    @property
    def evidence(self) -> tuple[str, ...]:
        """Names of the evidence beside the scores, in the order of the file."""
        prefix = evidence_column("")
        return tuple(name.removeprefix(prefix) for name in self._file.schema_arrow.names if name.startswith(prefix))

    def paralog(self, gene_id: str) -> int:
        """1 it has paralogs, 0 it has none, -1 unknown."""
        return self._paralogs.get(gene_id, PARALOG_UNKNOWN)

    def ignores(self, gene_id: str) -> bool:
        """Whether a gene has ignored positions: marked in its file, or labelled otherwise by an overlapping gene."""
        return gene_id in self._ignored or gene_id in self._contradicted

    def letters_of(self, gene_id: str) -> str:
        """Hash of a gene's letters in transcript sense; empty where there are none, or all are N."""
        return self._letter_hashes[gene_id]

    def __contains__(self, gene_id: str) -> bool:
        return gene_id in self._group

    def read(self, gene_id: str, base_model: str | None = None) -> GeneTrack:
        """One gene's track.

        Args:
            gene_id: one of `genes`.
            base_model: whose scores, one of `base_models`; None: of all, and their `untrained_mean`.

        Raises:
            ArtifactError: damaged within.
            InputError: scores that do not tell donors from acceptors alone.
        """
        columns = self._columns if base_model is None else {base_model: self._columns[base_model]}
        scores = [column for theirs in columns.values() for column in theirs]
        evidence = {name: evidence_column(name) for name in self.evidence}
        frame = self.rows(gene_id, ["base", *scores, "label", "ignored", *self.mark_columns, *evidence.values()])
        gene = self._genes[gene_id]
        tokens = tokens_of(gene, frame["base"])
        turn = slice(None, None, -1 if gene.strand == "-" else 1)
        bases = {
            name: np.ascontiguousarray(frame.select(theirs).to_numpy()[turn], dtype=np.float32)
            for name, theirs in columns.items()
        }
        labels = np.ascontiguousarray(frame["label"].to_numpy()[turn], dtype=np.uint8)
        marked = frame["ignored"].to_numpy()[turn]
        marks = SiteMarks(*(frame[name].to_numpy() for name in self.mark_columns)) if self.mark_columns else None
        marks = marks.backwards() if marks and gene.strand == "-" else marks
        ignored = np.union1d(np.flatnonzero(marked), self._contradicted.get(gene_id, ())).astype(np.int64)
        first = next(iter(bases.values()))
        alone = len(bases) == 1 and tells_kinds(first)
        track = GeneTrack(
            gene,
            tokens,
            first if alone else untrained_mean(bases),
            labels,
            self.paralog(gene_id),
            ignored,
            marks,
            {} if alone else bases,
            {
                name: np.ascontiguousarray(frame[column].fill_null(np.nan).to_numpy()[turn], dtype=np.float32)
                for name, column in evidence.items()
            },
        )
        return replace(track, scores=self._start(track)) if self._start else track

    def starting_from(self, scores: Callable[[GeneTrack], NDArray[np.float32]]) -> TrackStore:
        """The same genes, with scores (L, 3) that are made of theirs in place of those of the base models."""
        other = copy.copy(self)
        other._start = scores
        return other

    def rows(self, gene_id: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """One gene's rows as they are in the file, ascending in genomic position.

        Args:
            gene_id: one of `genes`.
            columns: which; None: all.

        Raises:
            ArtifactError: damaged within.
        """
        try:
            frame = pl.from_arrow(self._file.read_row_group(self._group[gene_id], columns=columns))
        except PARQUET_ERRORS as error:
            raise ArtifactError(f"{self.path}: gene {gene_id}: damaged within ({error}); {_AGAIN}") from None
        assert isinstance(frame, pl.DataFrame)
        return frame

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
