"""What `openspliceai predict` 0.0.7 leaves: two BED files of calls, or `predict.h5` beside `datafile.h5`.

A sequence is a gene with real letters around it (`gene-X chr3:100-200(-)`, 1-based inclusive), or a record of a FASTA
on the strand as it stood there (`s1:+`), with all scores in transcript sense. Sequences of more than 1.5 million bases
are scored in pieces that overlap; each base is taken from the piece in whose inside it lies. The pieces of genes of the
minus strand are named by wrong coordinates, so these are left out.

BED: donors stand on the exon base, acceptors one base before it in transcript direction, on both strands: moved here.
Calls go on past the end of a sequence, into the padding of its last block, at low thresholds: left out. The threshold
stands nowhere in the file, and bases below it are missing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from metalayer.errors import InputError
from metalayer.formats.pieces import SPLICEAI_CHANNELS, Piece, Places, joined
from metalayer.formats.text import Block, blocks, table
from metalayer.genome import half_open
from metalayer.schema import ACCEPTOR, DONOR

BLOCK_BP = 5000
_CALL = re.compile(r"_(Donor|Acceptor)$")
_REGION = re.compile(r"(?:(.*)\s)?(\S+):(\d+)-(\d+)\(([-+.])\)(?::([-+]))?")
_RECORD = re.compile(r"(.+):([-+])")
_COLUMNS = {"contig": pl.String, "start": pl.Int64, "end": pl.Int64, "name": pl.String, "score": pl.Float32}
_COLUMNS_OF_BED = {**_COLUMNS, "strand": pl.String}
_NEEDS = (
    "needed are the six columns of openspliceai predict: contig, start, end, NAME_Donor or NAME_Acceptor, score and "
)
_ALL = frozenset((kind, strand) for kind in (DONOR, ACCEPTOR) for strand in ("+", "-"))


@dataclass(frozen=True)
class Sequence:
    """A sequence that was scored, and the part of it that counts.

    Attributes:
        gene_id: empty where it is no gene.
        contig: where it lies.
        strand: that was scored.
        start: 0-based, along the contig.
        end: one past its last; None for the end of the contig.
    """

    gene_id: str
    contig: str
    strand: str
    start: int = 0
    end: int | None = None


@cache
def sequence_of(name: str) -> Sequence | None:
    """What a name of OpenSpliceAI says; None where it is none."""
    if match := _REGION.fullmatch(name):
        gene_id, contig, start, end, strand, given = match.groups()
        strand = (given or "+") if strand == "." else strand
        return Sequence(gene_id or "", contig, strand, *half_open(int(start), int(end)))
    if match := _RECORD.fullmatch(name):
        return Sequence("", match[1], match[2])
    return None


@dataclass
class _Parts:
    """What each sequence owns, of those that overlap because they are pieces of one."""

    owned: dict[Sequence, tuple[int, int]] = field(default_factory=dict)
    misplaced: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, sequences: Collection[Sequence]) -> _Parts:
        found = cls()
        wholes: dict[tuple[str, str, str], list[Sequence]] = defaultdict(list)
        for one in sequences:
            if one.end is not None:
                wholes[one.gene_id, one.contig, one.strand].append(one)
        for (gene_id, _, strand), parts in wholes.items():
            if len(parts) < 2:
                continue
            if gene_id and strand == "-":
                found.misplaced.add(gene_id)
            parts.sort(key=lambda part: part.start)
            ends = [part.end or 0 for part in parts]
            cuts = [(after.start + end) // 2 for after, end in zip(parts[1:], ends, strict=False)]
            for part, low, high in zip(parts, [parts[0].start, *cuts], [*cuts, ends[-1]], strict=True):
                found.owned[part] = (low, high)
        return found

    def bounds(self, one: Sequence, places: Places) -> tuple[int, int]:
        """Of a sequence, 0-based half-open along the contig."""
        end = places.lengths[places.key(one.contig) or ""] if one.end is None else one.end
        return self.owned.get(one, (one.start, end))


class _Odd:
    """What was left out, for the notes."""

    def __init__(self) -> None:
        self.beyond = 0
        self.misplaced: set[str] = set()

    def notes(self, path: Path) -> list[str]:
        found = []
        if self.beyond:
            found.append(f"{path.name}: {self.beyond:,} scores lie past the end of their sequence: left out")
        if self.misplaced:
            found.append(
                f"{path.name}: {len(self.misplaced)} genes of the minus strand were scored in pieces, which "
                f"OpenSpliceAI names by wrong coordinates: left out ({', '.join(sorted(self.misplaced)[:5])})"
            )
        return found


class Bed:
    """`donor_predictions.bed` or `acceptor_predictions.bed`, plain or packed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.gives = _ALL
        self._odd = _Odd()
        self._lowest = np.inf
        self._acceptors = 0

    def check(self, places: Places) -> None:
        """Nothing; see `Reader`."""

    def notes(self) -> list[str]:
        """What was moved or left out, and below which score nothing is there."""
        found = []
        if self._acceptors:
            found.append(
                f"{self.path.name}: {self._acceptors:,} acceptors moved by +1 in transcript direction, onto the exon: "
                "OpenSpliceAI's BED has them one base before it"
            )
        if np.isfinite(self._lowest):
            found.append(
                f"{self.path.name}: calls alone; the lowest score is {self._lowest:.6f}, so its threshold was about "
                f"{_threshold(self._lowest):g}, and bases below are missing"
            )
        return found + self._odd.notes(self.path)

    def pieces(self, places: Places, skip: int) -> Iterator[Piece]:
        """In the order of the file; see `Reader`."""
        self.__init__(self.path)  # type: ignore[misc]
        found: set[Sequence] = set()
        for block in blocks(self.path, "BED"):
            found.update(self._sequences(self._frame(block)))
        if found and not any(places.key(one.contig) for one in found):
            raise InputError(places.foreign(self.path, sorted({one.contig for one in found})))
        parts = _Parts.of(found)
        self._odd.misplaced = parts.misplaced
        number = 0
        for block in blocks(self.path, "BED"):
            for part in self._frame(block).partition_by("name", maintain_order=True):
                number += 1
                piece = self._piece(part, parts, places, block.share)
                if piece and number > skip:
                    yield piece
                elif number > skip:
                    yield Piece("", "+", np.empty(0, np.int64), {}, share=block.share)

    def _frame(self, block: Block) -> pl.DataFrame:
        return table(self.path, block, _COLUMNS_OF_BED, f"{_NEEDS}strand, with tabs between them")

    def _sequences(self, frame: pl.DataFrame) -> Iterator[Sequence]:
        for contig, name in frame.select("contig", "name").unique(maintain_order=True).iter_rows():
            yield self._sequence(contig, name)

    def _sequence(self, contig: str, name: str) -> Sequence:
        found = sequence_of(_CALL.sub("", name))
        if not _CALL.search(name) or found is None:
            raise InputError(
                f"{self.path}: {name!r} at {contig} is no name of openspliceai predict, as gene-X "
                "chr3:100-200(-)_Donor or s1:+_Acceptor; calls of other programs can be given as a table"
            )
        return found

    def _piece(self, rows: pl.DataFrame, parts: _Parts, places: Places, share: float) -> Piece | None:
        contig, name = str(rows["contig"][0]), str(rows["name"][0])
        one = self._sequence(contig, name)
        if one.gene_id in parts.misplaced or places.key(one.contig) is None:
            return None
        kind = DONOR if name.endswith("_Donor") else ACCEPTOR
        start, scores = rows["start"].to_numpy(), rows["score"].to_numpy()
        low, high = parts.bounds(one, places)
        late = int(kind == ACCEPTOR)
        if contig == one.contig:  # along the contig
            positions = start + late if one.strand == "+" else start - late
        else:  # an index into the sequence that was scored
            end = high if one.end is None else one.end
            positions = one.start + start + late if one.strand == "+" else end - 1 - start - late
        sequence_end = high if one.end is None else one.end
        self._odd.beyond += int(((positions < one.start) | (positions >= sequence_end)).sum())
        kept = (positions >= low) & (positions < high)
        self._lowest = min(self._lowest, float(scores.min()))
        self._acceptors += int(kept.sum()) * late
        at, values = joined(self.path, one.contig, positions[kept], {kind: scores[kept]})
        return Piece(one.contig, one.strand, at, values, one.gene_id, share)


def _threshold(lowest: float) -> float:
    """The score below which nothing is there, as somebody would have set it: its first digit."""
    if lowest <= 0:
        return 0.0
    unit = 10.0 ** np.floor(np.log10(lowest))
    return float(np.floor(lowest / unit * (1 + 1e-9)) * unit)


class Predictions:
    """`predict.h5`, whose blocks belong to the names and sequences of `datafile.h5` in the same folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.gives = _ALL
        self._odd = _Odd()

    def check(self, places: Places) -> None:
        """See that its names are there; see `Reader`."""
        self._names()

    def _names(self) -> Path:
        beside = self.path.with_name("datafile.h5")
        if not beside.is_file():
            raise InputError(
                f"{self.path}: predictions of OpenSpliceAI without names; datafile.h5, which it writes into the same "
                "folder, says what they are of: put it beside"
            )
        return beside

    def notes(self) -> list[str]:
        """What was left out."""
        return self._odd.notes(self.path)

    def pieces(self, places: Places, skip: int) -> Iterator[Piece]:
        """A sequence a piece; see `Reader`."""
        import h5py

        beside = self._names()
        try:
            with h5py.File(beside, "r") as names, h5py.File(self.path, "r") as scores:
                yield from self._read(names, scores["predictions"], places, skip)
        except (OSError, KeyError) as error:
            raise InputError(f"{self.path}: not whole, or {beside.name} is not ({error}); copy both again") from None

    def _read(self, names: Any, scores: Any, places: Places, skip: int) -> Iterator[Piece]:
        if scores.ndim != 3 or scores.shape[1:] != (3, BLOCK_BP):
            raise InputError(f"{self.path}: predictions of shape {scores.shape}; needed is (blocks, 3, {BLOCK_BP})")
        named = [name.decode() for name in names["NAME"][:]]
        lengths = [len(names["SEQ"][i]) for i in range(len(named))]
        counts = [-(-length // BLOCK_BP) for length in lengths]
        if sum(counts) != len(scores):
            raise InputError(
                f"{self.path}: {len(scores)} blocks, but the {len(named)} sequences of datafile.h5 need {sum(counts)}; "
                "give files of one run"
            )
        sequences = [sequence_of(name) for name in named]
        if wrong := next((name for name, one in zip(named, sequences, strict=True) if one is None), None):
            raise InputError(f"{self.path}: {wrong!r} in datafile.h5 is no name of openspliceai predict")
        known = [one for one in sequences if one is not None]
        if known and not any(places.key(one.contig) for one in known):
            raise InputError(places.foreign(self.path, sorted({one.contig for one in known})))
        parts = _Parts.of(set(known))
        self._odd.misplaced = parts.misplaced
        first = 0
        for number, (one, length, count) in enumerate(zip(known, lengths, counts, strict=True)):
            share, first = (number + 1) / len(known), first + count
            if number < skip:
                continue
            if one.gene_id in parts.misplaced or places.key(one.contig) is None:
                yield Piece("", "+", np.empty(0, np.int64), {}, share=share)
                continue
            end = one.start + length
            if one.end not in (None, end) or (one.end is None and end > parts.bounds(one, places)[1]):
                raise InputError(
                    f"{self.path}: {named[number]} has {length:,} letters in datafile.h5, which do not fit its place "
                    f"in {places.fasta}; are they of one genome build?"
                )
            values = scores[first - count : first].transpose(0, 2, 1).reshape(-1, 3)[:length]
            if one.strand == "-":
                values = values[::-1]
            low, high = parts.bounds(one, places)
            high = min(high, end)
            yield Piece(
                one.contig,
                one.strand,
                np.arange(low, high),
                {
                    kind: np.ascontiguousarray(values[low - one.start : high - one.start, channel], np.float32)
                    for channel, kind in enumerate(SPLICEAI_CHANNELS)
                },
                one.gene_id,
                share,
            )


def is_predict(dataset_names: Collection[str]) -> bool:
    """Whether an h5 file with these datasets is OpenSpliceAI's."""
    return set(dataset_names) == {"predictions"}


def is_call(fields: list[str]) -> bool:
    """Whether a line of BED is a call of OpenSpliceAI."""
    return len(fields) in (6, 7) and _CALL.search(fields[3]) is not None
