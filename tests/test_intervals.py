"""Intervals over gene clusters: how often they are wrong about equals, what they draw as one, what they can show."""

import numpy as np
import pytest
from scored_genes import make_genes

from metalayer.evaluation.counts import SiteScores, counted
from metalayer.evaluation.gate import decide
from metalayer.evaluation.intervals import MIN_CLUSTERS, Resamples
from metalayer.evaluation.metrics import TARGETS, GeneScores, ranking
from metalayer.evaluation.ranks import ClusterRanks, Reached
from metalayer.evaluation.report import compare_champion, evaluate
from metalayer.evaluation.sample import Sample
from metalayer.evaluation.tables import report_table, resolution_note
from metalayer.gene_groups import related, united
from metalayer.genome import Gene
from metalayer.metric_list import UNBOUNDED
from metalayer.schema import ACCEPTOR, DONOR, NEITHER
from metalayer.settings.sections import EvaluateConfig, GateConfig

DRAWS = EvaluateConfig(n_bootstrap=100)


def paired_genes(rng, n_genes):
    """Genes of two systems that differ by gene: heavy-tailed numbers of sites, hard negatives, genes of all kinds."""
    genes = []
    for g in range(n_genes):
        sites = rng.geometric(1 / (1 + np.exp(rng.normal(1.0, 1.0))), 2).clip(1, 60)
        hard = rng.poisson(3 * sites.sum())
        labels = np.repeat([DONOR, ACCEPTOR, NEITHER], [*sites, hard]).astype(np.uint8)
        # Log-odds of the class of the site; a hard negative is hard for one class.
        kind = np.where(labels == NEITHER, rng.integers(0, 2, len(labels)), labels)
        easy = rng.normal(0, 0.8)
        odds = np.where(labels == NEITHER, rng.normal(-1.5, 1.5, len(labels)), rng.normal(3 + easy, 2, len(labels)))
        better = 0.5 * rng.standard_t(3)
        sense = np.where(labels == NEITHER, -1, 1)
        scores = {}
        for system, shift in (("base", 0.0), ("meta", better * sense + rng.normal(0, 0.7, len(labels)))):
            p = np.full((len(labels), 3), 0.001)
            p[np.arange(len(labels)), kind] = 0.99 / (1 + np.exp(-np.round(odds + shift, 1)))
            p[:, NEITHER] = 1 - p[:, DONOR] - p[:, ACCEPTOR]
            scores[system] = p.astype(np.float32)
        genes.append(GeneScores(f"G{g}", "1", labels, scores))
    return genes


def swapped_differences(genes, target, weights, swaps):
    """AP of meta less that of base, (S, R), where base and meta of the genes of a swap (S, C) have changed places."""
    sites, n = SiteScores.read(genes, Sample.of(genes, ["base", "meta"]), ["base", "meta"]), len(genes)
    thresholds = np.unique(np.concatenate([sites.thresholds(system, target) for system in ("base", "meta")]))
    ranks = ClusterRanks(len(thresholds), 2 * n, 2 * n)
    order = sorted(range(n), key=lambda i: genes[i].gene_id)  # as clusters are numbered
    for first, system in ((0, "base"), (n, "meta")):
        for cluster, i in enumerate(order):
            ranks.add(
                first + cluster, Reached.of(thresholds, *ranking(genes[i].labels, genes[i].scores[system], target))
            )
    counts = ranks.counts()

    def ap(of_base, of_meta):
        chosen = np.concatenate([part[:, None] * weights for part in (of_base, of_meta)], axis=2)
        return counts.evaluate(chosen.reshape(-1, 2 * n), np.zeros(2 * n))["ap"].reshape(len(swaps), -1)

    return ap(swaps, 1 - swaps) - ap(1 - swaps, swaps)


def equals(n_genes, n_datasets, n_swaps, seed):
    """Resamples and differences (S, 1 + B) of systems that are equal: which is base and which meta, a coin decides."""
    rng = np.random.default_rng([seed, n_genes])
    for _ in range(n_datasets):
        genes = paired_genes(rng, n_genes)
        resamples = Resamples.of(Sample.of(genes, ["base", "meta"]), DRAWS)
        half = rng.integers(0, 2, (n_swaps // 2, n_genes)).astype(float)
        for target in TARGETS:
            yield resamples, swapped_differences(genes, target, resamples.weights, np.concatenate([half, 1 - half]))


def passes(resamples, difference):
    low = resamples.estimate(difference, 0.95, -1.0)["low"]
    return low is not None and low > GateConfig().min_gain


@pytest.mark.parametrize("n_genes", [2, 3, 4, 5, 6, 8, 10, 15, 20, 25, 30, 40])
def test_an_equal_model_is_called_better_in_at_most_4_percent_of_cases(n_genes):
    called = [
        passes(resamples, difference)
        for resamples, differences in equals(n_genes, 8 if n_genes > 10 else 24, 18 if n_genes > 10 else 6, seed=1)
        for difference in differences
    ]
    assert len(called) >= 400
    assert np.mean(called) <= 0.04
    assert (n_genes >= MIN_CLUSTERS) == any(called)  # the rule can be passed where there is an interval


def test_percentiles_would_call_it_better_more_often():
    """The simulation can tell: the interval that was used before fails it."""
    called = [
        np.percentile(difference[1:], 2.5) > GateConfig().min_gain
        for _, differences in equals(5, 24, 6, seed=1)
        for difference in differences
    ]
    assert np.mean(called) > 0.04


@pytest.mark.parametrize(("n_genes", "wider"), [(40, 1.15), (80, 1.1)])
def test_with_many_clusters_intervals_are_as_narrow_as_percentiles(n_genes, wider):
    widths = []
    for resamples, differences in equals(n_genes, 4, 2, seed=2):
        for difference in differences:
            one = resamples.estimate(difference, 0.95, -1.0)
            widths.append((one["high"] - one["low"]) / np.ptp(np.percentile(difference[1:], [2.5, 97.5])))
    assert 0.95 < np.median(widths) < wider


def test_a_real_gain_passes_with_few_clusters():
    found = evaluate(make_genes(n_genes=MIN_CLUSTERS, gain=2.0), DRAWS)["difference"]["pr_auc_splice"]
    assert 0 < found["low"] < found["value"] < found["high"] <= 1


@pytest.mark.parametrize(("n_genes", "confidence", "t"), [(5, 0.95, 2.7764), (12, 0.95, 2.2010), (12, 0.99, 3.1058)])
def test_an_interval_is_students_around_the_value(n_genes, confidence, t):
    genes = make_genes(n_genes=n_genes)
    sample, counts = counted(genes, ["base", "meta"])
    resamples = Resamples.of(sample, DRAWS)
    drawn = [counts[who].metric_values(resamples.weights, ())["ap_donor"] for who in ("meta", "base")]
    error = np.std((drawn[0] - drawn[1])[1:]) * np.sqrt(n_genes / (n_genes - 1))
    config = EvaluateConfig(n_bootstrap=100, confidence=confidence)
    found = evaluate(genes, config)["difference"]["ap_donor"]
    assert found["high"] - found["value"] == pytest.approx(t * error, rel=1e-4)
    assert found["value"] - found["low"] == pytest.approx(t * error, rel=1e-4)


def test_bounds_stay_where_the_metric_can_be():
    genes = make_genes(n_genes=6, sites=2, gain=-2.0)
    report = evaluate(genes, EvaluateConfig(n_bootstrap=100, confidence=0.9999))
    intervals = report["intervals"]["base"]
    bounds = np.array(list(intervals.values()))
    assert bounds.min() >= 0
    assert max(high for metric, (_, high) in intervals.items() if metric not in UNBOUNDED) == 1
    assert intervals["log_loss_per_site"][1] > 1


def test_a_wider_confidence_may_be_asked_of_the_champion():
    genes = make_genes(systems=("champion", "meta"))
    usual, wide = (compare_champion(genes, DRAWS, confidence=c)["difference"]["ap_donor"] for c in (None, 0.999))
    assert wide["value"] == usual["value"]
    assert wide["low"] < usual["low"] < usual["high"] < wide["high"]


def test_what_is_not_defined_in_a_resample_has_no_interval():
    resamples = Resamples.of(Sample.of(make_genes(), ["base"]), DRAWS)
    values = np.full(101, 0.5)
    values[7] = np.nan
    assert resamples.estimate(values, 0.95, 0.0) == {"value": 0.5, "low": None, "high": None}


def silent(gene):
    """The same gene without a site."""
    return GeneScores(gene.gene_id, gene.chrom, np.full_like(gene.labels, NEITHER), gene.scores)


@pytest.mark.parametrize("with_sites", [1, MIN_CLUSTERS - 1, MIN_CLUSTERS])
def test_clusters_without_sites_do_not_count(with_sites):
    genes = [gene if i < with_sites else silent(gene) for i, gene in enumerate(make_genes(n_genes=12))]
    report = evaluate(genes, DRAWS)
    assert report["clusters"] == 12
    assert report["clusters_with"] == {"donor": with_sites, "acceptor": with_sites}
    low = report["difference"]["pr_auc_splice"]["low"]
    reasons = {one.rule: one for one in decide({"primary": "positions", "positions": report}, GateConfig()).reasons}
    better = reasons["better_than_base:pr_auc_splice"]
    if with_sites >= MIN_CLUSTERS:
        assert low is not None
        return
    assert low is None
    assert not better.passed
    needed = f"at least {MIN_CLUSTERS} clusters of genes with donors and {MIN_CLUSTERS} with acceptors"
    assert f"{needed}; there are {with_sites} and {with_sites}" in better.text
    assert needed in report_table(report)


def test_the_champions_rule_says_it_too():
    genes = make_genes(n_genes=3, systems=("champion", "meta"))
    champion = {"scored": True, "version": "1"} | compare_champion(genes, DRAWS)
    reason = decide({"champion": champion}, GateConfig()).reasons[-1]
    assert not reason.passed
    assert "there are 3 and 3" in reason.text


def placed(genes, *places):
    """Genes with places (start, end, strand, paralog group), as long as their labels or not."""
    out = []
    for gene, (start, end, strand, paralogs) in zip(genes, places, strict=True):
        place = Gene.from_table(gene.gene_id, gene.chrom, strand, start, end, paralog_group=paralogs)
        out.append(GeneScores(gene.gene_id, gene.chrom, gene.labels, gene.scores, place))
    return out


def test_genes_that_overlap_or_are_paralogs_are_drawn_as_one():
    # G0, G3 and G6 are on chromosome 1, G1, G4 and G7 on 2, G2 and G5 on X.
    genes = placed(
        make_genes(n_genes=8, length=300),
        (1, 300, "+", None),
        (1, 300, "+", "A"),  # same numbers, another chromosome
        (1, 300, "+", "A"),  # a paralog of the last
        (300, 599, "-", None),  # overlaps G0 by one base, on the other strand
        (301, 600, "+", None),  # beside G1, not over it
        (5001, 5300, "+", None),
        (600, 899, "-", None),  # beside G3
        (601, 900, "+", "A"),
    )
    sample = Sample.of(genes, ["base", "meta"])
    assert (sample.genes, len(sample.sizes)) == (8, 5)
    numbers = sample.clusters
    assert numbers[0] == numbers[3]
    assert numbers[1] == numbers[2] == numbers[7]
    assert len(set(numbers)) == 5
    report = evaluate(genes, DRAWS)
    assert (report["genes"], report["clusters"]) == (8, 5)
    assert report["resolution"]["pr_auc_splice"]["smallest_gain"] > 0
    assert "8 held-out genes in 5 clusters" in report_table(report)
    linked = evaluate(genes, DRAWS, related_genes=[["G0", "elsewhere"], ["elsewhere", "G5"]])
    assert linked["clusters"] == 4
    assert linked["difference"]["ap_donor"]["low"] is None


def test_places_of_other_genome_builds_are_not_compared():
    first, second = placed(make_genes(n_genes=2), (1, 300, "+", None), (100, 399, "+", None))
    second = GeneScores(second.gene_id, "1", second.labels, second.scores, second.gene, genome_build="hg38")
    same = GeneScores(second.gene_id, "1", second.labels, second.scores, Gene("G1", first.gene.interval, "-"))
    assert len(Sample.of([first, second], ["base"]).sizes) == 2
    assert len(Sample.of([first, same], ["base"]).sizes) == 1


def test_groups_are_those_of_chains_in_any_order():
    rng = np.random.default_rng(0)
    for _ in range(20):
        genes = [
            Gene.from_table(f"G{i}", str(rng.integers(1, 3)), "+-"[i % 2], start, start + rng.integers(0, 40))
            for i, start in enumerate(rng.integers(1, 400, 20))
        ]
        reached = {gene.gene_id: {gene.gene_id} for gene in genes}
        for one in genes:
            for other in genes:
                if one.interval.overlaps(other.interval):
                    joined = reached[one.gene_id] | reached[other.gene_id]
                    for gene_id in joined:
                        reached[gene_id] = joined
        expected = {frozenset(group) for group in reached.values()}
        for _ in range(2):
            rng.shuffle(genes)
            ids = [gene.gene_id for gene in genes]
            assert {frozenset(group) for group in united(ids, related(genes))} == expected


def test_a_report_says_what_gain_its_genes_could_show():
    """In the resamples of so many clusters, the smallest gain passes about as often as is said."""
    report = evaluate(make_genes(n_genes=20, sites=3, gain=0.2), EvaluateConfig(n_bootstrap=1000))
    found = report["resolution"]["pr_auc_splice"]
    t = 2.0930  # of 19 degrees of freedom, 97.5 %
    rng = np.random.default_rng(0)
    errors = found["standard_error"] * np.sqrt(rng.chisquare(19, 100_000) / 19)
    values = rng.normal(found["smallest_gain"], found["standard_error"], 100_000)
    assert np.mean(values - t * errors > 0) == pytest.approx(report["resolution"]["power"], abs=0.03)
    note = resolution_note(report)
    assert f"{found['smallest_gain']:+.4f} or more in 80 % of cases" in note
    assert note in report_table(report)
    # As many clusters as are needed for the stated gain would show it.
    stated, needed = report["resolution"]["stated_gain"], found["clusters_for_stated_gain"]
    assert needed > 20
    assert (2.0 + 0.84) * found["standard_error"] * np.sqrt(20 / needed) == pytest.approx(stated, rel=0.05)


def test_a_gain_that_is_not_shown_comes_with_what_could_be():
    report = evaluate(make_genes(n_genes=8, gain=0.0), DRAWS)
    text = next(
        one.text for one in decide({"primary": "rows", "rows": report}, GateConfig()).reasons if "better" in one.rule
    )
    assert resolution_note(report) in text
