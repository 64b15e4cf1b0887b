"""The run as one HTML page that loads nothing: verdict, comparison, curves, data and run facts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from metalayer.evaluation.gate import Decision
from metalayer.evaluation.metrics import LOWER_IS_BETTER
from metalayer.evaluation.tables import (
    METRICS,
    base_score_rows,
    calibration_rows,
    caption,
    comparison_rows,
    error_rows,
    group_rows,
    log_bin_rows,
    resolution_note,
    untracked_note,
    with_interval,
)
from metalayer.files import publish_file
from metalayer.schema import CLASSES

_LIST_LIMIT = 40
"""Entries of a list that are shown; the rest are counted."""
_ERRORS_SHOWN = 10
"""Errors that are shown, of those fixed and of those made."""
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #f6f8fa; color: #24292f;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 25px; margin: 0; } h2 { font-size: 18px; margin: 0 0 4px; } h3 { font-size: 15px; margin: 22px 0 6px; }
p { margin: 4px 0 12px; } .quiet { color: #57606a; } a { color: #0b5cad; }
section { background: #fff; border: 1px solid #d8dee4; border-radius: 8px; padding: 20px 24px; margin-top: 18px;
  overflow-x: auto; }
.verdict { border-left: 8px solid; } .promoted { border-left-color: #1a7f37; } .rejected { border-left-color: #b42318; }
.word { font-weight: 700; padding: 2px 10px; border-radius: 6px; color: #fff; }
.promoted .word { background: #1a7f37; } .rejected .word { background: #b42318; }
ul.reasons { list-style: none; margin: 14px 0 0; padding: 0; }
ul.reasons li { display: flex; gap: 12px; padding: 5px 0; border-top: 1px solid #eaeef2; }
ul.reasons b { flex: 0 0 62px; font-weight: 600; } .passed b { color: #1a7f37; } .failed b { color: #b42318; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 8px 0 4px; }
th, td { text-align: left; padding: 5px 18px 5px 0; border-bottom: 1px solid #eaeef2; vertical-align: top; }
th { font-weight: 600; } thead th { color: #57606a; border-bottom-color: #d0d7de; }
td.number, th.number { text-align: right; }
table.main { width: 100%; } table.main th, table.main td { white-space: nowrap; padding-right: 14px; }
td:first-child:not(.number) { white-space: nowrap; }
.interval { color: #57606a; font-size: 13px; margin-left: 6px; }
.better { color: #1a7f37; font-weight: 600; } .worse { color: #b42318; font-weight: 600; }
svg { width: 100%; height: auto; display: block; margin: 6px 0 10px;
  font-family: system-ui, -apple-system, "Segoe UI", "Liberation Sans", "DejaVu Sans", sans-serif; }
.side { display: flex; flex-wrap: wrap; gap: 12px 56px; }
.lists { font-size: 13px; gap: 12px 32px; } .lists th, .lists td { padding-right: 12px; }
dl { display: grid; grid-template-columns: minmax(140px, max-content) 1fr; gap: 3px 20px; margin: 6px 0; }
dt { color: #57606a; } dd { margin: 0; overflow-wrap: anywhere; }
details { margin-top: 8px; } details > :not(summary) { margin-left: 17px; }
summary { cursor: pointer; font-weight: 600; }
"""


def write_report(
    path: Path,
    *,
    evaluation: Mapping[str, Any],
    decision: Decision,
    manifest: Mapping[str, Any],
    load_report: Mapping[str, Any],
    run: Mapping[str, Any],
    drift_html: str | None = None,
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
        drift_html: a page to link to, relative to this one.

    Returns:
        `path`.
    """
    text = render(evaluation, decision, manifest, load_report, run, drift_html)
    with publish_file(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return path


def render(
    evaluation: Mapping[str, Any],
    decision: Decision,
    manifest: Mapping[str, Any],
    load_report: Mapping[str, Any],
    run: Mapping[str, Any],
    drift_html: str | None,
) -> str:
    """The page as text; see `write_report`."""
    primary = evaluation["primary"]
    report = evaluation[primary]
    parts = [
        _verdict(decision, evaluation, load_report, run),
        _section("Base against meta", _comparison(report)),
        _section("Curves", _plots(report)),
        _section("Calibration", _calibration(report)),
        _section("Errors fixed and made", _errors(report)),
        _section("By base score, paralogs and chromosome", _parts(report)),
        _section("Most probable classes", _confusion(report)),
    ]
    if evaluation.get("row_answers"):
        note = escape(evaluation["ways"]["rows"]["note"])
        parts.append(
            _section("Answers to rows", f'<p class="quiet">{note}.</p>{_comparison(evaluation["row_answers"])}')
        )
    other = "rows" if primary == "positions" else "positions"
    if evaluation.get(other):
        note = (
            "Artifact rows are an enriched sample: most easy negatives are missing, so these values are higher than "
            "over whole genes and do not decide."
            if other == "rows"
            else "Only some of the test genes have per-nucleotide scores, so the artifact rows decide."
        )
        title = "Artifact rows" if other == "rows" else "All positions"
        parts.append(_section(title, f'<p class="quiet">{note}</p>' + _comparison(evaluation[other])))
    if evaluation.get("champion"):
        parts.append(_section("Against the champion", _champion(evaluation["champion"])))
    best = evaluation.get("best_champion") or {}
    if best.get("scored"):
        parts.append(_section("Against the best champion of the line", _champion(best)))
    drift = ""
    if drift_html:
        drift = f'<p><a href="{escape(drift_html)}">Data summary and drift between training and test rows</a></p>'
    parts += [
        _section("Split", _split(manifest)),
        _section("What was read", drift + _facts(load_report, unfolded=True)),
        _section("The run", _facts(run)),
    ]
    title = f"metalayer: {load_report.get('base_model', 'report')}, {_word(decision)}"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        # Nothing is loaded, and nothing that slipped into the text could be.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _word(decision: Decision) -> str:
    return "promoted" if decision.promoted else "rejected"


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"


def _verdict(
    decision: Decision, evaluation: Mapping[str, Any], load_report: Mapping[str, Any], run: Mapping[str, Any]
) -> str:
    word = _word(decision)
    failed = sum(not reason.passed for reason in decision.reasons)
    summary = f"{failed} of {len(decision.reasons)} rules failed" if failed else "every rule passed"
    reasons = "".join(
        f'<li class="{"passed" if reason.passed else "failed"}"><b>{"passed" if reason.passed else "failed"}</b>'
        f"<span>{escape(reason.text)}</span></li>"
        for reason in decision.reasons
    )
    judged = "all positions of the test genes" if evaluation["primary"] == "positions" else "artifact rows"
    if note := untracked_note(evaluation):
        judged += f". {note}"
    name = " &middot; ".join(
        escape(str(value)) for value in (load_report.get("base_model"), run.get("pipeline_run")) if value
    )
    return (
        f'<section class="verdict {word}">\n<p class="quiet">metalayer{" &middot; " + name if name else ""}</p>\n'
        f'<h1><span class="word">{word}</span> {summary}</h1>\n'
        f'<ul class="reasons">{reasons}</ul>\n<p class="quiet">Judged on {escape(judged)}.</p>\n</section>'
    )


def _comparison(report: Mapping[str, Any]) -> str:
    heading, *rows = comparison_rows(report)
    metric_of = {name: metric for metric, name in METRICS}
    body = []
    for name, base, meta, difference in rows:
        colour = _direction(report["difference"].get(metric_of.get(name, ""), {}), metric_of.get(name))
        cells = [_estimate(base), _estimate(meta), _estimate(difference, colour)]
        body.append(
            f'<tr><th scope="row">{escape(name)}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        )
    return (
        f'<p class="quiet">{escape(caption(report))}. P at recall: precision at the highest threshold that finds so '
        "many of the sites. Coloured where the interval of the difference excludes 0.</p>\n"
        f'<p class="quiet">What could be found: {escape(resolution_note(report))}.</p>\n'
        f'<table class="main"><thead><tr>{_heads(heading)}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    )


def _direction(difference: Mapping[str, Any], metric: str | None) -> str:
    """Whether a difference is clearly for the better or the worse; less of an error is better."""
    low, high = difference.get("low"), difference.get("high")
    if low is None or high is None or low <= 0 <= high:
        return ""
    return "better" if (low > 0) != (metric in LOWER_IS_BETTER) else "worse"


def _estimate(cell: str, colour: str = "") -> str:
    """A value with its interval set apart."""
    value, _, interval = cell.partition(" (")
    set_apart = f'<span class="interval">({escape(interval)}</span>' if interval else ""
    return f'<span class="{colour}">{escape(value)}</span>{set_apart}' if colour else escape(value) + set_apart


def _plots(report: Mapping[str, Any]) -> str:
    from metalayer.evaluation.plots import precision_recall_svg, reliability_svg

    return precision_recall_svg(report) + reliability_svg(report)


def _calibration(report: Mapping[str, Any]) -> str:
    from metalayer.evaluation.plots import log_reliability_svg

    near = report["calibration"]["near"]
    note = (
        "Slope: of the log-odds of sites over those given; 1 where a system is neither too sure (below 1) nor too "
        "timid. Intercept: with the slope at 1; 0 where it expects as many sites as there are. Brier score: of the "
        f"{near['positions']:,} {report['unit']} where base or meta give {near['threshold']:g} or more. The share of "
        "sites has its interval over gene clusters."
    )
    heading, *rows = calibration_rows(report)
    bin_heading, *bins = log_bin_rows(report)
    return (
        f'<p class="quiet">{note}</p>{_table(heading, rows)}{log_reliability_svg(report)}'
        f"<details><summary>the bins</summary>{_table(bin_heading, bins)}</details>"
    )


def _confusion(report: Mapping[str, Any]) -> str:
    blocks = []
    for system in ("base", "meta"):
        rows = [
            [name, *(f"{number:,}" for number in numbers)]
            for name, numbers in zip(CLASSES, report["confusion"][system], strict=True)
        ]
        blocks.append(f"<div><h3>{system}</h3>{_table(['true / called', *CLASSES], rows)}</div>")
    note = "Each position is called what is most probable; rows are the truth."
    return f'<p class="quiet">{note}</p><div class="side">{"".join(blocks)}</div>'


def _errors(report: Mapping[str, Any]) -> str:
    errors = report["errors"]
    note = (
        "Each system calls as many positions of a class as there are true sites, its highest ones. Fixed: the base is "
        "wrong there and meta right; made: the other way round."
    )
    heading, *rows = error_rows(report)
    lists = "".join(_error_list(errors[key], f"Errors {key}") for key in ("fixed", "made"))
    if lists:
        lists = (
            f'<div class="side lists">{lists}</div><p class="quiet">Largest change in log-odds first; the evaluation '
            f"of the run lists up to {errors['listed_at_most']:,} of each.</p>"
        )
    return f'<p class="quiet">{note}</p>{_table(heading, rows)}{lists}'


def _error_list(errors: Mapping[str, Any], title: str) -> str:
    shown = errors.get("list", [])[:_ERRORS_SHOWN]
    if not shown:
        return ""
    heading = ["gene", "position", "error", "base", "meta"]
    rows = [
        [one["gene_id"], _place(one), f"{one['class']}, {one['error']}", f"{one['base']:.3f}", f"{one['meta']:.3f}"]
        for one in shown
    ]
    counted = f"{title}, {len(shown)} of {errors['total']:,}"
    return f"<div><h3>{counted}</h3>{_table(heading, rows, text_columns=(0, 1, 2))}</div>"


def _place(error: Mapping[str, Any]) -> str:
    build = f" {error['genome_build']}" if "genome_build" in error else ""
    return f"{error['chrom']}:{error['position']:,} ({error['strand']}){build}"


def _parts(report: Mapping[str, Any]) -> str:
    """By base score, paralog flag and chromosome."""
    bins = (
        '<p class="quiet">Bins of the larger score of the base, donor or acceptor. Expected: the sum of '
        "P(donor) + P(acceptor), which equals the number of sites where probabilities are calibrated.</p>"
    )
    heading, *rows = base_score_rows(report)
    blocks = [f"<h3>By base score</h3>{bins}{_table(heading, rows)}"]
    for key, title in (("by_paralog", "paralogs"), ("by_chromosome", "chromosome")):
        if set(report[key]) == {"-1"}:  # of no gene is it known
            continue
        heading, *rows = group_rows(report, key, title)
        blocks.append(f"<h3>By {title}, average precision</h3>{_table(heading, rows)}")
    return "".join(blocks)


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def _champion(champion: Mapping[str, Any]) -> str:
    if not champion.get("scored"):
        return f"<p>It could not be scored: {escape(str(champion.get('error')))}</p>" + _facts(
            {key: champion[key] for key in ("name", "version") if champion.get(key)}
        )
    rows = []
    for metric, name in METRICS:
        if metric not in champion["difference"]:
            continue
        difference = champion["difference"][metric]
        values = [_number(champion[system].get(metric)) for system in ("champion", "meta")]
        interval = with_interval(difference["value"], (difference["low"], difference["high"]), "+.4f")
        rows.append([name, *values, interval])
    facts = {
        key: value
        for key, value in champion.items()
        if key not in ("scored", "error", "champion", "meta", "difference", "exact_to", "left_out")
    }
    return _facts(facts) + _table(["metric", "champion", "meta", "meta - champion"], rows)


def _split(manifest: Mapping[str, Any]) -> str:
    rows = []
    for part in ("train", "valid", "test"):
        here = manifest[part]
        rows.append(
            [
                part,
                f"{len(here['genes']):,}",
                f"{here['rows']:,}",
                *(f"{here['classes'].get(name, 0):,}" for name in CLASSES),
                ", ".join(here.get("chromosomes", ())),
            ]
        )
    rest = {key: value for key, value in manifest.items() if key not in ("train", "valid", "test")}
    return _table(["part", "genes", "rows", *CLASSES, "chromosomes"], rows, text_columns=(0, 6)) + _facts(
        rest, unfolded=True
    )


def _heads(names: Sequence[str]) -> str:
    return "".join(f'<th scope="col">{escape(name)}</th>' for name in names)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]], text_columns: Sequence[int] = (0,)) -> str:
    """A table of numbers, right-aligned but for `text_columns`."""

    def cell(tag: str, column: int, text: str) -> str:
        aligned = "" if column in text_columns else ' class="number"'
        return f"<{tag}{aligned}>{escape(text)}</{tag}>"

    head = "".join(cell("th", i, name) for i, name in enumerate(heading))
    body = "".join("<tr>" + "".join(cell("td", i, text) for i, text in enumerate(row)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _facts(values: Mapping[str, Any], *, unfolded: bool = False) -> str:
    """Any nested dictionary: plain values in a list, dictionaries and tables below it, folded or not."""
    plain, folded = [], []
    for key, value in values.items():
        name = escape(str(key))
        opening = f"<details{' open' if unfolded else ''}><summary>{name}</summary>"
        if isinstance(value, Mapping) and value:
            folded.append(f"{opening}{_facts(value, unfolded=unfolded)}</details>")
        elif _is_records(value):
            folded.append(f"{opening}{_records(value)}</details>")
        else:
            plain.append(f"<dt>{name}</dt><dd>{escape(_plain(value))}</dd>")
    return (f"<dl>{''.join(plain)}</dl>" if plain else "") + "".join(folded)


def _is_records(value: Any) -> bool:
    return isinstance(value, Sequence) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _records(records: Sequence[Mapping[str, Any]]) -> str:
    heading = list(dict.fromkeys(key for record in records for key in record))
    rows = [[_plain(record.get(key)) for key in heading] for record in records[:_LIST_LIMIT]]
    more = f"<p>and {len(records) - _LIST_LIMIT:,} more</p>" if len(records) > _LIST_LIMIT else ""
    return _table(heading, rows, text_columns=()) + more


def _plain(value: Any) -> str:
    """A value as a person would write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else "not a number"
    if isinstance(value, Sequence) and not isinstance(value, str):
        shown = ", ".join(_plain(item) for item in value[:_LIST_LIMIT])
        return (f"{shown}, and {len(value) - _LIST_LIMIT:,} more" if len(value) > _LIST_LIMIT else shown) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) or "none"
    return str(value)
