"""Reference sequences: FASTA, plain or gzip (bgzip too), one chromosome in memory at a time.

Lower case is the same letter; IUPAC codes other than ACGT become N and are counted. CRLF is read as LF.
"""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import InputError
from metalayer.genome import N_TOKEN, normalise_chrom, token_table

_IUPAC = b"RYSWKMBDHVryswkmbdhv"
_GZIP = b"\x1f\x8b"


@dataclass
class Reference:
    """A FASTA file.

    Attributes:
        path: plain text, gzip or bgzip.
        ambiguous: letters by chromosome that were IUPAC codes and count as N.
    """

    path: Path
    ambiguous: dict[str, int] = field(default_factory=dict)

    def chromosomes(self, wanted: Collection[str]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """Name without `chr` and tokens, uint8 (L,), plus strand, of the wanted chromosomes in file order.

        Raises:
            InputError: no such file, no FASTA, a damaged one, a letter that is none, or a chromosome twice.
        """
        left = set(wanted)
        name, parts = "", list[bytes]()
        with self._reading(), self._open() as handle:
            for line in handle:
                if not line.startswith(b">"):
                    if name in left:
                        parts.append(line)
                    elif not name and line.strip():
                        raise InputError(f"FASTA {self.path}: its first line is no header of the form >chr1")
                    continue
                if name in left:
                    yield name, self._tokens(name, parts)
                    left.discard(name)
                words = line[1:].split()
                name, parts = normalise_chrom(words[0].decode()) if words else "?", []
                if name in wanted and name not in left:
                    raise InputError(f"FASTA {self.path}: chromosome {name} stands there twice")
                if not left:
                    return
            if name in left:
                yield name, self._tokens(name, parts)

    def names(self) -> set[str]:
        """Chromosomes that are there, without `chr`; errors as of `chromosomes`."""
        found = set()
        with self._reading(), self._open() as handle:
            for line in handle:
                words = line[1:].split() if line.startswith(b">") else []
                if words:
                    found.add(normalise_chrom(words[0].decode()))
        return found

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise InputError(f"FASTA {self.path}: no such file") from None
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"FASTA {self.path}: damaged ({error}); copy it again") from None

    def _open(self) -> gzip.GzipFile | BinaryIO:
        with self.path.open("rb") as handle:
            zipped = handle.read(2) == _GZIP
        return gzip.open(self.path) if zipped else self.path.open("rb")

    def _tokens(self, name: str, lines: list[bytes]) -> NDArray[np.uint8]:
        table = token_table()
        table[np.frombuffer(_IUPAC, dtype=np.uint8)] = N_TOKEN
        letters = b"".join(lines).translate(None, b"\r\n \t")
        tokens = np.frombuffer(letters.translate(table.tobytes()), dtype=np.uint8)
        if tokens.size and tokens.max() > N_TOKEN:
            at = int(np.argmax(tokens > N_TOKEN))
            raise InputError(
                f"FASTA {self.path}: chromosome {name} has {chr(letters[at])!r} at position {at + 1}; allowed are "
                "ACGT, N and the IUPAC codes of several letters, which count as N"
            )
        count = len(letters) - len(letters.translate(None, _IUPAC))
        if count:
            self.ambiguous[name] = count
        return tokens
