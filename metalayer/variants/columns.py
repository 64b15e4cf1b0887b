"""Columns of an alignment of two haplotypes, beyond the window too: where a base lies on each, in transcript sense.

A column is an index from the window's first base, in genome order; it goes on to either side without end. Columns of
the gap are on one haplotype alone. A place in transcript sense is a column, with its sign turned on the minus strand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Place = tuple[int, int]
"""0-based genomic position and, of an inserted letter behind it, its number from 1, else 0."""


@dataclass(frozen=True)
class Columns:
    """Where columns lie.

    Attributes:
        start: 0-based genomic position of column 0.
        opened: column at which the gap begins.
        surplus: columns that only ALT has; negative: that only REF has.
        is_plus: strand of the gene.
    """

    start: int
    opened: int
    surplus: int
    is_plus: bool

    def column(self, position: int) -> int:
        """Of a base of the reference, 0-based genomic."""
        column = position - self.start
        return column + max(self.surplus, 0) if column >= self.opened else column

    def place(self, column: int) -> Place:
        """Genomic position, and the number of an inserted letter."""
        behind = column - self.opened
        if self.surplus <= 0 or behind < 0:
            return self.start + column, 0
        if behind < self.surplus:
            return self.start + self.opened - 1, behind + 1
        return self.start + column - self.surplus, 0

    def are_on(self, columns: NDArray[np.integer], *, alt: bool) -> NDArray[np.bool_]:
        """Whether a haplotype has these columns: bool (n,)."""
        return (columns < self.opened) | (columns >= self.opened + self._missing(alt=alt))

    def index(self, column: int, *, alt: bool) -> int:
        """Letters of a haplotype from column 0 to before this one."""
        return column - min(max(column - self.opened, 0), self._missing(alt=alt))

    def turned(self, column: int) -> int:
        """Transcript sense of a column, and back."""
        return column if self.is_plus else -column

    def _missing(self, *, alt: bool) -> int:
        """Columns of the gap that a haplotype lacks."""
        return max(-self.surplus, 0) if alt else max(self.surplus, 0)

    def on_haplotype(self, sense: int, *, alt: bool) -> int:
        """Number of a place on its haplotype, transcript sense; of a base that it lacks, that of the next one."""
        return self.turned(self.index(self.turned(sense), alt=alt))

    def from_haplotype(self, number: int, *, alt: bool) -> int:
        """Back from `on_haplotype`."""
        column = self.turned(number)
        return self.turned(column + self._missing(alt=alt) if column >= self.opened else column)

    def length(self, first: int, last: int, *, alt: bool) -> int:
        """Bases of a haplotype from one place to another, both included, transcript sense, first <= last."""
        low, high = sorted((self.turned(first), self.turned(last)))
        inside = min(high + 1, self.opened + self._missing(alt=alt)) - max(low, self.opened)
        return high - low + 1 - max(inside, 0)
