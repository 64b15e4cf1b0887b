"""Calibration: three numbers that make probabilities mean what they say.

softmax(scale * log p + bias), fitted by maximum likelihood on validation genes; the neither class is
the reference, its bias is 0. The negative log-likelihood is convex in these three numbers. They are held
near doing nothing by a normal prior: a few validation genes have too few sites to say otherwise, many do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import t as student_t

from metalayer.errors import EvaluationError
from metalayer.evaluation.metrics import check_probabilities
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER

PROBABILITY_FLOOR = 1e-10
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
        logits = self.scale * _log(probabilities) + np.array(self.bias)
        out: NDArray[np.float64] = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
        return out


def fit(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], weights: NDArray[np.floating] | None = None
) -> Calibration:
    """Fit on validation data.

    Args:
        probabilities: (n, 3).
        labels: (n,).
        weights: (n,), how many positions each stands for; None weighs all alike.

    Returns:
        The calibration; the identity, with a reason, where a class is absent or nothing is gained.

    Raises:
        EvaluationError: probabilities that are none, or weights that are negative or not finite.
    """
    check_probabilities(probabilities, "calibration")
    weight = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    if not (np.isfinite(weight) & (weight >= 0.0)).all():
        raise EvaluationError("calibration: weights must be finite and not negative")
    for site_class in (DONOR, ACCEPTOR):
        if not weight[labels == site_class].any():
            return Calibration(reason=f"no {CLASSES[site_class]} to fit on")
    log_p = _log(probabilities)
    total = weight.sum()
    weight = weight / total
    middle = np.array([1.0, 0.0, 0.0])
    precision = np.array([_PRIOR_SCALE**-2, _PRIOR_BIAS**-2, _PRIOR_BIAS**-2]) / total
    one_hot = np.eye(3)[labels.astype(np.intp)]

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = parameters[0] * log_p
        logits[:, :NEITHER] += parameters[1:]
        normaliser = logsumexp(logits, axis=1)
        error = (np.exp(logits - normaliser[:, None]) - one_hot) * weight[:, None]
        gradient = np.array([(error * log_p).sum(), error[:, DONOR].sum(), error[:, ACCEPTOR].sum()])
        value = (weight * (normaliser - (logits * one_hot).sum(axis=1))).sum()
        off = parameters - middle
        return float(value + 0.5 * (precision * off**2).sum()), gradient + precision * off

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
    if not np.isfinite(found.x).all() or loss(found.x)[0] >= before:
        return Calibration(reason="nothing to gain on the validation genes")
    return Calibration(float(found.x[0]), (float(found.x[1]), float(found.x[2]), 0.0))


def beyond_chance(
    calibration: Calibration,
    probabilities: NDArray[np.floating],
    labels: NDArray[np.integer],
    genes: NDArray[np.integer],
) -> bool:
    """Whether genes show that a calibration which was fitted on them helps on others.

    Its gain in log-likelihood, less what fitting three numbers gains by itself (3, as in AIC), is larger than its
    standard error over genes times Student's t at 99 %: genes of one stretch of a chromosome have more, or fewer,
    sites a kilobase than others have, and a bias fitted on few of them is theirs. Of one gene nothing is shown.

    Args:
        calibration: fitted on these genes.
        probabilities: (n, 3), before it.
        labels: (n,).
        genes: int (n,), numbers of the genes from 0.
    """
    count = int(genes.max()) + 1
    if count < 2:
        return False
    at, truth = np.arange(len(labels)), labels.astype(np.intp)
    gain = np.log(calibration.apply(probabilities)[at, truth]) - _log(probabilities)[at, truth]
    by_gene = np.bincount(genes, gain, minlength=count)
    error = by_gene.std(ddof=1) * np.sqrt(count)
    return bool(by_gene.sum() - 3.0 > error * student_t.ppf(_SURE, count - 1))


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


def shrinkage_factors(
    log_base: NDArray[np.floating],
    log_p: NDArray[np.floating],
    labels: NDArray[np.integer],
    genes: NDArray[np.integer],
) -> tuple[float, float]:
    """The shrinkage factors of a model's corrections of donors and of acceptors that validation genes support.

    A base with few errors teaches little, and what was learned from few sites may be too sure of itself. Of
    `FACTORS` it is the largest whose likelihood lies within the 95 % likelihood-ratio bound of the best, less what
    chance alone may have gained: times 1 - (standard error over genes / gain in log-likelihood)^2, as James and Stein
    shrink, and 0 where the gain is no larger. Each class is judged with the other as the base has it. Of one gene
    there is no standard error, and nothing is shrunk. Where the model corrects nothing they are 0.

    Args:
        log_base: (n, 3), of the base.
        log_p: (n, 3), of the model.
        labels: (n,).
        genes: int (n,), numbers of the genes from 0.

    Returns:
        Donor and acceptor.
    """
    changed = np.abs(log_p - log_base).max(axis=1) > _TELLING
    if not changed.any():  # of rounding alone, chance would choose
        return 0.0, 0.0
    near = (labels != NEITHER) | changed  # elsewhere nothing changes
    base, model, truth, gene = log_base[near], log_p[near], labels[near].astype(np.intp), genes[near]
    at, count = np.arange(len(truth)), int(genes.max()) + 1
    found = []
    for which in np.eye(2):
        losses = [-mixed(base, model, factor * which)[at, truth].sum() for factor in FACTORS]
        factor = float(FACTORS[np.flatnonzero(np.array(losses) <= min(losses) + _LIKELIHOOD_RATIO)[-1]])
        by_gene = np.bincount(gene, (mixed(base, model, factor * which) - base)[at, truth], minlength=count)
        if count > 1 and factor:
            gain, error = by_gene.sum(), by_gene.std(ddof=1) * np.sqrt(count)
            factor *= 1.0 - (error / gain) ** 2 if gain > error else 0.0
        found.append(factor)
    return found[DONOR], found[ACCEPTOR]


def _log(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.log(np.maximum(probabilities.astype(np.float32).astype(np.float64), PROBABILITY_FLOOR))
