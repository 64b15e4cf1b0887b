"""Drift between parts is found where there is some, and nowhere else."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metalayer.errors import EvaluationError
from metalayer.evaluation import drift as module
from metalayer.evaluation.drift import row_drift
from metalayer.schema import FEATURES

MANIFEST = {"train": {"genes": ["A"]}, "test": {"genes": ["B"]}}


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    n = 3000
    frame = pl.DataFrame({name: rng.normal(size=n).astype(np.float32) for name in FEATURES}).with_columns(
        pl.Series("gene_id", np.repeat(["A", "B"], n // 2)),
        pl.Series("splice_type", rng.choice(["donor", "acceptor", "neither"], n)),
    )
    in_test = pl.col("gene_id") == "B"
    shifted = frame.with_columns(
        pl.when(in_test).then(pl.col("gc_fraction") + 2).otherwise("gc_fraction").alias("gc_fraction")
    )
    shifted.write_parquet(tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


@pytest.mark.integration
def test_only_the_shifted_feature_drifts(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from evidently.metrics import column_statistics

    drawn: list[str] = []
    draw = column_statistics.distribution
    monkeypatch.setattr(
        column_statistics, "distribution", lambda *given: drawn.append(given[1].data.name) or draw(*given)
    )
    unseen: list[object] = []
    monkeypatch.setattr(column_statistics.ValueDriftCalculation, "_render", lambda *given: unseen.append(given) or [])
    drift = row_drift(rows, MANIFEST, tmp_path / "drift.html")
    assert not unseen  # the page shows the table's own figures
    assert sorted(drawn) == sorted([*FEATURES, "splice_type"])  # once a column
    assert drift["drifted"] == ["gc_fraction"]
    assert drift["rows"] == {"train": 1500, "test": 1500}
    assert len(drift["columns"]) == len(FEATURES) + 1
    # Far on either side of the threshold.
    others = [value for name, value in drift["columns"].items() if name != "gc_fraction"]
    assert max(others) < drift["threshold"] / 2 < drift["threshold"] * 2 < drift["columns"]["gc_fraction"]
    page = (tmp_path / "drift.html").read_text("utf-8")
    first = page.partition("<body>")[2].partition("</p>")[0]
    assert (
        "1 of 51 columns differ between training and test rows by a PSI (population stability index) above 0.25 "
        "(gc_fraction)"
    ) in first
    assert "reference): 1,500 rows of training genes. Test (its current): 1,500 rows of test genes." in first
    for name in module._NAMES:
        assert name not in page
    for name in module._NAMES.values():  # and what is called otherwise is there
        assert name in page


def test_part_without_rows(rows: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="test part has no rows"):
        row_drift(rows, {**MANIFEST, "test": {"genes": ["C"]}}, tmp_path / "drift.html")
    assert not (tmp_path / "drift.html").exists()
