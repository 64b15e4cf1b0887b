"""How many of the sites that are hard to find a system finds, where most of its calls are right.

A system calls a position of a class down to the lowest score at which `PRECISION` of its calls of that class, of all
positions, are right. Weak sites are those to which the reference gives less than `WEAK_BELOW`; alternative ones are
those of other isoforms than the principal one alone, where files mark them. The threshold is the sample's own, also in
resamples. Weak sites are the reference's worst ones, by its own score: another system that is as good overall, but has
other errors, finds more of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalayer.evaluation.calls import SITE_CLASSES
from metalayer.evaluation.counts import SiteScores, SystemCounts
from metalayer.evaluation.intervals import MIN_CLUSTERS, Resamples
from metalayer.evaluation.metrics import Floats, ranking
from metalayer.evaluation.ranks import GroupRanks
from metalayer.evaluation.sample import Sample
from metalayer.schema import CLASSES

PRECISION = (95, 100)
"""Calls that are right, of so many."""
WEAK_BELOW = 0.5
KINDS = ("weak", "alternative")


def site_recall(
    sample: Sample,
    sites: SiteScores,
    counts: Mapping[str, SystemCounts],
    curves: Mapping[str, Mapping[str, GroupRanks]],
    resamples: Resamples,
    confidence: float,
    systems: tuple[str, str],
) -> dict[str, Any]:
    """Shares of weak and of alternative sites that are called.

    Args:
        sample: of genes.
        sites: true ones.
        counts: by system, with its thresholds.
        curves: rankings by system and class, over all genes.
        resamples: of clusters.
        confidence: coverage of intervals.
        systems: reference and candidate.

    Returns:
        precision and weak_below; `threshold` by system and class (None where no threshold is that precise: nothing is
        called); `weak` and `alternative`, each by class: sites, value, low and high by system and of their
        `difference` (candidate minus reference). None for a class without such sites; bounds are None where fewer than
        `MIN_CLUSTERS` clusters have such sites, or some resample has none. JSON-ready.
    """
    lowest: dict[str, dict[str, float | None]] = {system: {} for system in systems}
    out: dict[str, Any] = {"precision": PRECISION[0] / PRECISION[1], "weak_below": WEAK_BELOW, "threshold": lowest}
    out |= {kind: {} for kind in KINDS}
    cluster = np.array(sample.clusters)[sites.gene]
    for name in SITE_CLASSES:
        of_class = sites.labels == CLASSES.index(name)
        scores = {system: ranking(sites.labels, sites.scores[system], name)[1] for system in systems}
        called: dict[str, NDArray[np.bool_]] = {}
        for system in systems:
            number = curves[system][name].last_at(*PRECISION)
            threshold = None if number is None else counts[system].threshold(name, number)
            lowest[system][name] = threshold
            called[system] = np.zeros(len(cluster), bool) if threshold is None else scores[system] >= threshold
        chosen = {"weak": of_class & (scores[systems[0]] < WEAK_BELOW), "alternative": of_class & sites.alternative}
        for kind, which in chosen.items():
            out[kind][name] = _shares(which, called, cluster, resamples, confidence, systems)
    return out


def _shares(
    which: NDArray[np.bool_],
    called: Mapping[str, NDArray[np.bool_]],
    cluster: NDArray[np.int64],
    resamples: Resamples,
    confidence: float,
    systems: tuple[str, str],
) -> dict[str, Any] | None:
    """Of chosen sites (s,), those that each system calls, with intervals."""
    n_clusters = resamples.weights.shape[1]

    def drawn(of: NDArray[np.bool_]) -> Floats:
        total: Floats = resamples.weights @ np.bincount(cluster[of], minlength=n_clusters)
        return total

    carriers = len(np.unique(cluster[which]))
    if not carriers:
        return None
    own = replace(resamples, carriers=dict.fromkeys(SITE_CLASSES, carriers))
    with np.errstate(invalid="ignore"):
        shares = {system: drawn(which & called[system]) / drawn(which) for system in systems}
    if carriers < MIN_CLUSTERS:
        shares = {system: found[:1] for system, found in shares.items()}
    reference, candidate = systems
    found: dict[str, Any] = {"sites": int(which.sum())}
    found |= {system: own.estimate(values, confidence, 0.0) for system, values in shares.items()}
    return found | {"difference": own.estimate(shares[candidate] - shares[reference], confidence, -1.0)}
