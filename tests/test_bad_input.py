"""What cannot be used is refused: a message that says what and where, and nothing half-written."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from metalayer.core import ArtifactLoader
from metalayer.errors import ArtifactError
from metalayer.schema import CLASSES
from metalayer.settings.sections import DataConfig
from tests.conftest import artifact_files
from tests.test_loader import edit

Make = Callable[..., DataConfig]


def first_row(column: str, value: str | None) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Put `value` into the first row of `column`."""
    at_first = pl.int_range(pl.len()) == 0
    return lambda frame: frame.with_columns(pl.when(at_first).then(pl.lit(value)).otherwise(column).alias(column))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("donor_score", "1.2", "donor_score 1.2 is no probability"),
        ("donor_score", "-0.1", "is no probability"),
        ("context_score_m1", "inf", "context_score_m1 inf is no probability"),
        ("neither_score", "0.5", "must be 1 within 0.01"),
        ("sequence", "ACGTR" * 100, "letter"),
        ("window_start", "999999", "does not reach the labelled base"),
        ("strand", ".", "strand must be"),
        ("splice_type", "exonic", "allowed are donor, acceptor, neither"),
        ("position", None, "none of these may be empty"),
        ("position", "-7", "positions count from 0"),
        ("donor_score", "many", "numbers as numbers"),
    ],
)
def test_impossible_values(
    base_layer: Path, tmp_path: Path, data_config: Make, column: str, value: str | None, message: str
) -> None:
    edit(artifact_files(base_layer)[0], first_row(column, value))
    out = tmp_path / "out"
    with pytest.raises(ArtifactError, match=message):
        ArtifactLoader(data_config(base_layer)).load(out)
    assert not (out / "rows.parquet").exists()
    assert not list(out.glob(".*draft*"))


def test_no_files(base_layer: Path, data_config: Make) -> None:
    for path in artifact_files(base_layer):
        path.unlink()
    with pytest.raises(ArtifactError, match="run the base-layer pass"):
        ArtifactLoader(data_config(base_layer)).fingerprint()


def test_no_data_folder(tmp_path: Path, data_config: Make) -> None:
    with pytest.raises(ArtifactError, match="has no folder data/"):
        ArtifactLoader(data_config(tmp_path)).fingerprint()


def test_unknown_base_model_names_those_there(base_layer: Path, data_config: Make) -> None:
    with pytest.raises(ArtifactError, match="there are pwm"):
        ArtifactLoader(data_config(base_layer, base_model="spliceai")).fingerprint()


def test_empty_file(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    artifact_files(base_layer)[1].write_bytes(b"")
    with pytest.raises(ArtifactError, match="the file is empty"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")


@pytest.mark.parametrize("cut", [1, 40, 700])
def test_truncated_last_line(base_layer: Path, tmp_path: Path, data_config: Make, cut: int) -> None:
    path = artifact_files(base_layer)[0]
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ArtifactError, match="last line is cut short"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")


def test_missing_column(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    edit(artifact_files(base_layer)[0], lambda frame: frame.drop("context_score_p1", "sequence"))
    with pytest.raises(ArtifactError, match="no column context_score_p1, sequence"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")


def test_duplicate_keys(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    edit(artifact_files(base_layer)[0], lambda frame: pl.concat([frame, frame.head(2)]))
    with pytest.raises(ArtifactError, match=r"2 keys .* more than once"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")
    assert not (tmp_path / "out" / "rows.parquet").exists()


def test_a_chunk_that_is_there_twice(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    path = artifact_files(base_layer)[0]
    path.with_name(path.name.replace("_chunk_1_", "_chunk_501_")).write_bytes(path.read_bytes())
    with pytest.raises(ArtifactError, match="Is a chunk there twice"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")


def test_mixed_builds(base_layer: Path, data_config: Make) -> None:
    source = artifact_files(base_layer)[0]
    build = source.parents[2]
    other = build.with_name("GRCh37") / source.parents[1].name / "meta_models"
    other.mkdir(parents=True)
    (other / source.name).write_bytes(source.read_bytes())
    with pytest.raises(ArtifactError, match="Genome builds are never mixed"):
        ArtifactLoader(data_config(base_layer)).fingerprint()
    assert ArtifactLoader(data_config(base_layer, genome_build=build.name)).files().genome_build == build.name


def test_gene_table_of_another_build(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    table = pl.read_csv(base_layer / "genes.tsv", separator="\t", schema_overrides={"chrom": pl.String})
    table.with_columns(pl.col("start") + 500).write_csv(base_layer / "genes.tsv", separator="\t")
    with pytest.raises(ArtifactError, match="genome build"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop("strand"), "no column strand"),
        (lambda f: pl.concat([f, f.head(1)]), "stands there 2 times"),
        (lambda f: f.with_columns(pl.lit(0).alias("start")), "are no gene"),
    ],
)
def test_gene_tables_that_are_none(
    base_layer: Path, tmp_path: Path, data_config: Make, change: Callable[[pl.DataFrame], pl.DataFrame], message: str
) -> None:
    path = base_layer / "genes.tsv"
    change(pl.read_csv(path, separator="\t", schema_overrides={"chrom": pl.String})).write_csv(path, separator="\t")
    with pytest.raises(ArtifactError, match=message):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: pl.concat([f.head(50), f.tail(-51)]), "a gap of 1"),
        (lambda f: pl.concat([f.head(50), f.tail(-49)]), "a duplicate"),
        (lambda f: f.with_columns(pl.col("donor_score") + 0.2), "not adding up"),
        (lambda f: f.drop("base"), "no column base"),
        (lambda f: f.with_columns(pl.lit("R").alias("base")), "allowed are ACGTN"),
    ],
)
def test_per_nucleotide_files_that_cannot_be(
    base_layer: Path, tmp_path: Path, data_config: Make, change: Callable[[pl.DataFrame], pl.DataFrame], message: str
) -> None:
    path = sorted(base_layer.glob("nucleotide_scores/*.parquet"))[0]
    change(pl.read_parquet(path)).write_parquet(path)
    with pytest.raises(ArtifactError, match=message):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")
    assert not (tmp_path / "out" / "tracks.parquet").exists()


def test_truncated_parquet(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    path = sorted(base_layer.glob("nucleotide_scores/*.parquet"))[0]
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ArtifactError, match="not a whole Parquet file"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")


def test_a_line_cut_short_in_the_middle(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    """Where splice_type stands last, such a line would read as `neither`."""
    path = artifact_files(base_layer)[0]
    edit(path, lambda frame: frame.select(pl.exclude("splice_type"), "splice_type"))
    lines = path.read_bytes().split(b"\n")
    lines[3] = lines[3].rsplit(b"\t", 1)[0]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(ArtifactError, match="line 4: 56 fields, but the header has 57"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")


@pytest.mark.parametrize("with_table", [True, False])
def test_rows_of_one_gene_in_two_places(
    base_layer: Path, tmp_path: Path, data_config: Make, *, with_table: bool
) -> None:
    if not with_table:
        (base_layer / "genes.tsv").unlink()
        for path in base_layer.glob("nucleotide_scores/*"):
            path.unlink()
    path = artifact_files(base_layer)[0]
    strand = pl.read_csv(path, separator="\t", infer_schema=False)["strand"][0]
    edit(path, first_row("strand", "-" if strand == "+" else "+"))
    with pytest.raises(ArtifactError, match="One gene lies in one place"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")


def test_a_chromosome_other_than_the_file_name_says(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    edit(artifact_files(base_layer)[0], first_row("chrom", "22"))
    with pytest.raises(ArtifactError, match="the file's name says chromosome"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")


def test_per_nucleotide_scores_of_another_base_model(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    for path in base_layer.glob("nucleotide_scores/*.parquet"):
        flatter = [pl.col(f"{name}_score").sqrt() for name in CLASSES]
        pl.read_parquet(path).with_columns(score / pl.sum_horizontal(flatter) for score in flatter).write_parquet(path)
    with pytest.raises(ArtifactError, match="negative rows have other scores"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")


def test_damaged_and_mistyped_parquet(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    path = next(iter(sorted(base_layer.glob("nucleotide_scores/*.parquet"))))
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + b"\x00" * (len(whole) // 2) + whole[200 + len(whole) // 2 :])
    with pytest.raises(ArtifactError, match="copy or write it again"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")
    path.write_bytes(whole)
    pl.read_parquet(path).with_columns(pl.lit("here").alias("position")).write_parquet(path)
    with pytest.raises(ArtifactError, match="a column of the wrong type"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")


def test_header_only_files(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    for path in artifact_files(base_layer):
        path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n")
    for path in base_layer.glob("nucleotide_scores/*.parquet"):
        pl.read_parquet(path).drop("label").write_parquet(path)
    with pytest.raises(ArtifactError, match="no rows in the"):
        ArtifactLoader(data_config(base_layer)).load(tmp_path / "out")
