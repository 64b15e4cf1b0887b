"""Which genes a variant touches, and where their annotated sites are."""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from metalayer.base.agreement import MIN_CANONICAL, MIN_INTRONS
from metalayer.base.annotation import AnnotatedGene, in_words, introns_of, read_annotation
from metalayer.base.annotation_features import read_coding
from metalayer.base.annotation_tables import COLUMNS as TABLES
from metalayer.contigs import Contigs
from metalayer.errors import InputError
from metalayer.file_kinds import head_of, kind_of
from metalayer.genome import Gene, decode, reverse_complement
from metalayer.variants.letters import Letters

logger = logging.getLogger(__name__)

_LOOKED_AT = 2000
"""Introns whose ends are looked at, to see that FASTA and annotation are of one build."""
Coding = Mapping[tuple[str, str], tuple[int, int]]
"""Start and end of the coding sequence by transcript and contig."""
_STARTS, _ENDS = ("GT", "GC"), "AG"


@dataclass(frozen=True)
class Transcript:
    """Exons of an isoform.

    Attributes:
        name: as the annotation has it.
        exons: int64 (n, 2), 0-based half-open on the plus strand, ascending; gaps too short for an intron are closed.
        is_principal: whether the annotation calls it principal, or has no other.
    """

    name: str
    exons: NDArray[np.int64]
    is_principal: bool

    @property
    def length(self) -> int:
        """Of its exons, in nt."""
        return int((self.exons[:, 1] - self.exons[:, 0]).sum())


@dataclass(frozen=True)
class GeneSites:
    """A gene with its annotated sites: exon bases, 0-based genomic, ascending int64.

    Attributes:
        gene: its place.
        donors, acceptors: of all isoforms.
        edges: first and last bases of the exons of all transcripts, those of the transcripts' ends among them.
        transcripts: its isoforms; none of a table of junctions alone.
    """

    gene: Gene
    donors: NDArray[np.int64]
    acceptors: NDArray[np.int64]
    edges: NDArray[np.int64]
    transcripts: tuple[Transcript, ...] = ()

    @property
    def symbol(self) -> str:
        """Its name, or its id where it has none."""
        return self.gene.gene_name or self.gene.gene_id

    @property
    def is_plus(self) -> bool:
        """Whether it lies on the plus strand."""
        return self.gene.strand == "+"

    @classmethod
    def of(cls, annotated: AnnotatedGene) -> Self:
        """The sites of a gene of an annotation."""
        gene, introns = annotated.gene, annotated.introns()
        befores = np.unique([start - 1 for start, _ in introns]).astype(np.int64)
        afters = np.unique([end for _, end in introns]).astype(np.int64)
        exons = [exon for exons in annotated.exons.values() for exon in exons]
        edges = [edge for start, end in exons for edge in (start, end - 1)] or [*befores, *afters]
        donors, acceptors = (befores, afters) if gene.strand == "+" else (afters, befores)
        return cls(gene, donors, acceptors, np.unique(edges).astype(np.int64), _transcripts(annotated))


def _transcripts(annotated: AnnotatedGene) -> tuple[Transcript, ...]:
    principal = annotated.principal().transcript
    found = []
    for name, exons in annotated.exons.items():
        if name in annotated.unspliced:
            continue
        introns = introns_of(exons, annotated.min_intron_bp).places
        starts = [min(start for start, _ in exons), *(end for _, end in introns)]
        ends = [*(start for start, _ in introns), max(end for _, end in exons)]
        found.append(Transcript(name, np.array([starts, ends], np.int64).T, name == principal))
    return tuple(found)


class Genes:
    """Genes by place."""

    def __init__(self, genes: Iterable[GeneSites], coding: Callable[[], Coding] = dict) -> None:
        """Take genes, and what reads where coding sequences begin and end, when that is first asked for."""
        self._coding = cache(coding)
        by_contig: dict[str, list[GeneSites]] = {}
        for gene in genes:
            by_contig.setdefault(gene.gene.interval.chrom, []).append(gene)
        self._genes = {contig: sorted(there, key=_start) for contig, there in by_contig.items()}
        self._starts = {contig: [*map(_start, there)] for contig, there in self._genes.items()}
        self._reach = {
            contig: [*accumulate((gene.gene.interval.end for gene in there), max)]
            for contig, there in self._genes.items()
        }

    def __iter__(self) -> Iterator[GeneSites]:
        for there in self._genes.values():
            yield from there

    def coding(self, contig: str, transcript: str) -> tuple[int, int] | None:
        """Where the coding sequence of a transcript begins and ends, 0-based half-open; None where none is known."""
        return self._coding().get((transcript, contig))

    def touched(self, contig: str, start: int, end: int) -> list[GeneSites]:
        """Genes with a base in [start, end), 0-based, in the order of their starts."""
        if contig not in self._genes:
            return []
        last = bisect_left(self._starts[contig], end)
        first = bisect_right(self._reach[contig], start)
        return [gene for gene in self._genes[contig][first:last] if gene.gene.interval.end > start]

    @classmethod
    def read(cls, path: Path, letters: Letters, contigs: Contigs, *, allow_introns: bool = False) -> Self:
        """Genes of an annotation that lie on contigs of the FASTA.

        Args:
            path: GTF or GFF3, or a gene table of SpliceAI, OpenSpliceAI or CI-SpliceAI.
            letters: the reference.
            contigs: which names are of one contig.
            allow_introns: introns may begin and end with anything.

        Raises:
            InputError: as in `read_annotation`; no gene on a contig of the FASTA, or introns that do not fit.
        """
        annotation = read_annotation(path, contigs=contigs)
        there, absent, beyond = list[AnnotatedGene](), 0, 0
        for one in annotation.genes:
            span, key = one.gene.interval, letters.key(one.gene.interval.chrom)
            if key is None:
                absent += 1
            elif span.end > letters.lengths[key]:
                beyond += 1
            else:
                one.gene = replace(one.gene, interval=replace(span, chrom=key))
                there.append(one)
        for line in in_words(annotation.handled):
            logger.info("%s: %s", path.name, line)
        if absent:
            logger.info("%s: %d genes lie on contigs that %s lacks", path.name, absent, letters.path.name)
        if beyond > max(1, len(there) // 10) or not there:
            raise InputError(
                f"annotation {path}: {len(there)} of its {len(annotation.genes)} genes lie within the contigs of "
                f"{letters.path}, {absent} on contigs that it lacks, {beyond} end beyond their contig. Are both of one "
                f"genome build? {contigs.hint(list(annotation.names.values())[:3], list(letters.names.values())[:3])}"
            )
        if not allow_introns:
            _judge_introns(path, there, letters)
        kind = kind_of(head_of(path, "annotation"))

        def coding() -> Coding:
            if kind in TABLES:
                return {}
            known = read_coding(path, contigs)
            return {(name, letters.key(chrom) or chrom): span for (name, chrom), span in known.items()}

        return cls(map(GeneSites.of, there), coding)


def _start(gene: GeneSites) -> int:
    return gene.gene.interval.start


def _judge_introns(path: Path, genes: list[AnnotatedGene], letters: Letters) -> None:
    """See that introns begin with GT or GC and end with AG.

    Raises:
        InputError: too few of those that are looked at do.
    """
    found = [(one.gene, *intron) for one in genes for intron in one.introns()]
    step = max(1, len(found) // _LOOKED_AT)
    seen = canonical = 0
    for gene, start, end in found[::step]:
        ends = [letters.tokens(gene.interval.chrom, at, at + 2) for at in (start, end - 2)]
        if gene.strand == "-":
            ends = [reverse_complement(tokens) for tokens in reversed(ends)]
        first, last = map(decode, ends)
        if "N" in first + last:
            continue
        seen += 1
        canonical += first in _STARTS and last == _ENDS
    if seen >= MIN_INTRONS and canonical < MIN_CANONICAL * seen:
        raise InputError(
            f"annotation {path}: {canonical} of {seen} introns that were looked at begin with GT or GC and end with AG "
            f"in {letters.path}; needed are {MIN_CANONICAL:.0%}. Are both of one genome build? `metalayer base run` "
            "names the shift that would fit; --allow-introns is for genomes with other introns"
        )
