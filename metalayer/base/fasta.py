"""Reference sequences: FASTA, plain or packed, read in one go, one chromosome in memory at a time.

Lower case is the same letter, U is T; IUPAC codes other than ACGT become N and are counted. CRLF is read as LF, lines
that begin with a semicolon are comments.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from metalayer.contigs import Contigs
from metalayer.errors import InputError
from metalayer.file_kinds import FASTA, refuse_others, unpacked
from metalayer.genome import N_TOKEN, token_table

_IUPAC = b"RYSWKMBDHVryswkmbdhv"
_BLOCK_BYTES = 1 << 22
_NO_LETTER = b"\xff"


def _table() -> bytes:
    tokens = token_table()
    tokens[np.frombuffer(_IUPAC, dtype=np.uint8)] = N_TOKEN
    tokens[np.frombuffer(b"Uu", dtype=np.uint8)] = tokens[ord("T")]
    return tokens.tobytes()


_TABLE = _table()
"""Byte to token, `_NO_LETTER` where the byte is none."""


def tokens_of(letters: bytes) -> NDArray[np.uint8] | int:
    """Letters as a FASTA has them to tokens, uint8 (L,); or the index of the first byte that is no letter."""
    tokens = letters.translate(_TABLE)
    at = tokens.find(_NO_LETTER)
    return np.frombuffer(tokens, dtype=np.uint8) if at < 0 else at


@dataclass
class Reference:
    """A FASTA file.

    Attributes:
        path: plain text, or packed with gzip, bgzip, bzip2, xz, zstd or zip.
        contigs: which names are of one chromosome.
        ambiguous: letters by chromosome that were IUPAC codes and count as N.
        names: of all chromosomes that were met: as they stand there, by ours.
    """

    path: Path
    contigs: Contigs = field(default_factory=Contigs)
    ambiguous: dict[str, int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    _is_known: bool = False  # it was read to its end, and no name stands twice

    def chromosomes(self, wanted: Collection[str]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """Our name and tokens, uint8 (L,), plus strand, of the wanted chromosomes in file order.

        A wanted chromosome that the file lacks is not given: the caller says what it was wanted for. `M` and `MT` are
        one, given by the name that is wanted, at the end: a file that has both (UCSC's hg19) means two by them. A
        wanted name may have URL escapes, as GFF3 writes `gi%7C1`.

        Raises:
            InputError: no such file, no FASTA, a damaged one, a letter that is none, or a chromosome twice.
        """
        left = set(wanted)
        escaped = {self.contigs.key(unquote(name)): name for name in wanted if "%" in name}
        twins: dict[str, bytearray] = {}
        name, tokens = "", bytearray()
        refuse_others(self.path, "FASTA", "FASTA, which begins with a line as >chr1", FASTA)
        with unpacked(self.path, "FASTA") as handle:
            for piece in _pieces(handle):
                if piece.startswith(b";"):
                    continue
                if not piece.startswith(b">"):
                    if name in left:
                        tokens += self._tokens(name, piece, len(tokens))
                    elif not name and piece.strip():
                        raise InputError(f"FASTA {self.path}: its first line is no header of the form >chr1")
                    continue
                if name in left and twins.get(name) is not tokens:
                    yield name, np.frombuffer(tokens, dtype=np.uint8)
                    left.discard(name)
                    if not left and self._is_known:
                        return
                words = piece[1:].split()
                own = words[0].decode(errors="replace") if words else "?"
                name, tokens = self.contigs.key(own), bytearray()
                if name not in wanted:
                    name = escaped.get(name, name)
                twin = self.contigs.twin(name)
                if name not in wanted and twin in left:
                    name = twin
                    twins[name] = tokens
                elif name in wanted and name not in left:
                    raise InputError(
                        f"FASTA {self.path}: chromosome {name} stands there twice, as {self.names[name]} and as {own}"
                    )
                self.names[name] = own
                self.ambiguous.pop(name, None)  # of an earlier reading
            if name in left:
                twins[name] = tokens
            yield from ((name, np.frombuffer(twins[name], dtype=np.uint8)) for name in twins if name in left)
            self._is_known = True

    def indexed(self) -> dict[str, int]:
        """Lengths in nt, by our names, that an index of samtools beside the file states; empty without one."""
        path = self.path.with_name(self.path.name + ".fai")
        try:
            lines = [line.split("\t") for line in path.read_text("utf-8", errors="replace").splitlines()]
        except OSError:
            return {}
        return {
            self.contigs.key(fields[0]): int(fields[1]) for fields in lines if len(fields) >= 5 and fields[1].isdigit()
        }

    def _tokens(self, name: str, lines: bytes, before: int) -> bytes:
        """Tokens of whole lines, after `before` letters of the same chromosome."""
        letters = lines.translate(None, b"\r\n \t")
        tokens = letters.translate(_TABLE)
        at = tokens.find(_NO_LETTER)
        if at >= 0:
            raise InputError(
                f"FASTA {self.path}: chromosome {name} has {chr(letters[at])!r} at position {before + at + 1}; allowed "
                "are ACGT, N and the IUPAC codes of several letters, which count as N"
            )
        count = len(letters) - len(letters.translate(None, _IUPAC))
        if count:
            self.ambiguous[name] = self.ambiguous.get(name, 0) + count
        return tokens


def read_sequence(path: Path) -> str:
    """The letters of a FASTA file of one sequence, or of a file of letters alone, as they stand; U is T.

    Raises:
        InputError: no such file, a damaged one, another kind of file, several sequences, or bytes that are no letters.
    """
    refuse_others(path, "sequence", "FASTA of one sequence, or letters alone", FASTA)
    with unpacked(path, "sequence") as handle:
        lines = handle.read().splitlines()
    if sum(line.startswith(b">") for line in lines) > 1:
        raise InputError(f"sequence {path}: several sequences; score one file a sequence")
    letters = b"".join(b"".join(line.split()) for line in lines if not line.startswith((b">", b";")))
    try:
        return letters.translate(bytes.maketrans(b"Uu", b"Tt")).decode("ascii")
    except UnicodeDecodeError as error:
        raise InputError(f"sequence {path}: byte 0x{letters[error.start]:02x} is no letter") from None


def _pieces(handle: BinaryIO) -> Iterator[bytes]:
    """Headers one by one, and the lines between them in large blocks: most of a reference's time is per piece."""
    while block := handle.read(_BLOCK_BYTES):
        block += handle.readline()
        if b">" in block or b";" in block:
            yield from block.splitlines(keepends=True)
        else:
            yield block
