"""A model's corrections at every row position of a gene, dense and by windows."""

import numpy as np
import torch

from metalayer.data.stretches import stretch_inputs
from metalayer.features import feature_matrix, gene_row_scores
from metalayer.gene_track import GeneTrack
from metalayer.models import MetaSpliceModel


@torch.inference_mode()
def dense_rows(model: MetaSpliceModel, track: GeneTrack, block: int = 10_000, masked: bool = False) -> np.ndarray:
    """float32 (L, 3), block by block."""
    out = []
    for start in range(0, len(track), block):
        end = min(start + block, len(track))
        letters, tracks, features, _ = (
            torch.from_numpy(array).unsqueeze(0)
            for array in stretch_inputs(track.tokens, track.scores, start, end, model.reach_bp, model.reads_features)
        )
        rows, _ = model.correction_dense(letters, features, tracks, masked)
        out.append(rows[0, 1:-1].numpy())
    return np.concatenate(out)


@torch.inference_mode()
def windowed_rows(model: MetaSpliceModel, track: GeneTrack, at: np.ndarray, masked: bool = False) -> np.ndarray:
    """float32 (len(at), 3): a window of letters and, but for `masked`, one of tracks for each row position."""
    windows = _around(track.tokens, at, 500, 4)
    features = feature_matrix(gene_row_scores(track.scores)[at], windows)
    if model.track_letters_bp and not masked:
        windows = _around(track.tokens, at, model.context_bp, 4)
    tracks = _around(track.scores, at, model.context_bp, 0.0) if model.tracks is not None and not masked else None
    out = []
    for i in range(0, len(at), 512):
        part = slice(i, i + 512)
        given = None if tracks is None else torch.from_numpy(tracks[part])
        out.append(model.correction(torch.from_numpy(windows[part]), torch.from_numpy(features[part]), given).numpy())
    return np.concatenate(out)


def _around(values: np.ndarray, at: np.ndarray, width: int, outside: float) -> np.ndarray:
    padded = np.full((len(values) + 2 * width, *values.shape[1:]), outside, dtype=values.dtype)
    padded[width : width + len(values)] = values
    return padded[(at + width - width // 2)[:, None] + np.arange(width)]
