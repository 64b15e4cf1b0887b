"""VCF and BCF in and out: lines of text whose INFO gets fields of ours, all else as it came, byte by byte.

BCF is read and written, and files are packed and indexed, by htslib (pysam). Lines are not: what a parser does not know
it would drop or write otherwise (floating numbers, END of symbolic alleles, contigs without a header line).
"""

from __future__ import annotations

import contextlib
import logging
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from metalayer.errors import InputError
from metalayer.file_kinds import BCF, VCF, head_of, kind_of, unpacked
from metalayer.files import publish_file

logger = logging.getLogger(__name__)

STDOUT = Path("-")
COLUMNS = b"#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
_FIXED = 8
_NEEDED = "VCF, plain or packed, or BCF"
_END_OF_BGZF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_BGZF = _END_OF_BGZF[:4]
PLAIN, PACKED, BINARY = ".vcf", (".vcf.gz", ".vcf.bgz"), ".bcf"


@dataclass(frozen=True)
class Record:
    """A line of a VCF.

    Attributes:
        line: as it came, without its end.
        contig: CHROM.
        position: 0-based POS.
        name: ID; None where it has none.
        ref: REF.
        alts: ALT; none for a dot.
    """

    line: bytes
    contig: str
    position: int
    name: str | None
    ref: str
    alts: Sequence[str]

    @classmethod
    def of(cls, line: bytes) -> Self | None:
        """The record of a line; None where it is none."""
        fields = line.split(b"\t", _FIXED)
        if len(fields) < _FIXED or not fields[1].isdigit() or not fields[3]:
            return None
        contig, _, name, ref, alt = (field.decode("utf-8", "surrogateescape") for field in fields[:5])
        alts = [] if alt == "." else alt.split(",")
        return cls(line, contig, int(fields[1]) - 1, None if name == "." else name, ref, alts)

    def with_info(self, added: dict[str, str], ours: Collection[bytes]) -> tuple[bytes, bool]:
        """The line with INFO fields added, and whether it had some of the same names, which go.

        Args:
            added: name and value.
            ours: names of all fields that may be added.
        """
        fields = self.line.split(b"\t", _FIXED)
        there = [] if fields[7] == b"." else fields[7].split(b";")
        kept = [field for field in there if field.partition(b"=")[0] not in ours]
        new = [f"{name}={value}".encode("utf-8", "surrogateescape") for name, value in added.items()]
        fields[7] = b";".join([*kept, *new]) or b"."
        return b"\t".join(fields), len(kept) < len(there)


@dataclass(frozen=True)
class VariantFile:
    """A VCF or BCF, looked through once.

    Attributes:
        path: where it is.
        header: its lines without their ends, that of the columns last.
        records: how many lines follow.
        is_binary: whether it is BCF.
    """

    path: Path
    header: Sequence[bytes]
    records: int
    is_binary: bool

    @classmethod
    def of(cls, path: Path) -> Self:
        """Look a file through: its header, how many records it has, and whether it is whole.

        Raises:
            InputError: no such file, another kind of file, a damaged one, or one that was cut short.
        """
        head = head_of(path, "variants")
        kind = kind_of(head, by_columns=False)
        if kind not in (VCF, BCF):
            raise InputError(f"variants {path}: this is {kind or 'no VCF'}; needed is {_NEEDED}")
        _refuse_cut(path)
        header, count, last = list[bytes](), 0, b"\n"
        with _opened(path, is_binary=kind == BCF) as lines:
            for line in lines:
                last = line
                if line.startswith(b"#") and not count:
                    header.append(line.rstrip(b"\r\n"))
                elif line.strip():
                    count += 1
        if not header or not header[-1].startswith(COLUMNS):
            raise InputError(f"variants {path}: no line of columns, {COLUMNS.decode()!r}; needed is {_NEEDED}")
        columns = header[-1].count(b"\t")
        if count and not last.endswith(b"\n") and last.count(b"\t") < columns:
            there = last.count(b"\t")
            raise InputError(
                f"variants {path}: cut short in record {count:,}, whose line has {there + 1} of {columns + 1} columns; "
                "copy it again"
            )
        return cls(path, header, count, kind == BCF)

    def lines(self) -> Iterator[bytes]:
        """Lines of records in order, without their ends."""
        in_header = True
        with _opened(self.path, is_binary=self.is_binary) as lines:
            for line in lines:
                in_header = in_header and line.startswith(b"#")
                if not in_header and line.strip():
                    yield line.rstrip(b"\r\n")


def _refuse_cut(path: Path) -> None:
    """A file of bgzip ends in an empty block: without it, it was cut at the end of another one."""
    with path.open("rb") as handle:
        is_bgzf = handle.read(len(_BGZF)) == _BGZF
        if is_bgzf and path.stat().st_size >= len(_END_OF_BGZF):
            handle.seek(-len(_END_OF_BGZF), 2)
            if handle.read() != _END_OF_BGZF:
                raise InputError(f"variants {path}: cut short, bgzip's last block is missing; copy it again")


@contextlib.contextmanager
def _opened(path: Path, *, is_binary: bool) -> Iterator[Iterator[bytes]]:
    if not is_binary:
        with unpacked(path, "variants") as handle:
            yield iter(handle)
        return
    import pysam

    loud = pysam.set_verbosity(0)  # it would say on stderr that there is no index
    try:
        with pysam.VariantFile(str(path)) as file:
            yield _text_of(file)
    except (OSError, ValueError) as error:
        raise InputError(f"variants {path}: damaged ({error}); copy it again") from None
    finally:
        pysam.set_verbosity(loud)


def _text_of(file: Any) -> Iterator[bytes]:
    yield from (f"{line}\n".encode() for line in str(file.header).splitlines())
    yield from (str(record).encode("utf-8", "surrogateescape") for record in file)


def header_with(header: Sequence[bytes], added: Sequence[str], ours: Collection[bytes]) -> list[bytes]:
    """Lines of a header with lines of ours before that of the columns; earlier ones of the same fields go."""
    marks = tuple(b"##INFO=<ID=" + name + end for name in ours for end in (b",", b">"))
    old = tuple(line.split("=", 1)[0].encode() + b"=" for line in added if not line.startswith("##INFO"))
    kept = [line for line in header if not line.startswith(marks) and not line.startswith(old or marks)]
    return [*kept[:-1], *(line.encode() for line in added), kept[-1]]


def refuse_other_names(path: Path) -> None:
    """See that the name of an output says what it is.

    Raises:
        InputError: another ending.
    """
    if path != STDOUT and not path.name.endswith((PLAIN, *PACKED, BINARY)):
        raise InputError(f"--output: given {path}; needed is a name in {PLAIN}, {', '.join(PACKED)} or {BINARY}, or -")


@contextlib.contextmanager
def written(path: Path) -> Iterator[Callable[[bytes], object]]:
    """Give what writes lines; the file appears when all is done, and beside a packed one or BCF its index.

    Args:
        path: `.vcf`, `.vcf.gz`, `.vcf.bgz` or `.bcf`; `-`: standard output, as VCF.
    """
    if path == STDOUT:
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    import pysam
    import pysam.bcftools

    with publish_file(path) as draft:
        if path.name.endswith(PLAIN):
            with draft.open("wb") as handle:
                yield handle.write
        elif path.name.endswith(PACKED):
            with pysam.BGZFile(str(draft), "w") as packed:
                yield packed.write
        else:
            with tempfile.TemporaryDirectory(dir=draft.parent, prefix=draft.name) as folder:
                text = Path(folder) / "text.vcf.gz"
                with pysam.BGZFile(str(text), "w") as packed:
                    yield packed.write
                try:
                    pysam.bcftools.view("-Ob", "-o", str(draft), str(text), catch_stdout=False)
                except pysam.SamtoolsError as error:
                    raise InputError(f"{path}: BCF cannot hold this file: {' '.join(str(error).split())}") from None
    if not path.name.endswith(PLAIN):
        _index(path)


def _index(path: Path) -> None:
    """Beside a packed file; where it cannot be made, why is logged, and no old one is left."""
    import pysam
    import pysam.bcftools

    for ending in (".tbi", ".csi"):
        Path(f"{path}{ending}").unlink(missing_ok=True)
    # `-t` is tabix's own index, which ends at 512 Mb; `-c` is CSI.
    kinds = ["-c"] if path.name.endswith(BINARY) else ["-t", "-c"]
    for kind in kinds:
        try:
            pysam.bcftools.index(kind, "-f", str(path), catch_stdout=False)
        except pysam.SamtoolsError:
            for ending in (".tbi", ".csi"):
                Path(f"{path}{ending}").unlink(missing_ok=True)
        else:
            return
    logger.warning(
        "%s has no index: its records are not sorted; `bcftools sort`, then `bcftools index`, make one", path
    )


@contextlib.contextmanager
def records_of(path: Path, *, split: bool = False) -> Iterator[VariantFile]:
    """The records of a file, those of several alleles divided where they are to be `split`; errors as of both."""
    with one_allele_a_record(path) if split else contextlib.nullcontext(path) as given:
        yield VariantFile.of(given)


@contextlib.contextmanager
def one_allele_a_record(path: Path) -> Iterator[Path]:
    """A copy of a file in which every record has one ALT, by `bcftools norm`, which divides the other fields too.

    Raises:
        InputError: records that it refuses.
    """
    import pysam
    import pysam.bcftools

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "split.vcf.gz"
        try:
            pysam.bcftools.norm("-m", "-any", "-Oz", "-o", str(out), str(path), catch_stdout=False)
        except pysam.SamtoolsError as error:
            raise InputError(
                f"variants {path}: bcftools norm cannot divide its records ({' '.join(str(error).split())}); leave out "
                "--split"
            ) from None
        yield out
