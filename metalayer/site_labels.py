"""Classes of positions from sites: the one place that decides what a base is that is two sites.

Labels are of exon bases (the last of the exon before a donor, the first of the exon after an acceptor), classes of
artifact rows of intron bases, next to these. An exon of one base is a donor and an acceptor, and so is the row of an
intron of one base: both are called the donor's. Which bases are sites says `base/introns.py`; which are ignored because
genes of one strand disagree, `overlaps.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metalayer.genome import intron_base
from metalayer.schema import ACCEPTOR, ALTERNATIVE, DONOR, NEITHER, NO_SITE, PRINCIPAL

Indices = Sequence[int] | NDArray[np.integer]


@dataclass(frozen=True)
class SiteMarks:
    """Of which isoforms each base of a gene is a site, in the order of its labels.

    Attributes:
        kinds: uint8 (L,), codes of `schema.SITE_KINDS`.
        transcripts: int32 (L,), how many have the site; `TRANSCRIPTS_UNKNOWN` where that is not known.
    """

    kinds: NDArray[np.uint8]
    transcripts: NDArray[np.int32]

    @classmethod
    def none(cls, length: int) -> SiteMarks:
        """Of L bases that are no sites."""
        return cls(np.full(length, NO_SITE, np.uint8), np.zeros(length, np.int32))

    @classmethod
    def of_one_transcript(cls, labels: NDArray[np.uint8]) -> SiteMarks:
        """Of a gene with these labels that has no other transcript."""
        is_site = labels != NEITHER
        return cls(np.where(is_site, PRINCIPAL, NO_SITE).astype(np.uint8), is_site.astype(np.int32))

    def backwards(self) -> SiteMarks:
        """In the other direction."""
        return SiteMarks(np.ascontiguousarray(self.kinds[::-1]), np.ascontiguousarray(self.transcripts[::-1]))

    @property
    def alternative(self) -> NDArray[np.int64]:
        """Bases that are sites of other isoforms than the principal one alone, int64, ascending."""
        return np.flatnonzero(self.kinds == ALTERNATIVE).astype(np.int64)


def labels_of_sites(length: int, donors: Indices, acceptors: Indices) -> NDArray[np.uint8]:
    """Class of every position, uint8 (L,).

    Args:
        length: L.
        donors: indices of exon bases.
        acceptors: likewise.
    """
    labels = np.full(length, NEITHER, dtype=np.uint8)
    for site_class, at in ((ACCEPTOR, acceptors), (DONOR, donors)):
        labels[np.asarray(at, dtype=np.intp)] = site_class
    return labels


def row_classes(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class of every row position (intron base) from the classes of exon bases, uint8 (L,) to uint8 (L,).

    A site whose intron base lies beyond the gene has none.
    """
    at = {kind: intron_base(np.flatnonzero(labels == kind), kind) for kind in (DONOR, ACCEPTOR)}
    inside = {kind: found[(found >= 0) & (found < len(labels))] for kind, found in at.items()}
    return labels_of_sites(len(labels), inside[DONOR], inside[ACCEPTOR])
