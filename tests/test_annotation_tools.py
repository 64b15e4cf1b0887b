"""Odd genes as single tools write them, each beside one that is sound."""

from __future__ import annotations

import bz2
import logging
import lzma
import random
from pathlib import Path

import pytest

from metalayer import cli
from metalayer.base.annotation import REASONS, in_words, read_annotation
from metalayer.errors import InputError
from tests.test_annotation_forms import GOOD, INTRONS, MOVED, odd, three, write

GENE, MRNA = "1 gene 1101 1600 + ID=X", "1 mRNA 1101 1600 + ID=t;Parent=X"
CDS = [line.replace(" exon ", " CDS ") for line in three(lambda _: "Parent=t")]
FARTHER = [(start + 3000, end + 3000) for start, end in INTRONS]


def named(gene: str, transcript: str, at: int = 1000, more: str = "") -> list[str]:
    """Exon lines of a GTF."""
    return three(lambda i: f'gene_id "{gene}"; transcript_id "{transcript}"; {more.format(i)}', at)


Introns = dict[str, list[tuple[int, int]]]
READ: dict[str, tuple[list[str], Introns, dict[str, int]]] = {
    "NCBI: exception trans-splicing in one place": (
        [GENE + ";exception=trans-splicing", MRNA, *three(lambda _: "Parent=t")],
        {},
        {"genes_trans_spliced": 1},
    ),
    "NCBI: exception on the transcript, in GTF": (
        ['1 gene 1101 1600 + gene_id "X"; transcript_id "";', *named("X", "t", more='exception "trans-splicing";')],
        {},
        {"genes_trans_spliced": 1},
    ),
    "FlyBase mod(mdg4): one transcript of both strands, the other sound": (
        [
            *("1 gene 1101 3600 - ID=X", "1 mRNA 1101 3600 - ID=t;Parent=X", "1 mRNA 1101 1600 - ID=u;Parent=X"),
            *("1 exon 1101 1200 - Parent=t", "1 exon 1301 1400 - Parent=t", "1 exon 3101 3200 + Parent=t"),
            *three(lambda _: "Parent=u", strand="-"),
        ],
        {"X": MOVED},
        {"exons_on_the_other_strand_of_their_gene": 1},
    ),
    "all transcripts of a gene are lost": (
        [GENE, MRNA, "1 exon 1101 1200 + Parent=t", "1 exon 1301 1400 - Parent=t"],
        {},
        {"exons_on_the_other_strand_of_their_gene": 1, "genes_whose_transcripts_are_left_out": 1},
    ),
    "NCBI: a gene of a CDS alone, as in mitochondria": (
        ["1 gene 1101 1600 + ID=gene-ND1", "1 CDS 1101 1600 + ID=cds-ND1;Parent=gene-ND1"],
        {"ND1": []},
        {"transcripts_of_coding_parts": 1},
    ),
    "NCBI: two CDS of one gene, which overlap": (
        [
            *("1 gene 1101 1600 + ID=gene-X", "1 CDS 1101 1200 + ID=cds-1;Parent=gene-X"),
            *("1 CDS 1301 1600 + ID=cds-1;Parent=gene-X", "1 CDS 1151 1350 + ID=cds-2;Parent=gene-X"),
        ],
        {"X": [(1200, 1300)]},
        {"transcripts_of_coding_parts": 2},
    ),
    "NCBI: gene segments, whose CDS names the gene": (
        [
            *("1 gene 1101 1600 + ID=gene-V", "1 V_gene_segment 1101 1600 + ID=id-V;Parent=gene-V"),
            *three(lambda i: f"ID=id-V-{i};Parent=id-V"),
            *("1 CDS 1101 1200 + ID=cds-V;Parent=gene-V", "1 CDS 1561 1600 + ID=cds-V;Parent=gene-V"),
        ],
        {"V": MOVED},
        {},
    ),
    "NCBI: ribosomal slippage within an exon": (
        [
            *(GENE, MRNA, "1 exon 1101 1600 + Parent=t"),
            *("1 CDS 1101 1200 + ID=c;Parent=t;exception=ribosomal slippage", "1 CDS 1231 1600 + ID=c;Parent=t"),
        ],
        {"X": []},
        {},
    ),
    "NCBI: a microRNA in its precursor": (
        [
            *(GENE, "1 primary_transcript 1101 1600 + ID=t;Parent=X", "1 exon 1101 1600 + Parent=t"),
            *("1 miRNA 1110 1130 + ID=m;Parent=t", "1 exon 1110 1130 + Parent=m"),
            *("1 miRNA 1150 1170 + ID=n;Parent=t", "1 exon 1150 1170 + Parent=n"),
        ],
        {"X": []},
        {},
    ),
    "NCBI: one transcript_id for all genes that have none": (
        [
            '1 transcript 1101 1600 + gene_id "X"; transcript_id "unknown_transcript_1";',
            *named("X", "unknown_transcript_1"),
            '1 transcript 3101 3600 + gene_id "Y"; transcript_id "unknown_transcript_1";',
            *named("Y", "unknown_transcript_1", 3000),
        ],
        {"X": MOVED, "Y": FARTHER},
        {},
    ),
    "GENCODE: a selenocysteine": (
        [
            *('1 gene 1101 1600 + gene_id "X";', '1 transcript 1101 1600 + gene_id "X"; transcript_id "t";'),
            *named("X", "t"),
            '1 Selenocysteine 1301 1303 + gene_id "X"; transcript_id "t";',
        ],
        {"X": MOVED},
        {},
    ),
    "GENCODE until 2014: gene lines whose transcript_id is their gene_id": (
        ['1 gene 1101 1600 + gene_id "X"; transcript_id "X";', *named("X", "t")],
        {"X": MOVED},
        {},
    ),
    "Liftoff: a copy that kept its gene_id": (
        [
            *(GENE + ";gene_id=X;extra_copy_number=0", MRNA, *three(lambda _: "Parent=t")),
            "1 gene 3101 3600 + ID=X_1;gene_id=X;extra_copy_number=1",
            *("1 mRNA 3101 3600 + ID=t_1;Parent=X_1", *three(lambda _: "Parent=t_1", 3000)),
        ],
        {"X": MOVED, "X_1": FARTHER},
        {},
    ),
    "UCSC: copies of a transcript under one gene": (
        [*named("X", "NM_1"), *named("X", "NM_1_dup1", 9000)],
        {},
        {"genes_with_a_transcript_in_two_places": 1},
    ),
    "UCSC: copies of a transcript of two exons": (
        [*named("X", "t")[:2], *named("X", "t", 9000)[:2]],
        {},
        {"genes_with_a_transcript_in_two_places": 1},
    ),
    "a gene of two pairs of equal exons, near each other": (
        [f'1 exon {a} {b} + gene_id "X"; transcript_id "t";' for a, b in ((1, 9), (101, 109), (211, 219), (311, 319))],
        {"X": [(9, 100), (109, 210), (219, 310)]},
        {},
    ),
    "gffread -M: loci of transcripts without genes": (
        [
            "1 locus 1101 1600 + ID=RLOC_1;transcripts=t,u",
            *("1 transcript 1101 1600 + ID=t;locus=RLOC_1", *three(lambda _: "Parent=t")),
        ],
        {"RLOC_1": MOVED},
        {},
    ),
    "gffread of StringTie: transcripts with gene_id": (
        ["1 transcript 1101 1600 + ID=M.1.1;gene_id=M.1", *three(lambda _: "Parent=M.1.1")],
        {"M.1": MOVED},
        {},
    ),
    "SGD: CDS lines, and the non-coding exons of a tRNA": (
        [
            *("1 gene 1101 1600 + ID=X", "1 mRNA 1101 1600 + ID=t;Parent=X", *CDS, "1 intron 1201 1300 + Parent=t"),
            *("1 tRNA_gene 2101 2200 + ID=R", "1 noncoding_exon 2101 2140 + Parent=R"),
            "1 noncoding_exon 2161 2200 + Parent=R",
        ],
        {"X": MOVED, "R": []},
        {"transcripts_of_coding_parts": 1, "introns_of_tRNA": 1},
    ),
    "TAIR: pseudogenes": (
        [
            *("1 pseudogene 1101 1600 + ID=X", "1 pseudogenic_transcript 1101 1600 + ID=t;Parent=X"),
            *(line.replace(" exon ", " pseudogenic_exon ") for line in three(lambda _: "Parent=t")),
        ],
        {"X": MOVED},
        {},
    ),
    "TSEBRA: one transcript with exon lines and one without": (
        [
            *('1 gene 1101 1600 + gene_id "X";', *named("X", "t")),
            *('1 CDS 1101 1200 + gene_id "X"; transcript_id "u";', '1 CDS 1331 1400 + gene_id "X"; transcript_id "u";'),
            '1 transcript 1101 1400 + gene_id "X"; transcript_id "u";',
        ],
        {"X": [(1200, 1300), (1200, 1330), (1400, 1500)]},
        {"transcripts_of_coding_parts": 1},
    ),
    "UTRs alone make no transcript": (
        [GENE, MRNA, "1 five_prime_UTR 1101 1150 + Parent=t", "1 three_prime_UTR 1501 1600 + Parent=t"],
        {},
        {"genes_without_an_exon": 1},
    ),
    "miniprot: transcripts without genes": (
        ["1 mRNA 1101 1600 + ID=MP1;Rank=1", *(line.replace("=t", "=MP1") for line in CDS)],
        {},
        {"coding_parts_without_a_gene": 3},
    ),
    "a gene and an exon that end before they start": (
        [
            *("1 gene 1600 1101 + ID=X", "1 mRNA 1600 1101 + ID=t;Parent=X", *three(lambda _: "Parent=t")),
            *("1 gene 3101 3600 + ID=Y", "1 mRNA 3101 3600 + ID=u;Parent=Y", "1 exon 3101 3200 + Parent=u"),
            *("1 exon 3400 3301 + Parent=u", "1 exon 3501 3600 + Parent=u"),
        ],
        {},
        {"genes_without_a_place": 1, "exons_without_a_place": 1, "genes_whose_transcripts_are_left_out": 1},
    ),
    "R and pandas: transcript_id NA, of one isoform": (named("X", "NA"), {"X": MOVED}, {}),
    "R and pandas: transcript_id nan, of two isoforms": (
        [*named("X", "nan"), '1 exon 1331 1400 + gene_id "X"; transcript_id "nan";'],
        {},
        {"genes_whose_isoforms_cannot_be_told_apart": 1},
    ),
    "R and pandas: no names at all": (
        [*named("NA", "NA"), *named(".", "", 3000), *named("nan", "nan", 5000)],
        {},
        {"exons_without_a_gene": 9},
    ),
    "a gene of the fly that is called nan": (named("nan", "NM_1"), {"nan": MOVED}, {}),
    "names of attributes in lower case": (
        [GENE.replace("ID", "id"), MRNA.replace("ID", "id").replace("Parent", "parent"), *three(lambda _: "parent=t")],
        {"X": MOVED},
        {},
    ),
    "exons that name both gene and transcripts": (
        [
            *(GENE, MRNA, MRNA.replace("ID=t", "ID=u"), "1 exon 1101 1200 + Parent=X,t, u"),
            *("1 exon 1301 1400 + Parent=X,t", "1 exon 1331 1400 + Parent=X,u", "1 exon 1501 1600 + Parent=t,u,X"),
        ],
        {"X": sorted([*MOVED, (1200, 1330)])},
        {},
    ),
    "exons whose Parent is the gene and whose transcript_id tells them apart": (
        [
            *(GENE, MRNA, MRNA.replace("ID=t", "ID=u"), *three(lambda _: "Parent=X;transcript_id=t")),
            *("1 exon 1101 1200 + Parent=X;transcript_id=u", "1 exon 1331 1400 + Parent=X;transcript_id=u"),
        ],
        {"X": sorted([*MOVED, (1200, 1330)])},
        {},
    ),
    "exons whose Parent is the gene and whose ID has the transcript within": (
        [
            *(GENE, MRNA, MRNA.replace("ID=t", "ID=t2"), *three(lambda i: f"Parent=X;ID=exon:t:{i}")),
            *("1 exon 1101 1200 + Parent=X;ID=exon:t2:1", "1 exon 1331 1400 + Parent=X;ID=exon:t2:2"),
        ],
        {"X": sorted([*MOVED, (1200, 1330)])},
        {"exons_whose_id_names_their_transcript": 5},
    ),
    "a base that is donor of one transcript and acceptor of another": (
        [
            *named("X", "t"),
            *(f'1 exon {a} {b} + gene_id "X"; transcript_id "u";' for a, b in ((1101, 1140), (1200, 1250))),
        ],
        {"X": [(1140, 1199), *MOVED]},
        {"bases_of_two_sites": 1},
    ),
    "parts of a gene beside one transcript whose exons name the gene": (
        [
            GENE,
            "1 TSS 1101 1101 + ID=a;Parent=X",
            "1 polypeptide 1101 1600 + ID=b;Parent=X",
            *three(lambda _: "Parent=X"),
        ],
        {"X": MOVED},
        {},
    ),
}


@pytest.mark.parametrize("case", READ)
def test_odd_genes_of_single_tools(tmp_path: Path, case: str) -> None:
    lines, introns, handled = READ[case]
    assert odd(tmp_path, *lines) == (introns, handled)
    assert all(words for words in in_words(handled))


def test_files_with_more_than_features_in_them(tmp_path: Path) -> None:
    """Lines of a browser, comments, a FASTA section, blanks, tabs at the end, line ends of three systems."""
    text = write(tmp_path, GOOD).read_text()
    first, rest = text.split("\n", 1)
    for content in (
        f"browser position chr1:1-9\ntrack name=x\n{text}",
        f"##gff-version 3\n{first}\n # a comment\n###\n\n{rest}###\n##FASTA\n>1\nACGT\n",
        f"{text}>1\nACGT\n",
        text.replace("\n", "\t\t\n"),
        text.replace("\n", "  \n"),
        text.replace("\n", "\r"),
        f"{first}\r\n{rest}",
        f"1\tx\tregion\t1\t999\t.\t.\t.\n1\tx\tregion\t0\t999\t.\t.\t.\t\n{text}",
        text.replace("\texon\t", "\tEXON\t"),
        text.replace('"', '\\"'),
        text.replace('"', '""'),
        text.replace(' "', " \u201c").replace('"', "\u201d"),
        text.replace(' "', " \u2018").replace('"', "\u2019"),
        f"{first}\n\ufeff##gff-version 3\n##FASTA\n>1\nACGT\n\ufeff{rest}",
        text.replace('";', '"; note "a; gene_id ""b""; transcript_id c";'),
    ):
        (tmp_path / "a.gff").write_bytes(content.encode())
        found = read_annotation(tmp_path / "a.gff")
        assert [(gene.gene.gene_id, gene.introns()) for gene in found.genes] == [("GOOD", INTRONS)], content
        assert found.handled == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1\tx\tcDNA_match\t1\t9\t.\t+\t.\tID=a\n", r"no gene with an exon \(its lines are of cdna_match \(1\)\)"),
        (b"##gff-version 3\n# nothing\n", "its lines are of no feature"),
        (
            b"1\tx\tmRNA\t1\t9\t.\t+\t.\tID=a\n1\tx\tCDS\t1\t9\t.\t+\t.\tParent=a\n",
            "1 coding parts of transcripts without exon lines that lead to no gene; its lines are of",
        ),
        (
            b'1\tx\texon\t1\t9\t.\t.\t.\tgene_id "g"; transcript_id "t"\n',
            r"no gene with an exon \(1 exons without a strand",
        ),
        (b'1\tx\texon\t1\t6.0E2\t.\t+\t.\tgene_id "g"\n', r"line 1: start '1', end '6\.0E2'; needs whole numbers"),
        (b'1\tx\texon\t1\t9\t.\t+\t.\tgene_id "g"\n1\tx\tex', "line 2: 3 fields; GTF and GFF3 have 9"),
        (
            b'1\tx\texon\t9\t1\t.\t+\t.\tgene_id "g"\n',
            r"1 of 1 exons lead to no gene or have no place \(1 exons that end before they start.*first in line 1\)",
        ),
    ],
)
def test_what_a_file_has_instead_of_genes(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.gff").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_annotation(tmp_path / "a.gff")


def test_genes_that_lose_their_transcripts_stop_the_run(tmp_path: Path) -> None:
    lines = []
    for i, at in enumerate(range(1000, 31000, 1000)):
        lines += named(f"g{i}", "t", at)
        if i < 11:
            lines[-1] = lines[-1].replace(" + ", " - ")
    with pytest.raises(InputError, match=r"11 of 30 genes would be left out \(11 genes all of whose transcripts"):
        read_annotation(write(tmp_path, lines))


def test_a_run_ends_with_what_was_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both files packed; AUGUSTUS without exon lines, and a gene called trans-spliced."""
    rng = random.Random(5)
    letters = list("".join(rng.choices("ACGT", k=2000)))
    for start, end in (*INTRONS, *MOVED):
        letters[start : start + 2], letters[end - 2 : end] = "GT", "AG"
    (tmp_path / "a.fa").write_bytes(bz2.compress(f">chr1\n{''.join(letters)}\n".encode()))
    augustus = ["1 gene 1101 1600 + g1", "1 transcript 1101 1600 + g1.t1"]
    augustus += [line.replace(" exon ", " CDS ") for line in named("g1", "g1.t1")]
    odd_ones = [GENE + ";exception=trans-splicing", MRNA, *three(lambda _: "Parent=t")]
    path = write(tmp_path, [*GOOD, *augustus, *odd_ones])
    path.write_bytes(lzma.compress(path.read_bytes()))
    files = ["--fasta", str(tmp_path / "a.fa"), "--annotation", str(path)]
    with caplog.at_level(logging.INFO):
        assert cli.main(["base", "run", "--model", "pwm", *files, "--output", str(tmp_path / "out")]) == 0
    assert "2 genes, 1,000 positions, 4 donors, 4 acceptors scored with pwm" in capsys.readouterr().out
    assert [record.getMessage() for record in caplog.records][-2:] == [
        "a.gff: 1 genes that the file calls trans-spliced",
        "a.gff: 1 transcripts without exon lines, read from those of their coding parts and UTRs",
    ]
    files[1], files[3] = files[3], files[1]
    assert cli.main(["base", "run", "--model", "pwm", *files, "--output", str(tmp_path / "none")]) == 2
    assert "this is FASTA, sequences; needed is GTF or GFF3" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


NAMES = ("a", "b", "", "gene-a", "a.1", "x,y", "%41", "\u00e9")
KINDS = ("gene", "mRNA", "exon", "CDS", "transcript", "pseudogene", "tRNA", "five_prime_UTR", "operon", "locus", "Exon")


def nonsense(rng: random.Random) -> str:
    """Column 9, perhaps of GFF3 or GTF."""
    name = [rng.choice(NAMES) for _ in range(4)]
    gff3 = [f"ID={name[0]}", f"Parent={name[1]}", f"gene_id={name[2]}", 'Note="a;b"', "transcripts=a", "gbkey=tRNA"]
    gtf = [f'gene_id "{name[0]}"', f'transcript_id "{name[1]}"', f'exon_number "{name[2]}"', f'Parent "{name[3]}"']
    broken = ["", ".", "g1", '"', '""', 'a""b"', "=", ";", "==;=", "ID", 'gene_id "', '"gene_id ""a"""']
    return rng.choice(
        [
            ";".join(rng.sample(gff3, rng.randint(1, 4))),
            "; ".join(rng.sample(gtf, rng.randint(1, 4))),
            rng.choice(broken),
        ]
    )


@pytest.mark.parametrize("seed", range(5))
def test_nonsense_is_read_or_refused_in_words(tmp_path: Path, seed: int) -> None:
    """Whatever is read, exons lie within their genes and each id is there once."""
    rng, read = random.Random(seed), 0
    path = tmp_path / "a.gff"
    for _ in range(200):
        rows = []
        for _ in range(rng.randint(1, 14)):
            start = rng.choice([0, 1, 50, 100, 200])
            end = start + rng.choice([-1, 0, 9, 40, 100])
            fields = (rng.choice(["1", "chr1", "X"]), "x", rng.choice(KINDS), start, end, ".", rng.choice("++--."), ".")
            rows.append("\t".join(map(str, (*fields, nonsense(rng)))))
        path.write_bytes(rng.choice(["\n", "\r\n", "\r"]).join(rows).encode(rng.choice(["utf-8", "latin-1"])))
        try:
            found = read_annotation(path)
        except InputError as error:
            assert str(path) in str(error)
            continue
        read += 1
        assert found.handled.keys() <= REASONS.keys()
        assert len({gene.gene.gene_id for gene in found.genes}) == len(found.genes)
        for gene in found.genes:
            span = gene.gene.interval
            assert all(span.start <= a < b <= span.end for exons in gene.exons.values() for a, b in exons)
            assert len(gene.labels()) == len(gene.gene)
    assert read > 10
