"""`metalayer evaluate`: files, builds, paralog flags and bad input, on whole genes."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from metalayer import cli
from metalayer.data.nucleotide_scores import write_tracks
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError
from metalayer.genome import Gene
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import save_model
from metalayer.schema import GENOME_BUILD_KEY
from metalayer.settings.sections import EvaluateConfig
from metalayer.workflows.evaluate_scores import evaluate_scores
from tests.releases import make_bundle, rewrite

QUICK = EvaluateConfig(n_bootstrap=100)
Change = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "model")


@pytest.fixture(scope="module")
def frame(simulation: Path) -> pl.DataFrame:
    """Four genes, of both strands, without metadata."""
    path = min(simulation.glob("nucleotide_scores/*.parquet"))
    text = pl.col("gene_id", "chrom", "strand", "base", "label").cast(pl.String)
    whole = pl.read_parquet(path).with_columns(text)
    ids = [whole.filter(pl.col("strand") == strand)["gene_id"].unique(maintain_order=True)[:2] for strand in "+-"]
    return whole.filter(pl.col("gene_id").is_in(pl.concat(ids).to_list()))


def write(frame: pl.DataFrame, path: Path, build: str | None = None) -> Path:
    frame.write_parquet(path, metadata={GENOME_BUILD_KEY: build} if build else None)
    return path


def refused() -> pl.DataFrame:
    raise AssertionError("the files have labels")


def read(frame: pl.DataFrame, folder: Path, table: dict[str, Gene] | None = None) -> dict[str, int]:
    """Paralog flags of the tracks made of a frame."""
    write_tracks([write(frame, folder / "in.parquet")], folder / "out.parquet", table or {}, refused)
    store = TrackStore(folder / "out.parquet")
    return {track.gene.gene_id: track.paralog for track in store.read_many(list(store.genes()))}


def test_one_paralog_flag_a_gene_comes_through(frame: pl.DataFrame, tmp_path: Path) -> None:
    ids = frame["gene_id"].unique(maintain_order=True).to_list()
    flags = pl.DataFrame({"gene_id": ids, "paralog": [1, 0, -1, None]}, schema_overrides={"paralog": pl.Int8})
    found = read(frame.join(flags, on="gene_id", how="left", maintain_order="left"), tmp_path)
    assert list(found.values()) == [1, 0, -1, -1]
    assert set(read(frame, tmp_path).values()) == {-1}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (pl.int_range(pl.len()) % 2, "paralog 0, 1; allowed is one value a gene"),
        (pl.lit(3), "paralog 3; allowed is one value a gene"),
        (pl.lit("many"), "a column of the wrong type"),
    ],
)
def test_paralog_flags_that_are_none(frame: pl.DataFrame, tmp_path: Path, flag: pl.Expr, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read(frame.with_columns(flag.alias("paralog")), tmp_path)


def test_paralog_groups_of_the_gene_table_stand_in_for_a_missing_column(frame: pl.DataFrame, tmp_path: Path) -> None:
    groups = ["a", "a", "b", None]
    places = frame.group_by("gene_id", maintain_order=True).agg(
        *(pl.col(name).first() for name in ("chrom", "strand")),
        pl.col("position").min().alias("start"),
        pl.col("position").max().alias("end"),
    )
    table = {
        gene.gene_id: gene
        for row, group in zip(places.iter_rows(), groups, strict=True)
        for gene in [Gene.from_table(*row, paralog_group=group)]
    }
    assert list(read(frame, tmp_path, table).values()) == [1, 1, 0, -1]
    own = frame.with_columns(pl.lit(0).alias("paralog"))
    assert set(read(own, tmp_path, table).values()) == {0}


def test_builds_that_files_name_come_through(frame: pl.DataFrame, tmp_path: Path) -> None:
    first, second = frame.partition_by("gene_id", maintain_order=True)[:2]
    out = tmp_path / "out.parquet"
    files = [write(first, tmp_path / "1.parquet", "GRCh37"), write(second, tmp_path / "2.parquet")]
    assert write_tracks(files, out, {}, refused).genome_builds == ["GRCh37"]
    assert TrackStore(out).genome_build is None  # of the second file it is not known
    files[1] = write(second, tmp_path / "2.parquet", "GRCh37")
    write_tracks(files, out, {}, refused)
    assert TrackStore(out).genome_build == "GRCh37"
    files[1] = write(second, tmp_path / "2.parquet", "hg19")
    assert write_tracks(files, out, {}, refused).genome_builds == ["GRCh37"]
    assert TrackStore(out).genome_build == "GRCh37"
    files[1] = write(second, tmp_path / "2.parquet", "GRCh38")
    assert write_tracks(files, out, {}, refused).genome_builds == ["GRCh37", "GRCh38"]
    assert TrackStore(out).genome_build is None


def test_the_base_layer_pass_names_its_build(simulation: Path, tmp_path: Path) -> None:
    files = sorted(simulation.glob("nucleotide_scores/*.parquet"))
    assert write_tracks(files, tmp_path / "out.parquet", {}, refused).genome_builds == ["GRCh38"]


def shifted(frame: pl.DataFrame, by: int) -> pl.DataFrame:
    """The same genes where another build has them."""
    return frame.with_columns(pl.col("position") + by)


@pytest.mark.parametrize(
    ("first", "second", "shift"), [("GRCh37", "GRCh38", 137), ("GRCh37", "GRCh38", 0), (None, "GRCh38", 137)]
)
def test_genes_of_several_builds_are_reported_and_count_once(
    frame: pl.DataFrame,
    bundle: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    first: str | None,
    second: str,
    shift: int,
) -> None:
    files = [
        write(frame, tmp_path / "a.parquet", first),
        write(shifted(frame, shift), tmp_path / "b.parquet", second),
    ]
    with caplog.at_level(logging.WARNING):
        report = evaluate_scores(bundle, files, tmp_path / "report.json", QUICK, "cpu")
    alone = evaluate_scores(bundle, files[:1], tmp_path / "alone.json", QUICK, "cpu")
    assert "several genome builds" in caplog.text
    counted = alone["files"][0]["conventions"]
    assert counted["donor"]["labels"] == (frame["label"] == "donor").sum()
    facts = {"genes": 4, "positions": len(frame), "conventions": counted}
    assert report["files"] == [
        {"name": "a.parquet", "genome_build": first, **facts},
        {"name": "b.parquet", "genome_build": second, **facts},
    ]
    assert report["genome_builds"] == [first, second]
    assert len(report["genes_in_several_builds"]) == report["genes"] == alone["genes"] == 4
    assert report["positions"] == 2 * alone["positions"] == 2 * len(frame)
    assert report["intervals"]["meta"]["ap_donor"] == pytest.approx(alone["intervals"]["meta"]["ap_donor"], abs=1e-9)
    assert alone["genome_builds"] == [first]
    assert alone["genes_in_several_builds"] == []
    listed = [one for key in ("fixed", "made") for one in report["errors"][key]["list"]]
    assert {one.get("genome_build") for one in listed} == {first, second}
    assert report == json.loads((tmp_path / "report.json").read_text())


@pytest.mark.parametrize(
    ("base_model", "chrom", "build", "genes"),
    [
        ("openspliceai_80", "2", "GRCh38", 4),
        ("openspliceai_80", "1", "GRCh38", 0),
        ("openspliceai_80", "2", "GRCm39", 0),
        ("cispliceai", "1", "hg19", 4),
        ("mine", "2", "GRCh38", 0),
    ],
)
def test_genes_of_the_bases_own_training_are_said(
    frame: pl.DataFrame,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    base_model: str,
    chrom: str,
    build: str,
    genes: int,
) -> None:
    model, file, output = tmp_path / "model", tmp_path / "in.parquet", tmp_path / "report.json"
    shutil.copytree(bundle, model)
    rewrite(model / "model.json", base_model=base_model)
    write(frame.with_columns(chrom=pl.lit(chrom)), file, build)
    assert cli.main(["evaluate", "--model", str(model), "--scores", str(file), "--output", str(output)]) == 0
    said, seen = capsys.readouterr().out, json.loads(output.read_text())["seen_by_base"]
    sentence = f"{genes} of 4 genes are on chromosome {chrom}, on which {base_model}, as published, was trained"
    assert (sentence in said) == (genes > 0) == (seen is not None)
    if seen:
        assert seen["note"].startswith(sentence)
        assert (len(seen["genes"]), seen["of"], seen["chromosomes"]) == (4, 4, [chrom])


def test_listed_errors_stand_where_the_file_has_them(frame: pl.DataFrame, bundle: Path, tmp_path: Path) -> None:
    errors = evaluate_scores(bundle, [write(frame, tmp_path / "a.parquet")], tmp_path / "report.json", QUICK, "cpu")[
        "errors"
    ]
    listed = [one for key in ("fixed", "made") for one in errors[key]["list"]]
    assert {one["strand"] for one in listed} == {"+", "-"}
    for one in listed:
        row = frame.filter(pl.col("gene_id") == f"gene-{one['gene_id']}", pl.col("position") == one["position"]).row(
            0, named=True
        )
        assert (row["label"] == one["class"]) == (one["error"] == "missed")
        assert (f"chr{one['chrom']}", one["strand"]) == (row["chrom"], row["strand"])
        scores = np.array([row[f"{name}_score"] for name in ("donor", "acceptor", "neither")])
        assert one["base"] == pytest.approx(scores[["donor", "acceptor"].index(one["class"])] / scores.sum(), abs=1e-3)


def one_gene(change: Change) -> Change:
    """Change the second gene alone."""

    def changed(frame: pl.DataFrame) -> pl.DataFrame:
        parts = frame.partition_by("gene_id", maintain_order=True)
        return pl.concat([parts[0], change(parts[1]), *parts[2:]])

    return changed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (one_gene(lambda f: pl.concat([f.head(50), f.tail(-51)])), "a gap of 1 after position"),
        (one_gene(lambda f: pl.concat([f.head(50), f.tail(-49)])), "a duplicate or wrong order"),
        (one_gene(lambda f: f.reverse()), "a duplicate or wrong order"),
        (one_gene(lambda f: f.with_columns(pl.col("donor_score") + 0.2)), "not adding up to 1"),
        (one_gene(lambda f: f.with_columns(pl.lit("R").alias("base"))), "allowed are ACGTN"),
        (one_gene(lambda f: f.with_columns(pl.lit(2).alias("paralog").cast(pl.Int8))), "allowed is one value"),
        (lambda f: pl.concat([f, f.partition_by("gene_id", maintain_order=True)[0]]), "a duplicate or wrong order"),
        (lambda f: f.drop("base"), "no column base"),
        (lambda f: f.drop("label"), "no column label"),
        (lambda f: f.with_columns(pl.lit("exon").alias("label")), "labels other than"),
        (lambda f: f.head(0), "no rows"),
    ],
)
def test_files_that_cannot_be(
    frame: pl.DataFrame,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    message: str,
) -> None:
    given = frame.with_columns(pl.lit(1).alias("paralog").cast(pl.Int8))
    path = write(change(given), tmp_path / "bad.parquet")
    assert run(bundle, tmp_path, path) == 2
    error = capsys.readouterr().err
    assert message in error
    assert str(path) in error
    assert not (tmp_path / "report.json").exists()


def run(bundle: Path, folder: Path, *scores: Path, **options: Path) -> int:
    extra = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    files = [str(path) for path in scores]
    command = ["evaluate", "--model", str(bundle), "--output", str(folder / "report.json"), "--device", "cpu"]
    return cli.main([*command, *extra, "--scores", *files])


@pytest.mark.parametrize(
    ("first", "second", "shift", "message"),
    [
        (None, None, 0, "at the same coordinates"),
        ("GRCh37", None, 0, "at the same coordinates"),
        ("GRCh38", "GRCh38", 0, "both of genome build GRCh38"),
        ("GRCh38", "GRCh38", 137, "both of genome build GRCh38"),
        ("GRCh38", "hg38", 137, "both of genome build hg38"),
    ],
)
def test_a_gene_twice_in_one_build_is_refused(
    frame: pl.DataFrame,
    bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    first: str | None,
    second: str | None,
    shift: int,
    message: str,
) -> None:
    files = [
        write(frame, tmp_path / "a.parquet", first),
        write(shifted(frame, shift), tmp_path / "b.parquet", second),
    ]
    assert run(bundle, tmp_path, *files) == 2
    error = capsys.readouterr().err
    assert "is in two files" in error
    assert message in error
    assert not (tmp_path / "report.json").exists()


def test_a_gene_table_of_another_build_is_refused(
    simulation: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(simulation.glob("nucleotide_scores/*.parquet"))
    assert run(bundle, tmp_path, *files, gene_table=simulation / "genes.tsv") == 0
    assert list(json.loads((tmp_path / "report.json").read_text())["by_paralog"]) == ["1", "-1"]
    assert "with paralogs" in capsys.readouterr().out
    (tmp_path / "report.json").unlink()
    table = pl.read_csv(simulation / "genes.tsv", separator="\t", schema_overrides={"chrom": pl.String})
    table.with_columns(pl.col("start") + 500).write_csv(tmp_path / "genes.tsv", separator="\t")
    assert run(bundle, tmp_path, *files, gene_table=tmp_path / "genes.tsv") == 2
    assert "Are scores and gene table of one genome build?" in capsys.readouterr().err
    assert not (tmp_path / "report.json").exists()


def test_files_that_are_none(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(bundle, tmp_path, tmp_path / "none.parquet") == 2
    assert "none.parquet, which is no file" in capsys.readouterr().err
    (tmp_path / "text.parquet").write_text("no Parquet")
    assert run(bundle, tmp_path, tmp_path / "text.parquet") == 2
    assert "not a whole Parquet file" in capsys.readouterr().err


def test_real_genes(shared: Path, tmp_path: Path) -> None:
    """The base of flank 80 on chromosome 3, beside an untrained model.

    `real/README.md` has .606 and .535, where 11 positions with two labels count, and 104,918 twice.
    """
    save_model(MetaSpliceModel(hidden_dim=32), tmp_path / "model", {"base_model": "openspliceai_80", "split": None})
    path = shared / "real" / "nucleotide_scores" / "openspliceai_80_chr3.parquet"
    report: dict[str, Any] = evaluate_scores(tmp_path / "model", [path], tmp_path / "report.json", QUICK, "cpu")
    assert report["base"]["ap_donor"] == pytest.approx(0.6295, abs=5e-4)
    assert report["base"]["ap_acceptor"] == pytest.approx(0.5488, abs=5e-4)
    assert report["positions"] == 1_094_830 - 104_918 - 2 * 11
    assert report["sites"] == {"donor": 133, "acceptor": 132}
    assert (report["overlaps"]["contradicted"], report["overlaps"]["shared"]) == (11, 104_918)
    flags = pl.read_parquet(path, columns=["gene_id", "paralog"]).unique()["paralog"].to_list()
    assert {flag: here["genes"] for flag, here in report["by_paralog"].items()} == {
        str(flag): flags.count(flag) for flag in (1, 0)
    }
    assert sum(one["positions"] for one in report["by_base_score"]) == report["positions"]
    assert report["errors"]["fixed"]["total"] == report["errors"]["made"]["total"] == 0
    assert report["errors"]["base"]["donor"]["calls"] == 133
    assert (tmp_path / "report.json").stat().st_size < 1_000_000
