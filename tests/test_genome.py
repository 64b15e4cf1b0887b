import numpy as np
import pytest

from metalayer.errors import InputError
from metalayer.genome import (
    Gene,
    Interval,
    decode,
    encode,
    exon_base,
    intron_base,
    normalise_chrom,
    normalise_gene_id,
    parse_variant,
    reverse_complement,
)
from metalayer.models.encoders import one_hot
from metalayer.schema import ACCEPTOR, DONOR


def test_letters_become_tokens_and_n_is_no_letter() -> None:
    assert encode("ACGTNacgtn").tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert decode(encode("GATTACAN")) == "GATTACAN"
    import torch

    rows = one_hot(torch.from_numpy(encode("AN"))[None])[0]
    assert rows[:, 0].tolist() == [1, 0, 0, 0]
    assert rows[:, 1].tolist() == [0, 0, 0, 0]


def test_unknown_letter_is_named_with_its_index() -> None:
    with pytest.raises(InputError, match="'R' at index 2"):
        encode("ACRT")


def test_reverse_complement() -> None:
    assert decode(reverse_complement(encode("AACGTN"))) == "NACGTT"


@pytest.mark.parametrize(
    ("given", "expected"), [("chr1", "1"), ("1", "1"), ("chrX", "X"), ("NC_000001.11", "NC_000001.11")]
)
def test_chromosomes_are_text_without_chr(given: str, expected: str) -> None:
    assert normalise_chrom(given) == expected


def test_gene_ids_lose_their_prefix_once() -> None:
    assert normalise_gene_id("gene-TP73") == normalise_gene_id("TP73") == "TP73"


@pytest.mark.parametrize("strand", ["+", "-"])
def test_gene_index_and_genomic_position_are_inverse(strand: str) -> None:
    gene = Gene.from_table("g", "chr2", strand, 101, 110)  # 1-based inclusive
    assert len(gene) == 10
    assert gene.interval == Interval("2", 100, 110)
    assert [gene.index(gene.genomic(i)) for i in range(10)] == list(range(10))
    assert gene.genomic(0) == (100 if strand == "+" else 109)


def test_site_convention_is_the_exon_base() -> None:
    # ...exon AG|GT intron AG|exon...: donor row is the G of GT, acceptor row the G of AG.
    assert intron_base(9, DONOR) == 10
    assert intron_base(9, ACCEPTOR) == 8
    for site_class in (DONOR, ACCEPTOR):
        assert exon_base(intron_base(50, site_class), site_class) == 50


def test_gene_refuses_an_unknown_strand_and_an_empty_interval() -> None:
    with pytest.raises(InputError, match="allowed are"):
        Gene.from_table("g", "1", ".", 1, 5)
    with pytest.raises(InputError, match="half-open"):
        Interval("1", 5, 5)


def test_variants_are_one_based_on_the_plus_strand() -> None:
    variant = parse_variant('"chr1-100-TA-T"')
    assert (variant.chrom, variant.position, variant.ref, variant.alt) == ("1", 99, "TA", "T")
    assert variant.interval == Interval("1", 99, 101)
    with pytest.raises(InputError, match="CHROM-POS-REF-ALT"):
        parse_variant("1:100:T:C")


def test_intervals_overlap_half_open() -> None:
    assert Interval("1", 0, 10).overlaps(Interval("1", 9, 12))
    assert not Interval("1", 0, 10).overlaps(Interval("1", 10, 12))
    assert not Interval("1", 0, 10).overlaps(Interval("2", 0, 10))


def test_intron_base_of_arrays() -> None:
    assert intron_base(np.array([3, 7]), DONOR).tolist() == [4, 8]  # type: ignore[attr-defined, arg-type]
