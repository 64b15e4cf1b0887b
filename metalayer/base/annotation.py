"""Genes and their splice sites from GTF or GFF3, plain or gzip.

A site is annotated where any transcript of the gene has an intron: the last base of the exon before is a
donor, the first base of the exon after an acceptor. Transcripts without introns give none. An exon belongs
to the genes that its `Parent`s lead to (GFF3; parents may stand after their children), else to its `gene_id`.
A feature without `ID` is nobody's parent. An `ID` that several lines give, with other Parents or for a gene and a
transcript, is the one in whose gene the exon lies. What is no gene that can be scored is left out and counted by
reason.
"""

from __future__ import annotations

import gzip
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import InputError
from metalayer.genome import Gene, half_open, normalise_chrom, normalise_gene_id, one_based
from metalayer.schema import ACCEPTOR, DONOR, NEITHER

MAX_ORPHANS = 0.01
"""Share of exons that lead to no gene, above which the annotation is refused."""
_GTF = re.compile(r'(\w+) "([^"]*)"')
_GFF3 = re.compile(r'\s*[^\s=;"]+=')
_GZIP = b"\x1f\x8b"
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


_ORPHANS = {
    "exons_without_a_gene": "without Parent and gene_id",
    "exons_whose_parent_is_unknown": "whose Parent has no line",
    "exons_whose_parents_form_a_circle": "whose Parents form a circle",
    "exons_whose_parent_is_ambiguous": "whose Parent's ID several lines give for different genes",
}
"""Reasons for which an exon is in no gene, in words."""


@dataclass
class AnnotatedGene:
    """A gene and the exons of its transcripts, each 0-based half-open on the plus strand."""

    gene: Gene
    exons: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def introns(self) -> list[tuple[int, int]]:
        """Distinct introns, 0-based half-open on the plus strand, ascending."""
        found = set()
        for exons in self.exons.values():
            for (_, end), (start, _) in pairwise(sorted(exons)):
                if start > end:
                    found.add((end, start))
        return sorted(found)

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
        handled: what was left out or renamed, and how often.
    """

    genes: list[AnnotatedGene]
    handled: dict[str, int]


class _Exon(NamedTuple):
    parents: tuple[str, ...]
    transcript_id: str
    gene_id: str
    chrom: str
    strand: str
    start: int
    end: int


@dataclass
class _Lines:
    """What the lines say, before they are put together; a gene is known by its id and chromosome."""

    places: dict[tuple[str, str], tuple[str, int, int]] = field(default_factory=dict)
    names: dict[tuple[str, str], str] = field(default_factory=dict)
    gene_ids: dict[str, dict[str, None]] = field(default_factory=dict)  # GFF3: ID of gene lines to their gene_ids
    parents: dict[str, dict[tuple[str, ...], None]] = field(
        default_factory=dict
    )  # GFF3: ID to the Parents of its lines
    exons: list[_Exon] = field(default_factory=list)
    placed: set[str] = field(default_factory=set)  # gene_ids of gene lines
    genes_without_an_id: int = 0

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


def read_annotation(path: Path) -> Annotation:
    """Genes of an annotation.

    A gene id on several chromosomes (the pseudoautosomal genes of X and Y) is several genes: the first keeps
    the id, the others get `_` and their chromosome after it.

    Raises:
        InputError: no such file, a damaged one, lines that are no GTF or GFF3, a gene in two places of one
            chromosome, an exon outside its gene, too many exons without a gene, or no gene with an exon.
    """
    lines = _read(path)
    handled: Counter[str] = Counter()
    genes = _genes(lines, handled, path)
    handled["genes_without_an_id"] = lines.genes_without_an_id
    orphans = sum(handled[reason] for reason in _ORPHANS)
    if orphans > MAX_ORPHANS * len(lines.exons):
        causes = ", ".join(f"{handled[reason]} {words}" for reason, words in _ORPHANS.items() if handled[reason])
        raise InputError(
            f"annotation {path}: {orphans} of {len(lines.exons)} exons lead to no gene ({causes}); an exon needs a "
            "gene_id, or a Parent whose line leads to a gene"
        )
    if not genes:
        raise InputError(
            f"annotation {path}: no gene with an exon; it needs gene (optional) and exon lines, GTF or GFF3"
        )
    handled["genes_without_an_exon"] = len(lines.places.keys() - genes.keys())
    named = _named_apart(genes, handled, path)
    first_seen = {gene.gene.interval.chrom: i for i, gene in reversed(list(enumerate(named)))}
    named.sort(key=lambda g: (first_seen[g.gene.interval.chrom], g.gene.interval.start, g.gene.gene_id))
    return Annotation(named, {name: count for name, count in sorted(handled.items()) if count})


def _read(path: Path) -> _Lines:
    lines = _Lines()
    for number, fields in _rows(path):
        chrom, kind, strand = sys.intern(normalise_chrom(fields[0])), fields[2], sys.intern(fields[6])
        if kind in _BESIDE_EXONS:
            continue
        attributes = _attributes(fields[8])
        try:
            start, end = int(fields[3]), int(fields[4])
            if not 1 <= start <= end:
                raise ValueError
        except ValueError:
            raise InputError(
                f"annotation {path}, line {number}: start {fields[3]!r}, end {fields[4]!r}; needs 1 <= start <= end"
            ) from None
        parents = tuple(
            dict.fromkeys(_shared(name) for name in attributes.get("Parent", "").split(",") if name.strip())
        )
        gene_id = normalise_gene_id(_shared(attributes.get("gene_id", "")))
        own = unquote(attributes.get("ID", ""))
        if kind == "exon":
            transcript_id = "" if parents else _shared(attributes.get("transcript_id", ""))
            lines.exons.append(_Exon(parents, transcript_id, gene_id, chrom, strand, *half_open(start, end)))
        elif kind.endswith("gene") and not parents:  # ncRNA_gene and pseudogene too
            gene_id = gene_id or normalise_gene_id(own)
            if not gene_id:
                lines.genes_without_an_id += 1
                continue
            key, place = (gene_id, chrom), (strand, *half_open(start, end))
            if lines.places.setdefault(key, place) != place:
                raise InputError(
                    f"annotation {path}, line {number}: gene {gene_id!r} stands in two places of chromosome {chrom}; "
                    "give each an id of its own"
                )
            name = attributes.get("gene_name") or attributes.get("Name") or attributes.get("gene", "")
            lines.names[key] = unquote(name)
            lines.placed.add(gene_id)
            if own:
                lines.gene_ids.setdefault(own, {})[gene_id] = None
        elif parents and own:
            lines.parents.setdefault(own, {})[parents] = None
    return lines


def _shared(name: str) -> str:
    """A name without URL escapes, in memory once: every exon names its transcript."""
    return sys.intern(unquote(name))


def _genes(lines: _Lines, handled: Counter[str], path: Path) -> dict[tuple[str, str], AnnotatedGene]:
    """Exons put into their genes, those that fit none counted."""
    genes: dict[tuple[str, str], AnnotatedGene] = {}
    known_owners: dict[str, _Owners] = {}
    for exon in lines.exons:
        if exon.strand not in ("+", "-"):
            handled["exons_without_a_strand"] += 1
            continue
        owned, reasons = _owned(exon, lines, known_owners)
        handled.update(reasons)
        for transcript, owner in owned:
            key = (owner, exon.chrom)
            strand, start, end = lines.places.get(key, (exon.strand, exon.start, exon.end))
            known = genes.get(key)
            if known is None:
                place = (exon.chrom, strand, *one_based(start, end))
                known = AnnotatedGene(Gene.from_table(owner, *place, lines.names.get(key, "")))
            if exon.strand != known.gene.strand:
                handled["exons_on_the_other_strand_of_their_gene"] += 1
                continue
            span = known.gene.interval
            if exon.start < span.start or exon.end > span.end:
                if key in lines.places:
                    first, last = one_based(exon.start, exon.end)
                    raise InputError(f"annotation {path}: exon {first}-{last} of {owner} lies outside its gene")
                wider = replace(span, start=min(exon.start, span.start), end=max(exon.end, span.end))
                known.gene = replace(known.gene, interval=wider)
            known.exons.setdefault(transcript, []).append((exon.start, exon.end))
            genes[key] = known
    return genes


def _owned(exon: _Exon, lines: _Lines, known: dict[str, _Owners]) -> tuple[list[tuple[str, str]], list[str]]:
    """Transcripts and genes of an exon, and the reason for each of its Parents that leads to none.

    Args:
        exon: on a strand.
        lines: of the annotation.
        known: genes of transcripts that were looked up, by name.
    """
    transcripts = exon.parents or ((exon.transcript_id,) if exon.transcript_id else ())
    if exon.gene_id and not exon.parents:
        return [(exon.transcript_id, exon.gene_id)], []
    owned: list[tuple[str, str]] = []
    reasons = [] if transcripts else ["exons_without_a_gene"]
    for transcript in transcripts:
        if transcript not in known:
            known[transcript] = lines.genes_of(transcript)
        genes, one_way, reason = known[transcript]
        if len(genes) > 1:
            genes = tuple(gene for gene in genes if lines.fits(gene, exon))
            if len(genes) != 1 and not one_way:
                genes = (exon.gene_id,) if exon.gene_id in genes else ()
            reason = "exons_whose_parent_is_ambiguous"
        elif not genes and exon.gene_id:
            genes = (exon.gene_id,)
        elif not exon.parents:
            reason = "exons_without_a_gene"
        owned += [(transcript, gene) for gene in genes]
        reasons += [] if genes else [reason]
    return owned, reasons


def _named_apart(
    genes: Mapping[tuple[str, str], AnnotatedGene], handled: Counter[str], path: Path
) -> list[AnnotatedGene]:
    """All genes, each with an id of its own."""
    named: dict[str, AnnotatedGene] = {}
    again = []
    for (gene_id, chrom), gene in genes.items():
        if gene_id in named:
            again.append((f"{gene_id}_{chrom}", gene))
        else:
            named[gene_id] = gene
    for gene_id, gene in again:
        if gene_id in named:
            raise InputError(f"annotation {path}: two genes {gene_id!r}; give each an id of its own")
        gene.gene = replace(gene.gene, gene_id=gene_id)
        named[gene_id] = gene
    handled["genes_on_several_chromosomes"] = len(again)
    return list(named.values())


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with path.open("rb") as probe:
            zipped = probe.read(2) == _GZIP
        with gzip.open(path, "rt", encoding="utf-8") if zipped else path.open("r", encoding="utf-8") as handle:
            for number, line in enumerate(handle, start=1):
                if line.startswith("##FASTA"):
                    return
                if not line.strip() or line.startswith("#"):
                    continue
                fields = line.rstrip("\r\n").split("\t")
                if len(fields) != 9:
                    raise InputError(
                        f"annotation {path}, line {number}: {len(fields)} fields; GTF and GFF3 have 9, tab separated"
                    )
                yield number, fields
    except FileNotFoundError:
        raise InputError(f"annotation {path}: no such file") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"annotation {path}: damaged ({error}); copy it again") from None


def _attributes(text: str) -> dict[str, str]:
    """Of a GTF (`key "value";`) or GFF3 (`key=value;`, as it stands: commas and escapes are the caller's) line."""
    if _GFF3.match(text):
        return dict(part.strip().split("=", 1) for part in text.split(";") if "=" in part)
    return dict(_GTF.findall(text))
