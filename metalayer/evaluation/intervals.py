"""Intervals over clusters of genes: which resamples there are, and what they say of a metric or of a difference.

Genes that belong together (see `gene_groups`) are drawn as one. An interval is the value and, on either side, the
standard error over resamples times Student's t of one less than the clusters that carry sites. Percentiles of the
resamples are too narrow with few clusters: by swapping base and meta at random within genes they exclude 0 from
above, where 2.5 % is meant, in 10 % of cases at 5 clusters and in 6 % at 10; these in at most 4 %. Of ECE,
which noise can only raise, resamples lie above the value, and their percentiles may leave it out; around the value they
do not. Intervals know no more than the test genes show: a loss in a rare kind of gene that is not among them is not
seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from metalayer.errors import EvaluationError
from metalayer.evaluation.metrics import Floats
from metalayer.evaluation.sample import Sample
from metalayer.metric_list import UNBOUNDED
from metalayer.schema import ACCEPTOR, CLASSES, DONOR
from metalayer.settings.sections import EvaluateConfig

MIN_CLUSTERS = 5
"""Clusters with donors, and clusters with acceptors, that an interval needs: of 2 or 3, average precision is so far
from that of many genes that intervals miss it in 5 to 20 % of cases, where 5 % is meant."""
POWER = 0.8
"""Chance with which a gain is to be found, where a report says which gains could be found."""
STATED_GAIN = 0.005
"""The gain for which a report says how many clusters would find it: one that real retrainings differ by."""

_DRAWN_AT_ONCE = 100
"""Resamples."""

Estimate = dict[str, float | None]


@dataclass(frozen=True)
class Resamples:
    """The sample of genes and what is drawn from it.

    Attributes:
        weights: (1 + B, C), how often each cluster counts: once in the sample itself, then in each resample. B is 0
            with fewer than `MIN_CLUSTERS` clusters of donors or of acceptors.
        carriers: clusters with sites, by class name.
    """

    weights: Floats
    carriers: Mapping[str, int]

    @classmethod
    def of(cls, sample: Sample, config: EvaluateConfig) -> Resamples:
        """Draw clusters with replacement.

        A resample without a donor or an acceptor, on which average precision is not defined, is drawn again:
        intervals are conditional on both being there.
        """
        sites = sample.sites_by_cluster()
        names = (CLASSES[c] for c in (DONOR, ACCEPTOR))
        return cls.drawn(dict(zip(names, sites, strict=True)), config)

    @classmethod
    def drawn(cls, counts: Mapping[str, NDArray[np.integer]], config: EvaluateConfig) -> Resamples:
        """As `of`, of any two kinds of items: how many each cluster has of each, (C,), by name."""
        carriers = {name: int(np.count_nonzero(n)) for name, n in counts.items()}
        (n_clusters,) = {len(n) for n in counts.values()}
        if min(carriers.values()) < MIN_CLUSTERS:
            return cls(np.ones((1, n_clusters)), carriers)
        rng = np.random.default_rng(config.seed)
        weights = np.ones((1 + config.n_bootstrap, n_clusters))
        todo = np.arange(1, len(weights))
        for _ in range(1000):
            again = []
            for start in range(0, len(todo), _DRAWN_AT_ONCE):
                rows = todo[start : start + _DRAWN_AT_ONCE]
                drawn = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=len(rows))
                weights[rows] = drawn
                again.append(rows[np.any([drawn @ one == 0 for one in counts.values()], axis=0)])
            todo = np.concatenate(again)
            if not len(todo):
                return cls(weights, carriers)
        raise EvaluationError(f"resamples of {n_clusters} gene clusters: too few have {' and '.join(counts)}")

    @property
    def informative(self) -> int:
        """Clusters that carry the rarer kind of site."""
        return min(self.carriers.values())

    def standard_error(self, drawn: Floats) -> float | None:
        """Of a metric or difference, from its values (1 + B,); None where there are no resamples, or not all defined.

        Resamples of n clusters vary less than samples of n clusters do, by (n - 1) / n; that is undone.
        """
        if len(drawn) == 1 or not np.isfinite(drawn).all():
            return None
        n = self.informative
        return float(np.std(drawn[1:]) * math.sqrt(n / (n - 1)))

    def estimate(self, drawn: Floats, confidence: float, lowest: float, highest: float = 1.0) -> Estimate:
        """Value, low and high from the values (1 + B,), bounds no further out than `lowest` and `highest`."""
        value, error = float(drawn[0]), self.standard_error(drawn)
        if error is None:
            return {"value": value, "low": None, "high": None}
        reach = error * _quantile(self.informative, (1.0 + confidence) / 2)
        return {"value": value, "low": max(lowest, value - reach), "high": min(highest, value + reach)}

    def of_metrics(self, values: Mapping[str, Floats], confidence: float) -> dict[str, Estimate]:
        """Estimates of metrics, which lie from 0 to 1 (but for those that are `UNBOUNDED`), by name."""
        return {
            metric: self.estimate(drawn, confidence, 0.0, math.inf if metric in UNBOUNDED else 1.0)
            for metric, drawn in values.items()
        }

    def of_differences(
        self, candidate: Mapping[str, Floats], reference: Mapping[str, Floats], confidence: float
    ) -> dict[str, Estimate]:
        """Estimates of candidate minus reference in the same resamples, by metric."""
        out = {}
        for metric, drawn in candidate.items():
            most = math.inf if metric in UNBOUNDED else 1.0
            out[metric] = self.estimate(drawn - reference[metric], confidence, -most, most)
        return out

    def facts(self) -> dict[str, Any]:
        """What a report says of the clusters: clusters, clusters_with (by class) and clusters_needed, JSON-ready."""
        return {
            "clusters": self.weights.shape[1],
            "clusters_with": dict(self.carriers),
            "clusters_needed": MIN_CLUSTERS,
        }

    def resolution(self, difference: Floats, confidence: float) -> dict[str, float | int | None]:
        """What gain these genes could show at all.

        Args:
            difference: paired values (1 + B,).
            confidence: coverage of the interval that must lie above 0.

        Returns:
            standard_error of the difference; smallest_gain, the true gain that is found in `POWER` of cases;
            clusters_for_stated_gain, about how many clusters with sites find `STATED_GAIN` so often. None where there
            is no interval.
        """
        error, n = self.standard_error(difference), self.informative
        if error is None:
            return {"standard_error": None, "smallest_gain": None, "clusters_for_stated_gain": None}

        def multiple(clusters: int) -> float:
            return _quantile(clusters, (1.0 + confidence) / 2) + _quantile(clusters, POWER)

        enough = MIN_CLUSTERS  # grows to its fixed point: fewer clusters need a larger multiple of the error
        for _ in range(100):
            wanted = math.ceil(n * (multiple(enough) * error / STATED_GAIN) ** 2)
            if wanted == enough:
                break
            enough = max(MIN_CLUSTERS, wanted)
        return {
            "standard_error": error,
            "smallest_gain": multiple(n) * error,
            "clusters_for_stated_gain": enough,
        }


def _quantile(clusters: int, share: float) -> float:
    """Student's t with one degree of freedom less than clusters."""
    return float(stdtrit(clusters - 1, share))
