"""A run and a model in some lines of Markdown, as registries show them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from metalayer.evaluation import tables
from metalayer.metric_list import METRICS
from metalayer.words import count_of

_SYSTEMS = ("base", "meta")


def run_note(evaluation: Mapping[str, Any], decision: Mapping[str, Any]) -> str:
    """What was compared, the decision with its reasons, and the metrics of the short table.

    Args:
        evaluation: of `workflows.evaluate`.
        decision: of the gate, as a dictionary.
    """
    report = evaluation[evaluation["primary"]]
    interval = f"difference, {100 * report['confidence']:g} % interval over genes"
    lines = [tables.in_words(report), "", f"**Gate: {_word(decision)}**", ""]
    first = sorted(decision["reasons"], key=lambda one: bool(one["passed"]))
    lines += [f"- {'passed' if one['passed'] else '**failed**'}: {one['text']}" for one in first]
    lines += ["", f"| metric | base | meta | {interval} |", "|---|---|---|---|"]
    for metric in METRICS:
        if metric.in_summary:
            form, gap = f".{metric.decimals}f", report["difference"][metric.name]
            cells = [f"{report[who][metric.name]:{form}}" for who in _SYSTEMS]
            change = tables.with_interval(gap["value"], (gap["low"], gap["high"]), f"+{form}")
            lines.append(f"| {' | '.join([metric.title, *cells, change])} |")
    return "\n".join([*lines, "", tables.caption(report) + "."])


def version_note(evaluation: Mapping[str, Any], decision: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    """What a model was trained on, how it compares with its base, and what the gate decided.

    Args:
        evaluation: of `workflows.evaluate`.
        decision: of the gate, as a dictionary.
        info: `model.json` of the model directory.
    """
    report, split = evaluation[evaluation["primary"]], info.get("split") or {}
    counts = [count_of(len(split[name]), "gene") if split.get(name) else "other genes" for name in ("train", "valid")]
    average = "; ".join(
        f"{metric.title} {' → '.join(f'{report[who][metric.name]:.4f}' for who in _SYSTEMS)}"
        for metric in METRICS
        if metric.judged
    )
    trained = f"Recalibrates the scores of {info.get('base_model')}. Trained on {counts[0]}"
    trained += f", its best epoch picked on {counts[1]}"
    failed = [str(one["text"]) for one in decision["reasons"] if not one["passed"]]
    why = "; ".join(failed) or f"{len(decision['reasons'])} rules passed"
    unit = "" if report["unit"] == "positions" else ", rows alone"
    return (
        f"{trained}.\n\nBase → meta on {count_of(report['genes'], 'gene')} that it has not seen{unit}: {average}.\n\n"
        f"Gate: {_word(decision)} ({why})."
    )


def _word(decision: Mapping[str, Any]) -> str:
    return "promoted" if decision["promoted"] else "rejected"
