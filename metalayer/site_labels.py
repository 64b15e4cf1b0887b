"""Classes of positions from sites: the one place that decides what a base is that is two sites.

Labels are of exon bases (the last of the exon before a donor, the first of the exon after an acceptor), classes of
artifact rows of intron bases, next to these. An exon of one base is a donor and an acceptor, and so is the row of an
intron of one base: both are called the donor's. Which bases are sites says `base/introns.py`; which are ignored because
genes of one strand disagree, `overlaps.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metalayer.genome import intron_base
from metalayer.schema import ACCEPTOR, DONOR, NEITHER

Indices = Sequence[int] | NDArray[np.integer]


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
