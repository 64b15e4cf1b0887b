"""Coordinates, strands and letters: the only place where conventions meet.

Inside metalayer an interval is 0-based half-open and a splice site is its exon base in transcript
sense (the last exonic base of a donor, the first exonic base of an acceptor). The conversions:

- gene table, GFF and GTF: 1-based inclusive                 -> `half_open`, `one_based`, `Gene.from_table`
- introns of an annotation to the exon bases beside them     -> `Gene.sites_of_intron`
- artifact row: 0-based index into the transcript-sense gene -> `Gene.genomic`, `Gene.index`
- artifact row: intron base (G of GT, G of AG)               -> `exon_base`, `intron_base`
- per-nucleotide scores: 1-based genomic, plus-strand letter -> `one_based`, `Gene.index`, `reverse_complement`
- VCF / SpliceVarDB: 1-based, plus strand, REF may span      -> `parse_variant`, `Variant.text`
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import InputError
from metalayer.schema import ACCEPTOR, DONOR

# Letters: A C G T are 0..3; N is 4 and encodes as an all-zero one-hot row, never as A.
LETTERS = "ACGTN"
N_TOKEN = 4
_INVALID = 255
_TOKEN_OF_BYTE = np.full(256, _INVALID, dtype=np.uint8)
for _token, _letter in enumerate(LETTERS):
    _TOKEN_OF_BYTE[ord(_letter)] = _token
    _TOKEN_OF_BYTE[ord(_letter.lower())] = _token
_COMPLEMENT = np.array([3, 2, 1, 0, 4], dtype=np.uint8)
_BYTE_OF_TOKEN = np.frombuffer(LETTERS.encode(), dtype=np.uint8)


def encode(sequence: str | bytes) -> NDArray[np.uint8]:
    """Letters to tokens (A 0, C 1, G 2, T 3, N 4; lower case is the same letter).

    Returns:
        uint8 (L,).

    Raises:
        InputError: a letter other than ACGTN, naming the first one and its index.
    """
    raw = sequence.encode() if isinstance(sequence, str) else sequence
    tokens = _TOKEN_OF_BYTE[np.frombuffer(raw, dtype=np.uint8)]
    bad = np.flatnonzero(tokens == _INVALID)
    if bad.size:
        letter = chr(raw[int(bad[0])])
        raise InputError(
            f"letter {letter!r} at index {int(bad[0])} of a sequence of {len(raw)}; allowed are A, C, G, T and N. "
            "Replace other IUPAC codes with N."
        )
    return tokens


def decode(tokens: NDArray[np.uint8]) -> str:
    """Tokens (L,) back to letters."""
    return _BYTE_OF_TOKEN[tokens].tobytes().decode()


def complement(tokens: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The letters that face these on the other strand, in the same order: uint8 (...) to uint8 (...)."""
    return _COMPLEMENT[tokens]


def reverse_complement(tokens: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The other strand, 5' to 3': uint8 (L,) to uint8 (L,)."""
    return np.ascontiguousarray(_COMPLEMENT[tokens[::-1]])


def token_table() -> NDArray[np.uint8]:
    """Lookup from byte to token, 255 where the byte is no letter of ACGTN: uint8 (256,)."""
    return _TOKEN_OF_BYTE.copy()


def normalise_chrom(chrom: str) -> str:
    """`chr1` and `1` are one chromosome: the name without `chr`, always text."""
    text = str(chrom).strip()
    return text[3:] if text[:3].lower() == "chr" and len(text) > 3 else text


MITOCHONDRIAL = {"M": "MT", "MT": "M"}
"""Two names of one chromosome, without `chr`."""


def same_chrom(one: str, other: str) -> bool:
    """Whether two normalised names are of one chromosome: `M` and `MT` are."""
    return one == other or MITOCHONDRIAL.get(one) == other


_PATCH = re.compile(r"\.p\d+$")
_BUILDS = {
    name.lower(): names[0]
    for names in (
        ("GRCh38", "hg38"),
        ("GRCh37", "hg19", "b37", "hs37d5"),
        ("NCBI36", "hg18"),
        ("GRCm39", "mm39"),
        ("GRCm38", "mm10"),
        ("T2T-CHM13v2.0", "hs1", "CHM13v2.0", "chm13v2", "T2T-CHM13v2"),
    )
    for name in names
}


def normalise_build(build: str) -> str:
    """`hg38`, `grch38` and `GRCh38.p14` are one build, whose chromosomes have the same coordinates: `GRCh38`.

    Returns:
        The consortium's name, of builds that have another one too; else the name in small letters. To compare: what
        is shown is the name that was given.
    """
    plain = _PATCH.sub("", build.strip().lower())
    return _BUILDS.get(plain, plain)


_HUMAN_BUILDS = ("GRCh38", "GRCh37", "NCBI36", "T2T-CHM13v2.0")
_HUMAN_ID = re.compile(r"ENSG\d{11}")


def is_human_build(build: str) -> bool:
    """Whether a genome build is one of human."""
    return normalise_build(build) in _HUMAN_BUILDS


def is_human(gene_id: str, build: str | None) -> bool:
    """Whether a gene is known to be human: by its genome build, where that is known, else by Ensembl's human ids."""
    return is_human_build(build) if build else bool(_HUMAN_ID.match(normalise_gene_id(gene_id)))


def same_build(one: str | None, other: str | None) -> bool:
    """Whether two names are of one genome build; None, for unknown, is like None alone."""
    return one == other if one is None or other is None else normalise_build(one) == normalise_build(other)


def builds_once(names: Iterable[str | None]) -> list[str | None]:
    """Names of builds in order, each build once, by the first of its names; None, for unknown, is one of them."""
    first: dict[str, str | None] = {}
    for name in names:
        first.setdefault(normalise_build(name or ""), name)
    return list(first.values())


def chrom_in_file_names(chrom: str) -> str:
    """A chromosome as file names have it: contigs may be called `tig/0_500` or `ctg[1]`, whose marks are escaped."""
    return quote(chrom, safe="")


def chrom_of_file_name(part: str) -> str:
    """Back from `chrom_in_file_names`."""
    return unquote(part)


def chrom_order(chrom: str) -> tuple[int, str]:
    """Sorts normalised names: numbers first, then the others by name."""
    return (int(chrom), "") if chrom.isdigit() else (10**6, chrom)


def normalise_gene_id(gene_id: str) -> str:
    """`gene-TP73`, as NCBI writes it, `gene:TP73`, as Ensembl does, and `TP73` are one gene: the id alone."""
    text = str(gene_id).strip()
    return text[5:] if text.startswith(("gene-", "gene:")) else text


_VERSION = re.compile(r"(?<=\d{5})\.\d+(?=$|_)")
"""Only after a number that is long enough for an accession: C. elegans calls different genes F23H11.3 and F23H11.4."""


def unversioned(gene_id: str) -> str:
    """An id without its version: `ENSG00000182378.15` is `ENSG00000182378`, and ..._PAR_Y keeps that mark."""
    return _VERSION.sub("", gene_id)


def half_open(start: int, end: int) -> tuple[int, int]:
    """1-based inclusive, as in GFF and gene tables, to 0-based half-open."""
    return start - 1, end


def one_based(start: int, end: int) -> tuple[int, int]:
    """0-based half-open to 1-based inclusive, as in GFF and gene tables."""
    return start + 1, end


LARGEST_32_BIT = 2**31 - 1
"""Chromosomes of some genomes (lungfish, pine) are longer, and their positions take 64 bits."""


_Bases = TypeVar("_Bases", int, NDArray[np.integer])


@dataclass(frozen=True)
class Interval:
    """Positions [start, end) of one chromosome, 0-based half-open."""

    chrom: str
    start: int
    end: int

    def __post_init__(self) -> None:
        if self.start < 0 or self.end <= self.start:
            raise InputError(
                f"interval {self.chrom}:{self.start}-{self.end}: needs 0 <= start < end (0-based, half-open)"
            )

    def __len__(self) -> int:
        return self.end - self.start

    def overlaps(self, other: Interval) -> bool:
        """Whether the two share a position."""
        return self.chrom == other.chrom and self.start < other.end and other.start < self.end


@dataclass(frozen=True)
class Gene:
    """A gene on its strand; `index` counts from its 5' end in transcript sense, from 0."""

    gene_id: str
    interval: Interval
    strand: str
    gene_name: str = ""
    paralog_group: str | None = None

    def __post_init__(self) -> None:
        if self.strand not in ("+", "-"):
            raise InputError(f"gene {self.gene_id}: strand {self.strand!r}; allowed are '+' and '-'")

    @classmethod
    def from_table(
        cls,
        gene_id: str,
        chrom: str,
        strand: str,
        start: int,
        end: int,
        gene_name: str = "",
        paralog_group: str | None = None,
    ) -> Gene:
        """From a gene table or GFF line: `start` and `end` 1-based inclusive."""
        interval = Interval(normalise_chrom(chrom), *half_open(int(start), int(end)))
        return cls(normalise_gene_id(gene_id), interval, strand, gene_name, paralog_group)

    def __len__(self) -> int:
        return len(self.interval)

    def genomic(self, index: _Bases) -> _Bases:
        """0-based genomic position of the transcript-sense `index`, or of several."""
        return self.interval.start + index if self.strand == "+" else self.interval.end - 1 - index

    def index(self, position: _Bases) -> _Bases:
        """Transcript-sense index of a 0-based genomic `position`, or of several."""
        return position - self.interval.start if self.strand == "+" else self.interval.end - 1 - position

    def sites_of_intron(self, start: int, end: int) -> tuple[int, int]:
        """Transcript-sense exon bases of the donor before and the acceptor after an intron.

        Args:
            start: first genomic position of the intron, 0-based.
            end: one past its last.
        """
        low, high = self.index(start - 1), self.index(end)
        return (low, high) if self.strand == "+" else (high, low)


def intron_base(exon_base: _Bases, site_class: int) -> _Bases:
    """Artifact-row index of a site from its exon base, both transcript sense (donor + 1, acceptor - 1)."""
    return exon_base + _INTRON_OFFSET[site_class]


def exon_base(intron_base: _Bases, site_class: int) -> _Bases:
    """Exon base of a site from its artifact-row index, both transcript sense."""
    return intron_base - _INTRON_OFFSET[site_class]


_INTRON_OFFSET = {DONOR: 1, ACCEPTOR: -1}


@dataclass(frozen=True)
class Variant:
    """A variant on the plus strand; `position` is 0-based, the first base of `ref`."""

    chrom: str
    position: int
    ref: str
    alt: str

    @property
    def interval(self) -> Interval:
        """The reference bases that the variant replaces or borders."""
        return Interval(self.chrom, self.position, self.position + max(1, len(self.ref)))

    @property
    def text(self) -> str:
        """`CHROM-POS-REF-ALT`, POS 1-based, as `parse_variant` reads it."""
        return f"{self.chrom}-{one_based(self.position, self.position)[0]}-{self.ref}-{self.alt}"


_VARIANT = re.compile(r'^"?([^-"]+)-(\d+)-([ACGTNacgtn]*)-([ACGTNacgtn]*)"?$')


def parse_variant(text: str) -> Variant:
    """`CHROM-POS-REF-ALT`, POS 1-based, perhaps in double quotes, with or without `chr`.

    Raises:
        InputError: another form.
    """
    match = _VARIANT.match(text.strip())
    if not match or int(match[2]) < 1:
        raise InputError(f"variant {text!r}: expected CHROM-POS-REF-ALT with a 1-based position, as in 1-100107682-T-C")
    chrom, position, ref, alt = match.groups()
    start, _ = half_open(int(position), int(position))
    return Variant(normalise_chrom(chrom), start, ref.upper(), alt.upper())
