"""Of which kind a variant is, and how far from a site: by hand, on both strands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from metalayer.contigs import Contigs
from metalayer.genome import Gene, Interval, encode, reverse_complement
from metalayer.variants.genes import Genes, GeneSites
from metalayer.variants.haplotype import Event, event_of
from metalayer.variants.kinds import CANONICAL, DEEP_INTRONIC, EXONIC, SPLICE_REGION, Place, located, place_of
from metalayer.variants.letters import Letters
from tests import variant_genomes as made

SIZE = 400
LETTERS = np.random.default_rng(5).integers(0, 4, SIZE).astype(np.uint8)
LETTERS[100:106] = encode("GTAAGT")
LETTERS[198:200] = encode("AG")
LETTERS[120:128] = encode("ACACACAC")
LETTERS[118:120] = encode("TT")
LETTERS[128:130] = encode("GG")
DONOR_BASE, ACCEPTOR_BASE = 99, 200
"""An intron from 100 to 199, 0-based: GT at 100, AG at 198."""


def gene(strand: str, *, mirrored: bool = False, donors: tuple[int, ...] = (DONOR_BASE,)) -> GeneSites:
    before, behind = np.array(donors), np.array([ACCEPTOR_BASE])
    if mirrored:
        before, behind = np.sort(SIZE - 1 - before), np.sort(SIZE - 1 - behind)
    return GeneSites(
        Gene("G", Interval("1", 0, SIZE), strand), before, behind, np.sort(np.concatenate([before, behind]))
    )


def event(position: int, ref: int, alt: str, *, mirrored: bool = False) -> Event:
    """`ref` letters from a place on are replaced; mirrored: the same on the other strand."""
    tokens, letters = encode(alt), LETTERS
    if mirrored:
        position, tokens, letters = SIZE - position - ref, reverse_complement(tokens), reverse_complement(LETTERS)

    def there(start: int, end: int) -> np.ndarray:  # type: ignore[type-arg]
        out = np.full(end - start, 4, np.uint8)
        low, high = max(start, 0), min(end, SIZE)
        if low < high:
            out[low - start : high - start] = letters[low:high]
        return out

    found = event_of(position, letters[position : position + ref], tokens, there)
    assert found
    return found


def other(at: int) -> str:
    return "ACGT"[(int(LETTERS[at]) + 1) % 4]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (100, Place(CANONICAL, True, 1)),
        (101, Place(CANONICAL, True, 2)),
        (102, Place(SPLICE_REGION, True, 3)),
        (107, Place(SPLICE_REGION, True, 8)),
        (108, Place(DEEP_INTRONIC, True, 9)),
        (149, Place(DEEP_INTRONIC, True, 50)),
        (182, Place(DEEP_INTRONIC, True, 18)),
        (183, Place(SPLICE_REGION, True, 17)),
        (197, Place(SPLICE_REGION, True, 3)),
        (198, Place(CANONICAL, True, 2)),
        (199, Place(CANONICAL, True, 1)),
        (200, Place(SPLICE_REGION, False, 1)),
        (202, Place(SPLICE_REGION, False, 3)),
        (203, Place(EXONIC, False, 4)),
        (99, Place(SPLICE_REGION, False, 1)),
        (97, Place(SPLICE_REGION, False, 3)),
        (96, Place(EXONIC, False, 4)),
        (50, Place(EXONIC, False, 50)),
    ],
)
def test_bases_are_counted_from_the_exon_on_both_strands(at: int, expected: Place, mirrored: bool) -> None:
    strand = "-" if mirrored else "+"
    assert place_of(event(at, 1, other(at), mirrored=mirrored), gene(strand, mirrored=mirrored)) == expected


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(
    ("at", "ref", "alt", "expected"),
    [
        (101, 0, "CCCA", Place(CANONICAL, True, 2)),  # between G and T
        (100, 0, "CCCA", Place(SPLICE_REGION, False, 1)),  # between exon and GT, which stays
        (102, 0, "CCCC", Place(SPLICE_REGION, True, 3)),  # behind GT
        (99, 0, "CCCCT", Place(SPLICE_REGION, False, 2)),
        (60, 200, "A", Place(CANONICAL, True, 1)),  # the whole intron goes
        (96, 3, "", Place(SPLICE_REGION, False, 2)),
        (101, 2, "CC", Place(CANONICAL, True, 2)),
        (120, 2, "", Place(DEEP_INTRONIC, True, 27)),  # one AC of four: rightmost 126 and 127
    ],
)
def test_indels(at: int, ref: int, alt: str, expected: Place, mirrored: bool) -> None:
    strand = "-" if mirrored else "+"
    assert place_of(event(at, ref, alt, mirrored=mirrored), gene(strand, mirrored=mirrored)) == expected


def test_one_haplotype_lies_at_one_place() -> None:
    found = {place_of(event(at, 2, ""), gene("+")) for at in (120, 122, 124, 126)}
    assert found == {Place(DEEP_INTRONIC, True, 27)}


def test_a_g_that_is_there_twice_leaves_its_site() -> None:
    """Of GG|GT at an acceptor's other end: without one G the site stands where it stood, but for the exon's letter."""
    letters = LETTERS.copy()
    letters[98:103] = encode("GGGTC")
    found = event_of(100, letters[100:101], encode(""), lambda start, end: letters[start:end])
    assert found and found.repeat == 2
    assert place_of(found, gene("+")) == Place(SPLICE_REGION, False, 2)


def test_sites_of_other_isoforms_count_and_the_first_kind_wins() -> None:
    """A base deep in one isoform's intron is canonical of another's."""
    at = 140
    assert place_of(event(at, 1, other(at)), gene("+")).kind == DEEP_INTRONIC
    assert place_of(event(at, 1, other(at)), gene("+", donors=(DONOR_BASE, 139))) == Place(CANONICAL, True, 1)


def test_a_gene_without_sites_is_an_exon() -> None:
    none = np.empty(0, np.int64)
    alone = GeneSites(Gene("G", Interval("1", 0, SIZE), "+"), none, none, none)
    assert place_of(event(100, 1, other(100)), alone) == Place(EXONIC, False, None)


def test_places_by_gene_of_a_genome(tmp_path: Path) -> None:
    fasta, gtf = made.write(tmp_path, made.letters())
    with Letters(fasta) as letters:
        genes = Genes.read(gtf, letters, Contigs(), allow_introns=True)
        text = made.letters()
        # Last base of MINUS's first exon along the chromosome: its acceptor on minus is the first base of the exon.
        assert located(letters, genes, "chr1", 1010, text[1010], "A" if text[1010] != "A" else "C") == {
            "MINUS": Place(CANONICAL, True, 1)
        }
        there = located(letters, genes, "1", 1420, text[1420], "A" if text[1420] != "A" else "C")
        assert there == {"MINUS": Place(EXONIC, False, 121), "OVER": Place(EXONIC, False, 80)}
        assert located(letters, genes, "9", 5, "A", "C") == {}
        assert located(letters, genes, "1", 5, text[5], text[5]) == {}
