"""Scores of whole genes as tracks of genome browsers: `metalayer export`.

Every position has one number of each class and strand: where genes of a strand overlap the highest of theirs. Base and
meta scores stand in files of their own. Genes come in genome order, and no more of them is held than overlap.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from metalayer.contigs import Contigs
from metalayer.data.nucleotide_scores import write_tracks
from metalayer.data.scored import MANIFEST_KEY, ScoredGenome, genome_order
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError, InputError
from metalayer.files import publish_directory, publish_file
from metalayer.formats.written import BEDGRAPH, BIGWIG, BedGraphFile, BigWigFile, TrackFile
from metalayer.genome import Interval, chrom_order, normalise_chrom, normalise_gene_id
from metalayer.integrity import PAGE_CHECKSUMS, open_parquet
from metalayer.release.answer import BASE_COLUMNS
from metalayer.schema import BASE_SCORES, CLASSES
from metalayer.words import count_of
from metalayer.workflows.places import CONTIG

logger = logging.getLogger(__name__)

SITES = CLASSES[:2]
BASE, META = "base", "meta"
STRANDS = {"+": "plus", "-": "minus"}
_AGAIN = "copy it again, or score again"
_ROWS_AT_A_TIME = 1 << 20


@dataclass(frozen=True)
class Stretch:
    """Scores along one strand.

    Attributes:
        chrom: our name of the contig.
        strand: `+` or `-`.
        start: 0-based first position.
        scores: float32 (n, 2), donor and acceptor, at exon bases, in genomic order, by `BASE` and `META`; NaN: none.
        names: ids of the genes.
    """

    chrom: str
    strand: str
    start: int
    scores: Mapping[str, NDArray[np.float32]]
    names: tuple[str, ...]

    @property
    def end(self) -> int:
        """Behind its last position."""
        return self.start + len(next(iter(self.scores.values())))

    def cut(self, start: int, end: int) -> Stretch | None:
        """Its part within [start, end), if any."""
        first, last = max(start, self.start), min(end, self.end)
        if first >= last:
            return None
        part = slice(first - self.start, last - self.start)
        return replace(self, start=first, scores={name: values[part] for name, values in self.scores.items()})


@dataclass(frozen=True)
class Exported:
    """What was written: files, positions that have a score, and genes."""

    files: tuple[Path, ...]
    positions: int
    genes: int


class WholeGeneScores:
    """A file of scores of whole genes, whichever command wrote it.

    Attributes:
        systems: `BASE` and `META`, those that it has.
        contigs: names of its contigs in the reference, by ours, where it says them.
    """

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            ArtifactError: absent, damaged, or no scores of whole genes.
        """
        self.path = Path(path)
        file = open_parquet(self.path, _AGAIN)
        names, metadata = file.schema_arrow.names, file.metadata.metadata or {}
        self.contigs: dict[str, str] = {}
        self._columns: dict[str, tuple[str, ...]] = {}
        if MANIFEST_KEY in metadata:
            self.contigs = dict(ScoredGenome(self.path).manifest.get("contigs") or {})
            self._columns = {META: SITES}
        elif set(SITES) <= set(names) and CONTIG in names:
            self._columns = {BASE: BASE_COLUMNS[:2], META: SITES}
        elif not any(name.split(".")[0] in BASE_SCORES for name in names):
            raise ArtifactError(
                f"{path}: no scores of whole genes; they are what `metalayer score` writes of per-nucleotide scores, "
                "`--pipeline score`, or per-nucleotide scores themselves"
            )
        self.systems = tuple(self._columns) or (BASE,)

    def stretches(self) -> Iterator[Stretch]:
        """Its genes in genome order.

        Raises:
            ArtifactError: damaged within, or genes that are not whole.
        """
        if self._columns:
            yield from self._scored()
        else:
            yield from self._of_base()

    def _scored(self) -> Iterator[Stretch]:
        file = open_parquet(self.path, _AGAIN)
        wanted = [
            "gene_id",
            "chrom",
            "strand",
            "position",
            *(name for names in self._columns.values() for name in names),
        ]
        if CONTIG in file.schema_arrow.names:
            wanted.append(CONTIG)
        for number in range(file.num_row_groups):
            rows = file.read_row_group(number, columns=wanted)
            gene_id, chrom, strand = (str(rows[name][0].as_py()) for name in ("gene_id", "chrom", "strand"))
            position = rows["position"].to_numpy()
            if len(rows["gene_id"].unique()) != 1 or not (np.diff(position) == 1).all():
                raise ArtifactError(f"{self.path}: gene {gene_id} is not whole in one part of the file; {_AGAIN}")
            if CONTIG in wanted:
                self.contigs.setdefault(chrom, str(rows[CONTIG][0].as_py()))
            scores = {
                system: np.stack([rows[name].to_numpy() for name in names], axis=1)
                for system, names in self._columns.items()
            }
            yield Stretch(chrom, strand, int(position[0]) - 1, scores, (gene_id,))

    def _of_base(self) -> Iterator[Stretch]:
        no_sites = pl.DataFrame(schema={"gene_id": pl.String, "position": pl.Int64, "splice_type": pl.String})
        with tempfile.TemporaryDirectory() as folder:
            tracks = Path(folder) / "tracks.parquet"
            found = write_tracks([self.path], tracks, {}, lambda: no_sites)
            if found.genes_dropped:
                causes = ", ".join(f"{one} ({why})" for one, why in list(found.genes_dropped.items())[:5])
                logger.warning("%s: genes that are left out: %s", self.path, causes)
            store = TrackStore(tracks)
            self.contigs |= store.contigs
            for gene in sorted(store.genes().values(), key=genome_order):
                scores = store.read(gene.gene_id).scores[:, :2]
                scores = scores if gene.strand == "+" else scores[::-1]
                span = gene.interval
                yield Stretch(
                    span.chrom, gene.strand, span.start, {BASE: np.ascontiguousarray(scores)}, (gene.gene_id,)
                )


def merged(stretches: Iterable[Stretch]) -> Iterator[Stretch]:
    """Those of a strand that overlap as one, with the highest score of each position; in the order of their starts.

    Raises:
        ArtifactError: genes out of order.
    """
    held: dict[str, Stretch] = {}
    for one in stretches:
        before = held.get(one.strand)
        if before is None:
            held[one.strand] = one
        elif before.chrom == one.chrom and before.start <= one.start < before.end:
            held[one.strand] = _joined(before, one)
        else:
            if before.chrom == one.chrom and one.start < before.start:
                raise ArtifactError(f"gene {one.names[0]} stands before genes that lie before it; score again")
            yield before
            held[one.strand] = one
    yield from held.values()


def _joined(one: Stretch, other: Stretch) -> Stretch:
    size = max(one.end, other.end) - one.start
    scores = {}
    for name in one.scores:
        values = np.full((size, len(SITES)), np.nan, np.float32)
        for part in (one, other):
            place = slice(part.start - one.start, part.end - one.start)
            values[place] = np.fmax(values[place], part.scores[name])
        scores[name] = values
    return replace(one, scores=scores, names=(*one.names, *other.names))


def chosen(
    stretches: Iterable[Stretch], genes: Collection[str], regions: Collection[tuple[str, Interval]]
) -> Iterator[Stretch]:
    """Genes by id and parts within regions, each with its strands; all of them where neither is given.

    Args:
        stretches: in genome order.
        genes: ids, with or without `gene-` or `gene:` before them.
        regions: strands (`+`, `-`, or both as `+-`) and places.
    """
    ids = {normalise_gene_id(gene) for gene in genes}
    for one in stretches:
        if not (genes or regions) or normalise_gene_id(one.names[0]) in ids:
            yield one
            continue
        for strands, place in regions:
            if one.strand in strands and normalise_chrom(place.chrom) == one.chrom:
                part = one.cut(place.start, place.end)
                if part is not None:
                    yield part


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


def export(
    path: Path,
    sizes: Mapping[str, tuple[str, int]],
    *,
    bigwig: Path | None = None,
    bedgraph: Path | None = None,
    parquet: Path | None = None,
    genes: Collection[str] = (),
    regions: Collection[tuple[str, Interval]] = (),
) -> Exported:
    """Write scores as other programs read them.

    Args:
        path: scores of whole genes, see `WholeGeneScores`.
        sizes: of `lengths_of`; every contig is in the header of each BigWig.
        bigwig: folder for a file of each system, class and strand.
        bedgraph: likewise.
        parquet: one file with all of them beside each other.
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

    positions, names = 0, set[str]()
    with contextlib.ExitStack() as stack:
        outputs: list[Callable[[Stretch], None]] = []
        files: list[Path] = []
        lengths = dict(sizes.values())
        for folder, end, kind in ((bigwig, BIGWIG, BigWigFile), (bedgraph, BEDGRAPH, BedGraphFile)):
            if folder is not None:
                _refuse_others(folder, end)
                draft = stack.enter_context(publish_directory(folder))
                tracks = stack.enter_context(_Tracks(draft, end, lambda file, make=kind: make(file, lengths)))  # type: ignore[misc]
                outputs.append(lambda one, tracks=tracks: tracks.add(one, sizes[one.chrom][0]))  # type: ignore[misc]
                files += [folder / f"{name}{end}" for name in _file_names(source.systems)]
        if parquet is not None:
            table = stack.enter_context(_Table(stack.enter_context(publish_file(parquet)), source.systems))
            outputs.append(lambda one: table.add(one, sizes[one.chrom][0]))
            files.append(parquet)
        for one in merged(chosen(all_of_them(), genes, regions)):
            positions += int((~np.isnan(next(iter(one.scores.values()))[:, 0])).sum())
            names.update(one.names)
            for write in outputs:
                write(one)
        absent = sorted({normalise_gene_id(gene) for gene in genes} - known)
        if absent:
            raise InputError(
                f"--gene {', '.join(absent[:5])}: not in {path}, which has {count_of(len(known), 'gene')}, by their ids"
            )
        if not positions:
            raise InputError(f"{path}: nothing to write: no gene of it lies there")
    return Exported(tuple(file for file in files if file.exists()), positions, len(names))


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
