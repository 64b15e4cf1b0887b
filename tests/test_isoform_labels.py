"""Labels of principal or all transcripts, and which isoforms a site is of: from an annotation to files and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metalayer import cli
from metalayer.base.annotation import read_annotation
from metalayer.base.introns import AnnotatedGene
from metalayer.data.nucleotide_scores import write_tracks
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError, InputError
from metalayer.schema import CLASSES, MARK_COLUMNS, SITE_KINDS
from metalayer.workflows.label_scores import label_scores

EXONS = {"t1": ((101, 110), (151, 160), (201, 230)), "t2": ((101, 110), (201, 230)), "t3": ((101, 120), (171, 230))}
ALL = {109: "donor", 119: "donor", 159: "donor", 150: "acceptor", 170: "acceptor", 200: "acceptor"}
"""0-based sites of the three on the plus strand."""


def gtf(tags: dict[str, str], strand: str = "+", gene_id: str = "G") -> str:
    """A gene of three transcripts, each with tags as GENCODE's GTF has them."""
    text = ""
    for name, exons in EXONS.items():
        named = f'gene_id "{gene_id}"; transcript_id "{gene_id}{name}"; tag "basic"; ' + tags.get(name, "")
        places = [("transcript", exons[0][0], exons[-1][1]), *(("exon", *exon) for exon in exons)]
        text += "".join(f"chr1\tx\t{kind}\t{a}\t{b}\t.\t{strand}\t.\t{named}\n" for kind, a, b in places)
    return text


def gene_of(folder: Path, text: str) -> AnnotatedGene:
    (folder / "a.gtf").write_text(text)
    (gene,) = read_annotation(folder / "a.gtf").genes
    return gene


def by_place(gene: AnnotatedGene, which: str = "all") -> dict[int, str]:
    labels = gene.labels(which)
    return {int(gene.gene.genomic(i)): CLASSES[labels[i]] for i in np.flatnonzero(labels != 2)}


def marks_by_place(gene: AnnotatedGene) -> dict[int, tuple[str, int]]:
    marks = gene.marks()
    at = np.flatnonzero(marks.kinds)
    return {int(gene.gene.genomic(i)): (SITE_KINDS[marks.kinds[i]], int(marks.transcripts[i])) for i in at}


@pytest.mark.parametrize(
    ("tags", "chosen", "source"),
    [
        (
            {"t3": 'tag "MANE_Select";', "t1": 'tag "Ensembl_canonical"; tag "appris_principal_1";'},
            "Gt3",
            "MANE Select",
        ),
        ({"t1": 'tag "MANE Select";'}, "Gt1", "MANE Select"),
        ({"t2": 'tag "Ensembl_canonical";', "t1": 'tag "appris_principal_1";'}, "Gt2", "Ensembl canonical"),
        ({"t2": 'tag "RefSeq Select";', "t1": 'tag "appris_principal_1";'}, "Gt2", "RefSeq Select"),
        ({"t2": 'tag "appris_principal_2";', "t3": 'tag "appris_principal_1";'}, "Gt3", "APPRIS principal"),
        ({"t2": 'tag "appris_principal_1";', "t3": 'tag "appris_principal_1";'}, "Gt3", "APPRIS principal"),
        ({"t2": 'tag "MANE_Plus_Clinical"; tag "appris_alternative_1";'}, None, "no transcript is called principal"),
    ],
)
def test_which_transcript_is_principal(tmp_path: Path, tags: dict[str, str], chosen: str, source: str) -> None:
    assert gene_of(tmp_path, gtf(tags)).principal() == (chosen, source)


def test_tags_of_gff3(tmp_path: Path) -> None:
    """In one attribute, with commas; Ensembl's and GENCODE's names."""
    lines = "chr1\tx\tgene\t101\t230\t.\t+\t.\tID=gene:G\n"
    for name, exons in EXONS.items():
        tag = ";tag=basic,Ensembl_canonical,MANE_Select" if name == "t2" else ";tag=basic,appris_principal_1"
        lines += f"chr1\tx\tmRNA\t101\t230\t.\t+\t.\tID=transcript:{name};Parent=gene:G{tag}\n"
        lines += "".join(f"chr1\tx\texon\t{a}\t{b}\t.\t+\t.\tParent=transcript:{name}\n" for a, b in exons)
    gene = gene_of(tmp_path, "##gff-version 3\n" + lines)
    assert gene.principal() == ("transcript:t2", "MANE Select")
    assert by_place(gene, "principal") == {109: "donor", 200: "acceptor"}


@pytest.mark.parametrize("strand", ["+", "-"])
def test_labels_and_marks_on_both_strands(tmp_path: Path, strand: str) -> None:
    gene = gene_of(tmp_path, gtf({"t1": 'tag "MANE_Select";'}, strand))
    other = {"donor": "acceptor", "acceptor": "donor"}
    expected = {at: name if strand == "+" else other[name] for at, name in ALL.items()}
    assert by_place(gene) == expected
    principal = {at: expected[at] for at in (109, 150, 159, 200)}
    assert by_place(gene, "principal") == principal
    counts = {109: 2, 119: 1, 150: 1, 159: 1, 170: 1, 200: 2}
    assert marks_by_place(gene) == {
        at: ("principal" if at in principal else "alternative", count) for at, count in counts.items()
    }
    assert sorted(gene.gene.genomic(gene.marks().alternative).tolist()) == [119, 170]


def test_a_gene_of_which_none_is_principal(tmp_path: Path) -> None:
    gene = gene_of(tmp_path, gtf({}))
    assert by_place(gene, "principal") == by_place(gene) == ALL
    assert {kind for kind, _ in marks_by_place(gene).values()} == {"unknown"}


# Files: a pass over simulated letters, with an isoform added to some genes.


@pytest.fixture(scope="module")
def isoforms(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The simulation's annotation: each gene's transcript is MANE Select, and another one skips its second exon."""
    folder = tmp_path_factory.mktemp("isoforms")
    text = ""
    for one in read_annotation(simulation / "genome/simulated.gff3").genes:
        (exons,) = one.exons.values()
        ways = {"whole": exons} | ({"skip": [exons[0], *exons[2:]]} if len(exons) > 2 else {})
        for name, chosen in ways.items():
            named = f'gene_id "{one.gene.gene_id}"; transcript_id "{one.gene.gene_id}-{name}";'
            named += ' tag "basic"; tag "MANE_Select";' * (name == "whole")
            places = [("transcript", chosen[0][0], chosen[-1][1]), *(("exon", *exon) for exon in chosen)]
            for kind, start, end in places:
                text += f"{one.gene.interval.chrom}\tx\t{kind}\t{start + 1}\t{end}\t.\t{one.gene.strand}\t.\t{named}\n"
    (folder / "a.gtf").write_text(text)
    return folder / "a.gtf"


def rows(path: Path) -> pl.DataFrame:
    return pl.read_parquet(path).with_columns(pl.col("gene_id", "label", "site_kind").cast(pl.String))


def test_a_base_pass_marks_sites(simulation: Path, isoforms: Path, tmp_path: Path) -> None:
    arguments = ["base", "run", "--model", "pwm", "--fasta", str(simulation / "genome/simulated.fa")]
    arguments += ["--annotation", str(isoforms), "--labels", "principal", "--output", str(tmp_path / "own")]
    assert cli.main(arguments) == 0
    manifest = json.loads((tmp_path / "own/base_layer_pwm.json").read_text())
    assert manifest["labels"] == "principal"
    assert manifest["principal_by"] == {"MANE Select": manifest["genes"]}
    there = next(iter((tmp_path / "own/nucleotide_scores").glob("*.parquet")))
    found = rows(there)
    sites = found.filter(pl.col("label") != "neither")
    assert set(sites["site_kind"]) == {"principal"}
    assert set(sites["transcripts"]) == {1, 2}
    assert set(found.filter(pl.col("label") == "neither")["site_kind"]) == {"none"}
    labels = read_annotation(isoforms).genes
    count = sum(int(np.count_nonzero(one.marks().transcripts == 2)) for one in labels)
    total = sum(
        int((rows(path)["transcripts"] == 2).sum()) for path in (tmp_path / "own/nucleotide_scores").glob("*.parquet")
    )
    assert total == count > 0


def table_of(isoforms: Path) -> str:
    """Genes as CI-SpliceAI's table has them, with a donor and an acceptor more a gene, by which an exon is shorter."""
    text = "gene_id,chr,strand,start,end,jn_start,jn_end\n"
    for number, one in enumerate(read_annotation(isoforms).genes):
        introns = one.introns()
        if not introns:
            continue
        starts = sorted({start for start, _ in introns} | {introns[0][0] + 30})
        ends = sorted({end + 1 for _, end in introns})
        lists = ",".join('"' + ",".join(map(str, some)) + '"' for some in (starts, ends))
        span = one.gene.interval
        text += f"ENSG{number:011},chr{span.chrom},{one.gene.strand},{span.start + 1},{span.end},{lists}\n"
    return text


@pytest.fixture(scope="module")
def relabelled(simulation: Path, isoforms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("relabelled")
    (folder / "table.csv").write_text(table_of(isoforms))
    source = sorted((simulation / "nucleotide_scores").glob("*.parquet"))[0]
    found = label_scores(source, folder / "table.csv", folder / "a.parquet", allow_introns=True)
    assert found["genes_left_out"] == []
    assert set(found["sites"]) == {"principal", "alternative"}
    return folder / "a.parquet"


def test_labels_of_a_table_of_junctions(simulation: Path, relabelled: Path, tmp_path: Path) -> None:
    """By place, since the ids are others: labels that are there stay and are principal, what is new is alternative."""
    source = sorted((simulation / "nucleotide_scores").glob("*.parquet"))[0]
    before = pl.read_parquet(source).with_columns(pl.col("label").cast(pl.String))
    after = rows(relabelled)
    was_site = before["label"] != "neither"
    assert after.filter(was_site)["label"].to_list() == before.filter(was_site)["label"].to_list()
    assert set(after.filter(was_site)["site_kind"]) == {"principal"}
    new = after.filter(~was_site & (after["label"] != "neither"))
    assert set(new["site_kind"]) == {"alternative"}
    # One start more a gene along the chromosome: a donor of + genes, an acceptor of - genes.
    assert set(new.select("strand", "label").cast(pl.String).iter_rows()) == {("+", "donor"), ("-", "acceptor")}
    assert len(new) == new["gene_id"].n_unique() == after["gene_id"].n_unique()
    same = [name for name in before.columns if name not in ("label", *MARK_COLUMNS)]
    assert before.select(same).cast({"gene_id": pl.String}).equals(after.select(same))
    found = label_scores(
        source,
        relabelled.parent / "table.csv",
        tmp_path / "b.parquet",
        labels="principal",
        ignore_alternative=True,
        allow_introns=True,
    )
    principal = rows(tmp_path / "b.parquet")
    assert principal["label"].to_list() == before["label"].to_list()
    assert found["labelled"] == int(was_site.sum())
    assert (principal["ignored"] == (principal["site_kind"] == "alternative")).all()
    assert principal["site_kind"].to_list() == after["site_kind"].to_list()


def test_marks_are_read_with_the_genes(relabelled: Path, tmp_path: Path) -> None:
    """In transcript sense; and a file without marks beside them says nothing of its sites."""

    def no_rows() -> pl.DataFrame:
        raise AssertionError

    write_tracks([relabelled], tmp_path / "c", {}, no_rows, allow_introns=True)
    store = TrackStore(tmp_path / "c")
    table = rows(relabelled)
    for gene_id, gene in store.genes().items():
        track = store.read(gene_id)
        assert track.marks is not None
        wanted = table.filter((pl.col("gene_id") == f"gene-{gene_id}") & (pl.col("site_kind") == "alternative"))
        assert sorted(gene.genomic(track.marks.alternative) + 1) == wanted["position"].to_list()
        assert (track.labels[track.marks.alternative] != 2).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (pl.lit("odd").alias("site_kind"), "site_kind other than none, principal, alternative, unknown"),
        (pl.lit(None, pl.Int32).alias("transcripts"), "empty fields"),
    ],
)
def test_marks_that_are_none(relabelled: Path, tmp_path: Path, change: pl.Expr, message: str) -> None:
    pl.read_parquet(relabelled).with_columns(change).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ArtifactError, match=message):
        write_tracks([tmp_path / "a.parquet"], tmp_path / "c", {}, pl.DataFrame, allow_introns=True)


def test_one_mark_alone(relabelled: Path, tmp_path: Path) -> None:
    pl.read_parquet(relabelled).drop("transcripts").write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ArtifactError, match="a column site_kind alone; site_kind and transcripts go together"):
        write_tracks([tmp_path / "a.parquet"], tmp_path / "c", {}, pl.DataFrame, allow_introns=True)


def test_labels_that_do_not_fit_are_refused(simulation: Path, isoforms: Path, tmp_path: Path) -> None:
    """Of an annotation that is one base off, nothing is written."""
    text = "".join(
        "\t".join([*fields[:3], str(int(fields[3]) + 1), str(int(fields[4]) + 1), *fields[5:]])
        for line in isoforms.read_text().splitlines(keepends=True)
        if len(fields := line.split("\t")) == 9
    )
    (tmp_path / "off.gtf").write_text(text)
    source = sorted((simulation / "nucleotide_scores").glob("*.parquet"))[0]
    with pytest.raises(ArtifactError, match="labels look 1 base"):
        label_scores(source, tmp_path / "off.gtf", tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["off.gtf"]


def test_an_annotation_of_other_genes(simulation: Path, tmp_path: Path) -> None:
    (tmp_path / "a.gtf").write_text(gtf({}))
    source = sorted((simulation / "nucleotide_scores").glob("*.parquet"))[0]
    with pytest.raises(InputError, match=r"has no gene for .* by id or by place"):
        label_scores(source, tmp_path / "a.gtf", tmp_path / "out.parquet")


def test_the_command_on_real_isoforms(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Real scores and the list of all isoforms of their genes: labels stay, other isoforms' sites are added."""
    source = shared / "real/nucleotide_scores/openspliceai_80_chr3.parquet"
    before = pl.read_parquet(source).with_columns(pl.col("gene_id", "label").cast(pl.String))
    genes = {gene_id: part for (gene_id,), part in before.partition_by("gene_id", as_dict=True).items()}
    listed = pl.read_parquet(shared / "real/isoforms.parquet").filter(pl.col("gene_id").is_in(list(genes)))
    text, expected = "gene_id,chr,strand,start,end,jn_start,jn_end\n", 0
    for (gene_id,), part in listed.partition_by("gene_id", as_dict=True, maintain_order=True).items():
        rows_of, strand = genes[str(gene_id)], part["strand"][0]
        first = "donor" if strand == "+" else "acceptor"
        starts = part.filter(pl.col("site") == first)["position"].unique().sort().to_list()
        ends = part.filter(pl.col("site") != first)["position"].unique().sort().to_list()
        starts, ends = [one for one in starts if one < ends[-1]], [one for one in ends if one > starts[0]]
        lists = ",".join('"' + ",".join(map(str, some)) + '"' for some in (starts, ends))
        span = (rows_of["position"].min(), rows_of["position"].max())
        text += f"{gene_id},chr3,{strand},{span[0]},{span[1]},{lists}\n"
        known = rows_of.filter(pl.col("label") != "neither")["position"]
        expected += len({*starts, *ends} - set(known.to_list()))
    (tmp_path / "isoforms.csv").write_text(text)
    out = tmp_path / "labelled.parquet"
    arguments = ["label", str(source), "--annotation", str(tmp_path / "isoforms.csv"), "--output", str(out)]
    assert cli.main(arguments) == 0
    found = rows(out)
    assert int((found["site_kind"] == "alternative").sum()) == expected > 50
    assert f"{expected:,} alternative" in capsys.readouterr().out
    sites = before.filter(pl.col("label") != "neither").select("gene_id", "position", "label")
    assert sites.equals(found.filter(pl.col("site_kind") == "principal").select("gene_id", "position", "label"))
