"""Artifacts in, typed rows out: the traps of the on-disk form, one test each."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metalayer.core import ArtifactLoader
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError
from metalayer.features import gene_row_scores
from metalayer.genome import exon_base
from metalayer.schema import ACCEPTOR, DONOR, FEATURES, ROW_SCORES
from metalayer.settings.sections import DataConfig
from tests.conftest import artifact_files

Make = Callable[..., DataConfig]


def edit(path: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Rewrite a TSV, all columns as text."""
    frame = pl.read_csv(path, separator="\t", infer_schema=False)
    change(frame).write_csv(path, separator="\t")


def test_simulation_loads_and_is_rebuilt_from_tracks(simulation: Path, tmp_path: Path, data_config: Make) -> None:
    report = ArtifactLoader(data_config(simulation)).load(tmp_path)
    rows = pl.read_parquet(tmp_path / "rows.parquet")
    assert report["artifacts"]["rows_read"] == report["artifacts"]["rows_kept"] == len(rows)
    assert report["rows_rebuilt_from_tracks"] == len(rows)
    assert report["artifacts"]["mismatched_features"] == {}
    assert rows.columns[-50:] == list(FEATURES)
    assert set(rows["splice_type"].unique()) == {"donor", "acceptor", "neither"}


def test_trap_1_position_counts_from_the_five_prime_end(simulation: Path, tmp_path: Path, data_config: Make) -> None:
    ArtifactLoader(data_config(simulation)).load(tmp_path)
    rows = pl.read_parquet(tmp_path / "rows.parquet")
    store = TrackStore(tmp_path / "tracks.parquet")
    for strand in "+-":
        row = rows.filter(pl.col("strand") == strand, pl.col("splice_type") == "donor").row(0, named=True)
        gene = store.genes()[row["gene_id"]]
        table = pl.read_csv(simulation / "genes.tsv", separator="\t", schema_overrides={"chrom": pl.String})
        place = table.filter(pl.col("gene_id").str.ends_with(row["gene_id"])).row(0, named=True)
        expected = place["start"] - 1 + row["position"] if strand == "+" else place["end"] - 1 - row["position"]
        assert gene.genomic(row["position"]) == expected


def test_trap_2_rows_sit_on_intron_bases_and_tracks_on_exon_bases(
    simulation: Path, tmp_path: Path, data_config: Make
) -> None:
    ArtifactLoader(data_config(simulation)).load(tmp_path)
    rows = pl.read_parquet(tmp_path / "rows.parquet")
    store = TrackStore(tmp_path / "tracks.parquet")
    seen = set()
    for row in rows.filter(pl.col("splice_type") != "neither").iter_rows(named=True):
        track = store.read(row["gene_id"])
        site_class = DONOR if row["splice_type"] == "donor" else ACCEPTOR
        assert track.labels[exon_base(row["position"], site_class)] == site_class
        at = row["index"]
        letters = row["sequence"]
        assert (letters[at : at + 2] == "GT") if site_class == DONOR else (letters[at - 1 : at + 1] == "AG")
        seen.add((row["strand"], site_class))
    assert len(seen) == 4


def test_trap_3_the_labelled_base_is_not_always_in_the_middle(
    simulation: Path, tmp_path: Path, data_config: Make
) -> None:
    ArtifactLoader(data_config(simulation)).load(tmp_path)
    rows = pl.read_parquet(tmp_path / "rows.parquet")
    assert (rows["index"] == rows["position"].clip(upper_bound=250)).all()
    short = rows.filter(pl.col("sequence").str.len_chars() < 500)
    assert len(short), "some rows lie near a gene's end"
    assert (short["n_fraction"] > 0).all()


def test_trap_4_rows_with_tracks_follow_the_label_free_rule(
    simulation: Path, tmp_path: Path, data_config: Make
) -> None:
    ArtifactLoader(data_config(simulation)).load(tmp_path)
    rows = pl.read_parquet(tmp_path / "rows.parquet")
    store = TrackStore(tmp_path / "tracks.parquet")
    for (gene_id,), part in rows.group_by(["gene_id"]):
        expected = gene_row_scores(store.read(str(gene_id)).scores)[part["position"].to_numpy()]
        assert np.array_equal(part.select(ROW_SCORES).to_numpy(), expected)


def test_trap_4_rows_without_tracks_stand_and_the_report_says_so(
    simulation: Path, tmp_path: Path, data_config: Make
) -> None:
    empty = tmp_path / "none"
    empty.mkdir()
    report = ArtifactLoader(data_config(simulation, nucleotide_scores=empty)).load(tmp_path / "out")
    assert report["rows_as_they_stand"] == report["artifacts"]["rows_kept"]
    assert report["nucleotide_scores"] is None
    assert not (tmp_path / "out" / "tracks.parquet").exists()
    given = pl.read_csv(artifact_files(simulation)[0], separator="\t", schema_overrides={"chrom": pl.String})
    rows = pl.read_parquet(tmp_path / "out" / "rows.parquet")
    first = given.row(0, named=True)
    same = rows.filter(
        pl.col("gene_id") == first["gene_id"].removeprefix("gene-"), pl.col("position") == first["position"]
    ).row(0, named=True)
    assert same["donor_score"] == pytest.approx(float(first["donor_score"]), rel=1e-6)


def test_trap_5_scores_that_no_pass_gives_are_reported(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    """True sites of the original base layer carry the maximum over +-2 nt: a feature that knows the label."""

    def maximum(frame: pl.DataFrame) -> pl.DataFrame:
        is_site = pl.col("splice_type").is_in(["donor"])
        taken = pl.lit("0.9876"), pl.lit("0.0"), pl.lit("0.0124")
        names = ("donor_score", "acceptor_score", "neither_score")
        return frame.with_columns(
            [pl.when(is_site).then(v).otherwise(pl.col(n)).alias(n) for n, v in zip(names, taken, strict=True)]
        )

    edit(artifact_files(base_layer)[0], maximum)
    report = ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")
    assert report["rows_with_scores_of_no_pass"] > 0
    assert report["artifacts"]["mismatched_features"], "derived columns no longer fit"


def test_trap_7_rows_without_score_or_sequence_are_counted(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    def damage(frame: pl.DataFrame) -> pl.DataFrame:
        at = pl.int_range(pl.len())
        return frame.with_columns(
            pl.when(at == 0).then(None).otherwise("sequence").alias("sequence"),
            pl.when(at == 1).then(pl.lit("NaN")).otherwise("donor_score").alias("donor_score"),
            pl.when(at == 2).then(None).otherwise("context_score_p2").alias("context_score_p2"),
        )

    edit(artifact_files(base_layer)[0], damage)
    report = ArtifactLoader(data_config(base_layer, max_bad_share=0.5)).load(tmp_path / "out")["artifacts"]
    assert report["dropped"] == {"null or NaN score": 2, "no sequence": 1}
    assert report["rows_kept"] == report["rows_read"] - 3
    with pytest.raises(ArtifactError, match="max_bad_share = 1e-06"):
        ArtifactLoader(data_config(base_layer, max_bad_share=1e-6)).load(tmp_path / "again")
    assert not (tmp_path / "again" / "rows.parquet").exists()


def test_trap_8_a_one_base_intron_keeps_the_donor(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    def collide(frame: pl.DataFrame) -> pl.DataFrame:
        donor = frame.filter(pl.col("splice_type") == "donor").head(1)
        return pl.concat([frame, donor.with_columns(pl.lit("acceptor").alias("splice_type"))])

    edit(artifact_files(base_layer)[0], collide)
    report = ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")
    assert report["artifacts"]["acceptor_rows_lost"] == report["acceptors_sharing_a_donors_row"] == 1
    rows = pl.read_parquet(tmp_path / "out" / "rows.parquet")
    assert not rows.select("gene_id", "position").is_duplicated().any()
    assert len(rows) == report["artifacts"]["rows_kept"]


def test_chromosome_x_is_text_and_neither_is_written_in_any_way(
    base_layer: Path, tmp_path: Path, data_config: Make
) -> None:
    kinds = pl.Series(["", "neither", "Neither", "NEITHER", None])
    for path in artifact_files(base_layer):
        edit(
            path,
            lambda frame: frame.with_columns(
                pl.when(pl.col("splice_type").is_null())
                .then(pl.lit(kinds).implode().first().list.get(pl.int_range(pl.len()) % 5))
                .otherwise("splice_type")
                .alias("splice_type")
            ),
        )
    ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")
    rows = pl.read_parquet(tmp_path / "out" / "rows.parquet")
    assert "X" in rows["chrom"].unique().to_list()
    assert rows["chrom"].null_count() == 0
    assert set(rows["splice_type"].unique()) == {"donor", "acceptor", "neither"}


def test_columns_are_read_by_name_and_missing_derived_ones_are_computed(
    base_layer: Path, tmp_path: Path, data_config: Make
) -> None:
    ArtifactLoader(data_config(base_layer)).load(tmp_path / "before")
    kept = [name for name in FEATURES[:7]]
    for path in artifact_files(base_layer):
        edit(
            path,
            lambda frame: frame.select(
                "sequence", *kept[::-1], "chrom", "strand", "splice_type", "window_start", "position", "gene_id"
            ),
        )
    report = ArtifactLoader(data_config(base_layer)).load(tmp_path / "after")
    assert report["artifacts"]["derived_in_files"] == 0
    before, after = (pl.read_parquet(tmp_path / name / "rows.parquet") for name in ("before", "after"))
    assert before.equals(after)


def test_tracks_without_labels_take_them_from_the_rows(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    ArtifactLoader(data_config(base_layer)).load(tmp_path / "before")
    for path in base_layer.glob("nucleotide_scores/*.parquet"):
        pl.read_parquet(path).drop("label").write_parquet(path)
    report = ArtifactLoader(data_config(base_layer)).load(tmp_path / "after")
    assert report["nucleotide_scores"]["labels"] == "from the artifact rows"
    before, after = (pl.read_parquet(tmp_path / name / "tracks.parquet") for name in ("before", "after"))
    assert before["label"].equals(after["label"])


def test_original_tsv_scores_rebuild_rows_but_cannot_score_genes(
    base_layer: Path, tmp_path: Path, data_config: Make
) -> None:
    ArtifactLoader(data_config(base_layer)).load(tmp_path / "before")
    folder = artifact_files(base_layer)[0].parent
    for path in base_layer.glob("nucleotide_scores/*.parquet"):
        frame = pl.read_parquet(path).rename({"position": "genomic_position"}).drop("base", "label")
        columns = ["gene_id", "chrom", "strand", "genomic_position", "donor_score", "acceptor_score", "neither_score"]
        frame.select(columns).reverse().write_csv(folder / f"nucleotide_scores_{path.stem}.tsv", separator="\t")
        path.unlink()
    report = ArtifactLoader(data_config(base_layer)).load(tmp_path / "after")
    assert report["nucleotide_scores"]["letters"] is False
    assert not TrackStore(tmp_path / "after" / "tracks.parquet").has_letters
    before, after = (pl.read_parquet(tmp_path / name / "rows.parquet") for name in ("before", "after"))
    assert before.select(ROW_SCORES).equals(after.select(ROW_SCORES))


def test_fingerprint_follows_the_content(base_layer: Path, data_config: Make) -> None:
    loader = ArtifactLoader(data_config(base_layer))
    before = loader.fingerprint()
    assert loader.fingerprint() == before
    path = artifact_files(base_layer)[0]
    path.write_bytes(path.read_bytes().replace(b"A", b"C", 1))
    assert loader.fingerprint() != before


def test_real_files_load_without_a_mismatch(shared: Path, tmp_path: Path) -> None:
    config = DataConfig(base_model="openspliceai_80", data_root=shared / "real")
    report = ArtifactLoader(config).load(tmp_path)
    assert report["artifacts"]["rows_read"] == 6217
    # Of the 11 positions that overlapping genes label differently.
    assert report["rows_ignored"] == report["rows_contradicted"]["rows"] == 20
    assert report["artifacts"]["rows_kept"] == 6217 - 20
    assert report["artifacts"]["mismatched_features"] == {}
    assert report["rows_with_scores_of_no_pass"] == 0
    assert report["acceptors_sharing_a_donors_row"] == 1  # the 1-nt intron of SLC35E2B
    assert report["nucleotide_scores"]["positions"] == 2_559_210


def test_a_site_whose_row_is_dropped_stays_a_site(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    for path in base_layer.glob("nucleotide_scores/*.parquet"):
        pl.read_parquet(path).drop("label").write_parquet(path)
    path = artifact_files(base_layer)[0]
    row = (
        pl.read_csv(path, separator="\t", infer_schema=False)
        .filter(pl.col("splice_type") == "donor")
        .row(0, named=True)
    )
    here = (pl.col("gene_id") == row["gene_id"]) & (pl.col("position") == row["position"])
    edit(path, lambda frame: frame.with_columns(pl.when(here).then(None).otherwise("sequence").alias("sequence")))
    ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")
    track = TrackStore(tmp_path / "out" / "tracks.parquet").read(row["gene_id"].removeprefix("gene-"))
    assert track.labels[exon_base(int(row["position"]), DONOR)] == DONOR


def test_genes_that_the_table_lacks_are_placed_by_their_scores(
    base_layer: Path, tmp_path: Path, data_config: Make
) -> None:
    table = base_layer / "genes.tsv"
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(lines[:-3]))
    report = ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")
    assert (report["genes_in_table"], report["genes_placed_by_scores"]) == (len(lines) - 4, 3)
    assert len(pl.read_parquet(tmp_path / "out" / "genes.parquet")) == len(lines) - 1


def test_scores_of_a_base_model_with_a_longer_name_are_another_models(
    base_layer: Path, tmp_path: Path, data_config: Make
) -> None:
    folder = base_layer / "nucleotide_scores"
    for path in list(folder.glob("*.parquet")):
        pl.read_parquet(path).write_parquet(folder / path.name.replace("pwm_", "pwm_80_"))
    report = ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")
    assert report["nucleotide_scores"]["files"] == len(list(folder.glob("pwm_80_*")))
