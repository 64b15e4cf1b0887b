"""Reports: base against meta, with intervals over gene clusters and paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from metalayer.errors import EvaluationError
from metalayer.evaluation.breakdown import by_base_score, by_chromosome, by_paralog
from metalayer.evaluation.calls import SiteCalls, error_report, overlap_report
from metalayer.evaluation.intervals import POWER, STATED_GAIN, Resamples
from metalayer.evaluation.metrics import TARGETS, CalibrationCounts, Floats, GeneScores, Pooled, metric_values
from metalayer.schema import ACCEPTOR, CLASSES, DONOR
from metalayer.settings.sections import EvaluateConfig

CURVE_POINTS = 300
CHAMPION_METRICS = ("pr_auc_splice", "ap_donor", "ap_acceptor")


def evaluate(
    genes: Sequence[GeneScores],
    config: EvaluateConfig,
    reference: str = "base",
    candidate: str = "meta",
    unit: str = "positions",
    related_genes: Sequence[Sequence[str]] = (),
) -> dict[str, Any]:
    """Compare systems on the same genes.

    Args:
        genes: each with scores of `reference`, `candidate` and perhaps others.
        config: bootstrap resamples, coverage, k.
        reference: what the candidate is compared with.
        candidate: what is judged.
        unit: `positions` (all of each gene) or `rows`.
        related_genes: ids of genes that belong together beyond what their places say, as in a split's manifest.

    Returns:
        unit, genes, clusters (of genes, see `Pooled`), clusters_with (sites, by class), clusters_needed, positions,
        sites, metrics by system, `intervals` by system, `difference` (candidate minus reference, paired),
        `resolution` (what gain could be shown, see `Resamples`), `overlaps` (positions of several genes, see
        `calls.overlap_report`), `errors` (fixed and made, see
        `calls.error_report`), `confusion`, `by_chromosome`, `by_paralog`, `by_base_score` (see `breakdown`),
        `curves`; JSON-ready. Bounds of intervals are None where fewer than `clusters_needed` clusters carry donors,
        or acceptors.

    Raises:
        EvaluationError: no gene, no donor or acceptor, or probabilities that are none.
    """
    systems = list(dict.fromkeys([reference, candidate, *(genes[0].scores if genes else ())]))
    pooled = Pooled.of(genes, systems, related_genes)
    resamples, confidence = Resamples.of(pooled, config), config.confidence
    values = {name: metric_values(pooled, name, resamples.weights, config.top_k_values) for name in systems}
    report: dict[str, Any] = {
        "unit": unit,
        "genes": pooled.genes,
        **resamples.facts(),
        "positions": len(pooled.labels),
        "sites": {CLASSES[c]: int((pooled.labels == c).sum()) for c in (DONOR, ACCEPTOR)},
        "confidence": config.confidence,
        "resamples": config.n_bootstrap,
    }
    for name in systems:
        report[name] = {metric: float(drawn[0]) for metric, drawn in values[name].items()}
    report["intervals"] = {
        name: {metric: [one["low"], one["high"]] for metric, one in resamples.of_metrics(found, confidence).items()}
        for name, found in values.items()
    }
    report["difference"] = resamples.of_differences(values[candidate], values[reference], confidence)
    report["resolution"] = {"power": POWER, "stated_gain": STATED_GAIN} | {
        metric: resamples.resolution(values[candidate][metric] - values[reference][metric], confidence)
        for metric in CHAMPION_METRICS
    }
    calls = SiteCalls.of(pooled, [reference, candidate])
    report["overlaps"] = overlap_report(pooled, genes)
    report["errors"] = error_report(pooled, genes, calls, reference, candidate)
    report["confusion"] = {name: pooled.confusion(name) for name in systems}
    report["by_chromosome"] = by_chromosome(pooled, genes)
    report["by_paralog"] = by_paralog(pooled, genes)
    report["by_base_score"] = by_base_score(pooled, calls, reference, candidate)
    report["curves"] = {name: _curves(pooled, name) for name in systems}
    return report


def compare_champion(
    genes: Sequence[GeneScores],
    config: EvaluateConfig,
    related_genes: Sequence[Sequence[str]] = (),
    confidence: float | None = None,
) -> dict[str, Any]:
    """Candidate (`meta`) against `champion` on the same genes.

    Args:
        genes: with scores of both.
        config: bootstrap resamples and coverage.
        related_genes: see `evaluate`.
        confidence: coverage of the intervals; None for that of the configuration.

    Returns:
        `meta`, `champion`: metrics; `difference`: meta minus champion, paired; clusters, clusters_with and
        clusters_needed. JSON-ready.

    Raises:
        EvaluationError: as in `evaluate`; the champion cannot be scored on these genes.
    """
    if not genes:
        raise EvaluationError(
            "the champion was trained or validated on every test gene, so it cannot be compared with; test on other "
            "genes (split.test_chroms)"
        )
    pooled = Pooled.of(genes, ["meta", "champion"], related_genes)
    resamples = Resamples.of(pooled, config)
    values = {}
    for name in ("meta", "champion"):
        found = metric_values(pooled, name, resamples.weights, ())
        values[name] = {metric: found[metric] for metric in CHAMPION_METRICS}
    return {
        **resamples.facts(),
        **{name: {metric: float(drawn[0]) for metric, drawn in found.items()} for name, found in values.items()},
        "difference": resamples.of_differences(values["meta"], values["champion"], confidence or config.confidence),
    }


def _curves(pooled: Pooled, system: str) -> dict[str, Any]:
    """Precision-recall curves of each target and the reliability bins."""
    curves: dict[str, Any] = {target: _pr_curve(*pooled.ranking(system, target)) for target in TARGETS}
    positive, score = pooled.ranking(system, "splice")
    curves["reliability"] = CalibrationCounts(positive, score, pooled.cluster, len(pooled.sizes)).reliability()
    return curves


def _pr_curve(positive: np.ndarray, score: Floats) -> dict[str, list[float]]:
    """Recall and precision at the scores of positives, thinned to `CURVE_POINTS`."""
    thresholds = np.unique(score[positive])[::-1]
    if len(thresholds) > CURVE_POINTS:
        thresholds = thresholds[np.linspace(0, len(thresholds) - 1, CURVE_POINTS).astype(int)]
    true_scores, all_scores = np.sort(score[positive]), np.sort(score)
    hits = len(true_scores) - np.searchsorted(true_scores, thresholds, side="left")
    called = len(all_scores) - np.searchsorted(all_scores, thresholds, side="left")
    return {"recall": (hits / len(true_scores)).tolist(), "precision": (hits / called).tolist()}
