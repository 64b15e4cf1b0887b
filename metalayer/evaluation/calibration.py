"""Calibration: three numbers that make probabilities mean what they say.

softmax(scale * log p + bias), fitted by maximum likelihood on validation genes; the neither class is
the reference, its bias is 0. The negative log-likelihood is convex in these three numbers. They are held
near doing nothing by a normal prior: a few validation genes have too few sites to say otherwise, many do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import t as student_t

from metalayer.errors import EvaluationError
from metalayer.evaluation.metrics import bad_rows, refuse_bad_rows
from metalayer.features import log_probabilities
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER

_SCALE_BOUNDS = (0.05, 20.0)
_PRIOR_SCALE, _PRIOR_BIAS = 0.15, 0.3
"""Standard deviations of the prior on scale (around 1) and on biases (around 0)."""
FACTORS = np.linspace(0.0, 1.0, 21)
"""Factors of a correction; 0 leaves the base as it is."""
_LIKELIHOOD_RATIO = 1.92
"""Log-likelihood within which a factor is not contradicted: half the 95 % point of chi-squared, one degree."""
_SURE = 0.995
"""Quantile of Student's t that a gain must reach: a two-sided 99 %."""
_TELLING = 1e-4
"""Change of a log-probability below which a position says nothing of the factor of a correction."""
_ROUNDING = 1e-9
_PIECE = 16_384
"""Positions."""
Labelled = tuple[NDArray[np.floating], NDArray[np.integer], NDArray[np.floating] | None]
"""Probabilities (n, 3), labels (n,) and weights (n,), or None where all weigh alike."""


@dataclass(frozen=True)
class Calibration:
    """softmax(scale * log p + bias); the default changes nothing.

    Attributes:
        scale: on log-probabilities; below 1 where they are too sure.
        bias: donor, acceptor, neither (0).
        reason: why nothing was fitted, else empty.
    """

    scale: float = 1.0
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)
    reason: str = ""

    def apply(self, probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
        """Calibrated probabilities, (n, 3) to (n, 3)."""
        logits = self.scale * log_probabilities(probabilities) + np.array(self.bias)
        out: NDArray[np.float64] = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
        return out


def fit(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], weights: NDArray[np.floating] | None = None
) -> Calibration:
    """Fit on validation data in memory; as `fit_parts`.

    Args:
        probabilities: (n, 3).
        labels: (n,).
        weights: (n,), how many positions each stands for; None weighs all alike.
    """
    return fit_parts(lambda: iter([(probabilities, labels, weights)]))


def fit_parts(parts: Callable[[], Iterator[Labelled]]) -> Calibration:
    """Fit on validation data that are read part by part, some tens of times.

    Args:
        parts: gives them again each time: probabilities (n, 3), labels (n,) and weights (n,), how many positions each
            stands for, or None where all weigh alike.

    Returns:
        The calibration; the identity, with a reason, where a class is absent or nothing is gained.

    Raises:
        EvaluationError: probabilities that are none, or weights that are negative or not finite.
    """
    by_class, rows, bad = np.zeros(len(CLASSES)), 0, 0
    for probabilities, labels, weights in parts():
        rows, bad = rows + len(labels), bad + bad_rows(probabilities)
        weight = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
        if not (np.isfinite(weight) & (weight >= 0.0)).all():
            raise EvaluationError("calibration: weights must be finite and not negative")
        by_class += np.bincount(labels, weight, len(CLASSES))
    refuse_bad_rows(bad, rows, "calibration")
    for site_class in (DONOR, ACCEPTOR):
        if not by_class[site_class]:
            return Calibration(reason=f"no {CLASSES[site_class]} to fit on")
    total = by_class.sum()
    middle = np.array([1.0, 0.0, 0.0])
    precision = np.array([_PRIOR_SCALE**-2, _PRIOR_BIAS**-2, _PRIOR_BIAS**-2]) / total

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        value, gradient = 0.0, np.zeros(3)
        for part in parts():
            for probabilities, labels, weights in _pieces(part):
                more = _loss(parameters, probabilities, labels, weights)
                value, gradient = value + more[0], gradient + more[1]
        off = parameters - middle
        return value / total + 0.5 * float((precision * off**2).sum()), gradient / total + precision * off

    before = loss(middle)[0]
    # Positions are nearly all neither: the loss is small, so it is scaled for the optimiser's tolerance.
    unit = 1.0 / max(before, 1e-12)
    found = minimize(
        lambda x: tuple(unit * part for part in loss(x)),
        middle,
        jac=True,
        method="L-BFGS-B",
        bounds=[_SCALE_BOUNDS, (-20.0, 20.0), (-20.0, 20.0)],
    )
    if not np.isfinite(found.x).all() or found.fun / unit >= before:
        return Calibration(reason="nothing to gain on the validation genes")
    return Calibration(float(found.x[0]), (float(found.x[1]), float(found.x[2]), 0.0))


def _pieces(part: Labelled) -> Iterator[Labelled]:
    """A part cut so that the arrays made of a piece stay in a processor's cache."""
    probabilities, labels, weights = part
    for start in range(0, len(labels), _PIECE):
        at = slice(start, start + _PIECE)
        yield probabilities[at], labels[at], None if weights is None else weights[at]


def _loss(
    parameters: NDArray[np.float64],
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    weights: NDArray[np.floating] | None,
) -> tuple[float, NDArray[np.float64]]:
    """Sum of -log P(true class) under softmax(scale * log p + bias), and its gradient by scale and both biases."""
    log_p = np.ascontiguousarray(log_probabilities(probabilities).T)
    logits = parameters[0] * log_p
    logits[:NEITHER] += parameters[1:, None]
    highest = logits.max(axis=0)
    after = np.exp(logits - highest)
    total = after.sum(axis=0)
    after /= total
    at = np.arange(len(labels))
    losses = np.log(total) + highest - logits[labels, at]
    after[labels, at] -= 1.0
    if weights is not None:
        losses *= weights
        after *= weights
    gradient = np.array([(after * log_p).sum(), after[DONOR].sum(), after[ACCEPTOR].sum()])
    return float(losses.sum()), gradient


def beyond_chance(calibration: Calibration, genes: Iterable[Labelled]) -> bool:
    """Whether genes show that a calibration which was fitted on them helps on others.

    Its gain in log-likelihood, less what fitting three numbers gains by itself (3, as in AIC), is larger than its
    standard error over genes times Student's t at 99 %: genes of one stretch of a chromosome have more, or fewer,
    sites a kilobase than others have, and a bias fitted on few of them is theirs. Of one gene nothing is shown.

    Args:
        calibration: fitted on these genes.
        genes: of each, probabilities (n, 3) before it and labels (n,); weights are not read.
    """
    gains = []
    for probabilities, labels, _ in genes:
        at, truth = np.arange(len(labels)), labels.astype(np.intp)
        gain = np.log(calibration.apply(probabilities)[at, truth]) - log_probabilities(probabilities)[at, truth]
        gains.append(gain.sum())
    if len(gains) < 2:
        return False
    by_gene = np.array(gains)
    error = by_gene.std(ddof=1) * np.sqrt(len(gains))
    return bool(by_gene.sum() - 3.0 > error * student_t.ppf(_SURE, len(gains) - 1))


def mixed(
    log_base: NDArray[np.floating], log_p: NDArray[np.floating], factors: float | Sequence[float] | NDArray[np.floating]
) -> NDArray[np.float64]:
    """Log-probabilities of base and model mixed geometrically: what the model gives with its correction shrunk.

    Args:
        log_base: (n, 3).
        log_p: (n, 3).
        factors: of donor's and acceptor's log-odds against neither, or one for both; 0 is the base, 1 the model.
    """
    base = log_base.astype(np.float64)
    change = log_p - base
    change -= change[:, NEITHER:]
    logits = base + np.append(np.broadcast_to(factors, 2), 0.0) * change
    out: NDArray[np.float64] = logits - logsumexp(logits, axis=1, keepdims=True)
    return out


class Corrections:
    """What genes say of a model's corrections, added up gene by gene, and the shrinkage factors that they support.

    A base with few errors teaches little, and what was learned from few sites may be too sure of itself. Of
    `FACTORS` it is the largest whose likelihood lies within the 95 % likelihood-ratio bound of the best, less what
    chance alone may have gained: times 1 - (standard error over genes / gain in log-likelihood)^2, as James and Stein
    shrink, and 0 where the gain is no larger. Each class is judged with the other as the base has it. Of one gene
    there is no standard error, and nothing is shrunk. Where the model corrects nothing they are 0.
    """

    def __init__(self) -> None:
        self._changed = False
        self._gains: list[NDArray[np.float64]] = []  # log-likelihood by class and factor, less that of the base

    def add(self, log_base: NDArray[np.floating], log_p: NDArray[np.floating], labels: NDArray[np.integer]) -> None:
        """Count a gene.

        Args:
            log_base: (n, 3), of the base.
            log_p: (n, 3), of the model.
            labels: (n,).
        """
        gains = np.zeros((NEITHER, len(FACTORS)))
        for start in range(0, len(labels), _PIECE):
            at = slice(start, start + _PIECE)
            changed = np.abs(log_p[at] - log_base[at]).max(axis=1) > _TELLING
            self._changed |= bool(changed.any())
            near = (labels[at] != NEITHER) | changed  # elsewhere nothing changes
            gains += _gains(log_base[at][near], log_p[at][near], labels[at][near])
        self._gains.append(gains)

    def shrinkage_factors(self) -> tuple[float, float]:
        """Of donors and of acceptors."""
        if not self._changed:  # of rounding alone, chance would choose
            return 0.0, 0.0
        found = []
        for by_gene in np.stack(self._gains, axis=1):
            losses = -by_gene.sum(axis=0)
            chosen = np.flatnonzero(losses <= losses.min() + _LIKELIHOOD_RATIO)[-1]
            factor = float(FACTORS[chosen])
            if len(by_gene) > 1 and factor:
                gain = float(by_gene[:, chosen].sum())
                error = float(by_gene[:, chosen].std(ddof=1) * np.sqrt(len(by_gene)))
                # What one gene alone gains is its own standard error, but for rounding.
                factor *= 1.0 - (error / gain) ** 2 if gain > error * (1.0 + _ROUNDING) else 0.0
            found.append(factor)
        return found[DONOR], found[ACCEPTOR]


def _gains(
    log_base: NDArray[np.floating], log_p: NDArray[np.floating], labels: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Log-likelihood of each class's corrections times each of `FACTORS`, less the base's: `mixed`, summed, (2, F)."""
    base = np.ascontiguousarray(log_base.T.astype(np.float64))
    change = np.ascontiguousarray(log_p.T) - base
    out = np.zeros((NEITHER, len(FACTORS)))
    for site_class, other in ((DONOR, ACCEPTOR), (ACCEPTOR, DONOR)):
        correction = change[site_class] - change[NEITHER]
        at_sites = correction[labels == site_class].sum()
        others = np.logaddexp(base[other], base[NEITHER])
        for number, factor in enumerate(FACTORS):
            normaliser = np.logaddexp(others, base[site_class] + factor * correction)
            out[site_class, number] = factor * at_sites - normaliser.sum()
    return out
