"""Calibration metrics: they see what ECE does not, equal plain counting, and have intervals that hold the value."""

import json
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit
from scored_genes import make_genes

from metalayer.evaluation.metrics import GeneScores, splice_score
from metalayer.evaluation.reliability import LOG_EDGES
from metalayer.evaluation.report import evaluate
from metalayer.schema import ACCEPTOR, DONOR, NEITHER
from metalayer.settings.sections import EvaluateConfig

QUICK = EvaluateConfig(n_bootstrap=100)


def honest(
    n_genes: int = 30, length: int = 6000, sure: float = 1.0, off: float = 0.0, seed: int = 0
) -> list[GeneScores]:
    """Genes with few sites; `base` says how likely each is, `meta` with log-odds times `sure` and plus `off`."""
    rng = np.random.default_rng(seed)
    genes = []
    for number in range(n_genes):
        odds = np.where(rng.random(length) < 0.01, rng.normal(0, 2, length), rng.normal(-9, 1, length))
        site = rng.random(length) < expit(odds)
        kind = rng.integers(0, 2, length)
        scores = {}
        for name, said in (("base", odds), ("meta", sure * odds + off)):
            p = np.zeros((length, 3))
            p[np.arange(length), kind] = expit(said)
            p[:, NEITHER] = 1 - expit(said)
            scores[name] = p.astype(np.float32)
        labels = np.where(site, kind, NEITHER).astype(np.uint8)
        genes.append(GeneScores(f"G{number}", "1", labels, scores))
    return genes


def test_log_odds_that_are_too_sure_have_a_slope_below_1_where_ece_hardly_moves() -> None:
    report = evaluate(honest(sure=1.5), QUICK)
    found = report["calibration"]
    for system, slope in (("base", 1.0), ("meta", 1 / 1.5)):
        one = found[system]["slope"]
        assert one["low"] < slope < one["high"]
        assert one["high"] - one["low"] < 0.3
    assert abs(report["meta"]["ece"] - report["base"]["ece"]) < 0.001
    assert report["difference"]["log_loss_per_site"]["low"] > 0
    assert found["difference"]["brier"]["low"] > 0


def test_what_expects_too_many_sites_has_an_intercept_below_0() -> None:
    found = evaluate(honest(off=0.7), QUICK)["calibration"]
    for system, intercept in (("base", 0.0), ("meta", -0.7)):
        one = found[system]["intercept"]
        assert one["low"] < intercept < one["high"]


def test_slope_and_intercept_are_the_maximum_of_the_likelihood() -> None:
    genes = honest(n_genes=8, sure=1.3, off=-0.4)
    site = np.concatenate([gene.labels != NEITHER for gene in genes])
    score = np.concatenate([splice_score(gene.scores["meta"]) for gene in genes])
    odds = np.log(score) - np.log1p(-score)

    def loss(intercept: float, slope: float) -> float:
        said = intercept + slope * odds
        return float((np.logaddexp(0, said) - site * said).sum())

    both = minimize(lambda x: loss(*x), [0.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8})
    alone = minimize(lambda x: loss(x[0], 1.0), [0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8})
    found = evaluate(genes, QUICK)["calibration"]["meta"]
    assert found["slope"]["value"] == pytest.approx(both.x[1], abs=1e-3)  # log-odds are counted in bins
    assert found["intercept"]["value"] == pytest.approx(alone.x[0], abs=1e-3)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_bins_and_brier_are_those_of_plain_counting_in_float64(kind: type) -> None:
    rng = np.random.default_rng(3)
    genes = make_genes(decimals=2)
    for gene in genes:  # scores on the edges of bins, as the file says them
        at = rng.choice(len(gene.labels), 40, replace=False)
        for name, values in gene.scores.items():
            values[at[:20], DONOR], values[at[20:], DONOR] = 0.1, 0.01
            gene.scores[name] = values.astype(kind)
    found = evaluate(genes, QUICK)["calibration"]
    labels = np.concatenate([gene.labels for gene in genes])
    score = {
        name: sum(
            np.concatenate([gene.scores[name][:, c] for gene in genes]).astype(np.float32).astype(np.float64)
            for c in (DONOR, ACCEPTOR)
        )
        for name in ("base", "meta")
    }
    near = np.maximum(score["base"], score["meta"]) >= 0.01
    assert found["near"] == {"threshold": 0.01, "positions": near.sum()}
    edges = np.array([0.0, *LOG_EDGES, np.inf])
    for name, values in score.items():
        brier = ((values - (labels != NEITHER)) ** 2)[near].mean()
        assert found[name]["brier"]["value"] == pytest.approx(brier, abs=1e-12)
        bins = {one["low"]: one for one in found[name]["bins"]}
        for low, high in pairwise(edges):
            here = (values >= low) & (values < high)
            assert (low in bins) == here.any()
            if here.any():
                one = bins[low]
                assert (one["count"], one["sites"]) == (here.sum(), (labels[here] != NEITHER).sum())
                assert one["mean"] == pytest.approx(values[here].mean())
                assert one["observed"] == pytest.approx((labels[here] != NEITHER).mean())
                assert one["observed_low"] is None or one["observed_low"] <= one["observed"] <= one["observed_high"]


def test_sites_told_apart_without_error_have_no_slope_and_the_report_is_json() -> None:
    genes = make_genes()
    for gene in genes:
        gene.scores["meta"][:] = np.eye(3, dtype=np.float32)[gene.labels] * 0.9 + 0.1 / 3
    report = evaluate(genes, QUICK)
    assert report["calibration"]["meta"]["slope"] == {"value": None, "low": None, "high": None}
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("seed", range(5))
def test_the_interval_of_ece_holds_its_value_where_percentiles_lie_above(seed: int) -> None:
    """Noise can only raise ECE: its resamples lie above it."""
    from metalayer.evaluation.counts import counted
    from metalayer.evaluation.intervals import Resamples

    genes = honest(n_genes=20, length=400, seed=seed)
    sample, counts = counted(genes, ["base"])
    resamples = Resamples.of(sample, QUICK)
    drawn = counts["base"].metric_values(resamples.weights, ())["ece"]
    assert np.mean(drawn[1:] > drawn[0]) > 0.8
    low, high = evaluate(genes, QUICK)["intervals"]["base"]["ece"]
    assert low <= drawn[0] <= high
