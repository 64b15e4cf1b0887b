"""What an intron is, what an annotated gene has of them, and the words for what was odd on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metalayer.base.principal import Principal, Rank, principal_of
from metalayer.genome import Gene
from metalayer.schema import ALTERNATIVE, KIND_UNKNOWN, PRINCIPAL, TRANSCRIPTS_UNKNOWN
from metalayer.site_labels import SiteMarks, labels_of_sites

MIN_INTRON_BP = 20
"""Shorter gaps between exons are frameshifts and traces of lift-over: no spliceosome removes so little."""

ORPHANS = {
    "exons_without_a_gene": "exons without Parent and gene_id",
    "exons_whose_parent_is_unknown": "exons whose Parent has no line",
    "exons_whose_parents_form_a_circle": "exons whose Parents form a circle",
    "exons_whose_parent_is_ambiguous": "exons whose Parent's ID several lines give for different genes",
    "exons_of_a_transcript_without_a_gene": "exons of a transcript whose line names no gene",
    "exons_without_a_place": "exons that end before they start, or start before base 1",
}
LEFT_OUT = {
    "genes_in_two_places": "genes whose id is in two places of a chromosome, as in trans-splicing",
    "genes_trans_spliced": "genes that the file calls trans-spliced",
    "genes_without_a_place": "genes that end before they start, as across the origin of a circular chromosome",
    "genes_with_a_transcript_in_two_places": "genes with a transcript in two places",
    "genes_without_a_strand": "genes without a strand",
    "genes_with_an_exon_outside": "genes with an exon outside their gene line",
    "genes_whose_isoforms_cannot_be_told_apart": "genes whose exons overlap and name no transcript",
    "genes_whose_transcripts_are_left_out": "genes all of whose transcripts are left out, for one of their exons",
}
REASONS = {
    **ORPHANS,
    **LEFT_OUT,
    "exons_of_tRNA_without_a_gene": "exons of tRNAs without a gene",
    "exons_without_a_strand": "exons without a strand, left out with their transcripts",
    "genes_whose_exons_have_no_strand": "genes all of whose exons are without a strand",
    "exons_on_the_other_strand_of_their_gene": "exons on the other strand of their gene, left out with their "
    "transcripts",
    "transcripts_of_coding_parts": "transcripts without exon lines, read from those of their coding parts and UTRs",
    "coding_parts_without_a_gene": "coding parts of transcripts without exon lines that lead to no gene",
    "genes_without_an_exon": "genes without an exon that can be used",
    "genes_without_an_id": "gene lines without an id",
    "genes_on_several_chromosomes": "genes of an id that is also on another chromosome, named apart",
    "genes_beyond_their_chromosome": "genes that end beyond their chromosome, as across the origin of a circular one",
    "genes_on_contigs_that_the_FASTA_lacks": "genes on alternative loci, patches, scaffolds and organelles that the "
    "FASTA lacks",
    "genes_of_N": "genes whose letters are all N, as on a masked Y",
    "genes_named_as_their_transcript": "overlapping genes whose id is that of their only transcript: isoforms that "
    "stand as genes, with labels against each other (UCSC's table browser writes so; its genePredToGtf does not)",
    "exons_merged": "exons that overlap or touch another of their transcript, merged",
    "exons_of_one_base": "exons of one base, whose base is labelled donor",
    "bases_of_two_sites": "bases that are a donor of one transcript and an acceptor of another, labelled donor",
    "gaps_too_short_for_an_intron": "gaps between exons that are shorter than an intron",
    "introns_of_tRNA": "introns of tRNAs, which no spliceosome removes: not labelled",
    "introns_of_organelles": "introns of mitochondria and plastids, which no spliceosome removes: not labelled",
    "exons_whose_id_names_their_transcript": "exons whose Parent is a gene, put into the transcript that their ID "
    "names",
    "lines_not_in_utf8": "lines that are no UTF-8, read as Latin-1",
}
"""What is done with what is odd, in words; first the reasons for which an exon is in no gene, then those of genes."""


WHY_NONE = ("exons_without_a_strand", "exons_of_tRNA_without_a_gene", "coding_parts_without_a_gene")


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
        unspliced: transcripts whose introns no spliceosome removes, and the reason by which they are counted.
        min_intron_bp: least length of an intron.
        ranks: of transcripts that the file calls principal.
        junctions: of a table that has no transcripts, pairs of edges of introns, 0-based half-open: which edges there
            are is known, and not which of them are of one intron.
    """

    gene: Gene
    exons: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    unspliced: dict[str, str] = field(default_factory=dict)
    min_intron_bp: int = MIN_INTRON_BP
    ranks: dict[str, Rank] = field(default_factory=dict)
    junctions: list[tuple[int, int]] = field(default_factory=list)

    def introns(self) -> list[tuple[int, int]]:
        """Distinct introns of the spliceosome, 0-based half-open on the plus strand, ascending."""
        found: set[tuple[int, int]] = set(self.junctions)
        for transcript, exons in self.exons.items():
            if transcript not in self.unspliced:
                found.update(introns_of(exons, self.min_intron_bp).places)
        return sorted(found)

    def handled(self) -> Counter[str]:
        """What the exons needed, over all transcripts."""
        found: Counter[str] = Counter()
        for transcript, exons in self.exons.items():
            if transcript in self.unspliced:
                found[self.unspliced[transcript]] += len(introns_of(exons, min_intron_bp=1).places)
            else:
                found += introns_of(exons, self.min_intron_bp).handled
        introns = self.introns()
        both = {start - 1 for start, _ in introns} & {end for _, end in introns}
        if both:
            alone = {start for exons in self.exons.values() for start, end in exons if end - start == 1}
            found["bases_of_two_sites"] = len(both - alone)
        return found

    def principal(self) -> Principal:
        """The principal transcript, and what says so."""
        lengths = {name: sum(end - start for start, end in exons) for name, exons in self.exons.items()}
        return principal_of(lengths, self.ranks)

    def labels(self, which: str = "all") -> NDArray[np.uint8]:
        """Class of every exon base in transcript sense, uint8 (L,).

        Args:
            which: `all`, sites of every transcript; `principal`, of the principal one, or of every one where none is
                known to be principal.
        """
        chosen = self.principal().transcript if which == "principal" else None
        exons = self.exons if chosen is None else {chosen: self.exons[chosen]}
        sites = [self.gene.sites_of_intron(*intron) for intron in replace(self, exons=exons).introns()]
        return labels_of_sites(len(self.gene), [donor for donor, _ in sites], [acceptor for _, acceptor in sites])

    def marks(self) -> SiteMarks:
        """Of which isoforms each base is a site, transcript sense; the same whichever sites are labels."""
        chosen = self.principal().transcript
        marks = SiteMarks.none(len(self.gene))
        for transcript in self.exons:
            introns = replace(self, exons={transcript: self.exons[transcript]}, junctions=[]).introns()
            at = np.unique([self.gene.sites_of_intron(*intron) for intron in introns]).astype(np.intp)
            marks.transcripts[at] += 1
            if transcript == chosen:
                marks.kinds[at] = PRINCIPAL
        others = (marks.transcripts > 0) & (marks.kinds != PRINCIPAL)
        marks.kinds[others] = KIND_UNKNOWN if chosen is None else ALTERNATIVE
        at = np.unique([self.gene.sites_of_intron(*pair) for pair in self.junctions]).astype(np.intp)
        marks.kinds[at], marks.transcripts[at] = KIND_UNKNOWN, TRANSCRIPTS_UNKNOWN
        return marks


def in_words(handled: Mapping[str, int]) -> list[str]:
    """What was left out or read otherwise, a line a reason."""
    return [f"{handled[reason]:,} {words}" for reason, words in REASONS.items() if handled.get(reason)]
