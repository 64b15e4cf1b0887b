"""Reports: base against meta, with intervals by gene and paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metalayer.config import EvaluateConfig
from metalayer.errors import EvaluationError
from metalayer.evaluation.breakdown import by_base_score, by_chromosome, by_paralog
from metalayer.evaluation.calls import SiteCalls, error_report
from metalayer.evaluation.metrics import (
    TARGETS,
    CalibrationCounts,
    Floats,
    GeneScores,
    Pooled,
    draw_genes,
    metric_values,
)
from metalayer.schema import ACCEPTOR, CLASSES, DONOR

CURVE_POINTS = 300
CHAMPION_METRICS = ("pr_auc_splice", "ap_donor", "ap_acceptor")


def evaluate(
    genes: Sequence[GeneScores],
    config: EvaluateConfig,
    reference: str = "base",
    candidate: str = "meta",
    unit: str = "positions",
) -> dict[str, Any]:
    """Compare systems on the same genes.

    Args:
        genes: each with scores of `reference`, `candidate` and perhaps others.
        config: bootstrap resamples, coverage, k.
        reference: what the candidate is compared with.
        candidate: what is judged.
        unit: `positions` (all of each gene) or `rows`.

    Returns:
        unit, genes, positions, sites, metrics by system, `intervals` by system, `difference` (candidate
        minus reference, paired by gene), `errors` (fixed and made, see `calls.error_report`), `confusion`,
        `by_chromosome`, `by_paralog`, `by_base_score` (see `breakdown`), `curves`; JSON-ready. Bounds of
        intervals are None where fewer than `MIN_SITE_GENES` genes carry donors, or acceptors. Copies of a gene
        from files of several genome builds count, and are drawn, as one gene.

    Raises:
        EvaluationError: no gene, no donor or acceptor, or probabilities that are none.
    """
    systems = list(dict.fromkeys([reference, candidate, *(genes[0].scores if genes else ())]))
    pooled = Pooled.of(genes, systems)
    weights = gene_weights(pooled, config)
    values = {name: metric_values(pooled, name, weights, config.top_k_values) for name in systems}
    report: dict[str, Any] = {
        "unit": unit,
        "genes": len(pooled.sizes),
        "positions": len(pooled.labels),
        "sites": {CLASSES[c]: int((pooled.labels == c).sum()) for c in (DONOR, ACCEPTOR)},
        "confidence": config.confidence,
        "resamples": config.n_bootstrap,
    }
    for name in systems:
        report[name] = {metric: float(drawn[0]) for metric, drawn in values[name].items()}
    report["intervals"] = {
        name: {metric: _interval(drawn, config.confidence) for metric, drawn in values[name].items()}
        for name in systems
    }
    report["difference"] = _difference(values[candidate], values[reference], config.confidence)
    calls = SiteCalls.of(pooled, [reference, candidate])
    report["errors"] = error_report(pooled, genes, calls, reference, candidate)
    report["confusion"] = {name: pooled.confusion(name) for name in systems}
    report["by_chromosome"] = by_chromosome(pooled, genes)
    report["by_paralog"] = by_paralog(pooled, genes)
    report["by_base_score"] = by_base_score(pooled, calls, reference, candidate)
    report["curves"] = {name: _curves(pooled, name) for name in systems}
    return report


def compare_champion(genes: Sequence[GeneScores], config: EvaluateConfig) -> dict[str, Any]:
    """Candidate (`meta`) against `champion` on the same genes.

    Returns:
        `meta`, `champion`: metrics; `difference`: meta minus champion, paired by gene. JSON-ready.

    Raises:
        EvaluationError: as of `evaluate`; the champion cannot be scored on these genes.
    """
    if not genes:
        raise EvaluationError(
            "the champion was trained or validated on every test gene, so it cannot be compared with; test on other "
            "genes (split.test_chroms)"
        )
    pooled = Pooled.of(genes, ["meta", "champion"])
    weights = gene_weights(pooled, config)
    values = {}
    for name in ("meta", "champion"):
        found = metric_values(pooled, name, weights, ())
        values[name] = {metric: found[metric] for metric in CHAMPION_METRICS}
    return {
        "meta": {metric: float(drawn[0]) for metric, drawn in values["meta"].items()},
        "champion": {metric: float(drawn[0]) for metric, drawn in values["champion"].items()},
        "difference": _difference(values["meta"], values["champion"], config.confidence),
    }


def gene_weights(pooled: Pooled, config: EvaluateConfig) -> Floats:
    """How often each gene counts, (1 + B, G): in the sample itself, then in each resample."""
    drawn = draw_genes(pooled, config.n_bootstrap, config.seed)
    return np.concatenate([np.ones((1, drawn.shape[1])), drawn])


def estimates(values: Mapping[str, Floats], confidence: float) -> dict[str, dict[str, float | None]]:
    """Value and interval of each metric, from its values in the sample and the resamples, (1 + B,)."""
    out: dict[str, dict[str, float | None]] = {}
    for metric, drawn in values.items():
        low, high = _interval(drawn, confidence)
        out[metric] = {"value": float(drawn[0]), "low": low, "high": high}
    return out


def _interval(drawn: Floats, confidence: float) -> list[float | None]:
    """Percentile interval of the resamples, which follow the sample itself; None, None where there are none."""
    if len(drawn) == 1:
        return [None, None]
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(drawn[1:], [tail, 100.0 - tail])
    return [float(low), float(high)]


def _difference(
    candidate: dict[str, Floats], reference: dict[str, Floats], confidence: float
) -> dict[str, dict[str, float | None]]:
    """Candidate minus reference in the same resamples."""
    return estimates({metric: drawn - reference[metric] for metric, drawn in candidate.items()}, confidence)


def _curves(pooled: Pooled, system: str) -> dict[str, Any]:
    """Precision-recall curves of each target and the reliability bins."""
    curves: dict[str, Any] = {target: _pr_curve(*pooled.ranking(system, target)) for target in TARGETS}
    positive, score = pooled.ranking(system, "splice")
    curves["reliability"] = CalibrationCounts(positive, score, pooled.gene, len(pooled.sizes)).reliability()
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
