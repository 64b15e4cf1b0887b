"""Scores of genes on disk while an import reads them, in whatever order files have them, from one or many files.

A gene has its bases and `MARGIN_BP` more on either side, so that scores that are a few bases off can be moved without a
loss at its ends. Memory is that of one piece. What is there stays when the process is killed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import InputError
from metalayer.formats.pieces import MOST_POSITIONS, SAME, Piece, Places, contradiction, inside
from metalayer.genome import Gene, normalise_gene_id
from metalayer.schema import CLASSES

MARGIN_BP = 10
_BYTES = 4
_CLASSES = len(CLASSES)


def stretches(genes: Sequence[Gene], lengths: dict[str, int]) -> dict[tuple[str, str], NDArray[np.int64]]:
    """Where genes lie with their margins, as `Places.stretches`."""
    found: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for gene in sorted(genes, key=lambda one: one.interval.start):
        span = gene.interval
        start, end = max(span.start - MARGIN_BP, 0), min(span.end + MARGIN_BP, lengths[span.chrom])
        there = found.setdefault((span.chrom, gene.strand), [])
        if there and start <= there[-1][1]:
            there[-1] = (there[-1][0], max(end, there[-1][1]))
        else:
            there.append((start, end))
    return {
        key: np.array(
            [
                (low, min(low + MOST_POSITIONS, end))
                for start, end in there
                for low in range(start, end, MOST_POSITIONS)
            ],
            dtype=np.int64,
        )
        for key, there in found.items()
    }


class KeptScores:
    """Scores of genes in a file, float32 (3, L + 2 `MARGIN_BP`) a gene, in genomic order."""

    def __init__(self, path: Path, genes: Sequence[Gene]) -> None:
        """Open or make the file.

        Args:
            path: of the file.
            genes: all of them, always the same in the same order.
        """
        self._path = path
        self._genes = genes
        widths = np.array([len(gene) + 2 * MARGIN_BP for gene in genes], dtype=np.int64)
        ends = np.cumsum(widths) * _CLASSES * _BYTES
        self._offsets = np.concatenate([[0], ends[:-1]])
        self._number = {gene.gene_id: number for number, gene in enumerate(genes)}
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.truncate(self._file, int(ends[-1]))
        self._by_strand: dict[tuple[str, str], tuple[NDArray[np.int64], ...]] = {}
        groups: dict[tuple[str, str], list[int]] = {}
        for number, gene in enumerate(genes):
            groups.setdefault((gene.interval.chrom, gene.strand), []).append(number)
        for key, numbers in groups.items():
            numbers.sort(key=lambda number: genes[number].interval.start)
            starts = np.array([genes[number].interval.start - MARGIN_BP for number in numbers])
            ends = np.array([genes[number].interval.end + MARGIN_BP for number in numbers])
            self._by_strand[key] = (np.array(numbers), starts, ends, np.maximum.accumulate(ends))

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def flush(self) -> None:
        """Have what was put written to disk."""
        os.fsync(self._file)

    def put(self, piece: Piece, path: Path, places: Places) -> int:
        """Take in a piece.

        Args:
            piece: of a file.
            path: the file, for messages.
            places: where scores are wanted.

        Returns:
            How many of its positions lie in no gene.

        Raises:
            InputError: a base that has another score already.
        """
        if not len(piece.positions):
            return 0
        key = places.key(piece.contig)
        if key is None:
            return len(piece.positions)
        gene = places.find(normalise_gene_id(piece.gene_id), key) if piece.gene_id else None
        if gene is not None and (gene.interval.chrom, gene.strand) == (key, piece.strand):
            self._fill(self._number[gene.gene_id], piece, path)
            start, end = gene.interval.start - MARGIN_BP, gene.interval.end + MARGIN_BP
            return int(((piece.positions < start) | (piece.positions >= end)).sum())
        if (key, piece.strand) not in self._by_strand:
            return len(piece.positions)
        numbers, starts, ends, reach = self._by_strand[key, piece.strand]
        first = int(np.searchsorted(reach, piece.positions[0], side="right"))
        last = int(np.searchsorted(starts, piece.positions[-1], side="right"))
        for at in range(first, last):
            if ends[at] > piece.positions[0]:
                self._fill(int(numbers[at]), piece, path)
        return int((~inside(piece.positions, places.stretches[key, piece.strand])).sum())

    def _fill(self, number: int, piece: Piece, path: Path) -> None:
        start = self._genes[number].interval.start - MARGIN_BP
        width = len(self._genes[number]) + 2 * MARGIN_BP
        low, high = np.searchsorted(piece.positions, [start, start + width])
        if low == high:
            return
        index = piece.positions[low:high] - start
        begin, end = int(index[0]), int(index[-1]) + 1
        for kind, column in piece.values.items():
            values = column[low:high]
            offset = int(self._offsets[number]) + (kind * width + begin) * _BYTES
            known = self._stored(offset, end - begin)
            there = known[index - begin]
            odd = np.abs(there - values) > SAME  # False where either is NaN
            if odd.any():
                at = int(np.flatnonzero(odd)[0])
                position = int(index[at]) + start
                raise InputError(contradiction(path, piece.contig, position, kind, values[at], there[at]))
            known[index - begin] = np.where(np.isnan(there), values, there)
            os.pwrite(self._file, np.invert(known.view(np.uint32)).tobytes(), offset)

    def _stored(self, offset: int, count: int) -> NDArray[np.float32]:
        # Kept inverted, bit by bit: a hole of the file, zeros, is NaN.
        content = os.pread(self._file, count * _BYTES, offset)
        return np.invert(np.frombuffer(content, dtype=np.uint32)).view(np.float32)

    def read(self, number: int) -> NDArray[np.float32]:
        """Scores of a gene with its margins: float32 (3, L + 2 `MARGIN_BP`), genomic order; NaN is missing."""
        width = len(self._genes[number]) + 2 * MARGIN_BP
        return self._stored(int(self._offsets[number]), _CLASSES * width).reshape(_CLASSES, width)
