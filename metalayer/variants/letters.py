"""Letters of a reference by place, read as they are needed: the whole genome never lies in memory."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from metalayer.base.fasta import tokens_of
from metalayer.contigs import Contigs
from metalayer.errors import InputError
from metalayer.file_kinds import FASTA, refuse_others

logger = logging.getLogger(__name__)

_NEEDED = "FASTA, plain or packed by bgzip"
_TAKES_SECONDS_BYTES = 1 << 26
_AHEAD_BP = 1 << 16
"""Read at a time: what a sorted list asks next lies there, too."""


class Letters:
    """A FASTA file with an index.

    Attributes:
        path: of the FASTA.
        lengths: of its contigs in nt, by our names.
        names: of its contigs as they stand there, by ours.
    """

    def __init__(self, path: Path, contigs: Contigs | None = None) -> None:
        """Open the file; where it has no index beside it, one is made for this process.

        Args:
            path: plain, or packed by bgzip.
            contigs: which names are of one contig; None for the rules alone.

        Raises:
            InputError: no such file, another kind of file, one that cannot be indexed, or a contig twice.
        """
        import pysam

        self.path, self._contigs = Path(path), contigs or Contigs()
        refuse_others(self.path, "FASTA", _NEEDED, FASTA)
        self._folder = tempfile.TemporaryDirectory()
        index, packed = f"{path}.fai", Path(f"{path}.gzi")
        with self.path.open("rb") as handle:
            is_packed = handle.read(2) == b"\x1f\x8b"
        if not Path(index).exists() or (is_packed and not packed.exists()):
            if self.path.stat().st_size > _TAKES_SECONDS_BYTES:
                logger.info("%s has no index beside it: one is made for this run (samtools faidx keeps one)", path)
            index, packed = f"{self._folder.name}/index.fai", Path(f"{self._folder.name}/index.gzi")
            more = ["--gzi-idx", str(packed)] if is_packed else []
            try:
                pysam.faidx(str(path), "--fai-idx", index, *more)
            except pysam.SamtoolsError as error:
                raise self._refusal(str(error)) from None
        elif Path(index).stat().st_mtime < self.path.stat().st_mtime:
            logger.warning("%s is older than the FASTA: if that has changed since, make the index again", index)
        try:
            self._file: Any = pysam.FastaFile(str(path), index, str(packed) if is_packed else None)
        except (OSError, ValueError) as error:
            raise self._refusal(str(error)) from None
        self._read: tuple[str | None, int, bytes] = (None, 0, b"")
        self.names: dict[str, str] = {}
        for name in self._file.references:
            key = self._contigs.key(name)
            if key in self.names:
                raise InputError(f"FASTA {path}: contig {key} stands there twice, as {self.names[key]} and as {name}")
            self.names[key] = name
        self.lengths = {key: int(self._file.get_reference_length(name)) for key, name in self.names.items()}

    def _refusal(self, cause: str) -> InputError:
        return InputError(
            f"FASTA {self.path}: cannot be read by place ({' '.join(cause.split())}); needed is {_NEEDED}, with "
            "lines of one length in each contig"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._folder.cleanup()

    def key(self, name: str) -> str | None:
        """Our name of a contig that the FASTA has, by any of its names; None where it has no such contig."""
        key = self._contigs.key(name)
        if key in self.names:
            return key
        twin = self._contigs.twin(key)
        return twin if twin in self.names else None

    def raw(self, contig: str, start: int, end: int) -> bytes:
        """Letters [start, end) as they stand, 0-based; N outside the contig."""
        first, last = max(start, 0), min(end, self.lengths[contig])
        if first >= last:
            return b"N" * (end - start)
        known, at, text = self._read
        if known != contig or not at <= first or last > at + len(text):
            at = first
            text = self._fetch(contig, first, min(max(last, first + _AHEAD_BP), self.lengths[contig]))
            self._read = contig, at, text
        return b"N" * (first - start) + text[first - at : last - at] + b"N" * (end - last)

    def _fetch(self, contig: str, start: int, end: int) -> bytes:
        try:
            text: bytes = self._file.fetch(self.names[contig], start, end).encode()
        except (OSError, ValueError) as error:
            raise self._refusal(str(error)) from None
        if len(text) != end - start:
            raise self._refusal(f"{self.names[contig]} ends early: the index is of another file")
        return text

    def tokens(self, contig: str, start: int, end: int) -> NDArray[np.uint8]:
        """As `raw`, as tokens uint8 (end - start,) of the plus strand; IUPAC codes of several letters are N.

        Raises:
            InputError: a byte that is no letter.
        """
        found = tokens_of(self.raw(contig, start, end))
        if isinstance(found, int):
            raise InputError(
                f"FASTA {self.path}: contig {self.names[contig]} has a byte that is no letter at position "
                f"{start + found + 1}; allowed are ACGT, N and the IUPAC codes of several letters"
            )
        return found
