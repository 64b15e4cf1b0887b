"""Sequences of rows to token windows with the labelled base at the centre."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.errors import InputError
from metalayer.genome import N_TOKEN, token_table

_CHUNK = 4096


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
    table = token_table()
    windows = np.empty((len(lengths), window_bp), dtype=np.uint8)
    reach = np.arange(window_bp) - window_bp // 2
    for start in range(0, len(lengths), _CHUNK):
        rows = slice(start, start + _CHUNK)
        at = index[rows, None] + reach
        inside = (at >= 0) & (at < lengths[rows, None])
        tokens = table[letters[np.where(inside, at + offsets[:-1][rows, None], offsets[:-1][rows, None])]]
        if (tokens == 255).any():
            row = start + int(np.flatnonzero((tokens == 255).any(axis=1))[0])
            raise InputError(
                f"row {row}: letter {sorted(set(sequences[row].upper()) - set('ACGTN'))} in its sequence; allowed are "
                "A, C, G, T and N. Replace other IUPAC codes with N"
            )
        windows[rows] = np.where(inside, tokens, N_TOKEN)
    return windows
