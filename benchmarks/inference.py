"""Whole genes: one dense pass against a window per position, same weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.measure import Result, seconds
from metalayer.features import gene_row_scores
from metalayer.gene_track import GeneTrack
from metalayer.genome import Gene
from metalayer.inference import Predictor
from metalayer.models import MetaSpliceModel

LENGTH, WINDOWED = 50_000, 2_000


def run(data: Path) -> list[Result]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 4, LENGTH).astype(np.uint8)
    scores = rng.dirichlet([0.01, 0.01, 1.0], LENGTH).astype(np.float32)
    track = GeneTrack(Gene.from_table("g", "1", "+", 1, LENGTH), tokens, scores, np.full(LENGTH, 2, np.uint8))
    predictor = Predictor(MetaSpliceModel().eval(), {}, "")
    row_scores = gene_row_scores(scores)[:WINDOWED]
    padded = np.full(LENGTH + 500, 4, dtype=np.uint8)
    padded[250 : 250 + LENGTH] = tokens
    windows = np.lib.stride_tricks.sliding_window_view(padded, 500)[:WINDOWED]
    times = seconds(
        {
            "dense": lambda: predictor.predict_gene_track(track),
            "windowed": lambda: predictor.predict_rows(row_scores, windows),
        },
        repeats=3,
    )
    dense, windowed = LENGTH / times["dense"], WINDOWED / times["windowed"]
    return [
        Result("whole gene, dense", dense, "positions/s", "a window per position", dense / windowed, f"L = {LENGTH:,}"),
        Result("rows, chunks of 32", windowed, "rows/s"),
    ]
