"""Genes and their splice sites from GTF or GFF3, or from the tables of other tools (`annotation_tables.py`).

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

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from metalayer.base.annotation_features import Exon, Features, Key, Owners, read_features
from metalayer.base.annotation_lines import read_lines
from metalayer.base.annotation_tables import COLUMNS, read_table
from metalayer.base.introns import (
    LEFT_OUT,
    MIN_INTRON_BP,
    ORPHANS,
    REASONS,
    WHY_NONE,
    AnnotatedGene,
    in_words,
    introns_of,
)
from metalayer.contigs import CHROMOSOME, Contigs
from metalayer.errors import InputError
from metalayer.file_kinds import head_of, kind_of
from metalayer.genome import Gene, chrom_order, one_based

__all__ = ["MIN_INTRON_BP", "REASONS", "AnnotatedGene", "Annotation", "in_words", "introns_of", "read_annotation"]

MAX_LOST = 0.1
"""Share of exons that lead to no gene, and of genes left out, above which a file is refused."""
_COPIED_EXONS = 2
ALWAYS_ALLOWED = 10
"""So many of them may be whatever their share is."""
_COPY = re.compile(r"_dup\d+$")
_NAMED_KINDS = 5


@dataclass
class Annotation:
    """What a file holds.

    Attributes:
        genes: ordered by chromosome as they come and by start.
        handled: what was left out, renamed or read otherwise, and how often; keys of `REASONS`.
        names: of the chromosomes, as they stand in the file, by ours.
        lengths: of chromosomes in nt, where the file states them.
        organelles: which chromosomes are of mitochondria and plastids: their introns are not the spliceosome's.
    """

    genes: list[AnnotatedGene]
    handled: dict[str, int]
    names: dict[str, str]
    lengths: dict[str, int]
    organelles: set[str]


class _Owned(NamedTuple):
    """Transcripts and genes of an exon, those that may have had it, and why it is in none of them."""

    by: list[Key]
    lost_by: list[Key]
    reasons: list[str]


def read_annotation(path: Path, min_intron_bp: int = MIN_INTRON_BP, contigs: Contigs | None = None) -> Annotation:
    """Genes of an annotation.

    A gene id on several contigs (the pseudoautosomal genes of X and Y, alternative loci) is several genes: that of the
    chromosome keeps the id, before one of a scaffold, and that before one of an alternative locus or patch; the others
    get `_` and their contig after it.

    Args:
        path: GTF or GFF3, or a gene table of SpliceAI or CI-SpliceAI, plain or packed.
        min_intron_bp: least length of an intron; shorter gaps are within an exon.
        contigs: which names are of one contig; None for the rules alone.

    Raises:
        InputError: no such file, a damaged one, lines that are none of an annotation, too much that is left out, or
            no gene with an exon.
    """
    contigs = contigs or Contigs()
    kind = kind_of(head_of(path, "annotation"))
    if kind is not None and kind in COLUMNS:
        lines, genes = read_table(path, kind, min_intron_bp, contigs)
    else:
        lines = read_features(path, contigs)
        genes = _genes(lines, min_intron_bp)
    _refuse_ruins(path, lines, len(genes))
    lines.handled["genes_without_an_exon"] = len(lines.places.keys() - genes.keys() - lines.odd.keys())
    named = _named_apart(genes, lines)
    first_seen = {gene.gene.interval.chrom: i for i, gene in reversed(list(enumerate(named)))}
    organelles = lines.organelles | lines.contigs.organelles(set(first_seen))
    for gene in named:
        if gene.gene.interval.chrom in organelles:
            gene.unspliced = {name: gene.unspliced.get(name, "introns_of_organelles") for name in gene.exons}
            gene.junctions = []
    named.sort(key=lambda g: (first_seen[g.gene.interval.chrom], g.gene.interval.start, g.gene.gene_id))
    for gene in named:
        lines.handled += gene.handled()
    lines.handled["genes_named_as_their_transcript"] = _isoforms_as_genes(named)
    handled = {name: count for name, count in sorted(lines.handled.items()) if count}
    names = {ours: theirs for theirs, ours in reversed(lines.chroms.items())}
    lengths = {lines.chrom(name): length for name, length in lines.lengths.items()}
    return Annotation(named, handled, names, lengths, organelles)


def _refuse_ruins(path: Path, lines: Features, genes: int) -> None:
    """An annotation of which so much is lost that what is left would mislead."""

    def causes(reasons: Iterable[str]) -> str:
        return "; ".join(
            f"{lines.handled[reason]} {REASONS[reason]}, first in line {lines.first[reason]}"
            for reason in reasons
            if lines.handled[reason]
        )

    orphans = sum(lines.handled[reason] for reason in ORPHANS)
    if orphans and (not genes or orphans > max(ALWAYS_ALLOWED, MAX_LOST * len(lines.exons))):
        raise InputError(
            f"annotation {path}: {orphans} of {len(lines.exons)} exons lead to no gene"
            f"{' or have no place' if lines.handled['exons_without_a_place'] else ''} ({causes(ORPHANS)}); an exon "
            "needs a gene_id, or a Parent whose line leads to a gene"
        )
    left_out = sum(lines.handled[reason] for reason in LEFT_OUT)
    if left_out and (not genes or left_out > max(ALWAYS_ALLOWED, MAX_LOST * (genes + left_out))):
        strandless = lines.handled["genes_without_a_strand"]
        needs = "each gene has one place and exons name their transcripts"
        raise InputError(
            f"annotation {path}: {left_out} of {genes + left_out} genes would be left out ({causes(LEFT_OUT)}); at "
            f"most {ALWAYS_ALLOWED}, or {100 * MAX_LOST:g} %, may be. Give an annotation in which "
            + ("column 7 is the strand, + or -" if 2 * strandless > left_out else needs)
        )
    if not genes:
        parts = [f"{count:,} {REASONS[reason]}" for reason in WHY_NONE if (count := lines.handled[reason])]
        kinds = Counter(line.kind for line in read_lines(path, (), Counter(), but=True)).most_common(_NAMED_KINDS)
        parts += [f"its lines are of {', '.join(f'{kind} ({count:,})' for kind, count in kinds) or 'no feature'}"]
        raise InputError(
            f"annotation {path}: no gene with an exon ({'; '.join(parts)}); it needs gene (optional) and exon or CDS "
            "lines, GTF or GFF3"
        )


def _genes(lines: Features, min_intron_bp: int) -> dict[Key, AnnotatedGene]:
    """Exons put into their genes; what is odd is counted and left out."""
    genes: dict[Key, AnnotatedGene] = {}
    known_owners: dict[str, Owners] = {}
    lost: dict[tuple[Key, str], int] = {}  # transcripts to a line of theirs, 0 where it may be of another gene
    strandless: set[Key] = set()
    numbers: dict[tuple[Key, str], dict[str, tuple[int, int]]] = {}
    for exon in lines.exons:
        owned = _owned(exon, lines, known_owners)
        for transcript, owner in owned.lost_by:
            lost.setdefault(((owner, exon.chrom), transcript), 0)
        for reason in owned.reasons:
            lines.count(reason, exon.line)
        if not exon.is_placed:
            lines.count("exons_without_a_place", exon.line)
            lost.update({((gene, exon.chrom), transcript): exon.line for transcript, gene in owned.by})
            continue
        if exon.strand not in ("+", "-"):
            if owned.by:
                lines.count("exons_without_a_strand", exon.line)
            strandless.update((gene, exon.chrom) for _, gene in owned.by)
            lost.update({((gene, exon.chrom), transcript): exon.line for transcript, gene in owned.by})
            continue
        for transcript, owner in owned.by:
            key = (owner, exon.chrom)
            if key in lines.odd:
                continue
            if not _put(genes, key, transcript, exon, lines, min_intron_bp):
                lost[key, transcript] = exon.line
            elif exon.number:
                place = (exon.start, exon.end)
                if numbers.setdefault((key, transcript), {}).setdefault(exon.number, place) != place:
                    lines.odd.setdefault(key, ("genes_with_a_transcript_in_two_places", exon.line))
    for key, gene in list(genes.items()):
        for transcript in [name for name in gene.exons if (key, name) in lost]:
            del gene.exons[transcript]
        gene.ranks = {name: lines.ranks[name] for name in gene.exons if name in lines.ranks}
        _judge(key, gene, lines)
        if key in lines.odd or not gene.exons:
            del genes[key]
    for (key, _), at in lost.items():
        if at and key not in genes and key not in strandless:
            lines.odd.setdefault(key, ("genes_whose_transcripts_are_left_out", at))
    for reason, line in lines.odd.values():
        lines.count(reason, line)
    lines.handled["genes_whose_exons_have_no_strand"] = len(strandless - genes.keys() - lines.odd.keys())
    return genes


def _put(
    genes: dict[Key, AnnotatedGene], key: Key, transcript: str, exon: Exon, lines: Features, min_intron_bp: int
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
        known.unspliced[transcript] = "introns_of_tRNA"
    return True


def _judge(key: Key, gene: AnnotatedGene, lines: Features) -> None:
    """Notice a gene whose transcripts cannot be told apart, or lie in two places."""
    for transcript, exons in gene.exons.items():
        nameless = not transcript or (transcript in lines.gene_ids and transcript not in lines.parents)
        if nameless and (len(lines.transcripts.get(transcript or key[0], ())) > 1 or _overlap(exons)):
            lines.odd.setdefault(key, ("genes_whose_isoforms_cannot_be_told_apart", lines.first_exon[key]))
        if transcript in lines.trans_spliced or key[0] in lines.trans_spliced:
            lines.odd.setdefault(key, ("genes_trans_spliced", lines.first_exon[key]))
        twice = any((transcript, gene_id, key[1]) in lines.twice for gene_id in ("", key[0]))
        if twice or _repeats(exons) or (key not in lines.places and _is_copy(transcript, gene)):
            lines.odd.setdefault(key, ("genes_with_a_transcript_in_two_places", lines.first_exon[key]))


def _is_copy(transcript: str, gene: AnnotatedGene) -> bool:
    """Whether UCSC calls a transcript a copy, as `NM_1_dup1`, and it lies apart from the first."""
    first = gene.exons.get(_COPY.sub("", transcript), ())
    exons = gene.exons[transcript]
    return bool(first) and (max(exons)[1] <= min(first)[0] or max(first)[1] <= min(exons)[0])


def _overlap(exons: list[tuple[int, int]]) -> bool:
    """Whether two of them overlap or are one: so they are of two transcripts."""
    return any(start < end for (_, end), (start, _) in pairwise(sorted(exons)))


def _repeats(exons: list[tuple[int, int]]) -> bool:
    """Whether exons are several times the same ones, further apart than any of its introns: a transcript with copies.

    Lengths and gaps of three exons or more tell, not the distance: introns of a million bases are real. Two exons are
    the same by chance now and then, so copies of two must lie further apart than they are long.
    """
    places = sorted(set(exons))
    shape = [(end - start, after - end) for (start, end), (after, _) in pairwise([*places, (places[-1][1], 0)])]
    for count in range(_COPIED_EXONS, len(places) // 2 + 1):
        if len(places) % count:
            continue
        copies = [shape[at : at + count] for at in range(0, len(places), count)]
        first, widest = copies[0][:-1], max(gap for _, gap in copies[0][:-1])
        if count == _COPIED_EXONS:
            widest = places[count - 1][1] - places[0][0]
        same = all(copy[:-1] == first and copy[-1][0] == copies[0][-1][0] for copy in copies)
        if same and all(copy[-1][1] > widest for copy in copies[:-1]):
            return True
    return False


def _owned(exon: Exon, lines: Features, known: dict[str, Owners]) -> _Owned:
    """Transcripts and genes of an exon, and the reason for each of its Parents that leads to none.

    Args:
        exon: of the annotation.
        lines: of the annotation.
        known: genes of transcripts that were looked up, by name.
    """
    transcripts = exon.parents or ((exon.transcript_id,) if exon.transcript_id else ())
    if len(transcripts) > 1:  # some name the gene beside the transcript
        apart = tuple(name for name in transcripts if name in lines.parents or name not in lines.gene_ids)
        transcripts = apart or transcripts
    if exon.gene_id and not exon.parents:
        return _Owned([(exon.transcript_id, exon.gene_id)], [], [])
    owned, lost = list[Key](), list[Key]()
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


def _named_by(exon: Exon, parent: str, lines: Features) -> str:
    """The transcript of an exon: its Parent, or where that is a gene the one that the exon names, or its ID does."""
    if parent not in lines.gene_ids or parent in lines.parents:
        return parent
    if exon.transcript_id:
        return exon.transcript_id
    named = [name for name in lines.transcripts.get(parent, ()) if exon.own and _is_in(name, exon.own)]
    if not named:
        return parent
    lines.count("exons_whose_id_names_their_transcript", exon.line)
    return max(named, key=len)


def _is_in(name: str, own: str) -> bool:
    """Whether an ID, as `t1.exon2` or `exon:t1:2`, has this name in it."""
    return re.search(rf"(?<![^\W_]){re.escape(name)}(?![^\W_])", own) is not None


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


def _named_apart(genes: Mapping[Key, AnnotatedGene], lines: Features) -> list[AnnotatedGene]:
    """All genes, each with an id of its own: that of the most primary contig keeps it. Copies are of one group."""
    named: dict[str, AnnotatedGene] = {}
    again = []
    rank = _ranks(genes, lines)
    for (gene_id, chrom), gene in sorted(genes.items(), key=lambda item: rank[item[0][1]]):
        if gene_id in named:
            again.append((f"{gene_id}_{chrom}", gene))
            for copy in (named[gene_id], gene):
                copy.gene = replace(copy.gene, paralog_group=f"same-{gene_id}")
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


def _ranks(genes: Mapping[Key, AnnotatedGene], lines: Features) -> dict[str, tuple[object, ...]]:
    """Which contig keeps an id: by kind, chromosomes by name, others by length, or how far their genes reach."""
    reach: dict[str, int] = {}
    for (_, chrom), gene in genes.items():
        reach[chrom] = max(reach.get(chrom, 0), gene.gene.interval.end)
    reach |= {lines.chrom(name): length for name, length in lines.lengths.items()} | lines.contigs.lengths()
    kinds = {chrom: lines.contigs.kind(chrom) for _, chrom in genes}
    return {
        chrom: (kind, 0 if kind == CHROMOSOME else -reach[chrom], chrom_order(chrom)) for chrom, kind in kinds.items()
    }
