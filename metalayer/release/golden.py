"""Golden rows: rows with the answers that every server of a model must give, in a Parquet that says what made them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from metalayer.files import publish_file
from metalayer.genome import N_TOKEN, decode
from metalayer.inference import Predictor
from metalayer.release.contract import INDEX, SEQUENCE
from metalayer.release.folder import MADE_WITH, made_with
from metalayer.schema import BASE_SCORES, CLASSES, ROW_SCORES

GOLDEN_ROWS = 64


def write_golden(rows: pl.DataFrame, row_scores: NDArray[np.float32], answers: NDArray[np.float32], path: Path) -> None:
    """Publish golden rows.

    Args:
        rows: n rows with `sequence` and `index`, and what else names them.
        row_scores: float32 (n, 7), columns `ROW_SCORES`.
        answers: float32 (n, 3), of the model on a CPU, as a server's are: a GPU rounds otherwise.
        path: Parquet to write.
    """
    golden = rows.hstack(
        [pl.Series(name, row_scores[:, i].astype(np.float64)) for i, name in enumerate(ROW_SCORES)]
        + [pl.Series(name, answers[:, i].astype(np.float64)) for i, name in enumerate(CLASSES)]
    )
    with publish_file(path) as draft:
        made = golden.to_arrow(compat_level=pl.CompatLevel.oldest())
        facts = {MADE_WITH: json.dumps(made_with())}
        pq.write_table(made.replace_schema_metadata(facts), draft, compression="zstd")


def made_up_golden(bundle: Path, path: Path) -> Path:
    """Golden rows of a model that comes without test genes: letters and scores at random, the same each time.

    Args:
        bundle: model directory.
        path: Parquet to write.

    Returns:
        `path`.

    Raises:
        ModelError, SchemaError: as in `Predictor.load`.
    """
    predictor = Predictor.load(bundle)
    rng, width = np.random.default_rng(0), predictor.schema.window_bp
    windows = rng.integers(0, N_TOKEN, (GOLDEN_ROWS, width), dtype=np.uint8)
    base = rng.dirichlet(np.full(len(BASE_SCORES), 0.2), GOLDEN_ROWS)
    context = rng.random((GOLDEN_ROWS, len(ROW_SCORES) - len(BASE_SCORES)))
    row_scores = np.concatenate([base, context], axis=1).astype(np.float32)
    rows = pl.DataFrame({SEQUENCE: [decode(one) for one in windows], INDEX: [width // 2] * GOLDEN_ROWS})
    write_golden(rows, row_scores, predictor.predict_rows(row_scores, windows), path)
    return path
