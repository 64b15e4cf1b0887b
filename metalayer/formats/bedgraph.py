"""bedGraph, one class of one strand a file: contig, start, end, score; 0-based half-open. Bases between are missing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from metalayer.errors import InputError
from metalayer.formats.pieces import Piece, Places, Track, joined
from metalayer.formats.text import as_tabs, blocks, first_lines, table

_NEEDS = "needed are contig, start, end (0-based, half open) and a score, with tabs or blanks between them"
_COLUMNS = {"contig": pl.String, "start": pl.Int64, "end": pl.Int64, "score": pl.Float64}


class BedGraph(Track):
    """A bedGraph file, with or without its `track` line, plain or packed."""

    def pieces(self, places: Places, skip: int) -> Iterator[Piece]:
        """In the order of the file; see `Reader`."""
        names: dict[str, str | None] = {}
        has_tabs = "\t" in "".join(first_lines(self.path, "bedGraph", 1))
        number = 0
        for block in blocks(self.path, "bedGraph"):
            frame = table(self.path, block if has_tabs else as_tabs(block), _COLUMNS, _NEEDS)
            for part in frame.partition_by("contig", maintain_order=True):
                contig = str(part["contig"][0])
                names[contig] = key = places.key(contig)
                starts, ends = part["start"].to_numpy(), part["end"].to_numpy()
                if (starts < 0).any() or (ends <= starts).any():
                    at = int(np.flatnonzero((starts < 0) | (ends <= starts))[0])
                    raise InputError(f"{self.path}: {contig} {starts[at]} {ends[at]} is no interval; {_NEEDS}")
                if key and ends.max() > places.lengths[key]:
                    raise InputError(
                        f"{self.path}: {contig} has scores up to base {ends.max():,}, but {places.lengths[key]:,} nt "
                        f"in {places.fasta}: are they of one genome build?"
                    )
                scores = part["score"].to_numpy()
                wanted = places.wanted(contig, self.strand)
                near = wanted[(wanted[:, 1] > starts.min()) & (wanted[:, 0] < ends.max())]
                for start, end in near:
                    here = np.flatnonzero((ends > start) & (starts < end))
                    if not len(here):
                        continue
                    number += 1
                    if number <= skip:
                        continue
                    low, high = np.maximum(starts[here], start), np.minimum(ends[here], end)
                    length = high - low
                    first = np.cumsum(length) - length
                    positions = np.arange(length.sum()) - np.repeat(first - low, length)
                    values = {self.site_class: np.repeat(scores[here], length)}
                    yield Piece(contig, self.strand, *joined(self.path, contig, positions, values), share=block.share)
        if names and not any(names.values()):
            raise InputError(places.foreign(self.path, list(names)))
