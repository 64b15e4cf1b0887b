"""Arrays of SpliceAI's shape, npy, npz or HDF5: (L, 3), (1, L, 3), or (3, L) as in PyTorch; neither, acceptor, donor.

An array has no place of its own: a sheet gives it one, or its key (npz, HDF5) or file name (npy) is the id of a gene.
Row 0 is the first base in transcript sense, unless the sheet says `genome` in a column `sense`. Nothing is unpickled.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from metalayer.errors import InputError
from metalayer.formats.pieces import MOST_POSITIONS, SPLICEAI_CHANNELS, Piece, Places
from metalayer.genome import half_open, normalise_gene_id
from metalayer.schema import ACCEPTOR, CLASSES, DONOR

TRANSCRIPT, GENOME = "transcript", "genome"
_ALL = frozenset((kind, strand) for kind in (DONOR, ACCEPTOR) for strand in ("+", "-"))
_NPY = b"\x93NUMPY"
_HINT = (
    "give a sheet with columns path, key (of npz and h5) and gene_id, or path, key, chrom, start, end (1-based "
    "inclusive) and strand"
)


@dataclass(frozen=True)
class ArrayPlace:
    """Where an array lies.

    Attributes:
        key: of npz or HDF5; empty for npy.
        gene_id: of the gene whose scores it has; empty for all genes there.
        contig: empty for that of the gene.
        start: 0-based.
        end: one past its last.
        strand: of the scores.
        sense: `TRANSCRIPT`, row 0 is the 5' end, or `GENOME`, row 0 is the lowest position.
        channels: classes of the columns.
    """

    key: str = ""
    gene_id: str = ""
    contig: str = ""
    start: int = 0
    end: int = 0
    strand: str = ""
    sense: str = TRANSCRIPT
    channels: tuple[int, ...] = SPLICEAI_CHANNELS


def place_of(line: Mapping[str, str], where: str) -> ArrayPlace:
    """A place from a line of a sheet.

    Args:
        line: fields by column; those that are empty are absent.
        where: the line, for messages.

    Raises:
        InputError: no gene_id and no whole place, or fields that are none.
    """
    numbers = {"chrom", "start", "end"} & line.keys()
    if not ("gene_id" in line or (len(numbers) == 3 and "strand" in line)):
        raise InputError(f"{where}: an array without a place; {_HINT}")
    channels: tuple[int, ...] = SPLICEAI_CHANNELS
    if "channels" in line:
        names = line["channels"].replace(",", " ").lower().split()
        if sorted(names) != sorted(CLASSES):
            raise InputError(f"{where}: channels {line['channels']!r}; needed are {', '.join(CLASSES)}, in their order")
        channels = tuple(CLASSES.index(name) for name in names)
    sense = line.get("sense", TRANSCRIPT)
    if sense not in (TRANSCRIPT, GENOME):
        raise InputError(f"{where}: sense {sense!r}; allowed are {TRANSCRIPT} and {GENOME}")
    if line.get("strand", "+") not in ("+", "-"):
        raise InputError(f"{where}: strand {line['strand']!r}; allowed are + and -")
    kept = ArrayPlace(
        line.get("key", ""), line.get("gene_id", ""), strand=line.get("strand", ""), sense=sense, channels=channels
    )
    if len(numbers) < 3:
        return kept
    try:
        start, end = half_open(int(line["start"]), int(line["end"]))
    except ValueError:
        start, end = -1, -1
    if not 0 <= start < end:
        raise InputError(f"{where}: {line['start']} to {line['end']}; needed is 1 <= start <= end")
    return replace(kept, contig=line["chrom"], start=start, end=end)


class Arrays:
    """The arrays of a file."""

    def __init__(self, path: Path, listed: list[ArrayPlace] | None) -> None:
        """The arrays of a file.

        Args:
            path: npy, npz or HDF5.
            listed: their places by a sheet; None: keys and file name are ids of genes.
        """
        self.path = path
        self.gives = _ALL
        self._listed = listed
        self._strangers: list[str] = []

    def check(self, places: Places) -> None:
        """Nothing; see `Reader`."""

    def notes(self) -> list[str]:
        """Keys that are no genes."""
        if not self._strangers:
            return []
        return [
            f"{self.path.name}: {len(self._strangers)} arrays are of no gene of the annotation: left out "
            f"({', '.join(self._strangers[:5])})"
        ]

    def pieces(self, places: Places, skip: int) -> Iterator[Piece]:
        """An array after the other, in parts; see `Reader`."""
        self._strangers = []
        number = 0
        with _opened(self.path) as arrays:
            wanted = self._listed or [
                ArrayPlace(key, normalise_gene_id(key.rpartition("/")[2] or self.path.stem)) for key in arrays.keys
            ]
            for at, place in enumerate(wanted):
                whole = self._placed(place, arrays, places)
                if whole is None:
                    continue
                array = _rows(arrays.get(place.key), self.path, place.key)
                length = whole.end - whole.start
                if len(array) != length:
                    raise InputError(
                        f"{self.path}{f', {place.key}' if place.key else ''}: {len(array):,} rows, but its place "
                        f"{whole.contig}:{whole.start + 1}-{whole.end} has {length:,} bases; a row a base"
                    )
                for low in range(0, length, MOST_POSITIONS):
                    high = min(low + MOST_POSITIONS, length)
                    number += 1
                    if number <= skip:
                        continue
                    turned = whole.strand == "-" and whole.sense == TRANSCRIPT
                    part = array[length - high : length - low][::-1] if turned else array[low:high]
                    values = {kind: np.array(part[:, i], np.float32) for i, kind in enumerate(whole.channels)}
                    positions = np.arange(whole.start + low, whole.start + high)
                    yield Piece(
                        whole.contig, whole.strand, positions, values, whole.gene_id, (at + high / length) / len(wanted)
                    )
        if not number:
            raise InputError(
                f"{self.path}: none of its arrays ({', '.join(self._strangers[:5])}) is called as a gene of the "
                f"annotation; {_HINT}"
            )

    def _placed(self, place: ArrayPlace, arrays: _Opened, places: Places) -> ArrayPlace | None:
        """A place with its contig, strand and bounds; None where it is left out."""
        if place.key not in arrays.keys:
            raise InputError(
                f"{self.path}: no array {place.key!r}; there are {', '.join(list(arrays.keys)[:10]) or 'none'}"
                if place.key or arrays.keys != [""]
                else f"{self.path}: which of its arrays? A sheet names it in the column key"
            )
        gene = places.find(normalise_gene_id(place.gene_id), places.key(place.contig) or "") if place.gene_id else None
        if place.contig:
            key = places.key(place.contig)
            if key is None:
                raise InputError(places.foreign(self.path, [place.contig]))
            if place.end > places.lengths[key]:
                raise InputError(
                    f"{self.path}: {place.contig}:{place.start + 1}-{place.end} ends beyond the contig, which has "
                    f"{places.lengths[key]:,} nt in {places.fasta}"
                )
            strand = place.strand or (gene.strand if gene else "")
            return replace(place, strand=strand)
        if gene is None:
            self._strangers.append(place.gene_id)
            return None
        if place.strand not in ("", gene.strand):
            raise InputError(
                f"{self.path}: {place.gene_id} is of the strand {place.strand} in the sheet, but {gene.strand} in the "
                "annotation"
            )
        span = gene.interval
        contig = places.names[span.chrom]
        return replace(place, contig=contig, strand=gene.strand, start=span.start, end=span.end)


@dataclass
class _Opened:
    """Arrays by key."""

    keys: list[str]
    get: Callable[[str], Any]
    close: Callable[[], None] = lambda: None

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _opened(path: Path) -> _Opened:
    if is_npz(path):
        try:
            archive = np.load(path, allow_pickle=False)
        except (ValueError, OSError, zipfile.BadZipFile) as error:
            raise InputError(f"{path}: not a whole npz file ({error}); copy it again") from None
        return _Opened(list(archive.files), lambda key: _read(path, lambda: archive[key]), archive.close)
    with path.open("rb") as handle:
        is_npy = handle.read(len(_NPY)) == _NPY
    if is_npy:
        return _Opened([""], lambda _: _read(path, lambda: np.load(path, mmap_mode="r", allow_pickle=False)))
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"{path}: not a whole HDF5 file ({error}); copy it again") from None
    return _Opened(datasets(file), lambda key: _read(path, lambda: file[key]), file.close)


def _read(path: Path, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: an array that cannot be read ({error}); needed are arrays of numbers, without Python objects"
        ) from None


def datasets(file: Any) -> list[str]:
    """Paths of all datasets of an open HDF5 file."""
    import h5py

    found: list[str] = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found


def is_npz(path: Path) -> bool:
    """Whether a file is a zip archive of arrays."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    return bool(names) and all(name.endswith(".npy") for name in names)


def _rows(array: Any, path: Path, key: str) -> Any:
    """An array as (L, 3)."""
    shape = tuple(array.shape)
    where = f"{path}{f', {key}' if key else ''}"
    if array.dtype.kind != "f":
        raise InputError(f"{where}: values of type {array.dtype}; needed are floating point numbers")
    if len(shape) == 3 and shape[0] == 1:
        array, shape = array[0], shape[1:]
    if len(shape) == 2 and shape[1] == 3:
        return array
    if len(shape) == 2 and shape[0] == 3:
        return np.asarray(array).T
    raise InputError(f"{where}: shape {shape}; needed is (L, 3), (1, L, 3) or (3, L): neither, acceptor, donor")
