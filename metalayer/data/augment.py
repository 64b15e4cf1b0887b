"""Augmented copies of genes: more to learn from than a few hundred sites.

What makes a site true is how it lies to other sites, and that holds too (beside the mirror of `models/tracks.py`)
- in a gene joined from parts of others, cut inside introns, so often that what lies there is shuffled too;
- for a base that is somewhat surer or less sure of each position.
Axes: n positions, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from metalayer.schema import NEITHER

CUT_EVERY_BP = 700
"""Of an intron, on average: chance sites then lie by others each epoch, and cannot be known by their neighbours."""
NOISE_SD = 0.25
"""Of what each position's log-odds against neither get added, in nats."""
INTRON_END_BP = 60
"""Of an intron that stay with the site: what the base says there is of the site."""
Scalar = TypeVar("Scalar", bound=np.generic)
_FLOOR = 1e-10


@dataclass(frozen=True)
class Arrangement:
    """Genes as stretches of flat arrays, one after the other; every flat position stands somewhere.

    Attributes:
        gene_starts: int64 (G + 1,), where each gene begins here.
        starts: int64 (S + 1,), where each stretch begins here.
        sources: int64 (S,), where it begins in the flat arrays.
    """

    gene_starts: NDArray[np.int64]
    starts: NDArray[np.int64]
    sources: NDArray[np.int64]

    @classmethod
    def of(cls, genes: Sequence[Sequence[tuple[int, int]]]) -> Arrangement:
        """Genes, each a list of stretches [start, end) of the flat arrays."""
        lengths = np.array([end - start for gene in genes for start, end in gene], dtype=np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        counts = np.cumsum([0, *(len(gene) for gene in genes)])
        sources = np.array([start for gene in genes for start, _ in gene], dtype=np.int64)
        return cls(starts[counts], starts, sources)

    def take(self, array: NDArray[Scalar], start: int, end: int) -> NDArray[Scalar]:
        """What stands at [start, end): of an array (N, ...) a view where one stretch holds it, else a copy."""
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        parts = []
        while start < end:
            stop = min(end, int(self.starts[first + 1]))
            source = int(self.sources[first]) + start - int(self.starts[first])
            parts.append(array[source : source + stop - start])
            start, first = stop, first + 1
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def moved(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where flat positions stand here, ascending."""
        order = np.argsort(self.sources)
        stretch = order[np.searchsorted(self.sources[order], positions, side="right") - 1]
        return np.sort(positions - self.sources[stretch] + self.starts[stretch])


def introns(gene_starts: NDArray[np.int64], exons: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Where introns may be cut.

    Args:
        gene_starts: int64 (G + 1,).
        exons: uint8 (N,), of `exon_states`.

    Returns:
        Of each gene int64 (k, 2): [first, last) position before which an intron may be cut, ascending.
    """
    found = []
    for start, end in pairwise(gene_starts.tolist()):
        inside = np.concatenate([[0], exons[start:end] == 0, [0]]).astype(np.int8)
        edges = np.flatnonzero(np.diff(inside)).reshape(-1, 2) + start + (INTRON_END_BP, -INTRON_END_BP)
        found.append(edges[edges[:, 1] > edges[:, 0]])
    return found


def join_anew(
    gene_starts: NDArray[np.int64], cuts: Sequence[NDArray[np.int64]], rng: np.random.Generator
) -> Arrangement:
    """Cut genes inside introns and join the parts to as many others, each with a gene's beginning and end.

    Args:
        gene_starts: int64 (G + 1,).
        cuts: of `introns`.
        rng: draws cuts and parts.
    """
    whole: list[list[tuple[int, int]]] = []
    begun: list[list[tuple[int, int]]] = []
    middles: list[tuple[int, int]] = []
    ends: list[tuple[int, int]] = []
    for (start, end), ranges in zip(pairwise(gene_starts.tolist()), cuts, strict=True):
        counts = rng.poisson((ranges[:, 1] - ranges[:, 0]) / CUT_EVERY_BP)
        at = rng.integers(*np.repeat(ranges, counts, axis=0).T)
        first, *others = pairwise([start, *np.unique(at).tolist(), end])
        if not others:
            whole.append([first])
            continue
        begun.append([first])
        middles += others[:-1]
        ends.append(others[-1])
    for i in rng.permutation(len(middles)):
        begun[rng.integers(len(begun))].append(middles[i])
    for gene, i in zip(begun, rng.permutation(len(ends)), strict=True):
        gene.append(ends[i])
    return Arrangement.of([*whole, *begun])


def shaken(tracks: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Base scores, float32 (n, C), like those of a base that is surer or less sure of each position; 0 stays 0."""
    logarithm = np.log(np.maximum(tracks, np.float32(_FLOOR)))
    odds = logarithm[..., :NEITHER] - logarithm[..., NEITHER:]
    odds += np.float32(NOISE_SD) * rng.standard_normal(odds.shape, dtype=np.float32)
    power = np.exp(odds)
    total = 1 + power.sum(axis=-1, keepdims=True)
    found = np.concatenate([power / total, 1 / total], axis=-1)
    return np.where(tracks.sum(axis=-1, keepdims=True) > 0, found, np.float32(0.0))
