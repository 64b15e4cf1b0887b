"""The page and the table: whole, escaped, loading nothing, with the evaluation's figures, and readable anywhere."""

import html
import itertools
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from scored_genes import make_genes

from metalayer.evaluation import gene_drawing, plots
from metalayer.evaluation.gate import decide
from metalayer.evaluation.html import write_report
from metalayer.evaluation.report import compare_champion, evaluate
from metalayer.evaluation.tables import certainty_in_words, comparison_rows, comparison_table, in_words
from metalayer.genome import Gene
from metalayer.settings.run import RunConfig
from metalayer.settings.sections import EvaluateConfig, GateConfig

EVIL = '<script>alert("x")</script>&'
VOID = {"meta", "br", "hr", "img", "link", "input"}
CHROMIUM = shutil.which("chromium")
HISTORY = [
    {"epoch": i, "train_loss": 1 / i if i else None, "val_loss": 1.5 / (i + 1), "val_pr_auc_splice": 1 - 0.5 / (i + 1)}
    | {"val_ap_donor": 0.5, "val_ap_acceptor": 0.6, "learning_rate": 0.1}
    for i in range(4)
]
COMMANDS = [("Serve it & ask", "metalayer serve --model pwm")]


class Page(HTMLParser):
    """Checks nesting, and collects tags, addresses, ids, text, headings with their text, and tables as rows of text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.ids, self.text = [], set(), [], [], ""
        self.elements, self.headings, self.tables = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append((int(tag[1]), ""))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.elements.append((tag, dict(attrs)))
        self.addresses += [value for name, value in attrs if name in ("href", "src", "xlink:href")]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if self.open and re.fullmatch("h[1-6]", self.open[-1]):
            level, text = self.headings[-1]
            self.headings[-1] = (level, text + data)
        if {"th", "td"} & set(self.open):
            self.tables[-1][-1][-1] += data.strip()

    def table(self, *header):
        """Rows of the first table whose header begins so, without it."""
        return next(rows[1:] for rows in self.tables if rows[0][: len(header)] == list(header))


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
        "training": {"history": HISTORY, "best_epoch": 2},
        "commands": COMMANDS,
        "errors_file": "errors.tsv",
        "drift_html": "drift.html",
    }
    decision = decide(evaluation, GateConfig())
    write_report(path, evaluation=evaluation, decision=decision, **(facts | changes))
    return path.read_text("utf-8"), decision


@pytest.fixture(scope="module")
def written(evaluation, tmp_path_factory):
    """The page of the evaluation, its text and the decision."""
    path = tmp_path_factory.mktemp("page") / "new" / "report.html"
    return path, *write(path, evaluation)


def test_curves_of_the_page_are_drawn_once_and_those_of_another_report_anew(evaluation, tmp_path, monkeypatch):
    write(tmp_path / "report.html", evaluation)
    drawn = []
    monkeypatch.setattr(plots, "_svg", lambda _, name, __: drawn.append(name) or f"<svg {name}/>")
    report = evaluation["positions"]
    assert len(plots.as_files(report)) == 6
    assert drawn == []
    other = plots.as_files({**report, "base": {**report["base"], "ece": 0.5}})
    assert len(drawn) == 6
    assert all(text.endswith("/>") for text in other.values())


def test_the_page_parses_escapes_everything_and_loads_nothing(written):
    path, text, _ = written
    page = Page(text)
    assert "<script" not in text
    assert page.text.count(EVIL) >= 4
    assert not page.tags & {"script", "link", "img", "iframe", "object", "image"}
    assert {address for address in page.addresses if not address.startswith("#")} == {"drift.html", "errors.tsv"}
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]


def test_the_page_says_verdict_reasons_and_both_tables(evaluation, written):
    _, text, decision = written
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
    assert len([one for one in page.elements if one[0] == "figure"]) == page_figures(evaluation["positions"])


def page_figures(report):
    """Pieces of the gene, changes by gene, two learning curves, three of precision and recall, three of reliability."""
    return len(gene_drawing.pieces_of(report["drawn_gene"])) + 1 + 2 + 3 + 3


def test_the_page_is_in_the_order_in_which_it_is_asked_and_can_be_read_aloud(evaluation, written):
    page = Page(written[1])
    titles = [" ".join(text.split()) for _, text in page.headings]
    assert titles[0] == in_words(evaluation["positions"])
    first = ["The rules of the decision", "One gene: ", "Genes by gain and loss", "Learning curves", "What to do next"]
    found = [title for level, title in zip([one[0] for one in page.headings], titles, strict=True) if level == 2]
    assert [title[: len(one)] for title, one in zip(found, [*first, "Base against meta"], strict=False)] == [
        *first,
        "Base against meta",
    ]
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert len(page.ids) == len(set(page.ids))
    assert {one[1:] for one in page.addresses if one.startswith("#")} <= set(page.ids)
    drawn = [facts for tag, facts in page.elements if tag == "svg"]
    assert all(
        facts.get("aria-hidden") or (facts["role"], bool(facts["aria-label"])) == ("img", True) for facts in drawn
    )
    assert all(facts["scope"] in ("row", "col") for tag, facts in page.elements if tag == "th")
    for rows in page.tables:
        assert len({len(row) for row in rows}) == 1
    assert COMMANDS[0][0] in page.text and COMMANDS[0][1] in page.text


def test_the_figures_of_the_page_are_those_of_the_evaluation(evaluation, written):
    report, page = evaluation["positions"], Page(written[1])
    listed = report["by_gene"]["most_gained"]
    for row, gene in zip(page.table("gene", "place"), listed, strict=True):
        assert row[0] == gene["gene_id"]
        assert row[2:] == [
            str(n) for n in (sum(gene["sites"].values()), *(gene[key] for key in ("base", "meta", "fixed", "made")))
        ]
    drawn = report["drawn_gene"]
    for row, place in zip(page.table("position", "class"), drawn["places"], strict=True):
        assert row[:2] == [f"{place['position']:,}", place["class"]]
        assert row[3:5] == [f"{place[who]['probability']:.3f}" for who in ("base", "meta")]
        assert row[5:] == ["yes" if place[who]["called"] else "no" for who in ("base", "meta")]
    for row, gap in zip(page.table("metric", "base"), [report["difference"]["pr_auc_splice"]], strict=False):
        assert row[3] == f"{gap['value']:+.4f}({gap['low']:+.4f} to {gap['high']:+.4f})"
    errors = report["errors"]
    for row, (name, kind) in zip(
        page.table("errors at as many calls as sites"),
        [(name, kind) for name in ("donor", "acceptor") for kind in ("missed", "false_calls")],
        strict=True,
    ):
        assert row[1:] == [str(errors[column][name][kind]) for column in ("base", "meta", "fixed", "made")]
    kept = HISTORY[2]
    assert (
        f"at epoch 2, which was kept: training {kept['train_loss']:.4f}, validation {kept['val_loss']:.4f}."
        in page.text
    )


def test_the_rule_that_decided_comes_first(evaluation, written, tmp_path):
    champion = evaluation["champion"]
    worse = {name: gap | {"value": -0.2, "low": -0.3, "high": -0.1} for name, gap in champion["difference"].items()}
    beaten = {**evaluation, "champion": champion | {"difference": worse}}
    text, decision = write(tmp_path / "report.html", beaten)
    assert not decision.promoted
    assert "Why: worse than the champion, version 2: PR-AUC splice -0.2000." in " ".join(Page(text).text.split())
    rules = re.findall(r"<li class=\"(.+?)\"><b>.+?</b><span>(.+?)</span>", text)
    assert rules[0][0] == "failed decided"
    assert rules[0][1].startswith("PR-AUC splice is worse than that of the champion (version 2)")
    assert [kind for kind, _ in rules[1:]] == ["failed"] * 2 + ["passed"] * (len(rules) - 3)
    assert "Train on more genes or longer" in text
    text = written[1]
    assert "better than the base (PR-AUC splice" in text
    assert "it is not worse than the champion, version 2" in text
    assert re.search(r'"passed decided"><b>passed</b><span>PR-AUC splice is better', text)


def test_the_page_says_which_test_genes_the_base_was_trained_on(evaluation, written, tmp_path):
    seen = {"note": f"7 of 9 genes {EVIL}", "unseen_chroms": ["1"], "left_out": True}
    text, _ = write(tmp_path / "seen.html", evaluation | {"seen_by_base": seen})
    figures = html.unescape(text.split("<h2>Base against meta</h2>")[1].split("<table>")[0])
    assert f"Test genes: 7 of 9 genes {EVIL}; these are left out." in figures
    assert f"test genes: 7 of 9 genes {EVIL}; these are left out" in Page(text).text
    text, decision = write(tmp_path / "all.html", evaluation | {"seen_by_base": seen | {"left_out": False}})
    assert "Why: test genes are not held out of the base: 7 of 9 genes" in Page(text).text
    assert not decision.promoted
    assert "Test genes: " not in written[1]


def test_several_base_models_and_principal_transcripts_have_their_tables(evaluation, tmp_path):
    report = evaluation["positions"]
    joined = report | {"differences": {"mean": report["difference"]}, "mean": report["base"]}
    principal = {"principal_labels": report | {"genes": 11}}
    text, _ = write(tmp_path / "joined.html", evaluation | {"positions": joined} | principal)
    page, shown = Page(text), comparison_table(evaluation | {"positions": joined} | principal)
    row = page.table("beside")[0]
    assert row[0] == "untrained mean of all"
    assert row[1] == f"{report['base']['ap_donor']:.4f}"
    assert "Sites of principal transcripts" in page.text
    assert "untrained mean of all" in shown
    assert "sites of principal transcripts, those of other isoforms alone not counted: 11 held-out genes" in shown
    text, _ = write(tmp_path / "one.html", evaluation | {"positions": report | {"differences": {}}})
    assert "joins several base models" not in text
    assert "Sites of principal transcripts" not in text


def test_the_page_shows_ten_errors_of_each_list_with_their_places(evaluation, written, tmp_path):
    report = evaluation["positions"]
    assert "Errors made" not in written[1]  # there are none
    errors = report["errors"] | {"made": report["errors"]["fixed"]}
    changed = report | {"errors": errors, "by_paralog": {"-1": report["by_paralog"]["1"]}}
    page = Page(write(tmp_path / "report.html", {**evaluation, "positions": changed})[0])
    assert "not known" not in page.text + comparison_table({**evaluation, "positions": changed})
    for key in ("fixed", "made"):
        total, listed = errors[key]["total"], errors[key]["list"]
        assert f"Errors {key}, {min(10, total)} of {total}" in page.text
        assert "errors.tsv" in page.text
        for one in listed[:10]:
            assert f"{one['chrom']}:{one['position']:,} ({one['strand']}) {EVIL}" in page.text
    assert len(errors["fixed"]["list"]) > 10


def test_the_page_and_the_table_show_the_comparison_in_parts(evaluation, written):
    shown = (Page(written[1]).text, comparison_table(evaluation))
    for text in shown:
        for group in (
            "with paralogs",
            "without paralogs",
            "0.001 to 0.01",
            "0.9 to 1",
            "donors called falsely",
            "donors, base below 0.5",
            "intercept of log-odds",
        ):
            assert group in text
        assert "intercept of log-odds" in text
    assert shown[1].count("\n\n") == 8  # one of them as the champion is among the systems here


def test_a_rejected_run_without_tracks_or_champion_has_its_page_too(evaluation, tmp_path):
    rows_only = {
        "primary": "rows",
        "positions": None,
        "rows": evaluate(make_genes(gain=0.0), EvaluateConfig(n_bootstrap=100), unit="rows"),
        "ways": {way: {"note": "all is read", "own_calibration": False} for way in ("positions", "rows")},
        "champion": {"scored": False, "error": EVIL},
    }
    text, decision = write(tmp_path / "report.html", rows_only, drift_html=None, training=None, errors_file=None)
    page = Page(text)
    assert not decision.promoted
    assert "2 of 6 rules failed" in page.text
    assert f"could not be scored: {EVIL}" in page.text
    assert "drift.html" not in text and "errors.tsv" not in text
    assert "Learning curves" not in text and "One gene" not in text


def test_a_page_without_intervals_is_written(tmp_path):
    report = evaluate(make_genes(n_genes=1), EvaluateConfig(n_bootstrap=100))
    text, _ = write(
        tmp_path / "report.html",
        {"primary": "positions", "positions": report, "rows": None, "champion": None},
        training={"history": HISTORY[:1], "best_epoch": 0},
    )
    assert "no interval" in Page(text).text
    assert "Whether this holds for other genes cannot be said" in text
    assert "No epoch of training" in text and "by epoch" not in text


def test_the_table_has_every_metric_with_its_interval(evaluation):
    rows = comparison_rows(evaluation["positions"])
    assert [row[0] for row in rows] == [
        *("metric", "PR-AUC splice", "donor AP", "acceptor AP", "top-k donor", "top-k acceptor"),
        *(f"{target} P at recall 0.{r}" for r in (90, 95) for target in ("splice", "donor", "acceptor")),
        *(f"false {name}s per Mb, recall 0.{r}" for r in (90, 95) for name in ("donor", "acceptor")),
        *("ECE", "ECE before calibration", "log loss", "log loss per site"),
    ]
    text = comparison_table(evaluation)
    difference = evaluation["positions"]["difference"]["ap_donor"]
    assert f"{difference['value']:+.4f} ({difference['low']:+.4f} to {difference['high']:+.4f})" in text
    assert "96 donors and 96 acceptors" in text


def test_the_page_opens_with_what_was_found(evaluation):
    report = evaluation["positions"]
    found, sites = report["same_precision"]["donor"], report["sites"]
    sentence = in_words(report)
    assert sentence.startswith("In 12 genes that were not trained on, the model finds ")
    gain = found["meta"] - found["base"]
    assert gain > 0
    precision = f"at the same precision ({100 * found['precision']:.1f} % of the calls right)"
    assert (
        f"{found['meta']:,} of the {sites['donor']:,} donors, {gain:,} more than the base {precision}, and " in sentence
    )

    def with_found(**of_donors):
        return {**report, "same_precision": report["same_precision"] | {"donor": found | of_donors}}

    assert f"{found['base']:,} of the {sites['donor']:,} donors, as many as the base at" in in_words(
        with_found(meta=found["base"])
    )
    assert f"donors, {gain:,} fewer than the base at" in in_words(with_found(meta=found["base"], base=found["meta"]))
    none = {**report, "same_precision": {"donor": None, "acceptor": None}}
    top = round(report["meta"]["topk_donor"] * sites["donor"])
    assert f"{top} of the 96 donors among its 96 highest scores, where the base has none" in in_words(none)
    assert "in artifact rows, a sample" in in_words({**report, "unit": "rows"})
    assert in_words({**report, "genes": 1}).startswith("In 1 gene that was not trained on")


def test_the_page_says_whether_the_difference_is_shown(evaluation):
    report = evaluation["positions"]
    assert certainty_in_words(report).startswith("Over all thresholds, PR-AUC rises by 0.")

    def with_gap(value, low, high):
        return {**report, "difference": {"pr_auc_splice": {"value": value, "low": low, "high": high}}}

    assert certainty_in_words(with_gap(-0.02, -0.03, -0.01)) == (
        "Over all thresholds, PR-AUC falls by 0.0200 (95 % interval for other genes -0.0300 to -0.0100)."
    )
    assert certainty_in_words(with_gap(0.002, -0.001, 0.005)).endswith("-0.0010 to +0.0050): no difference is shown.")
    few = with_gap(0.2, None, None) | {"clusters_with": {"donor": 3, "acceptor": 4}}
    assert "there are 3 and 4: test on more genes." in certainty_in_words(few)


def test_the_page_names_no_folder_of_the_machine(evaluation, tmp_path):
    facts = {"base_model": "pwm", "directory": "/home/somebody/data/own", "listed": ["/srv/a.parquet"]}
    champion = {"scored": False, "error": "cannot read /home/somebody/model.json: damaged"}
    compared = {**evaluation, "champion": champion}
    page = Page(write(tmp_path / "report.html", compared, load_report=facts, run={"at": "/srv/x"})[0])
    assert "own" in page.text and "a.parquet" in page.text
    assert "cannot read model.json: damaged" in page.text
    assert "somebody" not in page.text and "/srv" not in page.text


def measured(page, width, folder):
    """What lies beyond the right edge of a page in a browser of this width: elements, and how wide it is."""
    frame = folder / "frame.html"
    frame.write_text(
        f"""<iframe id=f src="{page.as_uri()}" style="border:0;width:{width}px;height:900px"></iframe><script>
        document.getElementById("f").onload = (event) => {{
          const page = event.target.contentDocument, outside = [];
          for (const one of page.querySelectorAll("details")) one.open = true;
          for (const one of page.querySelectorAll("main *:not(svg *)")) {{
            const box = one.getBoundingClientRect();
            if (box.width && box.right > {width} && !one.closest("thead")) outside.push(one.outerHTML);
          }}
          const found = JSON.stringify([page.documentElement.scrollWidth, page.querySelectorAll("td").length, outside]);
          document.body.replaceChildren("found" + found + "end");
        }};</script>"""
    )
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--allow-file-access-from-files",
        "--hide-scrollbars",
    ]
    options += [
        f"--user-data-dir={folder / 'profile'}",
        "--virtual-time-budget=20000",
        "--window-size=1400,900",
        "--dump-dom",
    ]
    done = subprocess.run([CHROMIUM, *options, frame.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return json.loads(html.unescape(done.stdout.partition("found")[2].partition("end")[0]))


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_no_column_is_cut_off_in_a_browser(written, tmp_path):
    for width in (390, 1280):
        wide, cells, outside = measured(written[0], width, tmp_path)
        assert cells > 300
        assert (wide, outside) == (width, [])
