"""Genes and their splice sites from GTF or GFF3.

A site is annotated where any transcript of the gene has an intron: the last base of the exon before is a donor, the
first base of the exon after an acceptor. An exon belongs to the genes that its `Parent`s lead to (GFF3; parents may
stand after their children), else to its `gene_id`. A gene line ends the way up, whatever it has for a Parent. A feature
without `ID` is nobody's parent. An `ID` that several lines give, with other Parents or for a gene and a transcript, is
the one in whose gene the exon lies.

One odd gene does not spoil a file: what cannot be read for sure is left out, counted by its reason (`REASONS`), and
never guessed. Where an exon of a transcript is lost, the transcript is: its other exons would make introns that are
none. A file of which too much is lost is refused. What is done with which form stands in docs/base_layer.md.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from metalayer.base.annotation_lines import BARE, Line, read_lines
from metalayer.contigs import CHROMOSOME, Contigs
from metalayer.errors import InputError
from metalayer.genome import Gene, chrom_order, normalise_gene_id, one_based
from metalayer.schema import ACCEPTOR, DONOR, NEITHER

MIN_INTRON_BP = 20
"""Shorter gaps between exons are frameshifts and traces of lift-over: no spliceosome removes so little."""
MAX_LOST = 0.1
"""Share of exons that lead to no gene, and of genes left out, above which a file is refused."""
_COPIED_EXONS = 3
ALWAYS_ALLOWED = 10
"""So many of them may be whatever their share is."""
_BESIDE_EXONS = frozenset(
    [
        "CDS",
        "UTR",
        "five_prime_UTR",
        "three_prime_UTR",
        "five_prime_utr",
        "three_prime_utr",
        "start_codon",
        "stop_codon",
    ]
)
"""About half of the lines of an annotation, which say nothing of genes or introns."""
_BIOTYPES = ("gene_biotype", "gene_type", "transcript_biotype", "transcript_type", "gbkey", "biotype")

_ORPHANS = {
    "exons_without_a_gene": "exons without Parent and gene_id",
    "exons_whose_parent_is_unknown": "exons whose Parent has no line",
    "exons_whose_parents_form_a_circle": "exons whose Parents form a circle",
    "exons_whose_parent_is_ambiguous": "exons whose Parent's ID several lines give for different genes",
    "exons_of_a_transcript_without_a_gene": "exons of a transcript whose line names no gene",
}
_LEFT_OUT = {
    "genes_in_two_places": "genes whose id stands in two places of a chromosome, as of trans-spliced ones",
    "genes_with_a_transcript_in_two_places": "genes with a transcript in two places",
    "genes_without_a_strand": "genes without a strand",
    "genes_with_an_exon_outside": "genes with an exon outside their gene line",
    "genes_whose_isoforms_cannot_be_told_apart": "genes whose exons overlap and name no transcript",
}
REASONS = {
    **_ORPHANS,
    **_LEFT_OUT,
    "exons_of_tRNA_without_a_gene": "exons of tRNAs without a gene",
    "exons_without_a_strand": "exons without a strand, left out with their transcripts",
    "genes_whose_exons_have_no_strand": "genes all of whose exons are without a strand",
    "exons_on_the_other_strand_of_their_gene": "exons on the other strand of their gene, left out with their "
    "transcripts",
    "genes_without_an_exon": "genes without an exon that can be used",
    "genes_without_an_id": "gene lines without an id",
    "genes_on_several_chromosomes": "genes of an id that is also on another chromosome, named apart",
    "genes_beyond_their_chromosome": "genes that end beyond their chromosome, as across the origin of a circular one",
    "genes_of_N": "genes whose letters are all N, as on a masked Y",
    "genes_named_as_their_transcript": "overlapping genes whose id is that of their only transcript: isoforms that "
    "stand as genes, with labels against each other (UCSC's table browser writes so; its genePredToGtf does not)",
    "exons_merged": "exons that overlap or touch another of their transcript, merged",
    "exons_of_one_base": "exons of one base, whose base is labelled donor",
    "gaps_too_short_for_an_intron": "gaps between exons that are shorter than an intron",
    "introns_of_tRNA": "introns of tRNAs, which no spliceosome removes: not labelled",
    "exons_whose_id_names_their_transcript": "exons whose Parent is a gene, put into the transcript that their ID "
    "begins with",
    "lines_not_in_utf8": "lines that are no UTF-8, read as Latin-1",
}
"""What is done with what is odd, in words; first the reasons for which an exon is in no gene, then those of genes."""


class Introns(NamedTuple):
    """Introns of one transcript, 0-based half-open on the plus strand, ascending, and what its exons needed."""

    places: list[tuple[int, int]]
    handled: Counter[str]


def introns_of(exons: Iterable[tuple[int, int]], min_intron_bp: int = MIN_INTRON_BP) -> Introns:
    """The introns between the exons of one transcript: the one place that decides what an intron is.

    Exons that overlap, lie in one another or touch are one, and so are those whose gap is too short.

    Args:
        exons: 0-based half-open on the plus strand, in any order.
        min_intron_bp: least length.
    """
    merged: list[tuple[int, int]] = []
    handled: Counter[str] = Counter()
    for start, end in sorted(set(exons)):
        gap = start - merged[-1][1] if merged else min_intron_bp
        if gap >= min_intron_bp:
            merged.append((start, end))
            continue
        handled["gaps_too_short_for_an_intron" if gap > 0 else "exons_merged"] += 1
        merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
    if len(merged) > 1:
        handled["exons_of_one_base"] += sum(end - start == 1 for start, end in merged[1:-1])
    return Introns([(end, start) for (_, end), (start, _) in pairwise(merged)], +handled)


@dataclass
class AnnotatedGene:
    """A gene and the exons of its transcripts, each 0-based half-open on the plus strand.

    Attributes:
        gene: its place.
        exons: by transcript.
        unspliced: transcripts whose introns no spliceosome removes (tRNA).
        min_intron_bp: least length of an intron.
    """

    gene: Gene
    exons: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    unspliced: set[str] = field(default_factory=set)
    min_intron_bp: int = MIN_INTRON_BP

    def introns(self) -> list[tuple[int, int]]:
        """Distinct introns of the spliceosome, 0-based half-open on the plus strand, ascending."""
        found: set[tuple[int, int]] = set()
        for transcript, exons in self.exons.items():
            if transcript not in self.unspliced:
                found.update(introns_of(exons, self.min_intron_bp).places)
        return sorted(found)

    def handled(self) -> Counter[str]:
        """What the exons needed, over all transcripts."""
        found: Counter[str] = Counter()
        for transcript, exons in self.exons.items():
            introns = introns_of(exons, self.min_intron_bp)
            if transcript in self.unspliced:
                found["introns_of_tRNA"] += len(introns.places)
            else:
                found += introns.handled
        return found

    def labels(self) -> NDArray[np.uint8]:
        """Class of every exon base in transcript sense, uint8 (L,); a base that is both is a donor."""
        labels = np.full(len(self.gene), NEITHER, dtype=np.uint8)
        sites = [self.gene.sites_of_intron(*intron) for intron in self.introns()]
        labels[[acceptor for _, acceptor in sites]] = ACCEPTOR
        labels[[donor for donor, _ in sites]] = DONOR
        return labels


@dataclass
class Annotation:
    """What a file holds.

    Attributes:
        genes: ordered by chromosome as they come and by start.
        handled: what was left out, renamed or read otherwise, and how often; keys of `REASONS`.
        names: of the chromosomes, as they stand in the file, by ours.
        lengths: of chromosomes in nt, where the file states them.
    """

    genes: list[AnnotatedGene]
    handled: dict[str, int]
    names: dict[str, str]
    lengths: dict[str, int]


class _Exon(NamedTuple):
    line: int
    parents: tuple[str, ...]
    transcript_id: str
    gene_id: str
    chrom: str
    strand: str
    start: int
    end: int
    number: str
    own: str


_Key = tuple[str, str]
"""A gene is known by its id and chromosome."""


@dataclass
class _Lines:
    """What the lines say, before they are put together."""

    contigs: Contigs = field(default_factory=Contigs)
    chroms: dict[str, str] = field(default_factory=dict)  # our name by that of the file
    lengths: dict[str, int] = field(default_factory=dict)  # by the name of the file
    places: dict[_Key, tuple[str, int, int]] = field(default_factory=dict)
    names: dict[_Key, str] = field(default_factory=dict)
    gene_ids: dict[str, dict[str, None]] = field(default_factory=dict)  # GFF3: ID of gene lines to their gene_ids
    parents: dict[str, dict[tuple[str, ...], None]] = field(
        default_factory=dict
    )  # GFF3: ID to the Parents of its lines
    exons: list[_Exon] = field(default_factory=list)
    placed: set[str] = field(default_factory=set)  # gene_ids of gene lines
    spots: dict[_Key, tuple[int, int]] = field(default_factory=dict)  # of transcript lines, by id and chromosome
    trnas: set[str] = field(default_factory=set)  # ids of transcripts and genes
    odd: dict[_Key, tuple[str, int]] = field(default_factory=dict)  # genes to leave out: reason and line
    twice: set[_Key] = field(default_factory=set)  # transcripts in two places
    transcripts: dict[str, dict[str, None]] = field(default_factory=dict)  # by Parent or gene_id
    first_exon: dict[_Key, int] = field(default_factory=dict)  # of each gene, its line
    handled: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)  # reason to its first line

    def chrom(self, name: str) -> str:
        """Our name of a contig."""
        if name not in self.chroms:
            self.chroms[name] = sys.intern(self.contigs.key(name))
        return self.chroms[name]

    def count(self, reason: str, line: int) -> None:
        self.handled[reason] += 1
        self.first.setdefault(reason, line)

    def genes_of(self, name: str) -> _Owners:
        """The genes that a GFF3 feature's name, and the Parents of the feature, lead to."""
        found: dict[str, None] = {}
        one_way, circle = True, False
        waiting: list[tuple[str, tuple[str, ...]]] = [(name, (name,))]
        while waiting:
            at, way = waiting.pop()
            lines, genes = self.parents.get(at, {}), self.gene_ids.get(at, {})
            one_way &= len(lines) + len(genes) < 2 or lines.keys() == {(at,)}
            found |= genes
            if not genes and not lines and at != name:
                found[normalise_gene_id(at)] = None  # a transcript whose gene has no line of its own still names it
            for parent in dict.fromkeys(parent for line in lines for parent in line):
                if parent in way:
                    circle = True
                else:
                    waiting.append((parent, (*way, parent)))
        reason = "exons_whose_parents_form_a_circle" if circle else "exons_whose_parent_is_unknown"
        if not found and name in self.parents and self.parents[name].keys() == {()}:
            reason = "exons_of_tRNA_without_a_gene" if name in self.trnas else "exons_of_a_transcript_without_a_gene"
        return _Owners(tuple(found), one_way, reason)

    def fits(self, gene_id: str, exon: _Exon) -> bool:
        """Whether an exon lies in a gene; a gene without a line of its own is where its exons are."""
        place = self.places.get((gene_id, exon.chrom))
        if place is None:
            return gene_id not in self.placed
        strand, start, end = place
        return exon.strand == strand and start <= exon.start and exon.end <= end


class _Owners(NamedTuple):
    """Genes of a transcript; `one_way`: by Parents alone, and by no ID that several lines give otherwise."""

    genes: tuple[str, ...]
    one_way: bool
    reason_for_none: str


class _Owned(NamedTuple):
    """Transcripts and genes of an exon, those that may have had it, and why it is in none of them."""

    by: list[_Key]
    lost_by: list[_Key]
    reasons: list[str]


def read_annotation(path: Path, min_intron_bp: int = MIN_INTRON_BP, contigs: Contigs | None = None) -> Annotation:
    """Genes of an annotation.

    A gene id on several contigs (the pseudoautosomal genes of X and Y, alternative loci) is several genes: that of the
    chromosome keeps the id, before one of a scaffold, and that before one of an alternative locus or patch; the others
    get `_` and their contig after it.

    Args:
        path: GTF or GFF3, plain or compressed.
        min_intron_bp: least length of an intron; shorter gaps are within an exon.
        contigs: which names are of one contig; None for the rules alone.

    Raises:
        InputError: no such file, a damaged one, lines that are no GTF or GFF3, too much that is left out, or no gene
            with an exon.
    """
    lines = _read(path, contigs or Contigs())
    genes = _genes(lines, min_intron_bp)
    _refuse_ruins(path, lines, len(genes))
    lines.handled["genes_without_an_exon"] = len(lines.places.keys() - genes.keys() - lines.odd.keys())
    named = _named_apart(genes, lines)
    first_seen = {gene.gene.interval.chrom: i for i, gene in reversed(list(enumerate(named)))}
    named.sort(key=lambda g: (first_seen[g.gene.interval.chrom], g.gene.interval.start, g.gene.gene_id))
    for gene in named:
        lines.handled += gene.handled()
    lines.handled["genes_named_as_their_transcript"] = _isoforms_as_genes(named)
    handled = {name: count for name, count in sorted(lines.handled.items()) if count}
    names = {ours: theirs for theirs, ours in reversed(lines.chroms.items())}
    return Annotation(named, handled, names, {lines.chrom(name): length for name, length in lines.lengths.items()})


def in_words(handled: Mapping[str, int]) -> list[str]:
    """What was left out or read otherwise, a line a reason."""
    return [f"{handled[reason]:,} {words}" for reason, words in REASONS.items() if handled.get(reason)]


def _refuse_ruins(path: Path, lines: _Lines, genes: int) -> None:
    """An annotation of which so much is lost that what is left would mislead."""

    def causes(reasons: Iterable[str]) -> str:
        return "; ".join(
            f"{lines.handled[reason]} {REASONS[reason]}, first in line {lines.first[reason]}"
            for reason in reasons
            if lines.handled[reason]
        )

    orphans = sum(lines.handled[reason] for reason in _ORPHANS)
    if orphans and (not genes or orphans > max(ALWAYS_ALLOWED, MAX_LOST * len(lines.exons))):
        raise InputError(
            f"annotation {path}: {orphans} of {len(lines.exons)} exons lead to no gene ({causes(_ORPHANS)}); an exon "
            "needs a gene_id, or a Parent whose line leads to a gene"
        )
    left_out = sum(lines.handled[reason] for reason in _LEFT_OUT)
    if left_out and (not genes or left_out > max(ALWAYS_ALLOWED, MAX_LOST * (genes + left_out))):
        raise InputError(
            f"annotation {path}: {left_out} of {genes + left_out} genes would be left out ({causes(_LEFT_OUT)}); at "
            f"most {ALWAYS_ALLOWED}, or {100 * MAX_LOST:g} %, may be. Give an annotation in which each gene has one "
            "place and exons name their transcripts"
        )
    if not genes:
        strandless = lines.handled["exons_without_a_strand"]
        raise InputError(
            f"annotation {path}: no gene with an exon; it needs gene (optional) and exon lines, GTF or GFF3"
            + (f" ({strandless} exons have no strand)" if strandless else "")
        )


def _read(path: Path, contigs: Contigs) -> _Lines:
    lines = _Lines(contigs)
    children: list[tuple[str, tuple[str, ...], Line]] = []  # gene lines with a Parent
    for line in read_lines(path, _BESIDE_EXONS, lines.handled, lines.lengths):
        named = line.attributes
        parents = tuple(dict.fromkeys(_shared(name) for name in named.get("Parent", "").split(",") if name.strip()))
        gene_id = normalise_gene_id(_shared(named.get("gene_id", "")))
        own = unquote(named.get("ID", ""))
        if _is_trna(line.kind) or any(_is_trna(named.get(name, "")) for name in _BIOTYPES):
            lines.trnas.update(name for name in (own, gene_id, _shared(named.get("transcript_id", ""))) if name)
        if line.kind == "exon":
            lines.exons.append(_exon(line, parents, gene_id, own, lines))
        elif line.kind.endswith("gene"):
            gene_id = gene_id or normalise_gene_id(own or named.get(BARE, ""))
            if parents:
                children.append((gene_id, parents, line))
            else:
                _add_gene(lines, gene_id, own, line)
        elif own:
            parents = parents or ((unquote(named["geneID"]),) if named.get("geneID") else ())
            lines.parents.setdefault(own, {})[parents] = None
            _add_transcript(lines, own, line, parents, same_parents=len(lines.parents[own]) == 1)
        elif named.get("transcript_id"):
            _add_transcript(lines, _shared(named["transcript_id"]), line, (gene_id,))
    for gene_id, parents, line in children:
        own = unquote(line.attributes.get("ID", ""))
        if any(parent in lines.gene_ids for parent in parents):  # a part of that gene
            if own:
                lines.parents.setdefault(own, {})[parents] = None
        else:
            _add_gene(lines, gene_id, own, line)
    return lines


def _exon(line: Line, parents: tuple[str, ...], gene_id: str, own: str, lines: _Lines) -> _Exon:
    transcript = "" if parents else _shared(line.attributes.get("transcript_id", ""))
    chrom, strand = lines.chrom(line.chrom), sys.intern(line.strand)
    number = sys.intern(line.attributes.get("exon_number", ""))
    own = own if any(parent in lines.gene_ids for parent in parents) else ""  # else it says nothing more
    return _Exon(line.number, parents, transcript, gene_id, chrom, strand, line.start, line.end, number, own)


def _add_gene(lines: _Lines, gene_id: str, own: str, line: Line) -> None:
    if not gene_id:
        lines.count("genes_without_an_id", line.number)
        return
    key, place = (gene_id, lines.chrom(line.chrom)), (line.strand, line.start, line.end)
    if lines.places.setdefault(key, place) != place:
        lines.odd.setdefault(key, ("genes_in_two_places", line.number))
    elif line.strand not in ("+", "-"):
        lines.odd.setdefault(key, ("genes_without_a_strand", line.number))
    named = line.attributes
    lines.names[key] = unquote(named.get("gene_name") or named.get("Name") or named.get("gene", ""))
    lines.placed.add(gene_id)
    if own:
        lines.gene_ids.setdefault(own, {})[gene_id] = None
    if own in lines.trnas:
        lines.trnas.add(gene_id)


def _add_transcript(
    lines: _Lines, name: str, line: Line, parents: tuple[str, ...], *, same_parents: bool = True
) -> None:
    """Notice a transcript whose lines stand in two places; of one with other Parents the place says which is meant."""
    key, spot = (name, lines.chrom(line.chrom)), (line.start, line.end)
    if lines.spots.setdefault(key, spot) != spot and same_parents:
        lines.twice.add(key)
    for parent in parents:
        lines.transcripts.setdefault(parent, {})[name] = None


def _shared(name: str) -> str:
    """A name without URL escapes, in memory once: every exon names its transcript."""
    return sys.intern(unquote(name))


def _is_trna(kind: str) -> bool:
    return kind.lower().endswith("trna") or kind.lower() in ("trna_gene", "trna_pseudogene")


def _genes(lines: _Lines, min_intron_bp: int) -> dict[_Key, AnnotatedGene]:
    """Exons put into their genes; what is odd is counted and left out."""
    genes: dict[_Key, AnnotatedGene] = {}
    known_owners: dict[str, _Owners] = {}
    lost: dict[tuple[_Key, str], None] = {}
    strandless: set[_Key] = set()
    numbers: dict[tuple[_Key, str], dict[str, tuple[int, int]]] = {}
    for exon in lines.exons:
        owned = _owned(exon, lines, known_owners)
        lost.update(dict.fromkeys(((gene, exon.chrom), transcript) for transcript, gene in owned.lost_by))
        for reason in owned.reasons:
            lines.count(reason, exon.line)
        if exon.strand not in ("+", "-"):
            if owned.by:
                lines.count("exons_without_a_strand", exon.line)
            strandless.update((gene, exon.chrom) for _, gene in owned.by)
            lost.update(dict.fromkeys(((gene, exon.chrom), transcript) for transcript, gene in owned.by))
            continue
        for transcript, owner in owned.by:
            key = (owner, exon.chrom)
            if key in lines.odd:
                continue
            if not _put(genes, key, transcript, exon, lines, min_intron_bp):
                lost[key, transcript] = None
            elif exon.number:
                place = (exon.start, exon.end)
                if numbers.setdefault((key, transcript), {}).setdefault(exon.number, place) != place:
                    lines.odd.setdefault(key, ("genes_with_a_transcript_in_two_places", exon.line))
    for key, gene in list(genes.items()):
        for transcript in [name for name in gene.exons if (key, name) in lost]:
            del gene.exons[transcript]
        _judge(key, gene, lines)
        if key in lines.odd or not gene.exons:
            del genes[key]
    for reason, line in lines.odd.values():
        lines.count(reason, line)
    lines.handled["genes_whose_exons_have_no_strand"] = len(strandless - genes.keys() - lines.odd.keys())
    return genes


def _put(
    genes: dict[_Key, AnnotatedGene], key: _Key, transcript: str, exon: _Exon, lines: _Lines, min_intron_bp: int
) -> bool:
    """Put an exon into its gene; False where it is on the other strand."""
    strand, start, end = lines.places.get(key, (exon.strand, exon.start, exon.end))
    known = genes.get(key)
    if known is None:
        place = (exon.chrom, strand, *one_based(start, end))
        gene = Gene.from_table(key[0], *place, lines.names.get(key, ""))
        known = genes[key] = AnnotatedGene(gene, min_intron_bp=min_intron_bp)
        lines.first_exon[key] = exon.line
    if exon.strand != known.gene.strand:
        lines.count("exons_on_the_other_strand_of_their_gene", exon.line)
        return False
    span = known.gene.interval
    if exon.start < span.start or exon.end > span.end:
        if key in lines.places:
            lines.odd.setdefault(key, ("genes_with_an_exon_outside", exon.line))
        wider = replace(span, start=min(exon.start, span.start), end=max(exon.end, span.end))
        known.gene = replace(known.gene, interval=wider)
    known.exons.setdefault(transcript, []).append((exon.start, exon.end))
    if transcript in lines.trnas or key[0] in lines.trnas:
        known.unspliced.add(transcript)
    return True


def _judge(key: _Key, gene: AnnotatedGene, lines: _Lines) -> None:
    """Notice a gene whose transcripts cannot be told apart, or lie in two places."""
    for transcript, exons in gene.exons.items():
        nameless = not transcript or (transcript in lines.gene_ids and transcript not in lines.parents)
        if nameless and (len(lines.transcripts.get(transcript or key[0], ())) > 1 or _overlap(exons)):
            lines.odd.setdefault(key, ("genes_whose_isoforms_cannot_be_told_apart", lines.first_exon[key]))
        if (transcript, key[1]) in lines.twice or _repeats(exons):
            lines.odd.setdefault(key, ("genes_with_a_transcript_in_two_places", lines.first_exon[key]))


def _overlap(exons: list[tuple[int, int]]) -> bool:
    """Whether two of them overlap or are one: so they are of two transcripts."""
    return any(start < end for (_, end), (start, _) in pairwise(sorted(exons)))


def _repeats(exons: list[tuple[int, int]]) -> bool:
    """Whether exons are several times the same ones, further apart than any of its introns: a transcript with copies.

    Lengths and gaps of three exons or more tell, not the distance: introns of a million bases are real.
    """
    places = sorted(set(exons))
    shape = [(end - start, after - end) for (start, end), (after, _) in pairwise([*places, (places[-1][1], 0)])]
    for count in range(_COPIED_EXONS, len(places) // 2 + 1):
        if len(places) % count:
            continue
        copies = [shape[at : at + count] for at in range(0, len(places), count)]
        first, widest = copies[0][:-1], max(gap for _, gap in copies[0][:-1])
        same = all(copy[:-1] == first and copy[-1][0] == copies[0][-1][0] for copy in copies)
        if same and all(copy[-1][1] > widest for copy in copies[:-1]):
            return True
    return False


def _owned(exon: _Exon, lines: _Lines, known: dict[str, _Owners]) -> _Owned:
    """Transcripts and genes of an exon, and the reason for each of its Parents that leads to none.

    Args:
        exon: of the annotation.
        lines: of the annotation.
        known: genes of transcripts that were looked up, by name.
    """
    transcripts = exon.parents or ((exon.transcript_id,) if exon.transcript_id else ())
    if exon.gene_id and not exon.parents:
        return _Owned([(exon.transcript_id, exon.gene_id)], [], [])
    owned, lost = list[_Key](), list[_Key]()
    reasons = [] if transcripts else ["exons_without_a_gene"]
    for transcript in transcripts:
        if transcript not in known:
            known[transcript] = lines.genes_of(transcript)
        genes, one_way, reason = known[transcript]
        if len(genes) > 1:
            candidates = genes = tuple(gene for gene in genes if lines.fits(gene, exon))
            if len(genes) != 1 and not one_way:
                genes = (exon.gene_id,) if exon.gene_id in genes else ()
            reason = "exons_whose_parent_is_ambiguous"
            lost += [(transcript, gene) for gene in candidates if gene not in genes]
        elif not genes and exon.gene_id:
            genes = (exon.gene_id,)
        elif not exon.parents:
            reason = "exons_without_a_gene"
        owned += [(_named_by(exon, transcript, lines), gene) for gene in genes]
        reasons += [] if genes else [reason]
    return _Owned(owned, lost, reasons)


def _named_by(exon: _Exon, parent: str, lines: _Lines) -> str:
    """The transcript of an exon: its Parent, or where that is a gene the transcript that the exon's ID begins with."""
    if not exon.own:
        return parent
    begins = [name for name in lines.transcripts.get(parent, ()) if _begins(exon.own, name)]
    if not begins:
        return parent
    lines.count("exons_whose_id_names_their_transcript", exon.line)
    return max(begins, key=len)


def _begins(own: str, name: str) -> bool:
    return own.startswith(name) and not own[len(name) : len(name) + 1].isalnum()


def _isoforms_as_genes(genes: Iterable[AnnotatedGene]) -> int:
    """Genes whose id is that of their only transcript, and that overlap another such gene of their strand."""
    suspects: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for one in genes:
        if list(one.exons) == [one.gene.gene_id]:
            span = one.gene.interval
            suspects.setdefault((span.chrom, one.gene.strand), []).append((span.start, span.end))
    found = 0
    for spans in suspects.values():
        group, furthest = 0, -1
        for start, end in sorted(spans):
            group = group + 1 if start < furthest else 1
            found += (group > 1) + (group == 2)
            furthest = max(furthest, end) if group > 1 else end
    return found


def _named_apart(genes: Mapping[_Key, AnnotatedGene], lines: _Lines) -> list[AnnotatedGene]:
    """All genes, each with an id of its own: that of the most primary contig keeps it."""
    named: dict[str, AnnotatedGene] = {}
    again = []
    rank = _ranks(genes, lines)
    for (gene_id, chrom), gene in sorted(genes.items(), key=lambda item: rank[item[0][1]]):
        if gene_id in named:
            again.append((f"{gene_id}_{chrom}", gene))
        else:
            named[gene_id] = gene
    for wanted, gene in again:
        gene_id, number = wanted, 2
        while gene_id in named:
            gene_id, number = f"{wanted}_{number}", number + 1
        gene.gene = replace(gene.gene, gene_id=gene_id)
        named[gene_id] = gene
    lines.handled["genes_on_several_chromosomes"] = len(again)
    return [gene for gene in genes.values()]


def _ranks(genes: Mapping[_Key, AnnotatedGene], lines: _Lines) -> dict[str, tuple[object, ...]]:
    """Which contig keeps an id: by kind, chromosomes by name, others by length, or how far their genes reach."""
    reach: dict[str, int] = {}
    for (_, chrom), gene in genes.items():
        reach[chrom] = max(reach.get(chrom, 0), gene.gene.interval.end)
    reach |= {lines.chrom(name): length for name, length in lines.lengths.items()} | lines.contigs.lengths()
    kinds = {chrom: lines.contigs.kind(chrom) for _, chrom in genes}
    return {
        chrom: (kind, 0 if kind == CHROMOSOME else -reach[chrom], chrom_order(chrom)) for chrom, kind in kinds.items()
    }
