"""Whether probabilities of sites mean what they say, added up gene by gene: what ECE cannot see where sites are rare.

Nearly all positions are no site and get a score near 0, so that a mean over positions hides the others: log-odds times
1.5 hardly move ECE. Here are the slope and the intercept of the log-odds, the Brier score of the positions that either
system takes seriously, and the share of sites in bins that are narrow where probabilities are small, or near 1. Scores
are P(donor) + P(acceptor), added and binned in float64 as they are, an edge in the bin above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from metalayer.evaluation.intervals import Estimate, Resamples
from metalayer.evaluation.metrics import Floats, splice_score, summed
from metalayer.evaluation.sample import Part
from metalayer.schema import NEITHER

NEAR = 0.01
"""The Brier score is of positions to which the reference or the candidate gives this or more."""
_SMALL = 10.0 ** np.arange(-6, 0, 0.5)
LOG_EDGES = (*_SMALL.tolist(), *(1.0 - _SMALL[_SMALL >= 10**-3][::-1]).tolist())
"""Inner edges of the bins: two a power of ten, from 1e-6, and towards 1 likewise, up to 0.999."""
_FLOOR = 1e-7
"""Log-odds are of probabilities kept this far from 0 and 1."""
_STEP = 0.1
"""Log-odds are counted in bins of this width, each at its mean: that moves a slope by about 0.0001."""
_LOWEST = np.log(_FLOOR) - np.log1p(-_FLOOR)
_ODDS_BINS = int(np.ceil(-2 * _LOWEST / _STEP)) + 1
_ROUNDS, _HALVINGS, _LONGEST_STEP, _ROUNDING = 60, 30, 5.0, 1e-12
_CONVERGED, _DIVERGED = 1e-7, 100.0


class Reliability:
    """Counts of systems on the same positions, by cluster of genes."""

    def __init__(self, systems: Sequence[str], compared: tuple[str, str], n_clusters: int) -> None:
        """Begin with none.

        Args:
            systems: all of them.
            compared: reference and candidate.
            n_clusters: of the sample.
        """
        self._compared = compared
        self._near = np.zeros(n_clusters)
        self._systems = {name: _System(n_clusters) for name in systems}

    def add(self, part: Part) -> None:
        """Count a gene."""
        site = part.labels != NEITHER
        scores = {name: splice_score(part.scores[name]) for name in self._systems}
        near = np.maximum(*(scores[name] for name in self._compared)) >= NEAR
        self._near[part.cluster] += np.count_nonzero(near)
        for name, one in self._systems.items():
            one.add(part.cluster, scores[name], site, near)

    def report(self, resamples: Resamples, confidence: float) -> dict[str, Any]:
        """What was counted, with intervals over clusters.

        Returns:
            JSON-ready:
                near: `threshold`, and `positions` of the Brier score.
                <system>: `slope` of the log-odds of sites over those that the system gives (1 where it is neither too
                    sure nor too timid), `intercept` with the slope held at 1 (0 where it expects as many sites as there
                    are), `brier`: value, low and high each, None where it is not defined; `bins`: for each bin [low,
                    high) that is not empty low, high, count, sites, mean (of the score), observed (share of sites) and
                    its interval, observed_low and observed_high.
                difference: `brier`, candidate less reference.
        """
        weights = resamples.weights
        near = weights @ self._near
        report: dict[str, Any] = {"near": {"threshold": NEAR, "positions": int(self._near.sum())}}
        brier: dict[str, Floats] = {}
        for name, one in self._systems.items():
            with np.errstate(invalid="ignore", divide="ignore"):
                brier[name] = (weights @ one.brier) / near
            slope, intercept = one.line(weights)
            report[name] = {
                "slope": _estimate(resamples, slope, confidence, (-np.inf, np.inf)),
                "intercept": _estimate(resamples, intercept, confidence, (-np.inf, np.inf)),
                "brier": _estimate(resamples, brier[name], confidence, (0.0, 1.0)),
                "bins": one.bins(resamples, confidence),
            }
        reference, candidate = (brier[name] for name in self._compared)
        report["difference"] = {"brier": _estimate(resamples, candidate - reference, confidence, (-1.0, 1.0))}
        return report


class _System:
    def __init__(self, n_clusters: int) -> None:
        n_bins = len(LOG_EDGES) + 1
        self._items, self._sites = (np.zeros((n_clusters, n_bins), np.uint32) for _ in range(2))
        self._score = np.zeros(n_bins)
        self._odds_items, self._odds_sites = (np.zeros((n_clusters, _ODDS_BINS), np.uint32) for _ in range(2))
        self._odds = np.zeros(_ODDS_BINS)
        self.brier = np.zeros(n_clusters)

    def add(self, cluster: int, score: Floats, site: NDArray[np.bool_], near: NDArray[np.bool_]) -> None:
        bins = np.searchsorted(LOG_EDGES, score, side="right")
        self._score = summed(self._score, bins, score)
        kept = np.clip(score, _FLOOR, 1.0 - _FLOOR)
        odds = np.log(kept) - np.log1p(-kept)
        steps = ((odds - _LOWEST) / _STEP).astype(np.intp)
        self._odds = summed(self._odds, steps, odds)
        for items, sites, cells in (
            (self._items, self._sites, bins),
            (self._odds_items, self._odds_sites, steps),
        ):
            items[cluster] += np.bincount(cells, minlength=items.shape[1]).astype(np.uint32)
            sites[cluster] += np.bincount(cells[site], minlength=items.shape[1]).astype(np.uint32)
        self.brier[cluster] += float(((score[near] - site[near]) ** 2).sum())

    def line(self, weights: Floats) -> tuple[Floats, Floats]:
        """Slope, and intercept with the slope at 1, of each resample, (B,); NaN where there is none."""
        total = self._odds_items.sum(axis=0, dtype=np.int64)
        there = total > 0
        odds = self._odds[there] / total[there]
        items, sites = (
            weights @ counts[:, there].astype(np.float64) for counts in (self._odds_items, self._odds_sites)
        )
        _, slope = _logistic(odds, items, sites, slope_fitted=True)
        intercept, _ = _logistic(odds, items, sites, slope_fitted=False)
        return slope, intercept

    def bins(self, resamples: Resamples, confidence: float) -> list[dict[str, Any]]:
        items, sites = (resamples.weights @ counts.astype(np.float64) for counts in (self._items, self._sites))
        out = []
        for i, (low, high) in enumerate(zip((0.0, *LOG_EDGES), (*LOG_EDGES, 1.0), strict=True)):
            count = int(items[0, i])
            if not count:
                continue
            with np.errstate(invalid="ignore", divide="ignore"):
                observed = resamples.estimate(sites[:, i] / items[:, i], confidence, 0.0)
            out.append(
                {"low": low, "high": high, "count": count, "sites": int(sites[0, i])}
                | {"mean": float(self._score[i] / count), "observed": observed["value"]}
                | {f"observed_{end}": observed[end] for end in ("low", "high")}
            )
        return out


def _logistic(odds: Floats, items: Floats, sites: Floats, *, slope_fitted: bool) -> tuple[Floats, Floats]:
    """Maximum likelihood of P(site) = 1 / (1 + exp(-(intercept + slope * odds))), by Newton's method.

    Args:
        odds: (F,).
        items: (B, F), how many there are in each resample.
        sites: (B, F), how many of them are sites.
        slope_fitted: else it is 1.

    Returns:
        Intercept and slope, (B,) each; NaN where the likelihood has no maximum, as where scores separate the sites
            without an error, or there are none.
    """

    def likelihood(line: Floats) -> Floats:
        said = line[0][:, None] + line[1][:, None] * odds
        out: Floats = (sites * said - items * np.logaddexp(0.0, said)).sum(axis=1)
        return out

    line = np.stack([np.zeros(len(items)), np.ones(len(items))])
    before, moved = likelihood(line), np.full(len(items), np.inf)
    for _ in range(_ROUNDS):
        p = expit(line[0][:, None] + line[1][:, None] * odds)
        error, spread = sites - items * p, items * p * (1.0 - p)
        with np.errstate(invalid="ignore", divide="ignore"):
            if slope_fitted:
                a, b, c = spread.sum(axis=1), spread @ odds, spread @ odds**2
                up, right = error.sum(axis=1), error @ odds
                steps = np.stack([c * up - b * right, a * right - b * up]) / (a * c - b**2)
            else:
                steps = np.stack([error.sum(axis=1) / spread.sum(axis=1), np.zeros(len(items))])
        steps = np.clip(np.nan_to_num(steps, nan=np.inf), -_LONGEST_STEP, _LONGEST_STEP)
        for _ in range(_HALVINGS):  # a step from far off may lead further off
            after = likelihood(line + steps)
            worse = after < before - _ROUNDING * np.abs(before)
            if not worse.any():
                break
            steps[:, worse] /= 2
        line, before = line + steps, after
        moved = np.abs(steps).max(axis=0)
        if moved.max() < _CONVERGED:
            break
    lost = (moved >= _CONVERGED) | (np.abs(line).max(axis=0) >= _DIVERGED)
    return np.where(lost, np.nan, line[0]), np.where(lost, np.nan, line[1])


def _estimate(resamples: Resamples, drawn: Floats, confidence: float, bounds: tuple[float, float]) -> Estimate:
    if not np.isfinite(drawn[0]):
        return {"value": None, "low": None, "high": None}
    return resamples.estimate(drawn, confidence, *bounds)
