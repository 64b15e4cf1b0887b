"""Errors fixed and made on planted examples, and the comparison in parts against plain counting."""

import json
import math

import numpy as np
import pytest
from scored_genes import make_genes

from metalayer.evaluation import calls as module
from metalayer.evaluation.breakdown import SCORE_BIN_EDGES
from metalayer.evaluation.counts import TopScores
from metalayer.evaluation.metrics import GeneScores
from metalayer.evaluation.report import evaluate
from metalayer.genome import Gene
from metalayer.schema import ACCEPTOR, DONOR, NEITHER
from metalayer.settings.sections import EvaluateConfig

QUICK = EvaluateConfig(n_bootstrap=100, top_k_values=(3,))
LENGTH = 50


def planted(gene_id, strand, scores, sites, start=1001, **facts):
    """A gene of 50 nt with `sites` (index to class) whose systems score what `scores` says, else 0.01."""
    labels = np.full(LENGTH, NEITHER, dtype=np.uint8)
    for at, kind in sites.items():
        labels[at] = kind
    systems = {}
    for system, given in scores.items():
        p = np.full((LENGTH, 3), 0.01, dtype=np.float32)
        for (at, kind), value in given.items():
            p[at, kind] = value
        p[:, NEITHER] = 1 - p[:, DONOR] - p[:, ACCEPTOR]
        systems[system] = p
    gene = Gene.from_table(gene_id, "3", strand, start, start + LENGTH - 1)
    return GeneScores(gene_id, "3", labels, systems, gene, **facts)


@pytest.fixture
def two_genes():
    """On +: meta finds the donor that the base misses. On -: it leaves an acceptor for a false one."""
    sites = {10: DONOR, 20: ACCEPTOR}
    right = {(10, DONOR): 0.9, (20, ACCEPTOR): 0.9}
    plus = {"base": {(10, DONOR): 0.1, (20, ACCEPTOR): 0.9, (15, DONOR): 0.6}, "meta": right | {(15, DONOR): 0.4}}
    minus = {"base": right, "meta": {(10, DONOR): 0.9, (20, ACCEPTOR): 0.3, (22, ACCEPTOR): 0.8}}
    return [
        planted("P", "+", plus, sites, paralog=1),
        planted("M", "-", minus, sites, paralog=0, genome_build="GRCh37"),
    ]


def test_errors_stand_at_their_genomic_places_on_both_strands(two_genes):
    errors = evaluate(two_genes, QUICK)["errors"]
    assert errors["base"]["donor"] == {"threshold": pytest.approx(0.6), "calls": 2, "missed": 1, "false_calls": 1}
    assert errors["base"]["acceptor"] == {"threshold": pytest.approx(0.9), "calls": 2, "missed": 0, "false_calls": 0}
    fixed, made = errors["fixed"], errors["made"]
    nothing = {"missed": 0, "false_calls": 0}
    assert (fixed["total"], fixed["donor"], fixed["acceptor"]) == (2, {"missed": 1, "false_calls": 1}, nothing)
    assert (made["total"], made["donor"], made["acceptor"]) == (2, nothing, {"missed": 1, "false_calls": 1})
    place = {"gene_id": "P", "chrom": "3", "strand": "+"}
    assert fixed["list"] == [
        place | {"position": 1011, "class": "donor", "error": "missed"} | near(0.1, 0.9),
        place | {"position": 1016, "class": "donor", "error": "false call"} | near(0.6, 0.4),
    ]
    # Gene M ends at 1050, which is its index 0.
    place = {"gene_id": "M", "chrom": "3", "strand": "-", "genome_build": "GRCh37"}
    assert made["list"] == [
        place | {"position": 1028, "class": "acceptor", "error": "false call"} | near(0.01, 0.8),
        place | {"position": 1030, "class": "acceptor", "error": "missed"} | near(0.9, 0.3),
    ]


def near(base, meta):
    return {"base": pytest.approx(base), "meta": pytest.approx(meta)}


def test_errors_of_the_base_less_those_fixed_and_with_those_made_are_metas():
    genes = make_genes(seed=3, gain=0.4)
    for gene in genes[:4]:
        gene.scores["base"], gene.scores["meta"] = gene.scores["meta"], gene.scores["base"]
    errors = evaluate(genes, QUICK)["errors"]
    assert errors["fixed"]["total"] > errors["made"]["total"] > 0
    for name in ("donor", "acceptor"):
        for kind in ("missed", "false_calls"):
            left = errors["base"][name][kind] - errors["fixed"][name][kind] + errors["made"][name][kind]
            assert left == errors["meta"][name][kind]
    assert "list" not in errors["fixed"]  # no places are known


def test_long_lists_are_cut_to_the_largest_changes_and_the_totals_stay(monkeypatch):
    monkeypatch.setattr(module, "LISTED", 5)
    genes = make_genes(seed=3, gain=0.4)
    placed = [
        GeneScores(
            g.gene_id,
            g.chrom,
            g.labels,
            g.scores,
            Gene.from_table(g.gene_id, f"{g.chrom}-{g.gene_id}", "+", 1, len(g.labels)),
        )
        for g in genes
    ]
    errors = evaluate(placed, QUICK)["errors"]
    assert errors["listed_at_most"] == len(errors["fixed"]["list"]) == 5
    assert errors["fixed"]["total"] > 5

    def change(one):
        odds = [math.log(one[system] / (1 - one[system])) for system in ("base", "meta")]
        return abs(odds[1] - odds[0])

    changes = [change(one) for one in errors["fixed"]["list"]]
    assert changes == sorted(changes, reverse=True)
    first = next(gene for gene in placed if gene.gene_id == errors["fixed"]["list"][0]["gene_id"])
    assert first.scores["meta"][errors["fixed"]["list"][0]["position"] - 1].max() > 0.1


@pytest.mark.parametrize(
    ("score", "sites", "threshold", "called"),
    [
        ([0.9, 0.8, 0.7, 0.1], 2, 0.8, 2),
        ([0.9, 0.8, 0.8, 0.1], 2, 0.9, 1),  # as near without the tie: not called
        ([0.9, 0.8, 0.8, 0.1], 3, 0.8, 3),
        ([0.9, 0.8, 0.8, 0.8, 0.8], 4, 0.8, 5),  # one too many is nearer than three too few
        ([0.5, 0.5, 0.5, 0.5, 0.5], 2, None, 0),
        ([1.0, 1.0, 1.0], 3, 1.0, 3),
    ],
)
def test_a_tie_at_the_threshold_is_called_whole_or_not_at_all(score, sites, threshold, called):
    for cut in range(len(score)):  # in whatever parts they come
        top = TopScores(sites)
        for part in (score[:cut], score[cut:]):
            top.add(np.array(part))
        found = top.threshold()
        assert (found, sum(found is not None and one >= found for one in score)) == (threshold, called)


def test_a_system_that_tells_nothing_calls_nothing():
    genes = make_genes()
    flat = [
        GeneScores(g.gene_id, g.chrom, g.labels, g.scores | {"base": np.full_like(g.scores["base"], 1 / 3)})
        for g in genes
    ]
    report = evaluate(flat, QUICK)
    assert report["errors"]["base"]["donor"] == {"threshold": None, "calls": 0, "missed": 96, "false_calls": 0}
    json.dumps(report, allow_nan=False)


def test_by_paralog_flag(two_genes):
    unknown = planted("U", "+", {"base": {}, "meta": {}}, {}, start=3001)
    report = evaluate([*two_genes, unknown], QUICK)["by_paralog"]
    assert list(report) == ["0", "1", "-1"]
    assert [report[flag]["genes"] for flag in report] == [1, 1, 1]
    assert report["1"]["sites"] == {"donor": 1, "acceptor": 1}
    false_calls = {f"false_per_mb_at_recall{r}_{name}": 0.0 for r in (90, 95) for name in ("donor", "acceptor")}
    false_calls |= dict.fromkeys(
        [name for name in false_calls if name.endswith("donor")], 1e6 / report["1"]["positions"]
    )
    expected = {"pr_auc_splice": pytest.approx((1 + 2 / 3) / 2), "ap_donor": 0.5, "ap_acceptor": 1.0}
    assert report["1"]["base"] == expected | false_calls
    assert report["0"]["meta"]["ap_acceptor"] == 0.5
    assert "meta" not in report["-1"]  # no site: no average precision


def test_by_base_score_counts_every_position_once():
    genes = make_genes(seed=4, gain=0.4, decimals=3)  # some scores lie on an edge of the bins
    report = evaluate(genes, QUICK)
    bins, errors = report["by_base_score"], report["errors"]
    base, meta = (np.concatenate([g.scores[system] for g in genes]) for system in ("base", "meta"))
    labels = np.concatenate([g.labels for g in genes])
    larger = base[:, :2].max(axis=1)
    assert len(bins) == len(SCORE_BIN_EDGES) + 1
    for one in bins:
        here = (larger >= one["low"]) & ((larger < one["high"]) | (one["high"] == 1.0))
        assert one["positions"] == here.sum()
        assert one["sites"] == {"donor": (labels[here] == DONOR).sum(), "acceptor": (labels[here] == ACCEPTOR).sum()}
        for system, p in (("base", base), ("meta", meta)):
            assert one[system]["expected_sites"] == pytest.approx(p[here, :2].sum(), rel=1e-5)
            gap = p[here, :2].sum(axis=1).mean() - (labels[here] != NEITHER).mean() if here.any() else None
            assert one[system]["calibration_gap"] == (gap if gap is None else pytest.approx(gap, abs=1e-6))
    for system in ("base", "meta"):
        for kind in ("missed", "false_calls"):
            total = sum(errors[system][name][kind] for name in ("donor", "acceptor"))
            assert sum(one[system][kind] for one in bins) == total


def test_copies_of_a_gene_are_one_gene_that_is_drawn_together():
    genes = make_genes(n_genes=8)
    copies = [
        GeneScores(g.gene_id, g.chrom, g.labels, g.scores, genome_build=build)
        for build in ("GRCh37", "GRCh38")
        for g in genes
    ]
    doubled, single = evaluate(copies, QUICK), evaluate(genes, QUICK)
    assert (doubled["genes"], doubled["positions"]) == (8, 2 * single["positions"])
    assert doubled["meta"]["ap_donor"] == pytest.approx(single["meta"]["ap_donor"])
    # Every position stands there twice, so no resample differs; as 16 genes, intervals would be narrower.
    for metric in ("ap_donor", "pr_auc_splice", "ece", "precision_at_recall90_splice"):
        assert doubled["intervals"]["meta"][metric] == pytest.approx(single["intervals"]["meta"][metric], abs=1e-9)
    assert doubled["by_chromosome"]["1"]["genes"] == single["by_chromosome"]["1"]["genes"]
