"""Positions and rows that count neither in training nor in evaluation, whether a file marks them or genes disagree."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metalayer.base.artifacts import write_artifacts
from metalayer.core import ArtifactLoader
from metalayer.data.crops import GeneArrays
from metalayer.data.ignored_rows import contradicted_rows
from metalayer.data.nucleotide_scores import write_tracks
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError
from metalayer.evaluation.answers import test_set_digest as digest_of_genes
from metalayer.evaluation.metrics import GeneScores
from metalayer.evaluation.report import evaluate
from metalayer.evaluation.tables import report_table
from metalayer.gene_track import GeneTrack
from metalayer.genome import Gene, intron_base
from metalayer.schema import ACCEPTOR, DONOR, NEITHER
from metalayer.settings.sections import DataConfig, EvaluateConfig

LENGTH = 60


def track(gene: Gene, sites: dict[int, int]) -> GeneTrack:
    """A gene with sites at exon bases, by 1-based genomic position."""
    rng = np.random.default_rng([gene.interval.start, ord(gene.strand)])
    labels = np.full(len(gene), NEITHER, np.uint8)
    for position, site_class in sites.items():
        labels[gene.index(position - 1)] = site_class
    scores = rng.dirichlet([1, 1, 30], len(gene)).astype(np.float32)
    return GeneTrack(gene, rng.integers(0, 4, len(gene)).astype(np.uint8), scores, labels)


def overlapping(strand: str) -> list[GeneTrack]:
    """Two genes of a strand that share 131 to 160, and disagree at 140 and 150; they agree at 145."""
    one = Gene.from_table("ONE", "1", strand, 101, 160)
    two = Gene.from_table("TWO", "1", strand, 131, 190)
    return [
        track(one, {110: DONOR, 120: ACCEPTOR, 140: DONOR, 145: ACCEPTOR}),
        track(two, {145: ACCEPTOR, 150: DONOR, 170: ACCEPTOR, 175: DONOR}),
    ]


def artifacts(folder: Path, genes: list[GeneTrack]) -> DataConfig:
    write_artifacts(folder, genes, base_model="b", annotation_source="a", build="GRCh38")
    return DataConfig(base_model="b", data_root=folder)


@pytest.mark.parametrize("strand", ["+", "-"])
@pytest.mark.parametrize("with_scores", [True, False])
def test_rows_of_a_base_that_genes_label_differently_are_left_out(
    tmp_path: Path, strand: str, with_scores: bool
) -> None:
    config = artifacts(tmp_path, overlapping(strand))
    if not with_scores:
        lines = ["gene_id\tgene_name\tchrom\tstrand\tstart\tend"]
        lines += [
            f"{one.gene.gene_id}\t\t1\t{strand}\t{one.gene.interval.start + 1}\t{one.gene.interval.end}"
            for one in overlapping(strand)
        ]
        (tmp_path / "genes.tsv").write_text("\n".join(lines) + "\n")
        config.nucleotide_scores = tmp_path / "none"
        config.nucleotide_scores.mkdir()
    report = ArtifactLoader(config).load(tmp_path / "typed")
    rows = pl.read_parquet(tmp_path / "typed" / "rows.parquet")
    step = 1 if strand == "+" else -1
    odd = {140 + step, 150 + step}  # intron bases of the donors, 1-based genomic
    genes = {one.gene.gene_id: one.gene for one in overlapping(strand)}
    there = {
        (row[0], genes[row[0]].genomic(row[1]) + 1, row[2])
        for row in rows.select("gene_id", "position", "splice_type").iter_rows()
    }
    assert not odd & {position for _, position, _ in there}
    assert {(gene, position) for gene, position, kind in there if kind == "donor"} == {
        ("ONE", 110 + step),
        ("TWO", 175 + step),
    }
    # Where they agree, both stay.
    assert {gene for gene, position, kind in there if kind == "acceptor" and position == 145 - step} == {"ONE", "TWO"}
    found = report["rows_contradicted"]
    assert found["rows"] == len(found["list"]) <= report["rows_ignored"]
    assert {("ONE", "donor"), ("TWO", "donor")} <= {(row["gene_id"], row["splice_type"]) for row in found["list"]}
    assert report["artifacts"]["rows_kept"] == len(rows) == report["artifacts"]["rows_read"] - report["rows_ignored"]


def test_an_intron_of_one_base_contradicts_nothing() -> None:
    """Its row is a donor and an acceptor."""
    gene = Gene.from_table("G", "1", "+", 1, 100)
    keys = pl.DataFrame(
        {"gene_id": ["G", "G"], "position": [50, 50], "splice_type": ["donor", "acceptor"]},
        schema_overrides={"position": pl.Int32},
    )
    assert contradicted_rows(keys, {"G": gene}).is_empty()
    other = Gene.from_table("H", "1", "+", 200, 300)
    both = pl.concat([keys, keys.with_columns(gene_id=pl.lit("H"))])
    assert contradicted_rows(both, {"G": gene, "H": other}).is_empty()


def written(folder: Path, gene: GeneTrack, marked: list[int] | None) -> Path:
    """Per-nucleotide Parquet of one gene, positions marked as ignored, 1-based genomic."""
    write_artifacts(folder / "made", [gene], base_model="b", annotation_source="a", build="GRCh38")
    frame = pl.read_parquet(folder / "made" / "nucleotide_scores" / "b_chr1.parquet")
    if marked is not None:
        frame = frame.with_columns(
            pl.when(pl.col("position").is_in(marked)).then(statement=True).alias("ignored")  # null elsewhere
        )
    frame.write_parquet(folder / "scores.parquet")
    return folder / "scores.parquet"


@pytest.mark.parametrize("strand", ["+", "-"])
def test_marked_positions_reach_all_that_reads_them(tmp_path: Path, strand: str) -> None:
    gene = track(Gene.from_table("G", "1", strand, 101, 160), {110: DONOR, 120: ACCEPTOR, 140: DONOR, 150: ACCEPTOR})
    marked = [105, 140]
    found = write_tracks([written(tmp_path, gene, marked)], tmp_path / "tracks.parquet", {}, pl.DataFrame)
    assert (found.ignored, found.contradicted) == (2, 0)
    store = TrackStore(tmp_path / "tracks.parquet")
    read = store.read("G")
    assert sorted(gene.gene.genomic(read.ignored) + 1) == marked
    assert read.labels.tolist() == gene.labels.tolist()
    arrays = GeneArrays.read(store, ["G"])
    assert arrays.weights is not None
    assert np.flatnonzero(arrays.weights == 0).tolist() == read.ignored.tolist()
    scores = GeneScores(
        "G", "1", read.labels, {"base": read.scores, "meta": read.scores}, read.gene, ignored=read.ignored
    )
    report = evaluate([scores], EvaluateConfig(n_bootstrap=100), unit="positions")
    assert report["positions"] == LENGTH - 2
    assert report["sites"] == {"donor": 1, "acceptor": 2}
    assert (report["overlaps"]["ignored"], report["overlaps"]["shared"]) == (2, 0)
    assert "2 ignored because the files mark them" in report_table(report, [])
    plain = GeneScores("G", "1", read.labels, scores.scores, read.gene)
    assert digest_of_genes([scores]) != digest_of_genes([plain])


def test_rows_of_marked_positions_are_left_out(tmp_path: Path) -> None:
    gene = track(Gene.from_table("G", "1", "+", 101, 160), {110: DONOR, 120: ACCEPTOR, 140: DONOR, 150: ACCEPTOR})
    config = artifacts(tmp_path, [gene])
    written(tmp_path, gene, [140]).replace(tmp_path / "nucleotide_scores" / "b_chr1.parquet")
    report = ArtifactLoader(config).load(tmp_path / "typed")
    rows = pl.read_parquet(tmp_path / "typed" / "rows.parquet")
    donors = rows.filter(pl.col("splice_type") == "donor")["position"].to_list()
    assert donors == [intron_base(gene.gene.index(109), DONOR)]
    assert (report["rows_ignored"], report["rows_contradicted"]["rows"]) == (1, 0)


@pytest.mark.parametrize(("value", "words"), [("maybe", "ignored is true or false"), (None, "")])
def test_what_the_column_may_hold(tmp_path: Path, value: str | None, words: str) -> None:
    gene = track(Gene.from_table("G", "1", "+", 101, 160), {110: DONOR, 120: ACCEPTOR})
    path = written(tmp_path, gene, [])
    pl.read_parquet(path).with_columns(ignored=pl.lit(value)).write_parquet(path)
    if words:
        with pytest.raises(ArtifactError, match=words):
            write_tracks([path], tmp_path / "tracks.parquet", {}, pl.DataFrame)
    else:
        assert write_tracks([path], tmp_path / "tracks.parquet", {}, pl.DataFrame).ignored == 0


def test_a_store_of_an_older_format_is_refused(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    gene = track(Gene.from_table("G", "1", "+", 101, 160), {110: DONOR, 120: ACCEPTOR})
    write_tracks([written(tmp_path, gene, None)], tmp_path / "tracks.parquet", {}, pl.DataFrame)
    table = pq.read_table(tmp_path / "tracks.parquet")
    older = {
        key: value
        for key, value in pq.ParquetFile(tmp_path / "tracks.parquet").metadata.metadata.items()
        if key not in (b"metalayer.ignored", b"metalayer.sha256")
    }
    pq.write_table(table.replace_schema_metadata(older), tmp_path / "older.parquet")
    with pytest.raises(ArtifactError, match="written by an earlier metalayer"):
        TrackStore(tmp_path / "older.parquet")
