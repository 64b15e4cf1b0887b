"""Data summary and drift between training and test rows, as an Evidently page. The only file that imports evidently.

Method: the population stability index (PSI) of every feature and of the class, on at most
`SAMPLE_ROWS` rows of either part; a column has drifted above `PSI_THRESHOLD`. Two samples of one
distribution differ by about 29 * (1/n + 1/m) in 30 bins, 0.012 at 5,000 rows each, so the threshold
is far from chance. Features that are ratios of nearly nothing are compared after a signed logarithm.
"""

from __future__ import annotations

import contextlib
import functools
import html
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
_NAMES = {
    '"name": "current"': '"name": "test"',
    '"name": "reference"': '"name": "training"',
    '"current (mean)"': '"test (mean)"',
    '"reference (mean)"': '"training (mean)"',
    '"reference (+/- 1std)"': '"training (+/- 1std)"',
    '["current", "reference"]': '["test", "training"]',
    '"Current Distribution"': '"Test rows"',
    '"Reference Distribution"': '"Training rows"',
    '["Metric", "Current", "Reference"]': '["Metric", "Test", "Training"]',
}
"""What Evidently 0.7.23 calls the parts, as its page has it, and what they are."""

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
    page, psi = _evidently(reference, current)
    drifted = sorted((name for name, value in psi.items() if value > PSI_THRESHOLD), key=lambda name: -psi[name])
    with publish_file(output) as draft:
        draft.write_text(
            _led_by(_in_words(drifted, len(psi), len(reference), len(current)), _named(page)), encoding="utf-8"
        )
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


def _in_words(drifted: Sequence[str], columns: int, trained: int, tested: int) -> str:
    """What the page shows, in a sentence, and which of its two columns is which."""
    differ = f"{len(drifted)} of {columns} columns differ" if drifted else f"None of {columns} columns differs"
    psi = f"PSI (population stability index) above {PSI_THRESHOLD:g}"
    named = f" ({', '.join(drifted[:5])}{' ...' * (len(drifted) > 5)})" if drifted else ""
    return (
        f"{differ} between training and test rows by a {psi}{named}. "
        f"Training (Evidently's reference): {trained:,} rows of training genes. "
        f"Test (its current): {tested:,} rows of test genes."
    )


def _named(page: str) -> str:
    """The page with training and test instead of reference and current, in tables and legends."""
    for known, ours in _NAMES.items():
        page = page.replace(known, ours)
    return page


def _led_by(sentence: str, page: str) -> str:
    """Evidently's page with a sentence before it; on a narrow screen it is scrolled, where it would be cut off."""
    head, body, rest = page.partition("<body>")
    if not body:
        raise EvaluationError("the page of Evidently has no body to begin with; look for a version that was tested")
    style = "margin:0;padding:16px 24px;font:18px/1.5 system-ui,sans-serif;background:#fff;color:#24292f"
    wide = "<style>[id^=root_metric]{min-width:960px}</style>"
    return f'{head}{body}{wide}<p style="{style}">{html.escape(sentence)}</p>{rest}'


def _evidently(reference: pd.DataFrame, current: pd.DataFrame) -> tuple[str, dict[str, float]]:
    """The page, and the PSI of each column."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # constant columns make Evidently divide by zero
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset, DataSummaryPreset

        definition = DataDefinition(numerical_columns=list(FEATURES), categorical_columns=[CLASS_COLUMN])
        drift = DataDriftPreset(
            num_method=METHOD, num_threshold=PSI_THRESHOLD, cat_method=METHOD, cat_threshold=PSI_THRESHOLD
        )
        with _only_what_is_shown():
            snapshot = Report([drift, DataSummaryPreset()]).run(
                Dataset.from_pandas(current, data_definition=definition),
                Dataset.from_pandas(reference, data_definition=definition),
            )
        page = snapshot.get_html_str(as_iframe=False)
    return page, {
        metric["config"]["column"]: float(metric["value"])
        for metric in snapshot.dict()["metrics"]
        if metric["config"]["type"].endswith(":ValueDrift")
    }


@contextlib.contextmanager
def _only_what_is_shown() -> Iterator[None]:
    """Draw what Evidently 0.7.23 shows: one histogram of a column, not seven, and its drift in the table alone.

    Plotly takes the names of a figure's properties apart at each use of one, always to the same end: here once each.
    """
    from evidently.metrics import column_statistics
    from plotly import basedatatypes

    draw = column_statistics.distribution
    drawn: dict[str, Any] = {}

    def once(title: str, current: Any, reference: Any) -> Any:
        name = str(current.data.name)
        if name not in drawn:
            drawn[name] = draw(title, current, reference)
        return drawn[name]

    of_drift = column_statistics.ValueDriftCalculation
    draw_drift = of_drift._render
    column_statistics.distribution = once
    of_drift._render = lambda *_: []
    take_apart = basedatatypes._str_to_dict_path_full
    basedatatypes._str_to_dict_path_full = functools.cache(take_apart)
    try:
        yield
    finally:
        basedatatypes._str_to_dict_path_full = take_apart
        column_statistics.distribution = draw
        of_drift._render = draw_drift
