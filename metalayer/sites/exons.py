"""Which exons called sites make: chains from the first base of a transcript to its last, ranked by probability.

A chain is a first exon up to a donor, introns from a donor to an acceptor, exons from an acceptor to a donor, and a
last exon from an acceptor on: exons never cross. The score of a chain is the sum of the log odds of the sites that it
uses and of the log ratios of its lengths (`lengths.py`). It is a semi-Markov model: the forward sum over all chains
gives the normaliser, with the backward sum the probability that a site is used, and Viterbi's maximum, with several
ways kept at each site, the best chains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import InputError
from metalayer.schema import ACCEPTOR, DONOR
from metalayer.sites.calling import CalledSites
from metalayer.sites.lengths import DEFAULT_LENGTHS, FIRST, INTERNAL, INTRON, LAST, LengthPriors

CANDIDATE = 0.02
"""Least probability of a site that `decode_exons` should be given: weak sites of real exons are found by what stands
around them. On 64 genes of chromosomes 1, 5 and 7 (OpenSpliceAI, flank 10,000; lengths of the other genes), 0.912 of
decoded exons are right and 0.916 of principal exons are found; by pairing each acceptor that is called, from 0.3 on,
with the next donor 0.887 and 0.905 (`python -m benchmarks.exons`)."""
_SURE = 1e-4
"""A probability counts as this far from 0 and from 1 at least."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Chain:
    """Exons of a transcript.

    Attributes:
        exons: first and last base of each, both included, ascending in transcript sense.
        score: log odds.
        probability: among all chains of the same sites.
    """

    exons: tuple[tuple[int, int], ...]
    score: float
    probability: float

    @property
    def introns(self) -> tuple[tuple[int, int], ...]:
        """Donor and acceptor of each."""
        return tuple((end, start) for (_, end), (start, _) in pairwise(self.exons))


@dataclass(frozen=True)
class Decoded:
    """What sites make.

    Attributes:
        chains: the best ones, best first; never empty.
        log_normaliser: log of the sum over all chains of the exponent of their scores.
        use: float64 (n,), probability that a chain uses each site, in their order.
    """

    chains: tuple[Chain, ...]
    log_normaliser: float
    use: Floats


def decode_exons(
    sites: CalledSites,
    first: int,
    last: int,
    lengths: LengthPriors = DEFAULT_LENGTHS,
    best: int = 1,
    known: Sequence[tuple[int, int]] = (),
) -> Decoded:
    """The most probable exons of a transcript.

    Args:
        sites: called, of one gene and strand; those before `first` or beyond `last` are not used.
        first: first base of the transcript, transcript sense.
        last: its last base.
        lengths: of exons and introns.
        best: how many chains are wanted.
        known: exons of an annotated transcript, as in `Chain.exons`. That one of them, or an intron between them, has
            an odd length is not held against it, nor against what shares an end with it.

    Returns:
        Up to `best` chains, of which one without any site is always there.

    Raises:
        InputError: a transcript that ends before it begins, or no chain wanted.
    """
    if last < first or best < 1:
        raise InputError(f"exons from {first} to {last}, {best} chains; needed are first <= last and one chain or more")
    return _Decoder(sites, first, last, lengths, known).decoded(best)


class _Decoder:
    """Sums and maxima over chains; arcs into each site come from those before it."""

    def __init__(
        self, sites: CalledSites, first: int, last: int, lengths: LengthPriors, known: Sequence[tuple[int, int]]
    ) -> None:
        self._first, self._last, self._size = first, last, len(sites)
        self._positions, is_donor = sites.positions, sites.kinds == DONOR
        sure = np.clip(sites.probabilities, _SURE, 1.0 - _SURE)
        inside = (self._positions >= first) & (self._positions <= last)
        self._weights = np.where(inside, np.log(sure / (1.0 - sure)), -np.inf)
        donors, acceptors = np.flatnonzero(is_donor), np.flatnonzero(sites.kinds == ACCEPTOR)
        at = self._positions
        self._opening = np.where(is_donor, lengths.log_ratio(FIRST, at - first + 1), -np.inf)
        self._closing = np.where(is_donor, -np.inf, lengths.log_ratio(LAST, last - at + 1))
        self._whole = float(lengths.log_ratio(LAST, np.array([last - first + 1]))[0])
        of_exon, of_intron = _allowances(sites, known, lengths)
        self._opening, self._closing = (_allowing(ratio, of_exon) for ratio in (self._opening, self._closing))
        self._arcs: list[tuple[NDArray[np.intp], Floats]] = []
        for i in range(self._size):
            others, of = (acceptors, of_exon) if is_donor[i] else (donors, of_intron)
            before = others[: np.searchsorted(others, i)]
            if is_donor[i]:
                ratio = lengths.log_ratio(INTERNAL, at[i] - at[before] + 1)
            else:
                ratio = lengths.log_ratio(INTRON, at[i] - at[before] - 1)
            self._arcs.append((before, _allowing(ratio, np.maximum(of[before], of[i]))))

    def decoded(self, best: int) -> Decoded:
        forward = np.full(self._size, -np.inf)
        for i, (before, ratio) in enumerate(self._arcs):
            forward[i] = self._weights[i] + _log_sum(np.append(forward[before] + ratio, self._opening[i]))
        total = _log_sum(np.append(forward + self._closing, self._whole))
        backward = self._closing.copy()
        for i in range(self._size - 1, -1, -1):
            before, ratio = self._arcs[i]
            backward[before] = np.logaddexp(backward[before], backward[i] + self._weights[i] + ratio)
        with np.errstate(invalid="ignore"):
            use = np.nan_to_num(np.exp(forward + backward - total))
        chains = tuple(replace(chain, probability=float(np.exp(chain.score - total))) for chain in self._best(best))
        return Decoded(chains, total, use)

    def _best(self, best: int) -> list[Chain]:
        """Keep the `best` ways into each site: their scores, the site before, and which way into that."""
        scores = np.full((self._size, best), -np.inf)
        way_from = np.full((self._size, best, 2), -1)
        for i, (before, ratio) in enumerate(self._arcs):
            ways = np.append((scores[before] + ratio[:, None]).ravel(), self._opening[i])
            top = np.argsort(-ways, kind="stable")[:best]
            scores[i, : len(top)] = self._weights[i] + ways[top]
            is_arc = top < len(ways) - 1
            way_from[i, : len(top)][is_arc, 0] = before[top[is_arc] // best]
            way_from[i, : len(top)][is_arc, 1] = top[is_arc] % best
        ends = np.append((scores + self._closing[:, None]).ravel(), self._whole)
        chains = []
        for end in np.argsort(-ends, kind="stable")[:best]:
            if np.isinf(ends[end]):
                break
            edges = [self._last]
            at, way = divmod(int(end), best) if end < len(ends) - 1 else (-1, -1)
            while at >= 0:
                edges.append(int(self._positions[at]))
                at, way = (int(one) for one in way_from[at, way])
            edges = [*edges, self._first][::-1]
            chains.append(Chain(tuple(zip(edges[::2], edges[1::2], strict=True)), float(ends[end]), 0.0))
        return chains


def _allowing(ratio: Floats, allowance: Floats) -> Floats:
    """Log ratios with what is made up for; none gets better than at random by that."""
    return np.where(allowance > 0, np.minimum(ratio + allowance, 0.0), ratio)


def _allowances(sites: CalledSites, known: Sequence[tuple[int, int]], lengths: LengthPriors) -> tuple[Floats, Floats]:
    """How much rarer than at random the known exon and the known intron are that end at each site; 0 of others."""
    of_exon, of_intron = np.zeros(len(sites)), np.zeros(len(sites))
    if len(known) < 2:
        return of_exon, of_intron
    starts, ends = np.array(known, np.int64).T
    sizes = ends - starts + 1
    inner = lengths.log_ratio(INTERNAL, sizes[1:-1])
    exons = np.concatenate([lengths.log_ratio(FIRST, sizes[:1]), inner, lengths.log_ratio(LAST, sizes[-1:])])
    introns = lengths.log_ratio(INTRON, starts[1:] - ends[:-1] - 1)
    for kind, places, ratios in ((ACCEPTOR, starts[1:], exons[1:]), (DONOR, ends[:-1], exons[:-1])):
        at = np.minimum(np.searchsorted(places, sites.positions), len(places) - 1)
        is_known = (sites.kinds == kind) & (places[at] == sites.positions)
        of_exon[is_known] = np.maximum(-ratios[at[is_known]], 0.0)
        of_intron[is_known] = np.maximum(-introns[at[is_known]], 0.0)
    return np.nan_to_num(of_exon, posinf=0.0), np.nan_to_num(of_intron, posinf=0.0)


def _log_sum(values: Floats) -> float:
    top = float(values.max())
    return top if np.isinf(top) else top + float(np.log(np.exp(values - top).sum()))
