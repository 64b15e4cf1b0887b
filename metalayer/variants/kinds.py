"""Where a variant lies: which kind it is of, and how far from an annotated site of the gene.

Bases are counted from an exon's edge, in either direction from 1: of `G|GTAAGT` at a donor, the first G is base 1 of
the exon, G and T after the bar are bases 1 and 2 of the intron. All isoforms' sites count; of several sites, the one
that gives the first of `KINDS`, then the nearest.

- `canonical`: a base 1 or 2 of an intron is changed or deleted, or letters are inserted between them.
- `splice_region`: bases 1 to 3 of an exon, or 3 to 8 of an intron, before an acceptor 3 to 17 (splice region and
  polypyrimidine tract of the Sequence Ontology).
- `exonic`, `deep_intronic`: others, by the side of the nearest site on which they lie. A gene without sites is an exon.

An insertion lies at that of its two neighbours which is further from the site; between exon and intron, at base 1 of
the exon. An insertion or deletion in a repeat can be written at several places: of the leftmost and the rightmost one,
that counts which comes last in this order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metalayer.genome import encode
from metalayer.variants.genes import Genes, GeneSites
from metalayer.variants.haplotype import Event, event_of
from metalayer.variants.letters import Letters

CANONICAL, SPLICE_REGION, EXONIC, DEEP_INTRONIC = KINDS = ("canonical", "splice_region", "exonic", "deep_intronic")
_CANONICAL_BP, _EXON_BP, _DONOR_BP, _ACCEPTOR_BP = 2, 3, 8, 17
_FAR = 1 << 60


class Place(NamedTuple):
    """Where a variant lies in a gene.

    Attributes:
        kind: of `KINDS`.
        in_intron: on which side of the site; for `splice_region`, too.
        distance: number of the base, from 1 at the edge of the exon; None where the gene has no site.
    """

    kind: str
    in_intron: bool
    distance: int | None

    @property
    def order(self) -> tuple[int, int, bool]:
        """Sorts places: what is more likely to matter comes first."""
        return KINDS.index(self.kind) if self.kind in KINDS[:2] else 2, self.distance or _FAR, self.in_intron


def place_of(event: Event, gene: GeneSites) -> Place:
    """Where a variant lies in a gene that it touches."""
    return max((_placed(start, end, gene) for start, end in _writings(event)), key=lambda place: place.order)


def _writings(event: Event) -> Iterator[tuple[int, int]]:
    """Bases [start, end) that are changed or deleted, by the leftmost and the rightmost writing; none: inserted."""
    start, end, _ = event.change
    yield start, end
    if event.is_indel and event.repeat:
        yield start + event.repeat, end + event.repeat


def _placed(start: int, end: int, gene: GeneSites) -> Place:
    found = [
        *_places(start, end, gene.donors, 1 if gene.is_plus else -1, _DONOR_BP),
        *_places(start, end, gene.acceptors, -1 if gene.is_plus else 1, _ACCEPTOR_BP),
    ]
    return min(found, key=lambda place: place.order, default=Place(EXONIC, False, None))


def _places(start: int, end: int, sites: NDArray[np.int64], sense: int, reach: int) -> Iterator[Place]:
    """What sites of one kind say.

    Args:
        start: first base, 0-based genomic.
        end: one past the last; the same for what is inserted before `start`.
        sites: exon bases.
        sense: 1 where the intron has the higher coordinates, else -1.
        reach: last base of the intron that is of its splice region.
    """
    # Base u of an intron is u > 0, base 1 - u of an exon u <= 0.
    edges = (start - 1, start) if start == end else (start, end - 1)
    one, other = (sense * (edge - sites) for edge in edges)
    low, high = np.minimum(one, other), np.maximum(one, other)
    if start == end:
        low = high = np.where(high > 1, high, low)
    canonical = (low <= _CANONICAL_BP) & (high >= 1)
    region = (low <= reach) & (high > -_EXON_BP) & ~canonical
    for kind, there in ((CANONICAL, canonical), (SPLICE_REGION, region)):
        for i in np.flatnonzero(there).tolist():
            in_intron = bool(low[i] >= 1) or kind == CANONICAL
            yield Place(kind, in_intron, int(max(low[i], 1) if in_intron else max(1 - high[i], 1)))
    rest = ~canonical & ~region
    for in_intron, distances in ((True, low[rest & (low > 0)]), (False, 1 - high[rest & (high <= 0)])):
        if distances.size:
            yield Place(DEEP_INTRONIC if in_intron else EXONIC, in_intron, int(distances.min()))


def located(letters: Letters, genes: Genes, contig: str, position: int, ref: str, alt: str) -> dict[str, Place]:
    """Where a variant that has a score lies, by id of each gene that it may touch; nothing of one that changes nothing.

    Args:
        letters: the reference.
        genes: of the annotation.
        contig: by any of its names.
        position: 0-based POS.
        ref: letters of the reference, ACGT.
        alt: letters in their place, ACGT.
    """
    key = letters.key(contig)
    if key is None:
        return {}
    event = event_of(position, encode(ref), encode(alt), lambda start, end: letters.tokens(key, start, end))
    if event is None:
        return {}
    touched = genes.touched(key, event.start - 1, event.end + 1)
    return {gene.gene.gene_id: place_of(event, gene) for gene in touched}
