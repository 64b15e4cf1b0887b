"""One truth written as a dozen tools write it gives the same introns, found by another, slow reading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metalayer.base.annotation import read_annotation

MIN_INTRON = 20


@dataclass
class Transcript:
    """Exons 1-based inclusive, ascending; coding from the first base of `cds` to its last, if any."""

    name: str
    exons: list[tuple[int, int]]
    cds: tuple[int, int] | None


@dataclass
class Gene:
    """As the world is."""

    name: str
    chrom: str
    strand: str
    transcripts: list[Transcript]

    @property
    def span(self) -> tuple[int, int]:
        ends = [place for transcript in self.transcripts for exon in transcript.exons for place in exon]
        return min(ends), max(ends)


@st.composite
def worlds(draw: st.DrawFn) -> list[Gene]:
    """A few genes of a few transcripts: exons dropped, moved, single, a coding part of most."""
    genes = []
    at = {"1": 100, "2": 100}
    for number in range(draw(st.integers(1, 4))):
        chrom = draw(st.sampled_from("12"))
        places, start = [], at[chrom]
        for _ in range(draw(st.integers(1, 5))):
            end = start + draw(st.integers(5, 90))
            places.append((start, end))
            start = end + 1 + draw(st.sampled_from([1, 2, 19, 20, 21, 75, 400]))
        transcripts = []
        for i in range(draw(st.integers(1, 3))):
            keep = draw(st.lists(st.booleans(), min_size=len(places), max_size=len(places)))
            exons = [exon for exon, kept in zip(places, keep, strict=True) if kept] or places
            low, high = exons[0][0], exons[-1][1]
            cds = (low + 2, high - 2) if draw(st.booleans()) else None
            transcripts.append(Transcript(f"T{number}.{i + 1}", exons, cds))
        genes.append(Gene(f"G{number}", chrom, draw(st.sampled_from("+-")), transcripts))
        at[chrom] = genes[-1].span[1] + draw(st.sampled_from([1, 50, 3000]))
    return genes


def truth(genes: list[Gene]) -> dict[str, set[tuple[int, int]]]:
    """Introns by gene, base by base: stretches of a transcript that no exon covers, long enough."""
    found = {}
    for gene in genes:
        introns = set()
        for transcript in gene.transcripts:
            covered = {base for start, end in transcript.exons for base in range(start, end + 1)}
            first = None
            for base in range(min(covered), max(covered) + 2):
                if base not in covered and first is None:
                    first = base
                if base in covered and first is not None:
                    if base - first >= MIN_INTRON:
                        introns.add((first - 1, base - 1))  # 0-based half-open
                    first = None
        found[gene.name] = introns
    return found


Row = tuple[str, int, int, str]
"""Kind, place and column 9 of a line."""


def lines(genes: list[Gene], rows_of: Callable[[Gene], list[Row]], header: str = "") -> str:
    """A file."""
    rows = [
        f"{'chr' * (header == 'chr')}{gene.chrom}\ttool\t{kind}\t{start}\t{end}\t.\t{gene.strand}\t.\t{column_9}"
        for gene in genes
        for kind, start, end, column_9 in rows_of(gene)
    ]
    return "\n".join([*([header] if header.startswith("#") else []), *rows]) + "\n"


def parts(transcript: Transcript) -> list[tuple[str, int, int]]:
    """Coding parts and UTRs, of a transcript without a coding part UTR alone."""
    found = []
    for start, end in transcript.exons:
        if transcript.cds is None:
            found.append(("UTR", start, end))
            continue
        low, high = transcript.cds
        cuts = [(start, min(end, low - 1), "five_prime_UTR"), (max(start, low), min(end, high), "CDS")]
        cuts.append((max(start, high + 1), end, "three_prime_UTR"))
        found += [(kind, a, b) for a, b, kind in cuts if a <= b]
    return found


def ensembl_gtf(gene: Gene) -> list[Row]:
    rows: list[Row] = [("gene", *gene.span, f'gene_id "{gene.name}"; gene_biotype "protein_coding";')]
    for t in gene.transcripts:
        names = f'gene_id "{gene.name}"; transcript_id "{t.name}";'
        rows.append(("transcript", t.exons[0][0], t.exons[-1][1], names))
        rows += [("exon", a, b, f'{names} exon_number "{i}"; tag "x;y=z";') for i, (a, b) in enumerate(t.exons, 1)]
        rows += [(kind.lower() if "UTR" in kind else kind, a, b, names) for kind, a, b in parts(t)]
        rows.append(("Selenocysteine", t.exons[0][0], t.exons[0][0] + 2, names))
    return rows


def braker_gtf(gene: Gene) -> list[Row]:
    rows: list[Row] = [("gene", *gene.span, gene.name)]
    for t in gene.transcripts:
        names = f'transcript_id "{t.name}"; gene_id "{gene.name}";'
        rows.append(("transcript", t.exons[0][0], t.exons[-1][1], t.name))
        for i, (a, b) in enumerate(t.exons):
            if i and t.exons[i - 1][1] + 1 <= a - 1:
                rows.append(("intron", t.exons[i - 1][1] + 1, a - 1, names))
            rows += [("CDS", a, b, names), ("exon", a, b, names)]
    return rows


def flybase_gtf(gene: Gene) -> list[Row]:
    rows: list[Row] = [("gene", *gene.span, f'gene_id "{gene.name}"; gene_symbol "sym";')]
    for i, t in enumerate(gene.transcripts):
        names = f'gene_id "{gene.name}"; gene_symbol "sym"; transcript_id "{t.name}"; transcript_symbol "s-RA";'
        rows.append(("pseudogene" if i else "mRNA", t.exons[0][0], t.exons[-1][1], names))
        rows += [("exon", a, b, names) for a, b in t.exons]
        rows += [
            (kind.replace("five_prime_", "5").replace("three_prime_", "3"), a, b, names) for kind, a, b in parts(t)
        ]
    return rows


def stringtie_gtf(gene: Gene) -> list[Row]:
    rows: list[Row] = []
    for t in gene.transcripts:
        names = f'gene_id "{gene.name}"; transcript_id "{t.name}";'
        rows.append(("transcript", t.exons[0][0], t.exons[-1][1], f'{names} cov "1.0"; FPKM "2";'))
        rows += [("exon", a, b, f'{names} exon_number "{i}"; cov "1";') for i, (a, b) in enumerate(t.exons, 1)]
    return rows


def transcripts_alone_name_their_gene(gene: Gene) -> list[Row]:
    rows: list[Row] = []
    for t in gene.transcripts:
        rows.append(("transcript", t.exons[0][0], t.exons[-1][1], f'gene_id "{gene.name}"; transcript_id "{t.name}"'))
        rows += [("exon", a, b, f'transcript_id "{t.name}"') for a, b in t.exons]
    return rows


def bare_gtf(gene: Gene) -> list[Row]:
    return [
        ("Exon", a, b, f"gene_id {gene.name}; transcript_id {t.name}")
        for t in gene.transcripts
        for a, b in reversed(t.exons)
    ]


def spreadsheet_gtf(gene: Gene) -> list[Row]:
    return [
        ("exon", a, b, f'"gene_id ""{gene.name}""; transcript_id ""{t.name}"";"')
        for t in gene.transcripts
        for a, b in t.exons
    ]


def rtracklayer_gtf(gene: Gene) -> list[Row]:
    rows: list[Row] = [("gene", *gene.span, f'gene_id "{gene.name}"; ID "1{gene.name}";')]
    for t in gene.transcripts:
        names = f'gene_id "{gene.name}"; transcript_id "{t.name}"; ID "2{t.name}"'
        rows.append(("transcript", t.exons[0][0], t.exons[-1][1], names))
        rows += [("exon", a, b, f"{names}{i};") for i, (a, b) in enumerate(t.exons)]
    return rows


def agat_gtf(gene: Gene) -> list[Row]:
    rows: list[Row] = [("gene", *gene.span, f'gene_id "gene-{gene.name}"; ID "gene-{gene.name}"; gbkey "Gene";')]
    for t in gene.transcripts:
        names = f'gene_id "gene-{gene.name}"; transcript_id "{t.name}";'
        mrna = f'{names} ID "rna-{t.name}"; Parent "gene-{gene.name}";'
        rows.append(("mRNA", t.exons[0][0], t.exons[-1][1], mrna))
        rows += [("exon", a, b, f'{names} ID "exon-{i}"; Parent "rna-{t.name}";') for i, (a, b) in enumerate(t.exons)]
    return rows


def ensembl_gff3(gene: Gene) -> list[Row]:
    rows: list[Row] = [("gene", *gene.span, f"ID=gene:{gene.name};Name=n;biotype=protein_coding;gene_id={gene.name}")]
    for t in gene.transcripts:
        rows.append(("mRNA", t.exons[0][0], t.exons[-1][1], f"ID=transcript:{t.name};Parent=gene:{gene.name}"))
        rows += [
            ("exon", a, b, f"Parent=transcript:{t.name};Name=E{i};rank={i}") for i, (a, b) in enumerate(t.exons, 1)
        ]
        rows += [(kind, a, b, f"ID=CDS:P;Parent=transcript:{t.name}") for kind, a, b in parts(t) if t.cds]
    return rows


def refseq_gff3(gene: Gene) -> list[Row]:
    about = f"Dbxref=GeneID:1;gene={gene.name}"
    rows: list[Row] = [("gene", *gene.span, f"ID=gene-{gene.name};{about};Name={gene.name};description=a%3Bb")]
    for t in gene.transcripts:
        mrna = f'ID=rna-{t.name};Parent=gene-{gene.name};{about};gbkey=mRNA;product=a "x; Parent=y" z'
        rows.append(("mRNA", t.exons[0][0], t.exons[-1][1], mrna.replace("; Parent=y", "%3B")))
        exons = t.exons if gene.strand == "+" else t.exons[::-1]
        rows += [
            ("exon", a, b, f"ID=exon-{t.name}-{i};Parent=rna-{t.name};{about}") for i, (a, b) in enumerate(exons, 1)
        ]
        rows += [("CDS", a, b, f"ID=cds-{t.name};Parent=rna-{t.name};{about}") for k, a, b in parts(t) if k == "CDS"]
    return rows


def tair_gff3(gene: Gene) -> list[Row]:
    """An exon of several transcripts stands once, with several Parents; a CDS has a protein for another Parent."""
    rows: list[Row] = [("gene", *gene.span, f"ID={gene.name};Note=protein_coding_gene;Name={gene.name}")]
    by_exon: dict[tuple[int, int], list[str]] = {}
    for t in gene.transcripts:
        rows.append(("mRNA", t.exons[0][0], t.exons[-1][1], f"ID={t.name};Parent={gene.name};Index=1"))
        rows.append(("protein", t.exons[0][0], t.exons[-1][1], f"ID={t.name}-Protein;Derives_from={t.name}"))
        rows += [("CDS", a, b, f"Parent={t.name},{t.name}-Protein;") for kind, a, b in parts(t) if kind == "CDS"]
        for exon in t.exons:
            by_exon.setdefault(exon, []).append(t.name)
    return rows + [("exon", a, b, f"Parent={','.join(names)}; ") for (a, b), names in by_exon.items()]


def gffread_gff3(gene: Gene) -> list[Row]:
    rows: list[Row] = []
    for t in gene.transcripts:
        rows.append(("transcript", t.exons[0][0], t.exons[-1][1], f"ID={t.name};geneID={gene.name}"))
        rows += [("exon", a, b, f"Parent={t.name}") for a, b in t.exons]
    return rows


def maker_gff3(gene: Gene) -> list[Row]:
    """With alignments between, whose ids repeat, and quoted notes with semicolons."""
    low, high = gene.span
    rows: list[Row] = [("contig", 1, high + 9, f"ID={gene.chrom};Name={gene.chrom}")]
    rows += [("match", low, high, "ID=m1;Name=x"), ("match_part", low, low + 3, "ID=m1:p;Parent=m1")]
    rows += [("match", low + 1, high, "ID=m1;Name=x")]
    rows.append(("gene", low, high, f'ID={gene.name};Note="like; ID=other;Parent=nobody"'))
    for t in gene.transcripts:
        rows.append(("mRNA", t.exons[0][0], t.exons[-1][1], f"ID={t.name};Parent={gene.name};_AED=0.1"))
        rows += [("exon", a, b, f"ID={t.name}:{i};Parent={t.name}") for i, (a, b) in enumerate(t.exons)]
    return rows


def pieces_gff3(gene: Gene) -> list[Row]:
    """Older Phytozome: no exon lines, an exon is its CDS and UTRs."""
    rows: list[Row] = [("gene", *gene.span, f"ID={gene.name}")]
    for t in gene.transcripts:
        rows.append(("mRNA", t.exons[0][0], t.exons[-1][1], f"ID={t.name};Parent={gene.name}"))
        kinds = parts(t) if t.cds else [("CDS", a, b) for a, b in t.exons]
        rows += [(kind, a, b, f"Parent={t.name}") for kind, a, b in kinds]
    return rows


def augustus_gtf(gene: Gene) -> list[Row]:
    """AUGUSTUS without UTRs: no exon lines, the stop codon outside of the CDS."""
    rows: list[Row] = [("gene", *gene.span, gene.name)]
    for t in gene.transcripts:
        names = f'transcript_id "{t.name}"; gene_id "{gene.name}";'
        (low, first_end), (last_start, high) = t.exons[0], t.exons[-1]
        rows.append(("transcript", low, high, t.name))
        if gene.strand == "+":
            places = [*t.exons[:-1], (last_start, high - 3)]
            rows.append(("stop_codon", high - 2, high, names))
        else:
            places = [(low + 3, first_end), *t.exons[1:]] if len(t.exons) > 1 else [(low + 3, high)]
            rows.append(("stop_codon", low, low + 2, names))
        rows += [("CDS", a, b, names) for a, b in places]
    return rows


def genbank_gff3(gene: Gene) -> list[Row]:
    """GenBank records: the CDS has the gene for Parent, and one ID in all its lines."""
    rows: list[Row] = [("gene", *gene.span, f"ID=gene-{gene.name};gbkey=Gene")]
    for t in gene.transcripts:
        rows += [("CDS", a, b, f"ID=cds-{t.name};Parent=gene-{gene.name};gbkey=CDS") for a, b in t.exons]
    return rows


DIALECTS = (
    *(ensembl_gtf, braker_gtf, flybase_gtf, stringtie_gtf, transcripts_alone_name_their_gene, bare_gtf),
    *(spreadsheet_gtf, rtracklayer_gtf, agat_gtf, ensembl_gff3, refseq_gff3, tair_gff3, gffread_gff3, maker_gff3),
    *(pieces_gff3, augustus_gtf, genbank_gff3),
)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.__name__)
@settings(max_examples=40, deadline=None)
@given(world=worlds(), style=st.sampled_from(["plain", "chr", "CRLF", "shuffled"]), random=st.randoms())
def test_one_truth_in_all_dialects(dialect: Callable[[Gene], list[Row]], world: list[Gene], style: str, random) -> None:
    text = lines(world, dialect, "chr" if style == "chr" else "")
    if style == "shuffled":
        rows = text.splitlines(keepends=True)
        random.shuffle(rows)
        text = "".join(rows)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.gff"
        path.write_bytes(text.replace("\n", "\r\n" if style == "CRLF" else "\n").encode())
        found = read_annotation(path)
    expected = truth(world)
    assert {gene.gene.gene_id: set(gene.introns()) for gene in found.genes} == expected
    assert {gene.gene.gene_id: gene.gene.strand for gene in found.genes} == {gene.name: gene.strand for gene in world}
    for gene in found.genes:  # labels are those introns, in transcript sense
        donors, acceptors = set(), set()
        for start, end in expected[gene.gene.gene_id]:
            low, high = gene.gene.index(start - 1), gene.gene.index(end)
            donors.add(low if gene.gene.strand == "+" else high)
            acceptors.add(high if gene.gene.strand == "+" else low)
        labels = gene.labels()
        assert {int(i) for i in (labels == 0).nonzero()[0]} == donors
        assert {int(i) for i in (labels == 1).nonzero()[0]} == acceptors - donors
