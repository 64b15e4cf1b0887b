"""Every SNV of a region: records of them, and the map of what each does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metalayer.base.haplotypes import Tokens
from metalayer.genome import N_TOKEN, Interval
from metalayer.variants.definition import KINDS
from metalayer.variants.genes import Genes
from metalayer.variants.letters import Letters
from metalayer.variants.scoring import Allele
from metalayer.variants.vcf import COLUMNS

BASES = "ACGT"
_AT_A_TIME = 1 << 16


@dataclass(frozen=True)
class Saturation:
    """Every SNV of a region, in order, one a record.

    Attributes:
        letters: the reference; bases that are N there have no records.
        place: of the region, by our name of its contig.
    """

    letters: Letters
    place: Interval

    @property
    def header(self) -> Sequence[bytes]:
        """Of a VCF of them: its lines without their ends."""
        contig, size = self.letters.names[self.place.chrom], self.letters.lengths[self.place.chrom]
        return [b"##fileformat=VCFv4.2", f"##contig=<ID={contig},length={size}>".encode(), COLUMNS]

    @property
    def records(self) -> int:
        """How many there are."""
        return sum((len(BASES) - 1) * int((tokens != N_TOKEN).sum()) for _, tokens in self._parts())

    def lines(self) -> Iterator[bytes]:
        """Records as lines of a VCF, without their ends."""
        contig = self.letters.names[self.place.chrom]
        for start, tokens in self._parts():
            for position, token in enumerate(tokens.tolist(), start=start):
                for alt in BASES if token != N_TOKEN else "":
                    if alt != BASES[token]:
                        yield f"{contig}\t{position + 1}\t.\t{BASES[token]}\t{alt}\t.\t.\t.".encode()

    def _parts(self) -> Iterator[tuple[int, Tokens]]:
        """Start and letters of parts that are read at a time."""
        for start in range(self.place.start, self.place.end, _AT_A_TIME):
            end = min(start + _AT_A_TIME, self.place.end)
            yield start, self.letters.tokens(self.place.chrom, start, end)


class DeltaMap:
    """The largest change that each SNV of a region makes: gains are positive, losses negative.

    Attributes:
        contig: name in the FASTA.
        place: of the region.
        reference: its letters, uint8 (L,).
        deltas: by name of the scores, float32 (4, L): ALT in the order of `BASES`; NaN where there is no score.
        sites: 0-based positions of annotated sites in it, by kind: donor, acceptor; int64.
    """

    def __init__(self, every: Saturation, genes: Genes, names: Sequence[str]) -> None:
        place = self.place = every.place
        self.contig = every.letters.names[place.chrom]
        self.reference = every.letters.tokens(place.chrom, place.start, place.end)
        self.deltas = {name: np.full((len(BASES), len(place)), np.nan, np.float32) for name in names}
        there = genes.touched(place.chrom, place.start, place.end)
        self.sites = {
            "donor": self._inside([gene.donors for gene in there]),
            "acceptor": self._inside([gene.acceptors for gene in there]),
        }

    def _inside(self, sites: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        found = np.unique(np.concatenate([*sites, np.zeros(0, np.int64)]))
        return found[(found >= self.place.start) & (found < self.place.end)]

    def add(self, position: int, alleles: Sequence[Allele]) -> None:
        """What SNVs at a 0-based position do, in the gene where they do most."""
        for allele in alleles:
            for gene in allele.genes:
                for name, changes in gene.effects.items():
                    signed = [
                        change.score if kind.endswith("gain") else -change.score
                        for kind, change in zip(KINDS, changes or (), strict=False)
                    ]
                    at = BASES.index(allele.alt), position - self.place.start
                    known = self.deltas[name][at]
                    most = max(signed, key=abs, default=np.nan)
                    if np.isnan(known) or abs(most) > abs(known):
                        self.deltas[name][at] = most
