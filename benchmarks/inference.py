"""Whole genes: one dense pass against a window per position in chunks of 32, same weights; memory of 2 Mb."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.measure import Result, seconds
from metalayer.core import MetaLayerConfig
from metalayer.features import feature_matrix, gene_row_scores
from metalayer.inference import Predictor
from metalayer.models import MetaSpliceModel
from metalayer.models.meta import build_model
from metalayer.schema import POSITIONS

LENGTH, WINDOWED, CHUNK, LONG = 50_000, 2_048, 32, 2_000_000


def run(data: Path) -> list[Result]:
    torch.manual_seed(0)
    letters_too = MetaSpliceModel(track_encoder="stages")
    return [
        *_compared("tracks (preset genes)", build_model(MetaLayerConfig.from_yaml("genes"))),
        *_compared("scores, letters and tracks", letters_too),
        _memory(),
    ]


def _compared(name: str, model: MetaSpliceModel) -> list[Result]:
    predictor = Predictor(model.eval(), {}, "")
    sequence, scores = made_up(LENGTH)
    tokens = np.frombuffer(sequence.encode(), np.uint8) % 5 % 4  # any four letters do
    windows = _around(tokens.astype(np.uint8), 500)
    read = _around(tokens.astype(np.uint8), model.context_bp) if model.track_letters_bp else windows
    tracks = _around(scores, model.context_bp)
    row_scores = gene_row_scores(scores)[:WINDOWED]

    @torch.inference_mode()
    def windowed() -> None:
        for start in range(0, WINDOWED, CHUNK):
            rows = slice(start, start + CHUNK)
            features = torch.from_numpy(feature_matrix(row_scores[rows], windows[rows]))
            model.calibrate(model(torch.from_numpy(read[rows]), features, torch.from_numpy(tracks[rows])), POSITIONS)

    times = seconds({"dense": lambda: predictor.predict_tracks(sequence, scores), "windowed": windowed}, repeats=3)
    dense, rate = LENGTH / times["dense"], WINDOWED / times["windowed"]
    note = f"L = {LENGTH:,}, aim 25 and 30,000"
    return [Result(f"dense, {name}", dense, "positions/s", "a window per position", dense / rate, note)]


def _around(values: np.ndarray, width: int) -> np.ndarray:
    """The windows of the first positions."""
    padded = np.zeros((WINDOWED + width, *values.shape[1:]), values.dtype)
    padded[width // 2 :] = values[: WINDOWED + width - width // 2]
    return padded[np.arange(WINDOWED)[:, None] + np.arange(width)]


def made_up(length: int) -> tuple[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sequence = rng.choice(np.frombuffer(b"ACGT", np.uint8), length).tobytes().decode()
    return sequence, rng.dirichlet([0.01, 0.01, 1.0], length).astype(np.float32)


def _memory() -> Result:
    """Peak of a process of its own, interpreter and torch included."""
    command = [sys.executable, "-m", "benchmarks.inference"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Result(f"dense, {LONG / 1e6:g} Mb, peak of the process", float(done.stdout), "MB", note="aim below 2,000")


if __name__ == "__main__":
    model = MetaSpliceModel(track_encoder="stages").eval()
    Predictor(model, {}, "").predict_tracks(*made_up(LONG))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
