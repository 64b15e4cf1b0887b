"""The class of a row as a number."""

from __future__ import annotations

import polars as pl

from metalayer.schema import CLASSES


def class_code() -> pl.Expr:
    """`splice_type` as donor 0, acceptor 1, neither 2 (UInt8)."""
    return pl.col("splice_type").replace_strict(list(CLASSES), [0, 1, 2], return_dtype=pl.UInt8).alias("label")


def with_label(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with `label`, and a `sample_weight` of 1 (Float32)."""
    return rows.with_columns(class_code(), pl.lit(1.0, dtype=pl.Float32).alias("sample_weight"))
