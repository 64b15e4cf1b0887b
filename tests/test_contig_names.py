"""Names of contigs, builds and genes as people's files have them: mapped where they are of one, else named."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metalayer import cli
from metalayer.base.annotation import read_annotation
from metalayer.base.artifacts import artifact_directory
from metalayer.base.fasta import Reference
from metalayer.contigs import ALTERNATIVE, CHROMOSOME, SCAFFOLD, Contigs
from metalayer.core import ArtifactLoader
from metalayer.data.discovery import find_files
from metalayer.data.gene_names import GeneNames
from metalayer.data.gene_table import read_gene_table
from metalayer.data.nucleotide_scores import contigs_in
from metalayer.data.same_genes import KnownGene
from metalayer.data.scored import ScoredGenome, ScoredGenomeWriter
from metalayer.data.splits import make_split
from metalayer.errors import ArtifactError, EvaluationError, InputError, SplitError
from metalayer.evaluation.sample import Sample
from metalayer.genome import Gene, Interval, builds_once, normalise_build, normalise_gene_id, same_build, unversioned
from metalayer.integrity import unsealed
from metalayer.settings.sections import BaseConfig, DataConfig, ScoreConfig, SplitConfig
from metalayer.workflows.base_run import base_run, fingerprint, is_written
from metalayer.workflows.score_genome import plan_shards
from metalayer.workflows.train_genes import refuse_crossing
from tests.releases import make_bundle
from tests.scored_genes import make_genes
from tests.test_annotation_forms import LENGTH, genome, many, write

REPORT_HEADER = (
    "# Sequence-Name\tSequence-Role\tAssigned-Molecule\tAssigned-Molecule-Location/Type\tGenBank-Accn\tRelationship\t"
    "RefSeq-Accn\tAssembly-Unit\tSequence-Length\tUCSC-style-name"
)
MHC = "HSCHR6_MHC_APD_CTG1"
CONTIGS = [
    ("1", "assembled-molecule", "1", "Chromosome", "CM000663.2", "=", "NC_000001.11", "Primary Assembly", 6000, "chr1"),
    ("6", "assembled-molecule", "6", "Chromosome", "CM000668.2", "=", "NC_000006.12", "Primary Assembly", 6000, "chr6"),
    ("X", "assembled-molecule", "X", "Chromosome", "CM000685.2", "=", "NC_000023.11", "Primary", 6000, "chrX"),
    ("KI1_RANDOM", "unlocalized-scaffold", "1", "Chromosome", "KI270706.1", "=", "NT_187361.1", "Primary", 9000, "na"),
    (MHC, "alt-scaffold", "6", "Chromosome", "GL000250.2", "=", "NT_167244.2", "ALT_1", 9500, "chr6_GL000250v2_alt"),
    ("MT", "assembled-molecule", "MT", "Mitochondrion", "J01415.2", "=", "NC_012920.1", "non-nuclear", 6000, "chrM"),
]


def report(folder: Path, contigs: list[tuple[object, ...]] = CONTIGS, name: str = "assembly_report.txt") -> Path:
    """NCBI's, with its line ends."""
    lines = ["# Assembly name:  GRCh38.p14", "# Taxid:          9606", "#", "## Assembly-Units:", "##", "#"]
    lines += [REPORT_HEADER, *("\t".join(map(str, contig)) for contig in contigs)]
    (folder / name).write_bytes("\r\n".join([*lines, ""]).encode())
    return folder / name


def table(folder: Path, text: str | bytes, name: str = "aliases.txt") -> Contigs:
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return Contigs.of(folder / name)


def test_rules_without_a_table() -> None:
    contigs = Contigs.of(None)
    assert [contigs.key(name) for name in ("chr1", "1", "NC_000001.11", "chrM")] == ["1", "1", "NC_000001.11", "M"]
    assert (contigs.twin("M"), contigs.twin("MT"), contigs.twin("1")) == ("MT", "M", None)
    assert contigs.lengths() == {}


def test_an_assembly_report_as_it_comes(tmp_path: Path) -> None:
    contigs = Contigs.of(report(tmp_path))
    for name in ("1", "chr1", "CM000663.2", "NC_000001.11", "gi|568815597|ref|NC_000001.11|"):
        assert contigs.key(name) == "1"
    assert {contigs.key(name) for name in ("M", "MT", "chrM", "chrMT", "NC_012920.1", "J01415.2")} == {"MT"}
    alternative = {contigs.key(name) for name in (MHC, f"CHR_{MHC}", "chr6_GL000250v2_alt", "NT_167244.2")}
    assert alternative == {"6_GL000250v2_alt"}
    assert contigs.key("NT_187361.1") == "KI1_RANDOM"
    assert contigs.key("chrEBV") == "EBV"  # not in it
    assert contigs.lengths()["6_GL000250v2_alt"] == 9500
    kinds = [contigs.kind(contigs.key(name)) for name in ("NC_000006.12", "NT_187361.1", "NT_167244.2")]
    assert kinds == [CHROMOSOME, SCAFFOLD, ALTERNATIVE]


@pytest.mark.parametrize(
    "text",
    [
        "# ucsc\tassembly\tensembl\tgenbank\trefseq\nchr1\t1\t1\tCM000663.2\tNC_000001.11\nchrUn_1\t\t\tKI1.1\t\n",
        "# sequenceName\talias names\tUCSC database: hg38\nchr1\t1\tCM000663.2\tNC_000001.11\nchrUn_1\tKI1.1\n",
        "1\tchr1\tassembly,ensembl\nCM000663.2\tchr1\tgenbank\nNC_000001.11\tchr1\trefseq\nKI1.1\tchrUn_1\tgenbank\n",
        "#alias\tchrom\tsource\nCM000663.2\tchr1\tgenbank\nNC_000001.11\tchr1\trefseq\nKI1.1\tchrUn_1\tgenbank\n",
        "NC_000001.11\tCM000663.2\tchr1\r\nchrUn_1\tKI1.1\r\n",
        "NC_000001.11 chr1 CM000663.2\nchrUn_1   KI1.1\n",
        "name\tlength\tRefSeq\nchr1\t6000\tNC_000001.11\nchr1_x\t\tCM_x\n",
    ],
    ids=["chromAlias", "chromAlias, older", "database", "database, header", "names", "blanks", "with lengths"],
)
def test_other_tables(tmp_path: Path, text: str) -> None:
    for content in (text, gzip.compress(text.encode()), b"\xef\xbb\xbf" + text.encode()):
        contigs = table(tmp_path, content)
        assert contigs.key("NC_000001.11") == contigs.key("chr1") == "1"
        if "Un_1" in text:
            assert contigs.key("KI1.1") == contigs.key("chrUn_1")
            assert contigs.key("CM000663.2") == "1"
            assert contigs.lengths() == {}
        else:
            assert contigs.lengths() == {"1": 6000}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chr1\tNC_1\nchr2\tNC_1\n", "NC_1 stands for two contigs, in lines 1 and 2"),
        ("chr1\tNC_1\n1\tNC_2\n", "1 stands for two contigs"),
        ("# only\n", "no line with names; it is NCBI's assembly report"),
        ("chr1\nchr2\n", "one name a contig, so nothing is mapped"),
        ("name\tlength\tother\nchr1\tlong\tNC_1\n", "line 2: given length 'long'"),
        ("chr1\t6000\t6\t60\t61\nchr2\t6000\t6200\t60\t61\n", "lengths beside names, as in a .fai or chrom.sizes"),
        ("chr1\t248956422\nchr2\t242193529\n", "lengths beside names, as in a .fai or chrom.sizes"),
        (b"\xff\xfe1\x00", "this is text in UTF-16"),
        (b"\x1f\x8bxx", "damaged"),
    ],
)
def test_tables_that_cannot_be_used(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        table(tmp_path, text)


def test_no_table_and_a_report_that_is_cut(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Contigs.of(tmp_path / "none.txt")
    path = report(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="fewer fields than the header"):
        Contigs.of(path)


def test_m_and_mt_that_are_two(tmp_path: Path) -> None:
    """UCSC's hg19 has the older mitochondrial genome as chrM and that of GRCh37 as chrMT."""
    contigs = table(tmp_path, "chrM\tNC_001807.4\nchrMT\tMT\tNC_012920.1\n")
    assert (contigs.key("chrM"), contigs.key("MT")) == ("M", "MT")
    assert contigs.twin("M") is None
    (tmp_path / "a.fa").write_text(">chrM\nAC\n>chrMT\nGT\n")
    found = dict(Reference(tmp_path / "a.fa", contigs).chromosomes(["MT"]))
    assert {chrom: len(tokens) for chrom, tokens in found.items()} == {"MT": 2}
    assert found["MT"].tolist() == [2, 3]
    for lines in (">chrM\nAC\n>chrMT\nGR\n", ">chrMT\nGR\n>chrM\nAC\n>chr2\nA\n", ">chrMT\nGR\n"):
        (tmp_path / "a.fa").write_text(lines)
        reference = Reference(tmp_path / "a.fa")
        assert dict(reference.chromosomes(["MT", "3"]))["MT"].tolist() == [2, 4]  # also without a table: the very name
        assert (reference.names["MT"], reference.ambiguous) == ("chrMT", {"MT": 1})
    assert dict(reference.chromosomes(["M", "3"]))["M"].tolist() == [2, 4]
    (tmp_path / "a.fa").write_text(">chrM\nAC\n>chr2\nA\n>M\nG\n")
    with pytest.raises(InputError, match="chromosome M stands there twice, as chrM and as M"):
        list(Reference(tmp_path / "a.fa").chromosomes(["M", "3"]))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("chr1", CHROMOSOME),
        ("2L", CHROMOSOME),
        ("chrIV", CHROMOSOME),
        ("NC_000001.11", CHROMOSOME),
        ("CM000663.2", CHROMOSOME),
        ("chr6_GL000250v2_alt", ALTERNATIVE),
        ("chr1_KV880763v1_fix", ALTERNATIVE),
        ("chr6_apd_hap1", ALTERNATIVE),
        (MHC, ALTERNATIVE),
        (f"CHR_{MHC}", ALTERNATIVE),
        ("HG2072_PATCH", ALTERNATIVE),
        ("CHR_HG2072_PATCH", ALTERNATIVE),
        ("HSCHR1_CTG1_UNLOCALIZED", SCAFFOLD),
        ("NT_167244.2", SCAFFOLD),
        ("NW_009646201.1", SCAFFOLD),
        ("chrUn_KI270302v1", SCAFFOLD),
        ("chr1_KI270706v1_random", SCAFFOLD),
    ],
)
def test_kinds_by_name(name: str, kind: int) -> None:
    contigs = Contigs.of(None)
    assert contigs.kind(contigs.key(name)) == kind


def on_contigs(folder: Path, *chroms: str, ends: Mapping[str, int] | None = None) -> dict[str, str]:
    """Chromosome of each gene's contig by the id that `read_annotation` gives it, for one gene on several contigs."""
    lines = [line.replace(f"{chrom}g0", "G") for chrom in chroms for line in many([chrom], 1)]
    far = [f'{c} exon {end - 10} {end} + gene_id "far{c}"; transcript_id "t";' for c, end in (ends or {}).items()]
    return read(write(folder, [*lines, *far]), None)


def read(path: Path, aliases: Path | None) -> dict[str, str]:
    found = read_annotation(path, contigs=Contigs.of(aliases)).genes
    return {one.gene.gene_id: one.gene.interval.chrom for one in found if not one.gene.gene_id.startswith("far")}


def test_the_chromosome_keeps_a_genes_id(tmp_path: Path) -> None:
    """Before scaffolds, and those before alternative loci and patches; among equals the longer one."""
    assert on_contigs(tmp_path, "NT_167244.2", "NC_000006.12")["G"] == "NC_000006.12"
    assert on_contigs(tmp_path, "chr6_GL000250v2_alt", "chr6")["G"] == "6"
    found = on_contigs(tmp_path, f"CHR_{MHC}", "chrUn_KI270302v1")
    assert found["G"] == "Un_KI270302v1"
    found = on_contigs(tmp_path, "scaffold_1", "scaffold_2", ends={"scaffold_2": 9000})
    assert found == {"G": "scaffold_2", "G_scaffold_1": "scaffold_1"}
    found = on_contigs(tmp_path, "Y", "X")
    assert found == {"G": "X", "G_Y": "Y"}


def test_the_report_says_which_contig_is_the_chromosome(tmp_path: Path) -> None:
    """By name alone NT_167244.2 is as good as NT_187361.1, and longer."""
    path = write(
        tmp_path, [line.replace(f"{c}g0", "G") for c in ("NT_167244.2", "NT_187361.1") for line in many([c], 1)]
    )
    assert read(path, None)["G"] == "NT_167244.2"
    assert read(path, report(tmp_path)) == {"G": "KI1_RANDOM", "G_6_GL000250v2_alt": "6_GL000250v2_alt"}


def pair(folder: Path, fasta: Mapping[str, str], annotation: Mapping[str, str], genes: int = 8) -> list[str]:
    """A FASTA and a GTF of chromosomes 1, 6, X and MT, by names of their own; options of the command line."""
    lines = many(list(fasta), genes)
    reference = genome(folder, read_annotation(write(folder, lines)))
    text = reference.path.read_text()
    for name, theirs in fasta.items():
        text = text.replace(f">{name}\n", f">{theirs} some words\n")
    reference.path.write_text(text)
    moved = [" ".join([annotation[line.split(maxsplit=1)[0]], line.split(maxsplit=1)[1]]) for line in lines]
    return ["--fasta", str(reference.path), "--annotation", str(write(folder, moved, "own.gtf"))]


REFSEQ = {"1": "NC_000001.11", "6": "NC_000006.12", "X": "NC_000023.11", "MT": "NC_012920.1"}
UCSC = {"1": "chr1", "6": "chr6", "X": "chrX", "MT": "chrM"}


def run(folder: Path, *options: str, model: str = "pwm") -> int:
    return cli.main(["base", "run", "--model", model, *options, "--output", str(folder / "out")])


@pytest.mark.parametrize(("fasta", "annotation"), [(UCSC, REFSEQ), (REFSEQ, UCSC), (REFSEQ, REFSEQ)])
def test_a_pass_with_an_assembly_report(
    tmp_path: Path, fasta: dict[str, str], annotation: dict[str, str], data_config: Callable[..., DataConfig]
) -> None:
    """Our names are those of chromosomes; the FASTA's stand in the manifest, the gene table and the score files."""
    options = pair(tmp_path, fasta, annotation)
    assert run(tmp_path, *options, "--aliases", str(report(tmp_path)), "--build", "GRCh38") == 0
    out = tmp_path / "out"
    manifest = unsealed((out / "base_layer_pwm.json").read_text())
    assert manifest["contigs"] == fasta
    assert manifest["aliases"]["name"] == "assembly_report.txt"
    genes = read_gene_table(out / "genes.tsv")
    assert dict(genes.select("chrom", "contig").unique().iter_rows()) == fasta
    for chrom, own in fasta.items():
        assert contigs_in(out / f"nucleotide_scores/pwm_chr{chrom}.parquet") == {chrom: own}
    loaded = ArtifactLoader(data_config(out)).load(tmp_path / "loaded", labelled=True)
    assert loaded["artifacts"]["rows_kept"] > 0
    names = {"test_chroms": (fasta["1"],), "valid_chroms": (fasta["6"],)}
    split = make_split(tmp_path / "loaded/rows.parquet", tmp_path / "loaded/genes.parquet", SplitConfig(**names))
    assert (split["test"]["chromosomes"], split["valid"]["chromosomes"]) == (["1"], ["6"])
    assert plan_shards(data_config(out), ScoreConfig(shards=1).shards).contigs == fasta


def test_names_that_do_not_meet_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, *pair(tmp_path, UCSC, REFSEQ)) == 2
    message = capsys.readouterr().err
    assert (
        "The FASTA has chr1, chr6, chrM, chrX; the annotation NC_000001.11, NC_000006.12, NC_000023.11, NC_012920.1"
        in message
    )
    assert "map them: --aliases (base.aliases) with NCBI's assembly report of the build" in message
    assert not (tmp_path / "out").exists()


def test_other_versions_of_accessions_are_another_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    older = {"1": "NC_000001.10", "6": "NC_000006.11", "X": "NC_000023.10", "MT": "NC_012920.1"}
    assert run(tmp_path, *pair(tmp_path, UCSC, older), "--aliases", str(report(tmp_path))) == 2
    message = capsys.readouterr().err
    assert "has NC_000001.11, another version of NC_000001.10: it is of another genome build" in message


def test_lengths_of_a_table_tell_builds_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longer = [contig if contig[0] != "6" else (*contig[:8], 6001, contig[9]) for contig in CONTIGS]
    assert run(tmp_path, *pair(tmp_path, UCSC, REFSEQ), "--aliases", str(report(tmp_path, longer))) == 2
    message = capsys.readouterr().err
    assert f"chromosome chr6 has {LENGTH} nt in" in message
    assert "but 6001 in" in message
    assert "assembly_report.txt: they are of different genome builds" in message


@pytest.mark.parametrize(("region", "code"), [("1 6000", 0), ("1 6001", 2), ("1 5999", 2), ("700 5500", 0)])
def test_lengths_of_the_annotation_tell_builds_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], region: str, code: int
) -> None:
    options = pair(tmp_path, UCSC, UCSC)
    path = Path(options[-1])
    path.write_text(f"##gff-version 3\n##sequence-region chr6 {region}\n" + path.read_text())
    assert run(tmp_path, *options) == code
    assert ("own.gtf (##sequence-region): they are of different genome builds" in capsys.readouterr().err) == bool(code)


def test_an_index_of_another_file_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = pair(tmp_path, UCSC, UCSC)
    Path(options[1] + ".fai").write_text("chr1\t6000\t6\t60\t61\nchr6\t77\t6\t60\t61\n")
    with caplog.at_level(logging.WARNING):
        assert run(tmp_path, *options) == 0
    assert [line for line in caplog.messages if "chr6 has 6000 nt" in line and "but 77 in the index" in line]
    assert not [line for line in caplog.messages if "chr1 has" in line]


def test_aliases_are_of_what_decides_a_pass(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Another table is another pass; a table of other names is warned of."""
    options = pair(tmp_path, UCSC, UCSC)
    files = {"model": "pwm", "fasta": Path(options[1]), "annotation": Path(options[3]), "output": tmp_path / "out"}
    plain = BaseConfig(**files, build="GRCh38")
    with_table = BaseConfig(**files, aliases=report(tmp_path))
    assert fingerprint(plain) != fingerprint(with_table)
    with pytest.raises(InputError, match=r"aliases .*none"):
        fingerprint(BaseConfig(**files, aliases=tmp_path / "none"))
    base_run(plain)
    for name in ("GRCh38", "hg38", "grch38.P14"):
        assert is_written(BaseConfig(**files, build=name), fingerprint(plain))
    assert not is_written(BaseConfig(**files, build="hg19"), fingerprint(plain))
    (tmp_path / "other.tsv").write_text("a\tb\n")
    base_run(BaseConfig(**files, aliases=tmp_path / "other.tsv"))
    assert any("has no name that" in line and "chr1, chr6, chrM, chrX" in line for line in caplog.messages)


HOSTILE = ["tig00000012/0_500", "ctg[1]", "scaffold*", "chr%2F", 'x"y', "c'1", "\u03b1", "na1", "chrchr", "CHR_A"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_come_back_through_aliases(
    tmp_path: Path, name: str, data_config: Callable[..., DataConfig]
) -> None:
    (tmp_path / "aliases.tsv").write_text(f"{name}\tNW_000001.1\n")
    options = pair(tmp_path, {"1": name, "6": "chr6"}, {"1": "NW_000001.1", "6": "6"}, genes=3)
    assert run(tmp_path, *options, "--aliases", str(tmp_path / "aliases.tsv")) == 0
    out = tmp_path / "out"
    manifest = unsealed((out / "base_layer_pwm.json").read_text())
    assert set(manifest["contigs"].values()) == {name, "chr6"}
    table = read_gene_table(out / "genes.tsv")
    assert dict(table.select("chrom", "contig").unique().iter_rows()) == manifest["contigs"]
    report = ArtifactLoader(data_config(out)).load(tmp_path / "loaded")
    assert report["artifacts"]["rows_kept"] > 0
    assert report["genes_placed_by_scores"] == 0


def test_regions_by_the_users_own_names(tmp_path: Path) -> None:
    genes = [Gene.from_table("g", "1", "+", 5, 8), Gene.from_table("m", "M", "+", 2, 3)]
    manifest = {"contigs": {"1": "NC_000001.11"}}
    with ScoredGenomeWriter(tmp_path / "a.parquet", manifest) as writer:
        for gene in genes:
            writer.add(gene, np.tile(np.float32([0.25, 0.25, 0.5]), (len(gene), 1)))
    scored = ScoredGenome(tmp_path / "a.parquet")
    for name in ("1", "chr1", "NC_000001.11"):
        assert len(scored.region(Interval(name, 5, 100))) == 3
    for name in ("M", "chrM", "MT", "chrMT"):
        assert len(scored.region(Interval(name, 0, 100))) == 2
    assert len(scored.region(Interval("NC_000002.12", 0, 100))) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("hg38", "GRCh38", True),
        ("HG19", "grch37", True),
        ("GRCh38.p14", "hg38", True),
        ("GRCh37.p13", "GRCh37", True),
        ("mm10", "GRCm38.p6", True),
        ("mm39", "GRCm39", True),
        ("T2T-CHM13v2.0", "hs1", True),
        ("chm13v2.0", "hs1", True),
        ("hg19", "hg38", False),
        ("GRCm38", "GRCh38", False),
        ("T2T-CHM13v1.1", "hs1", False),
        ("Own_1", "own_1", True),
        (None, None, True),
        (None, "hg38", False),
    ],
)
def test_builds_of_two_names(one: str | None, other: str | None, same: bool) -> None:
    assert same_build(one, other) is same_build(other, one) is same


def test_builds_are_shown_as_they_were_given() -> None:
    assert builds_once(["hg38", None, "GRCh37", "GRCh38.p14", None, "hg19"]) == ["hg38", None, "GRCh37"]
    assert normalise_build("hg38") == "GRCh38"


def test_a_data_root_by_the_other_name_of_its_build(
    base_layer: Path, tmp_path: Path, data_config: Callable[..., DataConfig]
) -> None:
    folder = base_layer / "data" / "simulated" / "GRCh38"
    folder.rename(folder.with_name("hg38"))
    for name in (None, "GRCh38", "hg38", "grch38.p14"):
        assert find_files(data_config(base_layer, genome_build=name)).genome_build == "hg38"
    with pytest.raises(ArtifactError, match="no artifacts of 'pwm' under GRCh37"):
        find_files(data_config(base_layer, genome_build="GRCh37"))
    assert "hg38" in artifact_directory(base_layer, "pwm", "simulated", "GRCh38").parts
    assert "GRCh37" in artifact_directory(base_layer, "pwm", "simulated", "GRCh37").parts
    folder.mkdir()
    assert "GRCh38" in artifact_directory(base_layer, "pwm", "simulated", "GRCh38").parts


def renamed(path: Path, change: Callable[[str], str], column: str = "gene_id") -> None:
    """A gene table with other ids."""
    frame = pl.read_csv(path, separator="\t", infer_schema=False)
    frame.with_columns(pl.Series(column, list(map(change, frame[column])))).write_csv(path, separator="\t")


def accession(gene_id: str) -> str:
    """ENSG and a number, for a gene of the simulation."""
    digits = "".join(c for c in gene_id if c.isdigit())
    return f"ENSG{int(digits):011d}"


def with_accessions(base_layer: Path, version: str) -> Path:
    """The simulation's rows and scores with ids as Ensembl's, and a version."""
    for path in base_layer.glob("nucleotide_scores/*.parquet"):
        frame = pl.read_parquet(path)
        ids = [accession(gene_id) + version for gene_id in frame["gene_id"].cast(pl.String)]
        frame.with_columns(pl.Series("gene_id", ids)).write_parquet(path)
    for path in base_layer.glob("data/*/*/*/meta_models/*.tsv"):
        renamed(path, lambda i: accession(i) + version)
    return base_layer


@pytest.mark.parametrize(
    ("version", "of_table"),
    [(".7", "{}"), ("", "{}.12"), (".7", "{}.8"), (".7", "gene:{}"), (".7", "gene-{}.8"), ("", "{}_PAR_{chrom}")],
)
def test_versions_of_gene_ids_are_tried(
    base_layer: Path,
    tmp_path: Path,
    data_config: Callable[..., DataConfig],
    caplog: pytest.LogCaptureFixture,
    version: str,
    of_table: str,
) -> None:
    with_accessions(base_layer, version)
    path = base_layer / "genes.tsv"
    frame = pl.read_csv(path, separator="\t", infer_schema=False)
    ids = [of_table.format(accession(i), chrom=chrom[3:]) for i, chrom in frame.select("gene_id", "chrom").iter_rows()]
    frame.with_columns(pl.Series("gene_id", ids)).write_csv(path, separator="\t")
    with caplog.at_level(logging.INFO):
        report = ArtifactLoader(data_config(base_layer)).load(tmp_path / "loaded", labelled=True)
    assert report["genes_placed_by_scores"] == 0
    rows, genes = (pl.read_parquet(tmp_path / f"loaded/{name}.parquet") for name in ("rows", "genes"))
    assert set(rows["gene_id"]) <= set(genes["gene_id"])
    if version or of_table != "gene:{}":
        assert any("are found in gene table" in line and "44 of 44 genes" in line for line in caplog.messages)


def test_a_gene_table_of_other_ids_is_refused(
    base_layer: Path, tmp_path: Path, data_config: Callable[..., DataConfig]
) -> None:
    renamed(base_layer / "genes.tsv", lambda gene_id: gene_id + "x")
    with pytest.raises(ArtifactError, match=r"44 of 44 genes of base model pwm are not in .*one is .*, the table has"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "loaded")


def test_a_gene_table_that_lacks_some_genes(
    base_layer: Path, tmp_path: Path, data_config: Callable[..., DataConfig], caplog: pytest.LogCaptureFixture
) -> None:
    path = base_layer / "genes.tsv"
    frame = pl.read_csv(path, separator="\t", infer_schema=False)
    frame[:30].write_csv(path, separator="\t")
    ArtifactLoader(data_config(base_layer)).load(tmp_path / "loaded")
    assert any("14 of 44 genes of base model pwm are not in gene table" in line for line in caplog.messages)
    frame[:20].write_csv(path, separator="\t")
    with pytest.raises(ArtifactError, match=r"24 of 44 genes .*At most 50 % may be absent"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "loaded")


def names_of(*genes: tuple[str, str]) -> GeneNames:
    return GeneNames({gene_id: Gene.from_table(gene_id, chrom, "+", 1, 9) for gene_id, chrom in genes})


def test_which_ids_are_one_gene() -> None:
    names = names_of(("ENSG00000182378.15", "X"), ("ENSG00000182378.15_PAR_Y", "Y"), ("F23H11.4", "1"))
    assert names.find("ENSG00000182378", "X").interval.chrom == "X"
    assert names.find("ENSG00000182378_Y", "Y").interval.chrom == "Y"
    assert names.find("F23H11.3", "1") is None  # another gene
    assert names.find("ENSG00000182378.9", "2") is None
    assert set(names) == {"ENSG00000182378", "ENSG00000182378_Y", "F23H11.4"}
    assert len(names) == 3
    twice = names_of(("ENSG00000000001.1", "1"), ("ENSG00000000001.2", "1"))
    assert twice.find("ENSG00000000001", "1") is None  # which?
    assert twice.find("ENSG00000000001.2", "1").gene_id == "ENSG00000000001.2"
    moved = names_of(("ENSG00000000001.1", "MT"))
    assert moved.find("ENSG00000000001", "M").interval.chrom == "M"
    names_of().check("nothing", "no table")


@pytest.mark.parametrize("text", ["gene-TP73", "gene:TP73", "TP73", " gene:TP73 "])
def test_prefixes_of_gene_ids(text: str) -> None:
    assert normalise_gene_id(text) == "TP73"


def test_aliases_between_a_gene_table_and_scores(
    base_layer: Path, tmp_path: Path, data_config: Callable[..., DataConfig]
) -> None:
    """`data.aliases`: rows, scores and gene table may each have names of their own."""
    table = read_gene_table(base_layer / "genes.tsv")
    chroms = sorted(set(table["chrom"]))
    (tmp_path / "aliases.tsv").write_text("".join(f"chr{c}\tNC_{c}.1\n" for c in chroms))
    renamed(base_layer / "genes.tsv", lambda name: f"NC_{name[3:]}.1", "chrom")
    with pytest.raises(ArtifactError, match=r"the gene table says NC_.*give --aliases \(data.aliases\)"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "loaded")
    config = data_config(base_layer, aliases=tmp_path / "aliases.tsv")
    loader = ArtifactLoader(config)
    assert loader.fingerprint() != ArtifactLoader(data_config(base_layer)).fingerprint()
    report = loader.load(tmp_path / "loaded")
    assert report["genes_placed_by_scores"] == 0
    genes = pl.read_parquet(tmp_path / "loaded/genes.parquet")
    assert set(genes["chrom"]) == set(chroms)
    with pytest.raises(ArtifactError, match=r"data\.aliases: given .*none"):
        ArtifactLoader(data_config(base_layer, aliases=tmp_path / "none")).load(tmp_path / "loaded")


def test_evaluate_with_a_gene_table_of_other_names(
    base_layer: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ids with versions and chromosomes as accessions; two files of one build by its two names."""
    with_accessions(base_layer, ".7")
    files = sorted(base_layer.glob("nucleotide_scores/*.parquet"))[:2]
    for path, build in zip(files, ("hg38", "GRCh38"), strict=True):
        pl.read_parquet(path).write_parquet(path, metadata={"genome_build": build})
    renamed(base_layer / "genes.tsv", lambda gene_id: accession(gene_id) + ".8")
    chroms = sorted(set(read_gene_table(base_layer / "genes.tsv")["chrom"]))
    renamed(base_layer / "genes.tsv", lambda name: f"NC_{name[3:]}.1", "chrom")
    (tmp_path / "aliases.tsv").write_text("".join(f"chr{c}\tNC_{c}.1\n" for c in chroms))
    options = ["evaluate", "--model", str(make_bundle(tmp_path / "model")), "--device", "cpu", "--scores"]
    options += [*map(str, files), "--gene-table", str(base_layer / "genes.tsv"), "--output", str(tmp_path / "a.json")]
    assert cli.main(options) == 2
    message = capsys.readouterr().err
    assert "genes of the scores are not in gene table" in message
    assert "where these are names of one chromosome, --aliases (data.aliases) maps them" in message
    assert cli.main([*options, "--aliases", str(tmp_path / "aliases.tsv")]) == 0
    assert json.loads((tmp_path / "a.json").read_text())["genome_builds"] == ["hg38"]


def test_genes_of_two_versions_are_one() -> None:
    """What was trained on is judged on in no version."""
    older, newer = (
        [KnownGene(f"ENSG00000000001.{v}", Gene.from_table("x", "1", "+", at, at + 9))] for v, at in ((1, 5), (2, 50))
    )
    with pytest.raises(SplitError, match=r"1 genes are in --scores and in --valid-scores \(ENSG00000000001\.1\)"):
        refuse_crossing(older, newer, "--scores", "--valid-scores")
    assert unversioned("F23H11.3") == "F23H11.3"
    assert unversioned("ENSG00000182378.15_PAR_Y") == "ENSG00000182378_PAR_Y"


def test_an_assigned_molecule_that_is_no_name(tmp_path: Path) -> None:
    """Of two haplotypes, or where a scaffold is called so: the other names stand. Several words are no key."""
    rest = ("Chromosome", "na", "<>", "na", "Primary Assembly", 10, "na")
    contigs = [
        ("hap1_chr", "assembled-molecule", "1", *rest),
        ("hap2_chr", "assembled-molecule", "1", *rest),
        ("LG2", "assembled-molecule", "2", *rest),
        ("2", "unplaced-scaffold", "na", *rest),
        ("linkage group 3", "assembled-molecule", "na", "na", "CP1.1", "=", "na", "Primary Assembly", 10, "na"),
    ]
    found = Contigs.of(report(tmp_path, contigs))
    assert list(found.lines) == ["hap1_chr", "hap2_chr", "LG2", "2", "CP1.1"]
    assert found.key("chr1") == "1"


def test_genes_of_one_build_by_two_names_are_clustered_by_place() -> None:
    genes = [
        replace(gene, genome_build=build, gene=Gene.from_table(gene.gene_id, "1", "+", at, at + 299))
        for gene, build, at in zip(make_genes(3), ("hg38", "GRCh38", "hg19"), (1, 200, 100), strict=True)
    ]
    sizes = Sample.of(genes, ["base"]).sizes
    assert len(sizes) == 2  # the third lies elsewhere
    assert sizes.max() < 500  # what the two share counts once
    with pytest.raises(EvaluationError, match="there more than once"):
        Sample.of([genes[0], replace(genes[0], genome_build="GRCh38")], ["base"])


def test_m_and_mt_of_scores_and_gene_table_are_one(
    base_layer: Path, tmp_path: Path, data_config: Callable[..., DataConfig]
) -> None:
    """Rows and scores say chrM, the gene table MT."""
    for path in base_layer.rglob("*X*"):
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path).with_columns(pl.lit("chrM").alias("chrom"))
            frame.write_parquet(path.with_name(path.name.replace("chrX", "chrM")))
            path.unlink()
        elif path.suffix == ".tsv":
            renamed(path, lambda _: "M", "chrom")
            path.rename(path.with_name(path.name.replace("_X_", "_M_")))
    renamed(base_layer / "genes.tsv", lambda name: name.replace("chrX", "MT"), "chrom")
    report = ArtifactLoader(data_config(base_layer)).load(tmp_path / "loaded")
    assert report["genes_placed_by_scores"] == 0
    chroms = [set(pl.read_parquet(tmp_path / f"loaded/{name}.parquet")["chrom"]) for name in ("rows", "genes")]
    assert "M" in chroms[0]
    assert chroms[0] == chroms[1]
