"""Weak and alternative sites found at a precision, false calls per Mb, and both sets of labels."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metalayer import cli
from metalayer.evaluation.metrics import GeneScores
from metalayer.evaluation.report import evaluate
from metalayer.evaluation.scored_genes import PrincipalLabels
from metalayer.evaluation.tables import report_table
from metalayer.metric_list import METRICS
from metalayer.schema import CLASSES, NEITHER
from metalayer.settings.sections import EvaluateConfig
from tests.releases import make_bundle
from tests.scored_genes import make_genes

QUICK = EvaluateConfig(n_bootstrap=100)


def marked(genes: list[GeneScores], share: float = 0.3) -> list[GeneScores]:
    """Some of the sites of each gene are of other isoforms alone."""
    rng = np.random.default_rng(3)
    out = []
    for gene in genes:
        at = np.flatnonzero(gene.labels != NEITHER)
        out.append(replace(gene, alternative=np.sort(rng.choice(at, int(share * len(at)), replace=False))))
    return out


def pooled(genes: list[GeneScores], name: str) -> tuple[np.ndarray, ...]:
    """Whether positions are sites of a class, scores of base and meta, and whether they are alternative."""
    column = CLASSES.index(name)
    site = np.concatenate([gene.labels == column for gene in genes])
    alternative = np.concatenate([np.isin(np.arange(len(gene.labels)), gene.alternative) for gene in genes])
    scores = [np.concatenate([gene.scores[who][:, column] for gene in genes]) for who in ("base", "meta")]
    return site, *scores, alternative


def lowest_precise(site: np.ndarray, score: np.ndarray) -> float | None:
    """By trying each score of a site, from the lowest."""
    for threshold in np.unique(score[site]):
        if site[score >= threshold].mean() >= 0.95:
            return float(threshold)
    return None


@pytest.mark.parametrize("decimals", [None, 1])
def test_shares_equal_plain_counting(decimals: int | None) -> None:
    genes = marked(make_genes(decimals=decimals))
    found = evaluate(genes, QUICK)["site_recall"]
    assert (found["precision"], found["weak_below"]) == (0.95, 0.5)
    for name in CLASSES[:NEITHER]:
        site, base, meta, alternative = pooled(genes, name)
        groups = {"weak": site & (base < 0.5), "alternative": site & alternative}
        for kind, which in groups.items():
            assert found[kind][name]["sites"] == which.sum() > 0
            for who, score in (("base", base), ("meta", meta)):
                threshold = lowest_precise(site, score)
                assert found["threshold"][who][name] == threshold
                share = 0.0 if threshold is None else float((score[which] >= threshold).mean())
                assert found[kind][name][who]["value"] == pytest.approx(share, abs=1e-12)
            one = found[kind][name]
            gap = one["meta"]["value"] - one["base"]["value"]
            assert one["difference"]["value"] == pytest.approx(gap, abs=1e-12)
            assert one["meta"]["low"] <= one["meta"]["value"] <= one["meta"]["high"]
    assert found["weak"]["donor"]["difference"]["value"] > 0.1  # the candidate's signal is stronger by construction


def test_what_few_genes_and_no_marks_can_say() -> None:
    """No interval of few clusters with such sites, and nothing of sites that no file marks."""
    genes = make_genes()
    found = evaluate([*marked(genes[:3]), *genes[3:]], QUICK)["site_recall"]
    assert found["alternative"]["donor"]["base"]["low"] is None
    assert found["alternative"]["donor"]["base"]["value"] is not None
    report = evaluate(genes, QUICK)
    assert report["site_recall"]["alternative"] == {"donor": None, "acceptor": None}
    assert "other isoforms" not in report_table(report)
    json.dumps(report, allow_nan=False)


def test_a_base_that_is_never_so_precise_finds_none() -> None:
    """Each donor has a higher score beside it."""
    genes = []
    for gene in make_genes():
        scores = {who: values.copy() for who, values in gene.scores.items()}
        others = np.flatnonzero(gene.labels == NEITHER)[:10]
        scores["base"][others] = [0.999, 0.0, 0.001]
        genes.append(replace(gene, scores=scores))
    found = evaluate(genes, QUICK)["site_recall"]
    assert found["threshold"]["base"]["donor"] is None
    assert found["weak"]["donor"]["base"]["value"] == 0.0


def test_principal_labels_do_not_count_other_isoforms() -> None:
    genes = marked(make_genes())
    report = evaluate(PrincipalLabels(genes), QUICK)
    kept = []
    for gene in genes:
        rest = np.setdiff1d(np.arange(len(gene.labels)), gene.alternative)
        scores = {who: values[rest] for who, values in gene.scores.items()}
        kept.append(replace(gene, labels=gene.labels[rest], scores=scores, alternative=np.empty(0, np.int64)))
    plain = evaluate(kept, QUICK)
    assert report["positions"] == plain["positions"] < sum(len(gene.labels) for gene in genes)
    for key in ("sites", "base", "meta", "intervals", "difference"):
        assert report[key] == plain[key]
    assert report["overlaps"]["ignored"] == sum(len(gene.alternative) for gene in genes)


def test_rows_say_nothing_per_mb() -> None:
    """A sample of positions does not say how many would be called of a stretch of a gene."""
    rows = evaluate(make_genes(), QUICK, unit="rows")
    assert not [name for name in rows["base"] if "per_mb" in name]
    assert "per Mb" not in report_table(rows)
    assert [name for name in evaluate(make_genes(), QUICK)["base"] if "per_mb" in name]


def test_the_table_of_a_terminal_is_one_screen() -> None:
    genes = [replace(gene, paralog=i % 2) for i, gene in enumerate(marked(make_genes()))]
    text = report_table(evaluate(genes, QUICK))
    assert len(text.splitlines()) <= 50
    lines = text.splitlines()
    assert [line.split("  ")[0] for line in lines if "paralogs" in line] == ["without paralogs", "with paralogs"]
    shown = [metric.title for metric in METRICS if metric.in_terminal]
    assert all(any(line.startswith(title) for line in lines) for title in shown)


def test_the_command_reports_both_label_sets(
    simulation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a file that marks its sites; without marks there is one report."""
    source = pl.read_parquet(min(simulation.glob("nucleotide_scores/*.parquet")))
    site = pl.col("label").cast(pl.String) != "neither"
    number = site.cum_sum() % 4
    kind = pl.when(~site).then(pl.lit("none")).when(number == 0).then(pl.lit("alternative"))
    marks = source.with_columns(
        kind.otherwise(pl.lit("principal")).alias("site_kind"), site.cast(int).alias("transcripts")
    )
    model = make_bundle(tmp_path / "model")
    for name, frame in (("plain", source), ("marked", marks)):
        frame.write_parquet(tmp_path / f"{name}.parquet")
        arguments = ["evaluate", "--model", str(model), "--scores", str(tmp_path / f"{name}.parquet")]
        assert cli.main([*arguments, "--output", str(tmp_path / f"{name}.json"), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert out.count("those of other isoforms alone not counted") == 1
    plain, report = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("plain", "marked"))
    assert plain["principal_labels"] is None
    assert report["base"] == plain["base"]
    alternative = int((marks["site_kind"] == "alternative").sum())
    principal = report["principal_labels"]
    assert sum(report["sites"].values()) - sum(principal["sites"].values()) <= alternative
    assert principal["overlaps"]["ignored"] > 0
    found = report["site_recall"]["alternative"]
    assert sum(found[name]["sites"] for name in found) == sum(report["sites"].values()) - sum(
        principal["sites"].values()
    )
