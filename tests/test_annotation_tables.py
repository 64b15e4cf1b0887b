"""Genes from the tables of SpliceAI, OpenSpliceAI and CI-SpliceAI, and from such a table of an installed tool."""

from __future__ import annotations

import gzip
import logging
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metalayer import cli
from metalayer.base.annotation import Annotation, read_annotation
from metalayer.base.installed_tables import annotation_file
from metalayer.base.introns import AnnotatedGene
from metalayer.errors import InputError
from metalayer.schema import CLASSES, NEITHER

SPLICEAI = "#NAME\tCHROM\tSTRAND\tTX_START\tTX_END\tEXON_START\tEXON_END\n"
CISPLICEAI = "gene_id,chr,strand,start,end,jn_start,jn_end\n"
SITES = {"+": {109: 0, 150: 1}, "-": {150: 0, 109: 1}}
"""By strand, 0-based on the chromosome: the bases beside an intron of [110, 150)."""


def read(folder: Path, text: str, name: str = "table") -> Annotation:
    (folder / name).write_text(text)
    return read_annotation(folder / name)


def sites(gene: AnnotatedGene) -> dict[int, int]:
    """0-based position on the chromosome to class."""
    labels = gene.labels()
    return {int(gene.gene.genomic(i)): int(labels[i]) for i in np.flatnonzero(labels != NEITHER)}


def gff3(strand: str) -> str:
    lines = [("gene", 101, 200, "ID=gene-A"), ("mRNA", 101, 200, "ID=t;Parent=gene-A")]
    lines += [("exon", start, end, "Parent=t") for start, end in ((101, 110), (151, 200))]
    return "".join(f"chr1\tx\t{kind}\t{start}\t{end}\t.\t{strand}\t.\t{named}\n" for kind, start, end, named in lines)


@pytest.mark.parametrize("strand", ["+", "-"])
def test_one_gene_in_three_forms(tmp_path: Path, strand: str) -> None:
    """Starts are 0-based in one table, junctions 1-based bases of exons in the other: one place, the same sites."""
    forms = {
        "a.gff3": gff3(strand),
        "a.txt": f"{SPLICEAI}A\t1\t{strand}\t100\t200\t100,150,\t110,200,\n",
        "a.csv": f'{CISPLICEAI}A,chr1,{strand},101,200,"110","151"\n',
    }
    for name, text in forms.items():
        (gene,) = read(tmp_path, text, name).genes
        assert (gene.gene.gene_id, gene.gene.strand, gene.gene.interval.chrom) == ("A", strand, "1"), name
        assert (gene.gene.interval.start, gene.gene.interval.end) == (100, 200), name
        assert sites(gene) == SITES[strand], name


def test_junctions_that_are_not_pairs(tmp_path: Path) -> None:
    """Two starts before one end, an end of its own, and exons that touch: as in CI-SpliceAI's own table."""
    row = 'A,chr1,+,101,400,"110,120,200,300","151,201,361"\n'
    (gene,) = (found := read(tmp_path, CISPLICEAI + row)).genes
    assert sites(gene) == {109: 0, 119: 0, 199: 0, 299: 0, 150: 1, 200: 1, 360: 1}
    assert found.handled == {}
    assert not gene.exons
    (touching,) = (found := read(tmp_path, CISPLICEAI + 'A,chr1,-,101,400,"110,120","111,300"\n')).genes
    assert sites(touching) == {109: 1, 119: 1, 299: 0}
    assert found.handled == {"gaps_too_short_for_an_intron": 1}


def test_lines_of_one_name_are_transcripts(tmp_path: Path) -> None:
    rows = "A\t1\t+\t100\t200\t100,150\t110,200\nA\t1\t+\t90\t200\t90,160\t110,200\nB\t1\t+\t0\t9\t0,\t9,\n"
    apart = "C\t1\t+\t300\t400\t300,\t400,\nC\t1\t+\t900\t950\t900,\t950,\n"
    found = read(tmp_path, SPLICEAI + rows + apart)
    assert [gene.gene.gene_id for gene in found.genes] == ["B", "A"]
    assert (found.genes[1].gene.interval.start, found.genes[1].gene.interval.end) == (90, 200)
    assert found.genes[1].introns() == [(110, 150), (110, 160)]
    assert found.handled == {"genes_in_two_places": 1}


def test_packed_columns_in_another_order_and_further_ones(tmp_path: Path) -> None:
    text = f"NOTE,{CISPLICEAI}".replace("chr,strand", "strand,chr") + 'x,A,-,chrM,101,200,"110","151"\n'
    (tmp_path / "a").write_bytes(gzip.compress(text.encode()))
    (gene,) = read_annotation(tmp_path / "a").genes
    assert (gene.gene.interval.chrom, sites(gene)) == ("M", {})  # no spliceosome there


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SPLICEAI.replace("\tTX_END", ""), "no column TX_END; a gene table of SpliceAI has #NAME, CHROM"),
        (CISPLICEAI.replace(",jn_end", ""), "no column jn_end; a gene table of CI-SpliceAI has gene_id, chr"),
        (SPLICEAI, "a header and no gene"),
        (f"{SPLICEAI}A\t1\t+\t100\n", "line 2: 4 fields; the header has 7"),
        (f"{SPLICEAI}A\t1\t.\t100\t200\t100,\t200,\n", r"line 2, gene A: strand '.'; allowed are \+ and -"),
        (f"{SPLICEAI}A\t1\t+\t200\t200\t100,\t200,\n", "TX_START 200 and TX_END 200 are no place; start is 0-based"),
        (f"{CISPLICEAI}A,1,+,0,200,150,180\n", "start 0 and end 200 are no place; start is 1-based"),
        (f"{SPLICEAI}A\t1\t+\t1e2\t200\t100,\t200,\n", "TX_START has '1e2'; needs whole numbers"),
        (f"{SPLICEAI}A\t1\t+\t1,2\t200\t100,\t200,\n", "TX_START '1,2'; needs a whole number"),
        (f"{SPLICEAI}A\t1\t+\t100\t200\t100,150\t200,\n", "EXON_START has 2 numbers and EXON_END 1"),
        (f"{SPLICEAI}A\t1\t+\t100\t200\t\t\n", "EXON_START has 0 numbers and EXON_END 0"),
        (f"{SPLICEAI}A\t1\t+\t100\t200\t100,150\t150,150\n", "an exon from EXON_START 150 to EXON_END 150"),
        (f"{SPLICEAI}A\t1\t+\t100\t200\t99,\t200,\n", "from EXON_START 99 to EXON_END 200 lies outside TX_START 100"),
        (f"{CISPLICEAI}A,1,+,101,200,100,151\n", "jn_start 100 lies outside start 101 and end 200"),
        (f"{CISPLICEAI}A,1,+,101,200,110,\n", "no jn_end after jn_start 110"),
        (f'{CISPLICEAI}A,1,+,101,200,"180","151"\n', "no jn_end after jn_start 180"),
        (f'{CISPLICEAI}A,1,+,101,200,"110","105,151"\n', "no jn_start before jn_end 105"),
        (f'{CISPLICEAI}A,1,+,101,200,"110,"151"\n', "line 2: "),
    ],
)
def test_tables_that_cannot_be_right(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_letters_that_are_no_utf8(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(f"{SPLICEAI}\xe9\t1\t+\t1\t9\t1,\t9,\n".encode("latin-1"))
    with pytest.raises(InputError, match="not in UTF-8 after line"):
        read_annotation(tmp_path / "a")


def test_other_commas_are_still_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"comma separated text \(CSV\); needed is GTF or GFF3, or a gene table"):
        read(tmp_path, "a,b,c,d,e\n1,2,3,4,5\n")


def test_real_table_of_spliceai(shared: Path) -> None:
    """The same places and sites as GFF3 has, on both strands."""
    there = {one.gene.gene_id: one for one in read_annotation(shared / "golden/peers/annotation.txt").genes}
    known = read_annotation(shared / "real/genome/hg19_slices.gff3").genes
    assert {one.gene.strand for one in known} == {"+", "-"}
    for one in known:
        assert there[one.gene.gene_id].gene.interval == one.gene.interval
        assert sites(there[one.gene.gene_id]) == sites(one)


def test_real_junctions_of_cispliceai(shared: Path, tmp_path: Path) -> None:
    """Junctions of all isoforms, written as that table has them, come back; the principal ones of GFF3 among them."""
    table = pl.read_parquet(shared / "real/isoforms.parquet")
    genes = {one.gene.gene_id: one for one in read_annotation(shared / "real/genome/hg19_slices.gff3").genes}
    text, wanted = CISPLICEAI, {}
    for (gene_id,), part in table.partition_by("gene_id", as_dict=True).items():
        name = str(gene_id).removeprefix("gene-")
        if name not in genes:
            continue
        gene = genes[name].gene
        before = "donor" if gene.strand == "+" else "acceptor"
        position = {
            is_before: part.filter((pl.col("site") == before) == is_before)["position"].unique().sort().to_list()
            for is_before in (True, False)
        }
        # Cut at the bounds of the gene, the list may have a start without an end, or an end without a start.
        position[True] = [one for one in position[True] if one < position[False][-1]]
        position[False] = [one for one in position[False] if one > position[True][0]]
        lists = ",".join('"' + ",".join(map(str, position[one])) + '"' for one in (True, False))
        text += f"{name},chr{gene.interval.chrom},{gene.strand},{gene.interval.start + 1},{gene.interval.end},{lists}\n"
        kept = {*position[True], *position[False]}
        rows = part.filter(pl.col("position").is_in(list(kept))).select("position", "site").iter_rows()
        wanted[name] = {(place - 1, CLASSES.index(site)) for place, site in rows}
    found = {one.gene.gene_id: set(sites(one).items()) for one in read(tmp_path, text).genes}
    assert len(wanted) > 20
    assert found == wanted
    shares = [len(set(sites(genes[name]).items()) & found[name]) for name in found]
    assert sum(shares) > 0.9 * sum(len(sites(genes[name])) for name in found)


def installed(folder: Path, tool: str, file: str, text: str, licence: str = "CC BY 4.0") -> None:
    """A distribution with a table, as an installer leaves it; its module cannot be imported."""
    (folder / tool / "data").mkdir(parents=True)
    (folder / tool / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / tool / "data" / file).write_text(text)
    info = folder / f"{tool}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {tool}\nVersion: 1.2\nLicense: {licence}\n")
    (info / "RECORD").write_text(f"{tool}/__init__.py,,\n{tool}/data/{file},,\n{tool}-1.2.dist-info/METADATA,,\n")


def test_a_table_of_an_installed_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match="no gene table of grch38: none of spliceai, openspliceai, cispliceai is insta"
    ):
        annotation_file(Path("grch38"))
    site = tmp_path / "site"
    installed(site, "cispliceai", "grch38.csv", CISPLICEAI)
    monkeypatch.syspath_prepend(site)
    caplog.set_level(logging.INFO)
    for name in ("grch38", "GRCh38", "hg38", "cispliceai:grch38", str(tmp_path / "grch38")):
        assert annotation_file(Path(name)) == site / "cispliceai/data/grch38.csv"
    assert "grch38.csv of cispliceai 1.2 (licence: CC BY 4.0)" in caplog.text
    with pytest.raises(InputError, match="no gene table of grch37"):
        annotation_file(Path("grch37"))
    installed(site, "spliceai", "grch38.txt", SPLICEAI, "GPLv3")
    assert annotation_file(Path("grch38")) == site / "spliceai/data/grch38.txt"
    assert annotation_file(Path("cispliceai:grch38")) == site / "cispliceai/data/grch38.csv"
    with pytest.raises(InputError, match="no gene table of grch38: openspliceai"):
        annotation_file(Path("openspliceai:grch38"))
    (tmp_path / "grch38").write_text(SPLICEAI)
    assert annotation_file(Path("grch38")) == Path("grch38")
    assert annotation_file(Path("other/grch38")) == Path("other/grch38")


def test_a_base_pass_over_a_table(shared: Path, tmp_path: Path) -> None:
    """The whole way: labels of a pass over SpliceAI's table are those of one over GFF3."""
    genome = shared / "real/genome"
    text = (shared / "golden/peers/annotation.txt").read_text().splitlines(keepends=True)
    (tmp_path / "few.txt").write_text(
        "".join([text[0], *(line for line in text if line.startswith(("CCK\t", "VIPR1\t")))])
    )
    arguments = ["base", "run", "--model", "pwm", "--fasta", str(genome / "hg19_slices.fa.gz")]
    arguments += ["--annotation", str(tmp_path / "few.txt"), "--output", str(tmp_path / "own")]
    assert cli.main(arguments) == 0
    wanted = {one.gene.gene_id: sites(one) for one in read_annotation(genome / "hg19_slices.gff3").genes}
    rows = pl.read_parquet(tmp_path / "own/nucleotide_scores/pwm_chr3.parquet")
    rows = rows.with_columns(pl.col("gene_id", "label").cast(pl.String)).filter(pl.col("label") != "neither")
    found: dict[str, dict[int, int]] = {}
    for gene_id, position, label in rows.select("gene_id", "position", "label").iter_rows():
        found.setdefault(gene_id.removeprefix("gene-"), {})[position - 1] = CLASSES.index(label)
    assert found == {name: wanted[name] for name in ("CCK", "VIPR1")}
