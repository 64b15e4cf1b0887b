"""Sequences of rows to token windows with the labelled base at the centre."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from metalayer.errors import InputError
from metalayer.genome import N_TOKEN, token_table

_NO_LETTER = 255


def encode_windows(sequences: pl.Series, index: NDArray[np.integer], window_bp: int) -> NDArray[np.uint8]:
    """Cut or pad (with N) every sequence to a window around its labelled base.

    Args:
        sequences: text (n,), transcript sense, any lengths, no nulls.
        index: (n,), 0-based labelled base in each sequence.
        window_bp: width W of the windows.

    Returns:
        uint8 tokens (n, W); the labelled base is at W // 2.

    Raises:
        InputError: a letter other than ACGTN, or an index outside its sequence, naming the first row.
    """
    arrow = sequences.to_arrow().cast("large_string")
    buffers = arrow.buffers()
    offsets = np.frombuffer(buffers[1], dtype=np.int64)[arrow.offset : arrow.offset + len(arrow) + 1]
    letters = np.frombuffer(buffers[2], dtype=np.uint8) if buffers[2] is not None else np.empty(0, np.uint8)
    lengths = np.diff(offsets)
    index = np.asarray(index, dtype=np.int64)
    outside = np.flatnonzero((index < 0) | (index >= lengths))
    if outside.size:
        row = int(outside[0])
        raise InputError(
            f"row {row}: the sequence of {int(lengths[row])} letters does not reach the labelled base at index "
            f"{int(index[row])} ({outside.size} such rows)"
        )
    text = letters[offsets[0] : offsets[-1]] if len(lengths) else letters[:0]
    tokens = np.frombuffer(text.tobytes().translate(token_table().tobytes()), dtype=np.uint8)
    if tokens.size and tokens.max() == _NO_LETTER:
        row = int(np.searchsorted(offsets - offsets[0], int(np.argmax(tokens == _NO_LETTER)), side="right")) - 1
        raise InputError(
            f"row {row}: letter {sorted(set(sequences[row].upper()) - set('ACGTN'))} in its sequence; allowed are "
            "A, C, G, T and N. Replace other IUPAC codes with N"
        )
    half = window_bp // 2
    start = offsets[:-1] - offsets[0] + index - half  # of each window in `tokens`
    whole = (index >= half) & (index - half + window_bp <= lengths)
    if len(lengths) and whole.all():
        cut: NDArray[np.uint8] = sliding_window_view(tokens, window_bp)[start]
        return cut
    windows = np.full((len(lengths), window_bp), N_TOKEN, dtype=np.uint8)
    if whole.any():
        windows[whole] = sliding_window_view(tokens, window_bp)[start[whole]]
    for row in np.flatnonzero(~whole).tolist():
        before = min(half, int(index[row]))
        after = min(window_bp - half, int(lengths[row] - index[row]))
        centre = int(start[row]) + half
        windows[row, half - before : half + after] = tokens[centre - before : centre + after]
    return windows
