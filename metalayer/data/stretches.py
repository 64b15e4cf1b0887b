"""What a model reads to answer a stretch of a gene: letters, tracks and features around it, beyond its ends nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metalayer.features import stretch_feature_matrix
from metalayer.genome import N_TOKEN
from metalayer.schema import CLASSES, FEATURES


def stretch_inputs(
    tokens: NDArray[np.uint8],
    scores: NDArray[np.float32],
    start: int,
    end: int,
    reach_bp: int,
    with_features: bool,
    evidence: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """What a model reads to answer the exon bases [start, end) of a gene; the stretch may go beyond its end.

    Args:
        tokens: uint8 (L,), the gene.
        scores: float32 (L, C), base scores at exon bases.
        start: first exon base, in the gene.
        end: behind the last one.
        reach_bp: of the model.
        with_features: compute the score features.
        evidence: float32 (L, E), stands beside the scores in the tracks; None: there is none.

    Returns:
        Of one crop, as in `CropBatch`: tokens, tracks, features and base, n = end - start.
    """
    length, n, spare = len(tokens), end - start, reach_bp + 1
    near = slice(max(0, start - spare), min(length, end + spare))
    at = slice(near.start - start + spare, near.stop - start + spare)
    letters = np.full(n + 2 * spare, N_TOKEN, dtype=np.uint8)
    channels = len(CLASSES) + (0 if evidence is None else evidence.shape[1])
    tracks = np.zeros((n + 2 * spare, channels), dtype=np.float32)
    letters[at], tracks[at, : len(CLASSES)] = tokens[near], scores[near]
    if evidence is not None:
        tracks[at, len(CLASSES) :] = evidence[near]
    base = np.full((n, len(CLASSES)), 1.0 / len(CLASSES), dtype=np.float32)  # beyond the gene: nothing
    inside = min(length, end)
    base[: inside - start] = scores[start:inside]
    if not with_features:
        return letters, tracks, np.zeros((n + 2, 0), dtype=np.float32), base
    features = np.zeros((n + 2, len(FEATURES)), dtype=np.float32)
    first, last = max(0, start - 1), min(length, end + 1)
    features[first - start + 1 : last - start + 1] = stretch_feature_matrix(scores, tokens, first, last)
    return letters, tracks, features, base
