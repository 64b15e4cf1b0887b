"""The run as one HTML page that loads nothing: the templates in `page/`, filled in."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metalayer.evaluation import gene_drawing, tables
from metalayer.evaluation.gate import Decision
from metalayer.evaluation.verdict import MORE_IN_A_RUN, verdict
from metalayer.files import publish_file
from metalayer.metric_list import Metric

_PATH = re.compile(r"""(?<![\w/:.<])(?:(?:file|sqlite):/*)?(?:/[^\s/'",;:()<>]+)*/([^\s/'",;:()<>]+)/?""")
"""An absolute path, of which the group is the last part."""
_LIST_LIMIT = 40
"""Entries of a list that are shown; the rest are counted."""


def write_report(
    path: Path,
    *,
    evaluation: Mapping[str, Any],
    decision: Decision,
    manifest: Mapping[str, Any],
    load_report: Mapping[str, Any],
    run: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
    commands: Sequence[tuple[str, str]] = (),
    errors_file: str | None = None,
    drift_html: str | None = None,
    more: str = MORE_IN_A_RUN,
) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: the page.
        evaluation: reports of `evaluate` under `positions` (or None), `rows` and, of a model that answers rows
            otherwise, `row_answers`; `ways`, `primary`, `champion`.
        decision: of the gate.
        manifest: of the split.
        load_report: what was read, dropped and mismatched; shown as it is.
        run: facts of the run (config, seed, hashes, versions); shown as they are.
        training: history (one entry an epoch) and best_epoch; None where they are not known.
        commands: what can be done with the model: in words, and the command.
        errors_file: table of all errors to link to, relative to this page.
        drift_html: a page to link to, relative to this one.
        more: how the command that judged is given more test genes, in words.

    Returns:
        `path`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from metalayer.evaluation import plots

    pages = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("page")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {
        "plain": _plain,
        "without_folders": _without_folders,
        "records": _record_rows,
        "thousands": "{:,}".format,
    }
    pages.tests["nested"] = _is_nested
    found = verdict(evaluation, decision.to_dict(), more)
    text = pages.get_template("report.html.j2").render(
        evaluation=evaluation,
        decision=decision,
        manifest=manifest,
        load_report=load_report,
        run=run,
        training=training or {},
        commands=commands,
        errors_file=errors_file,
        drift_html=drift_html,
        verdict=found,
        reasons=sorted(decision.reasons, key=lambda reason: (reason.rule != found.rule, reason.passed)),
        tables=tables,
        plots=plots,
        drawing=gene_drawing,
        direction=_direction,
        list_limit=_LIST_LIMIT,
    )
    with publish_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return path


def _without_folders(text: str) -> str:
    """Absolute paths as names of files: where they lie on this machine is nobody's business."""
    if text.startswith("/") and ": " not in text and "\n" not in text:
        return Path(text).name or text
    return _PATH.sub(lambda found: found[1], text)


def _direction(report: Mapping[str, Any], metric: Metric) -> str:
    """Whether the difference of a metric is clearly for the better or the worse; less of an error is better."""
    low, high = (report["difference"][metric.name][end] for end in ("low", "high"))
    if low is None or high is None or low <= 0 <= high:
        return ""
    return "better" if (low > 0) != metric.lower_is_better else "worse"


def _is_nested(value: Any) -> bool:
    """Whether a value is a dictionary or a list of dictionaries, and not empty."""
    items = [value] if isinstance(value, Mapping) else value
    return isinstance(items, Sequence) and bool(value) and all(isinstance(item, Mapping) for item in items)


def _record_rows(records: Sequence[Mapping[str, Any]]) -> tables.Rows:
    """Records as rows of text; first the header, of the keys of all."""
    heading = list(dict.fromkeys(key for record in records for key in record))
    return [heading, *([_plain(record.get(key)) for key in heading] for record in records)]


def _plain(value: Any) -> str:
    """A value as a person would write it."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return _without_folders(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else "not a number"
    if isinstance(value, Sequence):
        shown = ", ".join(_plain(item) for item in value[:_LIST_LIMIT])
        return (f"{shown}, and {len(value) - _LIST_LIMIT:,} more" if len(value) > _LIST_LIMIT else shown) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) or "none"
    return str(value)
