"""What every reader of foreign scores gives: pieces of one strand, placed along the genome, a bounded number at a time.

A reader turns what its format says (1-based, half-open, transcript sense, channels) into 0-based positions along the
contig and classes of ours. It does not move sites: whether they stand at exon bases is judged by letters and labels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metalayer.contigs import Contigs, listed
from metalayer.errors import InputError
from metalayer.genome import MITOCHONDRIAL, Gene
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER

logger = logging.getLogger(__name__)

MOST_POSITIONS = 1 << 20
"""Positions of a piece, at most: what a reader holds."""
SAME = 1e-5
"""Scores of one base that differ by less are one: files round to six digits or more."""
SPLICEAI_CHANNELS = (NEITHER, ACCEPTOR, DONOR)
"""Classes of SpliceAI's and OpenSpliceAI's three channels."""

Values = Mapping[int, NDArray[np.float32]]


@dataclass(frozen=True)
class Piece:
    """Scores of some positions of one strand.

    Attributes:
        contig: its name as the file has it.
        strand: `+` or `-`.
        positions: int64 (n,), 0-based along the contig, each once, ascending.
        values: float32 (n,) by class; NaN where there is no score.
        gene_id: the gene that they are of, as the file has it; empty for whatever gene lies there.
        share: of the file that is read with this piece.
    """

    contig: str
    strand: str
    positions: NDArray[np.int64]
    values: Values
    gene_id: str = ""
    share: float = 1.0


@dataclass(frozen=True)
class Places:
    """Where scores are wanted.

    Attributes:
        fasta: the reference, for messages.
        contigs: which names are of one contig.
        names: of the contigs in the FASTA, by ours.
        lengths: of them, nt by our names.
        stretches: int64 (n, 2) by our name and strand: 0-based half-open, ascending, apart, none of more than
            `MOST_POSITIONS`.
        find: a gene by the id and our name of the contig that a file has; None where there is no such gene.
        without_genes: names of the contigs in the FASTA on which the annotation has no genes, by ours.
    """

    fasta: Path
    contigs: Contigs
    names: Mapping[str, str]
    lengths: Mapping[str, int]
    stretches: Mapping[tuple[str, str], NDArray[np.int64]]
    find: Callable[[str, str], Gene | None]
    without_genes: Mapping[str, str] = field(default_factory=dict)

    def key(self, name: str) -> str | None:
        """Our name of a file's contig; None where the FASTA has none."""
        key = self.contigs.key(name)
        if key not in self.lengths:
            key = self.contigs.twin(key) or key
        return key if key in self.lengths else None

    def wanted(self, name: str, strand: str) -> NDArray[np.int64]:
        """Stretches of a file's contig: int64 (n, 2)."""
        found = self.stretches.get((self.key(name) or "", strand))
        return np.empty((0, 2), np.int64) if found is None else found

    def shared(self, path: Path, stated: Mapping[str, int]) -> list[str]:
        """Those contigs of a file that the FASTA has.

        Mitochondrial genomes of different lengths (UCSC's hg19 has another one than GRCh37) are two.

        Args:
            path: of the file.
            stated: lengths in nt, by the file's names.

        Raises:
            InputError: a contig of another length, or none that the FASTA has.
        """
        keys = {name: self.key(name) for name in stated}
        for name, key in list(keys.items()):
            if key is not None and self.lengths[key] != stated[name]:
                if key in MITOCHONDRIAL:
                    keys[name] = None
                    continue
                raise InputError(
                    f"{path}: {name} has {stated[name]:,} nt, but {self.lengths[key]:,} in {self.fasta}: they are of "
                    "different genome builds. Give the FASTA and the annotation of the build of the scores"
                )
        if not any(keys.values()):
            raise InputError(self.foreign(path, list(stated)))
        if left := [name for name, key in keys.items() if key is None]:
            logger.warning("%s: %s: left out, without genes in the FASTA and the annotation", path, listed(left))
        return [name for name, key in keys.items() if key is not None]

    def foreign(self, path: Path, given: Sequence[str]) -> str:
        """What to say of a file that has none of the contigs of FASTA and annotation."""
        if bare := [name for name in given if self.contigs.key(name) in self.without_genes]:
            return (
                f"{path}: its contigs are {listed(given)}; {self.fasta} has {listed(bare)}, but the annotation has no "
                "genes there. Give one that has"
            )
        return (
            f"{path}: its contigs are {listed(given)}; none is in {self.fasta}, which has "
            f"{listed(self.names.values())}. {self.contigs.hint(given, self.names.values())}"
        )


class Reader(Protocol):
    """A file, or a part of one, that is read from its beginning.

    Attributes:
        path: the file.
        gives: classes and strands that it has scores of, as far as that is known before it is read.
    """

    path: Path
    gives: frozenset[tuple[int, str]]

    def check(self, places: Places) -> None:
        """See what can be seen before the file is read.

        Raises:
            InputError: as in `pieces`.
        """

    def pieces(self, places: Places, skip: int) -> Iterator[Piece]:
        """All pieces but the first `skip`, the same whenever the file is read.

        Raises:
            InputError: a damaged file, or one that is not of these places.
        """

    def notes(self) -> list[str]:
        """What is to be known of how it was read, once it was: sentences."""


@dataclass
class Track:
    """A class of one strand in a file that names neither: what bigWig and bedGraph hold."""

    path: Path
    site_class: int
    strand: str
    gives: frozenset[tuple[int, str]] = field(init=False)

    def __post_init__(self) -> None:
        self.gives = frozenset([(self.site_class, self.strand)])

    def check(self, places: Places) -> None:
        """Nothing; see `Reader`."""

    def notes(self) -> list[str]:
        """Nothing."""
        return []


def joined(
    path: Path, contig: str, positions: NDArray[np.int64], values: Mapping[int, NDArray[np.floating]]
) -> tuple[NDArray[np.int64], dict[int, NDArray[np.float32]]]:
    """Positions in ascending order, each once, with their values.

    Args:
        path: of the file, for the message.
        contig: likewise.
        positions: int64 (n,), in any order.
        values: (n,) by class.

    Raises:
        InputError: one position has two values.
    """
    plain = {kind: np.asarray(column, dtype=np.float32) for kind, column in values.items()}
    steps = np.diff(positions)
    if (steps > 0).all():
        return positions, plain
    order = np.argsort(positions, kind="stable")
    positions = positions[order]
    first = np.concatenate([[True], np.diff(positions) > 0])
    group = np.cumsum(first) - 1
    kept = {}
    for kind, column in plain.items():
        ordered = column[order]
        known = ~np.isnan(ordered)
        one = np.full(int(group[-1]) + 1, np.nan, np.float32)
        one[group[known][::-1]] = ordered[known][::-1]  # of several, the first
        odd = known & (np.abs(ordered - one[group]) > SAME)
        if odd.any():
            at = int(np.flatnonzero(odd)[0])
            raise InputError(contradiction(path, contig, int(positions[at]), kind, ordered[at], one[group[at]]))
        kept[kind] = one
    return positions[first], kept


def contradiction(path: Path, contig: str, position: int, kind: int, value: float, known: float) -> str:
    """What to say of a base with two scores; `position` is 0-based."""
    return (
        f"{path}: {CLASSES[kind]} score {value:g} at {contig}:{position + 1:,}, where an earlier line or file has "
        f"{known:g}. One base has one score: leave out one of the files, or what is in both; values of different base "
        "models are imported apart, each with its --base"
    )


def inside(positions: NDArray[np.int64], stretches: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which positions lie in one of the stretches: bool (n,)."""
    if not len(stretches):
        return np.zeros(len(positions), dtype=bool)
    at = np.searchsorted(stretches[:, 0], positions, side="right") - 1
    found: NDArray[np.bool_] = (at >= 0) & (positions < stretches[at, 1])
    return found
