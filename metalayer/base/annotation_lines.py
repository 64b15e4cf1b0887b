"""Lines of GTF and GFF3 as people have them: plain or compressed, quoted in four ways, in UTF-8 or Latin-1.

What a line says is read here and judged nowhere; `annotation.py` puts lines together.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from metalayer.errors import InputError
from metalayer.genome import half_open

BARE = ""
"""Key of a column 9 that is one word and no pair, as in gene and transcript lines of AUGUSTUS and BRAKER."""
_COMPRESSED: dict[bytes, Callable[[Path], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_OTHER_FILES = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"\xff\xfe": "text in UTF-16, as spreadsheets save it; save it as UTF-8",
    b"\xfe\xff": "text in UTF-16, as spreadsheets save it; save it as UTF-8",
    b"BAM\x01": "BAM, aligned reads",
    b"CRAM": "CRAM, aligned reads",
    b"\x89HDF": "HDF5",
    b"PAR1": "Parquet",
}
"""What begins so, and is no text."""
_OTHER_FORMATS = {
    b">": "FASTA",
    b"##fileformat=VCF": "VCF, variants",
    b"LOCUS ": "GenBank; its GFF3 is on the same page of NCBI",
    b"@SQ": "SAM, aligned reads",
    b"@HD": "SAM, aligned reads",
}
"""First letters of text that is no annotation."""
_OTHER_ENDINGS = {
    ".bed": "BED",
    ".vcf": "VCF, variants",
    ".fa": "FASTA",
    ".fasta": "FASTA",
    ".gbff": "GenBank",
    ".gb": "GenBank",
    ".txt": "a table of UCSC, perhaps genePred",
    ".genepred": "genePred; UCSC's genePredToGtf makes GTF of it",
}
_GFF3 = re.compile(r'\s*[^\s=;"]+=')
_GTF = re.compile(r"""([\w.-]+)[ \t]+(?:"([^"]*)"|'([^']*)'|([^\s;"']+))""")
_BOM = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One feature; `start` and `end` are 0-based half-open, names stand as in the file.

    `chrom` is without normalisation, `attributes` without unescaping: both are the caller's.
    """

    number: int
    chrom: str
    kind: str
    start: int
    end: int
    strand: str
    attributes: dict[str, str]


def read_lines(
    path: Path, skip: frozenset[str], counted: Counter[str], lengths: dict[str, int] | None = None
) -> Iterator[Line]:
    """The features of a file.

    Args:
        path: GTF or GFF3, plain or compressed with gzip, bgzip, bzip2 or xz.
        skip: kinds of features to pass over unread.
        counted: gets `lines_not_in_utf8`, read as Latin-1.
        lengths: gets those of contigs, in nt, that `##sequence-region` lines state for a whole one.

    Raises:
        InputError: no such file, a damaged one, another kind of file, a line of fewer or more than nine fields, or a
            place that is none.
    """
    for number, raw in _raw_lines(path):
        if raw.startswith(b"##FASTA"):
            return
        if number == 1 and (what := _other_format(raw)):
            raise InputError(f"annotation {path}: {what}")
        if raw.startswith(b"#") or not raw.strip():
            if lengths is not None and raw.startswith(b"##sequence-region"):
                _add_length(raw, lengths)
            continue
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            counted["lines_not_in_utf8"] += 1
            text = raw.decode("latin-1")
        fields = text.rstrip("\r\n").split("\t")
        if len(fields) != 9:
            raise InputError(f"annotation {path}, line {number}: {_no_line(path, raw, len(fields))}")
        if fields[2] in skip:
            continue
        try:
            start, end = int(fields[3]), int(fields[4])
            if not 1 <= start <= end:
                raise ValueError
        except ValueError:
            raise InputError(
                f"annotation {path}, line {number}: start {fields[3]!r}, end {fields[4]!r}; needs 1 <= start <= end"
            ) from None
        yield Line(number, fields[0], fields[2], *half_open(start, end), fields[6].strip(), attributes(fields[8]))


def _add_length(raw: bytes, lengths: dict[str, int]) -> None:
    """Of `##sequence-region NAME START END`; one that starts elsewhere than at 1 is a part of a contig."""
    words = raw.decode("utf-8", errors="replace").split()
    if len(words) == 4 and words[2] == "1" and words[3].isdigit():
        lengths[words[1]] = int(words[3])


def attributes(text: str) -> dict[str, str]:
    """Column 9, of GTF (`key "value";`) or GFF3 (`key=value;`): the values as they stand, without quotes around them.

    Values may be bare, in single quotes, or in quotes that a spreadsheet has doubled; one bare word is `BARE`.
    """
    text = text.strip()
    if text.startswith('"') and text.endswith('"') and len(text) > 1 and '""' in text:
        text = text[1:-1].replace('""', '"').strip()
    if _GFF3.match(text):
        pairs = (part.strip().split("=", 1) for part in text.split(";") if "=" in part)
        return {key.strip(): _unquoted(value.strip()) for key, value in pairs}
    found = {key: double or single or bare for key, double, single, bare in _GTF.findall(text)}
    word = text.rstrip("; ").strip("\"'")
    return found if found or not word or len(word.split()) != 1 or ";" in word else {BARE: word}


def _unquoted(value: str) -> str:
    for quote in ('"', "'"):
        if len(value) > 1 and value.startswith(quote) and value.endswith(quote) and quote not in value[1:-1]:
            return value[1:-1]
    return value


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as probe:
            first = probe.read(8)
        for magic, what in _OTHER_FILES.items():
            if first.startswith(magic):
                raise InputError(f"annotation {path}: this is {what}; an annotation is GTF or GFF3")
        unpacked = next((one for magic, one in _COMPRESSED.items() if first.startswith(magic)), None)
        with unpacked(path) if unpacked else path.open("rb") as handle:
            for number, raw in enumerate(handle, start=1):
                yield number, raw.removeprefix(_BOM) if number == 1 else raw
    except FileNotFoundError:
        raise InputError(f"annotation {path}: no such file") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(f"annotation {path}: damaged ({error}); copy it again") from None


def _no_line(path: Path, raw: bytes, count: int) -> str:
    """Why a line is none of an annotation, and what to do."""
    needs = "GTF and GFF3 have 9, tab separated"
    if len(raw.split(None, 8)) == 9 and raw.split(None, 8)[3].isdigit():
        return f"fields are separated by blanks; {needs}: an editor may have replaced the tabs"
    ending = next((end for end in reversed(path.suffixes) if end.lower() not in (".gz", ".bgz", ".bz2", ".xz")), "")
    if what := _OTHER_ENDINGS.get(ending.lower(), ""):
        return f"{count} fields; {needs}, and {ending} is the ending of {what}"
    return f"{count} fields; {needs}"


def _other_format(raw: bytes) -> str | None:
    what = next((what for start, what in _OTHER_FORMATS.items() if raw.startswith(start)), None)
    return what and f"this is {what}; an annotation is GTF or GFF3"
