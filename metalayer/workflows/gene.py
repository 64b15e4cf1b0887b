"""One gene, or those of a region, scored and looked at: `metalayer gene`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalayer.contigs import listed
from metalayer.errors import ConfigError, InputError
from metalayer.genome import decode, normalise_chrom, normalise_gene_id, reverse_complement, unversioned
from metalayer.inference.predictor import sequence_track
from metalayer.regions import parse_region
from metalayer.schema import ACCEPTOR, BASE_SCORES, CLASSES, DONOR
from metalayer.settings.mistakes import closest
from metalayer.variants.calls import Opened
from metalayer.variants.genes import Genes, GeneSites
from metalayer.workflows.export_sites import called
from metalayer.workflows.stretches import BASE, META, Stretch

REFERENCE_SITES = {DONOR: "GT", ACCEPTOR: "AG"}
_LISTED = 5


@dataclass(frozen=True)
class ScoredGene:
    """A gene with the scores of all of its bases.

    Attributes:
        sites: the gene, and its annotated sites.
        stretch: scores of base and, where there is a model, meta.
        tokens: uint8 (L,), transcript sense.
    """

    sites: GeneSites
    stretch: Stretch
    tokens: NDArray[np.uint8]


@dataclass(frozen=True)
class ShownSite:
    """A site that is annotated, or that base or meta call.

    Attributes:
        position: 0-based genomic, of the exon base.
        kind: DONOR or ACCEPTOR.
        annotated: whether it is, in any isoform.
        scores: by system.
        called_by: systems that call it.
        motif: the two letters of the intron beside it, as the strand has them; empty at the end of a gene.
    """

    position: int
    kind: int
    annotated: bool
    scores: Mapping[str, float]
    called_by: tuple[str, ...]
    motif: str

    @property
    def differs(self) -> bool:
        """Whether base and meta disagree about it."""
        return META in self.scores and (META in self.called_by) != (BASE in self.called_by)


def find_genes(text: str, genes: Genes) -> list[GeneSites]:
    """The gene of a name or id, or the genes of a region, in the order of their places.

    Args:
        text: name, id with its version or without, or a region as `metalayer.regions` reads it.
        genes: of the annotation.

    Raises:
        InputError: none of that name, several of it, or none in the region; near names are offered.
    """
    if ":" in text and "-" in text:
        strands, place = parse_region(text)
        there = [
            one
            for one in genes.touched(normalise_chrom(place.chrom), place.start, place.end)
            if one.gene.strand in strands
        ]
        if not there:
            raise InputError(f"region {text!r}: no gene of the annotation lies there")
        return there
    wanted = normalise_gene_id(text)
    tests: tuple[Callable[[GeneSites], bool], ...] = (
        lambda one: normalise_gene_id(one.gene.gene_id) == wanted,
        lambda one: unversioned(normalise_gene_id(one.gene.gene_id)) == unversioned(wanted),
        lambda one: one.gene.gene_name == text,
        lambda one: (one.gene.gene_name or "").lower() == text.lower(),
    )
    for test in tests:
        found = [one for one in genes if test(one)]
        if len(found) > 1:
            named = ", ".join(f"{one.gene.gene_id} ({_place(one)})" for one in found[:_LISTED])
            raise InputError(f"gene {text!r}: {len(found)} genes have this name, {named}; give an id")
        if found:
            return found
    known = {name for one in genes for name in (one.gene.gene_id, one.gene.gene_name) if name}
    near = closest(text, known)
    meant = f"; did you mean {near}?" if near else f"; there are {listed(known)}"
    raise InputError(f"gene {text!r}: the annotation has no gene of that name or id on a contig of the FASTA{meant}")


def _place(one: GeneSites) -> str:
    span = one.gene.interval
    return f"{span.chrom}:{span.start + 1:,}-{span.end:,}:{one.gene.strand}"


def score_gene(one: GeneSites, loaded: Opened) -> ScoredGene:
    """Scores of every base of a gene, with the real letters around it.

    Args:
        one: the gene.
        loaded: reference, base models and our model.

    Raises:
        ConfigError: several base models without a model over them, or one that does not tell donors from acceptors.
    """
    models, predictor = loaded.bases, loaded.predictor
    if predictor is None and (len(models) > 1 or models[0].columns != BASE_SCORES):
        raise ConfigError(
            "--base: give one base model that tells donors from acceptors, or --model, which reads several"
        )
    span, key = one.gene.interval, one.gene.interval.chrom
    flank = max(model.flank_bp for model in models)
    first, last = max(0, span.start - flank), min(loaded.letters.lengths[key], span.end + flank)
    tokens = loaded.letters.tokens(key, first, last)
    cuts = span.start - first, span.end - first
    if not one.is_plus:
        tokens, cuts = reverse_complement(tokens), (len(tokens) - cuts[1], len(tokens) - cuts[0])
    before, inside, after = (decode(part) for part in np.split(tokens, cuts))
    bases = {model.name: model.score(inside, before, after) for model in models}
    evidence = loaded.evidence.values(one.gene) if loaded.evidence else {}
    track = sequence_track(inside, bases if len(models) > 1 else next(iter(bases.values())), evidence)
    scores = {BASE: predictor.best_base(track) if predictor else track.scores}
    if predictor is not None:
        scores[META] = predictor.predict_gene_track(track)
    ascending = {name: values if one.is_plus else values[::-1] for name, values in scores.items()}
    stretch = Stretch(
        key,
        one.gene.strand,
        span.start,
        {name: np.ascontiguousarray(values[:, :2]) for name, values in ascending.items()},
        (one.gene.gene_id,),
    )
    return ScoredGene(one, stretch, tokens[cuts[0] : cuts[1]])


def sites_of(gene: ScoredGene, threshold: float) -> list[ShownSite]:
    """Annotated and called sites, in transcript sense.

    Args:
        gene: scored.
        threshold: least probability of a called site.
    """
    one, sites = gene.stretch, gene.sites
    annotated = {(int(at), kind) for kind, places in _annotated(sites) for at in places}
    callers: dict[tuple[int, int], list[str]] = {}
    for system in one.scores:
        found = called(one, system, threshold)
        places = one.start + found.positions if one.strand == "+" else one.end - 1 - found.positions
        for at, kind in zip(places.tolist(), found.kinds.tolist(), strict=True):
            callers.setdefault((at, kind), []).append(system)
    shown = []
    for at, kind in annotated | callers.keys():
        if not one.start <= at < one.end:
            continue
        scores = {name: float(values[at - one.start, _column(kind)]) for name, values in one.scores.items()}
        who = tuple(callers.get((at, kind), ()))
        shown.append(ShownSite(at, kind, (at, kind) in annotated, scores, who, _motif(gene, at, kind)))
    return sorted(shown, key=lambda site: (site.position if one.strand == "+" else -site.position, -site.kind))


def _annotated(sites: GeneSites) -> Iterator[tuple[int, Iterable[int]]]:
    yield DONOR, sites.donors.tolist()
    yield ACCEPTOR, sites.acceptors.tolist()


def _column(kind: int) -> int:
    return 0 if kind == DONOR else 1


def _motif(gene: ScoredGene, at: int, kind: int) -> str:
    one = gene.stretch
    index = at - one.start if one.strand == "+" else one.end - 1 - at
    start = index + 1 if kind == DONOR else index - 2
    return decode(gene.tokens[start : start + 2]) if 0 <= start <= len(gene.tokens) - 2 else ""


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


def summary_of(gene: ScoredGene, shown: Sequence[ShownSite]) -> list[str]:
    """How many of the annotated sites each system calls, and how many others."""
    lines = []
    total = sum(site.annotated for site in shown)
    for system in gene.stretch.scores:
        found = sum(site.annotated and system in site.called_by for site in shown)
        others = sum(not site.annotated and system in site.called_by for site in shown)
        lines.append(f"{system} calls {found} of {total} annotated sites, and {others} that are not annotated")
    return lines


def as_json(gene: ScoredGene, shown: Sequence[ShownSite], contig: str) -> dict[str, Any]:
    """A gene with its sites, JSON-ready; positions 1-based."""
    span = gene.sites.gene.interval
    return {
        "gene_id": gene.sites.gene.gene_id,
        "gene_name": gene.sites.gene.gene_name or None,
        "contig": contig,
        "strand": gene.sites.gene.strand,
        "start": span.start + 1,
        "end": span.end,
        "sites": [
            {
                "position": site.position + 1,
                "kind": CLASSES[site.kind],
                "annotated": site.annotated,
                "motif": site.motif,
                "called_by": list(site.called_by),
                **site.scores,
            }
            for site in shown
        ],
    }


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
                values = one.scores[system][:, _column(kind)]
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
        for kind, places in _annotated(gene.sites):
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
