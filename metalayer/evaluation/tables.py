"""Base against meta as tables, for a terminal and for a page."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from metalayer.evaluation.calls import SITE_CLASSES
from metalayer.evaluation.metrics import TARGETS, ap_name
from metalayer.metric_list import METRICS, Metric
from metalayer.schema import CLASSES

HEADER = ("metric", "base", "meta", "meta - base")
PARALOG_TITLES = {"1": "with paralogs", "0": "without paralogs", "-1": "not known"}
_SYSTEMS = ("base", "meta")
_LOG_BIN_HEADS = ("count", "mean", "share of sites")

Rows = list[list[str]]


def summary_table(evaluation: Mapping[str, Any], width: int = 100) -> str:
    """What a person needs of an evaluation: what it is of, base, meta and difference.

    Args:
        evaluation: of `workflows.evaluate`.
        width: columns at which text is wrapped; the table needs 80.
    """
    report = evaluation[evaluation["primary"]]
    texts = (_sample(report), "; ".join(_overlaps(report)), lacking_clusters(report))
    rows = [["metric", *_SYSTEMS, f"meta - base, {100 * report['confidence']:g} % interval over genes"]]
    for metric in METRICS:
        if metric.in_summary:
            form, gap = _form(metric), report["difference"][metric.name]
            values = [f"{report[who][metric.name]:{form}}" for who in _SYSTEMS]
            rows.append([metric.title, *values, with_interval(gap["value"], (gap["low"], gap["high"]), f"+{form}")])
    return "\n".join([*(textwrap.fill(text, width) for text in texts if text), "", *aligned(rows)])


def _form(metric: Metric) -> str:
    return f".{metric.decimals}f"


def comparison_rows(report: Mapping[str, Any]) -> Rows:
    """Metric, base, meta and paired difference of each metric, each with its interval; first the header."""
    return [list(HEADER), *(row for _, row in comparisons(report))]


def comparisons(report: Mapping[str, Any]) -> list[tuple[Metric | None, list[str]]]:
    """The rows below the header of `comparison_rows`, each after its metric; after None where it has no difference."""
    rows: list[tuple[Metric | None, list[str]]] = []
    for metric in METRICS:
        name, form = metric.name, _form(metric)
        both = [with_interval(report[who][name], report["intervals"][who][name], form) for who in _SYSTEMS]
        gap = report["difference"][name]
        difference = with_interval(gap["value"], (gap["low"], gap["high"]), f"+{form}")
        rows.append((metric, [metric.title, *both, difference]))
        if name == "ece" and "uncalibrated" in report:
            who = "uncalibrated"
            before = with_interval(report[who][name], report["intervals"][who][name], form)
            rows.append((None, ["ECE before calibration", "", before, ""]))
    return rows


def calibration_rows(report: Mapping[str, Any]) -> Rows:
    """Slope and intercept of the log-odds and the Brier score, by system; first the header."""
    found = report["calibration"]
    systems = [system for system in (*_SYSTEMS, "uncalibrated") if system in found]
    heads = [{"uncalibrated": "meta before calibration"}.get(system, system) for system in systems]
    rows = [["calibration", *heads]]
    titles = {
        "slope": "slope of log-odds (1)",
        "intercept": "intercept of log-odds (0)",
        "brier": f"Brier, base or meta from {found['near']['threshold']:g}",
    }
    for key, title in titles.items():
        form = ".4f" if key == "brier" else ".3f"
        rows.append([title, *(_or_undefined(found[system][key], form) for system in systems)])
    return rows


def log_bin_rows(report: Mapping[str, Any]) -> Rows:
    """Mean score and share of sites in the narrow bins, by system; first the header."""
    found = report["calibration"]
    rows = [["P(donor) + P(acceptor)", *(f"{head}, {who}" for who in _SYSTEMS for head in _LOG_BIN_HEADS)]]
    by_low = [{one["low"]: one for one in found[system]["bins"]} for system in _SYSTEMS]
    for low in sorted(set().union(*by_low)):
        bins = [bins.get(low) for bins in by_low]
        high = next(one["high"] for one in bins if one)
        cells = []
        for one in bins:
            if one is None:
                cells += ["0", "", ""]
                continue
            bounds = one["observed_low"], one["observed_high"]
            shares = with_interval(one["observed"], bounds, ".2g")
            cells += [f"{one['count']:,}", f"{one['mean']:.2g}", shares]
        rows.append([f"{low:.4g} to {high:.4g}", *cells])
    return rows


def _or_undefined(estimate: Mapping[str, float | None], form: str) -> str:
    value = estimate["value"]
    return "not defined" if value is None else with_interval(value, (estimate["low"], estimate["high"]), form)


def error_rows(report: Mapping[str, Any]) -> Rows:
    """Missed sites and false calls of each class, by system, and those fixed and made; first the header."""
    errors = report["errors"]
    rows = [["errors at as many calls as sites", *_SYSTEMS, "fixed", "made"]]
    for name in SITE_CLASSES:
        for kind, title in (("missed", f"{name}s missed"), ("false_calls", f"{name}s called falsely")):
            rows.append([title, *(f"{errors[column][name][kind]:,}" for column in (*_SYSTEMS, "fixed", "made"))])
    return rows


def group_rows(report: Mapping[str, Any], key: str, title: str) -> Rows:
    """Average precisions of the groups under `by_chromosome` or `by_paralog`; first the header."""
    heads = [f"{target}, {system}" for target in TARGETS for system in _SYSTEMS]
    rows = [[title, "genes", report["unit"], "donors", "acceptors", *heads]]
    for group, here in report[key].items():
        sizes = (here["genes"], here["positions"], *(here["sites"][name] for name in SITE_CLASSES))
        values = [here.get(system, {}).get(ap_name(target)) for target in TARGETS for system in _SYSTEMS]
        rows.append(
            [PARALOG_TITLES.get(group, group) if key == "by_paralog" else group]
            + [f"{size:,}" for size in sizes]
            + [_number(value) for value in values]
        )
    return rows


def confusion_rows(report: Mapping[str, Any], system: str) -> Rows:
    """Positions by true class (a row each) and most probable class of a system; first the header."""
    counts = zip(CLASSES, report["confusion"][system], strict=True)
    return [["true / called", *CLASSES], *([name, *(f"{n:,}" for n in numbers)] for name, numbers in counts)]


def champion_rows(champion: Mapping[str, Any]) -> Rows:
    """Metric, champion, candidate and paired difference with its interval; first the header."""
    rows = [["metric", "champion", "meta", "meta - champion"]]
    for metric in METRICS:
        if gap := champion["difference"].get(metric.name):
            both = [_number(champion[who].get(metric.name)) for who in ("champion", "meta")]
            rows.append([metric.title, *both, with_interval(gap["value"], (gap["low"], gap["high"]), "+.4f")])
    return rows


def split_rows(manifest: Mapping[str, Any]) -> Rows:
    """Genes, rows, rows of each class and chromosomes of the parts of a split; first the header."""
    rows = [["part", "genes", "rows", *CLASSES, "chromosomes"]]
    for part in ("train", "valid", "test"):
        here = manifest[part]
        sizes = (len(here["genes"]), here["rows"], *(here["classes"].get(name, 0) for name in CLASSES))
        rows.append([part, *(f"{size:,}" for size in sizes), ", ".join(here.get("chromosomes", ()))])
    return rows


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def base_score_rows(report: Mapping[str, Any]) -> Rows:
    """Sites, expected sites and errors by the larger score of the base; first the header."""
    kinds = (("expected_sites", "expected"), ("missed", "missed"), ("false_calls", "false calls"))
    heads = [f"{name}, {system}" for _, name in kinds for system in _SYSTEMS]
    rows = [["base score", report["unit"], "sites", *heads]]
    for one in report["by_base_score"]:
        cells = [
            f"{one[system][kind]:,.1f}" if kind == "expected_sites" else f"{one[system][kind]:,}"
            for kind, _ in kinds
            for system in _SYSTEMS
        ]
        title = f"{one['low']:g} to {one['high']:g}"
        rows.append([title, f"{one['positions']:,}", f"{sum(one['sites'].values()):,}", *cells])
    return rows


def caption(report: Mapping[str, Any]) -> str:
    """What the numbers are of."""
    intervals = f"{100 * report['confidence']:g} % intervals from {report['resamples']:,} resamples of clusters"
    return "; ".join([_sample(report), intervals, *_overlaps(report)])


def _sample(report: Mapping[str, Any]) -> str:
    unit = "all positions" if report["unit"] == "positions" else "artifact rows (a sample: not whole genes)"
    sites = report["sites"]
    return (
        f"{report['genes']} held-out genes in {report['clusters']} clusters, {unit}: {report['positions']:,} with "
        f"{sites['donor']:,} donors and {sites['acceptor']:,} acceptors"
    )


def _overlaps(report: Mapping[str, Any]) -> list[str]:
    """What of the positions does not count; nothing where all do."""
    found = report.get("overlaps", {"shared": 0, "contradicted": 0})
    parts = []
    if found["shared"]:
        parts.append(f"{found['shared']:,} positions of several genes counted once")
    if found["contradicted"]:
        parts.append(f"{found['contradicted']:,} left out because overlapping genes label them differently")
    return parts


def lacking_clusters(report: Mapping[str, Any]) -> str:
    """How many clusters an interval needs and how many there are, where they are too few; else nothing."""
    there, needed = report["clusters_with"], report["clusters_needed"]
    if min(there.values()) >= needed:
        return ""
    return (
        f"an interval needs at least {needed} clusters of genes with donors and {needed} with acceptors; there are "
        f"{there['donor']} and {there['acceptor']}: test on more genes"
    )


def resolution_note(report: Mapping[str, Any]) -> str:
    """What gain of splice PR-AUC the test genes could show at all, in one sentence."""
    if lacking := lacking_clusters(report):
        return lacking
    found = report["resolution"]
    gain, needed = found["pr_auc_splice"]["smallest_gain"], found["pr_auc_splice"]["clusters_for_stated_gain"]
    return (
        f"these {report['clusters']} clusters of genes show a true gain in PR-AUC splice of {gain:+.4f} or more in "
        f"{100 * found['power']:g} % of cases; a gain of {found['stated_gain']:+g} needs about {needed:,} clusters"
    )


def report_table(report: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """A report as aligned text: the comparison, the errors, and what they are by base score and paralog flag."""
    tables = [aligned(comparison_rows(report)), aligned(calibration_rows(report))]
    tables.append(aligned(error_rows(report), numbers=True))
    tables.append(aligned(base_score_rows(report), numbers=True))
    if set(report["by_paralog"]) != {"-1"}:
        tables.append(aligned(group_rows(report, "by_paralog", "average precision"), numbers=True))
    return "\n\n".join("\n".join(lines) for lines in ([caption(report), resolution_note(report), *notes], *tables))


def comparison_table(evaluation: Mapping[str, Any]) -> str:
    """The primary report of an evaluation as aligned text, then how rows are answered where that is otherwise."""
    note = untracked_note(evaluation)
    return "\n\n".join(
        [report_table(evaluation[evaluation["primary"]], [note] if note else []), *rows_table(evaluation)]
    )


def rows_table(evaluation: Mapping[str, Any]) -> list[str]:
    """Answers to rows compared with the base, as one aligned text; none where positions are answered likewise."""
    report = evaluation.get("row_answers")
    if not report:
        return []
    return [
        "\n".join(
            [
                f"single rows, as in artifact tables: {evaluation['ways']['rows']['note']}",
                caption(report),
                *aligned(comparison_rows(report)),
            ]
        )
    ]


def untracked_note(evaluation: Mapping[str, Any]) -> str:
    """What became of test genes without per-nucleotide scores, where others have them; else nothing."""
    without = evaluation.get("test_genes_without_tracks")
    if not without:
        return ""
    names = ", ".join(without[:5]) + (" ..." if len(without) > 5 else "")
    outcome = "left out" if evaluation["primary"] == "positions" else "too many to leave out, so rows are what counts"
    return f"{len(without)} of {evaluation['test_genes']} test genes have no per-nucleotide scores ({names}): {outcome}"


def builds_note(report: Mapping[str, Any]) -> str:
    """Which genome builds the score files are of, where there are several; else nothing."""
    builds, copies = report["genome_builds"], len(report["genes_in_several_builds"])
    if len(builds) < 2 and not copies:
        return ""
    named = ", ".join(build or "unnamed" for build in builds)
    return f"files of several genome builds ({named}); {copies} genes are in more than one and count as one gene"


def aligned(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> list[str]:
    """Rows as lines with aligned columns; `numbers` aligns all but the first column to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if numbers and i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def with_interval(value: float, interval: Sequence[float | None], form: str = ".4f") -> str:
    """A value with its interval, `0.8120 (0.7900 to 0.8330)`; an interval that is not there is called so."""
    low, high = interval
    bounds = "no interval" if low is None or high is None else f"{low:{form}} to {high:{form}}"
    return f"{value:{form}} ({bounds})"
