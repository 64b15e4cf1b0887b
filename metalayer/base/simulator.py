"""Made-up genes with a planted truth: the demo, the test fixture and the known answer in one.

What makes a splice site here is more than its motif. Donors and acceptors carry letters drawn from the
position frequencies of `pwm.py`; decoys carry letters drawn from the very same frequencies, so that no
weight matrix can tell them apart. Only real sites have their surroundings: exonic enhancers within
60 nt inside the exon (either site), and a branch point and a polypyrimidine tract before the acceptor.
All of it lies within 64 nt of the site, where a local convolution can see it. None of it is certain:
surroundings are drawn, and strays lie elsewhere.

Genes lie on chromosomes 1 to 10 and X, on both strands, in random intergenic letters; some overlap tail
to tail, and some are mutated copies (paralogs) of a gene on the next chromosome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from metalayer.base.genome_files import AnnotatedVariant
from metalayer.base.pwm import EXON_LETTERS, SITE_FREQUENCIES
from metalayer.errors import InputError
from metalayer.genome import Gene, Interval, Variant, decode, encode, reverse_complement
from metalayer.schema import ACCEPTOR, DONOR
from metalayer.site_labels import labels_of_sites

CHROMOSOMES = (*(str(n) for n in range(1, 11)), "X")
_TERMINAL_FREE_BP = 130  # the outer part of a terminal exon: no motif, so that tails may overlap
_ENHANCER_REACH_BP = 60
_INTRON_MARGIN_BP = 60  # decoys keep this far from the ends of an intron
_MOTIF_REACH = {DONOR: (-2, 7), ACCEPTOR: (-14, 1)}  # letters of a motif around its exon base, half-open


@dataclass(frozen=True)
class SimulationParameters:
    """How genes are made; counts are per item, lengths in bp as [low, high)."""

    introns: tuple[int, int] = (3, 12)
    """Introns of a gene."""
    exon_bp: tuple[int, int] = (80, 200)
    """Internal exons."""
    terminal_exon_bp: tuple[int, int] = (250, 450)
    """First and last exons."""
    intron_bp: tuple[int, int] = (150, 750)
    """Introns."""
    intergenic_bp: tuple[int, int] = (400, 2000)
    """Between genes."""
    decoys_per_site: float = 1.2
    """Decoys of either type, in introns and in the outer parts of terminal exons."""
    enhancers_per_site: tuple[int, int] = (2, 5)
    """Exonic enhancers beside a real site."""
    stray_enhancers_per_intron: float = 0.5
    """Enhancers that mean nothing, anywhere in an intron."""
    surroundings_share: float = 0.9
    """Share of real acceptors with a branch point, and likewise with a long polypyrimidine tract."""
    overlapping_share: float = 0.08
    """Share of genes that overlap another one."""
    paralog_share: float = 0.08
    """Share of genes with a mutated copy on another chromosome, copies included."""
    paralog_divergence: float = 0.08
    """Share of letters drawn again in a copy, outside splice motifs."""


ENHANCERS = ("GAAGAA", "GAAGAG", "GAGGAA", "AAGAAG")
_EXON_LETTERS = (0.27, 0.25, 0.26, 0.22)
_INTRON_LETTERS = (0.28, 0.20, 0.21, 0.31)
_INTERGENIC_LETTERS = (0.29, 0.21, 0.21, 0.29)
# yUnAy, as DNA.
_BRANCH_POINT = np.array(
    [
        (0.05, 0.6, 0.05, 0.3),
        (0.02, 0.08, 0.02, 0.88),
        (0.3, 0.3, 0.2, 0.2),
        (0.97, 0.01, 0.01, 0.01),
        (0.05, 0.6, 0.05, 0.3),
    ]
)
_TRACT = np.array([(0.06, 0.38, 0.06, 0.50)] * 10)  # -24 .. -15, before the letters that the PWM sees


@dataclass(frozen=True)
class SimulatedGene:
    """A gene with its planted truth, transcript sense.

    Attributes:
        gene: where it lies.
        tokens: uint8 (L,).
        labels: uint8 (L,), class at exon bases.
        exons: 0-based half-open, 5' to 3'.
        decoys: (exon base, class) of motifs that are no site.
    """

    gene: Gene
    tokens: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    exons: tuple[tuple[int, int], ...]
    decoys: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Simulation:
    """Genes, ordered by chromosome and start, and the plus strands that they lie on."""

    genes: tuple[SimulatedGene, ...]
    chromosomes: dict[str, NDArray[np.uint8]]

    def flanks(self, gene: Gene, flank_bp: int) -> tuple[str, str]:
        """The letters before and after a gene in transcript sense, at most `flank_bp` each."""
        span, letters = gene.interval, self.chromosomes[gene.interval.chrom]
        before = letters[max(0, span.start - flank_bp) : span.start]
        after = letters[span.end : span.end + flank_bp]
        if gene.strand == "-":
            before, after = reverse_complement(after), reverse_complement(before)
        return decode(before), decode(after)


def simulate_genes(seed: int = 7, n_genes: int = 150, parameters: SimulationParameters | None = None) -> Simulation:
    """Make genes; the same seed makes the same genes.

    Args:
        seed: draws everything.
        n_genes: how many; from about 30 on, every chromosome has several.
        parameters: how they look.

    Raises:
        InputError: a negative seed, or fewer than 1 gene.
    """
    if seed < 0 or n_genes < 1:
        raise InputError(f"simulation with seed {seed} and {n_genes} genes; needs a seed >= 0 and at least 1 gene")
    parameters = parameters or SimulationParameters()
    rng = np.random.default_rng(seed)
    loci = _deal(_loci(rng, n_genes, parameters))
    genes: list[SimulatedGene] = []
    chromosomes: dict[str, NDArray[np.uint8]] = {}
    for chrom, here in zip(CHROMOSOMES, loci, strict=True):
        placed, chromosomes[chrom] = _place(rng, chrom, here, parameters, first_number=len(genes) + 1)
        genes.extend(placed)
    return Simulation(tuple(genes), chromosomes)


@dataclass(frozen=True)
class _Draft:
    """A gene before it has a place; `paralog_group` as in the gene table."""

    tokens: NDArray[np.uint8]
    exons: tuple[tuple[int, int], ...]
    decoys: tuple[tuple[int, int], ...]
    paralog_group: str | None = None


def _letters(rng: np.random.Generator, length: int, shares: tuple[float, ...]) -> NDArray[np.uint8]:
    drawn: NDArray[np.uint8] = rng.choice(4, size=length, p=shares).astype(np.uint8)
    return drawn


def _motif(rng: np.random.Generator, frequencies: NDArray[np.float64]) -> NDArray[np.uint8]:
    """One letter a position, float64 (n, 4) to uint8 (n,)."""
    ranks = rng.random((len(frequencies), 1))
    drawn: NDArray[np.uint8] = np.minimum((ranks > np.cumsum(frequencies, axis=1)).sum(axis=1), 3).astype(np.uint8)
    return drawn


def _site_motif(rng: np.random.Generator, site_class: int) -> NDArray[np.uint8]:
    """Letters of a motif, always GT or AG at its core: the rare other sites would have no name here."""
    letters = _motif(rng, SITE_FREQUENCIES[site_class])
    at = EXON_LETTERS[DONOR] if site_class == DONOR else len(letters) - EXON_LETTERS[ACCEPTOR] - 2
    letters[at : at + 2] = encode("GT" if site_class == DONOR else "AG")
    return letters


def _put_site(rng: np.random.Generator, tokens: NDArray[np.uint8], exon_base: int, site_class: int) -> None:
    low, high = _MOTIF_REACH[site_class]
    tokens[exon_base + low : exon_base + high] = _site_motif(rng, site_class)


def _put_enhancers(rng: np.random.Generator, tokens: NDArray[np.uint8], start: int, end: int, count: int) -> None:
    """Up to `count` enhancers side by side or apart in [start, end)."""
    slots = np.arange(start, end - 5, 7)
    for at in rng.choice(slots, size=min(count, len(slots)), replace=False):
        tokens[at : at + 6] = encode(ENHANCERS[rng.integers(len(ENHANCERS))])


def _make_gene(rng: np.random.Generator, p: SimulationParameters) -> _Draft:
    n_introns = int(rng.integers(*p.introns))
    exon_lengths = rng.integers(*p.exon_bp, size=n_introns + 1)
    exon_lengths[[0, -1]] = rng.integers(*p.terminal_exon_bp, size=2)
    intron_lengths = rng.integers(*p.intron_bp, size=n_introns)
    exons, at = [], 0
    for i, length in enumerate(exon_lengths):
        exons.append((at, at + int(length)))
        at += int(length) + (int(intron_lengths[i]) if i < n_introns else 0)
    tokens = _letters(rng, at, _INTRON_LETTERS)
    for start, end in exons:
        tokens[start:end] = _letters(rng, end - start, _EXON_LETTERS)
    introns = [(left[1], right[0]) for left, right in pairwise(exons)]
    for start, end in introns:
        for _ in range(rng.poisson(p.stray_enhancers_per_intron)):
            _put_enhancers(rng, tokens, *_within(rng, start + _INTRON_MARGIN_BP, end - _INTRON_MARGIN_BP, 6), count=1)
    decoys = _put_decoys(rng, tokens, exons, introns, p)
    for (_, donor_exon_end), (acceptor_exon_start, _) in pairwise(exons):
        exon_before = donor_exon_end - _ENHANCER_REACH_BP
        _put_enhancers(rng, tokens, exon_before, donor_exon_end - 3, int(rng.integers(*p.enhancers_per_site)))
        exon_after = acceptor_exon_start + _ENHANCER_REACH_BP
        _put_enhancers(rng, tokens, acceptor_exon_start + 1, exon_after, int(rng.integers(*p.enhancers_per_site)))
        if rng.random() < p.surroundings_share:
            tokens[acceptor_exon_start - 24 : acceptor_exon_start - 14] = _motif(rng, _TRACT)
        if rng.random() < p.surroundings_share:
            branch = acceptor_exon_start - int(rng.integers(27, 41))
            tokens[branch - 3 : branch + 2] = _motif(rng, _BRANCH_POINT)  # the A lies 27 to 40 before the exon
        _put_site(rng, tokens, donor_exon_end - 1, DONOR)
        _put_site(rng, tokens, acceptor_exon_start, ACCEPTOR)
    return _Draft(tokens, tuple(exons), decoys)


def _within(rng: np.random.Generator, start: int, end: int, length: int) -> tuple[int, int]:
    """A random stretch of `length` in [start, end), which has room for it."""
    at = int(rng.integers(start, end - length + 1))
    return at, at + length


def _put_decoys(
    rng: np.random.Generator,
    tokens: NDArray[np.uint8],
    exons: list[tuple[int, int]],
    introns: list[tuple[int, int]],
    p: SimulationParameters,
) -> tuple[tuple[int, int], ...]:
    """Motifs without surroundings, where no real site's surroundings are and none on another."""
    margin = _INTRON_MARGIN_BP
    free = [(start + margin, end - margin) for start, end in introns]
    free.append((_TERMINAL_FREE_BP, exons[0][1] - _ENHANCER_REACH_BP))
    free.append((exons[-1][0] + _ENHANCER_REACH_BP, exons[-1][1] - _TERMINAL_FREE_BP))
    room = np.zeros(len(tokens), dtype=bool)
    for start, end in free:
        room[start:end] = True
    decoys = []
    for site_class in (DONOR, ACCEPTOR):
        low, high = _MOTIF_REACH[site_class]
        for _ in range(rng.binomial(2 * len(introns), p.decoys_per_site / 2)):
            fits = np.convolve(room, np.ones(high - low, dtype=np.int64), "valid") == high - low
            starts = np.flatnonzero(fits)
            if not len(starts):
                break
            start = int(rng.choice(starts))
            room[start : start + high - low] = False
            _put_site(rng, tokens, start - low, site_class)
            decoys.append((start - low, site_class))
    return tuple(sorted(decoys))


def _mutated(rng: np.random.Generator, gene: _Draft, divergence: float) -> NDArray[np.uint8]:
    """A copy with letters drawn again, but in the motifs of its sites and decoys."""
    change = rng.random(len(gene.tokens)) < divergence
    for base, site_class in (*_sites(gene.exons), *gene.decoys):
        low, high = _MOTIF_REACH[site_class]
        change[base + low : base + high] = False
    tokens = gene.tokens.copy()
    tokens[change] = _letters(rng, int(change.sum()), _INTRON_LETTERS)
    return tokens


def _loci(rng: np.random.Generator, n_genes: int, p: SimulationParameters) -> list[list[_Draft]]:
    """Places to fill: one gene, or two that overlap; the two of a paralog pair follow each other."""
    n_overlapping = round(n_genes * p.overlapping_share / 2)
    n_paralogs = round(n_genes * p.paralog_share / 2)
    units: list[list[list[_Draft]]] = []  # loci that stay together
    for _ in range(n_overlapping):
        units.append([[_make_gene(rng, p), _make_gene(rng, p)]])
    for number in range(n_paralogs):
        gene = replace(_make_gene(rng, p), paralog_group=f"PG{number + 1}")
        units.append([[gene], [replace(gene, tokens=_mutated(rng, gene, p.paralog_divergence))]])
    for _ in range(n_genes - 2 * n_overlapping - 2 * n_paralogs):
        units.append([[_make_gene(rng, p)]])
    return [locus for at in rng.permutation(len(units)) for locus in units[at]]


def _deal(loci: list[list[_Draft]]) -> list[list[list[_Draft]]]:
    """Loci in turn over the chromosomes, so that neighbours in the list never share one."""
    return [loci[i :: len(CHROMOSOMES)] for i in range(len(CHROMOSOMES))]


def _place(
    rng: np.random.Generator, chrom: str, loci: list[list[_Draft]], p: SimulationParameters, first_number: int
) -> tuple[list[SimulatedGene], NDArray[np.uint8]]:
    """Lay loci along a chromosome: its genes, and its plus strand."""
    at = int(rng.integers(*p.intergenic_bp))
    placed: list[tuple[_Draft, int, str]] = []
    for locus in loci:
        strands = ["+", "-"] if len(locus) == 2 else [str(rng.choice(["+", "-"]))]
        for draft, strand in zip(locus, strands, strict=True):
            placed.append((draft, at, strand))
            at += len(draft.tokens)
            if len(locus) == 2 and strand == "+":
                at -= int(rng.integers(40, _TERMINAL_FREE_BP - 9))  # tail to tail
        at += int(rng.integers(*p.intergenic_bp))
    letters = _letters(rng, at, _INTERGENIC_LETTERS)
    for draft, start, strand in placed:
        letters[start : start + len(draft.tokens)] = draft.tokens if strand == "+" else reverse_complement(draft.tokens)
    genes = []
    for number, (draft, start, strand) in enumerate(placed, start=first_number):
        span = Interval(chrom, start, start + len(draft.tokens))
        name = f"SIM{number:04d}"
        gene = Gene(name, span, strand, name, draft.paralog_group)
        # Read back from the chromosome: overlapping genes share their letters.
        here = letters[span.start : span.end]
        tokens = here.copy() if strand == "+" else reverse_complement(here)
        genes.append(SimulatedGene(gene, tokens, _labels(draft), draft.exons, draft.decoys))
    return genes, letters


def _sites(exons: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(exon base, class) of the sites between exons."""
    donors = [(end - 1, DONOR) for _, end in exons[:-1]]
    return sorted(donors + [(start, ACCEPTOR) for start, _ in exons[1:]])


def _labels(gene: _Draft) -> NDArray[np.uint8]:
    donors, acceptors = ([end - 1 for _, end in gene.exons[:-1]], [start for start, _ in gene.exons[1:]])
    return labels_of_sites(len(gene.tokens), donors, acceptors)


def simulate_variants(simulation: Simulation, seed: int, share: float = 0.25) -> list[AnnotatedVariant]:
    """Variants with a known effect, as SpliceVarDB would list them.

    Those that change the GT of a donor or the AG of an acceptor are splice-altering; all others (at
    decoys and at random places outside splice motifs) are not.

    Args:
        simulation: the genes.
        seed: draws them.
        share: share of the real sites that have a splice-altering variant; twice as many others.
    """
    rng = np.random.default_rng([seed, 1])
    found = []
    for item in simulation.genes:
        sites = _sites(item.exons)
        motif = np.zeros(len(item.tokens), dtype=bool)
        for base, site_class in sites:
            low, high = _MOTIF_REACH[site_class]
            motif[base + low : base + high] = True
        plain = np.flatnonzero(~motif[5:-5]) + 5
        for base, site_class in sites:
            if rng.random() < share:
                found.append(_variant(rng, simulation, item, _core(rng, base, site_class), "Splice-altering"))
        for _ in range(round(2 * share * len(sites))):
            kind = str(rng.choice(["Normal", "Low-frequency", "Conflicting"], p=[0.30, 0.69, 0.01]))
            if item.decoys and rng.random() < 0.5:
                index = _core(rng, *item.decoys[rng.integers(len(item.decoys))])
            else:
                index = int(rng.choice(plain))
            found.append(_variant(rng, simulation, item, index, kind))
    return found


def _core(rng: np.random.Generator, exon_base: int, site_class: int) -> int:
    """One of the two letters of GT or AG."""
    step = int(rng.integers(1, 3))
    return exon_base + step if site_class == DONOR else exon_base - step


def _variant(
    rng: np.random.Generator, simulation: Simulation, item: SimulatedGene, index: int, classification: str
) -> AnnotatedVariant:
    """A substitution (mostly), or a deletion or insertion in the form of VCF, that touches `index`."""
    gene = item.gene
    letters = simulation.chromosomes[gene.interval.chrom]
    position = gene.genomic(index)
    kind = rng.choice(["substitution", "deletion", "insertion"], p=[0.85, 0.1, 0.05])
    if kind == "substitution":
        other = decode(np.array([(letters[position] + rng.integers(1, 4)) % 4], dtype=np.uint8))
        variant = Variant(gene.interval.chrom, position, decode(letters[position : position + 1]), other)
        text = f"{decode(item.tokens[index : index + 1])}>" + (
            other if gene.strand == "+" else decode(reverse_complement(encode(other)))
        )
    elif kind == "deletion":
        ref = decode(letters[position - 1 : position + 1])
        variant, text = Variant(gene.interval.chrom, position - 1, ref, ref[0]), "del"
    else:
        ref = decode(letters[position : position + 1])
        inserted = "".join(rng.choice(list("ACGT"), size=2))
        variant, text = Variant(gene.interval.chrom, position, ref, ref + inserted), f"ins{inserted}"
    place, exonic = _hgvs_place(item.exons, index)
    return AnnotatedVariant(variant, gene.gene_name, f"{gene.gene_name}.1:c.{place}{text}", classification, exonic)


def _hgvs_place(exons: tuple[tuple[int, int], ...], index: int) -> tuple[str, bool]:
    """1-based place in the spliced transcript, from the nearer exon end where it lies in an intron."""
    before = 0
    for number, (start, end) in enumerate(exons):
        if start <= index < end:
            return str(before + index - start + 1), True
        before += end - start
        following = exons[number + 1][0] if number + 1 < len(exons) else end
        if index < following:
            from_donor, to_acceptor = index - end + 1, following - index
            return (f"{before}+{from_donor}" if from_donor <= to_acceptor else f"{before + 1}-{to_acceptor}"), False
    raise AssertionError("an index outside the gene")
