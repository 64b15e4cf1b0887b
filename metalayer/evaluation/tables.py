"""Base against meta as a table, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEADER = ("metric", "base", "meta", "meta - base")
METRICS = (
    ("pr_auc_splice", "PR-AUC splice"),
    ("ap_donor", "donor AP"),
    ("ap_acceptor", "acceptor AP"),
    ("topk_donor", "top-k donor"),
    ("topk_acceptor", "top-k acceptor"),
    ("ece", "ECE"),
)


def comparison_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Metric, base, meta and paired difference of each metric, each with its interval; first the header."""
    rows = [list(HEADER)]
    for metric, title in METRICS:
        # Nearly all positions are no site, so the calibration error over whole genes is small.
        form = ".6f" if metric == "ece" else ".4f"
        both = [with_interval(report[who][metric], report["intervals"][who][metric], form) for who in ("base", "meta")]
        gap = report["difference"][metric]
        rows.append([title, *both, with_interval(gap["value"], (gap["low"], gap["high"]), f"+{form}")])
        if metric == "ece" and "uncalibrated" in report:
            who = "uncalibrated"
            before = with_interval(report[who][metric], report["intervals"][who][metric], form)
            rows.append(["ECE before calibration", "", before, ""])
    return rows


def caption(report: Mapping[str, Any]) -> str:
    """What the numbers are of."""
    unit = "all positions" if report["unit"] == "positions" else "artifact rows (a sample: not whole genes)"
    sites = report["sites"]
    return (
        f"{report['genes']} held-out genes, {unit}: {report['positions']:,} with {sites['donor']:,} donors and "
        f"{sites['acceptor']:,} acceptors; {100 * report['confidence']:g} % intervals from {report['resamples']:,} "
        "resamples of genes"
    )


def comparison_table(evaluation: Mapping[str, Any]) -> str:
    """The primary report of an evaluation as aligned text."""
    report = evaluation[evaluation["primary"]]
    notes = [note] if (note := untracked_note(evaluation)) else []
    return "\n".join([caption(report), *notes, "", *aligned(comparison_rows(report))])


def untracked_note(evaluation: Mapping[str, Any]) -> str:
    """What became of test genes without per-nucleotide scores, where others have them; else nothing."""
    without = evaluation.get("test_genes_without_tracks")
    if not without:
        return ""
    names = ", ".join(without[:5]) + (" ..." if len(without) > 5 else "")
    outcome = "left out" if evaluation["primary"] == "positions" else "too many to leave out, so rows are what counts"
    return f"{len(without)} of {evaluation['test_genes']} test genes have no per-nucleotide scores ({names}): {outcome}"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def with_interval(value: float, interval: Sequence[float | None], form: str = ".4f") -> str:
    """A value with its interval, `0.8120 (0.7900 to 0.8330)`; an interval that is not there is called so."""
    low, high = interval
    bounds = "no interval" if low is None or high is None else f"{low:{form}} to {high:{form}}"
    return f"{value:{form}} ({bounds})"
