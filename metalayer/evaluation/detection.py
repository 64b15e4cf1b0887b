"""How well scores tell what alters from what does not, in groups of items, with intervals over clusters of genes.

Items are labelled variants, or anything else with one score a system. Every system is judged on the same items and in
the same resamples, so that differences are paired. What an interval is stands in `intervals`; where all clusters agree,
as where everything is found, resamples do not vary, and there is none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.errors import EvaluationError
from metalayer.evaluation.intervals import Estimate, Resamples
from metalayer.evaluation.metrics import Floats
from metalayer.evaluation.ranks import ClusterRanks, Reached
from metalayer.settings.sections import EvaluateConfig

THRESHOLDS = (0.05, 0.1, 0.2, 0.5, 0.8)
POSITIVES, NEGATIVES = "altering", "neutral"
ROC, PR = "roc_auc", "pr_auc"
FIGURES = ("group", "system", "metric", "threshold", "value", "low", "high")
"""Columns of `figures`."""


@dataclass(frozen=True)
class Items:
    """Items with labels and scores.

    Attributes:
        positive: (n,).
        clusters: int64 (n,), any numbers.
        scores: system to (n,), higher is more positive.
    """

    positive: NDArray[np.bool_]
    clusters: NDArray[np.int64]
    scores: Mapping[str, Floats]

    def chosen(self, at: NDArray[np.bool_]) -> Items:
        """Some of them."""
        return Items(self.positive[at], self.clusters[at], {name: of[at] for name, of in self.scores.items()})


def detection(
    items: Items,
    groups: Mapping[str, NDArray[np.bool_]],
    config: EvaluateConfig,
    *,
    ours: str | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> dict[str, Any]:
    """Judge systems in each group.

    Args:
        items: what is judged.
        groups: name to which items are of it, (n,).
        config: bootstrap and coverage.
        ours: the system that all others are compared with; None for no comparison.
        thresholds: an item is called where its score is at least this.

    Returns:
        By group, JSON-ready: altering, neutral, clusters, clusters_with; systems, by name roc_auc and pr_auc (None
        without both labels) and thresholds (threshold, found, false_calls, and sensitivity, false_positive_rate and
        precision, None where not defined); differences, ours less each other system; equal_false_calls, by other
        system and threshold the most that it and ours can find with as many false calls as it has there.

    Raises:
        EvaluationError: a score that is not finite.
    """
    for name, scores in items.scores.items():
        if not np.isfinite(scores).all():
            raise EvaluationError(f"{name}: scores that are NaN or infinite cannot be ranked")
    return {name: _of_group(items.chosen(at), config, ours, thresholds) for name, at in groups.items()}


def _of_group(items: Items, config: EvaluateConfig, ours: str | None, thresholds: Sequence[float]) -> dict[str, Any]:
    _, numbers = np.unique(items.clusters, return_inverse=True)
    numbers = numbers.astype(np.int64)
    labels = _by_cluster(np.stack([items.positive, ~items.positive], axis=1).astype(np.float64), numbers)
    positives, negatives = (int(count) for count in labels.sum(axis=0))
    out: dict[str, Any] = {POSITIVES: positives, NEGATIVES: negatives, "clusters": len(labels)}
    out |= {"systems": {}, "differences": {}, "equal_false_calls": {}}
    if not len(labels):
        return out | {"clusters_with": {POSITIVES: 0, NEGATIVES: 0}}
    counts = {POSITIVES: labels[:, 0].astype(np.int64), NEGATIVES: labels[:, 1].astype(np.int64)}
    resamples = Resamples.drawn(counts, config)
    out["clusters_with"] = dict(resamples.carriers)
    drawn = {name: _areas(items, scores, numbers, resamples) for name, scores in items.scores.items()}
    for name, scores in items.scores.items():
        called = _called(items, scores, numbers, labels, resamples, thresholds, config.confidence)
        out["systems"][name] = {
            **{metric: _estimate(resamples, values, config.confidence) for metric, values in drawn[name].items()},
            "thresholds": called,
        }
        if ours is not None and name != ours:
            out["differences"][name] = {
                metric: _estimate(resamples, drawn[ours][metric] - values, config.confidence, lowest=-1.0)
                for metric, values in drawn[name].items()
            }
            out["equal_false_calls"][name] = [
                {
                    "threshold": row["threshold"],
                    "false_calls": row["false_calls"],
                    name: found_at(items.positive, scores, row["false_calls"]),
                    ours: found_at(items.positive, items.scores[ours], row["false_calls"]),
                }
                for row in called
            ]
    return out


def _by_cluster(values: Floats, numbers: NDArray[np.int64]) -> Floats:
    """Sums of values (n, k) by cluster, whose numbers from 0 are given: (C, k)."""
    out = np.zeros((int(numbers.max(initial=-1)) + 1, values.shape[1]))
    np.add.at(out, numbers, values)
    return out


def _estimate(resamples: Resamples, drawn: Floats, confidence: float, lowest: float = 0.0) -> Estimate | None:
    """None where it is not defined; without an interval where resamples do not vary."""
    if not np.isfinite(drawn[0]):
        return None
    is_flat = len(drawn) == 1 or not np.ptp(drawn[1:])
    return resamples.estimate(drawn[:1] if is_flat else drawn, confidence, lowest)


def _areas(items: Items, scores: Floats, numbers: NDArray[np.int64], resamples: Resamples) -> dict[str, Floats]:
    """Areas under both curves of each resample, (1 + B,); NaN without both labels."""
    n = resamples.weights.shape[1]
    if items.positive.all() or not items.positive.any():
        return {metric: np.full(len(resamples.weights), np.nan) for metric in (ROC, PR)}
    levels = np.unique(scores[items.positive])
    ranks = ClusterRanks(len(levels), n, n)
    order = np.argsort(numbers, kind="stable")
    for at in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        ranks.add(int(numbers[at[0]]), Reached.of(levels, items.positive[at], scores[at]))
    counts, sizes = ranks.counts(), np.bincount(numbers, minlength=n).astype(np.float64)
    areas = (counts.roc_auc(resamples.weights, sizes), counts.evaluate(resamples.weights, sizes)["ap"])
    return dict(zip((ROC, PR), areas, strict=True))


def _called(
    items: Items,
    scores: Floats,
    numbers: NDArray[np.int64],
    labels: Floats,
    resamples: Resamples,
    thresholds: Sequence[float],
    confidence: float,
) -> list[dict[str, Any]]:
    is_called = scores[:, None] >= np.array(thresholds)
    found, false = (
        resamples.weights @ _by_cluster((is_called & of[:, None]).astype(np.float64), numbers)
        for of in (items.positive, ~items.positive)
    )
    totals = resamples.weights @ labels
    rows = []
    with np.errstate(invalid="ignore", divide="ignore"):
        for i, threshold in enumerate(thresholds):
            rates = {
                "sensitivity": found[:, i] / totals[:, 0],
                "false_positive_rate": false[:, i] / totals[:, 1],
                "precision": found[:, i] / (found[:, i] + false[:, i]),
            }
            rows.append(
                {
                    "threshold": threshold,
                    "found": int(found[0, i]),
                    "false_calls": int(false[0, i]),
                    **{name: _estimate(resamples, rate, confidence) for name, rate in rates.items()},
                }
            )
    return rows


def found_at(positive: NDArray[np.bool_], scores: Floats, false_calls: int) -> int:
    """The most positives that are called by a threshold with at most so many false calls."""
    negatives = np.sort(scores[~positive])[::-1]
    if false_calls >= len(negatives):
        return int(positive.sum())
    return int((scores[positive] > negatives[false_calls]).sum())


def figures(report: Mapping[str, Any]) -> pl.DataFrame:
    """The figures of groups, with columns `FIGURES`; threshold is null of areas.

    Args:
        report: groups, as of `detection`, and ours, the system that others are compared with.
    """
    rows: list[tuple[Any, ...]] = []

    def add(group: str, system: str, metric: str, threshold: float | None, estimate: Mapping[str, Any] | None) -> None:
        if estimate is not None:
            rows.append((group, system, metric, threshold, estimate["value"], estimate["low"], estimate["high"]))

    for group, found in report["groups"].items():
        for system, of in found["systems"].items():
            for metric in (ROC, PR):
                add(group, system, metric, None, of[metric])
            for row in of["thresholds"]:
                for metric in ("sensitivity", "false_positive_rate", "precision"):
                    add(group, system, metric, row["threshold"], row[metric])
        for system, gaps in found["differences"].items():
            for metric, estimate in gaps.items():
                add(group, f"{report['ours']} - {system}", metric, None, estimate)
    types = {name: pl.String if name in FIGURES[:3] else pl.Float64 for name in FIGURES}
    return pl.DataFrame(rows, schema=types, orient="row")
