"""What `metalayer score` says beside probabilities: where a row or position lies, and what the base said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from releases import make_bundle

from metalayer import cli
from metalayer.inference import Predictor
from metalayer.schema import BASE_SCORES, CLASSES
from tests.conftest import artifact_files

BASES = [f"base_{name}" for name in CLASSES]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def score(model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command; what it printed on stderr."""

    def run(given: Path, output: str, *more: str, code: int = 0) -> str:
        command = ["score", str(given), "--model", str(model), "--output", str(tmp_path / output), "--device", "cpu"]
        assert cli.main([*command, *more]) == code
        return capfd.readouterr().err

    return run


def positions(simulation: Path) -> pl.DataFrame:
    files = sorted(simulation.glob("nucleotide_scores/*.parquet"))
    return pl.concat([pl.read_parquet(path).cast({"gene_id": pl.String, "label": pl.String}) for path in files])


def test_rows_lie_where_the_genome_has_them(simulation: Path, tmp_path: Path, score: Callable) -> None:
    """A row is at the intron base next to its site, on either strand."""
    table = pl.read_csv(simulation / "genes.tsv", separator="\t", infer_schema=False)
    table = table.with_columns(pl.format("scaffold_{}", pl.col("chrom").str.strip_prefix("chr")).alias("contig"))
    table.write_csv(tmp_path / "genes.tsv", separator="\t")
    there = positions(simulation)
    strands = set()
    for path in artifact_files(simulation)[:4]:
        score(path, "rows.tsv", "--gene-table", str(tmp_path / "genes.tsv"))
        given = pl.read_csv(path, separator="\t", infer_schema_length=None)
        rows = pl.read_csv(tmp_path / "rows.tsv", separator="\t")
        assert rows.columns[-8:] == ["contig", "genomic_position", *CLASSES, *BASES]
        assert rows["gene_id"].equals(given["gene_id"])
        assert rows["contig"].str.starts_with("scaffold_").all()
        np.testing.assert_allclose(rows.select(BASES).to_numpy(), given.select(BASE_SCORES).to_numpy(), atol=1e-6)
        sites = rows.with_columns(given["splice_type"]).filter(pl.col("splice_type").is_in(["donor", "acceptor"]))
        outward = pl.when((pl.col("strand") == "+") == (pl.col("splice_type") == "donor")).then(-1).otherwise(1)
        at_exon = sites.with_columns((pl.col("genomic_position") + outward).alias("position"))
        found = at_exon.join(there, on=["gene_id", "position"], how="left")
        assert found["label"].to_list() == sites["splice_type"].to_list()
        strands |= set(sites["strand"])
    assert strands == {"+", "-"}


def test_rows_that_say_it_themselves_and_genes_that_the_table_lacks(
    simulation: Path, tmp_path: Path, score: Callable
) -> None:
    path = artifact_files(simulation)[0]
    rows = pl.read_csv(path, separator="\t", infer_schema_length=None)
    genes = rows["gene_id"].unique(maintain_order=True)
    named = rows.with_columns(pl.lit("NC_1.2").alias("contig"), (pl.col("position") + 7).alias("genomic_position"))
    named.write_parquet(tmp_path / "named.parquet")
    score(tmp_path / "named.parquet", "out.parquet")
    found = pl.read_parquet(tmp_path / "out.parquet")
    assert found["genomic_position"].equals(named["genomic_position"])
    assert found["contig"].unique().to_list() == ["NC_1.2"]

    table = pl.read_csv(simulation / "genes.tsv", separator="\t", infer_schema=False)
    others = table.filter(~pl.col("gene_id").is_in(genes.implode()))
    others.write_csv(tmp_path / "others.tsv", separator="\t")
    said = score(path, "no.tsv", "--gene-table", str(tmp_path / "others.tsv"), code=2)
    assert "others.tsv" in said
    assert not (tmp_path / "no.tsv").exists()

    short = table.with_columns(pl.col("start").cast(pl.Int64).add(10).cast(pl.String).alias("end"))
    short.write_csv(tmp_path / "short.tsv", separator="\t")
    said = score(path, "no.tsv", "--gene-table", str(tmp_path / "short.tsv"), code=2)
    assert "Are both of one annotation and build?" in said
    rows.drop("gene_id").write_parquet(tmp_path / "nameless.parquet")
    said = score(tmp_path / "nameless.parquet", "no.tsv", "--gene-table", str(simulation / "genes.tsv"), code=2)
    assert "places rows by gene_id, chrom and position; no gene_id" in said
    assert "--aliases goes with --gene-table" in score(path, "no.tsv", "--aliases", "names.txt", code=2)


def test_whole_genes(simulation: Path, tmp_path: Path, model: Path, score: Callable) -> None:
    path = next(
        one
        for one in sorted(simulation.glob("nucleotide_scores/*.parquet"))
        if pl.read_parquet(one)["strand"].n_unique() == 2
    )
    given = pl.read_parquet(path).cast({"gene_id": pl.String, "chrom": pl.String, "strand": pl.String})
    score(path, "genes.parquet", "--gene-table", str(simulation / "genes.tsv"))
    found = pl.read_parquet(tmp_path / "genes.parquet")
    assert found.columns == ["gene_id", "contig", "chrom", "strand", "position", *CLASSES, *BASES]
    assert found["contig"].cast(pl.String).unique().to_list() == given["chrom"].unique().to_list()
    assert pq.ParquetFile(tmp_path / "genes.parquet").num_row_groups == given["gene_id"].n_unique()
    assert pq.read_schema(tmp_path / "genes.parquet").metadata[b"way"] == b"positions"
    both = found.cast({"gene_id": pl.String}).join(
        given.with_columns(pl.col("gene_id").str.strip_prefix("gene-")), on=["gene_id", "position"], validate="1:1"
    )
    assert len(both) == len(given) == len(found)
    np.testing.assert_array_equal(both.select(BASES).to_numpy(), both.select(BASE_SCORES).to_numpy())
    minus = given.filter(pl.col("strand") == "-").partition_by("gene_id", maintain_order=True)[0].reverse()
    letters = "".join(minus["base"].cast(pl.String)).translate(str.maketrans("ACGT", "TGCA"))
    answers = Predictor.load(model).predict_tracks(letters, minus.select(BASE_SCORES).to_numpy())
    ours = found.filter(pl.col("gene_id").cast(pl.String) == minus["gene_id"][0].removeprefix("gene-")).reverse()
    np.testing.assert_array_equal(ours.select(CLASSES).to_numpy(), answers)
    assert "scores of whole genes go into .parquet" in score(path, "genes.tsv", code=2)


def test_whole_genes_are_not_sent_to_a_server_as_rows(
    simulation: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = min(simulation.glob("nucleotide_scores/*.parquet"))
    assert cli.main(["score", str(given), "--url", "http://127.0.0.1:9", "--output", str(tmp_path / "o.parquet")]) == 2
    assert "per-nucleotide scores of whole genes, which --url does not take: give --model" in capfd.readouterr().err
