"""A made-up genome with genes on both strands, small base models over it, and a slow reference of what variants do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from metalayer.base.origin import Origin
from metalayer.genome import decode, encode, reverse_complement
from metalayer.schema import BASE_SCORES

Scores = NDArray[np.float32]
CONTIG = "chr1"
GENES = {
    "PLUS": ("+", [[(200, 320), (420, 480), (640, 800)], [(200, 320), (640, 780)]]),
    "MINUS": ("-", [[(900, 1010), (1120, 1180), (1300, 1450)]]),
    "OVER": ("+", [[(1400, 1500), (1600, 1700)]]),
}
"""Strand and exons of each transcript, 0-based half-open. MINUS and OVER overlap."""


class Toy:
    """A base model that depends on every letter within its flank: made-up weights, and sites that stand out."""

    name = "toy"
    columns = BASE_SCORES
    origin = Origin(None, "nothing", None)

    def __init__(self, flank_bp: int = 9, seed: int = 3) -> None:
        self.flank_bp = flank_bp
        random = np.random.default_rng(seed)
        self.weights = random.normal(0, 1.4, (2 * flank_bp + 1, 5, 3))
        self.weights[:, 4] = 0
        self.calls = 0

    def score(self, sequence: str, upstream: str = "", downstream: str = "") -> Scores:
        self.calls += 1
        flank = self.flank_bp
        before, after = upstream[-flank:].rjust(flank, "N"), downstream[:flank].ljust(flank, "N")
        tokens = encode(before + sequence + after)
        logits = np.zeros((len(sequence), 3))
        for offset, table in enumerate(self.weights):
            logits += table[tokens[offset : offset + len(sequence)]]
        logits[:, 2] += 4
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def letters(seed: int = 1, size: int = 2000) -> str:
    """Random letters with repeats in them, and introns that begin with GT and end with AG."""
    tokens = np.random.default_rng(seed).integers(0, 4, size).astype(np.uint8)
    text = list(decode(tokens))
    for at, unit, times in ((300, "CA", 9), (450, "G", 7), (1000, "TTC", 6), (1290, "A", 12), (700, "ACGT", 5)):
        text[at : at + len(unit) * times] = unit * times
    for strand, transcripts in GENES.values():
        for exons in transcripts:
            for (_, end), (start, _) in pairwise(exons):
                if strand == "+":
                    text[end - 3 : end + 6], text[start - 2 : start] = "CAGGTAAGT", "AG"
                else:
                    text[start - 6 : start + 3], text[end : end + 2] = "ACTTACCTG", "CT"
    return "".join(text)


def write(folder: Path, text: str, *, mirrored: bool = False) -> tuple[Path, Path]:
    """FASTA and GTF; mirrored: of the other strand."""
    size = len(text)
    fasta, gtf = folder / f"genome{mirrored:d}.fa", folder / f"genes{mirrored:d}.gtf"
    plus = mirror(text) if mirrored else text
    fasta.write_text(f">{CONTIG}\n" + "".join(f"{plus[i : i + 60]}\n" for i in range(0, size, 60)))
    lines = []
    for name, (strand, transcripts) in GENES.items():
        sense = strand if not mirrored else {"+": "-", "-": "+"}[strand]
        for number, exons in enumerate(transcripts):
            for start, end in exons:
                first, last = (size - end, size - start) if mirrored else (start, end)
                lines.append(
                    f"{CONTIG}\tx\texon\t{first + 1}\t{last}\t.\t{sense}\t.\t"
                    f'gene_id "{name}"; transcript_id "{name}.{number}";\n'
                )
    gtf.write_text("".join(lines))
    return fasta, gtf


def mirror(text: str) -> str:
    """The other strand."""
    return decode(reverse_complement(encode(text)))


def spans() -> dict[str, tuple[str, int, int]]:
    """Strand, start and end of each gene, 0-based half-open."""
    return {
        name: (strand, min(start for one in exons for start, _ in one), max(end for one in exons for _, end in one))
        for name, (strand, exons) in GENES.items()
    }


def sites(name: str) -> dict[str, set[int]]:
    """0-based exon bases of each kind of site of a gene, of all transcripts."""
    strand, transcripts = GENES[name]
    before = {end - 1 for exons in transcripts for _, end in exons[:-1]}
    behind = {start for exons in transcripts for start, _ in exons[1:]}
    return {"donor": before if strand == "+" else behind, "acceptor": behind if strand == "+" else before}


@dataclass(frozen=True)
class Slow:
    """Each haplotype scored whole, aligned by hand: score of each change and its places that are as good.

    Places are 0-based; of an inserted letter minus its place on the other haplotype.

    Attributes:
        score: gives scores (L, 3) of a text in transcript sense.
        text: the contig, plus strand.
        strand: of the gene.
        start: of the gene; letters outside are N.
        end: of the gene.
        annotated: 0-based exon bases by kind.
    """

    score: Callable[[str], Scores]
    text: str
    strand: str
    start: int
    end: int
    annotated: Mapping[str, set[int]]

    def _scores(self, text: str) -> Scores:
        return self.score(text) if self.strand == "+" else self.score(mirror(text))[::-1]

    def effect(
        self, position: int, ref: str, alt: str, distance: int, *, mask: bool
    ) -> dict[str, tuple[float, set[int]]]:
        hidden = "N" * self.start + self.text[self.start : self.end] + "N" * (len(self.text) - self.end)
        start, _, overlap, other = self._segment(position, ref, alt)
        gone, come = max(len(ref) - len(alt), 0), max(len(alt) - len(ref), 0)
        if not overlap and not (
            self.text[:start] == other[:start] and self.text[start + gone :] == other[start + come :]
        ):
            start, gone, come = position, len(ref), len(alt)
        p = self._scores(hidden)
        q = self._scores(hidden[:start] + other[start : start + come] + hidden[start + gone :])
        columns, low, high = self._columns(position, ref, alt, distance, p, q)
        found = {}
        for kind, channel in (("acceptor", 1), ("donor", 0)):
            for way in ("gain", "loss"):
                values = []
                for at, (i, j) in columns:
                    if not low <= at <= high:
                        continue
                    before = float(p[i, channel]) if i is not None else 0.0
                    after = float(q[j, channel]) if j is not None else 0.0
                    is_known = i is not None and i in self.annotated[kind]
                    change = after - before if way == "gain" else before - after
                    values.append(
                        (
                            0.0 if mask and is_known == (way == "gain") else change,
                            at if j is None or i is not None else -j,
                        )
                    )
                best = max(value for value, _ in values)
                found[f"{kind}_{way}"] = max(best, 0.0), {at for value, at in values if value >= best - 1e-7}
        return found

    def _segment(self, position: int, ref: str, alt: str) -> tuple[int, int, int, str]:
        """Where letters differ: first place, last place + 1, how many could be either, and the other contig."""
        other = self.text[:position] + alt + self.text[position + len(ref) :]
        left = next(i for i in range(len(other) + 1) if self.text[i : i + 1] != other[i : i + 1])
        right = next(i for i in range(len(other) + 1) if self.text[len(self.text) - 1 - i] != other[len(other) - 1 - i])
        # `left` letters are common at the start and `right` at the end; where they overlap, it is an indel in a repeat.
        overlap = max(0, left + right - min(len(self.text), len(other)))
        start, end = left - overlap, len(self.text) - right + overlap
        return start, end, overlap, other

    def _columns(
        self, position: int, ref: str, alt: str, distance: int, p: Scores, q: Scores
    ) -> tuple[list[tuple[int, tuple[int | None, int | None]]], int, int]:
        """Pairs of indices into both haplotypes with the place of each, and the first and last place looked at."""
        start, end, overlap, other = self._segment(position, ref, alt)
        more = len(alt) - len(ref)
        anchor = start - 1 if min(end - start, end + more - start) == overlap else start
        last = end - 1
        high = anchor + distance if last <= anchor + distance else last + distance
        best: tuple[tuple[float, float, int], list[tuple[int, tuple[int | None, int | None]]]] | None = None
        for paired in range(min(end - start, end + more - start) + 1):
            if not more and paired != end - start:
                continue
            gap = start + paired
            pairs: list[tuple[int, tuple[int | None, int | None]]] = [(i, (i, i)) for i in range(gap)]
            if more < 0:
                pairs += [(i, (i, None)) for i in range(gap, gap - more)]
                pairs += [(i, (i, i + more)) for i in range(gap - more, len(self.text))]
            else:
                pairs += [(gap - 1, (None, j)) for j in range(gap, gap + more)]
                pairs += [(i, (i, i + more)) for i in range(gap, len(self.text))]
            inside = [
                (i, j)
                for _, (i, j) in pairs
                if (i is None or start <= i < end) and (j is None or start <= j < end + more)
            ]
            stay = sum(i is not None and j is not None and self.text[i] == other[j] for i, j in inside)
            change = sum(
                abs((float(q[j, c]) if j is not None else 0.0) - (float(p[i, c]) if i is not None else 0.0))
                for i, j in inside
                for c in (0, 1)
            )
            rank = (-stay, round(change, 2), paired)
            if best is None or rank < best[0]:
                best = rank, pairs
        assert best
        return best[1], anchor - distance, high


def some_variants(text: str, seed: int, count: int, low: int, high: int) -> Iterator[tuple[int, str, str]]:
    """0-based positions, REF and ALT of all kinds, as VCF writes them."""
    random = np.random.default_rng(seed)

    def made(size: int) -> str:
        return decode(random.integers(0, 4, size).astype(np.uint8))

    while count:
        at, size = int(random.integers(low, high)), int(random.choice([1, 1, 2, 3, 7, 25, 90]))
        kind = random.integers(5)
        ref = text[at : at + 1]
        if kind == 0:
            alt = made(1)
        elif kind == 1:
            ref, alt = text[at : at + 1 + size], ref
        elif kind == 2:
            copied = text[at + 1 : at + 1 + size] if random.integers(2) else made(size)
            alt = ref + copied
        elif kind == 3:
            ref, alt = text[at : at + size], made(size)
        else:
            ref, alt = text[at : at + size], made(int(random.integers(1, 30)))
        if ref != alt and len(ref):
            count -= 1
            yield at, ref, alt
