"""Positions that several genes of one strand share: which of them contradict each other, and which count once.

Annotated genes overlap. A base that is a site of one gene and none of the other has no one label, so it is ignored in
training and evaluation. A base whose labels agree is one base, however many genes it is of.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metalayer.genome import Gene
from metalayer.schema import NEITHER

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class PlacedSites:
    """The sites of a gene.

    Attributes:
        gene: where it lies.
        position: int64 (s,), exon bases of its sites, 0-based on the chromosome, each once.
        site_class: uint8 (s,), donor or acceptor.
        build: of its coordinates; genes of different ones share no position.
    """

    gene: Gene
    position: Indices
    site_class: NDArray[np.uint8]
    build: Hashable = None

    @classmethod
    def of(cls, gene: Gene, labels: NDArray[np.uint8], build: Hashable = None) -> PlacedSites:
        """From the class of each position, uint8 (L,), transcript sense."""
        at = np.flatnonzero(labels != NEITHER).astype(np.int64)
        return cls(gene, gene.genomic(at).astype(np.int64), labels[at], build)


def contradicted(genes: Sequence[PlacedSites]) -> list[Indices]:
    """Positions of each gene that another gene of its strand labels otherwise: indices in transcript sense, ascending.

    Args:
        genes: any number, in any order.
    """
    out: list[Indices] = [np.empty(0, np.int64)] * len(genes)
    for members in _by_strand(genes).values():
        position = np.concatenate([genes[one].position for one in members])
        site_class = np.concatenate([genes[one].site_class for one in members])
        if len(members) < 2 or not len(position):
            continue
        order = np.lexsort((site_class, position))
        position, site_class = position[order], site_class[order]
        places, first, says_site = np.unique(position, return_index=True, return_counts=True)
        last = first + says_site - 1
        starts = np.sort([genes[one].gene.interval.start for one in members])
        ends = np.sort([genes[one].gene.interval.end for one in members])
        covers = np.searchsorted(starts, places, side="right") - np.searchsorted(ends, places, side="right")
        odd = places[(covers > says_site) | (site_class[first] != site_class[last])]
        for one in members:
            gene = genes[one].gene
            here = slice(*np.searchsorted(odd, [gene.interval.start, gene.interval.end]))
            out[one] = np.sort(gene.index(odd[here]))
    return out


def repeated(genes: Sequence[PlacedSites]) -> list[slice]:
    """Positions of each gene that a gene of its strand which begins before it has too: in transcript sense."""
    out = [slice(0, 0)] * len(genes)
    for members in _by_strand(genes).values():
        reach = 0
        for one in sorted(members, key=lambda i: (genes[i].gene.interval.start, -genes[i].gene.interval.end)):
            interval = genes[one].gene.interval
            shared = max(0, min(reach, interval.end) - interval.start)
            out[one] = slice(0, shared) if genes[one].gene.strand == "+" else slice(len(interval) - shared, None)
            reach = max(reach, interval.end)
    return out


def sharing(genes: Sequence[PlacedSites]) -> list[list[int]]:
    """Numbers of the genes that share positions with each gene, ascending: those of its strand that overlap it."""
    out: list[list[int]] = [[] for _ in genes]
    for members in _by_strand(genes).values():
        reaching: list[int] = []
        for one in sorted(members, key=lambda i: genes[i].gene.interval.start):
            start = genes[one].gene.interval.start
            reaching = [other for other in reaching if genes[other].gene.interval.end > start]
            for other in reaching:
                out[one].append(other)
                out[other].append(one)
            reaching.append(one)
    return [sorted(others) for others in out]


def _by_strand(genes: Sequence[PlacedSites]) -> Mapping[Hashable, list[int]]:
    found: dict[Hashable, list[int]] = {}
    for number, one in enumerate(genes):
        found.setdefault((one.build, one.gene.interval.chrom, one.gene.strand), []).append(number)
    return found
