"""The genes of an annotation over a reference, checked against each other: where base layers and imports begin."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from metalayer.base.agreement import Agreement, check_agreement
from metalayer.base.annotation import MIN_INTRON_BP, AnnotatedGene, Annotation, read_annotation
from metalayer.base.fasta import Reference
from metalayer.base.principal import JUNCTIONS, NO_SOURCE
from metalayer.contigs import Contigs, listed
from metalayer.errors import InputError
from metalayer.files import sha256
from metalayer.genome import Gene

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AnnotatedGenome:
    """What was read.

    Attributes:
        contigs: which names are of one chromosome.
        reference: the FASTA.
        annotation: all that the file holds.
        fitting: what of it can be scored.
        by_chrom: its genes, by chromosome.
        genes: likewise, in the order of the annotation.
        handled: what was left out or read otherwise, and how often; keys of `annotation.REASONS`.
    """

    contigs: Contigs
    reference: Reference
    annotation: Annotation
    fitting: Agreement
    by_chrom: dict[str, list[AnnotatedGene]]
    genes: list[Gene]
    handled: dict[str, int]

    @classmethod
    def read(
        cls,
        fasta: Path,
        annotation: Path,
        aliases: Path | None,
        *,
        min_intron_bp: int = MIN_INTRON_BP,
        allow_introns: bool = False,
    ) -> AnnotatedGenome:
        """Read an annotation, and the reference once.

        Args:
            fasta: the reference.
            annotation: GTF or GFF3.
            aliases: table of names of contigs, None for none.
            min_intron_bp: least length of an intron.
            allow_introns: introns may begin and end with anything.

        Raises:
            InputError: as in `read_annotation` and `check_agreement`, or aliases that cannot be used.
        """
        contigs = Contigs.of(aliases)
        found = read_annotation(annotation, min_intron_bp, contigs)
        reference = Reference(fasta, contigs)
        there: dict[str, list[AnnotatedGene]] = {}
        for annotated in found.genes:
            there.setdefault(annotated.gene.interval.chrom, []).append(annotated)
        if contigs.path and not any(map(contigs.knows, found.names.values())):
            logger.warning("%s has no name that %s has (%s)", contigs.path, annotation, listed(found.names.values()))
        fitting = check_agreement(
            there,
            reference,
            annotation,
            names=found.names,
            regions=found.lengths,
            organelles=found.organelles,
            allow_introns=allow_introns,
        )
        by_chrom = fitting.genes
        genes = [annotated.gene for chrom in there for annotated in by_chrom.get(chrom, ())]
        handled = dict(sorted((Counter(found.handled) + fitting.handled).items()))
        return cls(contigs, reference, found, fitting, by_chrom, genes, handled)

    def principal_by(self) -> dict[str, int]:
        """How many genes have a principal transcript, by what says so."""
        return principal_sources(one for there in self.by_chrom.values() for one in there)

    def labels_in_words(self, which: str) -> list[str]:
        """Which sites are labels, and what says which transcripts are principal."""
        return labels_in_words(which, self.principal_by())

    @property
    def own_names(self) -> dict[str, str]:
        """Names of the chromosomes with genes in the FASTA, by ours."""
        return {chrom: self.reference.names[chrom] for chrom in self.by_chrom}


_NONE = (NO_SOURCE, JUNCTIONS)


def principal_sources(genes: Iterable[AnnotatedGene]) -> dict[str, int]:
    """How many genes have a principal transcript, by what says so; keys as in `Principal.source`."""
    return dict(sorted(Counter(one.principal().source for one in genes).items()))


def labels_in_words(which: str, sources: Mapping[str, int]) -> list[str]:
    """Which sites are labels, and what says which transcripts are principal."""
    what = "labels are the sites of every transcript"
    if which == "principal":
        what = "labels are the sites of the principal transcript of each gene, of every one where there is none"
    said = [f"{count:,} genes: {'' if source in _NONE else 'by '}{source}" for source, count in sources.items()]
    return [what, *(f"principal transcript of {text}" for text in said)]


def file_facts(kind: str, path: Path) -> dict[str, str]:
    """Name and SHA-256 of an input file; `kind` is what it is, for messages.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return {"name": path.name, "sha256": sha256(path)}
    except OSError as error:
        raise InputError(f"{kind} {path}: {error.strerror or error}") from None
