"""Per-nucleotide scores with letters and labels are enough: rows are drawn from them as a pass draws them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from metalayer.base.artifacts import write_artifacts
from metalayer.core import ArtifactLoader
from metalayer.core.loader import ROWS, TRACKS
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError
from metalayer.settings.sections import DataConfig

Make = Callable[..., DataConfig]


@pytest.fixture
def written(simulation: Path, tmp_path: Path, data_config: Make) -> Path:
    """A base-layer pass over some simulated genes."""
    ArtifactLoader(data_config(simulation)).load(tmp_path / "read")
    store = TrackStore(tmp_path / "read" / TRACKS)
    chosen = sorted(store.genes().values(), key=lambda gene: (gene.interval.chrom, gene.interval.start))[:12]
    genes = [store.read(gene.gene_id) for gene in chosen]
    write_artifacts(tmp_path / "own", genes, base_model="pwm", annotation_source="sim", build="GRCh38")
    shutil.copy(simulation / "genes.tsv", tmp_path / "own")
    return tmp_path / "own"


def alone(root: Path) -> DataConfig:
    shutil.rmtree(root / "data")
    return DataConfig(base_model="pwm", data_root=root)


def test_the_rows_are_those_of_a_pass(written: Path, tmp_path: Path) -> None:
    report = ArtifactLoader(DataConfig(base_model="pwm", data_root=written)).load(tmp_path / "both")
    config = alone(written)
    drawn = ArtifactLoader(config).load(tmp_path / "alone")
    order = ("gene_id", "position")
    rows = [pl.read_parquet(tmp_path / name / ROWS).sort(order) for name in ("both", "alone")]
    assert len(rows[0]) > 100
    assert_frame_equal(*rows)
    assert (report["rows_from"], drawn["rows_from"]) == ("artifact files", "per-nucleotide scores")
    assert drawn["rows_as_they_stand"] == 0
    assert drawn["genome_build"] == "GRCh38"  # of the scores' metadata, where no folder says it
    found = ArtifactLoader(config).get_statistics()
    assert found["total_positions"] == len(rows[1])
    assert found["classes"] == dict(rows[1].group_by("splice_type").len().iter_rows())


def _without(column: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        pl.read_parquet(path).drop(column).write_parquet(path)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_without("label"), "no artifact rows, and per-nucleotide scores without a column label"),
        (_without("base"), "no column base"),
    ],
)
def test_scores_of_which_no_rows_can_be_made(
    written: Path, tmp_path: Path, change: Callable[[Path], None], words: str
) -> None:
    config = alone(written)
    for path in (written / "nucleotide_scores").iterdir():
        change(path)
    with pytest.raises(ArtifactError, match=words):
        ArtifactLoader(config).load(tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_the_original_tsv_needs_rows_beside_it(written: Path, tmp_path: Path) -> None:
    """It has neither letters nor labels, and is found beside rows only."""
    shutil.rmtree(written / "nucleotide_scores")
    with pytest.raises(ArtifactError, match=r"or .*nucleotide_scores/pwm_<chrom>\.parquet"):
        ArtifactLoader(alone(written)).load(tmp_path / "out")


def test_a_build_that_they_are_not_of(written: Path, tmp_path: Path) -> None:
    config = alone(written).model_copy(update={"genome_build": "GRCh37"})
    with pytest.raises(ArtifactError, match=r"given GRCh37, but the per-nucleotide scores of .* are of GRCh38"):
        ArtifactLoader(config).load(tmp_path / "out")


def test_rows_of_another_build_are_not_passed_over(written: Path, tmp_path: Path) -> None:
    """Where there are rows of the base model, scores alone are not what was asked for."""
    config = DataConfig(base_model="pwm", data_root=written, genome_build="GRCh37")
    with pytest.raises(ArtifactError, match="no artifacts of 'pwm' under GRCh37"):
        ArtifactLoader(config).load(tmp_path / "out")
