"""From the probabilities of two haplotypes to what a variant does: gain and loss of acceptors and donors.

Coordinates of both haplotypes are aligned first. Outside the changed segment each base is compared with itself. Inside,
letters are paired in order, with one gap for what is inserted or deleted: where most letters stay, then where least
changes (to two decimals), then leftmost. A deleted base is compared with nothing: its site is lost. So is an inserted
letter: a site on it is gained. docs/variants.md draws this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from metalayer.base.haplotypes import Scores, Tokens
from metalayer.schema import ACCEPTOR, DONOR
from metalayer.variants.genes import GeneSites
from metalayer.variants.haplotype import Event

DECIMALS_THAT_COUNT = 2
"""Of the change by which alignments are told apart: what the common tag shows."""
KINDS = ("acceptor_gain", "acceptor_loss", "donor_gain", "donor_loss")
SHORT = ("AG", "AL", "DG", "DL")
"""As the fields of the tag call them, in its order."""


class Change(NamedTuple):
    """Gain or loss of one kind of site.

    Attributes:
        score: how much the probability rises, or falls, where it does so most.
        position: 0-based genomic, where that is; for an inserted letter the base before it.
        inserted: number of the inserted letter, from 1; 0: a base of the reference.
        reference, alternative: probabilities of the site there; 0 where the haplotype has no such base.
        annotated: whether it is such a site of any isoform of the gene.
    """

    score: float
    position: int
    inserted: int
    reference: float
    alternative: float
    annotated: bool


Effect = tuple[Change, Change, Change, Change]
"""In the order of `KINDS`."""


@dataclass(frozen=True)
class Aligned:
    """Columns of an alignment, in genome order.

    Attributes:
        positions: int64 (n,), 0-based genomic; of inserted letters that of the base before them.
        inserted: int64 (n,), number of the inserted letter, from 1; 0 for bases of the reference.
        reference, alternative: float32 (n, 3), 0 where the haplotype has no such base.
        opened: column at which the gap begins.
        surplus: columns that only ALT has; negative: that only REF has.
    """

    positions: NDArray[np.int64]
    inserted: NDArray[np.int64]
    reference: Scores
    alternative: Scores
    opened: int
    surplus: int

    def within(self, start: int, end: int) -> Self:
        """Columns of positions [start, end), 0-based genomic, and of letters inserted behind them."""
        low, high = np.searchsorted(self.positions, (start, end))
        if low == 0 and high == len(self.positions):
            return self
        cut = slice(low, high)
        return type(self)(
            self.positions[cut],
            self.inserted[cut],
            self.reference[cut],
            self.alternative[cut],
            self.opened - int(low),
            self.surplus,
        )


def reported(event: Event, distance: int) -> tuple[int, int]:
    """Positions [start, end) that are looked at: `distance` to either side of POS of the left-aligned record.

    Where the changed segment goes on beyond that, `distance` behind its end.
    """
    last = event.end - 1
    return event.anchor - distance, (event.anchor if last <= event.anchor + distance else last) + distance + 1


def aligned(event: Event, reference: Scores, alternative: Scores, start: int, letters: Tokens) -> Aligned:
    """Align two haplotypes.

    Args:
        event: what differs.
        reference: float32 (n, 3) of positions from `start` on.
        alternative: float32 (n + event.surplus, 3), likewise.
        start: 0-based genomic.
        letters: of the reference in the segment, uint8 (event.end - event.start,).
    """
    at, size, count = event.start - start, event.end - event.start, len(event.letters)
    pairs = min(size, count)
    gap = _gap(
        letters,
        np.frombuffer(event.letters, dtype=np.uint8),
        reference[at : at + size],
        alternative[at : at + count],
    )
    columns = len(reference) + max(0, event.surplus)
    beside = np.arange(columns)
    opened = at + gap
    many = abs(size - count)
    is_in_gap = (beside >= opened) & (beside < opened + many)
    both = np.zeros((2, columns, reference.shape[1]), np.float32)
    missing = is_in_gap if size > count else np.zeros(columns, bool)
    both[0][~is_in_gap if count > size else slice(None)] = reference
    both[1][~missing] = alternative
    inserted = np.where(is_in_gap & (count > size), beside - opened + 1, 0)
    positions = start + beside
    if count > size:
        positions = positions - np.clip(beside - opened + 1, 0, many)
    assert pairs >= gap
    return Aligned(positions, inserted, both[0], both[1], opened, event.surplus)


def _gap(ref: Tokens, alt: Tokens, reference: Scores, alternative: Scores) -> int:
    """How many letters of the segment are paired before the gap."""
    size, count = len(ref), len(alt)
    pairs = min(size, count)
    if size == count or not pairs:
        return pairs if size == count else 0
    sites = [DONOR, ACCEPTOR]
    p, q = (scores[:, sites].astype(np.float64) for scores in (reference, alternative))
    first, last = slice(0, pairs), (slice(size - pairs, size), slice(count - pairs, count))

    def at_each(before: NDArray[np.float64], behind: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over pairs, for each number of them that stand before the gap: (pairs + 1,)."""
        total: NDArray[np.float64] = np.append(0.0, np.cumsum(before)) + np.append(np.cumsum(behind[::-1])[::-1], 0.0)
        return total

    stay = at_each((ref[first] == alt[first]).astype(float), (ref[last[0]] == alt[last[1]]).astype(float))
    change = at_each(np.abs(p[first] - q[first]).sum(axis=1), np.abs(p[last[0]] - q[last[1]]).sum(axis=1))
    longer = (p if size > count else q).sum(axis=1)
    total = np.concatenate([[0.0], np.cumsum(longer)])
    many = abs(size - count)
    change += total[many:] - total[: len(total) - many]
    rounded = np.where(stay == stay.max(), np.round(change, DECIMALS_THAT_COUNT), np.inf)
    return int(np.argmin(rounded))


def effect(found: Aligned, sites: GeneSites, *, mask: bool) -> Effect:
    """What the variant does to a gene.

    Args:
        found: probabilities of both haplotypes.
        sites: of the gene.
        mask: gains of annotated sites and losses of others do not count, each kind of site by itself.
    """
    changes = []
    for site, annotated in ((ACCEPTOR, sites.acceptors), (DONOR, sites.donors)):
        rise = found.alternative[:, site] - found.reference[:, site]
        known = np.isin(found.positions, annotated) & (found.inserted == 0)
        for delta, hidden in ((rise, known), (-rise, ~known)):
            seen = np.where(hidden, np.float32(0), delta) if mask else delta
            # Where the mask leaves nothing, the place is that of the largest change that it hides.
            i = int(np.argmax(seen if seen.max() > 0 else delta))
            changes.append(
                Change(
                    max(0.0, float(seen[i])),
                    int(found.positions[i]),
                    int(found.inserted[i]),
                    float(found.reference[i, site]),
                    float(found.alternative[i, site]),
                    bool(known[i]),
                )
            )
    gain_a, loss_a, gain_d, loss_d = changes
    return gain_a, loss_a, gain_d, loss_d
