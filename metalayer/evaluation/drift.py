"""Data summary and drift between training and test rows, as an Evidently page. The only file that imports evidently.

Method: the population stability index (PSI) of every feature and of the class, on at most
`SAMPLE_ROWS` rows of either part; a column has drifted above `PSI_THRESHOLD`. Two samples of one
distribution differ by about 29 * (1/n + 1/m) in 30 bins, 0.012 at 5,000 rows each, so the threshold
is far from chance. Features that are ratios of nearly nothing are compared after a signed logarithm.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from metalayer.errors import EvaluationError
from metalayer.files import publish_file
from metalayer.schema import FEATURES, RATIO_FEATURES

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_ROWS = 5000
PSI_THRESHOLD = 0.25
"""The usual bound of a major change; below 0.1 there is none to speak of."""
CLASS_COLUMN = "splice_type"
METHOD = "psi"

logger = logging.getLogger(__name__)


def row_drift(rows: Path, manifest: Mapping[str, Any], output: Path, *, seed: int = 42) -> dict[str, Any]:
    """Compare test rows with training rows and write an HTML page, whole or not at all.

    Args:
        rows: labelled rows.
        manifest: of `make_split`.
        output: the page.
        seed: draws the rows.

    Returns:
        method, threshold, rows (of each part), columns (PSI by column), drifted (names), share:
        JSON-ready.

    Raises:
        EvaluationError: a part without rows.
    """
    reference = _sample(rows, manifest["train"]["genes"], "train", seed)
    current = _sample(rows, manifest["test"]["genes"], "test", seed)
    psi = _evidently(reference, current, output)
    drifted = sorted((name for name, value in psi.items() if value > PSI_THRESHOLD), key=lambda name: -psi[name])
    logger.info(
        "drift: %d of %d columns above PSI %g between training and test rows", *(len(drifted), len(psi)), PSI_THRESHOLD
    )
    return {
        "method": METHOD,
        "threshold": PSI_THRESHOLD,
        "rows": {"train": len(reference), "test": len(current)},
        "columns": psi,
        "drifted": drifted,
        "share": len(drifted) / len(psi),
    }


def _sample(rows: Path, genes: Sequence[str], part: str, seed: int) -> pd.DataFrame:
    """At most `SAMPLE_ROWS` rows of some genes, evenly drawn; only these are read in full."""
    table = pl.scan_parquet(rows, row_index_name="row")
    of_part = table.filter(pl.col("gene_id").is_in(list(genes))).select("row").collect()["row"].to_numpy()
    if not len(of_part):
        raise EvaluationError(f"the {part} part has no rows to compare; change the split")
    drawn = np.random.default_rng(seed).permutation(of_part)[:SAMPLE_ROWS]
    sample = table.filter(pl.col("row").is_in(drawn.tolist())).select(CLASS_COLUMN, *FEATURES).collect()
    ratios = [pl.col(name).sign() * pl.col(name).abs().log1p() for name in FEATURES if name in RATIO_FEATURES]
    return sample.with_columns(ratios).to_pandas()


def _evidently(reference: pd.DataFrame, current: pd.DataFrame, output: Path) -> dict[str, float]:
    """Write the page; returns the PSI of each column."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # constant columns make Evidently divide by zero
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset, DataSummaryPreset

        definition = DataDefinition(numerical_columns=list(FEATURES), categorical_columns=[CLASS_COLUMN])
        drift = DataDriftPreset(
            num_method=METHOD, num_threshold=PSI_THRESHOLD, cat_method=METHOD, cat_threshold=PSI_THRESHOLD
        )
        with _one_figure_a_column():
            snapshot = Report([drift, DataSummaryPreset()]).run(
                Dataset.from_pandas(current, data_definition=definition),
                Dataset.from_pandas(reference, data_definition=definition),
            )
        with publish_file(output) as draft:
            snapshot.save_html(str(draft))
    return {
        metric["config"]["column"]: float(metric["value"])
        for metric in snapshot.dict()["metrics"]
        if metric["config"]["type"].endswith(":ValueDrift")
    }


@contextlib.contextmanager
def _one_figure_a_column() -> Iterator[None]:
    """Draw the histogram of a column once: Evidently 0.7.23 does for each of its seven statistics, and shows one."""
    from evidently.metrics import column_statistics

    draw = column_statistics.distribution
    drawn: dict[str, Any] = {}

    def once(title: str, current: Any, reference: Any) -> Any:
        name = str(current.data.name)
        if name not in drawn:
            drawn[name] = draw(title, current, reference)
        return drawn[name]

    column_statistics.distribution = once
    try:
        yield
    finally:
        column_statistics.distribution = draw
