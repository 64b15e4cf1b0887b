"""Scores of several base models side by side: what is merged, what each reader takes of it, what is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from metalayer.base.artifacts import write_artifacts
from metalayer.cli import main
from metalayer.data.nucleotide_scores import base_models_in, write_tracks
from metalayer.data.score_files import ScoreFile
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError
from metalayer.gene_track import GeneTrack
from metalayer.genome import Gene
from metalayer.schema import ACCEPTOR, BASE_SCORES, DONOR, NEITHER, score_columns
from metalayer.workflows.merge_scores import merge_scores

GENES = [Gene.from_table("ONE", "1", "+", 101, 160), Gene.from_table("TWO", "1", "-", 301, 400)]


def tracks(seed: int) -> list[GeneTrack]:
    """Genes whose letters and labels are the same for every seed, and whose scores are not."""
    found = []
    for gene in GENES:
        same, own = np.random.default_rng(gene.interval.start), np.random.default_rng([seed, gene.interval.start])
        labels = np.full(len(gene), NEITHER, np.uint8)
        labels[[10, 40]], labels[20] = DONOR, ACCEPTOR
        tokens = same.integers(0, 4, len(gene)).astype(np.uint8)
        found.append(GeneTrack(gene, tokens, own.dirichlet([1, 1, 30], len(gene)).astype(np.float32), labels))
    return found


def written(root: Path, name: str, genes: list[GeneTrack], build: str = "GRCh38") -> Path:
    write_artifacts(root / name, genes, base_model=name, annotation_source="a", build=build)
    return root / name / "nucleotide_scores" / f"{name}_chr1.parquet"


def test_each_base_model_reads_as_from_its_own_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [written(tmp_path, name, tracks(seed)) for seed, name in enumerate(("left", "right"))]
    merged = tmp_path / "both.parquet"
    assert main(["merge", *map(str, paths), "--output", str(merged)]) == 0
    assert "2 base models on 160 positions of 2 genes" in capsys.readouterr().out
    assert base_models_in(merged) == ("left", "right")
    whole = tmp_path / "whole.parquet"
    write_tracks([merged], whole, {}, pl.DataFrame)
    store = TrackStore(whole)
    assert store.base_models == ("left", "right")
    assert store.genome_build == "GRCh38"
    for name, path in zip(("left", "right"), paths, strict=True):
        alone = ScoreFile.read([path], tmp_path / "alone.parquet", {}, base_model=name).store
        chosen = ScoreFile.read([merged], tmp_path / "chosen.parquet", {}, base_model=name).store
        assert chosen.base_models == ("",)
        for gene in GENES:
            expected = alone.read(gene.gene_id)
            for read in (chosen.read(gene.gene_id), store.read(gene.gene_id, name)):
                assert read.gene == expected.gene
                for field in ("tokens", "scores", "labels", "ignored"):
                    np.testing.assert_array_equal(getattr(read, field), getattr(expected, field))
    assert not np.array_equal(store.read("ONE", "left").scores, store.read("ONE", "right").scores)


def test_a_third_is_put_beside_two_and_files_of_one_model_join(tmp_path: Path) -> None:
    left = [written(tmp_path / str(i), "left", [one]) for i, one in enumerate(tracks(0))]
    right, third = written(tmp_path, "right", tracks(1)), written(tmp_path, "third", tracks(2))
    merge_scores([*((None, path) for path in left), (None, right)], tmp_path / "two.parquet")
    found = merge_scores([(None, tmp_path / "two.parquet"), ("mine", third)], tmp_path / "three.parquet")
    assert found == {"base_models": 3, "genes": 2, "positions": 160}
    assert base_models_in(tmp_path / "three.parquet") == ("left", "right", "mine")


def test_a_position_that_one_of_them_ignores_is_ignored(tmp_path: Path) -> None:
    left, right = written(tmp_path, "left", tracks(0)), written(tmp_path, "right", tracks(1))
    frame = pl.read_parquet(right).with_columns(ignored=pl.col("position") == 320, paralog=pl.lit(1))
    frame.write_parquet(right)
    merge_scores([("right", right), ("left", left)], tmp_path / "both.parquet")
    rows = pl.read_parquet(tmp_path / "both.parquet")
    assert rows.filter("ignored")["position"].to_list() == [320]
    assert rows["paralog"].unique().to_list() == [1]


def test_a_reader_names_what_is_there(tmp_path: Path) -> None:
    paths = [written(tmp_path, name, tracks(seed)) for seed, name in enumerate(("left", "right"))]
    merge_scores([(None, path) for path in paths], tmp_path / "both.parquet")
    with pytest.raises(ArtifactError, match="no scores of base model pangolin; there are those of left, right"):
        ScoreFile.read([tmp_path / "both.parquet"], tmp_path / "out.parquet", {}, base_model="pangolin")
    with pytest.raises(ArtifactError, match="files of different base models"):
        write_tracks([tmp_path / "both.parquet", paths[0]], tmp_path / "out.parquet", {}, pl.DataFrame)
    frame = pl.read_parquet(tmp_path / "both.parquet")
    frame.with_columns(pl.col(score_columns("left")[0]).alias(BASE_SCORES[0])).write_parquet(tmp_path / "odd.parquet")
    with pytest.raises(ArtifactError, match="unnamed base model"):
        ScoreFile.read([tmp_path / "odd.parquet"], tmp_path / "out.parquet", {}, base_model="left")
    frame.drop(score_columns("left")[2]).write_parquet(tmp_path / "odd.parquet")
    with pytest.raises(ArtifactError, match=r"no column neither_score\.left"):
        ScoreFile.read([tmp_path / "odd.parquet"], tmp_path / "out.parquet", {}, base_model="left")
    assert not (tmp_path / "out.parquet").exists()


def _one_gene(genes: list[GeneTrack]) -> list[GeneTrack]:
    return genes[:1]


def _moved(genes: list[GeneTrack]) -> list[GeneTrack]:
    interval = genes[0].gene.interval
    place = replace(genes[0].gene, interval=replace(interval, start=interval.start + 1, end=interval.end + 1))
    return [replace(genes[0], gene=place), genes[1]]


def _other_letters(genes: list[GeneTrack]) -> list[GeneTrack]:
    return [replace(genes[0], tokens=genes[0].tokens[::-1]), genes[1]]


def _other_labels(genes: list[GeneTrack]) -> list[GeneTrack]:
    return [genes[0], replace(genes[1], labels=genes[1].labels[::-1])]


@pytest.mark.parametrize(
    ("change", "build", "words"),
    [
        (_one_gene, "GRCh38", r"1 genes have no scores of right \(the first TWO: absent\)"),
        (_moved, "GRCh38", "gene ONE has another place"),
        (_other_letters, "GRCh38", "gene ONE has another letters"),
        (_other_labels, "GRCh38", "gene TWO has another labels"),
        (list, "GRCh37", "left is of genome build GRCh38 and right of GRCh37"),
    ],
)
def test_refused(tmp_path: Path, change: object, build: str, words: str) -> None:
    assert callable(change)
    left, right = written(tmp_path, "left", tracks(0)), written(tmp_path, "right", change(tracks(1)), build)
    with pytest.raises(ArtifactError, match=words):
        merge_scores([(None, left), (None, right)], tmp_path / "both.parquet")
    assert not [path for path in tmp_path.iterdir() if "both" in path.name]


def test_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = written(tmp_path, "left", tracks(0)), written(tmp_path, "right", tracks(1))
    nameless = tmp_path / "nameless.parquet"
    pl.read_parquet(right).write_parquet(nameless)
    output = ["--output", str(tmp_path / "both.parquet")]
    for given, words in (
        ([left, left.with_name("absent.parquet")], "which is no file"),
        ([left, nameless], "does not say of which base model it is; name it: NAME=FILE"),
        ([left], "given left alone"),
    ):
        assert main(["merge", *map(str, given), *output]) == 2
        assert words in capsys.readouterr().err
    named = nameless.with_name("right_80_chr1.parquet")
    named.write_bytes(nameless.read_bytes())
    assert main(["merge", str(left), str(named), *output]) == 0
    assert base_models_in(tmp_path / "both.parquet") == ("left", "right_80")
    assert main(["merge", str(left), f"pangolin={nameless}", *output]) == 0
    assert pq.ParquetFile(tmp_path / "both.parquet").schema_arrow.names[5:11] == [
        *score_columns("left"),
        *score_columns("pangolin"),
    ]
    assert main(["merge", f"mine={tmp_path / 'both.parquet'}", str(left), *output]) == 2
    assert "give it without name" in capsys.readouterr().err
