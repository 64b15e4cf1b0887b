"""Which bases are called splice sites: local maxima of a probability above a threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import InputError
from metalayer.genome import decode
from metalayer.schema import ACCEPTOR, CLASSES, DONOR

THRESHOLD = 0.3
"""Least probability of a called site. Principal sites of 64 genes of chromosomes 1, 5 and 7, which OpenSpliceAI (flank
10,000) was not trained on: 0.943 of called donors and 0.948 of called acceptors are right, 0.940 and 0.951 are found;
between 0.25 and 0.5 F1 differs by less than 0.01 (`python -m benchmarks.exons`)."""
SPACING = 3
"""Least distance of two called sites of one kind: NAGNAG acceptors, both real, are three bases apart."""
INTRON_ENDS = frozenset(("GT/AG", "GC/AG", "AT/AC"))
"""First and last two letters of introns that the two spliceosomes are known to remove."""


@dataclass(frozen=True)
class CalledSites:
    """Sites of one strand, each the base of the exon beside the intron, in transcript sense.

    Attributes:
        positions: int64 (n,), ascending; where a base is both, the acceptor is first.
        kinds: uint8 (n,), DONOR or ACCEPTOR.
        probabilities: float64 (n,).

    Raises:
        InputError: another order, lengths that differ, or kinds that are none.
    """

    positions: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    probabilities: NDArray[np.float64]

    def __post_init__(self) -> None:
        size = len(self.positions)
        if not size == len(self.kinds) == len(self.probabilities):
            raise InputError(
                f"called sites: {size} positions, {len(self.kinds)} kinds and {len(self.probabilities)} probabilities; "
                "each site needs one of each"
            )
        if not np.isin(self.kinds, (DONOR, ACCEPTOR)).all() or (np.diff(_order(self.positions, self.kinds)) <= 0).any():
            raise InputError("called sites: needed are donors and acceptors in ascending order, each once")

    def __len__(self) -> int:
        return len(self.positions)

    @classmethod
    def of(
        cls, positions: NDArray[np.integer], kinds: NDArray[np.integer], probabilities: NDArray[np.floating]
    ) -> CalledSites:
        """Of sites in any order."""
        order = np.argsort(_order(positions, kinds), kind="stable")
        return cls(
            np.asarray(positions, np.int64)[order],
            np.asarray(kinds, np.uint8)[order],
            np.asarray(probabilities, np.float64)[order],
        )


def _order(positions: NDArray[np.integer], kinds: NDArray[np.integer]) -> NDArray[np.int64]:
    return np.asarray(2 * np.asarray(positions, np.int64) + (np.asarray(kinds) == DONOR), np.int64)


def call_sites(scores: NDArray[np.floating], threshold: float = THRESHOLD, spacing: int = SPACING) -> CalledSites:
    """Call the sites of a stretch of one strand.

    A base is called where its probability is at least `threshold` and the largest within `spacing - 1` bases to either
    side; of equal ones the first in transcript sense. No motif is asked for. NaN, for no score, is never called.

    Args:
        scores: (L, 3), donor, acceptor, neither at exon bases, transcript sense.
        threshold: in (0, 1).
        spacing: in nt, 1 or more.

    Returns:
        Positions are indices into `scores`.

    Raises:
        InputError: another shape, threshold or spacing.
    """
    if scores.ndim != 2 or scores.shape[1] != len(CLASSES) or not 0.0 < threshold < 1.0 or spacing < 1:
        raise InputError(
            f"calling sites: scores {scores.shape}, threshold {threshold}, spacing {spacing}; needed are (L, "
            f"{len(CLASSES)}), a threshold between 0 and 1, and a spacing of 1 or more"
        )
    found = {kind: _peaks(scores[:, kind].astype(np.float64), threshold, spacing) for kind in (DONOR, ACCEPTOR)}
    positions = np.concatenate([*found.values()])
    kinds = np.concatenate([np.full(len(at), kind, np.uint8) for kind, at in found.items()])
    return CalledSites.of(positions, kinds, scores[positions, kinds])


def _peaks(values: NDArray[np.float64], threshold: float, spacing: int) -> NDArray[np.int64]:
    high = np.flatnonzero(values >= threshold)
    padded = np.pad(np.where(np.isnan(values), -np.inf, values), spacing - 1, constant_values=-np.inf)
    is_peak = np.ones(len(high), bool)
    here = values[high]
    for away in range(1, spacing):
        is_peak &= here > padded[high + spacing - 1 - away]
        is_peak &= here >= padded[high + spacing - 1 + away]
    return high[is_peak].astype(np.int64)


def intron_ends(tokens: NDArray[np.uint8], donor: int, acceptor: int) -> str:
    """First and last two letters of the intron between two exon bases, as in `GT/AG`; see `INTRON_ENDS`.

    Args:
        tokens: uint8 (L,), transcript sense.
        donor: index of the last base before the intron.
        acceptor: index of the first base behind it.
    """
    return f"{decode(tokens[donor + 1 : donor + 3])}/{decode(tokens[max(acceptor - 2, 0) : acceptor])}"
