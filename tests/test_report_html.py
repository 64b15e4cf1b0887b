"""The page and the table: whole, escaped, and loading nothing."""

from dataclasses import replace
from html.parser import HTMLParser

import pytest
from scored_genes import make_genes

from metalayer.evaluation.gate import decide
from metalayer.evaluation.html import write_report
from metalayer.evaluation.report import compare_champion, evaluate
from metalayer.evaluation.tables import comparison_rows, comparison_table
from metalayer.genome import Gene
from metalayer.settings.run import RunConfig
from metalayer.settings.sections import EvaluateConfig, GateConfig

EVIL = '<script>alert("x")</script>&'
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """Checks nesting, and collects tags, addresses and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], set(), [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.addresses += [value for name, value in attrs if name in ("href", "src", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def evaluation():
    config = EvaluateConfig(n_bootstrap=100)
    genes = [
        replace(
            gene,
            gene=Gene.from_table(gene.gene_id, gene.chrom, "+-"[i % 2], 1000 * i + 1, 1000 * i + len(gene.labels)),
            paralog=i % 2,
            genome_build=EVIL,
        )
        for i, gene in enumerate(make_genes(systems=("champion", "base", "meta", "uncalibrated")))
    ]
    return {
        "primary": "positions",
        "positions": evaluate(genes, config),
        "rows": evaluate(genes, config, unit="rows"),
        "row_answers": evaluate(genes, config),
        "ways": {way: {"note": EVIL, "own_calibration": True} for way in ("positions", "rows")},
        "champion": {"scored": True, "error": None, "version": "2", "genes": 12} | compare_champion(genes, config),
    }


def part(n):
    return {
        "genes": [f"G{i}" for i in range(n)],
        "rows": 10 * n,
        "classes": {"donor": n, "acceptor": n, "neither": 8 * n},
        "chromosomes": ["1", "X"],
    }


def write(path, evaluation, **changes):
    facts = {
        "manifest": {"by": "gene", "checks": {"genes_crossing": 0}}
        | {name: part(3) for name in ("train", "valid", "test")},
        "load_report": {"base_model": EVIL, "dropped": {EVIL: 3}, "files": [{"path": EVIL, "rows": 7}]},
        "run": {
            "config": RunConfig().model_dump(mode="json"),
            "git_commit": EVIL,
            "loss": float("nan"),
            "genes": [1] * 99,
        },
        "drift_html": "drift.html",
    }
    decision = decide(evaluation, GateConfig())
    write_report(path, evaluation=evaluation, decision=decision, **(facts | changes))
    return path.read_text("utf-8"), decision


def test_the_page_parses_escapes_everything_and_loads_nothing(evaluation, tmp_path):
    text, _ = write(tmp_path / "new" / "report.html", evaluation)
    page = Page(text)
    assert "<script" not in text
    assert page.text.count(EVIL) >= 4
    assert not page.tags & {"script", "link", "img", "iframe", "object", "image"}
    assert {address for address in page.addresses if not address.startswith("#")} == {"drift.html"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_the_page_says_verdict_reasons_and_both_tables(evaluation, tmp_path):
    text, decision = write(tmp_path / "report.html", evaluation)
    page = Page(text)
    assert decision.promoted
    assert "promoted" in page.text
    for reason in decision.reasons:
        assert reason.text in page.text
    for title in (
        "Base against meta",
        "Artifact rows",
        "Answers to rows",
        "Calibration",
        "slope of log-odds",
        "Errors fixed and made",
        "Split",
        "Against the champion",
        "The run",
    ):
        assert title in page.text
    assert text.count("<svg") == 3


def test_the_page_shows_ten_errors_of_each_list_with_their_places(evaluation, tmp_path):
    report = evaluation["positions"]
    assert "Errors made" not in Page(write(tmp_path / "report.html", evaluation)[0]).text  # there are none
    errors = report["errors"] | {"made": report["errors"]["fixed"]}
    page = Page(write(tmp_path / "report.html", {**evaluation, "positions": report | {"errors": errors}})[0])
    for key in ("fixed", "made"):
        total, listed = errors[key]["total"], errors[key]["list"]
        assert f"Errors {key}, {min(10, total)} of {total}" in page.text
        for one in listed[:10]:
            assert f"{one['chrom']}:{one['position']:,} ({one['strand']}) {EVIL}" in page.text
    assert len(errors["fixed"]["list"]) > 10


def test_the_page_and_the_table_show_the_comparison_in_parts(evaluation, tmp_path):
    report = evaluation["positions"]
    shown = (Page(write(tmp_path / "report.html", evaluation)[0]).text, comparison_table(evaluation))
    for text in shown:
        for group in (
            "with paralogs",
            "without paralogs",
            "0.001 to 0.01",
            "0.9 to 1",
            "donors called falsely",
            "intercept of log-odds",
        ):
            assert group in text
        assert "intercept of log-odds" in text
    assert shown[1].count("\n\n") == 6
    unknown = {**evaluation, "positions": report | {"by_paralog": {"-1": report["by_paralog"]["1"]}}}
    assert "not known" not in Page(write(tmp_path / "report.html", unknown)[0]).text + comparison_table(unknown)


def test_a_rejected_run_without_tracks_or_champion_has_its_page_too(evaluation, tmp_path):
    rows_only = {
        "primary": "rows",
        "positions": None,
        "rows": evaluate(make_genes(gain=0.0), EvaluateConfig(n_bootstrap=100), unit="rows"),
        "ways": {way: {"note": "all is read", "own_calibration": False} for way in ("positions", "rows")},
        "champion": {"scored": False, "error": EVIL},
    }
    text, decision = write(tmp_path / "report.html", rows_only, drift_html=None)
    page = Page(text)
    assert not decision.promoted
    assert "2 of 6 rules failed" in page.text
    assert f"could not be scored: {EVIL}" in page.text
    assert "drift.html" not in text


def test_a_page_without_intervals_is_written(tmp_path):
    report = evaluate(make_genes(n_genes=1), EvaluateConfig(n_bootstrap=100))
    text, _ = write(
        tmp_path / "report.html", {"primary": "positions", "positions": report, "rows": None, "champion": None}
    )
    assert "no interval" in Page(text).text


def test_the_table_has_every_metric_with_its_interval(evaluation):
    rows = comparison_rows(evaluation["positions"])
    assert [row[0] for row in rows] == [
        *("metric", "PR-AUC splice", "donor AP", "acceptor AP", "top-k donor", "top-k acceptor"),
        *(f"{target} P at recall 0.{r}" for r in (90, 95) for target in ("splice", "donor", "acceptor")),
        *("ECE", "ECE before calibration", "log loss", "log loss per site"),
    ]
    text = comparison_table(evaluation)
    difference = evaluation["positions"]["difference"]["ap_donor"]
    assert f"{difference['value']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})" in text
    assert "96 donors and 96 acceptors" in text
