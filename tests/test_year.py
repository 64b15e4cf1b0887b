"""A year of weekly retrainings, simulated, through the decision that the pipeline takes."""

import numpy as np
from scipy.special import stdtrit

from metalayer.evaluation.gate import decide
from metalayer.evaluation.looks import widened
from metalayer.settings.sections import GateConfig
from tests.test_gate import good

YEARS, WEEKS, CLUSTERS = 60, 52, 70
METRICS = ("ap_donor", "ap_acceptor", "pr_auc_splice")
SPREAD = 0.006
"""Standard deviation, over gene clusters, of how two trainings of one configuration differ in PR-AUC: a standard error
of .0007 with 70 clusters. At .010 no rule of this margin promotes equals often, and the gate asks for more genes."""
CORRELATION = 0.5
"""Of the differences in donor and in acceptor AP within a cluster."""


def noise(rng: np.random.Generator) -> np.ndarray:
    """What each week's model, and the first champion, is better by in each cluster, (WEEKS + 1, CLUSTERS, 3)."""
    shared, *own = rng.normal(0, SPREAD / np.sqrt(1 + CORRELATION), (3, WEEKS + 1, CLUSTERS))
    both = [np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * one for one in own]
    return np.stack([*both, sum(both) / 2], axis=-1)


def paired(ours: np.ndarray, theirs: np.ndarray, confidence: float) -> dict[str, dict[str, float]]:
    """Differences of (CLUSTERS, 3) with their intervals, as an evaluation states them."""
    difference = ours - theirs
    value = difference.mean(axis=0)
    error = difference.std(axis=0, ddof=1) / np.sqrt(CLUSTERS)
    reach = stdtrit(CLUSTERS - 1, (1 + confidence) / 2) * error
    return {
        metric: {"value": float(value[i]), "low": float(value[i] - reach[i]), "high": float(value[i] + reach[i])}
        for i, metric in enumerate(METRICS)
    }


def year(rng: np.random.Generator, loss: float) -> tuple[list[bool], float]:
    """Which weeks promoted, and the true quality of the champion at the end, where it began with 0.

    Args:
        rng: draws the noise.
        loss: by how much each retraining is truly worse than the champion that it would replace.
    """
    policy = GateConfig()
    seen = noise(rng)  # on the same test genes, week after week
    quality = [0.0]
    line, promoted = [0], []
    base = np.full((CLUSTERS, 3), -0.05)
    for week in range(1, WEEKS + 1):
        quality.append(quality[line[-1]] - loss)
        seen[week] += quality[week]
        best = max(line, key=lambda version: seen[version][:, 2].mean())
        confidence = widened(0.95, week)
        evaluation = good() | {"looks": {"decisions": week, "confidence": confidence}}
        evaluation["positions"]["difference"] |= paired(seen[week], base, confidence)
        for name, version in (("champion", line[-1]), ("best_champion", best)):
            difference = paired(seen[week], seen[version], 0.95)
            evaluation[name] = {"scored": True, "version": version, "compared": len(line), "difference": difference}
        promoted.append(decide(evaluation, policy).promoted)
        if promoted[-1]:
            line.append(week)
    return promoted, quality[line[-1]]


def test_a_year_of_equal_retrainings_goes_on_promoting() -> None:
    rng = np.random.default_rng(1)
    weeks = np.array([year(rng, 0.0)[0] for _ in range(YEARS)])
    assert weeks.mean() > 0.6
    assert weeks[:, -13:].mean() > 0.5
    assert weeks[:, 39:].any(axis=1).all()


def test_a_year_in_which_each_retraining_is_a_little_worse_ends_within_the_margin() -> None:
    rng = np.random.default_rng(2)
    ends = np.array([year(rng, 0.002)[1] for _ in range(YEARS)])
    assert (ends < -GateConfig().margin).mean() < 0.05
    assert ends.min() > -2 * GateConfig().margin
