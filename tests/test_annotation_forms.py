"""Annotations as other tools write them, and odd genes: read where the file says enough, else left out and counted."""

from __future__ import annotations

import bz2
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from metalayer.base.agreement import check_agreement
from metalayer.base.annotation import REASONS, Annotation, in_words, introns_of, read_annotation
from metalayer.base.annotation_lines import BARE, attributes
from metalayer.base.fasta import Reference
from metalayer.errors import InputError
from metalayer.genome import decode, reverse_complement

EXONS = ((101, 200), (301, 400), (501, 600))
GOOD = [f'1 exon {start} {end} + gene_id "GOOD"; transcript_id "GOOD.1";' for start, end in EXONS]
INTRONS = [(200, 300), (400, 500)]


def write(folder: Path, lines: Sequence[str], name: str = "a.gff") -> Path:
    """Lines with blanks for tabs: chrom, kind, start, end, strand, attributes."""
    rows = []
    for line in lines:
        chrom, kind, start, end, strand, column_9 = line.split(maxsplit=5)
        rows.append("\t".join((chrom, "source", kind, start, end, ".", strand, ".", column_9)))
    (folder / name).write_text("\n".join(rows) + "\n")
    return folder / name


def odd(folder: Path, *lines: str) -> tuple[dict[str, list[tuple[int, int]]], dict[str, int]]:
    """Introns of the genes beside one that is sound, and what was handled."""
    found = read_annotation(write(folder, [*GOOD, *lines]))
    introns = {gene.gene.gene_id: gene.introns() for gene in found.genes}
    assert introns.pop("GOOD") == INTRONS
    return introns, found.handled


def three(attributes_of: Callable[[int], str], at: int = 1000, strand: str = "+") -> list[str]:
    """The exons of a sound transcript further on."""
    return [f"1 exon {start + at} {end + at} {strand} {attributes_of(i)}" for i, (start, end) in enumerate(EXONS)]


MOVED = [(start + 1000, end + 1000) for start, end in INTRONS]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('gene_id "G"; transcript_id "T";', {"gene_id": "G", "transcript_id": "T"}),
        ("gene_id G; transcript_id T;", {"gene_id": "G", "transcript_id": "T"}),
        ("gene_id 'G'; transcript_id 'T T';", {"gene_id": "G", "transcript_id": "T T"}),
        ('"gene_id ""G""; transcript_id ""T"";"', {"gene_id": "G", "transcript_id": "T"}),
        (
            'gene_id "G"; note "a=b; c \'d\' e"; transcript_id ""',
            {"gene_id": "G", "note": "a=b; c 'd' e", "transcript_id": ""},
        ),
        ('gene_id\t"G"', {"gene_id": "G"}),
        ('gene_id "G; transcript_id "T";', {"gene_id": "G", "transcript_id": "T"}),
        ('gene_id "G"; transcript_id "T;', {"gene_id": "G", "transcript_id": "T"}),
        ("ID=g;Name=a b;Parent=x,y", {"ID": "g", "Name": "a b", "Parent": "x,y"}),
        ("ID=\"g\"; Parent = 'x'", {"ID": "g", "Parent": "x"}),
        ('ID=g;description=a "quoted" name', {"ID": "g", "description": 'a "quoted" name'}),
        ("g1", {BARE: "g1"}),
        ("g1.t1;", {BARE: "g1.t1"}),
        ("", {}),
        (".", {BARE: "."}),
    ],
)
def test_column_nine(text: str, found: dict[str, str]) -> None:
    assert attributes(text) == found


def test_gene_lines_of_one_word_and_transcripts_that_name_their_gene(tmp_path: Path) -> None:
    """AUGUSTUS and BRAKER; gffread's GFF3 without gene lines."""
    braker = ["1 gene 1101 1600 + g1", "1 transcript 1101 1600 + g1.t1"]
    introns, handled = odd(tmp_path, *braker, *three(lambda _: 'transcript_id "g1.t1"; gene_id "g1";'))
    assert (introns, handled) == ({"g1": MOVED}, {})
    gffread = ["1 transcript 1101 1600 + ID=t1;geneID=G1"]
    introns, handled = odd(tmp_path, *gffread, *three(lambda _: "Parent=t1"))
    assert (introns, handled) == ({"G1": MOVED}, {})


@pytest.mark.parametrize("parent", ["operon1", "te1"])
def test_a_gene_line_ends_the_way_up(tmp_path: Path, parent: str) -> None:
    kind = "operon" if parent == "operon1" else "mobile_genetic_element"
    lines = [f"1 {kind} 1101 3600 + ID={parent}"]
    for name, at in (("A", 1000), ("B", 3000)):
        lines += [
            f"1 gene {101 + at} {600 + at} + ID={name};Parent={parent}",
            f"1 mRNA {101 + at} {600 + at} + ID={name}.t;Parent={name}",
        ]
        lines += three(lambda _, name=name: f"Parent={name}.t", at)
    introns, handled = odd(tmp_path, *lines)
    assert introns == {"A": MOVED, "B": [(start + 3000, end + 3000) for start, end in INTRONS]}
    assert handled == {}


GENE = "1 gene 1101 1600 + ID=X"
MRNA = "1 mRNA 1101 1600 + ID=t;Parent=X"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([GENE, "1 gene 3101 3600 - ID=X", *three(lambda _: "Parent=X")], "genes_in_two_places"),
        (["1 gene 1101 1600 ? ID=X", MRNA, *three(lambda _: "Parent=t")], "genes_without_a_strand"),
        (["1 gene 1101 1600 . ID=X", MRNA, *three(lambda _: "Parent=t")], "genes_without_a_strand"),
        (["1 gene 1101 1500 + ID=X", MRNA, *three(lambda _: "Parent=t")], "genes_with_an_exon_outside"),
        (
            [GENE, MRNA, "1 mRNA 5101 5600 + ID=t;Parent=X", *three(lambda _: "Parent=t")],
            "genes_with_a_transcript_in_two_places",
        ),
        (
            [
                f'1 exon {start + at} {end + at} + gene_id "X"; transcript_id "t";'
                for at in (1000, 9000)
                for start, end in EXONS
            ],
            "genes_with_a_transcript_in_two_places",
        ),
        (
            [
                f'1 exon {start + at} {end + at} + gene_id "X"; transcript_id "t"; exon_number "{i}";'
                for at, exons in ((1000, EXONS), (9000, EXONS[:2]))
                for i, (start, end) in enumerate(exons)
            ],
            "genes_with_a_transcript_in_two_places",
        ),
        (
            [*three(lambda _: 'gene_id "X";'), '1 exon 1331 1400 + gene_id "X";'],
            "genes_whose_isoforms_cannot_be_told_apart",
        ),
        (
            [*three(lambda _: 'gene_id "X"; transcript_id "";'), *three(lambda _: 'gene_id "X"; transcript_id "";')],
            "genes_whose_isoforms_cannot_be_told_apart",
        ),
        (
            [GENE, MRNA, "1 mRNA 1101 1600 + ID=u;Parent=X", *three(lambda _: "Parent=X")],
            "genes_whose_isoforms_cannot_be_told_apart",
        ),
        ([GENE, *three(lambda i: f"Parent={'X' if i else 'nobody'}")], None),
    ],
)
def test_one_odd_gene_is_left_out_and_counted(tmp_path: Path, lines: list[str], reason: str | None) -> None:
    introns, handled = odd(tmp_path, *lines)
    if reason is None:  # an exon that names nobody is no part of the gene
        assert introns == {"X": MOVED[1:]}
        assert handled == {"exons_whose_parent_is_unknown": 1}
        return
    assert introns == {}
    assert handled == {reason: 1}
    assert in_words(handled) == [f"1 {REASONS[reason]}"]


def test_a_transcript_without_one_of_its_exons_has_no_intron_there(tmp_path: Path) -> None:
    """The other exons would make an intron over the one that is lost; other transcripts of the gene stay."""
    lines = [GENE, *three(lambda _: 'gene_id "X"; transcript_id "sound";')]
    for strand in ("-", "."):
        lost = three(lambda _: 'gene_id "X"; transcript_id "t";')
        lost[1] = lost[1].replace(" + ", f" {strand} ")
        introns, handled = odd(tmp_path, *lines, *lost)
        assert introns == {"X": MOVED}
        name = "exons_without_a_strand" if strand == "." else "exons_on_the_other_strand_of_their_gene"
        assert handled == {name: 1}


def test_exons_of_a_gene_whose_ids_name_their_transcripts(tmp_path: Path) -> None:
    second = ((101, 200), (331, 400), (501, 600))
    lines = [GENE, MRNA.replace("ID=t", "ID=X.t1"), MRNA.replace("ID=t", "ID=X.t10")]
    for name, exons in (("X.t1", EXONS), ("X.t10", second)):
        lines += [f"1 exon {s + 1000} {e + 1000} + ID={name}.e{i};Parent=X" for i, (s, e) in enumerate(exons)]
    introns, handled = odd(tmp_path, *lines)
    assert introns == {"X": sorted({*MOVED, (1200, 1330)})}
    assert handled == {"exons_whose_id_names_their_transcript": 6}


def test_what_is_an_intron() -> None:
    assert introns_of([(0, 100), (120, 200)]).places == [(100, 120)]
    assert introns_of([(0, 100), (119, 200)]) == ([], {"gaps_too_short_for_an_intron": 1})
    assert introns_of([(0, 100), (101, 200), (300, 400)]) == ([(200, 300)], {"gaps_too_short_for_an_intron": 1})
    assert introns_of([(300, 400), (0, 200), (50, 60)]) == ([(200, 300)], {"exons_merged": 1})  # in one another
    assert introns_of([(0, 100), (80, 200), (200, 250), (300, 400)]) == ([(250, 300)], {"exons_merged": 2})
    assert introns_of([(0, 100), (150, 151), (200, 300)]) == ([(100, 150), (151, 200)], {"exons_of_one_base": 1})
    assert introns_of([(0, 100), (104, 200)], min_intron_bp=4).places == [(100, 104)]
    assert introns_of([(0, 100), (0, 100)]) == ([], {})


@pytest.mark.parametrize(
    "lines",
    [
        [GENE, MRNA.replace("mRNA", "tRNA"), *three(lambda _: "Parent=t")],
        [GENE + ";gene_biotype=tRNA", MRNA, *three(lambda _: "Parent=t")],
        three(lambda _: 'gene_id "X"; transcript_id "t"; gene_type "Mt_tRNA";'),
    ],
)
def test_introns_of_trnas_are_not_those_of_the_spliceosome(tmp_path: Path, lines: list[str]) -> None:
    assert odd(tmp_path, *lines) == ({"X": []}, {"introns_of_tRNA": 2})


def test_transcripts_without_a_gene(tmp_path: Path) -> None:
    introns, handled = odd(tmp_path, "1 tRNA 1101 1200 + ID=t", "1 exon 1101 1200 + Parent=t")
    assert (introns, handled) == ({}, {"exons_of_tRNA_without_a_gene": 1})
    introns, handled = odd(tmp_path, "1 mRNA 1101 1200 + ID=t", "1 exon 1101 1200 + Parent=t")
    assert (introns, handled) == ({}, {"exons_of_a_transcript_without_a_gene": 1})


def test_isoforms_that_stand_as_genes_are_named(tmp_path: Path) -> None:
    lines = [
        line
        for name in ("a", "b", "c")
        for line in three(lambda _, name=name: f'gene_id "{name}"; transcript_id "{name}";')
    ]
    introns, handled = odd(tmp_path, *lines)
    assert set(introns) == {"a", "b", "c"}
    assert handled == {"genes_named_as_their_transcript": 3}
    apart = three(lambda _: 'gene_id "a"; transcript_id "a";') + three(
        lambda _: 'gene_id "b"; transcript_id "b";', 3000
    )
    assert odd(tmp_path, *apart)[1] == {}


def test_too_many_odd_genes_stop_the_run(tmp_path: Path) -> None:
    def file(odd_ones: int, sound: int) -> Path:
        genes = [
            f"1 gene {at} {at + 99} {'?' if i < odd_ones else '+'} ID=g{i}"
            for i, at in enumerate(range(1, 200 * (odd_ones + sound), 200))
        ]
        exons = [f"1 exon {at} {at + 99} + Parent=g{i}" for i, at in enumerate(range(1, 200 * (odd_ones + sound), 200))]
        return write(tmp_path, [*genes, *exons])

    assert len(read_annotation(file(10, 1)).genes) == 1
    assert len(read_annotation(file(11, 99)).genes) == 99
    with pytest.raises(
        InputError, match=r"11 of 109 genes would be left out \(11 genes without a strand, first in line 1\)"
    ):
        read_annotation(file(11, 98))


def test_files_as_people_save_them(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    text = path.read_bytes()
    for number, content in enumerate(
        (bz2.compress(text), lzma.compress(text), b"\xef\xbb\xbf#!x\n" + text, b"\xef\xbb\xbf" + text)
    ):
        (tmp_path / f"{number}.gtf").write_bytes(content)
        assert read_annotation(tmp_path / f"{number}.gtf").genes[0].introns() == INTRONS
    path.write_bytes(text.rstrip(b"\n") + b' note "caf\xe9";\n')
    found = read_annotation(path)
    assert (found.genes[0].introns(), found.handled) == (INTRONS, {"lines_not_in_utf8": 1})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.gff", b">chr1\nACGT\n", "this is FASTA"),
        ("a.gff", b"##fileformat=VCFv4.2\n1\t2\n", "this is VCF"),
        (
            "a.bed",
            b"chr1\t1\t2\tx\t0\t+\n",
            "this is BED, intervals; needed is GTF or GFF3",
        ),
        ("a.gtf", b'chr1 x exon 1 9 . + . gene_id "g";\n', "separated by blanks.*replaced the tabs"),
        ("a.gtf", "chr1\tx\texon".encode("utf-16"), "text in UTF-16"),
        ("a.gff", b"PK\x03\x04zip", "damaged"),
    ],
)
def test_other_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_annotation(tmp_path / name)


LENGTH = 6000


def genome(
    folder: Path,
    annotation: Annotation,
    name: str = "a.fa",
    *,
    length: int = LENGTH,
    **changes: Callable[[np.ndarray], np.ndarray],
) -> Reference:
    """Random letters with GT and AG at the ends of all introns."""
    rng = np.random.default_rng(1)
    lines = []
    for chrom in dict.fromkeys(gene.gene.interval.chrom for gene in annotation.genes):
        tokens = rng.integers(0, 4, length).astype(np.uint8)
        for gene in annotation.genes:
            for start, end in gene.introns() if gene.gene.interval.chrom == chrom else ():
                ends = np.array([2, 3, 0, 2], np.uint8)  # GT, AG
                tokens[[start, start + 1, end - 2, end - 1]] = (
                    ends if gene.gene.strand == "+" else reverse_complement(ends)
                )
        lines += [f">{chrom}", decode(changes[f"c{chrom}"](tokens) if f"c{chrom}" in changes else tokens)]
    (folder / name).write_text("\n".join(lines) + "\n")
    return Reference(folder / name)


def by_chrom(annotation: Annotation) -> dict[str, list]:
    found: dict[str, list] = {}
    for gene in annotation.genes:
        found.setdefault(gene.gene.interval.chrom, []).append(gene)
    return found


def many(chroms: Sequence[str], genes: int) -> list[str]:
    return [
        f'{chrom} exon {start + 700 * i} {end + 700 * i} {"+-"[i % 2]} gene_id "{chrom}g{i}"; transcript_id "t{i}";'
        for chrom in chroms
        for i in range(genes)
        for start, end in EXONS
    ]


@pytest.mark.parametrize(("genes", "shift"), [(8, 1), (2, -2), (8, 3)])
def test_a_chromosome_that_is_off_is_named_with_its_shift(tmp_path: Path, genes: int, shift: int) -> None:
    """Also where it has few introns: all of them fit elsewhere."""
    lines = many(["1"], 8) + many(["2"], genes)
    right = read_annotation(write(tmp_path, lines))
    moved = [
        f"{c} {kind} {int(start) - shift} {int(end) - shift} {rest}" if c == "2" else f"{c} {kind} {start} {end} {rest}"
        for c, kind, start, end, rest in (line.split(maxsplit=4) for line in lines)
    ]
    reference = genome(tmp_path, right)
    check = check_agreement(by_chrom(right), reference, tmp_path / "a.gff")
    assert (check.introns, check.canonical) == (2 * (8 + genes), 2 * (8 + genes))
    wrong = read_annotation(write(tmp_path, moved))
    message = rf"chromosome 2: \d+ of {2 * genes}, but {2 * genes} of {2 * genes} do \{shift:+d} bases? along"
    with pytest.raises(InputError, match=message):
        check_agreement(by_chrom(wrong), reference, tmp_path / "a.gff")
    assert (
        check_agreement(by_chrom(wrong), reference, tmp_path / "a.gff", allow_introns=True).canonical < check.canonical
    )


def test_a_wrong_strand_is_named(tmp_path: Path) -> None:
    lines = many(["1"], 8)
    reference = genome(tmp_path, read_annotation(write(tmp_path, lines)))
    flipped = [line.translate(str.maketrans("+-", "-+")) for line in lines]
    wrong = read_annotation(write(tmp_path, flipped))
    with pytest.raises(InputError, match=r"16 of 16 do on the other strand"):
        check_agreement(by_chrom(wrong), reference, tmp_path / "a.gff")


def test_genes_that_cannot_be_scored_and_twins(tmp_path: Path) -> None:
    """Letters that are all N, a gene across an origin; equal letters on two chromosomes are one paralog group."""
    annotation = read_annotation(write(tmp_path, many(["X", "Y", "MT"], 8)))
    x = []
    reference = genome(
        tmp_path,
        annotation,
        cX=lambda tokens: x.append(tokens) or tokens,
        cY=lambda _: masked(x[0]),
        cMT=lambda tokens: tokens[:5400],
    )
    found = check_agreement(by_chrom(annotation), reference, tmp_path / "a.gff")
    assert found.handled == {"genes_of_N": 1, "genes_beyond_their_chromosome": 1}
    assert {chrom: len(genes) for chrom, genes in found.genes.items()} == {"X": 8, "Y": 7, "MT": 7}
    groups = {gene.gene.gene_id: gene.gene.paralog_group for genes in found.genes.values() for gene in genes}
    assert groups["Xg0"] is None
    assert groups["Xg1"] == groups["Yg1"] == "same-Xg1"
    assert groups["MTg1"] is None


def masked(tokens: np.ndarray) -> np.ndarray:
    tokens = tokens.copy()
    tokens[:650] = 4
    return tokens


def test_m_and_mt_are_one_chromosome(tmp_path: Path) -> None:
    annotation = read_annotation(write(tmp_path, many(["MT"], 8)))
    reference = genome(tmp_path, annotation)
    reference.path.write_text(reference.path.read_text().replace(">MT", ">chrM"))
    assert list(check_agreement(by_chrom(annotation), reference, tmp_path / "a.gff").genes) == ["MT"]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("01-braker-gene-lines.gtf", {}),
        ("02-all-unquoted.gtf", {}),
        ("03-two-loci-one-id.gtf", {"genes_with_a_transcript_in_two_places": 1}),
        ("05-trans-spliced.gff3", {"genes_in_two_places": 1}),
        ("06-gene-strand-unknown.gff3", {"genes_without_a_strand": 1}),
        ("07-exon-outside-its-gene.gff3", {"genes_with_an_exon_outside": 1}),
        ("08-gffread-geneID.gff3", {}),
        ("09-exon-parent-is-gene.gff3", {"exons_whose_id_names_their_transcript": 6}),
        ("11-exon-inside-an-exon.gtf", {"exons_merged": 1}),
        ("12-gap-of-1.gtf", {"gaps_too_short_for_an_intron": 1}),
        ("22-gene-id-is-transcript-id.gtf", {"genes_named_as_their_transcript": 2}),
        ("23-genes-of-an-operon.gff3", {}),
        ("25-latin1.gff3", {"lines_not_in_utf8": 1}),
        ("26-trna-without-gene.gff3", {"exons_of_tRNA_without_a_gene": 1}),
        ("27-bom.gtf", {}),
        ("31-strand-dot.gtf", {"exons_without_a_strand": 4, "genes_whose_exons_have_no_strand": 2}),
    ],
)
def test_files_that_were_read_wrongly(shared: Path, case: str, expected: dict[str, int]) -> None:
    found = read_annotation(shared / "cases" / "bio" / case)
    assert found.handled == expected
    assert {"G0", "G1", "G2"} <= {gene.gene.gene_id for gene in found.genes}
