"""Where the exons of REF and of ALT are drawn, one row over the other: 5' to 3', lengths on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from metalayer.variants.meaning import Meaning, ShownExon

Drawn = tuple[int, int]
"""Start and end of an exon."""


@dataclass(frozen=True)
class Layout:
    """Places from 0 to `width`.

    Attributes:
        before, after: of the exons of the meaning.
        width: of the whole.
    """

    before: tuple[Drawn, ...]
    after: tuple[Drawn, ...]
    width: int


def laid_out(meaning: Meaning, strand: str, room: int, least: int) -> Layout | None:
    """Place exons such that ends at one base are at one place.

    Args:
        meaning: what the variant does.
        strand: of the gene.
        room: greatest width.
        least: width of the shortest stretch between two ends.

    Returns:
        None where there is nothing to draw, or too much for the room.
    """
    sign = 1 if strand == "+" else -1

    def bounds(exon: ShownExon) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Before its first base, and behind its last: they sort in transcript sense."""
        (first, more), (last, most) = exon.first, exon.last
        return (sign * first, sign * more, 0), (sign * last, sign * most, 1)

    rows = [[*map(bounds, exons)] for exons in (meaning.before, meaning.after)]
    covered = [*rows[0], *rows[1]]
    edges = sorted({edge for pair in covered for edge in pair})
    if not edges or least * (len(edges) - 1) > room:
        return None
    widths = []
    for low, high in pairwise(edges):
        bases = max(1, high[0] - low[0], abs(high[1] - low[1]))
        is_exon = any(start <= low and high <= end for start, end in covered)
        widths.append((1.3 if is_exon else 1.0) * least + 2.5 * least / 3 * math.log10(bases))
    scale = min(1.0, room / sum(widths))
    sizes = [max(least, int(width * scale)) for width in widths]
    while sum(sizes) > room:
        sizes[sizes.index(max(sizes))] -= 1
    at = {edge: sum(sizes[:i]) for i, edge in enumerate(edges)}

    def places(row: Sequence[tuple[tuple[int, int, int], tuple[int, int, int]]]) -> tuple[Drawn, ...]:
        return tuple((at[start], at[end]) for start, end in row)

    return Layout(places(rows[0]), places(rows[1]), sum(sizes))
