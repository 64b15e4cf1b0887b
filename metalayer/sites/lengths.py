"""How long exons and introns are: counted on genes, as log ratios to sites that fall at random."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import InputError

FIRST, INTERNAL, LAST, INTRON = "first", "internal", "last", "intron"
MIN_INTRON_BP = 20
"""No spliceosome removes less."""
_PER_OCTAVE = 2
_BINS = 26 * _PER_OCTAVE
_SMOOTHED = np.array([0.25, 0.5, 0.25])
_PSEUDOCOUNT = 0.05
"""Of each bin: a length that no gene has is unlikely, not impossible."""


@dataclass(frozen=True)
class LengthPriors:
    """Counts of lengths, in bins of half an octave: bin i holds 2 ** (i / 2) nt and more.

    Attributes:
        first, internal, last: exons of a transcript; that of a transcript without introns counts as a last one.
        intron: of introns.
        sites_per_nt: donors (as many as acceptors) per base of these genes.

    Raises:
        InputError: no exon of a kind, or a rate that is none.
    """

    first: Sequence[int]
    internal: Sequence[int]
    last: Sequence[int]
    intron: Sequence[int]
    sites_per_nt: float

    def __post_init__(self) -> None:
        empty = [kind for kind in (FIRST, INTERNAL, LAST, INTRON) if not sum(getattr(self, kind))]
        if empty or not 0.0 < self.sites_per_nt < 1.0:
            raise InputError(
                f"lengths of exons and introns: none of {', '.join(empty) or 'the sites'} counted; give transcripts of "
                "three exons or more"
            )

    @cached_property
    def _tables(self) -> dict[str, NDArray[np.float64]]:
        """Log density of each bin over the rate of sites."""
        edges = np.ceil(2.0 ** (np.arange(_BINS + 1) / _PER_OCTAVE))
        widths = np.maximum(np.diff(edges), 1.0)
        found = {}
        for kind in (FIRST, INTERNAL, LAST, INTRON):
            counts = np.zeros(_BINS)
            given = np.asarray(getattr(self, kind), np.float64)
            counts[: len(given)] = given
            smooth = np.convolve(counts, _SMOOTHED, mode="same") + _PSEUDOCOUNT
            found[kind] = np.log(smooth / smooth.sum() / widths) - np.log(self.sites_per_nt)
        return found

    def log_ratio(self, kind: str, lengths: NDArray[np.integer]) -> NDArray[np.float64]:
        """How much more likely each length is than between sites at random, natural logarithm: float64 (n,).

        Args:
            kind: `FIRST`, `INTERNAL`, `LAST` or `INTRON`.
            lengths: in nt (n,); what is shorter than 1, or than `MIN_INTRON_BP` of an intron, gets minus infinity.
        """
        least = MIN_INTRON_BP if kind == INTRON else 1
        at = np.log2(np.maximum(lengths, 1)) * _PER_OCTAVE - 0.5
        ratio: NDArray[np.float64] = np.interp(at, np.arange(_BINS), self._tables[kind])
        return np.where(lengths >= least, ratio, -np.inf)


def count_lengths(transcripts: Iterable[Sequence[tuple[int, int]]]) -> LengthPriors:
    """Count the lengths of training genes.

    Args:
        transcripts: exons of one transcript each of several genes, half-open along the strand: first exon first.

    Raises:
        InputError: as in `LengthPriors`.
    """
    lengths: dict[str, list[int]] = {FIRST: [], INTERNAL: [], LAST: [], INTRON: []}
    bases = 0
    for exons in transcripts:
        if not exons:
            continue
        bases += exons[-1][1] - exons[0][0]
        sizes = [end - start for start, end in exons]
        lengths[LAST].append(sizes[-1])
        lengths[FIRST] += sizes[:1] if len(sizes) > 1 else []
        lengths[INTERNAL] += sizes[1:-1]
        lengths[INTRON] += [start - end for (_, end), (start, _) in pairwise(exons)]
    counts = {
        kind: np.bincount(np.floor(_PER_OCTAVE * np.log2(np.maximum(found, 1))).astype(np.int64)).tolist()
        if found
        else []
        for kind, found in lengths.items()
    }
    return LengthPriors(**counts, sites_per_nt=len(lengths[INTRON]) / max(bases, 1))


DEFAULT_LENGTHS = LengthPriors(
    first=[0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 5, 5, 14, 12, 7, 6, 9, 2, 2, 1],
    internal=[0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 9, 25, 94, 176, 168, 65, 12, 11, 4, 6, 1, 1],
    last=[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 1, 3, 5, 9, 6, 5, 2, 12, 11, 6, 1],
    intron=[
        *(1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 33, 37, 19, 36, 32, 58, 58, 53, 62, 58, 58, 38, 25, 18, 23, 12, 8, 2),
        *(2, 3, 0, 1),
    ],
    sites_per_nt=638 / 1_995_064,
)
"""Of principal transcripts (GENCODE v24) of 64 genes of chromosomes 1, 5 and 7, 1,995,064 nt, counted here."""
