"""BigWig, one class of one strand a file: 0-based half-open, both strands in genomic order.

Read with pyBigWig (libBigWig): as fast as pybigtools or faster on dense files, float32 as stored, and damage is an
exception where pybigtools panics (`findings/pybigtools_panic.sh`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from metalayer.errors import InputError
from metalayer.formats.pieces import Piece, Places, Track


class BigWig(Track):
    """A BigWig file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        import pyBigWig  # noqa: F401  where it is not installed, that is said before anything is read

    def check(self, places: Places) -> None:
        """See that its contigs are those of the FASTA; see `Reader`."""
        self._opened(places)

    def _opened(self, places: Places) -> tuple[Any, list[str]]:
        """The file, and those of its contigs that the FASTA has."""
        import pyBigWig

        try:
            file = pyBigWig.open(str(self.path.resolve()))  # a name with :// in it would be fetched
            contigs: dict[str, int] = dict(file.chroms())
        except (RuntimeError, AttributeError):
            raise InputError(f"{self.path}: not a whole BigWig file; copy it again") from None
        return file, places.shared(self.path, contigs)

    def pieces(self, places: Places, skip: int) -> Iterator[Piece]:
        """Of each stretch that is wanted, all positions; see `Reader`."""
        file, shared = self._opened(places)
        wanted = [(contig, start, end) for contig in shared for start, end in places.wanted(contig, self.strand)]
        total = sum(int(end - start) for _, start, end in wanted)
        done = 0
        for number, (contig, start, end) in enumerate(wanted):
            done += int(end - start)
            if number >= skip:
                values = self._values(file, contig, int(start), int(end))
                at = np.flatnonzero(~np.isnan(values))
                yield Piece(contig, self.strand, start + at, {self.site_class: values[at]}, share=done / total)

    def _values(self, file: Any, contig: str, start: int, end: int) -> Any:
        try:
            return file.values(contig, start, end, numpy=True)
        except RuntimeError:
            raise InputError(
                f"{self.path}: damaged at {contig}:{start + 1:,}-{end:,} (a block cannot be read); copy it again"
            ) from None
