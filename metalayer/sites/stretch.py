"""Scores along one strand, of base and meta beside each other, and the sites that each calls there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metalayer.schema import CLASSES
from metalayer.sites.calling import SPACING, CalledSites, call_sites

SITES = CLASSES[:2]
BASE, META = "base", "meta"


@dataclass(frozen=True)
class Stretch:
    """Scores along one strand.

    Attributes:
        chrom: our name of the contig.
        strand: `+` or `-`.
        start: 0-based first position.
        scores: float32 (n, 2), donor and acceptor, at exon bases, in genomic order, by `BASE` and `META`; NaN: none.
        names: ids of the genes.
    """

    chrom: str
    strand: str
    start: int
    scores: Mapping[str, NDArray[np.float32]]
    names: tuple[str, ...]

    @property
    def end(self) -> int:
        """Behind its last position."""
        return self.start + len(next(iter(self.scores.values())))

    def cut(self, start: int, end: int) -> Stretch | None:
        """Its part within [start, end), if any."""
        first, last = max(start, self.start), min(end, self.end)
        if first >= last:
            return None
        part = slice(first - self.start, last - self.start)
        return replace(self, start=first, scores={name: values[part] for name, values in self.scores.items()})


def called(one: Stretch, system: str, threshold: float) -> CalledSites:
    """Sites of a system; positions are 0-based genomic, ascending in transcript sense.

    Args:
        one: scores along a strand.
        system: whose.
        threshold: of `call_sites`.
    """
    donors_acceptors = one.scores[system]
    scores = np.concatenate([donors_acceptors, 1 - donors_acceptors.sum(axis=1, keepdims=True)], axis=1)
    return call_sites(scores if one.strand == "+" else scores[::-1], threshold, SPACING)
