"""What a stack of base models learned to add to their mean (`data/mean.py`).

It corrects the mean's log-odds of donor and acceptor against neither, each by a linear function of the log-odds of
every base model at the position, of both kinds of site, and of the highest that any of them says in ranges of distance
on either side, as far as `REACH_BP`. All zeros, and 1 for the mean's own log-odds, is the mean: that is what
`training/stacking.py` shrinks it towards.
Nothing here needs torch. Axes: L positions, n candidates, F features, C classes (donor, acceptor, neither).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d
from scipy.special import logit, softmax

from metalayer.data.mean import Bases, tells_kinds, untrained_mean
from metalayer.errors import InputError, ModelError
from metalayer.features import log_probabilities
from metalayer.schema import ACCEPTOR, BASE_SCORES, CLASSES, DONOR, NEITHER, SPLICED_SCORE

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

RANGES_BP = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1600, 2401)
"""Distances from a position at which a range begins, and behind which the last one ends."""
REACH_BP = RANGES_BP[-1] - 1
CANDIDATE = float(np.exp(-7))
"""What any base model must give a class for a position to be learned from for certain."""
_FLOOR = 1e-6
"""Probabilities closer to 0 or 1 are alike to the stack: what no base model is trained to tell apart."""
_BLOCK = 32_768
"""Positions answered at a time, whose features take 7 MB."""
SITES = (DONOR, ACCEPTOR)
STACK = "stack"
"""Of `model.json`: the description of the stack."""


@dataclass(frozen=True)
class Seen:
    """What a stack sees of one class at n positions of a stretch.

    Attributes:
        features: float32 (n, F), see `feature_names`.
        log_odds: float64 (n,), of the class against neither, of the mean.
    """

    features: Floats
    log_odds: Doubles


def feature_names(bases: Sequence[str], telling: Sequence[str]) -> list[str]:
    """What the columns of `Seen.features` are.

    Args:
        bases: names of all base models.
        telling: those that tell donors from acceptors.
    """
    own = [f"{base}: {kind}" for base in bases for kind in (("same", "other") if base in telling else ("spliced",))]
    ranges = [f"{first} to {behind - 1} bp" for first, behind in pairwise(RANGES_BP)]
    sides = [f"{side} {bp}" for bp in ranges for side in ("before", "behind")]
    return [*own, *(f"highest {kind}, {side}" for kind in ("same", "other") for side in sides)]


def is_candidate(bases: Bases, site: int) -> NDArray[np.bool_]:
    """Positions (L,) to which any base model gives a class at least `CANDIDATE`."""
    own = np.maximum.reduce([track[0] for track in _by_base(bases, site)])
    high: NDArray[np.bool_] = own >= np.float32(CANDIDATE)
    return high


def look(bases: Bases, site: int, mean: Floats, at: NDArray[np.integer] | slice) -> Seen:
    """What a stack sees of a class at positions of a stretch.

    Args:
        bases: of the stretch.
        site: donor or acceptor.
        mean: of `untrained_mean`.
        at: positions.
    """
    positions = np.arange(len(mean))[at]
    tracks = _by_base(bases, site)
    own = np.stack([track[positions] for track in chain(*tracks)], axis=1, dtype=np.float64)
    columns = [*logit(np.clip(own, _FLOOR, 1.0 - _FLOOR)).astype(np.float32).T]
    for of_kind in ([track[0] for track in tracks], [track[1] for track in tracks if len(track) > 1]):
        highest = np.log(np.maximum(np.maximum.reduce(of_kind), np.float32(_FLOOR)))
        for first, behind in pairwise(RANGES_BP):
            columns += _maxima(highest, first, behind, positions)
    log_mean = log_probabilities(mean[positions])
    return Seen(np.stack(columns, axis=1), log_mean[:, site] - log_mean[:, NEITHER])


@dataclass(frozen=True)
class SiteWeights:
    """What corrects the log-odds of one class: slope of the mean's log-odds, intercept, and one number a feature."""

    slope: float
    intercept: float
    features: Doubles

    def __call__(self, seen: Seen) -> Doubles:
        """Log-odds against neither, (n,)."""
        found: Doubles = self.slope * seen.log_odds + self.intercept + seen.features.astype(np.float64) @ self.features
        return found


@dataclass(frozen=True)
class Stack:
    """What several base models say together.

    Attributes:
        bases: names, in the order of the features.
        telling: those that tell donors from acceptors.
        best: the one of these with the highest average precision on the training genes.
        weights: of donor and acceptor; None: the untrained mean.
        penalty: which `weights` were fitted with; None of the untrained mean.
        without: by the name of a base model the stack of the others, which answers where that one is missing.
    """

    bases: tuple[str, ...]
    telling: tuple[str, ...]
    best: str
    weights: tuple[SiteWeights, SiteWeights] | None = None
    penalty: float | None = None
    without: Mapping[str, Stack] = field(default_factory=dict)

    def answering(self, given: Collection[str]) -> Stack:
        """The stack that answers where these base models are given: this one, or that of all but one."""
        missing = [name for name in self.bases if name not in given]
        return self.without.get(missing[0], self) if len(missing) == 1 else self

    def scores(self, bases: Bases) -> Floats:
        """Probabilities at every position of a stretch, float32 (L, C).

        Raises:
            InputError: other base models than those of the stack.
        """
        return np.concatenate(list(self.blocks(bases)))

    def blocks(self, bases: Bases) -> Iterator[Floats]:
        """As `scores`, one float32 (n, C) after the other, n at most 32,768."""
        if (other := self.answering(bases)) is not self:
            yield from other.blocks(bases)
            return
        if len(bases) == len(self.bases) == 1:  # one alone needs no name
            bases = dict(zip(self.bases, bases.values(), strict=True))
        self.check({name: scores.shape[1] for name, scores in bases.items()})
        bases = {name: bases[name] for name in self.bases}
        mean = untrained_mean(bases)
        for start in range(0, len(mean), _BLOCK):
            if self.weights is None:
                yield mean[start : start + _BLOCK]
                continue
            near = slice(max(0, start - REACH_BP), start + _BLOCK + REACH_BP)
            at = slice(start - near.start, start - near.start + _BLOCK)
            some = {name: scores[near] for name, scores in bases.items()}
            log_odds = np.zeros(mean[start : start + _BLOCK].shape)
            for site, weights in zip(SITES, self.weights, strict=True):
                log_odds[:, site] = weights(look(some, site, mean[near], at))
            answer: Floats = softmax(log_odds, axis=1).astype(np.float32)
            yield answer

    def check(self, given: Mapping[str, int]) -> None:
        """Refuse other base models.

        Args:
            given: number of scores a position, by name.

        Raises:
            InputError: one is missing, unknown, or of another kind.
        """
        wanted = {name: len(CLASSES) if name in self.telling else 1 for name in self.bases}
        if dict(given) != wanted:
            columns = {len(CLASSES): ", ".join(BASE_SCORES), 1: SPLICED_SCORE}
            named = [
                ", ".join(f"{name or 'one base model'} ({columns.get(n, n)})" for name, n in side.items())
                for side in (given, wanted)
            ]
            but_one = f", or all but one of {', '.join(self.without)}" if self.without else ""
            raise InputError(f"base scores of {named[0] or 'none'}; this model reads those of {named[1]}{but_one}")

    def described(self) -> dict[str, Any]:
        """JSON-ready, for `of`."""
        weights = self.weights and [
            {"slope": one.slope, "intercept": one.intercept, "features": one.features.tolist()} for one in self.weights
        ]
        return {
            "bases": list(self.bases),
            "telling": list(self.telling),
            "best": self.best,
            "features": feature_names(self.bases, self.telling),
            "weights": weights,
            "penalty": self.penalty,
            "without": {name: stack.described() for name, stack in self.without.items()},
        }

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """The stack of a description.

        Raises:
            ModelError: a description that is none, or of other features.
        """
        try:
            bases, telling = tuple(description["bases"]), tuple(description["telling"])
            if description["features"] != feature_names(bases, telling):
                raise ValueError("features that this metalayer does not read")
            weights = description["weights"] and tuple(
                SiteWeights(float(one["slope"]), float(one["intercept"]), np.array(one["features"], np.float64))
                for one in description["weights"]
            )
            count = len(description["features"])
            if weights and (len(weights) != len(SITES) or any(one.features.shape != (count,) for one in weights)):
                raise ValueError(f"weights that are not those of {count} features")
            without = {name: cls.of(other) for name, other in description["without"].items()}
            return cls(bases, telling, str(description["best"]), weights or None, description["penalty"], without)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelError(f"the description of the stack cannot be used: {error}; train the model again") from None


def _by_base(bases: Bases, site: int) -> list[list[Floats]]:
    """Probabilities (L,) that each base model gives the class, and the other kind of site; or a site of either kind."""
    kinds = (site, ACCEPTOR if site == DONOR else DONOR)
    return [[scores[:, kind] for kind in (kinds if tells_kinds(scores) else (0,))] for scores in bases.values()]


def _maxima(track: Floats, first: int, behind: int, at: NDArray[np.int64]) -> list[Floats]:
    """Highest of a track from `first` to before `behind` positions before, and behind, each of `at`."""
    width = behind - first
    padded = np.pad(track, behind, constant_values=np.log(np.float32(_FLOOR)))
    # Entry i is the maximum of the `width` entries that begin at i - width // 2.
    highest = maximum_filter1d(padded, width, mode="nearest")
    centre = at + behind + width // 2
    return [highest[centre - behind + 1], highest[centre + first]]
