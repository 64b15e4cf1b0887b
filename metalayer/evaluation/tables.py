"""Base against meta as tables, for a terminal and for a page."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from metalayer.evaluation.calls import SITE_CLASSES
from metalayer.evaluation.metrics import TARGETS, ap_name
from metalayer.metric_list import METRICS, Metric
from metalayer.schema import CLASSES
from metalayer.words import count_of

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
    said = [*(textwrap.fill(text, width) for text in texts if text), "", *aligned(_summary_rows(report))]
    return "\n".join([*said, *(f"\n{table}" for table in beside_table(report))])


def principal_table(evaluation: Mapping[str, Any]) -> list[str]:
    """What of an evaluation a person needs with labels of principal transcripts, as one aligned text; none without."""
    principal = evaluation.get("principal_labels")
    if not principal:
        return []
    head = f"sites of principal transcripts, those of other isoforms alone not counted: {_sample(principal)}"
    return ["\n".join([head, *aligned(_summary_rows(principal))])]


def beside_table(report: Mapping[str, Any]) -> list[str]:
    """`beside_rows` as one aligned text; none of one base model."""
    rows = beside_rows(report)
    return ["\n".join(aligned(rows))] if rows else []


def beside_rows(report: Mapping[str, Any]) -> Rows:
    """Meta against each of several base models and their untrained mean, below a header; none of one base model."""
    if not report.get("differences"):
        return []
    names = {name: metric for name in ("donor", "acceptor") for metric in [ap_name(name)]}
    rows = [["beside", *(text for name in names for text in (f"{name} AP", "meta - it"))]]
    for system, gaps in report["differences"].items():
        row = [{"mean": "untrained mean of all"}.get(system, system.removeprefix("bases."))]
        for metric in names.values():
            gap = gaps[metric]
            row += [f"{report[system][metric]:.4f}", with_interval(gap["value"], (gap["low"], gap["high"]), "+.4f")]
        rows.append(row)
    return rows


def _summary_rows(report: Mapping[str, Any]) -> Rows:
    """Metric, base, meta and paired difference of the short table; first the header."""
    rows = [["metric", *_SYSTEMS, f"meta - base, {100 * report['confidence']:g} % interval over genes"]]
    for metric in METRICS:
        if metric.in_summary:
            form, gap = _form(metric), report["difference"][metric.name]
            values = [f"{report[who][metric.name]:{form}}" for who in _SYSTEMS]
            rows.append([metric.title, *values, with_interval(gap["value"], (gap["low"], gap["high"]), f"+{form}")])
    return rows


def in_words(report: Mapping[str, Any]) -> str:
    """The comparison in a sentence: how many of the sites either system finds at the same precision."""
    parts = []
    for name, n in report["sites"].items():
        found = report["same_precision"][name]
        if found is None:  # the base ranks no site among its highest scores, so it has no precision to keep
            meta = round(report["meta"][f"topk_{name}"] * n)
            parts.append(f"{meta:,} of the {n:,} {name}s among its {n:,} highest scores, where the base has none")
            continue
        base, meta = (found[who] for who in _SYSTEMS)
        more = f"{abs(meta - base):,} {'more' if meta > base else 'fewer'} than" if meta != base else "as many as"
        precision = f"{100 * found['precision']:.1f} % of the calls right"
        parts.append(f"{meta:,} of the {n:,} {name}s, {more} the base at the same precision ({precision})")
    rows = "" if report["unit"] == "positions" else " (in artifact rows, a sample of their positions)"
    genes = f"{report['genes']:,} {'gene that was' if report['genes'] == 1 else 'genes that were'} not trained on"
    return f"In {genes}{rows}, the model finds {', and '.join(parts)}."


def certainty_in_words(report: Mapping[str, Any]) -> str:
    """Whether the difference in PR-AUC splice is shown, in a sentence."""
    if lacking := lacking_clusters(report):
        return f"Whether this holds for other genes cannot be said: {lacking}."
    gap = report["difference"]["pr_auc_splice"]
    value, low, high = (gap[key] for key in ("value", "low", "high"))
    if low is None or high is None:
        return ""
    shown = f"{100 * report['confidence']:g} % interval for other genes {low:+.4f} to {high:+.4f}"
    if low <= 0 <= high:
        return f"Over all thresholds, PR-AUC changes by {value:+.4f} ({shown}): no difference is shown."
    return f"Over all thresholds, PR-AUC {'rises' if value > 0 else 'falls'} by {abs(value):.4f} ({shown})."


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
        if name not in report["difference"]:  # of rows
            continue
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


def site_recall_rows(report: Mapping[str, Any]) -> Rows:
    """Weak and alternative sites that each system finds where most of its calls are right; first the header."""
    found = report["site_recall"]
    rows = [[f"found with {100 * found['precision']:g} % of calls right", *HEADER[1:]]]
    titles = {"weak": f"base below {found['weak_below']:g}", "alternative": "other isoforms alone"}
    for kind, title in titles.items():
        for name in SITE_CLASSES:
            if one := found[kind][name]:
                cells = [
                    with_interval(one[who]["value"], (one[who]["low"], one[who]["high"]), ".3f") for who in _SYSTEMS
                ]
                gap = one["difference"]
                cells.append(with_interval(gap["value"], (gap["low"], gap["high"]), "+.3f"))
                rows.append([f"{one['sites']:,} {name}s, {title}", *cells])
    return rows


def listed_errors(errors: Sequence[Mapping[str, Any]]) -> Rows:
    """Errors with their genes and places; first the header."""
    rows = [["gene", "position", "error", *_SYSTEMS]]
    for one in errors:
        genes = ", ".join([one["gene_id"], *one.get("also_in", ())])
        build = f" {one['genome_build']}" if one.get("genome_build") else ""
        place = f"{one['chrom']}:{one['position']:,} ({one['strand']}){build}"
        rows.append([genes, place, f"{one['class']}, {one['error']}", *(f"{one[who]:.3f}" for who in _SYSTEMS)])
    return rows


def gene_rows(genes: Sequence[Mapping[str, Any]]) -> Rows:
    """Genes of `by_gene` with their errors; first the header."""
    rows = [["gene", "place", "sites", "errors, base", "errors, meta", "fixed", "made"]]
    for one in genes:
        build = f" {one['genome_build']}" if one.get("genome_build") else ""
        place = f"{one['chrom']}:{one['start']:,}-{one['end']:,} ({one['strand']})" if "start" in one else one["chrom"]
        counts = (sum(one["sites"].values()), *(one[key] for key in (*_SYSTEMS, "fixed", "made")))
        rows.append([one["gene_id"], f"{place}{build}", *(f"{count:,}" for count in counts)])
    return rows


def drawn_rows(gene: Mapping[str, Any]) -> Rows:
    """Places of the gene that is drawn; first the header."""
    rows = [
        ["position", "class", "annotated", *(f"P({who})" for who in _SYSTEMS), *(f"{who} calls" for who in _SYSTEMS)]
    ]
    for place in gene["places"]:
        annotated = ("site" if place["counts"] else "site, not counted here") if place["site"] else "no site"
        values = [f"{place[who]['probability']:.3f}" for who in _SYSTEMS]
        calls = ["yes" if place[who]["called"] else "no" for who in _SYSTEMS]
        rows.append([f"{place['position']:,}", place["class"], annotated, *values, *calls])
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
    """Genes, rows, rows of each class and chromosomes of the parts of a split that there are; first the header."""
    rows = [["part", "genes", "rows", *CLASSES, "chromosomes"]]
    for part in (name for name in ("train", "valid", "test") if name in manifest):
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
        f"{count_of(report['genes'], 'held-out gene')} in {count_of(report['clusters'], 'cluster')}, {unit}: "
        f"{report['positions']:,} with {sites['donor']:,} donors and {sites['acceptor']:,} acceptors"
    )


def _overlaps(report: Mapping[str, Any]) -> list[str]:
    """What of the positions does not count; nothing where all do."""
    found = {"shared": 0, "ignored": 0, "contradicted": 0} | report.get("overlaps", {})
    parts = []
    if found["shared"]:
        parts.append(f"{found['shared']:,} positions of several genes counted once")
    if found["ignored"]:
        parts.append(f"{found['ignored']:,} ignored because the files mark them")
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
    """A report as aligned text: comparison, hard sites, errors, and what they are by base score and paralog flag."""
    compared = [row for metric, row in comparisons(report) if metric is None or metric.in_terminal]
    tables = [aligned([list(HEADER), *compared]), aligned(calibration_rows(report))]
    if len(rows := site_recall_rows(report)) > 1:
        tables.append(aligned(rows))
    tables.append(aligned(error_rows(report), numbers=True))
    tables.append(aligned(base_score_rows(report), numbers=True))
    if set(report["by_paralog"]) != {"-1"}:
        tables.append(aligned(group_rows(report, "by_paralog", "average precision"), numbers=True))
    return "\n\n".join("\n".join(lines) for lines in ([caption(report), resolution_note(report), *notes], *tables))


def comparison_table(evaluation: Mapping[str, Any]) -> str:
    """The primary report of an evaluation as aligned text, then how rows are answered where that is otherwise."""
    notes = [note for note in (untracked_note(evaluation), seen_note(evaluation)) if note]
    report = evaluation[evaluation["primary"]]
    tables = [report_table(report, notes), *beside_table(report), *principal_table(evaluation), *rows_table(evaluation)]
    return "\n\n".join(tables)


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


def seen_note(evaluation: Mapping[str, Any]) -> str:
    """Which of the genes the base model itself was trained on, as published, and whether they count; else nothing."""
    seen = evaluation.get("seen_by_base")
    if not seen:
        return ""
    return f"{seen['note']}; {'these are left out' if seen.get('left_out') else 'these are counted'}"


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
