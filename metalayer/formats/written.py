"""Numbers along a genome in the files of genome browsers: BigWig and bedGraph, one class of one strand a file.

Both are 0-based and half-open, and have the two strands in genomic order. A base without a number is left out: a
browser shows that there is nothing, and not 0. Numbers are float32, as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

BIGWIG, BEDGRAPH = ".bw", ".bedGraph"


class TrackFile(Protocol):
    """Takes numbers, contig after contig in the order of the header, stretch after stretch."""

    def add(self, contig: str, start: int, values: NDArray[np.float32]) -> None:
        """Numbers of [start, start + n), 0-based; NaN: none."""

    def close(self) -> None:
        """Nothing more comes."""


class BigWigFile:
    """Writes a BigWig with pyBigWig."""

    def __init__(self, path: Path, lengths: Mapping[str, int]) -> None:
        """Begin a file.

        Args:
            path: to write.
            lengths: of all contigs in nt, those without numbers among them, in the order in which numbers come.
        """
        import pyBigWig

        self._file: Any = pyBigWig.open(str(path.resolve()), "w")
        self._file.addHeader(list(lengths.items()))

    def add(self, contig: str, start: int, values: NDArray[np.float32]) -> None:
        """As `TrackFile`."""
        for first, last in runs(values):
            self._file.addEntries(contig, start + first, values=values[first:last], span=1, step=1)

    def close(self) -> None:
        """As `TrackFile`."""
        self._file.close()


class BedGraphFile:
    """Writes a bedGraph, a line a base, or a stretch of equal numbers."""

    def __init__(self, path: Path, lengths: Mapping[str, int]) -> None:
        """Begin a file; `lengths` are not in it."""
        self._handle = path.open("wb")

    def add(self, contig: str, start: int, values: NDArray[np.float32]) -> None:
        """As `TrackFile`."""
        for first, last in runs(values):
            part = values[first:last]
            cuts = np.flatnonzero(np.diff(part)) + 1
            starts, ends = np.concatenate([[0], cuts]), np.concatenate([cuts, [len(part)]])
            at = start + first
            columns = {"start": starts + at, "end": ends + at, "value": part[starts]}
            lines = pl.DataFrame(columns).select(pl.lit(contig).alias("contig"), *columns)
            lines.write_csv(self._handle, include_header=False, separator="\t")

    def close(self) -> None:
        """As `TrackFile`."""
        self._handle.close()


def runs(values: NDArray[np.float32]) -> list[tuple[int, int]]:
    """First and last, half-open, of the stretches that have numbers."""
    there = np.concatenate([[False], ~np.isnan(values), [False]])
    edges = np.flatnonzero(there[1:] != there[:-1])
    return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]
