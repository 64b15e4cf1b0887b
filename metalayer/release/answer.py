"""What the score endpoints answer: every column, what it is, and what an answer says of itself.

The one place of these names and words: server, OpenAPI document, client, `metalayer score`, the MLflow model and
docs/formats.md take them from here. Scores are probabilities, 0 to 1, float32; the base model's are as they were given.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from metalayer.schema import BASE_SCORES, CLASSES

WAY, NOTE = "way", "note"
"""What an answer says of itself beside its rows: fields in JSON, metadata of the schema in Arrow and Parquet."""
FACTS: dict[str, str] = {
    WAY: "the way of asking, as in /v1/model; in Arrow metadata of the schema",
    NOTE: "how the model answers in this way; in Arrow likewise",
}
BASE = "base"
"""Asks for base scores beside the meta scores of rows: a query parameter, and a parameter of the MLflow model."""
BASE_COLUMNS: tuple[str, ...] = tuple(f"base_{name}" for name in CLASSES)
ROW_COLUMNS_WITH_BASE: tuple[str, ...] = (*CLASSES, *BASE_COLUMNS)
"""Of a row; without base scores an answer has `CLASSES`, which are the meta model's."""
SEQUENCE_COLUMNS: tuple[str, ...] = (*BASE_COLUMNS, *(f"meta_{name}" for name in CLASSES))
"""Of a position of a sequence, at its exon base."""
BASE_TEXT = f"true adds {', '.join(BASE_COLUMNS)} to each row; false, as when it is left out, does not"
PROBABILITY = "probability, 0 to 1"
_META = PROBABILITY + ": {} by the meta model, calibrated"
COLUMNS: dict[str, str] = {
    **{name: _META.format(name) for name in CLASSES},
    **{f"base_{name}": f"{PROBABILITY}: {name} by the base model, as it was given" for name in CLASSES},
    **{f"meta_{name}": _META.format(name) for name in CLASSES},
}
"""Each column of an answer in words, with its unit."""


def row_columns(base: bool) -> tuple[str, ...]:
    """Columns of a row, with base scores or without."""
    return ROW_COLUMNS_WITH_BASE if base else CLASSES


def beside(meta: NDArray[np.float32], row_scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Meta scores of rows with the base scores beside them.

    Args:
        meta: float32 (n, 3), probabilities by class.
        row_scores: float32 (n, 7), columns `ROW_SCORES`; the first three are the base scores by class.

    Returns:
        float32 (n, 6), columns `ROW_COLUMNS_WITH_BASE`.
    """
    return np.concatenate([meta, row_scores[:, : len(BASE_SCORES)]], axis=1)


def facts(way: str, note: str) -> dict[str, str]:
    """What an answer says of itself: the way of asking, and how the model answers in it."""
    return {WAY: way, NOTE: note}


def note_of(metadata: Mapping[bytes, bytes] | None, otherwise: str = "") -> str:
    """The note in the metadata of an Arrow or Parquet schema; `otherwise` where it has none."""
    return (metadata or {}).get(NOTE.encode(), otherwise.encode()).decode()
