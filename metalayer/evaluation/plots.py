"""Curves as SVG text and an ablation as PNG, by matplotlib without its global state."""

from __future__ import annotations

import functools
import hashlib
import html
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from metalayer.evaluation.metrics import ECE_BINS, TARGETS, ap_name
from metalayer.files import publish_file
from metalayer.metric_list import JUDGED
from metalayer.words import count_of

STYLES: dict[str, tuple[str, str]] = {
    "base": ("#7d8590", "-"),
    "uncalibrated": ("#c2701c", "--"),
    "meta": ("#0b5cad", "-"),
}
"""Colour and line of each system, in the order in which they are drawn."""
CURVES = (
    ("loss", {"train_loss": "training", "val_loss": "validation"}),
    (
        "validation average precision",
        {"val_pr_auc_splice": "splice (PR-AUC)", "val_ap_donor": "donor", "val_ap_acceptor": "acceptor"},
    ),
    ("learning rate", {"learning_rate": ""}),
)
"""What is drawn of a training: title, and figures of an epoch with what they are called."""
_NOT_SHOWN = re.compile(
    r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>|<g/>| font-family: [^;\"]*;", flags=re.DOTALL
)
"""What the page has itself (fonts, joins of lines), or nobody sees."""
SETTINGS = {
    "svg.fonttype": "none",  # text stays text, in the page's own font
    "svg.hashsalt": "metalayer",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": "#24292f",
    "axes.edgecolor": "#d0d7de",
    "axes.labelcolor": "#57606a",
    "axes.titlecolor": "#24292f",
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#eaeef2",
    "xtick.color": "#57606a",
    "ytick.color": "#57606a",
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
}
"""Of matplotlib, in all drawings."""


_Drawn = TypeVar("_Drawn")
_PANEL = (4.3, 3.1)
"""Inches of a panel: its text can still be read where it is as wide as a telephone."""


@dataclass(frozen=True)
class Panel:
    """One set of axes as SVG.

    Attributes:
        caption: what it shows, in a sentence.
        svg: the element, which names what is in it for those who do not see it.
    """

    caption: str
    svg: str


def _drawn_once(draw: Callable[[Mapping[str, Any]], _Drawn]) -> Callable[[Mapping[str, Any]], _Drawn]:
    """Keep what was drawn of the last report: the page shows it, and a run of MLflow has it as files."""
    last: dict[bytes, _Drawn] = {}

    @functools.wraps(draw)
    def kept(report: Mapping[str, Any]) -> _Drawn:
        key = hashlib.sha256(json.dumps(report).encode()).digest()
        if key not in last:
            found = draw(report)
            last.clear()
            last[key] = found
        return last[key]

    return kept


@_drawn_once
def precision_recall(report: Mapping[str, Any]) -> list[Panel]:
    """Precision over recall of splice, donor and acceptor scores, base and meta."""
    panels = []
    for name in TARGETS:
        with _panel() as (figure, axes):
            for system in ("base", "meta"):
                curve = report["curves"][system][name]
                colour, line = STYLES[system]
                axes.plot(
                    [0.0, *curve["recall"]],
                    [curve["precision"][0], *curve["precision"]],
                    line,
                    color=colour,
                    drawstyle="steps-pre",
                    label=f"{system}  {report[system][ap_name(name)]:.3f}",
                )
            _unit_square(axes)
            axes.set(title=name, xlabel="recall", ylabel="precision")
            axes.legend(loc="lower left", title="average precision", title_fontsize=8.5, fontsize=9, alignment="left")
            values = " and ".join(f"{who} {report[who][ap_name(name)]:.3f}" for who in ("base", "meta"))
            caption = f"Precision over recall, {name}: average precision {values}."
            panels.append(Panel(caption, _svg(figure, f"pr-{name}", caption)))
    return panels


@_drawn_once
def reliability(report: Mapping[str, Any]) -> list[Panel]:
    """Observed share of sites over predicted probability, and how many positions each bin holds."""
    systems = {system: style for system, style in STYLES.items() if system in report["curves"]}
    with _panel() as (figure, axes):
        axes.plot([0, 1], [0, 1], ":", color="#8c959f", linewidth=1)
        for system, (colour, line) in systems.items():
            bins = report["curves"][system]["reliability"]
            mean, observed = ([one[key] for one in bins] for key in ("mean", "observed"))
            label = f"{system}  {report[system]['ece']:.2g}"
            axes.plot(mean, observed, line, color=colour, marker="o", markersize=3.5, label=label)
        _unit_square(axes)
        axes.set(title="reliability", xlabel="P(donor) + P(acceptor), mean of the bin", ylabel="share of sites")
        axes.legend(loc="upper left", title="ECE", title_fontsize=8.5, fontsize=9, alignment="left")
        values = ", ".join(f"{system} {report[system]['ece']:.2g}" for system in systems)
        caption = f"Share of true sites over the probability given, in 15 bins: ECE {values}."
        shares = Panel(caption, _svg(figure, "reliability", caption))
    with _panel() as (figure, axes):
        for system, (colour, line) in systems.items():
            counts = [0] * ECE_BINS
            for one in report["curves"][system]["reliability"]:  # empty bins are left out of the report
                counts[min(int(one["mean"] * ECE_BINS), ECE_BINS - 1)] += one["count"]
            edges = [i / ECE_BINS for i in range(ECE_BINS + 1)]
            axes.stairs(counts, edges, color=colour, linestyle=line, linewidth=1.8, baseline=None, zorder=3)
        axes.set(title=f"{report['unit']} in each bin", xlabel="P(donor) + P(acceptor)", yscale="symlog", xlim=(0, 1))
        axes.set_ylim(bottom=0)
        caption = f"How many {report['unit']} each of these bins holds; lines as beside."
        return [shares, Panel(caption, _svg(figure, "bins", caption))]


@_drawn_once
def log_reliability(report: Mapping[str, Any]) -> Panel:
    """Observed share of sites over the score in narrow bins, on log-odds, base beside meta, with intervals."""
    with _panel((4.3, 3.6)) as (figure, axes):
        ends = (10.0**-7, 1 - 10.0**-4)
        axes.plot(ends, ends, ":", color="#8c959f", linewidth=1)
        for system in ("base", "meta"):
            # A share of 0 or of 1 has no place on the axis; the table of the bins has it.
            bins = [one for one in report["calibration"][system]["bins"] if 0 < one["observed"] < 1]
            colour, line = STYLES[system]
            mean, observed = ([one[key] for one in bins] for key in ("mean", "observed"))
            axes.plot(mean, observed, line, color=colour, marker="o", markersize=3.5, label=system)
            for one in bins:
                if one["observed_low"] is not None:
                    low, high = max(one["observed_low"], ends[0]), min(one["observed_high"], ends[1])
                    axes.plot([one["mean"]] * 2, [low, high], color=colour, linewidth=1)
        axes.set(xscale="logit", yscale="logit", xlim=ends, ylim=ends)
        axes.minorticks_off()
        axes.set(title="reliability, on log-odds", xlabel="P(donor) + P(acceptor), mean of the bin")
        axes.set_ylabel("share of sites")
        axes.legend(loc="upper left", fontsize=9)
        caption = "Share of true sites in two bins a power of ten; on the dotted line probabilities are right."
        return Panel(caption, _svg(figure, "log-reliability", caption))


def as_files(report: Mapping[str, Any]) -> dict[str, str]:
    """The curves of a report as SVG files of their own, by name."""
    panels = {f"precision_recall_{name}": panel for name, panel in zip(TARGETS, precision_recall(report), strict=True)}
    panels |= dict(zip(("reliability", "reliability_counts"), reliability(report), strict=True))
    panels["reliability_log"] = log_reliability(report)
    spaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    return {f"{name}.svg": panel.svg.replace("<svg ", f"<svg {spaces}", 1) for name, panel in panels.items()}


def gene_changes(report: Mapping[str, Any]) -> Panel:
    """How many genes have how many errors less or more by meta than by the base."""
    found = report["by_gene"]
    with _panel() as (figure, axes):
        fewer = [one for one in found["changes"] if one[0] < 0]
        same = [one for one in found["changes"] if one[0] == 0]
        more = [one for one in found["changes"] if one[0] > 0]
        for bars, colour, label in (
            (fewer, STYLES["meta"][0], f"fewer errors  {found['gained']:,}"),
            (same, STYLES["base"][0], f"as many  {found['same']:,}"),
            (more, "#b42318", f"more errors  {found['lost']:,}"),
        ):
            if bars:
                changes, genes = zip(*bars, strict=True)
                axes.bar(changes, genes, color=colour, label=label, zorder=3)
        axes.set(title="genes by change in errors", xlabel="errors of meta less errors of base", ylabel="genes")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside lower center", ncols=3, fontsize=8.5)
        text = (
            f"Of {count_of(found['genes'], 'gene')}, {found['gained']:,} have fewer errors by meta than by the base, "
            f"{found['lost']:,} more and {found['same']:,} as many."
        )
        return Panel("Left of 0: genes that gain; right: genes that lose.", _svg(figure, "gene-changes", text))


def learning_curves(history: Sequence[Mapping[str, float]], best_epoch: int) -> list[Panel]:
    """Loss and average precision by epoch, the epoch whose weights were kept marked; none of an empty history."""
    panels: list[Panel] = []
    for title, lines in CURVES[:2] if len(history) > 1 else ():
        with _panel() as (figure, axes):
            draw_curves(axes, title, lines, history)
            axes.axvline(best_epoch, color="#1a7f37", linewidth=1.2, linestyle="--", label=f"kept: epoch {best_epoch}")
            figure.legend(loc="outside lower center", ncols=2, fontsize=8.5)
            kept = next(epoch for epoch in history if epoch["epoch"] == best_epoch)
            values = ", ".join(
                f"{label} {kept[name]:.4f}" for name, label in lines.items() if _is_known(kept.get(name))
            )
            caption = f"{title[0].upper()}{title[1:]} by epoch; at epoch {best_epoch}, which was kept: {values}."
            panels.append(Panel(caption, _svg(figure, f"learning-{len(panels)}", caption)))
    return panels


def _is_known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def draw_curves(
    axes: Axes, title: str, lines: Mapping[str, str], history: Sequence[Mapping[str, float | None]]
) -> None:
    """Figures of each epoch that are known, as lines; epoch 0 is the untrained model, which is only validated."""
    for name, label in lines.items():
        shown = [epoch for epoch in history if name.startswith("val_") or epoch["epoch"]]
        numbers = [epoch["epoch"] or 0 for epoch in shown]
        values = [math.nan if (value := epoch.get(name)) is None else value for epoch in shown]
        axes.plot(numbers, values, marker=".", label=label)
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def ablation_png(report: Mapping[str, Any], path: Path) -> None:
    """Each variant minus base, with its interval and its seeds, as PNG; the upper axis has the values themselves."""
    variants = report["variants"]
    dot: dict[str, Any] = {"color": STYLES["meta"][0], "marker": "o", "markersize": 7}
    seed_dot: dict[str, Any] = {"color": STYLES["uncalibrated"][0], "marker": "o", "markersize": 3.5, "linestyle": ""}
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(12, 2.2 + 0.42 * len(variants)), layout="constrained")
        for axes, (metric, title) in zip(figure.subplots(1, len(JUDGED), sharey=True), JUDGED.items(), strict=True):
            base = report["base"][metric]["value"]
            axes.axvline(0.0, color=STYLES["base"][0], linewidth=1.2)
            beside = axes.get_yaxis_transform()
            for row, variant in enumerate(variants):
                found = variant["compared"]
                if found is None:
                    axes.annotate("failed", (0.02, row), xycoords=beside, va="center", color="#b42318")
                    continue
                gap, seeds = found["minus_base"][metric], found["by_seed"][metric]
                ends = [gap[end] for end in ("low", "high") if gap[end] is not None]
                axes.plot(ends, [row] * len(ends), color=dot["color"])
                axes.plot(gap["value"], row, **dot)
                axes.plot([value - base for value in seeds], [row + 0.22] * len(seeds), **seed_dot)
            axes.set(xlabel=f"minus base ({base:.4f})", ylim=(len(variants) - 0.5, -0.5))
            axes.set_yticks(range(len(variants)), [variant["title"].replace(" (", "\n(") for variant in variants])
            axes.locator_params(axis="x", nbins=5)
            above = axes.secondary_xaxis("top", functions=(lambda x, b=base: x + b, lambda x, b=base: x - b))
            above.set_xlabel(title)
            above.locator_params(axis="x", nbins=5)
        interval = f"mean of seeds, {100 * report['confidence']:g} % interval over gene clusters"
        handles = [Line2D([], [], **dot, label=interval), Line2D([], [], **seed_dot, label="one seed")]
        figure.legend(handles=handles, loc="outside lower center", ncols=2)
        with publish_file(path) as draft:
            figure.savefig(draft, format="png", dpi=150)


def _unit_square(axes: Axes) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xticks=[0, 0.25, 0.5, 0.75, 1], yticks=[0, 0.25, 0.5, 0.75, 1])


@contextmanager
def _panel(size: tuple[float, float] = _PANEL) -> Iterator[tuple[Figure, Axes]]:
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=size, layout="constrained")
        yield figure, figure.subplots()


def _svg(figure: Figure, name: str, text: str) -> str:
    """The <svg> element alone, as wide as the page allows, with a text for those who do not see it.

    Its ids begin with `name`: a page has several, and each id once.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    found = buffer.getvalue()
    found = _NOT_SHOWN.sub("", found[found.index("<svg") :])
    found = re.sub(r"\s*\n\s*", "\n", found)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', found))
    found = re.sub(r' id="([^"]+)"', lambda at: f' id="{name}-{at[1]}"' if at[1] in used else "", found)
    found = re.sub(r'(url\(|href=")#', rf"\1#{name}-", found)
    found = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda at: re.sub(r"(\.\d)\d+", r"\1", at[0]), found)
    label = html.escape(text, quote=True)
    start = rf'<svg viewBox="\1" role="img" aria-label="{label}">'
    return re.sub(r'^<svg [^>]*?viewBox="([^"]+)"[^>]*>', lambda at: at.expand(start), found)
