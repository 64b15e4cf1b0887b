"""Letters and score peaks around each labelled site, counted gene by gene, so that conventions can be judged.

A site is a label at an exon base. Counted around it, in transcript direction, are the places where the letters of an
intron's end stand, and the places of the highest scores: as the file stands, and as it would be with another strand's
letters, another order of rows, or donor and acceptor exchanged. Counts add up. What is held is some windows, and one
`SiteCounts` for each chromosome and strand.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.base.agreement import SHIFTS, begins_intron, ends_intron
from metalayer.data.windows import encode_windows
from metalayer.genome import N_TOKEN, complement, exon_base, token_table
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER

AS_IT_STANDS, BACKWARDS, AT_MIRRORED, MIRRORED_BACKWARDS = range(4)
"""Ways to read the letters at a site: onwards or backwards from its own place, or from its mirror place in the gene."""
OWN, OTHER = 0, 1
"""Letters or scores of the site's own class, or of the other one."""
NO_SHIFT = SHIFTS.index(0)
_NEAR, _REACH = max(SHIFTS) + 1, max(SHIFTS) + 2
_SITES_AT_ONCE = 4096
_SHIFTS = len(SHIFTS)
_TIE = 0.95
"""Of the highest score: others above this share of it are as high, so that smoothed scores have no peak by rounding."""
_CLEARLY = 2.0
_MOST_CELLS = 1000
_OTHERS = "(of those after the first 500)"


@dataclass
class SiteCounts:
    """Counts of the sites of some genes, by class (donor, acceptor).

    Attributes:
        labels: int64 (2,), sites.
        lettered: int64 (2,), of them those with letters, not N, at all of the two bases to either side.
        letters: int64 (2, 2 own or other, 4 ways to read, 2 as they are or complemented, shifts), lettered sites
            with GT or GC after a donor, AG before an acceptor, at that shift.
        peaks: int64 (2, 2 own or other, 2 here or at the mirror place, shifts), sites whose highest score of that
            column within eleven bases, if no other is about as high, lies there.
        higher: int64 (2, 2 own or other), sites near which that column is more than twice as high.
    """

    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    lettered: NDArray[np.int64] = field(default_factory=lambda: np.zeros(2, np.int64))
    letters: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, 2, 4, 2, _SHIFTS), np.int64))
    peaks: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, 2, 2, _SHIFTS), np.int64))
    higher: NDArray[np.int64] = field(default_factory=lambda: np.zeros((2, 2), np.int64))

    def add(self, other: SiteCounts) -> None:
        """Add the counts of other genes to these."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[...] += getattr(other, name)


@dataclass(frozen=True)
class _Windows:
    """Of some sites of one chromosome and strand, transcript sense.

    Attributes:
        classes: uint8 (n,).
        tokens: uint8 (2 own place and mirror place, n, bases).
        values: float32 (2, n, shifts and one more at either end, 2 columns); -1 where there is no score.
        highest: float32 (n, 2 columns), near the site.
    """

    classes: NDArray[np.uint8]
    tokens: NDArray[np.uint8]
    values: NDArray[np.float32]
    highest: NDArray[np.float32]


@dataclass
class ConventionCounts:
    """Counts by chromosome and strand, taken in gene by gene.

    Attributes:
        of_rows: whether they are of artifact rows (`add_rows`), not of genes (`add`).
        cells: counts by (chromosome, strand), of all genes once `totals` was called; chromosomes after the first 500
            count as one, so that memory has a bound where an assembly has 100,000 contigs.
    """

    of_rows: bool = False
    cells: dict[tuple[str, str], SiteCounts] = field(default_factory=dict)
    _keys: list[tuple[str, str]] = field(default_factory=list)
    _waiting: list[_Windows] = field(default_factory=list)
    _sites: int = 0

    def add(self, chrom: str, strand: str, base: pl.Series, scores: NDArray[np.floating], labels: pl.Series) -> None:
        """Take in a gene.

        Args:
            chrom: where it lies.
            strand: `+` or `-`.
            base: letters of the plus strand (L,), one a row, ascending in position; other than ACGTN: none.
            scores: (L, 3), donor, acceptor, neither.
            labels: uint8 (L,), class at exon bases.
        """
        classes = labels.to_numpy()
        sites = np.flatnonzero(classes != NEITHER)
        if not len(sites):
            return
        length = len(classes)
        # (2 own place and mirror place, sites, bases), in transcript direction.
        step = -1 if strand == "-" else 1
        at = np.stack([sites, length - 1 - sites])[:, :, None] + step * np.arange(-_REACH, _REACH + 1)
        outside = (at < 0) | (at >= length)
        at[outside] = 0
        letters = np.frombuffer("".join(base.gather(at.ravel()).to_list()).encode(), dtype=np.uint8)
        tokens = token_table()[letters].reshape(at.shape)
        tokens[outside | (tokens > N_TOKEN)] = N_TOKEN
        near = slice(_REACH - _NEAR, _REACH + _NEAR + 1)
        values = scores[:, (DONOR, ACCEPTOR)][at[:, :, near]].astype(np.float32)
        values[outside[:, :, near]] = -1.0
        tokens = complement(tokens) if strand == "-" else tokens
        self._take(chrom, strand, _Windows(classes[sites], tokens, values, values[0].max(axis=1)))

    def add_rows(self, rows: pl.DataFrame, scores: NDArray[np.floating]) -> None:
        """Take in artifact rows, which have letters around them, but no scores of their neighbours.

        Args:
            rows: chrom, strand, sequence, index (of the intron base in it) and splice_type.
            scores: (n, 3), donor, acceptor, neither.
        """
        for site_class in (DONOR, ACCEPTOR):
            at = pl.col("index").cast(pl.Int64) + exon_base(0, site_class)
            inside = (at >= 0) & (at < pl.col("sequence").str.len_bytes())
            kept = rows.select(
                *("chrom", "strand", "sequence", at.alias("at")),
                ((pl.col("splice_type") == CLASSES[site_class]) & inside).alias("kept"),
            ).with_row_index("row")
            for (chrom, strand), part in kept.filter("kept").group_by("chrom", "strand", maintain_order=True):
                tokens = np.full((2, len(part), 2 * _REACH + 1), N_TOKEN, dtype=np.uint8)
                tokens[0] = encode_windows(part["sequence"], part["at"].to_numpy(), tokens.shape[2])
                values = np.full((2, len(part), 2 * _NEAR + 1, 2), -1, dtype=np.float32)
                highest = scores[part["row"].to_numpy()][:, (DONOR, ACCEPTOR)].astype(np.float32)
                classes = np.full(len(part), site_class, dtype=np.uint8)
                self._take(str(chrom), str(strand), _Windows(classes, tokens, values, highest))

    def _take(self, chrom: str, strand: str, sites: _Windows) -> None:
        self._keys += [(chrom, strand)] * len(sites.classes)
        self._waiting.append(sites)
        self._sites += len(sites.classes)
        if self._sites >= _SITES_AT_ONCE:
            self._count()

    def merge(self, other: ConventionCounts) -> None:
        """Take in the genes of another file."""
        self._count()
        other._count()
        for key, counts in other.cells.items():
            self._cell(key).add(counts)

    def totals(self) -> dict[str, SiteCounts]:
        """Counts by strand, over all chromosomes."""
        self._count()
        found: dict[str, SiteCounts] = {}
        for (_, strand), counts in self.cells.items():
            found.setdefault(strand, SiteCounts()).add(counts)
        return found

    def _cell(self, key: tuple[str, str]) -> SiteCounts:
        if key not in self.cells and len(self.cells) >= _MOST_CELLS:
            key = (_OTHERS, key[1])
        return self.cells.setdefault(key, SiteCounts())

    def _count(self) -> None:
        if not self._sites:
            return
        classes = np.concatenate([one.classes for one in self._waiting])
        tokens = np.concatenate([one.tokens for one in self._waiting], axis=1)
        values = np.concatenate([one.values for one in self._waiting], axis=1)
        highest = np.concatenate([one.highest for one in self._waiting])
        keys = self._keys
        self._keys, self._waiting, self._sites = [], [], 0
        known = np.logical_and.reduce(tokens[0, :, _REACH - 2 : _REACH + 3] < N_TOKEN, axis=1)
        letters = _letters(tokens, classes) & known[:, None, None, None, None]
        peaks = _peaks(values, classes)
        donor, acceptor = highest.T
        higher = _own_and_other(donor > _CLEARLY * acceptor, acceptor > _CLEARLY * donor, classes)
        cells = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        groups = np.array([cells[key] for key in keys])
        for key, number in cells.items():
            counts = self._cell(key)
            for site_class in (DONOR, ACCEPTOR):
                here = (groups == number) & (classes == site_class)
                counts.labels[site_class] += here.sum()
                counts.lettered[site_class] += known[here].sum()
                counts.letters[site_class] += letters[here].sum(axis=0)
                counts.peaks[site_class] += peaks[here].sum(axis=0)
                counts.higher[site_class] += higher[here].sum(axis=0)


def _letters(tokens: NDArray[np.uint8], classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where an intron's end fits: (2 places, sites, bases) to (sites, 2 own or other, 4 ways, 2, shifts)."""
    ways = np.stack([tokens[0], tokens[0, :, ::-1], tokens[1], tokens[1, :, ::-1]], axis=1)
    read = np.stack([ways, complement(ways)], axis=2)  # (sites, ways, 2, bases)
    begins = begins_intron(read[..., 3 : 3 + _SHIFTS], read[..., 4 : 4 + _SHIFTS])
    ends = ends_intron(read[..., :_SHIFTS], read[..., 1 : 1 + _SHIFTS])
    return _own_and_other(begins, ends, classes)


def _peaks(values: NDArray[np.float32], classes: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The single highest place, not at an end, where it may be of a slope that rises further on.

    Args:
        values: (2 places, sites, shifts and one more at either end, 2 columns).
        classes: (sites,).

    Returns:
        (sites, 2 own or other, 2 places, shifts).
    """
    top = values.max(axis=2, keepdims=True)
    at_top: NDArray[np.bool_] = values >= _TIE * top
    single = at_top & (at_top.sum(axis=2, keepdims=True) == 1) & (top > 0)
    donor, acceptor = (single[:, :, 1:-1, column].swapaxes(0, 1) for column in (DONOR, ACCEPTOR))
    return _own_and_other(donor, acceptor, classes)


def _own_and_other(
    donor: NDArray[np.bool_], acceptor: NDArray[np.bool_], classes: NDArray[np.uint8]
) -> NDArray[np.bool_]:
    """(sites, ...) of donors and of acceptors to (sites, 2 own or other, ...)."""
    both = np.stack([donor, acceptor], axis=1)
    both[classes == ACCEPTOR] = both[classes == ACCEPTOR, ::-1]
    return both
