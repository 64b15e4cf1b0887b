"""Metrics against scikit-learn, and the bootstrap against brute force."""

from fractions import Fraction

import numpy as np
import pytest
from scored_genes import make_genes
from sklearn.metrics import average_precision_score

from metalayer.errors import EvaluationError
from metalayer.evaluation.counts import counted
from metalayer.evaluation.intervals import Resamples
from metalayer.evaluation.metrics import GeneScores, average_precision
from metalayer.evaluation.report import compare_champion, evaluate
from metalayer.evaluation.sample import Sample
from metalayer.evaluation.tables import comparison_table
from metalayer.metric_list import JUDGED, METRICS, VALIDATION_METRICS
from metalayer.schema import ACCEPTOR, DONOR, NEITHER
from metalayer.settings.sections import EvaluateConfig

QUICK = EvaluateConfig(n_bootstrap=200, top_k_values=(3, 50))


def pooled_arrays(genes, system):
    return np.concatenate([g.labels for g in genes]), np.concatenate([g.scores[system] for g in genes])


def top_k(positive, score, k, draws=0):
    """Share of true among the k highest; a tie at the edge gives its expected share."""
    k = min(k, len(score))
    edge = np.sort(score)[::-1][k - 1]
    above, tied = score > edge, score == edge
    return (positive[above].sum() + (k - above.sum()) * positive[tied].mean()) / k


def precision_at_recall(positive, score, percent):
    """Precision at the highest score that finds so many of the true ones, all of its tie called."""
    for threshold in sorted(set(score.tolist()), reverse=True):
        called = score >= threshold
        if Fraction(int(positive[called].sum()), int(positive.sum())) >= Fraction(percent, 100):
            return positive[called].mean()
    raise AssertionError


def false_per_million(positive, score, percent):
    """False calls at the same score."""
    for threshold in sorted(set(score.tolist()), reverse=True):
        called = score >= threshold
        if Fraction(int(positive[called].sum()), int(positive.sum())) >= Fraction(percent, 100):
            return 1e6 * (called & ~positive).sum() / len(score)
    raise AssertionError


def expected_ece(site, p):
    bins = np.minimum((np.round(p, 6) * 15).astype(int), 14)
    return sum(abs(p[bins == b].sum() - site[bins == b].sum()) for b in range(15)) / len(p)


def brute_force(genes, system, top_k_values):
    """Every metric by scikit-learn and plain sorting."""
    labels, p = pooled_arrays(genes, system)
    splice = p[:, DONOR].astype(np.float64) + p[:, ACCEPTOR]
    out = {"pr_auc_splice": average_precision_score(labels != NEITHER, splice)}
    for percent in (90, 95):
        out[f"precision_at_recall{percent}_splice"] = precision_at_recall(labels != NEITHER, splice, percent)
    for c, name in ((DONOR, "donor"), (ACCEPTOR, "acceptor")):
        true, score = labels == c, p[:, c].astype(np.float64)
        out[f"ap_{name}"] = average_precision_score(true, score)
        out[f"topk_{name}"] = top_k(true, score, true.sum())
        for percent in (90, 95):
            out[f"precision_at_recall{percent}_{name}"] = precision_at_recall(true, score, percent)
            out[f"false_per_mb_at_recall{percent}_{name}"] = false_per_million(true, score, percent)
        for k in top_k_values:
            out[f"top{k}_acc_{name}"] = top_k(true, score, k)
    out["ap_splice"] = (out["ap_donor"] + out["ap_acceptor"]) / 2
    out["ece"] = expected_ece(labels != NEITHER, splice)
    losses = -np.log(np.maximum(p[np.arange(len(p)), labels].astype(np.float64), 1e-10))
    out |= {"log_loss": losses.mean(), "log_loss_per_site": losses.sum() / (labels != NEITHER).sum()}
    return out


@pytest.mark.parametrize("decimals", [None, 3, 1, 0])
def test_every_metric_equals_scikit_learn_and_plain_sorting_on_ties_too(decimals):
    genes = make_genes(decimals=decimals)
    report = evaluate(genes, QUICK)
    for system in ("base", "meta"):
        assert report[system] == pytest.approx(brute_force(genes, system, QUICK.top_k_values), abs=1e-9)


def test_every_metric_is_listed_once_or_left_out_by_name():
    sample, counts = counted(make_genes(), ["base"])
    values = counts["base"].metric_values(np.ones((1, len(sample.sizes))), QUICK.top_k_values)
    # Shares from 0 to 1 that no table shows.
    left_out = {"ap_splice", *(f"top{k}_acc_{name}" for k in QUICK.top_k_values for name in ("donor", "acceptor"))}
    assert sorted(values) == sorted([*left_out, *(metric.name for metric in METRICS)])
    assert len({metric.title for metric in METRICS}) == len(METRICS)
    assert {*VALIDATION_METRICS} == {*JUDGED, "ap_splice", "loss"}


@pytest.mark.parametrize("decimals", [None, 1])
def test_average_precision_with_weights_equals_scikit_learn(decimals):
    labels, p = pooled_arrays(make_genes(decimals=decimals), "base")
    weights = np.random.default_rng(1).uniform(0, 5, len(labels))
    weights[:100] = 0
    expected = average_precision_score(labels == DONOR, p[:, DONOR], sample_weight=weights)
    assert average_precision(labels == DONOR, p[:, DONOR], weights) == pytest.approx(expected, abs=1e-9)


def test_average_precision_ignores_the_highest_scores_where_they_weigh_nothing():
    found = average_precision(np.array([False, True]), np.array([0.9, 0.5]), np.array([0.0, 1.0]))
    assert found == 1.0


@pytest.mark.parametrize("decimals", [None, 1])
def test_a_resample_equals_the_same_genes_literally_repeated(decimals):
    genes = make_genes(n_genes=6, length=120, sites=3, decimals=decimals)
    sample, counts = counted(genes, ["base", "meta"])
    weights = Resamples.of(sample, EvaluateConfig(n_bootstrap=100, seed=5)).weights[1:16]
    assert weights.max() > 1
    assert (weights == 0).any()
    found = counts["meta"].metric_values(weights, (3, 50))
    for b, row in enumerate(weights.astype(int)):
        repeated = [gene for gene, times in zip(genes, row, strict=True) for _ in range(times)]
        expected = brute_force(repeated, "meta", (3, 50))
        assert {name: values[b] for name, values in found.items()} == pytest.approx(expected, abs=1e-9)


def test_intervals_hold_the_value():
    report = evaluate(make_genes(), QUICK)
    for system in ("base", "meta"):
        for metric in ("ap_donor", "pr_auc_splice", "topk_acceptor"):
            low, high = report["intervals"][system][metric]
            assert low < report[system][metric] < high
    assert report["difference"]["ap_donor"]["low"] > 0  # planted


def test_identical_systems_differ_by_exactly_nothing():
    report = evaluate(make_genes(gain=0.0), QUICK)
    for difference in report["difference"].values():
        assert difference == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others():
    genes = make_genes()
    first, again, other = (evaluate(genes, EvaluateConfig(n_bootstrap=100, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first["intervals"] != other["intervals"]


def test_the_paired_interval_covers_the_true_difference():
    config = EvaluateConfig(n_bootstrap=200, top_k_values=(10,))
    truth = evaluate(make_genes(n_genes=1500, length=60, sites=2, gain=0.5), EvaluateConfig(n_bootstrap=100))
    true_difference = truth["difference"]["pr_auc_splice"]["value"]
    covered = 0
    for seed in range(1, 61):
        found = evaluate(make_genes(n_genes=30, length=60, sites=2, gain=0.5, seed=seed), config)["difference"]
        covered += found["pr_auc_splice"]["low"] <= true_difference <= found["pr_auc_splice"]["high"]
    assert covered >= 51  # of 60 at 95 %; the chance of fewer is below 0.1 %


def test_resamples_always_hold_both_site_classes():
    genes = make_genes(n_genes=40)
    quiet = [
        GeneScores(g.gene_id, g.chrom, np.full_like(g.labels, NEITHER) if i > 4 else g.labels, g.scores)
        for i, g in enumerate(genes)
    ]
    sample = Sample.of(quiet, ["base"])
    weights = Resamples.of(sample, EvaluateConfig(n_bootstrap=2000)).weights
    assert len(weights) == 2001
    assert (weights.sum(axis=1) == 40).all()
    assert (sample.sites_by_cluster() @ weights.T > 0).all()


def test_sites_in_a_single_gene_give_no_interval_rather_than_one_without_width():
    report = evaluate(make_genes(n_genes=1), QUICK)
    assert report["intervals"]["meta"]["ap_donor"] == [None, None]
    assert report["difference"]["ap_donor"]["low"] is None
    assert "no interval" in comparison_table({"primary": "positions", "positions": report})


def test_report_counts_confusion_and_chromosomes():
    genes = make_genes()
    report = evaluate(genes, QUICK, unit="rows")
    labels, p = pooled_arrays(genes, "meta")
    assert (report["unit"], report["genes"], report["positions"]) == ("rows", 12, len(labels))
    assert report["sites"] == {"donor": 96, "acceptor": 96}
    assert np.sum(report["confusion"]["meta"]) == len(labels)
    assert report["confusion"]["meta"][DONOR][NEITHER] == int(((labels == DONOR) & (p.argmax(1) == NEITHER)).sum())
    assert list(report["by_chromosome"]) == ["1", "2", "X"]
    here = [gene for gene in genes if gene.chrom == "X"]
    expected = brute_force(here, "meta", ())
    for metric in ("pr_auc_splice", "ap_donor", "ap_acceptor"):
        assert report["by_chromosome"]["X"]["meta"][metric] == pytest.approx(expected[metric], abs=1e-9)


def test_curves_end_at_full_recall_and_bins_hold_all_positions():
    genes = make_genes(n_genes=40, sites=10)
    report = evaluate(genes, EvaluateConfig(n_bootstrap=100))
    curve = report["curves"]["meta"]["donor"]
    assert len(curve["recall"]) == len(curve["precision"]) <= 300
    assert curve["recall"][-1] == 1.0
    assert curve["recall"] == sorted(curve["recall"])
    assert sum(one["count"] for one in report["curves"]["meta"]["reliability"]) == report["positions"]


def test_champion_is_compared_on_the_same_resamples():
    genes = make_genes(systems=("champion", "meta"))
    found = compare_champion(genes, QUICK)
    expected = evaluate(genes, QUICK, reference="champion")
    for metric in ("pr_auc_splice", "ap_donor", "ap_acceptor"):
        assert found["difference"][metric] == pytest.approx(expected["difference"][metric])
        assert found["champion"][metric] == expected["champion"][metric]


def test_a_champion_that_saw_every_test_gene_cannot_be_compared_with():
    with pytest.raises(EvaluationError, match=r"every test gene.*split\.test_chroms"):
        compare_champion([], QUICK)


def one_gene(labels, p, gene_id="G"):
    p = np.asarray(p, dtype=np.float32)
    return GeneScores(gene_id, "1", np.asarray(labels, dtype=np.uint8), {"base": p, "meta": p})


GOOD = [[0.5, 0.2, 0.3], [0.1, 0.6, 0.3], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("labels", "changed", "message"),
    [
        ([0, 1, 2], [np.nan, 0.0, 1.0], "base: 1 of 3 rows have probabilities that are NaN"),
        ([0, 1, 2], [1.2, 0.0, 0.0], r"outside \[0, 1\]"),
        ([0, 1, 2], [-0.1, 0.1, 1.0], r"outside \[0, 1\]"),
        ([0, 2, 2], [0.0, 0.0, 1.0], "no acceptor"),
        ([2, 1, 2], [0.0, 0.0, 1.0], "no donor"),
    ],
)
def test_what_is_no_probability_or_has_no_site_is_an_error_not_a_number(labels, changed, message):
    with pytest.raises(EvaluationError, match=message):
        evaluate([one_gene(labels, [*GOOD[:2], changed])], QUICK)


def test_genes_that_do_not_belong_together_are_errors():
    good = one_gene([0, 1, 2], GOOD)
    with pytest.raises(EvaluationError, match="no gene"):
        evaluate([], QUICK)
    with pytest.raises(EvaluationError, match="G is there more than once"):
        evaluate([good, good], QUICK)
    with pytest.raises(EvaluationError, match="gene G has no scores of meta"):
        evaluate([GeneScores("G", "1", good.labels, {"base": good.scores["base"]})], QUICK)
    with pytest.raises(EvaluationError, match=r"shape \(3, 3\), expected \(2, 3\)"):
        evaluate([one_gene([0, 1], GOOD)], QUICK)


def test_average_precision_refuses_nan_and_no_positive():
    with pytest.raises(EvaluationError, match="NaN"):
        average_precision(np.array([True]), np.array([np.nan]))
    with pytest.raises(EvaluationError, match="at least one positive"):
        average_precision(np.array([False]), np.array([0.5]))
