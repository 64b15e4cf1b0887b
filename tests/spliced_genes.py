"""A gene whose splice sites are words: which letters make a site, and how strong, is known; on either strand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metalayer.base.origin import Origin
from metalayer.contigs import Contigs
from metalayer.genome import decode
from metalayer.schema import ACCEPTOR, BASE_SCORES, DONOR, NEITHER
from metalayer.variants.genes import Genes
from metalayer.variants.letters import Letters
from metalayer.variants.meaning import Meaning
from metalayer.variants.scoring import GeneEffect, Options, Scorer
from tests.variant_genomes import mirror

DONORS = {"CAGGTAAGT": 0.95, "CAGGTAAGC": 0.6, "CAGGTAAGA": 0.3, "CAGGTCAGT": 0.04}
"""Three letters of the exon and six of the intron."""
ACCEPTORS = {"TCTTTCAG": 0.95, "TCATTCAG": 0.6, "TCAATCAG": 0.3}
"""Eight letters of the intron."""
SIZE = 3600
EXONS = ((300, 450), (900, 1020), (1500, 1620), (1720, 1840), (2400, 2700))
"""In transcript sense, 0-based half-open."""
CODING = (340, 2500)


class Words:
    """A base model that finds these words."""

    name = "words"
    columns = BASE_SCORES
    origin = Origin(None, "nothing", None)
    flank_bp = 10

    def score(self, sequence: str, upstream: str = "", downstream: str = "") -> NDArray[np.float32]:
        before = upstream[-self.flank_bp :]
        text = before + sequence + downstream[: self.flank_bp]
        found = np.zeros((len(text), 3), np.float32)
        for kind, words, site in ((DONOR, DONORS, 2), (ACCEPTOR, ACCEPTORS, 8)):
            for word, strength in words.items():
                at = text.find(word)
                while at >= 0:
                    if at + site < len(text):
                        found[at + site, kind] = strength
                    at = text.find(word, at + 1)
        found[:, NEITHER] = 1 - found[:, DONOR] - found[:, ACCEPTOR]
        return found[len(before) : len(before) + len(sequence)]


class Silenced(Words):
    """Sites near a word, which no gene has of itself, are none."""

    word = "GATTACATTAGACCATTAG"
    flank_bp = 500

    def score(self, sequence: str, upstream: str = "", downstream: str = "") -> NDArray[np.float32]:
        found = super().score(sequence, upstream, downstream)
        before = upstream[-self.flank_bp :]
        at = (before + sequence + downstream[: self.flank_bp]).find(self.word)
        if at >= 0:
            near = slice(max(0, at - len(before) - 300), max(0, at - len(before) + 310))
            found[near] = (0, 0, 1)
        return found


@dataclass(frozen=True)
class SplicedGene:
    """A gene, and variants of it in transcript sense.

    Attributes:
        folder: for FASTA and GTF.
        planted: words by place, in transcript sense.
        isoforms: exons of each transcript; the first is principal.
        is_plus: strand.
        has_coding: whether the annotation has a coding sequence.
    """

    folder: Path
    planted: Mapping[int, str] = field(default_factory=dict)
    isoforms: tuple[tuple[tuple[int, int], ...], ...] = (EXONS,)
    is_plus: bool = True
    has_coding: bool = True

    @property
    def text(self) -> str:
        """Letters in transcript sense: no word that is not planted, and no stop before the last exon."""
        letters = list(decode(np.random.default_rng(5).integers(0, 4, SIZE).astype(np.uint8)))
        spliced = [at for start, end in EXONS for at in range(start, end) if CODING[0] <= at < CODING[1]]
        codons = np.random.default_rng(6).choice(["GCC", "CTG", "AAC", "GAT", "TCC"], len(spliced) // 3)
        for at, letter in zip(spliced, "ATG" + "".join(codons[1:-1]) + "TAA", strict=False):
            letters[at] = letter
        for (_, end), (start, _) in pairwise(EXONS):
            letters[end : end + 6], letters[start - 8 : start] = "GTAAGT", "TCTTTCAG"
            letters[end - 3 : end] = "CAG"
        for at, word in self.planted.items():
            letters[at : at + len(word)] = word
        return "".join(letters)

    def position(self, sense: int) -> int:
        """0-based genomic."""
        return sense if self.is_plus else SIZE - 1 - sense

    def scorer(self, distance: int = 600, model: Words | None = None) -> Scorer:
        """Of its annotation."""
        text = self.text if self.is_plus else mirror(self.text)
        fasta, gtf = self.folder / "gene.fa", self.folder / "gene.gtf"
        fasta.write_text(">chr1\n" + "".join(f"{text[i : i + 60]}\n" for i in range(0, SIZE, 60)))
        lines = []
        for number, exons in enumerate(self.isoforms):
            tag = ' tag "MANE_Select";' if not number else ""
            about = f'gene_id "G"; transcript_id "T{number}";{tag}'
            parts = [("exon", start, end) for start, end in exons]
            if self.has_coding and not number:
                clipped = [(max(start, CODING[0]), min(end, CODING[1])) for start, end in exons]
                parts += [("CDS", start, end) for start, end in clipped if start < end]
            parts.insert(0, ("transcript", exons[0][0], exons[-1][1]))
            for kind, start, end in parts:
                first, last = sorted((self.position(start), self.position(end - 1)))
                strand = "+" if self.is_plus else "-"
                lines.append(f"chr1\tx\t{kind}\t{first + 1}\t{last + 1}\t.\t{strand}\t.\t{about}\n")
        gtf.write_text("".join(lines))
        letters = Letters(fasta)
        genes = Genes.read(gtf, letters, Contigs(), allow_introns=True)
        return Scorer(letters, genes, [model or Words()], Options(distance, flanks="real"))

    def variant(self, at: int, gone: int, come: str) -> tuple[int, str, str]:
        """0-based position, REF and ALT where letters [at, at + gone) of the transcript become others."""
        low = at if self.is_plus else SIZE - at - gone
        text = self.text if self.is_plus else mirror(self.text)
        letters = come if self.is_plus or not come else mirror(come)
        return low - 1, text[low - 1 : low + gone], text[low - 1] + letters

    def effect(self, at: int, gone: int, come: str, distance: int = 600, model: Words | None = None) -> GeneEffect:
        """What the change does."""
        position, ref, alt = self.variant(at, gone, come)
        (allele,) = self.scorer(distance, model).score("chr1", position, ref, [alt])
        (gene,) = allele.genes
        return gene

    def meaning(self, at: int, gone: int, come: str, distance: int = 600, model: Words | None = None) -> Meaning:
        """What it means."""
        return self.effect(at, gone, come, distance, model).meanings["words"]
