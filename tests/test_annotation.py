"""Genes and sites from GTF and GFF3 as GENCODE, Ensembl, NCBI and others write them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from metalayer.base.annotation import Annotation, read_annotation
from metalayer.errors import InputError


def read(folder: Path, *lines: str) -> Annotation:
    """Lines with blanks for tabs: chrom, kind, start, end, strand, attributes."""
    rows = []
    for line in lines:
        chrom, kind, start, end, strand, attributes = line.split(maxsplit=5)
        rows.append("\t".join((chrom, "source", kind, start, end, ".", strand, ".", attributes)))
    (folder / "a.gff").write_text("\n".join(rows) + "\n")
    return read_annotation(folder / "a.gff")


def sites(annotation: Annotation) -> dict[str, dict[int, int]]:
    """Gene to {exon base: class}."""
    return {gene.gene.gene_id: {i: int(c) for i, c in enumerate(gene.labels()) if c != 2} for gene in annotation.genes}


def test_sites_of_every_strand_and_transcript(tmp_path: Path) -> None:
    (tmp_path / "a.gff3").write_text(
        "##gff-version 3\n"
        "chr1\tx\tgene\t101\t200\t.\t+\t.\tID=gene-A;Name=A\n"
        "chr1\tx\tmRNA\t101\t200\t.\t+\t.\tID=rna-1;Parent=gene-A\n"
        "chr1\tx\texon\t101\t110\t.\t+\t.\tID=e1;Parent=rna-1\n"
        "chr1\tx\texon\t151\t200\t.\t+\t.\tID=e2;Parent=rna-1\n"
        "chr1\tx\tgene\t301\t400\t.\t-\t.\tID=gene-B\n"
        "chr1\tx\tmRNA\t301\t400\t.\t-\t.\tID=rna-2;Parent=gene-B\n"
        "chr1\tx\texon\t301\t340\t.\t-\t.\tParent=rna-2\n"
        "chr1\tx\texon\t381\t400\t.\t-\t.\tParent=rna-2\n"
        "chr1\tx\tmRNA\t301\t400\t.\t-\t.\tID=rna-3;Parent=gene-B\n"
        "chr1\tx\texon\t301\t330\t.\t-\t.\tParent=rna-3\n"
        "chr1\tx\texon\t381\t400\t.\t-\t.\tParent=rna-3\n"
    )
    plus, minus = read_annotation(tmp_path / "a.gff3").genes
    assert {i: int(c) for i, c in enumerate(plus.labels()) if c != 2} == {9: 0, 50: 1}
    # Transcript sense: the exon of 381-400 comes first; its last base is at genomic 381, index 19.
    assert {i: int(c) for i, c in enumerate(minus.labels()) if c != 2} == {19: 0, 60: 1, 70: 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chr1\tx\texon\t1\t9\n", "5 fields"),
        ("chr1\tx\tgene\ta\t9\t.\t+\t.\tID=g\n", "start 'a'"),
        ("chr1\tx\tgene\t1\t9\t.\t+\t.\tID=g\n", "no gene with an exon"),
        (
            'chr1\tx\tgene\t1\t9\t.\t+\t.\tgene_id "g";\nchr1\tx\tgene\t2\t9\t.\t+\t.\tgene_id "g";\n',
            r"1 of 1 genes would be left out \(1 genes whose id is in two places.*first in line 2\)",
        ),
        (
            'chr1\tx\tgene\t1\t9\t.\t+\t.\tgene_id "g";\n'
            'chr1\tx\texon\t1\t99\t.\t+\t.\tgene_id "g"; transcript_id "t";\n',
            r"1 of 1 genes would be left out \(1 genes with an exon outside their gene line, first in line 2\)",
        ),
    ],
)
def test_annotations_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.gtf").write_text(text)
    with pytest.raises(InputError, match=message):
        read_annotation(tmp_path / "a.gtf")


def test_ncbi(tmp_path: Path) -> None:
    """Names with prefixes, one transcript_id on X and Y, exons three levels down, escapes, quotes, a region."""
    found = read(
        tmp_path,
        "NC_000023.11 region 1 9000 + ID=NC_000023.11:1..9000;Dbxref=taxon:9606;Name=X",
        'NC_000023.11 gene 101 200 + ID=gene-ASMT;Name=ASMT;description=a "quoted" name;gene=ASMT',
        "NC_000023.11 mRNA 101 200 + ID=rna-NM_1.2;Parent=gene-ASMT;gene=ASMT;transcript_id=NM_1.2",
        "NC_000023.11 exon 101 110 + ID=exon-NM_1.2-1;Parent=rna-NM_1.2;gene=ASMT;transcript_id=NM_1.2",
        "NC_000023.11 exon 151 200 + ID=exon-NM_1.2-2;Parent=rna-NM_1.2;gene=ASMT;transcript_id=NM_1.2",
        "NC_000023.11 CDS 101 110 + ID=cds-NP_1;Parent=rna-NM_1.2",
        "NC_000023.11 pseudogene 301 400 - ID=gene-PG%2C1;Name=PG%2C1;gene=PG%2C1",
        "NC_000023.11 exon 301 340 - ID=id-PG-2;Parent=gene-PG%2C1",
        "NC_000023.11 exon 381 400 - ID=id-PG-1;Parent=gene-PG%2C1",
        "NC_000023.11 gene 501 560 + ID=gene-MIR1;Name=MIR1",
        "NC_000023.11 primary_transcript 501 560 + ID=rna-MIR1;Parent=gene-MIR1",
        "NC_000023.11 miRNA 511 530 + ID=rna-MIR1-2;Parent=rna-MIR1",
        "NC_000023.11 exon 511 530 + ID=exon-MIR1-2;Parent=rna-MIR1-2",
        "NC_000024.10 gene 1101 1200 + ID=gene-ASMT-2;Name=ASMT;gene=ASMT",
        "NC_000024.10 mRNA 1101 1200 + ID=rna-NM_1.2-2;Parent=gene-ASMT-2;gene=ASMT;transcript_id=NM_1.2",
        "NC_000024.10 exon 1101 1120 + ID=exon-NM_1.2-3;Parent=rna-NM_1.2-2;gene=ASMT;transcript_id=NM_1.2",
        "NC_000024.10 exon 1151 1200 + ID=exon-NM_1.2-4;Parent=rna-NM_1.2-2;gene=ASMT;transcript_id=NM_1.2",
    )
    assert sites(found) == {"ASMT": {9: 0, 50: 1}, "PG,1": {19: 0, 60: 1}, "MIR1": {}, "ASMT-2": {19: 0, 50: 1}}
    assert [gene.gene.gene_name for gene in found.genes] == ["ASMT", "PG,1", "MIR1", "ASMT"]
    assert found.handled == {}


def test_ensembl_gff3_in_any_order(tmp_path: Path) -> None:
    """Parents after their children, ncRNA_gene, and an exon of two transcripts as one line."""
    found = read(
        tmp_path,
        "1 exon 101 110 + Parent=transcript:ENST1,transcript:ENST2",
        "1 exon 151 200 + Parent=transcript:ENST1",
        "1 exon 181 200 + Parent=transcript:ENST2",
        "1 lnc_RNA 101 200 + ID=transcript:ENST2;Parent=gene:ENSG01",
        "1 lnc_RNA 101 200 + ID=transcript:ENST1;Parent=gene:ENSG01",
        "1 ncRNA_gene 101 200 + ID=gene:ENSG01;Name=LNC;gene_id=ENSG01;version=3",
    )
    assert sites(found) == {"ENSG01": {9: 0, 50: 1, 80: 1}}
    assert found.genes[0].gene.gene_name == "LNC"


@pytest.mark.parametrize("par", ["ENSG02.7_PAR_Y", "ENSG02.7"])
def test_pseudoautosomal_genes_of_gencode(tmp_path: Path, par: str) -> None:
    """X and Y are two genes, whether their ids differ or not; versions are part of an id."""
    lines = []
    for chrom, gene, transcript in (("chrX", "ENSG02.7", "ENST5.1"), ("chrY", par, "ENST5.1")):
        attributes = f'gene_id "{gene}"; transcript_id "{transcript}"; gene_name "P"; level 2; tag "a=b; c";'
        lines += [f"{chrom} {kind} 11 90 + {attributes}" for kind in ("gene", "transcript")]
        lines += [f"{chrom} exon {start} {end} + {attributes}" for start, end in ((11, 20), (51, 90))]
    found = read(tmp_path, *lines)
    second = par if par != "ENSG02.7" else "ENSG02.7_Y"
    assert sites(found) == {"ENSG02.7": {9: 0, 40: 1}, second: {9: 0, 40: 1}}
    assert [gene.gene.interval.chrom for gene in found.genes] == ["X", "Y"]
    assert found.handled == ({} if par != "ENSG02.7" else {"genes_on_several_chromosomes": 1})


def test_a_gtf_of_exons_alone(tmp_path: Path) -> None:
    """A gene spans its exons; on another chromosome the same id is another gene (UCSC's refGene)."""
    lines = [
        f'{chrom} exon {start} {end} - gene_id "G"; transcript_id "T";'
        for chrom in ("chrX", "chrY")
        for start, end in ((51, 90), (11, 20))
    ]
    found = read(tmp_path, *lines)
    assert sites(found) == {"G": {39: 0, 70: 1}, "G_Y": {39: 0, 70: 1}}
    assert [len(gene.gene) for gene in found.genes] == [80, 80]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    lines = [f'1 exon {start} {start + 9} + gene_id "G"; transcript_id "T";' for start in range(11, 8000, 40)]
    found = read(
        tmp_path,
        *lines,
        '1 gene 5001 6000 + gene_id "NO_EXON";',
        '1 exon 7001 7100 . gene_id "NO_STRAND"; transcript_id "S";',
        '1 exon 31 40 - gene_id "G"; transcript_id "TRANS";',
        '1 exon 8001 8100 + transcript_id "ORPHAN";',
    )
    assert list(sites(found)) == ["G"]
    assert found.handled == {
        "exons_on_the_other_strand_of_their_gene": 1,
        "exons_without_a_gene": 1,
        "exons_without_a_strand": 1,
        "genes_whose_exons_have_no_strand": 1,
        "genes_without_an_exon": 1,
    }


def test_parents_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"2 of 2 exons lead to no gene \(2 exons whose Parent has no line, first.*\); an exon needs"
    ):
        read(tmp_path, "1 exon 1 9 + Parent=t1", "1 exon 19 29 + Parent=t1")
    with pytest.raises(
        InputError, match=r"1 of 1 exons lead to no gene \(1 exons whose Parents form a circle, first in line 3\)"
    ):
        read(tmp_path, "1 mRNA 1 9 + ID=a;Parent=b", "1 mRNA 1 9 + ID=b;Parent=a", "1 exon 1 9 + Parent=a")
    found = read(tmp_path, "1 mRNA 1 9 + ID=t1;Parent=gene-A", "1 exon 1 9 + Parent=t1")
    assert list(sites(found)) == ["A"]


def test_features_without_an_id_are_no_parents(tmp_path: Path) -> None:
    """Exons without Parent are nobody's, although a feature without ID has a Parent; every gene keeps its sites."""
    many = [f"2 exon {start} {start + 9} + Parent=t9" for start in range(11, 10000, 40)]
    found = read(
        tmp_path,
        "1 gene 101 200 + ID=gene-A",
        "1 mRNA 101 200 + ID=t1;Parent=gene-A",
        "1 exon 101 110 + Parent=t1",
        "1 exon 151 200 + Parent=t1",
        "1 gene 301 400 + ID=gene-B",
        "1 mRNA 301 400 + Parent=gene-B",
        "1 exon 301 310 + Note=x",
        "1 exon 351 400 + Parent=",
        "2 gene 1 10000 + ID=gene-C",
        "2 mRNA 1 10000 + ID=t9;Parent=gene-C",
        "2 gene 6001 6100 + Name=no_id",
        *many,
    )
    assert list(sites(found)) == ["A", "C"]
    assert sites(found)["A"] == {9: 0, 50: 1}
    assert found.genes[1].introns()[0] == (20, 50)
    assert found.handled == {"exons_without_a_gene": 2, "genes_without_an_exon": 1, "genes_without_an_id": 1}


@pytest.mark.parametrize(
    ("lines", "genes", "handled"),
    [
        # An ID that two transcripts have: the exon's place says which.
        (["mRNA 101 200 ID=t;Parent=A", "mRNA 301 400 ID=t;Parent=B"], {"A": {9: 0, 50: 1}, "B": {9: 0, 50: 1}}, {}),
        # The same line twice is one transcript.
        (
            ["mRNA 101 200 ID=t;Parent=A"] * 2 + ["mRNA 301 400 ID=t;Parent=B"],
            {"A": {9: 0, 50: 1}, "B": {9: 0, 50: 1}},
            {},
        ),
        # Both genes hold the exons: nobody can say whose they are.
        (
            ["mRNA 101 200 ID=t;Parent=A", "mRNA 101 200 ID=t;Parent=OVER", "mRNA 301 400 ID=t;Parent=B"],
            {"B": {9: 0, 50: 1}},
            {"exons_whose_parent_is_ambiguous": 2},
        ),
        # A transcript of two genes is both's, where its exons lie.
        (
            ["mRNA 101 200 ID=t;Parent=A,OVER", "mRNA 301 400 ID=t;Parent=B"],
            {"B": {9: 0, 50: 1}},
            {"exons_whose_parent_is_ambiguous": 2},
        ),
        (["mRNA 101 200 ID=t;Parent=A,OVER,B"], {"A": {9: 0, 50: 1}, "OVER": {59: 0, 100: 1}, "B": {9: 0, 50: 1}}, {}),
        # A transcript with the ID of another gene, and one with that of its own.
        (["mRNA 101 200 ID=t;Parent=A", "gene 301 400 ID=t"], {"A": {9: 0, 50: 1}, "t": {9: 0, 50: 1}}, {}),
        (["mRNA 101 200 ID=t;Parent=t", "gene 101 400 ID=t"], {"t": {9: 0, 50: 1, 209: 0, 250: 1, 99: 0, 200: 1}}, {}),
        # Two circles, and a way out of one.
        (["mRNA 101 200 ID=t;Parent=t"], {}, {"exons_whose_parents_form_a_circle": 4}),
        (["mRNA 101 200 ID=t;Parent=u", "mRNA 101 400 ID=u;Parent=t"], {}, {"exons_whose_parents_form_a_circle": 4}),
        (
            ["mRNA 101 200 ID=t;Parent=u,A", "mRNA 301 400 ID=u;Parent=t,B"],
            {"A": {9: 0, 50: 1}, "B": {9: 0, 50: 1}},
            {},
        ),
        ([], {}, {"exons_whose_parent_is_unknown": 4}),
    ],
)
def test_ids_and_parents_that_are_odd(
    tmp_path: Path, lines: list[str], genes: dict[str, dict[int, int]], handled: dict[str, int]
) -> None:
    def line(text: str) -> str:
        kind, start, end, attributes = text.split()
        return f"1 {kind} {start} {end} + {attributes}"

    exons = [f"1 exon {start} {end} + Parent=t" for start, end in ((101, 110), (151, 200), (301, 310), (351, 400))]
    others = [f"2 exon {start} {start + 9} + Parent=z" for start in range(11, 10_000, 40)]
    found = read(
        tmp_path,
        "1 gene 101 200 + ID=A",
        "1 gene 51 250 + ID=OVER",
        "1 gene 301 400 + ID=B",
        *(line(text) for text in lines),
        *exons,
        "2 mRNA 1 10000 + ID=z;Parent=Z",
        *others,
    )
    assert {name: at for name, at in sites(found).items() if name != "Z"} == genes
    assert {name: count for name, count in found.handled.items() if name != "genes_without_an_exon"} == handled


def test_genes_of_one_id_get_an_id_of_their_own(tmp_path: Path) -> None:
    """The primary chromosome keeps it, wherever it stands in the file; a name that another has is not taken."""
    places = (("HSCHR1_ALT", "A"), ("2", "A"), ("1", "A"), ("3", "A_2"))
    found = read(tmp_path, *(f'{chrom} exon 1 9 + gene_id "{gene}";' for chrom, gene in places))
    named = {gene.gene.interval.chrom: gene.gene.gene_id for gene in found.genes}
    assert named == {"HSCHR1_ALT": "A_HSCHR1_ALT", "2": "A_2_2", "1": "A", "3": "A_2"}


def test_an_annotation_with_its_sequence_and_crlf(tmp_path: Path) -> None:
    row = "1\tx\texon\t1\t9\t.\t+\t.\tParent=g;gene_id=g\r\n"
    (tmp_path / "a.gff3.gz").write_bytes(gzip.compress(f"##gff-version 3\r\n{row}##FASTA\r\n>1\r\nACGT\r\n".encode()))
    assert list(sites(read_annotation(tmp_path / "a.gff3.gz"))) == ["g"]
    whole = gzip.compress((row * 50).encode())
    (tmp_path / "a.gff3.gz").write_bytes(whole[:-12])
    with pytest.raises(InputError, match="damaged"):
        read_annotation(tmp_path / "a.gff3.gz")
    with pytest.raises(InputError, match="no such file"):
        read_annotation(tmp_path / "none.gtf")
