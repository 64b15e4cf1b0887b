"""Do an annotation and a reference belong together? Judged before hours of scoring, chromosome by chromosome.

Nearly all introns of the spliceosome begin with GT (or GC) and end with AG. Where they do not, the two are of different
genome builds, an importer was one base off, or a strand is wrong: the shift at which they do is looked for and named.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metalayer.base.annotation import ALWAYS_ALLOWED, AnnotatedGene
from metalayer.base.fasta import Reference
from metalayer.contigs import CHROMOSOME, SCAFFOLD, is_accession, listed
from metalayer.errors import InputError
from metalayer.gene_groups import united
from metalayer.genome import N_TOKEN, complement, encode, reverse_complement

logger = logging.getLogger(__name__)

MIN_CANONICAL = 0.9
"""Share of introns that begin with GT or GC and end with AG, below which annotation and FASTA do not fit."""
MIN_INTRONS = 20
"""Fewer introns than this tell nothing about the build by their share alone."""
MIN_SHIFTED = 3
"""Fewer introns than this tell nothing even where all of them fit at one other place: chance is 1 in 128 for each."""
MIN_APART = 10
"""How many times their length two exons are apart that may be copies of one."""
MIN_COPY_BP = 20
"""Exons shorter than this may have the same letters by chance."""
SHIFTS = range(-10, 11)
MAX_ABSENT = 0.2
"""Share of genes that may lie on alternative loci, patches, scaffolds and organelles that the FASTA lacks: a
comprehensive human annotation beside a primary assembly has 11 to 12 %."""
MAX_ABSENT_ALONE = 0.02
"""Share of genes above which one of these contigs is taken for a chromosome, whatever its name."""
MIN_WHOLE = 0.9
"""Share of a contig below which a region from its first base is a part of it: builds differ by less."""
MAX_BEYOND = 0.1
"""Share of a chromosome's genes that may end beyond it, one at least: those across the origin of a circular one."""
_NAMED = 10
_A, _C, _G, _T = encode("ACGT")


@dataclass
class Agreement:
    """What fits.

    Attributes:
        genes: those that can be scored, by chromosome; equal sequences share a paralog group.
        handled: genes left out, by reason (`annotation.REASONS`).
        introns: introns whose ends are letters.
        canonical: how many of them begin with GT or GC and end with AG.
        lengths: of the chromosomes, nt.
        left_out: the reason of each gene that cannot be scored, a key of `annotation.REASONS`, by its id.
    """

    genes: dict[str, list[AnnotatedGene]] = field(default_factory=dict)
    handled: Counter[str] = field(default_factory=Counter)
    introns: int = 0
    canonical: int = 0
    lengths: dict[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def leave_out(self, genes: Iterable[AnnotatedGene], reason: str) -> None:
        """Note genes that cannot be scored."""
        named = {one.gene.gene_id: reason for one in genes}
        self.left_out |= named
        self.handled[reason] += len(named)


@dataclass(frozen=True)
class _Fit:
    """Introns of a chromosome that are canonical as they stand, and where most are.

    Attributes:
        introns: whose ends are letters.
        canonical: as they stand.
        best: canonical with the shifts.
        starts, ends: shifts of the starts and the ends of exons, in bases along the chromosome.
        flipped: on the other strand.
    """

    introns: int
    canonical: int
    best: int
    starts: int
    ends: int
    flipped: bool

    @property
    def would(self) -> str:
        shift = self.starts or self.ends
        where = f"{shift:+d} base{'s' * (abs(shift) != 1)} along the chromosome" if shift else ""
        if self.starts != self.ends:
            where = f"with the {'starts' if self.starts else 'ends'} of exons {where}"
        other = "on the other strand" if self.flipped else ""
        return f"{self.best} of {self.introns} do {' and '.join(filter(None, (where, other)))}"


def check_agreement(
    genes: Mapping[str, Sequence[AnnotatedGene]],
    reference: Reference,
    annotation: Path,
    *,
    names: Mapping[str, str] | None = None,
    regions: Mapping[str, int] | None = None,
    organelles: Collection[str] = (),
    allow_introns: bool = False,
) -> Agreement:
    """Read the reference once and judge.

    Args:
        genes: by chromosome.
        reference: where they lie.
        annotation: for messages.
        names: of the chromosomes in the annotation, by ours; None where they are ours.
        regions: lengths that the annotation states of chromosomes, or of parts from base 1 on, in nt by our name.
        organelles: chromosomes that are of mitochondria or plastids.
        allow_introns: introns may begin and end with anything.

    Raises:
        InputError: a chromosome that the FASTA lacks, or has in another length than is stated; genes beyond their
            chromosome; introns that do not fit.
    """
    found, fits = Agreement(), dict[str, _Fit]()
    twins: dict[bytes, list[AnnotatedGene]] = {}
    absent, indexed, lengths = set(genes), reference.indexed(), found.lengths
    for chrom, tokens in reference.chromosomes(genes):
        absent.discard(chrom)
        lengths[chrom] = len(tokens)
        if indexed.get(chrom, len(tokens)) != len(tokens):
            logger.warning(
                "%s has %d nt in %s, but %d in the index beside it, which is of another file: make it again",
                *(reference.names[chrom], len(tokens), reference.path, indexed[chrom]),
            )
        kept = []
        beyond = [one for one in genes[chrom] if one.gene.interval.end > len(tokens)]
        if len(beyond) > max(1.0, MAX_BEYOND * len(genes[chrom])) or len(beyond) == sum(map(len, genes.values())):
            gene = beyond[0].gene
            raise InputError(
                f"{len(beyond)} of {len(genes[chrom])} genes of {annotation} on chromosome {chrom} end beyond it, the "
                f"first {gene.gene_id} at {gene.interval.end}: it has {len(tokens)} nt in {reference.path}. Are both "
                "of one genome build?"
            )
        found.leave_out(beyond, "genes_beyond_their_chromosome")
        for one in genes[chrom]:
            letters = tokens[one.gene.interval.start : one.gene.interval.end]
            if one in beyond:
                continue
            if (letters == N_TOKEN).all():
                found.leave_out([one], "genes_of_N")
                continue
            kept.append(one)
        copies = _in_two_places(kept, tokens, judge_introns=not allow_introns)
        if copies:
            found.leave_out(
                [one for one in kept if one.gene.gene_id in copies], "genes_with_a_transcript_in_two_places"
            )
            kept = [one for one in kept if one.gene.gene_id not in copies]
        for one in kept if len(genes) > 1 else ():
            letters = tokens[one.gene.interval.start : one.gene.interval.end]
            sense = letters if one.gene.strand == "+" else reverse_complement(letters)
            twins.setdefault(hashlib.sha256(sense.tobytes()).digest(), []).append(one)
        if kept:
            found.genes[chrom] = kept
            fits[chrom] = _fit(kept, tokens)
    if absent:
        _refuse_absent(genes, absent, reference, annotation, names or {}, organelles)
        lacking = [one for chrom in absent for one in genes[chrom]]
        found.leave_out(lacking, "genes_on_contigs_that_the_FASTA_lacks")
    _check_lengths(reference, lengths, regions or {}, fits, annotation)
    if not found.genes:
        raise InputError(f"no gene of {annotation} has letters other than N in {reference.path}")
    _group(found.genes, twins.values())
    found.introns = sum(fit.introns for fit in fits.values())
    found.canonical = sum(fit.canonical for fit in fits.values())
    if not allow_introns:
        _judge(found, fits, annotation, reference.path)
    return found


def _group(genes: Mapping[str, Sequence[AnnotatedGene]], twins: Iterable[Sequence[AnnotatedGene]]) -> None:
    """Give paralog groups to genes of equal letters and to those that the annotation knows by one id."""
    by_id = {one.gene.gene_id: one for there in genes.values() for one in there}
    lists = [[one.gene.gene_id for one in group] for group in twins if len(group) > 1]
    copies: dict[str, list[str]] = {}
    for gene_id, one in by_id.items():
        if one.gene.paralog_group is not None:
            copies.setdefault(one.gene.paralog_group, []).append(gene_id)
    for group in united(by_id, [*lists, *copies.values()]):
        name = f"same-{group[0]}" if len(group) > 1 else None
        for gene_id in group if name or by_id[group[0]].gene.paralog_group else ():
            by_id[gene_id].gene = replace(by_id[gene_id].gene, paralog_group=name)


def _refuse_absent(
    genes: Mapping[str, Sequence[AnnotatedGene]],
    absent: Collection[str],
    reference: Reference,
    annotation: Path,
    names: Mapping[str, str],
    organelles: Collection[str],
) -> None:
    """See that contigs that the FASTA lacks are none of its chromosomes, and have few genes.

    Raises:
        InputError: a chromosome is lacking, or too many genes are.
    """
    counts = {chrom: len(genes[chrom]) for chrom in genes if chrom in absent}
    total, count = sum(map(len, genes.values())), sum(counts.values())
    chromosomes = [
        chrom
        for chrom in counts
        if (chrom not in organelles and reference.contigs.kind(chrom) == CHROMOSOME)
        or (reference.contigs.kind(chrom) == SCAFFOLD and counts[chrom] > max(ALWAYS_ALLOWED, MAX_ABSENT_ALONE * total))
    ]
    theirs = {chrom: names.get(chrom, chrom) for chrom in genes}
    if not chromosomes and 2 * count < total and count <= max(ALWAYS_ALLOWED, MAX_ABSENT * total):
        logger.warning(
            "%s lacks %s of %s: their %d of %d genes are left out",
            *(reference.path, listed(theirs[chrom] for chrom in counts), annotation, count, total),
        )
        return
    lacking = [theirs[chrom] for chrom in chromosomes or counts]
    raise InputError(
        f"FASTA {reference.path} has no chromosome {listed(lacking)} of the annotation {annotation}"
        + (
            ""
            if chromosomes or count == total
            else f", with {count} of {total} genes; at most {100 * MAX_ABSENT:g} %, or {ALWAYS_ALLOWED} where that is "
            "less than half, may be left out"
        )
        + f". The FASTA has {listed(reference.names.values())}; the annotation {listed(theirs.values())}. "
        "Give the whole reference, or an annotation of what is there. "
        + reference.contigs.hint(lacking, reference.names.values())
    )


def _check_lengths(
    reference: Reference,
    lengths: Mapping[str, int],
    regions: Mapping[str, int],
    fits: Mapping[str, _Fit],
    annotation: Path,
) -> None:
    """Refuse contigs whose length the table of aliases or the annotation states otherwise.

    Args:
        reference: the FASTA, with the table.
        lengths: in the FASTA, nt by our names.
        regions: from base 1, as the annotation states them: a shorter one may be a part of the contig.
        fits: of the introns.
        annotation: for the message.
    """
    table = reference.contigs
    for chrom, length in lengths.items():
        region, line = regions.get(chrom, length), table.lines.get(chrom)
        fit = fits.get(chrom)
        is_part = region < MIN_WHOLE * length or (
            region < length and fit and fit.introns >= MIN_INTRONS and fit.canonical >= MIN_CANONICAL * fit.introns
        )
        stated = {
            f"{annotation} (##sequence-region)": length if is_part else region,
            str(table.path): (line and line.length) or length,
        }
        for where, other in stated.items():
            if other != length:
                raise InputError(
                    f"chromosome {reference.names[chrom]} has {length} nt in {reference.path}, but {other} in {where}: "
                    "they are of different genome builds. Give files of one build; if it is this contig alone that "
                    "differs, leave it out"
                )


def _judge(found: Agreement, fits: Mapping[str, _Fit], annotation: Path, fasta: Path) -> None:
    wrong = {chrom: fit for chrom, fit in fits.items() if _is_wrong(fit)}
    misfits = [chrom for chrom, fit in fits.items() if fit.canonical < MIN_CANONICAL * fit.introns]
    introns, canonical = found.introns, found.canonical
    if wrong or (introns >= MIN_INTRONS and canonical < MIN_CANONICAL * introns):
        chroms = ", ".join(
            f"chromosome {chrom}: {fit.canonical} of {fit.introns}"
            + (f", but {fit.would}" if fit.best >= MIN_CANONICAL * fit.introns else "")
            for chrom, fit in list((wrong or fits).items())[:_NAMED]
        )
        raise InputError(
            f"only {canonical} of {introns} introns of {annotation} begin with GT or GC and end with AG in {fasta} "
            f"({chroms}); nearly all do where both are of one genome build and the strand is right. Where a genome has "
            "other introns, allow them (--allow-introns; base.allow_introns)"
            + (
                ". Introns of mitochondria and plastids are not looked at: --aliases with NCBI's assembly report says "
                "which accessions are theirs"
                if len(misfits) < len(fits) and any(map(is_accession, misfits))
                else ""
            )
        )
    if introns < MIN_INTRONS:
        logger.warning(
            "%d of %d introns begin with GT or GC and end with AG: too few introns to tell whether annotation and "
            "FASTA are of one build",
            *(canonical, introns),
        )
    for chrom in misfits:
        logger.warning(
            "chromosome %s: only %d of %d introns begin with GT or GC and end with AG",
            *(chrom, fits[chrom].canonical, fits[chrom].introns),
        )


def _is_wrong(fit: _Fit) -> bool:
    if fit.introns >= MIN_INTRONS and fit.canonical < MIN_CANONICAL * fit.introns:
        return True
    elsewhere = fit.best >= MIN_CANONICAL * fit.introns and fit.canonical < 0.5 * fit.introns
    return fit.introns >= MIN_SHIFTED and elsewhere


def _fit(genes: Sequence[AnnotatedGene], tokens: NDArray[np.uint8]) -> _Fit:
    places = [(start, end, gene.gene.strand == "-") for gene in genes for start, end in gene.introns()]
    table = np.array(places, dtype=np.int64).reshape(-1, 3)
    table = table[table[:, 1] - table[:, 0] >= 4]
    start, end, minus = table[:, 0], table[:, 1], table[:, 2].astype(bool)
    here, known = _canonical(tokens, start, end, minus)
    start, end, minus = start[known], end[known], minus[known]
    shifts = [*((shift, shift) for shift in SHIFTS), *((one, 0) for one in (-1, 1)), *((0, one) for one in (-1, 1))]
    counts = {  # an intron starts where an exon ends
        (starts, ends, flipped): int(_canonical(tokens, start + ends, end + starts, minus ^ flipped)[0].sum())
        for flipped in (False, True)
        for starts, ends in shifts
        if (starts, ends, flipped) != (0, 0, False)
    }
    best = max(counts, key=lambda key: (counts[key], -abs(key[0]) - abs(key[1]), not key[2]))
    return _Fit(int(known.sum()), int(here.sum()), counts[best], *best)


def _in_two_places(genes: Sequence[AnnotatedGene], tokens: NDArray[np.uint8], *, judge_introns: bool) -> set[str]:
    """Ids of genes one of whose transcripts is an exon and its copies, with no intron between them.

    Exons of one length, further apart than they are long, are copies where their letters are the same; two far apart
    also where what lies between them begins and ends as no intron does, while others of the chromosome do.

    Args:
        genes: of a chromosome.
        tokens: the chromosome.
        judge_introns: look at how introns begin and end.
    """
    found, suspects = set[str](), set[str]()
    for one in genes:
        for transcript, exons in one.exons.items():
            places = sorted(set(exons))
            length = places[0][1] - places[0][0]
            gaps = [(end, start) for (_, end), (start, _) in pairwise(places)]
            even = all(end - start == length for start, end in places) and all(b - a > length for a, b in gaps)
            if transcript in one.unspliced or len(places) == 1 or not even or length < MIN_COPY_BP:
                continue
            if len({tokens[start:end].tobytes() for start, end in places}) == 1:
                found.add(one.gene.gene_id)
            elif judge_introns and len(places) == 2 and gaps[0][1] - gaps[0][0] > MIN_APART * length:
                start, end = np.array(gaps, dtype=np.int64).T
                canonical, known = _canonical(tokens, start, end, np.full(len(gaps), one.gene.strand == "-"))
                if known.all() and not canonical.any():
                    suspects.add(one.gene.gene_id)
    others = [one for one in genes if one.gene.gene_id not in found | suspects]
    if suspects:
        fit = _fit(others, tokens)
        if fit.introns >= MIN_SHIFTED and fit.canonical >= MIN_CANONICAL * fit.introns:
            found |= suspects
    return found


def _canonical(
    tokens: NDArray[np.uint8], start: NDArray[np.int64], end: NDArray[np.int64], minus: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which introns begin with GT or GC and end with AG, and whose four ends are letters at all."""
    at = np.stack([start, start + 1, end - 2, end - 1])
    inside = ((at >= 0) & (at < len(tokens))).all(axis=0)
    letters = tokens[np.clip(at, 0, len(tokens) - 1)]
    sense = np.where(minus, complement(letters[::-1]), letters)
    known = inside & (letters < N_TOKEN).all(axis=0)
    return known & begins_intron(sense[0], sense[1]) & ends_intron(sense[2], sense[3]), known


def begins_intron(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where two letters that follow each other are GT or GC, transcript sense."""
    found: NDArray[np.bool_] = (first == _G) & ((second == _T) | (second == _C))
    return found


def ends_intron(last_but_one: NDArray[np.uint8], last: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where two letters that follow each other are AG, transcript sense."""
    found: NDArray[np.bool_] = (last_but_one == _A) & (last == _G)
    return found
