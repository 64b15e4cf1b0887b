"""One site convention inside, the exon base in transcript sense, and every form that it is written in.

Two genes with one intron each are planted by hand, one on either strand. Their sites are then looked for, by
numbers written out here, in GFF3, GTF, artifact rows, per-nucleotide scores of both forms, the gene table, VCF
coordinates and what the model reads.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metalayer.base.annotation import read_annotation
from metalayer.base.genome_files import write_gff3
from metalayer.core import ArtifactLoader
from metalayer.data.labels import label_rows
from metalayer.data.tracks import TrackStore
from metalayer.features import gene_row_scores
from metalayer.genome import Gene, decode, encode, parse_variant, reverse_complement
from metalayer.schema import ACCEPTOR, DONOR, NEITHER
from metalayer.settings.sections import BaseConfig, DataConfig
from metalayer.site_labels import row_classes
from metalayer.workflows.base_run import base_run

# Transcript sense, 0-based: exon [0, 30), intron [30, 70), exon [70, 100).
DONOR_EXON_BASE, ACCEPTOR_EXON_BASE = 29, 70
DONOR_ROW, ACCEPTOR_ROW = 30, 69  # the G of GT, the G of AG
LETTERS = "AC" * 13 + "ACAG" + "GTAAGT" + "CA" * 10 + "TTTTCTTTTTTCAG" + "G" + "CA" * 14 + "C"
GENES = {
    # 1-based inclusive on the plus strand, as a person reads them in a browser.
    "PLUS": {"strand": "+", "start": 51, "end": 150, "donor": 80, "acceptor": 121, "exons": ((51, 80), (121, 150))},
    "MINUS": {
        "strand": "-",
        "start": 201,
        "end": 300,
        "donor": 271,
        "acceptor": 230,
        "exons": ((201, 230), (271, 300)),
    },
}
# The first intron base of the donor, the G of GT, on the plus strand: VCF position and reference letter.
DONOR_VARIANTS = {"PLUS": "chr1-81-G-A", "MINUS": "chr1-270-C-T"}
ACCEPTOR_VARIANTS = {"PLUS": "chr1-120-G-A", "MINUS": "chr1-231-C-T"}


def gff3() -> str:
    lines = []
    for name, gene in GENES.items():
        end = f".\t{gene['strand']}\t.\t"
        lines.append(f"chr1\tx\tgene\t{gene['start']}\t{gene['end']}\t{end}ID=gene-{name};Name={name};gene={name}")
        lines.append(
            f"chr1\tx\tmRNA\t{gene['start']}\t{gene['end']}\t{end}ID=rna-{name};Parent=gene-{name};gene={name}"
        )
        for number, (first, last) in enumerate(gene["exons"], start=1):
            attributes = f"ID=exon-{name}-{number};Parent=rna-{name};gene={name}"
            lines.append(f"chr1\tx\texon\t{first}\t{last}\t{end}{attributes}")
    return "\n".join(["##gff-version 3", *lines]) + "\n"


def gtf() -> str:
    return "".join(
        f'chr1\tx\texon\t{first}\t{last}\t.\t{gene["strand"]}\t.\tgene_id "{name}"; transcript_id "{name}.1";\n'
        for name, gene in GENES.items()
        for first, last in gene["exons"]
    )


def planted(name: str) -> Gene:
    gene = GENES[name]
    return Gene.from_table(name, "chr1", gene["strand"], gene["start"], gene["end"], gene_name=name)


@pytest.fixture(scope="module", params=["a.gff3", "a.gtf"])
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pass over the two genes, annotated as GFF3 or as GTF."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / request.param).write_text(gff3() if request.param == "a.gff3" else gtf())
    chromosome = "A" * 50 + LETTERS + "A" * 50 + decode(reverse_complement(encode(LETTERS))) + "A" * 50
    (folder / "a.fa").write_text(f">chr1\n{chromosome}\n")
    files = {"fasta": folder / "a.fa", "annotation": folder / request.param, "output": folder / "out"}
    base_run(BaseConfig(model="pwm", build="GRCh38", **files))
    return folder / "out"


def tracks(root: Path, folder: Path) -> TrackStore:
    ArtifactLoader(DataConfig(base_model="pwm", data_root=root)).load(folder)
    return TrackStore(folder / "tracks.parquet")


def sites(labels: np.ndarray) -> dict[int, int]:
    return {int(at): int(labels[at]) for at in np.flatnonzero(labels != NEITHER)}


PLANTED = {DONOR_EXON_BASE: DONOR, ACCEPTOR_EXON_BASE: ACCEPTOR}


@pytest.mark.parametrize("text", [gff3(), gtf()], ids=["GFF3", "GTF"])
def test_annotations(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").write_text(text)
    genes = read_annotation(tmp_path / "a").genes
    assert [gene.gene.gene_id for gene in genes] == list(GENES)
    for gene in genes:
        assert sites(gene.labels()) == PLANTED
        assert len(gene.gene) == 100


def test_gff3_as_it_is_written(tmp_path: Path) -> None:
    write_gff3(tmp_path / "a.gff3", [(planted(name), ((0, 30), (70, 100))) for name in GENES], source="x")
    assert (tmp_path / "a.gff3").read_text() == gff3()


@pytest.mark.parametrize("name", GENES)
def test_the_gene_table(root: Path, name: str) -> None:
    row = pl.read_csv(root / "genes.tsv", separator="\t").filter(pl.col("gene_id") == f"gene-{name}").row(0, named=True)
    assert (row["start"], row["end"], row["strand"]) == tuple(GENES[name][key] for key in ("start", "end", "strand"))


@pytest.mark.parametrize("name", GENES)
def test_artifact_rows_sit_on_the_intron_base(root: Path, name: str) -> None:
    rows = pl.read_csv(next(root.rglob("analysis_sequences_*.tsv")), separator="\t")
    rows = rows.filter(pl.col("gene_id") == f"gene-{name}", pl.col("splice_type").is_not_null())
    assert dict(rows.select("position", "splice_type").rows()) == {DONOR_ROW: "donor", ACCEPTOR_ROW: "acceptor"}
    for row in rows.iter_rows(named=True):
        at = row["position"] - row["window_start"]
        letters = row["sequence"][at : at + 2] if row["splice_type"] == "donor" else row["sequence"][at - 1 : at + 1]
        assert letters == ("GT" if row["splice_type"] == "donor" else "AG")
        assert row["score"] == row[f"{row['splice_type']}_score"] > 0.5  # the track's own peak, at the exon base


@pytest.mark.parametrize("name", GENES)
def test_nucleotide_scores_sit_on_the_exon_base(root: Path, name: str) -> None:
    gene = GENES[name]
    table = pl.read_parquet(root / "nucleotide_scores" / "pwm_chr1.parquet").with_columns(
        pl.selectors.categorical().cast(pl.String)
    )
    table = table.filter(pl.col("gene_id") == f"gene-{name}")
    at = {row["label"]: row for row in table.iter_rows(named=True) if row["label"] != "neither"}
    assert {kind: row["position"] for kind, row in at.items()} == {kind: gene[kind] for kind in ("donor", "acceptor")}
    plus = LETTERS if gene["strand"] == "+" else decode(reverse_complement(encode(LETTERS)))
    assert "".join(table["base"]) == plus
    for kind in ("donor", "acceptor"):
        assert at[kind][f"{kind}_score"] == table[f"{kind}_score"].max() > 0.5


@pytest.mark.parametrize("name", GENES)
def test_what_is_loaded(root: Path, tmp_path: Path, name: str) -> None:
    track = tracks(root, tmp_path).read(name)
    assert decode(track.tokens) == LETTERS
    assert sites(track.labels) == PLANTED
    assert sites(row_classes(track.labels)) == {DONOR_ROW: DONOR, ACCEPTOR_ROW: ACCEPTOR}
    assert [int(track.scores[:, kind].argmax()) for kind in (DONOR, ACCEPTOR)] == [DONOR_EXON_BASE, ACCEPTOR_EXON_BASE]
    rule = gene_row_scores(track.scores)
    assert [int(rule[:, kind].argmax()) for kind in (DONOR, ACCEPTOR)] == [DONOR_ROW, ACCEPTOR_ROW]


@pytest.mark.parametrize("name", GENES)
def test_the_original_tsv_takes_its_labels_from_rows(root: Path, tmp_path: Path, name: str) -> None:
    """No letters and no labels there: the rows' intron bases come back as exon bases."""
    table = pl.read_parquet(root / "nucleotide_scores" / "pwm_chr1.parquet").rename({"position": "genomic_position"})
    rows = next(root.rglob("analysis_sequences_*.tsv"))
    copy = tmp_path / "root" / rows.relative_to(root)
    copy.parent.mkdir(parents=True)
    copy.write_bytes(rows.read_bytes())
    (tmp_path / "root" / "genes.tsv").write_bytes((root / "genes.tsv").read_bytes())
    table.drop("base", "label").write_csv(copy.with_name("nucleotide_scores.tsv"), separator="\t")
    track = tracks(tmp_path / "root", tmp_path / "typed").read(name)
    assert sites(track.labels) == PLANTED
    assert int(track.scores[:, DONOR].argmax()) == DONOR_EXON_BASE


@pytest.mark.parametrize("name", GENES)
def test_variants(root: Path, tmp_path: Path, name: str) -> None:
    """A VCF position is the base that it names, and touches the row whose dinucleotide it changes."""
    gene = planted(name)
    for text, row in ((DONOR_VARIANTS[name], DONOR_ROW), (ACCEPTOR_VARIANTS[name], ACCEPTOR_ROW)):
        variant = parse_variant(text)
        assert gene.index(variant.position) == row
        assert f"chr{variant.text}" == text
        letter = variant.ref if gene.strand == "+" else decode(reverse_complement(encode(variant.ref)))
        assert letter == LETTERS[row] == "G"
    splicevardb = tmp_path / "splicevardb.download.tsv"
    splicevardb.write_text(f"hg38\tclassification\n{DONOR_VARIANTS[name]}\tSplice-altering\n")
    data = DataConfig(base_model="pwm", data_root=root, variant_source="splicevardb", splicevardb_path=splicevardb)
    ArtifactLoader(data).load(tmp_path)
    label_rows(tmp_path / "rows.parquet", tmp_path / "genes.parquet", data, tmp_path / "labelled.parquet", "GRCh38")
    touched = pl.read_parquet(tmp_path / "labelled.parquet").filter(pl.col("sample_weight") == 2.0)
    assert (name, DONOR_ROW, "donor") in touched.select("gene_id", "position", "splice_type").rows()
    assert set(touched["gene_id"]) == {name}
