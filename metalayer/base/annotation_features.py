"""What the lines of an annotation say, before genes are made of it: names, places, exons, and who is whose parent.

A gene line ends the way up through Parents, whatever it has for one. A transcript without exon lines gets exons of its
coding parts, codons and UTRs. Nothing is left out here; what is odd is noted.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from metalayer.base.annotation_lines import BARE, Line, read_lines
from metalayer.base.principal import Rank, rank_of_tags
from metalayer.contigs import Contigs, is_organelle
from metalayer.genome import normalise_gene_id

_EXONS = frozenset({"exon", "noncoding_exon", "pseudogenic_exon"})
_CODING = frozenset({"cds", "coding_exon", "initial", "internal", "terminal", "single"})
_CODONS = frozenset({"start_codon", "stop_codon"})
_PIECES = _CODING | _CODONS | {"utr", "five_prime_utr", "three_prime_utr", "5utr", "3utr", "5'-utr", "3'-utr"}
"""Pieces of exons, which make up a transcript that has no exon lines."""
_BESIDE_EXONS = _PIECES | {"intron", "selenocysteine"}
"""About half of the lines of an annotation, which say nothing of genes or exons where there are exon lines."""
_TRANSCRIPT = re.compile(r"(transcript|rna|pseudogene|segment)$")
"""Kinds of lines with a `transcript_id` that are of the transcript as a whole, and no part of it."""
_NO_NAMES = frozenset({"", ".", "-", "NA", "N/A", "nan", "None", "null"})
"""What programs write for a transcript_id that is not there; for a gene_id only beside one: a fly has a gene `nan`."""
_NAMES_OF_GENES = ("geneID", "gene_id", "locus")
"""How a transcript without a Parent names its gene: gffread, gffread of StringTie, gffread that made loci."""
_BIOTYPES = ("gene_biotype", "gene_type", "transcript_biotype", "transcript_type", "gbkey", "biotype")


class Exon(NamedTuple):
    """An exon line: 0-based half-open on the plus strand, names without escapes, chromosome by our name.

    `transcript_id` and `own` (its ID) are kept only where they say more than the Parents do.
    """

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

    @property
    def is_placed(self) -> bool:
        """Whether its place is one."""
        return 0 <= self.start < self.end


Key = tuple[str, str]
"""A gene is known by its id and chromosome."""


@dataclass
class Features:
    """What the lines say, before they are put together."""

    contigs: Contigs = field(default_factory=Contigs)
    chroms: dict[str, str] = field(default_factory=dict)  # our name by that of the file
    lengths: dict[str, int] = field(default_factory=dict)  # by the name of the file
    places: dict[Key, tuple[str, int, int]] = field(default_factory=dict)
    names: dict[Key, str] = field(default_factory=dict)
    gene_ids: dict[str, dict[str, None]] = field(default_factory=dict)  # GFF3: ID of gene lines to their gene_ids
    parents: dict[str, dict[tuple[str, ...], None]] = field(
        default_factory=dict
    )  # GFF3: ID to the Parents of its lines
    exons: list[Exon] = field(default_factory=list)
    placed: set[str] = field(default_factory=set)  # gene_ids of gene lines
    spots: dict[tuple[str, str, str], tuple[int, int]] = field(
        default_factory=dict
    )  # of transcript lines, by id, gene_id (GTF) and chromosome
    trnas: set[str] = field(default_factory=set)  # ids of transcripts and genes
    organelles: set[str] = field(default_factory=set)  # chromosomes, by our names, that the file says are ones
    trans_spliced: set[str] = field(default_factory=set)  # likewise
    expected: dict[str, None] = field(default_factory=dict)  # names of genes and transcripts, which have exons
    odd: dict[Key, tuple[str, int]] = field(default_factory=dict)  # genes to leave out: reason and line
    twice: set[tuple[str, str, str]] = field(default_factory=set)  # keys of `spots` in two places
    transcripts: dict[str, dict[str, None]] = field(default_factory=dict)  # by Parent or gene_id
    ranks: dict[str, Rank] = field(default_factory=dict)  # of transcripts that the file calls principal
    first_exon: dict[Key, int] = field(default_factory=dict)  # of each gene, its line
    handled: Counter[str] = field(default_factory=Counter)
    first: dict[str, int] = field(default_factory=dict)  # reason to its first line

    def chrom(self, name: str) -> str:
        """Our name of a contig."""
        if name not in self.chroms:
            self.chroms[name] = sys.intern(self.contigs.key(name))
        return self.chroms[name]

    def count(self, reason: str, line: int) -> None:
        """Note what is odd in a line; `reason` is a key of `introns.REASONS`."""
        self.handled[reason] += 1
        self.first.setdefault(reason, line)

    def genes_of(self, name: str) -> Owners:
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
        return Owners(tuple(found), one_way, reason)

    def fits(self, gene_id: str, exon: Exon) -> bool:
        """Whether an exon lies in a gene; a gene without a line of its own is where its exons are."""
        place = self.places.get((gene_id, exon.chrom))
        if place is None:
            return gene_id not in self.placed
        strand, start, end = place
        return exon.strand == strand and start <= exon.start and exon.end <= end


class Owners(NamedTuple):
    """Genes of a transcript; `one_way`: by Parents alone, and by no ID that several lines give otherwise."""

    genes: tuple[str, ...]
    one_way: bool
    reason_for_none: str


def read_features(path: Path, contigs: Contigs) -> Features:
    """Read a file, twice where it has genes or transcripts without exon lines; errors as in `read_lines`.

    Args:
        path: GTF or GFF3, plain or packed.
        contigs: which names are of one contig.
    """
    lines = Features(contigs)
    children: list[tuple[str, str, tuple[str, ...], Line]] = []  # gene lines with a Parent
    for line in read_lines(path, _BESIDE_EXONS, lines.handled, but=True, lengths=lines.lengths):
        named = line.attributes
        parents, gene_id, own = _names(line)
        transcript = _transcript(line)
        if _is_trna(line.kind) or any(_is_trna(named.get(name, "")) for name in _BIOTYPES):
            lines.trnas.update(name for name in (own, gene_id, transcript) if name)
        if _is_trans_spliced(line):
            lines.trans_spliced.update(name for name in (own, transcript or gene_id, *parents) if name)
        if line.kind == "region" and is_organelle(named.get("genome", "")):  # as NCBI says it of its accessions
            lines.organelles.add(lines.chrom(line.chrom))
        if line.kind in _EXONS:
            lines.exons.append(_exon(line, parents, gene_id, own, lines))
        elif _is_gene(line, own, transcript, gene_id):
            gene_id = gene_id or normalise_gene_id(own or named.get(BARE, ""))
            if parents:
                children.append((gene_id, own, parents, line))
            else:
                _add_gene(lines, gene_id, own, line)
        elif own:
            others = (_shared(named.get(name, "")) for name in _NAMES_OF_GENES)
            parents = parents or next(((name,) for name in others if name), ())
            lines.parents.setdefault(own, {})[parents] = None
            _add_transcript(lines, own, line, parents, same_parents=len(lines.parents[own]) == 1)
        elif transcript and _TRANSCRIPT.search(line.kind):
            parents = parents or ((gene_id,) if gene_id else ())
            lines.parents.setdefault(transcript, {})[parents] = None
            _add_transcript(lines, transcript, line, parents, gene_id)
    for gene_id, own, parents, line in children:
        if any(parent in lines.gene_ids for parent in parents):  # a part of that gene
            if own:
                lines.parents.setdefault(own, {})[parents] = None
        else:
            _add_gene(lines, gene_id, own, line)
    bearing = _bearing(lines)
    if not lines.placed or any(name not in bearing for name in lines.expected):
        _add_coding_parts(path, lines, bearing)
    return lines


def _names(line: Line) -> tuple[tuple[str, ...], str, str]:
    """Parents, gene_id and ID of a feature."""
    named = line.attributes
    above = named.get("Parent") or named.get("parent", "")
    parents = tuple(dict.fromkeys(_shared(name.strip()) for name in above.split(",") if name.strip()))
    own = unquote(named.get("ID") or named.get("id", ""))
    gene_id = named.get("gene_id", "")
    if gene_id in _NO_NAMES and named.get("transcript_id", "") in _NO_NAMES:
        gene_id = ""
    return parents, normalise_gene_id(_shared(gene_id)), own


def _transcript(line: Line) -> str:
    """The transcript_id of a feature; empty where it is a word for none."""
    found = line.attributes.get("transcript_id", "")
    return "" if found in _NO_NAMES else _shared(found)


def _is_gene(line: Line, own: str, transcript: str, gene_id: str) -> bool:
    """Whether a line is of a gene; FlyBase's GTF calls transcripts `pseudogene`."""
    is_transcript = transcript and not own and transcript != gene_id
    is_made = line.kind == "locus" and "transcripts" in line.attributes  # by gffread, of transcripts without genes
    return line.kind == "gene" or is_made or (line.kind.endswith("gene") and not is_transcript)


def _bearing(lines: Features) -> set[str]:
    """Names of all transcripts and genes that have exon lines."""
    found: set[str] = set()
    for exon in lines.exons:
        found.update(exon.parents or (exon.transcript_id, exon.gene_id))
    found.discard("")
    upwards = [*found]
    while upwards:
        above = {parent for line in lines.parents.get(upwards.pop(), {}) for parent in line} - found
        found |= above
        upwards += above
    return found


def _add_coding_parts(path: Path, lines: Features, bearing: set[str]) -> None:
    """Make up exons of transcripts that have no exon lines: of their coding parts, codons and UTRs.

    So are genes of AUGUSTUS, SGD, older Phytozome, and of NCBI's mitochondria and GenBank records.

    Args:
        path: of the annotation, which is read once more.
        lines: of the annotation; get the exons.
        bearing: names of what has exon lines.
    """
    parts: dict[tuple[str, str, str, str], list[Exon]] = {}
    coding: set[tuple[str, str, str, str]] = set()
    owners: dict[str, bool] = {}
    for line in read_lines(path, _PIECES, Counter()):
        parents, gene_id, own = _names(line)
        part = _exon(line, parents, gene_id, "", lines)._replace(number="")
        names = parents or (part.transcript_id or gene_id,)
        if any(name in bearing for name in names):
            continue
        of_genes = tuple(name for name in parents if name in lines.gene_ids)
        if of_genes and own and line.kind in _CODING:  # a CDS of several lines has one ID
            lines.parents.setdefault(own, {})[of_genes] = None
            names = (own,)
        elif of_genes and line.kind not in _CODING | _CODONS:
            continue
        owned = [name for name in names if gene_id or owners.setdefault(name, bool(lines.genes_of(name).genes))]
        if not owned and line.kind in _CODING:
            lines.count("coding_parts_without_a_gene", line.number)
        if _is_trans_spliced(line):
            lines.trans_spliced.update(names)
        for name in owned:
            key = (name, gene_id, part.chrom, part.strand)
            parts.setdefault(key, []).append(part._replace(parents=(name,)) if parents else part)
            if line.kind in _CODING:
                coding.add(key)
    for key in coding:
        lines.handled["transcripts_of_coding_parts"] += 1
        lines.exons += _joined(parts[key])


def read_coding(path: Path, contigs: Contigs) -> dict[tuple[str, str], tuple[int, int]]:
    """Where coding sequences begin and end, 0-based half-open on the plus strand, stop codons among them.

    Args:
        path: GTF or GFF3; errors as in `read_lines`.
        contigs: which names are of one contig.

    Returns:
        By name of the transcript, as exons have it, and chromosome.
    """
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for line in read_lines(path, _CODING | {"stop_codon"}, Counter()):
        if not line.is_placed:
            continue
        parents, gene_id, _ = _names(line)
        for name in parents or (_transcript(line) or gene_id,):
            key = name, contigs.key(line.chrom)
            start, end = found.get(key, (line.start, line.end))
            found[key] = min(start, line.start), max(end, line.end)
    return found


def _joined(parts: list[Exon]) -> list[Exon]:
    """Exons of their parts: a CDS and a UTR that touch, a codon within a CDS."""
    found: list[Exon] = []
    for part in sorted(parts, key=lambda part: (part.start, part.end)):
        if found and found[-1].is_placed and part.is_placed and part.start <= found[-1].end:
            found[-1] = found[-1]._replace(end=max(found[-1].end, part.end))
        else:
            found.append(part)
    return found


def _exon(line: Line, parents: tuple[str, ...], gene_id: str, own: str, lines: Features) -> Exon:
    of_gene = any(parent in lines.gene_ids for parent in parents)
    transcript = _transcript(line) if of_gene or not parents else ""
    chrom, strand = lines.chrom(line.chrom), sys.intern(line.strand)
    number = sys.intern(line.attributes.get("exon_number", ""))
    own = own if of_gene else ""  # else it says nothing more
    return Exon(line.number, parents, transcript, gene_id, chrom, strand, line.start, line.end, number, own)


def _add_gene(lines: Features, gene_id: str, own: str, line: Line) -> None:
    if not gene_id:
        lines.count("genes_without_an_id", line.number)
        return
    key, place = (gene_id, lines.chrom(line.chrom)), (line.strand, line.start, line.end)
    if own and lines.places.get(key, place) != place and gene_id not in lines.gene_ids.get(own, {}):
        gene_id = normalise_gene_id(own)  # a copy that kept its gene_id, like those of Liftoff
        key = (gene_id, key[1])
    if lines.places.setdefault(key, place) != place:
        lines.odd.setdefault(key, ("genes_in_two_places", line.number))
    elif line.strand not in ("+", "-"):
        lines.odd.setdefault(key, ("genes_without_a_strand", line.number))
    elif not line.is_placed:
        lines.odd.setdefault(key, ("genes_without_a_place", line.number))
    named = line.attributes
    lines.names[key] = unquote(named.get("gene_name") or named.get("Name") or named.get("gene", ""))
    lines.placed.add(gene_id)
    if own:
        lines.gene_ids.setdefault(own, {})[gene_id] = None
    for marked in (lines.trnas, lines.trans_spliced):
        if own in marked:
            marked.add(gene_id)
    lines.expected[own or gene_id] = None


def _add_transcript(
    lines: Features, name: str, line: Line, parents: tuple[str, ...], gene_id: str = "", *, same_parents: bool = True
) -> None:
    """Notice a transcript whose lines are in two places; of one with other Parents the place says which is meant.

    Args:
        lines: of the annotation.
        name: of the transcript.
        line: of the transcript.
        parents: names of its genes.
        gene_id: within which the name is meant, where it is not the only one of the file.
        same_parents: all lines of this name have these.
    """
    key, spot = (name, gene_id, lines.chrom(line.chrom)), (line.start, line.end)
    if lines.spots.setdefault(key, spot) != spot and same_parents:
        lines.twice.add(key)
    if rank := rank_of_tags(line.attributes.get("tag", "")):
        lines.ranks[name] = min(rank, lines.ranks.get(name, rank))
    if _TRANSCRIPT.search(line.kind):
        lines.expected[name] = None
        for parent in parents:
            lines.transcripts.setdefault(parent, {})[name] = None


def _shared(name: str) -> str:
    """A name without URL escapes, in memory once: every exon names its transcript."""
    return sys.intern(unquote(name))


def _is_trans_spliced(line: Line) -> bool:
    """As NCBI says it, `exception=trans-splicing`: what lies between such exons is no intron."""
    said = line.attributes.get("exception", "")
    return "trans" in said and "splic" in said


def _is_trna(kind: str) -> bool:
    return kind.lower().endswith("trna") or kind.lower() in ("trna_gene", "trna_pseudogene")
