"""Metrics of ranked splice sites, exact under resampling of genes.

Every metric is a function of counts by cluster of genes, so a bootstrap resample (each cluster drawn w times) is a
weighted sum of those counts: no resample sorts or copies positions. Average precision is
scikit-learn's (ties included), top-k accuracy SpliceAI's with its expected value inside a tie, precision at
a recall that of the highest threshold which reaches it (a tie is called whole), ECE has 15 equal-width bins,
log loss is the mean of -log P(true class) in nats, log loss per site its sum over the true sites. What adds them up
gene by gene is `ranks` and `counts`.

Probabilities count as the float32 nearest to them, so that a file gives the same numbers whether it stores float32 or
float64; their sums and all else are float64. Bins take a score at 6 decimals: 0.45 + 0.15 is in the bin of 0.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import EvaluationError
from metalayer.evaluation.ranks import WeightedRanks
from metalayer.genome import Gene
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER, PARALOG_UNKNOWN

ECE_BINS = 15
_BINNED_DECIMALS = 6
TARGETS = ("splice", "donor", "acceptor")
LOG_LOSS_FLOOR = 1e-10
"""Probabilities of the true class below this count as this: no answer is infinitely wrong."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GeneScores:
    """What several systems say of one gene.

    Attributes:
        gene_id: the gene.
        chrom: its chromosome.
        labels: uint8 (n,), classes of its positions or rows.
        scores: system name to float32 (n, 3) probabilities.
        gene: where it lies, if the n are all its positions in transcript sense; None for rows.
        paralog: 1 it has paralogs, 0 it has none, -1 unknown.
        genome_build: of its coordinates; None where unknown.
        letters: hash of its letters, or of those around its rows; empty where unknown.
        ignored: int64, those of the n that do not count.
        alternative: int64, those of the n that are sites of other isoforms than the principal one alone.
    """

    gene_id: str
    chrom: str
    labels: NDArray[np.uint8]
    scores: Mapping[str, NDArray[np.float32]]
    gene: Gene | None = None
    paralog: int = PARALOG_UNKNOWN
    genome_build: str | None = None
    letters: str = ""
    ignored: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    alternative: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


def average_precision(positive: NDArray[np.bool_], score: Floats, weights: Floats | None = None) -> float:
    """Area under the precision-recall steps, as scikit-learn's `average_precision_score`.

    Args:
        positive: (n,).
        score: (n,), higher is more positive.
        weights: (n,), of each item; None weighs all alike.

    Raises:
        EvaluationError: no positive, or a score that is not finite.
    """
    if not np.isfinite(score).all():
        raise EvaluationError("scores that are NaN or infinite cannot be ranked")
    weights = np.ones(len(score)) if weights is None else weights
    ranks = WeightedRanks.of(score[positive & (weights > 0)])
    ranks.add(positive, score, weights)
    return ranks.average_precision()


def splice_score(probabilities: NDArray[np.floating]) -> Floats:
    """P(donor) + P(acceptor), added in float64: (n, 3) to (n,)."""
    total: Floats = _score(probabilities, DONOR) + _score(probabilities, ACCEPTOR)
    return total


def _score(probabilities: NDArray[np.floating], site_class: int) -> Floats:
    """Of one class, (n, 3) to (n,)."""
    return probabilities[:, site_class].astype(np.float32).astype(np.float64)


def ranking(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], target: str
) -> tuple[NDArray[np.bool_], NDArray[np.floating]]:
    """Positives (n,) and scores (n,) of `donor` or `acceptor` (float32), or `splice` (float64: a sum of two)."""
    if target == "splice":
        return labels != NEITHER, splice_score(probabilities)
    site_class = CLASSES.index(target)
    return labels == site_class, probabilities[:, site_class].astype(np.float32, copy=False)


def log_losses(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> Floats:
    """-log P(true class) in nats: (n,) and (n, 3) to (n,)."""
    true = probabilities[np.arange(len(labels)), labels.astype(np.intp)].astype(np.float32).astype(np.float64)
    losses: Floats = -np.log(np.maximum(true, LOG_LOSS_FLOOR))
    return losses


def ap_name(target: str) -> str:
    """What average precision of a target is called in reports."""
    return "pr_auc_splice" if target == "splice" else f"ap_{target}"


def confusion_counts(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.intp]:
    """Counts by true class (rows) and most probable class (columns), (C, C)."""
    cell = labels.astype(np.intp) * len(CLASSES) + probabilities.astype(np.float32, copy=False).argmax(axis=1)
    return np.bincount(cell, minlength=len(CLASSES) ** 2).reshape(len(CLASSES), len(CLASSES))


class CalibrationCounts:
    """Counts, mean probability and share of sites by cluster and bin of P(donor) + P(acceptor)."""

    def __init__(self, n_clusters: int) -> None:
        self.items, self.probability, self.sites = (np.zeros((n_clusters, ECE_BINS)) for _ in range(3))

    def add(self, cluster: int, site: NDArray[np.bool_], score: NDArray[np.floating]) -> None:
        """Count items (n,) of a cluster."""
        # Rounded, so that sums of decimals do not fall beside the edge that they mean.
        place = np.round(np.clip(score, 0.0, 1.0), _BINNED_DECIMALS) * ECE_BINS
        bins = np.minimum(place.astype(np.intp), ECE_BINS - 1)
        self.items[cluster] += np.bincount(bins, minlength=ECE_BINS)
        self.probability[cluster] = summed(self.probability[cluster], bins, score)
        self.sites[cluster] += np.bincount(bins[site], minlength=ECE_BINS)

    def ece(self, weights: Floats) -> Floats:
        """Expected calibration error of each resample: (B, C) to (B,)."""
        gap = np.abs(weights @ self.probability - weights @ self.sites).sum(axis=1)
        error: Floats = gap / (weights @ self.items).sum(axis=1)
        return error

    def reliability(self) -> list[dict[str, float]]:
        """Filled bins, over all clusters: mean probability, observed share of sites, count."""
        items, probability, sites = (cells.sum(axis=0) for cells in (self.items, self.probability, self.sites))
        return [
            {"mean": float(probability[i] / items[i]), "observed": float(sites[i] / items[i]), "count": int(items[i])}
            for i in range(ECE_BINS)
            if items[i]
        ]


def summed(before: Floats, cells: NDArray[np.intp], values: NDArray[np.floating]) -> Floats:
    """Sums by cell with further values, added one after the other, so that it does not matter how genes are cut.

    Args:
        before: (k,), sums so far.
        cells: (n,), from 0 to k - 1.
        values: (n,).
    """
    n_cells = len(before)
    numbered = np.concatenate([np.arange(n_cells), cells])
    out: Floats = np.bincount(numbered, weights=np.concatenate([before, values]), minlength=n_cells).astype(np.float64)
    return out


def bad_rows(values: NDArray[np.floating]) -> int:
    """Rows of (n, 3) that have a NaN, or what is outside [0, 1]."""
    # The extremes tell without an array of their own, and a NaN is the extreme of any values.
    if not values.size or (values.min() >= 0.0 and values.max() <= 1.0 + 1e-6):
        return 0
    return int((~((values >= 0.0) & (values <= 1.0 + 1e-6))).any(axis=1).sum())


def check_probabilities(values: NDArray[np.floating], what: str) -> None:
    """Refuse NaN and what is outside [0, 1].

    Raises:
        EvaluationError: with how many rows of (n, 3) are at fault, and of what they are.
    """
    refuse_bad_rows(bad_rows(values), len(values), what)


def refuse_bad_rows(bad: int, rows: int, what: str) -> None:
    """Refuse probabilities of which `bad_rows` found any.

    Raises:
        EvaluationError: with how many there are, and of what.
    """
    if bad:
        raise EvaluationError(f"{what}: {bad:,} of {rows:,} rows have probabilities that are NaN or outside [0, 1]")
