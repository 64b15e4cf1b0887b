"""Lines of GTF and GFF3 as people have them: plain or packed, quoted in four ways, in UTF-8 or Latin-1.

What a line says is read here and judged nowhere; `annotation.py` puts lines together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

from metalayer.errors import InputError
from metalayer.file_kinds import GFF, kind_of, refuse_others, unpacked
from metalayer.genome import half_open

BARE = ""
"""Key of a column 9 that is one word and no pair, as in gene and transcript lines of AUGUSTUS and BRAKER."""
NEEDED = "GTF or GFF3, or a gene table of SpliceAI or CI-SpliceAI"
_PASSED_OVER = (b"#", b"track ", b"browser ")
"""How lines begin that are no features: comments, and those that UCSC's browser wants."""
_COLUMNS = 9
_BOM = b"\xef\xbb\xbf"
"""Also within files that were put together."""
_GFF3 = re.compile(r'[^\s=;"]+\s*=')
_GFF3_PAIR = re.compile(r'\s*([^=;]+?)\s*=\s*("[^"]*"(?=\s*(?:;|$))|[^;]*)')
_GTF = re.compile(r"""([\w.-]+)[ \t]+(?:"([^"]*)"|'([^']*)'|([^\s;"']+))""")


_DOUBLED = re.compile(r'""([^";]+)""')
_OPEN = re.compile(r'(?<=\s)"([^";]*)(?:;\s*(?=[a-z]+_id\b)|$)')
_TYPOGRAPHIC = str.maketrans(dict.fromkeys("\u201c\u201d\u201e", '"') | dict.fromkeys("\u2018\u2019", "'"))
"""Quotes as text processors make them."""


class Line(NamedTuple):
    """One feature; `start` and `end` are 0-based half-open, names stand as in the file.

    `chrom` is without normalisation, `attributes` without unescaping: both are the caller's. A place may be none, with
    `end` not beyond `start` or `start` negative: one such line does not spoil a file.
    """

    number: int
    chrom: str
    kind: str
    start: int
    end: int
    strand: str
    attributes: dict[str, str]

    @property
    def is_placed(self) -> bool:
        """Whether its place is one."""
        return 0 <= self.start < self.end


def read_lines(
    path: Path,
    kinds: Container[str],
    counted: Counter[str],
    *,
    but: bool = False,
    lengths: dict[str, int] | None = None,
) -> Iterator[Line]:
    """The features of a file.

    Args:
        path: GTF or GFF3, plain or packed with gzip, bgzip, bzip2, xz, zstd or zip.
        kinds: of the features to read, in lower case.
        counted: gets `lines_not_in_utf8`, read as Latin-1.
        but: read all kinds but these.
        lengths: gets those of contigs, in nt, that `##sequence-region` lines state for a whole one.

    Raises:
        InputError: no such file, a damaged one, another kind of file, a line of too few fields, or a place
            that is no number.
    """
    refuse_others(path, "annotation", NEEDED, GFF)
    is_fasta = False
    for number, raw in _raw_lines(path):
        if raw.startswith(b">") or raw[:7].upper() == b"##FASTA":
            is_fasta = True
        is_fasta = is_fasta and raw.count(b"\t") < _COLUMNS - 2  # features may follow, of files that were put together
        if not raw or is_fasta or raw.startswith(_PASSED_OVER):
            if lengths is not None and raw.startswith(b"##sequence-region"):
                _add_length(raw, lengths)
            continue
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            counted["lines_not_in_utf8"] += 1
            text = raw.decode("latin-1")
        fields = text.split("\t", _COLUMNS - 1)
        if len(fields) == _COLUMNS - 1 and fields[3].isdigit():  # GFF2 allows a line without attributes
            fields.append("")
        if len(fields) != _COLUMNS:
            raise InputError(f"annotation {path}, line {number}: {_no_line(raw, len(fields))}")
        kind = fields[2].strip().lower()
        if (fields[3].lower(), fields[4].lower()) == ("start", "end"):  # names of columns, as in tables
            continue
        if (kind in kinds) is but:
            continue
        try:
            start, end = int(fields[3]), int(fields[4])
        except ValueError:
            raise InputError(
                f"annotation {path}, line {number}: start {fields[3]!r}, end {fields[4]!r}; needs whole numbers, "
                "1 <= start <= end"
            ) from None
        yield Line(number, fields[0], kind, *half_open(start, end), fields[6].strip(), attributes(fields[8]))


def _add_length(raw: bytes, lengths: dict[str, int]) -> None:
    """Of `##sequence-region NAME START END`; one that starts elsewhere than at 1 is a part of a contig."""
    words = raw.decode("utf-8", errors="replace").split()
    if len(words) == 4 and words[2] == "1" and words[3].isdigit():
        lengths[words[1]] = int(words[3])


def attributes(text: str) -> dict[str, str]:
    """Column 9, of GTF (`key "value";`) or GFF3 (`key=value;`): the values as they stand, without quotes around them.

    Values may be bare, in single or typographic quotes, or in quotes that a spreadsheet has doubled or a shell escaped;
    one bare word is `BARE`.
    """
    text = text.strip("; \t")
    if text.startswith('"') and text.endswith('"') and len(text) > 1 and '""' in text:
        text = text[1:-1].replace('""', '"').strip("; \t")
    if _GFF3.match(text):
        if '="' in text or '= "' in text:  # a semicolon within quotes ends no value
            pairs = _GFF3_PAIR.findall(text)
        else:
            pairs = [part.split("=", 1) for part in text.split(";") if "=" in part]
        return {key.strip(): _unquoted(value.strip()) for key, value in reversed(pairs)}
    if not text.isascii():
        text = text.translate(_TYPOGRAPHIC)
    if '\\"' in text or '""' in text:  # as a shell escapes them, and doubled within a line that a spreadsheet left bare
        text = _DOUBLED.sub(r'"\1"', text.replace('\\"', '"'))
    if text.count('"') % 2:  # the quote at the end of a value is missing
        text = _OPEN.sub(r'"\1"; ', text)
    # Of a key that is given several times the first counts: later ones may be of a comment.
    pairs = _GTF.findall(text)
    found = {key: double or single or bare for key, double, single, bare in reversed(pairs)}
    if text.count("tag ") > 1:  # GENCODE and Ensembl give one tag at a time, and all of them count
        found["tag"] = ",".join(double or single or bare for key, double, single, bare in pairs if key == "tag")
    word = text.strip("\"'")
    return found if found or not word or len(word.split()) != 1 or ";" in word else {BARE: word}


def _unquoted(value: str) -> str:
    for quote in ('"', "'"):
        if len(value) > 1 and value.startswith(quote) and value.endswith(quote) and quote not in value[1:-1]:
            return value[1:-1]
    return value


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number and content of each line, without blanks and line ends around it."""
    number = 0
    with unpacked(path, "annotation") as handle:
        for block in handle:
            for raw in block.splitlines() if b"\r" in block else (block,):  # old spreadsheets end lines with CR alone
                number += 1
                yield number, (raw.removeprefix(_BOM) if raw[:1] == _BOM[:1] else raw).strip(b" \r\n")


def _no_line(raw: bytes, count: int) -> str:
    """Why a line is none of an annotation, and what to do."""
    needs = "GTF and GFF3 have 9, tab separated"
    fields = raw.split(None, _COLUMNS - 1)
    if len(fields) == _COLUMNS and fields[3].isdigit():
        return f"fields are separated by blanks; {needs}: an editor may have replaced the tabs"
    what = kind_of(raw)
    return f"{count} fields; {needs}" + (f". This line looks like {what}" if what else "")
