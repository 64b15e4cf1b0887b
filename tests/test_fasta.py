"""Reference sequences in the forms that they come in, and those that are none."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from pathlib import Path

import pytest

from metalayer.base import fasta
from metalayer.base.fasta import Reference, read_sequence
from metalayer.errors import InputError
from metalayer.genome import decode

TEXT = b">chr1 first\nACGTN\nacgtn\nGG\n>2\nRYK\nTT\n\n>chrUn_KI270302v1\nA\n>chrEmpty\n"
LETTERS = {"1": "ACGTNACGTNGG", "2": "NNNTT", "Un_KI270302v1": "A"}


def bgzip(content: bytes, block: int) -> bytes:
    """What `bgzip` writes: a gzip member a block, its size in an extra field, and an empty member at the end."""
    out = b""
    for start in [*range(0, len(content), block), len(content)]:
        part = content[start : start + block]
        deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = deflate.compress(part) + deflate.flush()
        head = struct.pack("<4BI2BH2BHH", 31, 139, 8, 4, 0, 0, 255, 6, 66, 67, 2, len(body) + 25)
        out += head + body + struct.pack("<II", zlib.crc32(part), len(part))
    return out


def letters(path: Path, *chroms: str) -> dict[str, str]:
    return {chrom: decode(tokens) for chrom, tokens in Reference(path).chromosomes(chroms or LETTERS.keys())}


@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 22])
@pytest.mark.parametrize(
    "content",
    [
        TEXT,
        TEXT.replace(b"\n", b"\r\n"),
        gzip.compress(TEXT),
        bgzip(TEXT, 10),
        gzip.compress(TEXT[:20]) + bgzip(TEXT[20:], 9),
    ],
    ids=["plain", "CRLF", "gzip", "bgzip", "several members"],
)
def test_forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, block_bytes: int) -> None:
    """Also with the indexes that samtools puts beside a bgzipped file, however the reading is cut."""
    monkeypatch.setattr(fasta, "_BLOCK_BYTES", block_bytes)
    path = tmp_path / "a.fa.gz"
    path.write_bytes(content)
    (tmp_path / "a.fa.gz.fai").write_text("chr1\t12\t12\t5\t6\n")
    (tmp_path / "a.fa.gz.gzi").write_bytes(struct.pack("<Q", 0))
    assert letters(path) == LETTERS
    assert letters(path, "2") == {"2": "NNNTT"}
    assert letters(path, "Empty", "absent") == {"Empty": ""}


def test_iupac_letters_are_counted_once_however_often_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_bytes(TEXT)
    reference = Reference(tmp_path / "a.fa")
    for _ in range(2):
        assert dict(reference.chromosomes(["1", "2"])).keys() == {"1", "2"}
    assert reference.ambiguous == {"2": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ACGT\n", "no header"),
        (b">chr1\nAC!T\n", "'!' at position 3"),
        (b">chr1\nAC\n>chr1\nAC\n", "stands there twice"),
        (gzip.compress(b">chr1\nACGT\n" * 99, mtime=0)[:-20], "damaged"),
    ],
)
def test_references_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.fa").write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(Reference(tmp_path / "a.fa").chromosomes(["1", "2"]))


def test_the_position_of_a_letter_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fasta, "_BLOCK_BYTES", 4)
    (tmp_path / "a.fa").write_bytes(b">chr1\nACGT\nACGT\nAC-T\n")
    with pytest.raises(InputError, match=r"chromosome 1 has '-' at position 11; allowed are ACGT, N and the IUPAC"):
        letters(tmp_path / "a.fa", "1")
    with pytest.raises(InputError, match="no such file"):
        letters(tmp_path / "none.fa", "1")


@pytest.mark.parametrize(
    "content",
    [
        b">gene CAT and more\nACGT\nacguN\n",
        b"ACGT acguN",
        b"; a comment\r\n>x\r\nACGT\r\nacguN\r\n",
        gzip.compress(b"\xef\xbb\xbf>x\nACGTacguN"),
    ],
    ids=["FASTA", "letters alone", "comment and CRLF", "gzip with a byte order mark"],
)
def test_one_sequence(tmp_path: Path, content: bytes) -> None:
    """A description is no sequence, also where it is of letters."""
    (tmp_path / "a.fa").write_bytes(content)
    assert read_sequence(tmp_path / "a.fa") == "ACGTacgtN"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b">a\nAC\n>b\nAC\n", "several sequences; score one file a sequence"),
        (b">a\nAC\xe9\n", "byte 0xe9 is no letter"),
        (b"LOCUS  x\n", "this is GenBank"),
    ],
)
def test_what_is_no_sequence(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.fa").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_sequence(tmp_path / "a.fa")
    with pytest.raises(InputError, match="no such file"):
        read_sequence(tmp_path / "none.fa")


def test_comments_rna_and_a_chromosome_that_comes_again(tmp_path: Path) -> None:
    path = tmp_path / "a.fa"
    path.write_bytes(b"; of 1990\n>1\n; more\nACGU\nacgu\n>2\nA\n")
    assert letters(path, "1", "2") == {"1": "ACGTACGT", "2": "A"}
    path.write_bytes(b">1\nAC\n>2\nAC\n>3\nA\n>chr1\nGG\n")
    with pytest.raises(InputError, match="chromosome 1 stands there twice"):
        letters(path, "1", "2")


def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="this is a pipe, which can be read only once"):
        letters(tmp_path / "pipe", "1")
