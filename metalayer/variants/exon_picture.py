"""A variant as a picture: probabilities of REF over those of ALT, their difference, and the exons before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from metalayer.errors import InputError
from metalayer.evaluation.plots import SETTINGS
from metalayer.files import publish_file
from metalayer.genome import Variant
from metalayer.schema import ACCEPTOR, CLASSES, DONOR
from metalayer.variants.columns import Columns, Place
from metalayer.variants.definition import Aligned
from metalayer.variants.exon_layout import laid_out
from metalayer.variants.genes import GeneSites
from metalayer.variants.meaning import LABEL, Meaning, ShownExon
from metalayer.variants.scoring import GeneEffect
from metalayer.variants.words import frame_in_words, term_in_words

ENDINGS = (".png", ".svg", ".pdf")
COLOURS = {DONOR: "#0b5cad", ACCEPTOR: "#c2701c"}
_EXON, _NEW, _GONE, _GREY = "#57606a", "#1a7f37", "#b42318", "#8c959f"
_SHOWN = 0.005
"""Smaller probabilities are not drawn."""
_LONGEST = 20
"""Letters of an allele that are all written."""
_LABELLED = 0.1
"""Changes that are written at their stems."""


def refuse_other_names(path: Path) -> None:
    """See that the name of a picture says what it is.

    Raises:
        InputError: another ending.
    """
    if path.suffix.lower() not in ENDINGS:
        raise InputError(f"--plot {path}: needed is a name in {', '.join(ENDINGS)}")


def draw(path: Path, variant: Variant, genes: Sequence[GeneEffect]) -> None:
    """Draw a variant's largest change: one gene, all models below each other, 5' to 3'.

    Args:
        path: of the picture; its ending says in which form.
        variant: as it was asked.
        genes: what it does to each, with their tracks.

    Raises:
        InputError: another ending, or a place that cannot be written to.
    """
    refuse_other_names(path)
    gene = max(genes, key=lambda one: max(change.score for four in one.effects.values() for change in four or ()))
    names = [*gene.tracks]
    with mpl.rc_context({**SETTINGS, "axes.grid": False, "axes.titlelocation": "left"}):
        figure = Figure(figsize=(11, 0.9 + 5.1 * len(names)), layout="constrained")
        figure.suptitle(
            f"{_short(variant)}   {gene.symbol} ({gene.strand}), 5' to 3'",
            x=0.01,
            ha="left",
            fontsize=12,
            weight="bold",
        )
        rows = figure.subplots(4 * len(names), 1, height_ratios=[1, 1, 0.9, 0.95] * len(names), squeeze=False)[:, 0]
        for i, name in enumerate(names):
            _draw_model([*rows[4 * i : 4 * i + 4]], name, gene)
        handles = [Line2D([], [], color=COLOURS[kind], linewidth=3, label=CLASSES[kind]) for kind in COLOURS]
        handles += [
            Line2D([], [], color=_GREY, marker="v", linestyle="", markersize=6, label="annotated site"),
            Line2D([], [], color=_GREY, linestyle=":", label="variant"),
            Rectangle((0, 0), 1, 1, color=_NEW, label="only after"),  # type: ignore[list-item]
            Rectangle((0, 0), 1, 1, color=_GONE, label="only before"),  # type: ignore[list-item]
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8.5)
        with publish_file(path) as draft:
            figure.savefig(draft, format=path.suffix[1:].lower(), dpi=130)


def _short(variant: Variant) -> str:
    """Its text, without the middle of long alleles."""
    ref, alt = (
        letters if len(letters) <= _LONGEST else f"{letters[:6]}...({len(letters):,} nt)"
        for letters in (variant.ref, variant.alt)
    )
    return f"{variant.chrom}-{variant.position + 1}-{ref}-{alt}"


def _draw_model(rows: Sequence[Axes], name: str, gene: GeneEffect) -> None:
    found, meaning = gene.tracks[name], gene.meanings[name]
    columns = Columns(int(found.positions[0]), found.opened, found.surplus, gene.strand == "+")
    places = np.array([columns.turned(column) for column in range(len(found.positions))])
    for axes, values, exons, words in (
        (rows[0], found.reference, meaning.before, "REF"),
        (rows[1], found.alternative, meaning.after, "ALT"),
    ):
        _stems(axes, places, values[:, (DONOR, ACCEPTOR)])
        axes.set(ylim=(-0.24, 1.08), yticks=[0, 0.5, 1])
        _strip(axes, exons, columns, places)
        axes.set_ylabel(words)
    if gene.sites is not None:
        _mark_annotated(rows[0], gene.sites, columns, places)
    _stems(rows[2], places, (found.alternative - found.reference)[:, (DONOR, ACCEPTOR)], signed=True)
    rows[2].set(ylim=(-1.15, 1.15), yticks=[-1, 0, 1])
    rows[2].set_ylabel("ALT - REF")
    rows[0].set_title(name, weight="bold")
    for axes in rows[:3]:
        axes.set_xlim(places.min() - 1, places.max() + 1)
        axes.axhline(0, color="#d0d7de", linewidth=0.8, zorder=1)
        _mark_variant(axes, found, columns)
    for axes in rows[:2]:
        axes.set_xticks([])
    _ticks(rows[2], found, columns)
    _draw_exons(rows[3], meaning, gene.strand)


def _stems(axes: Axes, places: np.ndarray, values: np.ndarray, *, signed: bool = False) -> None:
    for column, kind in enumerate((DONOR, ACCEPTOR)):
        here = np.flatnonzero(np.abs(values[:, column]) >= _SHOWN)
        axes.vlines(places[here], 0, values[here, column], color=COLOURS[kind], linewidth=2.2, zorder=3)
        if signed:
            for i in here[np.abs(values[here, column]) >= _LABELLED]:
                value = float(values[i, column])
                axes.annotate(
                    f"{value:+.2f}",
                    (places[i], value),
                    xytext=(4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                    color=COLOURS[kind],
                )


def _strip(axes: Axes, exons: Sequence[ShownExon], columns: Columns, places: np.ndarray) -> None:
    """Exons to scale, below a track."""
    low, high = int(places.min()), int(places.max())
    spans = [(_sense(exon.first, columns), _sense(exon.last, columns)) for exon in exons]
    if spans:
        ends = max(low, min(first for first, _ in spans)), min(high, max(last for _, last in spans))
        axes.plot(ends, [-0.14, -0.14], color=_EXON, linewidth=1, zorder=2)
    for first, last in spans:
        if last >= low and first <= high:
            start, end = max(first, low), min(last, high)
            axes.add_patch(Rectangle((start - 0.5, -0.2), end - start + 1, 0.12, color=_EXON, zorder=3))


def _sense(place: Place, columns: Columns) -> int:
    position, inserted = place
    if inserted:
        return columns.turned(columns.opened + inserted - 1)
    return columns.turned(columns.column(position))


def _mark_annotated(axes: Axes, sites: GeneSites, columns: Columns, places: np.ndarray) -> None:
    for kind, known in ((DONOR, sites.donors), (ACCEPTOR, sites.acceptors)):
        at = np.array([columns.turned(columns.column(int(position))) for position in known])
        here = at[(at >= places.min()) & (at <= places.max())] if len(at) else at
        axes.plot(here, np.full(len(here), 1.08), "v", color=COLOURS[kind], markersize=6, clip_on=False, zorder=4)


def _mark_variant(axes: Axes, found: Aligned, columns: Columns) -> None:
    """A line at the change; what is inserted or deleted is shaded."""
    first = columns.turned(found.opened)
    last = columns.turned(found.opened + max(abs(found.surplus), 1) - 1)
    low, high = min(first, last), max(first, last)
    if found.surplus:
        axes.axvspan(low - 0.5, high + 0.5, color="#f6f0dc", zorder=0)
    else:
        low = high = columns.turned(found.opened - 1)
    axes.axvline((low + high) / 2, color=_GREY, linestyle=":", linewidth=1.2, zorder=2)


def _ticks(axes: Axes, found: Aligned, columns: Columns) -> None:
    """Positions of the reference, 1-based."""
    bases = [column for column in range(len(found.positions)) if not found.inserted[column]]
    chosen = [bases[i] for i in np.linspace(0, len(bases) - 1, 7).round().astype(int)]
    axes.set_xticks([columns.turned(column) for column in chosen])
    axes.set_xticklabels([f"{int(found.positions[column]) + 1:,}" for column in chosen])


def _draw_exons(axes: Axes, meaning: Meaning, strand: str) -> None:
    """Exons before and after, not to scale, and what is said of them."""
    said = ", ".join(map(term_in_words, meaning.terms)) if meaning.is_change else "no change of exons is called"
    frame = frame_in_words(meaning)
    axes.set_title(f"{said} ({LABEL})" + (f"\n{frame}" if frame else ""), fontsize=9.5)
    axes.set_axis_off()
    layout = laid_out(meaning, strand, room=1000, least=18)
    if layout is None:
        return
    axes.set(xlim=(-0.07 * layout.width, 1.01 * layout.width), ylim=(-0.5, 2.3))
    for level, word, exons, row, other in (
        (1.35, "before", meaning.before, layout.before, layout.after),
        (0.25, "after", meaning.after, layout.after, layout.before),
    ):
        colour = _GONE if word == "before" else _NEW
        axes.text(-0.01 * layout.width, level + 0.2, word, ha="right", va="center", fontsize=9)
        axes.plot([row[0][0], row[-1][1]], [level + 0.2] * 2, color=_EXON, linewidth=1, zorder=1)
        for exon, (start, end) in zip(exons, row, strict=True):
            axes.add_patch(Rectangle((start, level), end - start, 0.4, color=_EXON, zorder=2))
            for low, high in _outside((start, end), other):
                axes.add_patch(Rectangle((low, level), high - low, 0.4, color=colour, zorder=3))
            label = f"exon {exon.number}, {exon.length:,} nt" if exon.number else f"{exon.length:,} nt"
            axes.text((start + end) / 2, level - 0.08, label, ha="center", va="top", fontsize=7.5)


def _outside(one: tuple[int, int], others: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """What of an exon none of the other row covers."""
    left, found = one[0], []
    for start, end in sorted(others):
        if end <= left or start >= one[1]:
            continue
        if start > left:
            found.append((left, start))
        left = max(left, end)
    return [*found, (left, one[1])] if left < one[1] else found
