"""What a file is, by its first bytes and not by its name; and its content, unpacked.

Every door asks here before it reads: a wrong file is named for what it is, not for where its reader stumbled.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from metalayer.errors import InputError

GFF, FASTA, PARQUET = "GFF3 or GTF, an annotation", "FASTA, sequences", "Parquet"
SPLICEAI_TABLE, CISPLICEAI_TABLE = "a gene table of SpliceAI", "a gene table of CI-SpliceAI"
TEXT, YAML = "text", "YAML"
BIGWIG, BEDGRAPH = "BigWig, signals along a genome", "bedGraph, signals along a genome"
HDF5, ARRAY = "HDF5", "an array of NumPy"
VCF, BCF = "VCF, variants", "BCF, variants"
_HEAD_BYTES = 8192
_MOST_LAYERS = 3
_BOM = b"\xef\xbb\xbf"
_READING_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)

_BINARY = {
    b"PAR1": PARQUET,
    b"BAM\x01": "BAM, aligned reads",
    b"CRAM": "CRAM, aligned reads",
    b"BCF\x02": BCF,
    b"TBI\x01": "an index of tabix; give the file that it belongs to",
    b"CSI\x01": "an index; give the file that it belongs to",
    b"BAI\x01": "an index of BAM",
    b"\x26\xfc\x8f\x88": BIGWIG,
    b"\x88\x8f\xfc\x26": BIGWIG,
    b"\xeb\xf2\x89\x87": "BigBed",
    b"\x87\x89\xf2\xeb": "BigBed",
    b"\x43\x27\x41\x1a": "2bit, a packed genome; UCSC's twoBitToFa makes FASTA of it",
    b"\x1a\x41\x27\x43": "2bit, a packed genome; UCSC's twoBitToFa makes FASTA of it",
    b"\x89HDF": HDF5,
    b"ARROW1": "Arrow, or Feather",
    b"SQLite format 3": "an SQLite database, perhaps of gffutils",
    b"\x93NUMPY": ARRAY,
    b"\x80\x02": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"%PDF": "PDF",
    b"\xd0\xcf\x11\xe0": "an Excel workbook; save it as text, tab separated",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"Rar!": "a RAR archive; unpack it",
    b"\x1f\x9d": "packed by compress (.Z); unpack it",
    b"\x04\x22\x4d\x18": "packed by lz4; unpack it",
    b"\xff\xfe": "text in UTF-16, as Windows and spreadsheets save it; save it as UTF-8",
    b"\xfe\xff": "text in UTF-16, as Windows and spreadsheets save it; save it as UTF-8",
}
"""What begins so, and is no text."""
_BEGINNINGS = {
    b">": FASTA,
    b"##fileformat=VCF": VCF,
    b"#CHROM\tPOS\tID\tREF\tALT": VCF,
    b"##gff-version": GFF,
    b"##gtf": GFF,
    b"LOCUS ": "GenBank; NCBI has GFF3 and FASTA of the same record",
    b"ID   ": "EMBL; ENA has FASTA of the same record, Ensembl and NCBI have GFF3 of genomes",
    b"@HD\t": "SAM, aligned reads",
    b"@SQ\t": "SAM, aligned reads",
    b"psLayout": "PSL, alignments of BLAT",
    b"fixedStep": "wiggle, signals along a genome",
    b"variableStep": "wiggle, signals along a genome",
    b"##maf": "MAF, alignments",
    b"#bin\t": "a table of UCSC; its genePredToGtf makes GTF of genePred",
    b"#NAME\t": SPLICEAI_TABLE,
    b"#name\tchrom\tstrand\ttxStart": "genePred, a table of UCSC; its genePredToGtf makes GTF of it",
    b"version https://git-lfs": "a pointer of Git LFS and not the file itself; `git lfs pull` fetches it",
    b"{": "JSON",
    b"%YAML": YAML,
}
_MARKUP = re.compile(rb"<(!doctype|html|head|body|\?xml|!--|error)", re.IGNORECASE)


@contextlib.contextmanager
def unpacked(path: Path, what: str, error: type[InputError] = InputError) -> Iterator[io.BufferedReader[Any]]:
    """The content of a file: unpacked from gzip, bgzip, bzip2, xz, zstd or a zip of one file, without byte order mark.

    Args:
        path: of the file.
        what: it should be, for messages, as in `annotation`.
        error: what to raise.

    Raises:
        InputError: no such file, a folder or pipe, a damaged one (here, or while it is read), or an archive of several;
            of the kind `error`.
    """
    if Path(path).is_fifo():
        raise error(f"{what} {path}: this is a pipe, which can be read only once; write it to a file and give that")
    try:
        with contextlib.ExitStack() as stack:
            handle: io.BufferedReader[Any] = io.BufferedReader(
                stack.enter_context(Path(path).open("rb", buffering=0)), 1 << 16
            )
            for _ in range(_MOST_LAYERS):
                first = handle.peek(_HEAD_BYTES)
                opener = next((one for magic, one in _PACKED.items() if first.startswith(magic)), None)
                if opener is None:
                    break
                handle = io.BufferedReader(stack.enter_context(opener(handle)), 1 << 16)
            if handle.peek(len(_BOM)).startswith(_BOM):
                handle.read(len(_BOM))
            yield handle
    except (FileNotFoundError, IsADirectoryError, PermissionError, NotADirectoryError) as cause:
        raise error(f"{what} {path}: {_reason(cause)}") from None
    except _NotOneFileError as cause:
        raise error(f"{what} {path}: this is {cause}") from None
    except _READING_ERRORS as cause:
        raise error(f"{what} {path}: damaged ({cause}); copy it again") from None


def head_of(path: Path, what: str, error: type[InputError] = InputError) -> bytes:
    """The first bytes of a file's content; arguments and errors as in `unpacked`."""
    with unpacked(path, what, error) as handle:
        return handle.peek(_HEAD_BYTES)[:_HEAD_BYTES]


def kind_of(head: bytes, *, by_columns: bool = True) -> str | None:
    """What content of this beginning is, in words, with what to do about it; None where nothing tells.

    Args:
        head: the first bytes, unpacked.
        by_columns: also by the columns of a first line that nothing else tells of.

    Returns:
        One of the module's constants where that is what it is.
    """
    for magic, kind in _BINARY.items():
        if head.startswith(magic):
            return kind
    if head[257:262] == b"ustar":
        return "a tar archive; unpack it"
    text = head.lstrip()
    if b"\0" in head:
        is_wide = len(head) > 3 and (head[1:8:2].count(0) > 2 or head[0:8:2].count(0) > 2)
        return _BINARY[b"\xff\xfe"] if is_wide else "no text"
    if _MARKUP.match(text):
        return "HTML or XML, perhaps an error page that was saved instead of the file; download it again"
    for beginning, kind in _BEGINNINGS.items():
        if text.startswith(beginning):
            return kind
    lines = [line for line in text.splitlines()[:50] if line.strip()]
    if len(lines) > 2 and lines[0].startswith(b"@") and lines[2].startswith(b"+"):
        return "FASTQ, reads"
    if not by_columns:
        return None
    said = (line for line in lines if not line.startswith((b"#", b"track ", b"browser ")))
    return _kind_of_line(next(said, b""))


def refuse_others(
    path: Path,
    what: str,
    needed: str,
    allowed: str,
    error: type[InputError] = InputError,
    *,
    by_columns: bool = True,
) -> None:
    """See that a file is not plainly another kind of file.

    Args:
        path: of the file.
        what: it should be, for messages.
        needed: what is needed, in words, for the message.
        allowed: the kind, one of the module's constants; `TEXT`: a table.
        error: what to raise.
        by_columns: as in `kind_of`; not for tables without a header, of which BED may be one.

    Raises:
        InputError: it is empty or another, named in the message; or as in `unpacked`.
    """
    head = head_of(path, what, error)
    if not head.strip():
        raise error(f"{what} {path}: the file is empty; needed is {needed}")
    kind = kind_of(head, by_columns=by_columns)
    if kind not in (None, allowed):
        raise error(f"{what} {path}: this is {kind}; needed is {needed}")


def read_table(
    path: Path, what: str, needed: str, error: type[InputError] = InputError, *, by_columns: bool = True
) -> bytes:
    """The content of a table, in UTF-8 and without byte order mark; arguments as in `refuse_others`.

    Raises:
        InputError: another kind of file, other letters than UTF-8, or as in `unpacked`; of the kind `error`.
    """
    refuse_others(path, what, needed, TEXT, error, by_columns=by_columns)
    with unpacked(path, what, error) as handle:
        content = handle.read()
    try:
        content.decode()
    except UnicodeDecodeError as cause:
        line = content.count(b"\n", 0, cause.start) + 1
        raise error(
            f"{what} {path}, line {line}: byte 0x{content[cause.start]:02x} is no UTF-8, perhaps Latin-1; save the "
            "file in UTF-8"
        ) from None
    return content


def _kind_of_line(line: bytes) -> str | None:
    """The kind of a table, by its first line."""
    fields = line.split(b"\t")
    numbers = [field.strip().lstrip(b"-").isdigit() for field in fields]
    if len(fields) >= 9 and all(numbers[3:5]) and fields[6].strip() in (b"+", b"-", b".", b"?"):
        return GFF
    for shift in (0, 1):  # with `bin` before
        if len(fields) >= 10 + shift and fields[2 + shift] in (b"+", b"-") and all(numbers[3 + shift : 8 + shift]):
            return "genePred, a table of UCSC; its genePredToGtf makes GTF of it"
    if len(fields) == 5 and all(numbers[1:]):
        return "an index of FASTA (.fai)"
    if len(fields) >= 3 and all(numbers[1:3]) and not numbers[0]:
        if len(fields) == 4 and _is_number(fields[3]):
            return BEDGRAPH
        twelve = len(fields) == 12 and fields[5] in (b"+", b"-")
        return f"BED{' of 12 columns' if twelve else ''}, intervals" if len(fields) in (3, 4, 5, 6, 8, 9, 12) else None
    if len(fields) >= 11 and numbers[1] and numbers[3] and numbers[4] and numbers[7]:
        return "SAM, aligned reads"
    if len(fields) == 1 and line.count(b",") >= 3:
        if {b"jn_start", b"jn_end"} & set(line.strip().split(b",")):
            return CISPLICEAI_TABLE
        return "comma separated text (CSV)"
    return None


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _reason(cause: OSError) -> str:
    if isinstance(cause, FileNotFoundError):
        return "no such file"
    return "this is a folder; give a file" if isinstance(cause, IsADirectoryError) else str(cause.strerror)


class _NotOneFileError(Exception):
    """An archive that does not hold one file."""


def _zip(handle: BinaryIO) -> Any:
    archive = zipfile.ZipFile(handle)
    names = [
        name for name in archive.namelist() if not name.endswith("/") and not name.startswith(("__MACOSX", "META-INF"))
    ]
    if "xl/workbook.xml" in names:
        raise _NotOneFileError("an Excel workbook; save it as text, tab separated")
    if any(name.endswith("/data.pkl") for name in names):
        raise _NotOneFileError("of PyTorch, perhaps the weights of a model")
    if len(names) != 1:
        raise _NotOneFileError(f"a zip archive of {len(names)} files; unpack it")
    if archive.getinfo(names[0]).flag_bits & 1:
        raise _NotOneFileError("a zip archive with a password; unpack it")
    return archive.open(names[0])


def _zstd(handle: BinaryIO) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(handle, "r"), "zstd")


_PACKED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda handle: gzip.GzipFile(mode="rb", fileobj=handle),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": _zstd,
    b"PK\x03\x04": _zip,
}
