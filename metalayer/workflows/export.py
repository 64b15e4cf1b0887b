"""Scores of whole genes as tracks of genome browsers: `metalayer export`.

Every position has one number of each class and strand: where genes of a strand overlap the highest of theirs. Base and
meta scores stand in files of their own. Genes come in genome order, and no more of them is held than overlap.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from metalayer.contigs import Contigs
from metalayer.errors import InputError
from metalayer.files import publish_directory, publish_file
from metalayer.formats.written import BEDGRAPH, BIGWIG, BedGraphFile, BigWigFile, TrackFile
from metalayer.genome import Interval, chrom_order, normalise_chrom, normalise_gene_id
from metalayer.integrity import PAGE_CHECKSUMS
from metalayer.sites.stretch import BASE, META, SITES, Stretch
from metalayer.words import count_of
from metalayer.workflows.export_sites import ExonsFile, SitesFile
from metalayer.workflows.stretches import WholeGeneScores, chosen, merged

logger = logging.getLogger(__name__)

STRANDS = {"+": "plus", "-": "minus"}
_ENDS = {"bed": (".bed", ".bed.gz"), "gff3": (".gff3",), "parquet": (".parquet",)}
_ROWS_AT_A_TIME = 1 << 20


@dataclass(frozen=True)
class Exported:
    """What was written: files, positions that have a score, and genes."""

    files: tuple[Path, ...]
    positions: int
    genes: int


def lengths_of(path: Path, contigs: Contigs | None = None) -> dict[str, tuple[str, int]]:
    """Name and length in nt of the contigs of a reference, by our names, in the order of the genome.

    Args:
        path: chrom.sizes, the index `.fai` of a FASTA, or the FASTA with that beside it.
        contigs: which names are of one contig.

    Raises:
        InputError: another file.
    """
    index = Path(f"{path}.fai")
    file, known = (index if index.is_file() else Path(path)), contigs or Contigs()
    found: dict[str, tuple[str, int]] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines() if file.stat().st_size < 1 << 26 else []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--sizes {path}: {error}") from None
    for number, line in enumerate(filter(str.strip, lines), 1):
        name, length, *_ = [*line.split("\t"), ""]
        if not length.strip().isdecimal() or not int(length):
            raise InputError(
                f"--sizes {path}: line {number} is {line[:60]!r}; needed is a name, a tab and a length, as in "
                "chrom.sizes and .fai; `samtools faidx FASTA` makes one"
            )
        found.setdefault(known.key(name) or normalise_chrom(name), (name, int(length)))
    if not found:
        raise InputError(f"--sizes {path}: no contigs; `samtools faidx FASTA` writes them beside a FASTA")
    return dict(sorted(found.items(), key=lambda item: chrom_order(item[0])))


@dataclass(frozen=True)
class Outputs:
    """What is written.

    Attributes:
        bigwig: folder for a file of each system, class and strand.
        bedgraph: likewise.
        parquet: one file with all of them beside each other.
        bed: called sites of the systems, sorted; with the name `.bed.gz` packed, with an index beside it.
        gff3: exons of whole genes that the systems make of their sites.
        transcripts: of a gene and system in `gff3`, at most.
    """

    bigwig: Path | None = None
    bedgraph: Path | None = None
    parquet: Path | None = None
    bed: Path | None = None
    gff3: Path | None = None
    transcripts: int = 1

    @classmethod
    def named(cls, paths: Sequence[Path]) -> Self:
        """Files by their endings: `.bed` or `.bed.gz`, `.gff3`, `.parquet`.

        Raises:
            InputError: another ending, or one twice.
        """
        found: dict[str, Path] = {}
        for path in paths:
            kind = next((kind for kind, ends in _ENDS.items() if path.name.endswith(ends)), None)
            if kind is None or kind in found:
                raise InputError(f"--output {path}: needed is one each of .bed or .bed.gz, .gff3, .parquet")
            found[kind] = path
        return cls(**found)  # type: ignore[arg-type]


def export(
    path: Path,
    sizes: Mapping[str, tuple[str, int]],
    outputs: Outputs,
    genes: Collection[str] = (),
    regions: Collection[tuple[str, Interval]] = (),
) -> Exported:
    """Write scores of a file as other programs read them.

    Args:
        path: scores of whole genes, see `WholeGeneScores`.
        sizes: of `lengths_of`; every contig is in the header of each BigWig.
        outputs: what is written.
        genes: as of `chosen`.
        regions: likewise.

    Returns:
        What was written; nothing is where it cannot be done.

    Raises:
        ArtifactError: scores that cannot be used.
        InputError: a gene that is not there, a place outside the reference, or nothing to write.
    """
    source = WholeGeneScores(path)
    known: set[str] = set()

    def all_of_them() -> Iterator[Stretch]:
        for one in source.stretches():
            known.update(map(normalise_gene_id, one.names))
            yield _fitting(one, sizes, path)

    def those_asked_for() -> Iterator[tuple[Stretch, Stretch]]:
        is_any = False
        for pair in chosen(all_of_them(), genes, regions):
            is_any = True
            yield pair
        absent = sorted({normalise_gene_id(gene) for gene in genes} - known)
        if absent:
            raise InputError(
                f"--gene {', '.join(absent[:5])}: not in {path}, which has {count_of(len(known), 'gene')}, by their ids"
            )
        if not is_any:
            raise InputError(f"{path}: nothing to write: no gene of it lies there")

    return write(those_asked_for(), source.systems, sizes, outputs)


def write(
    genes: Iterable[tuple[Stretch, Stretch]],
    systems: Sequence[str],
    sizes: Mapping[str, tuple[str, int]],
    outputs: Outputs,
) -> Exported:
    """Write genes; all files appear, or none.

    Args:
        genes: in genome order, each whole and the part of it that is wanted.
        systems: of their scores.
        sizes: of `lengths_of`.
        outputs: what is written.
    """
    positions, names, files = 0, set[str](), list[Path]()
    lengths = dict(sizes.values())
    with contextlib.ExitStack() as stack:
        sinks: list[_Sink] = []
        for folder, end, kind in (
            (outputs.bigwig, BIGWIG, BigWigFile),
            (outputs.bedgraph, BEDGRAPH, BedGraphFile),
        ):
            if folder is not None:
                _refuse_others(folder, end)
                draft = stack.enter_context(publish_directory(folder))
                sinks.append(stack.enter_context(_Tracks(draft, end, partial(kind, lengths=lengths))))
                files += [folder / f"{name}{end}" for name in _file_names(systems)]
        if outputs.parquet is not None:
            draft = stack.enter_context(publish_file(outputs.parquet))
            sinks.append(stack.enter_context(_Table(draft, systems)))
            files.append(outputs.parquet)
        sites = SitesFile(outputs.bed, list(lengths), max(lengths.values())) if outputs.bed is not None else None
        if sites is not None:
            sinks.append(sites)
        exons = None
        if outputs.gff3 is not None:
            draft = stack.enter_context(publish_file(outputs.gff3))
            exons = stack.enter_context(contextlib.closing(ExonsFile(draft, lengths, outputs.transcripts)))
            files.append(outputs.gff3)

        def parts() -> Iterator[Stretch]:
            before: Stretch | None = None
            for whole, part in genes:
                if exons is not None and whole is not before:
                    exons.add(whole, sizes[whole.chrom][0])
                before = whole
                yield part

        for one in merged(parts()):
            positions += int((~np.isnan(next(iter(one.scores.values()))[:, 0])).sum())
            names.update(one.names)
            for sink in sinks:
                sink.add(one, sizes[one.chrom][0])
        if sites is not None:
            files += sites.write()
    return Exported(tuple(file for file in files if file.exists()), positions, len(names))


class _Sink(Protocol):
    """Takes stretches in genome order."""

    def add(self, one: Stretch, contig: str) -> None:
        """One more; `contig` as it stands in the reference."""


def _refuse_others(folder: Path, end: str) -> None:
    """Refuse a folder with files of others, which is replaced as a whole."""
    ours = {f"{name}{end}" for name in _file_names((BASE, META))}
    if folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - ours):
        raise InputError(f"{folder}: is there already, with other files; give a new folder")


def _fitting(one: Stretch, sizes: Mapping[str, tuple[str, int]], path: Path) -> Stretch:
    if one.chrom not in sizes:
        raise InputError(
            f"{path}: contig {one.chrom} of gene {one.names[0]} is not in --sizes; give those of its reference"
        )
    name, length = sizes[one.chrom]
    if one.end > length:
        raise InputError(
            f"{path}: gene {one.names[0]} ends at {name}:{one.end:,}, but --sizes has {length:,} nt there: is it "
            "of the same build?"
        )
    return one


def _file_names(systems: Iterable[str]) -> Iterator[str]:
    for system in systems:
        for site in SITES:
            for strand in STRANDS.values():
                yield f"{system}_{site}_{strand}"


class _Tracks:
    """A file of each system, class and strand, made when its first number comes: an empty BigWig is none."""

    def __init__(self, folder: Path, end: str, make: Callable[[Path], TrackFile]) -> None:
        self._folder, self._end, self._make = folder, end, make
        self._open: dict[str, TrackFile] = {}

    def __enter__(self) -> _Tracks:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._open.values():
            file.close()

    def add(self, one: Stretch, contig: str) -> None:
        for system, values in one.scores.items():
            for column, site in enumerate(SITES):
                name = f"{system}_{site}_{STRANDS[one.strand]}"
                if name not in self._open:
                    self._open[name] = self._make(self._folder / f"{name}{self._end}")
                self._open[name].add(contig, one.start, np.ascontiguousarray(values[:, column]))


class _Table:
    """Parquet: contig, strand, position (1-based), and a column of each system and class."""

    def __init__(self, path: Path, systems: Iterable[str]) -> None:
        text = pa.dictionary(pa.int32(), pa.string())
        self._names = [f"{system}_{site}" for system in systems for site in SITES]
        columns = [("contig", text), ("strand", text), ("position", pa.int64())]
        self._schema = pa.schema([*columns, *((name, pa.float32()) for name in self._names)])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd", **PAGE_CHECKSUMS)

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.close()

    def add(self, one: Stretch, contig: str) -> None:
        n = one.end - one.start
        columns: list[Any] = [
            pa.DictionaryArray.from_arrays(pa.array(np.zeros(n, np.int32)), [value]) for value in (contig, one.strand)
        ]
        columns.append(pa.array(np.arange(one.start + 1, one.end + 1)))
        for values in one.scores.values():
            columns += [pa.array(np.ascontiguousarray(values[:, i]), from_pandas=True) for i in range(len(SITES))]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=_ROWS_AT_A_TIME)
