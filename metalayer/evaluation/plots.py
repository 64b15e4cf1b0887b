"""Curves as SVG text and an ablation as PNG, by matplotlib without its global state."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from metalayer.evaluation.metrics import ECE_BINS, TARGETS, ap_name
from metalayer.files import publish_file
from metalayer.metric_list import JUDGED

STYLES: dict[str, tuple[str, str]] = {
    "base": ("#7d8590", "-"),
    "uncalibrated": ("#c2701c", "--"),
    "meta": ("#0b5cad", "-"),
}
"""Colour and line of each system, in the order in which they are drawn."""
_SETTINGS = {
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


def precision_recall_svg(report: Mapping[str, Any]) -> str:
    """Precision over recall of splice, donor and acceptor scores, base and meta."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(10.4, 3.5), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(TARGETS), sharey=True), TARGETS, strict=True):
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
            axes.set(title=f"{name}", xlabel="recall")
            axes.legend(loc="lower left", title="average precision", title_fontsize=8.5, fontsize=9, alignment="left")
        figure.axes[0].set_ylabel("precision")
        return _svg(figure)


def reliability_svg(report: Mapping[str, Any]) -> str:
    """Observed share of sites over predicted probability, and how many positions each bin holds."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(10.4, 3.5), layout="constrained")
        curve_axes, count_axes = figure.subplots(1, 2, width_ratios=(1, 1.25))
        curve_axes.plot([0, 1], [0, 1], ":", color="#8c959f", linewidth=1)
        for system, (colour, line) in STYLES.items():
            if system not in report["curves"]:
                continue
            bins = report["curves"][system]["reliability"]
            label = f"{system}  {report[system]['ece']:.2g}"
            curve_axes.plot(
                [one["mean"] for one in bins],
                [one["observed"] for one in bins],
                line,
                color=colour,
                marker="o",
                markersize=3.5,
                label=label,
            )
            counts = [0] * ECE_BINS
            for one in bins:  # empty bins are left out of the report
                counts[min(int(one["mean"] * ECE_BINS), ECE_BINS - 1)] += one["count"]
            edges = [i / ECE_BINS for i in range(ECE_BINS + 1)]
            count_axes.stairs(counts, edges, color=colour, linestyle=line, linewidth=1.8, baseline=None, zorder=3)
        _unit_square(curve_axes)
        curve_axes.set(title="reliability", xlabel="P(donor) + P(acceptor), mean of the bin", ylabel="share of sites")
        curve_axes.legend(loc="upper left", title="ECE", title_fontsize=8.5, fontsize=9, alignment="left")
        count_axes.set(
            title="positions in each bin" if report["unit"] == "positions" else "rows in each bin",
            xlabel="P(donor) + P(acceptor)",
            yscale="symlog",
            xlim=(0, 1),
        )
        count_axes.set_ylim(bottom=0)
        return _svg(figure)


def log_reliability_svg(report: Mapping[str, Any]) -> str:
    """Observed share of sites over the score in narrow bins, on log-odds, base beside meta, with intervals."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(10.4, 4.2), layout="constrained")
        axes = figure.subplots(1, 1)
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
        axes.set(
            title="reliability in bins of two a power of ten",
            xlabel="P(donor) + P(acceptor), mean of the bin",
            ylabel="share of sites",
        )
        axes.legend(loc="upper left", fontsize=9)
        return _svg(figure)


def ablation_png(report: Mapping[str, Any], path: Path) -> None:
    """Each variant minus base, with its interval and its seeds, as PNG; the upper axis has the values themselves."""
    variants = report["variants"]
    dot: dict[str, Any] = {"color": STYLES["meta"][0], "marker": "o", "markersize": 7}
    seed_dot: dict[str, Any] = {"color": STYLES["uncalibrated"][0], "marker": "o", "markersize": 3.5, "linestyle": ""}
    with mpl.rc_context(_SETTINGS):
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


def _svg(figure: Figure) -> str:
    """The <svg> element alone, without metadata, as wide as the page allows."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r'^<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" role="img">', text)
