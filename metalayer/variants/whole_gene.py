"""One gene, or those of a region, scored: what `metalayer gene` and the page of a server show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalayer.contigs import listed
from metalayer.errors import ConfigError, InputError
from metalayer.gene_track import GeneTrack
from metalayer.genome import Interval, decode, normalise_chrom, normalise_gene_id, reverse_complement, unversioned
from metalayer.inference.predictor import Predictor, sequence_track
from metalayer.regions import parse_region
from metalayer.schema import ACCEPTOR, BASE_SCORES, CLASSES, DONOR
from metalayer.settings.mistakes import closest
from metalayer.sites.stretch import BASE, META, Stretch, called
from metalayer.variants.calls import Opened
from metalayer.variants.genes import Genes, GeneSites

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


def score_gene(one: GeneSites, loaded: Opened, within: tuple[int, int] | None = None) -> ScoredGene:
    """Scores of every base of a gene, or of a part of it, with the real letters around it.

    Args:
        one: the gene.
        loaded: reference, base models and our model.
        within: 0-based half-open genomic; what of it lies in the gene gets the scores that the whole gene would give
            it, without scoring the rest. None: all of the gene.

    Raises:
        ConfigError: several base models without a model over them, or one that does not tell donors from acceptors.
        InputError: a part that lies outside the gene.
    """
    refuse_unread(loaded)
    gene, predictor = one.gene.interval, loaded.predictor
    start, end = gene.start, gene.end
    if within is not None:
        reach = predictor.reach_bp if predictor else 0
        start, end = max(gene.start, within[0] - reach), min(gene.end, within[1] + reach)
        if max(gene.start, within[0]) >= min(gene.end, within[1]):
            raise InputError(f"{_place(one)}: {within[0] + 1:,}-{within[1]:,} lies outside this gene")
    track = part_of(one, loaded, start, end)
    ascending = {name: values if one.is_plus else values[::-1] for name, values in scores_of(track, predictor).items()}
    stretch = Stretch(
        gene.chrom,
        one.gene.strand,
        start,
        {name: np.ascontiguousarray(values[:, :2]) for name, values in ascending.items()},
        (one.gene.gene_id,),
    )
    if within is None:
        return ScoredGene(one, stretch, track.tokens)
    part = stretch.cut(*within)
    assert part is not None
    low, high = part.start - start, part.end - start
    kept = slice(low, high) if one.is_plus else slice(end - start - high, end - start - low)
    return ScoredGene(one, part, track.tokens[kept])


def refuse_unread(loaded: Opened) -> None:
    """Refuse base models whose scores of a gene cannot be shown as they are.

    Raises:
        ConfigError: several without a model over them, or one that does not tell donors from acceptors.
    """
    if loaded.predictor is None and (len(loaded.bases) > 1 or loaded.bases[0].columns != BASE_SCORES):
        raise ConfigError(
            "--base: give one base model that tells donors from acceptors, or --model, which reads several"
        )


def part_of(one: GeneSites, loaded: Opened, start: int, end: int) -> GeneTrack:
    """What our model reads of bases [start, end) of a gene, in transcript sense; base models see the letters around."""
    flank, key = max(model.flank_bp for model in loaded.bases), one.gene.interval.chrom
    first, last = max(0, start - flank), min(loaded.letters.lengths[key], end + flank)
    tokens = loaded.letters.tokens(key, first, last)
    cuts = start - first, end - first
    if not one.is_plus:
        tokens, cuts = reverse_complement(tokens), (len(tokens) - cuts[1], len(tokens) - cuts[0])
    before, inside, after = (decode(part) for part in np.split(tokens, cuts))
    place = replace(one.gene, interval=Interval(key, start, end))
    evidence = loaded.evidence.values(place) if loaded.evidence else {}
    return track_of(loaded, inside, before, after, evidence)


def track_of(
    loaded: Opened,
    sequence: str,
    before: str = "",
    after: str = "",
    evidence: Mapping[str, NDArray[np.float32]] | None = None,
) -> GeneTrack:
    """What our model reads of a sequence: its letters, the scores of each base model, and evidence.

    Args:
        loaded: base models.
        sequence: letters (L), transcript sense.
        before: letters around it, which base models see.
        after: likewise.
        evidence: float32 (L,) by name, transcript sense; NaN is missing, and so is what is not given.
    """
    bases = {model.name: model.score(sequence, before, after) for model in loaded.bases}
    return sequence_track(sequence, bases if len(bases) > 1 else next(iter(bases.values())), evidence)


def scores_of(track: GeneTrack, predictor: Predictor | None) -> dict[str, NDArray[np.float32]]:
    """Scores by `BASE` and, where there is a model, `META`: float32 (L, 3), transcript sense."""
    if predictor is None:
        return {BASE: track.scores}
    return {BASE: predictor.best_base(track), META: predictor.predict_gene_track(track)}


def sites_of(gene: ScoredGene, threshold: float) -> list[ShownSite]:
    """Annotated and called sites, in transcript sense.

    Args:
        gene: scored.
        threshold: least probability of a called site.
    """
    one, sites = gene.stretch, gene.sites
    annotated = {(int(at), kind) for kind, places in annotated_of(sites) for at in places}
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
        scores = {name: float(values[at - one.start, column_of(kind)]) for name, values in one.scores.items()}
        who = tuple(callers.get((at, kind), ()))
        shown.append(ShownSite(at, kind, (at, kind) in annotated, scores, who, _motif(gene, at, kind)))
    return sorted(shown, key=lambda site: (site.position if one.strand == "+" else -site.position, -site.kind))


def annotated_of(sites: GeneSites) -> Iterator[tuple[int, Iterable[int]]]:
    """Annotated sites of a gene by kind, 0-based genomic."""
    yield DONOR, sites.donors.tolist()
    yield ACCEPTOR, sites.acceptors.tolist()


def column_of(kind: int) -> int:
    """The column of a kind of site in `Stretch.scores`."""
    return 0 if kind == DONOR else 1


def _motif(gene: ScoredGene, at: int, kind: int) -> str:
    one = gene.stretch
    index = at - one.start if one.strand == "+" else one.end - 1 - at
    start = index + 1 if kind == DONOR else index - 2
    return decode(gene.tokens[start : start + 2]) if 0 <= start <= len(gene.tokens) - 2 else ""


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
