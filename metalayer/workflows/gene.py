"""One gene, or those of a region, scored and looked at on a terminal or as a picture: `metalayer gene`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metalayer.schema import ACCEPTOR, CLASSES, DONOR
from metalayer.variants.whole_gene import REFERENCE_SITES, ScoredGene, ShownSite, annotated_of, column_of


def table_of(gene: ScoredGene, shown: Sequence[ShownSite], contig: str) -> list[str]:
    """Sites as lines for a terminal; those about which base and meta disagree have a mark."""
    systems = list(gene.stretch.scores)
    head = (
        f"  {'site':<9} {'place':<22} {'motif':<6}"
        + "".join(f" {name:>7}" for name in systems)
        + "  annotated  called by"
    )
    lines = [head]
    for site in shown:
        motif = site.motif + (" " if site.motif in (REFERENCE_SITES[site.kind], "") else "!")
        numbers = "".join(f" {site.scores[name]:>7.4f}" for name in systems)
        known, who = "yes" if site.annotated else "no", ", ".join(site.called_by) or "none"
        mark = "*" if site.differs else " "
        place = f"{contig}:{site.position + 1:,}"
        lines.append(f"{mark} {CLASSES[site.kind]:<9} {place:<22} {motif:<6}{numbers}  {known:<9}  {who}")
    return lines


def draw(path: Path, gene: ScoredGene, shown: Sequence[ShownSite], contig: str) -> None:
    """A picture: a strip of scores a system, and the annotated exons below; in genomic order.

    Args:
        path: `.png`, `.svg` or `.pdf`.
        gene: scored.
        shown: its sites.
        contig: as it stands in the reference.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    from metalayer.evaluation.plots import SETTINGS
    from metalayer.files import publish_file
    from metalayer.variants.exon_picture import COLOURS

    one, systems = gene.stretch, list(gene.stretch.scores)
    names = {DONOR: "donor", ACCEPTOR: "acceptor"}
    with mpl.rc_context(SETTINGS):
        figure = Figure(figsize=(11, 1.6 * len(systems) + 1.3), layout="constrained")
        rows = figure.subplots(len(systems) + 1, 1, sharex=True, height_ratios=[*([1.6] * len(systems)), 0.9])
        for axes, system in zip(rows, systems, strict=False):
            for kind, colour in COLOURS.items():
                values = one.scores[system][:, column_of(kind)]
                at = np.flatnonzero(values >= 0.01)
                axes.vlines(one.start + at + 1, 0, values[at], color=colour, linewidth=1.2, label=names[kind])
            for site in shown:
                if site.differs and system in site.called_by:
                    axes.plot(
                        site.position + 1, min(site.scores[system] + 0.08, 1.1), "v", color="#24292f", markersize=4
                    )
            axes.set_ylim(0, 1.15)
            axes.set_yticks([0, 0.5, 1])
            axes.set_ylabel(system)
            axes.axhline(0, color="#8c959f", linewidth=0.6)
        rows[0].legend(loc="upper right", ncols=2, frameon=False)
        below = rows[-1]
        exons = sorted({tuple(map(int, exon)) for isoform in gene.sites.transcripts for exon in isoform.exons.tolist()})
        below.axhline(0.5, color="#57606a", linewidth=0.8)
        for start, end in exons:
            below.axvspan(start + 1, end, 0.25, 0.75, color="#57606a", linewidth=0.8)
        for kind, places in annotated_of(gene.sites):
            below.plot([at + 1 for at in places], [0.05] * len(list(places)), "|", color=COLOURS[kind], markersize=6)
        below.set_ylim(0, 1)
        below.set_yticks([])
        below.set_ylabel("annotated")
        below.set_xlim(one.start + 1, one.end)
        below.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        below.set_xlabel(f"{contig}, strand {one.strand}; triangles: called by one of base and meta alone")
        span = gene.sites.gene.interval
        figure.suptitle(f"{gene.sites.symbol}  {contig}:{span.start + 1:,}-{span.end:,}")
        with publish_file(path) as draft:
            figure.savefig(draft, format=path.suffix.lstrip(".").lower(), dpi=140)
