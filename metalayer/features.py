"""The 50 features of a row, from its seven base scores and its sequence; definitions once.

Training, evaluation, whole genes and serving all call `feature_matrix` or `gene_feature_matrix`, so
the same row has the same features everywhere. The seven scores are float32 wherever they come from
(text, JSON, tracks); all that derives from them is computed in float64 and handed on as float32.

Whole genes have no "pass" (an artifact row knows whether it came from the base layer's donor or
acceptor pass; nothing that serves does), so `gene_row_scores` states the one label-free rule: at
position p, the donor score is the donor track at p - 1, the acceptor score is the acceptor track at
p + 1, and the context is that of the larger of the two, 0 beyond the gene's ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from metalayer.genome import exon_base
from metalayer.schema import (
    ACCEPTOR,
    ARTIFACT_WINDOW_BP,
    DERIVED_FEATURES,
    DONOR,
    FEATURES,
    NEITHER,
    PROBABILITY_FLOOR,
    ROW_SCORES,
    SCORE_FEATURES,
)

EPSILON = 1e-10
FEATURE_REACH_BP = ARTIFACT_WINDOW_BP // 2 + 3
"""Bases on either side of a row that its features read: half the window, and three of the context."""
_G, _A, _T, _N = 2, 0, 3, 4


def log_probabilities(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Logarithms of probabilities, as float32 holds them, and of at least `PROBABILITY_FLOOR`; any shape."""
    found: NDArray[np.float64] = np.log(
        np.maximum(probabilities.astype(np.float32).astype(np.float64), PROBABILITY_FLOOR)
    )
    return found


def derived_features(row_scores: NDArray[np.floating]) -> dict[str, NDArray[np.float64]]:
    """The 36 derived score features.

    Args:
        row_scores: (n, 7), columns `ROW_SCORES`.

    Returns:
        Each name of `DERIVED_FEATURES` with its float64 (n,) values.
    """
    donor, acceptor, neither, m2, m1, p1, p2 = np.ascontiguousarray(row_scores.T, dtype=np.float64)
    eps = EPSILON
    log_donor, log_acceptor, log_neither = np.log(donor + eps), np.log(acceptor + eps), np.log(neither + eps)
    mean = (m2 + m1 + p1 + p2) / 4.0
    highest = np.maximum(np.maximum(m2, m1), np.maximum(p1, p2))
    larger = np.maximum(donor, acceptor)
    out = {
        "relative_donor_probability": donor / (donor + acceptor + eps),
        "splice_probability": (donor + acceptor) / (donor + acceptor + neither + eps),
        "donor_acceptor_diff": (donor - acceptor) / (larger + eps),
        "splice_neither_diff": (larger - neither) / (np.maximum(larger, neither) + eps),
        "donor_acceptor_logodds": log_donor - log_acceptor,
        "splice_neither_logodds": np.log(donor + acceptor + eps) - log_neither,
        "probability_entropy": -donor * log_donor - acceptor * log_acceptor - neither * log_neither,
        "context_neighbor_mean": mean,
        "context_asymmetry": (m1 + m2) - (p1 + p2),
        "context_max": highest,
    }
    for prefix, x in (("donor", donor), ("acceptor", acceptor)):
        out[f"{prefix}_diff_m1"] = x - m1
        out[f"{prefix}_diff_m2"] = x - m2
        out[f"{prefix}_diff_p1"] = x - p1
        out[f"{prefix}_diff_p2"] = x - p2
        out[f"{prefix}_surge_ratio"] = x / (m1 + p1 + eps)
        out[f"{prefix}_is_local_peak"] = ((x > m1) & (x > p1) & (x > 0.001)).astype(np.float64)
        out[f"{prefix}_weighted_context"] = 0.1 * m2 + 0.2 * m1 + 0.4 * x + 0.2 * p1 + 0.1 * p2
        out[f"{prefix}_peak_height_ratio"] = x / (mean + eps)
        out[f"{prefix}_second_derivative"] = 2.0 * x - m1 - p1
        out[f"{prefix}_signal_strength"] = x - mean
        out[f"{prefix}_context_diff_ratio"] = x / (highest + eps)
    out["donor_acceptor_peak_ratio"] = out["donor_peak_height_ratio"] / (out["acceptor_peak_height_ratio"] + eps)
    out["type_signal_difference"] = out["donor_signal_strength"] - out["acceptor_signal_strength"]
    out["score_difference_ratio"] = (donor - acceptor) / (donor + acceptor + eps)
    out["signal_strength_ratio"] = out["donor_signal_strength"] / (out["acceptor_signal_strength"] + eps)
    return out


def _score_columns(given: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """The seven scores of rows (n, 7) and all that derives from them alone."""
    row_scores = given.astype(np.float32, copy=False).astype(np.float64)
    columns = {name: row_scores[:, i] for i, name in enumerate(ROW_SCORES)}
    columns.update(derived_features(row_scores))
    donor, acceptor = row_scores[:, 0], row_scores[:, 1]
    # 1 - D may round below zero where D is 1: floored before the logarithm.
    columns["donor_logit"] = np.log(donor + EPSILON) - np.log(np.maximum(1.0 - donor, 0.0) + EPSILON)
    columns["acceptor_logit"] = np.log(acceptor + EPSILON) - np.log(np.maximum(1.0 - acceptor, 0.0) + EPSILON)
    ordered = np.sort(row_scores[:, :3], axis=1)
    columns["score_margin"] = ordered[:, 2] - ordered[:, 1]
    return columns


def _stack(columns: Mapping[str, NDArray[np.float64]], order: Literal["C", "F"] = "C") -> NDArray[np.float32]:
    matrix = np.empty((len(columns[FEATURES[0]]), len(FEATURES)), dtype=np.float32, order=order)
    for i, name in enumerate(FEATURES):
        matrix[:, i] = columns[name]
    return matrix


def feature_matrix(
    row_scores: NDArray[np.float32], windows: NDArray[np.uint8], order: Literal["C", "F"] = "C"
) -> NDArray[np.float32]:
    """All 50 features of rows.

    Args:
        row_scores: float32 (n, 7), columns `ROW_SCORES`.
        windows: uint8 tokens (n, W), the labelled base at index W // 2, N outside the gene.
        order: memory order of the result: `F` where columns are wanted one by one.

    Returns:
        float32 (n, 50), columns `FEATURES`.
    """
    columns = _score_columns(row_scores)
    centre = windows.shape[1] // 2
    here, after, before = windows[:, centre], windows[:, centre + 1], windows[:, centre - 1]
    columns["has_gt"] = ((here == _G) & (after == _T)).astype(np.float64)
    columns["has_ag"] = ((before == _A) & (here == _G)).astype(np.float64)
    unknown = (windows == _N).sum(axis=1)
    gc = ((windows == 1) | (windows == _G)).sum(axis=1)
    columns["gc_fraction"] = gc / np.maximum(windows.shape[1] - unknown, 1)
    columns["n_fraction"] = unknown / windows.shape[1]
    return _stack(columns, order)


def gene_row_scores(tracks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The seven row scores at every position of a gene, by the label-free rule.

    Args:
        tracks: (L, 3) base scores donor, acceptor, neither on exon bases, transcript sense.

    Returns:
        float32 (L, 7), columns `ROW_SCORES`, row p for the intron base p.
    """
    length = len(tracks)
    padded = np.zeros((length + 6, 2), dtype=np.float32)  # three zeros beyond either end
    padded[3 : length + 3] = tracks[:, [DONOR, ACCEPTOR]]

    def read(site_class: int, offset: int) -> NDArray[np.float32]:
        return padded[3 + offset : 3 + offset + length, site_class]

    out = np.empty((length, len(ROW_SCORES)), dtype=np.float32)
    to_donor, to_acceptor = exon_base(0, DONOR), exon_base(0, ACCEPTOR)  # from the intron base
    donor, acceptor = read(DONOR, to_donor), read(ACCEPTOR, to_acceptor)
    out[:, DONOR], out[:, ACCEPTOR] = donor, acceptor
    out[:, NEITHER] = np.maximum(1.0 - donor.astype(np.float64) - acceptor, 0.0)
    donor_pass = donor >= acceptor
    for column, shift in enumerate((-2, -1, 1, 2), start=3):
        out[:, column] = np.where(donor_pass, read(DONOR, shift + to_donor), read(ACCEPTOR, shift + to_acceptor))
    return out


def gene_feature_matrix(
    row_scores: NDArray[np.float32], tokens: NDArray[np.uint8], window_bp: int = ARTIFACT_WINDOW_BP
) -> NDArray[np.float32]:
    """All 50 features at every position of a gene: equal to `feature_matrix` of its windows.

    Args:
        row_scores: float32 (L, 7) from `gene_row_scores`.
        tokens: uint8 (L,), transcript sense.
        window_bp: width of the window that `gc_fraction` and `n_fraction` see.

    Returns:
        float32 (L, 50), columns `FEATURES`.
    """
    columns = _score_columns(row_scores)
    length, half = len(tokens), window_bp // 2
    padded = np.full(length + window_bp, _N, dtype=np.uint8)
    padded[half : half + length] = tokens
    here, after, before = tokens, padded[half + 1 : half + 1 + length], padded[half - 1 : half - 1 + length]
    columns["has_gt"] = ((here == _G) & (after == _T)).astype(np.float64)
    columns["has_ag"] = ((before == _A) & (here == _G)).astype(np.float64)

    def in_window(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        total = np.concatenate([[0], np.cumsum(mask, dtype=np.int64)])
        counts: NDArray[np.int64] = total[window_bp : window_bp + length] - total[:length]
        return counts

    unknown = in_window(padded == _N)
    gc = in_window((padded == 1) | (padded == _G))
    columns["gc_fraction"] = gc / np.maximum(window_bp - unknown, 1)
    columns["n_fraction"] = unknown / window_bp
    return _stack(columns)


def stretch_feature_matrix(
    tracks: NDArray[np.float32],
    tokens: NDArray[np.uint8],
    start: int,
    end: int,
) -> NDArray[np.float32]:
    """All 50 features at the row positions [start, end) of a gene: those of the whole gene, at the cost of the stretch.

    Args:
        tracks: float32 (L, 3), base scores of the gene at exon bases.
        tokens: uint8 (L,), transcript sense.
        start: first row position.
        end: behind the last one.

    Returns:
        float32 (end - start, 50), columns `FEATURES`.
    """
    low, high = max(0, start - FEATURE_REACH_BP), min(len(tokens), end + FEATURE_REACH_BP)
    found = gene_feature_matrix(gene_row_scores(tracks[low:high]), tokens[low:high])
    return found[start - low : end - low]


def mismatched_columns(
    row_scores: NDArray[np.float64], present: Mapping[str, NDArray[np.float64]], relative: float = 1e-6
) -> dict[str, int]:
    """How many values of derived columns in a file disagree with their formula.

    A null or NaN where the formula gives a number disagrees.

    Args:
        row_scores: float64 (n, 7), columns `ROW_SCORES`.
        present: columns of the file, a subset of `DERIVED_FEATURES`, each float64 (n,).
        relative: tolerance on |file - formula| / max(|file|, |formula|).

    Returns:
        Column name to number of disagreeing rows, only where there is one.
    """
    expected = derived_features(row_scores)
    counts: dict[str, int] = {}
    for name in DERIVED_FEATURES:
        if name not in present:
            continue
        given, formula = present[name], expected[name]
        # Differences of nearly equal scores keep the absolute error of their operands.
        tolerance = relative * np.maximum(np.abs(given), np.abs(formula)) + 1e-12
        wrong = int(np.count_nonzero(~(np.abs(given - formula) <= tolerance)))
        if wrong:
            counts[name] = wrong
    return counts


assert len(SCORE_FEATURES) == 43 and len(FEATURES) == 50
