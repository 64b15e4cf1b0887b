"""Figures of labelled variants as text for a terminal, at most 100 columns wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metalayer.evaluation.detection import NEGATIVES, POSITIVES, PR, ROC
from metalayer.evaluation.tables import aligned

_NAME_LETTERS = 12
_NONE = "-"
Rows = list[list[str]]


def area_table(report: Mapping[str, Any]) -> str:
    """ROC-AUC and PR-AUC of each system in each group that has variants, and differences."""
    rows: Rows = [["variants", POSITIVES, NEGATIVES, "scores", "ROC-AUC", "PR-AUC"]]
    for group, found in report["groups"].items():
        counts = [group.replace("_", " "), str(found[POSITIVES]), str(found[NEGATIVES])]
        if not found[POSITIVES] + found[NEGATIVES]:
            continue
        if not found[POSITIVES] or not found[NEGATIVES]:
            rows.append([*counts, "all", _NONE, _NONE])
            continue
        for name, of in found["systems"].items():
            rows.append([*counts, _short(name), _estimate(of[ROC]), _estimate(of[PR])])
            counts = ["", "", ""]
        for name, gap in found["differences"].items():
            rows.append(
                [
                    *counts,
                    f"- {_short(name, _NAME_LETTERS - 2)}",
                    _estimate(gap[ROC], "+.3f"),
                    _estimate(gap[PR], "+.3f"),
                ]
            )
    return "\n".join(aligned(rows))


def threshold_table(group: Mapping[str, Any]) -> str:
    """What each system finds in a group, and calls falsely, at each threshold."""
    rows: Rows = [["|delta| from", "scores", "sensitivity", "false positive rate", "precision"]]
    lines = {name: iter(of["thresholds"]) for name, of in group["systems"].items()}
    first = next(iter(group["systems"].values()))["thresholds"]
    for row in first:
        label = f"{row['threshold']:g}"
        for name, left in lines.items():
            one = next(left)
            rates = [_estimate(one[rate]) for rate in ("sensitivity", "false_positive_rate", "precision")]
            rows.append([label, _short(name), *rates])
            label = ""
    return "\n".join(aligned(rows))


def equal_calls_table(group: Mapping[str, Any], ours: str) -> str:
    """What ours finds with as many false calls as another system has at each threshold; empty without others."""
    rows: Rows = [["scores", "|delta| from", "false calls", "it finds", f"{_short(ours)} finds"]]
    for name, found in group["equal_false_calls"].items():
        for row in found:
            numbers = (row["false_calls"], row[name], row[ours])
            rows.append([_short(name), f"{row['threshold']:g}", *(f"{number:,}" for number in numbers)])
    return "\n".join(aligned(rows, numbers=True)) if len(rows) > 1 else ""


def calibration_table(written: Mapping[str, Any]) -> str:
    """Of each kind: held-out errors of the table and of |delta| itself, and how sure they are (slope, 1 is right)."""
    rows: Rows = [["variants", POSITIVES, NEGATIVES, "of", "log loss", "Brier score", "slope"]]
    for group, found in written["held_out"].items():
        start = [group.replace("_", " "), str(found[POSITIVES]), str(found[NEGATIVES])]
        for name, title in (("calibrated", "table"), ("delta", "|delta|")):
            of = found[name]
            slope = _NONE if of["slope"] is None else f"{of['slope']['value']:.2f}"
            rows.append([*start, title, _estimate(of["log_loss"]), _estimate(of["brier"]), slope])
            start = [""] * 3
    return "\n".join(aligned(rows))


def best_threshold_table(written: Mapping[str, Any]) -> str:
    """Of each kind: which curve it has, and the |delta| with the largest sum of sensitivity and specificity."""
    rows: Rows = [["variants", "curve", "best |delta|", "95 % of resamples", "sensitivity", "specificity"]]
    for group, found in written["thresholds"].items():
        curve = written["curves"].get(group)
        start = [group.replace("_", " "), _NONE if curve is None else "of all" if curve["pooled"] else "own"]
        if found is None:
            rows.append([*start, *[_NONE] * 4])
            continue
        between = _NONE if found["low"] is None else f"{found['low']:.3f} to {found['high']:.3f}"
        shares = [f"{found[name]:.3f}" for name in ("sensitivity", "specificity")]
        rows.append([*start, f"{found['threshold']:.3f}", between, *shares])
    return "\n".join(aligned(rows))


def counts_lines(about: Mapping[str, Any], reasons: Mapping[str, str]) -> Sequence[str]:
    """What was read, and what of it does not count, in lines.

    Args:
        about: of the report.
        reasons: words for why a variant does not count.
    """
    of = about["variants"]
    lines = [
        f"{of['file']} ({of['form']}): {of[POSITIVES]:,} variants that alter splicing, {of[NEGATIVES]:,} that do not"
    ]
    lines += [f"  {count:,} more without a label that counts: {reason}" for reason, count in of["passed_over"].items()]
    if of["repeated"]:
        lines.append(f"  {of['repeated']:,} more that are there again, and count once")
    for reason, count in about["not_counted"].items():
        lines.append(
            f"  {count[POSITIVES]:,} altering and {count[NEGATIVES]:,} neutral ones do not count: {reasons[reason]}"
        )
    if about["genes_seen_in_training"] is None:
        lines.append("  which genes the model was trained on is not known: its figures may be too good")
    elif about["seen_counted"] and about["genes_seen_in_training"]:
        lines.append(
            f"  {len(about['genes_seen_in_training']):,} genes that the model was trained on count, too: its figures "
            "are too good"
        )
    lines += [f"  {name}: {note}" for name, note in about["seen_by_base"].items()]
    return lines


def _short(name: str, letters: int = _NAME_LETTERS) -> str:
    """A name of at most so many letters: its beginning, and its end behind the last underscore."""
    if len(name) <= letters:
        return name
    end = name.rpartition("_")[2][: letters // 2]
    return f"{name[: letters - len(end) - 1]}~{end}"


def _estimate(estimate: Mapping[str, float | None] | None, form: str = ".3f") -> str:
    if estimate is None:
        return _NONE
    value, low, high = (estimate[name] for name in ("value", "low", "high"))
    bounds = "" if low is None or high is None else f" ({low:{form}} to {high:{form}})"
    return f"{value:{form}}{bounds}"
