"""Genes whose scores are read one at a time, as often as an evaluation needs: from disk, or made of others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import overload

import numpy as np
from numpy.typing import NDArray

from metalayer.evaluation.columns import Columns
from metalayer.evaluation.metrics import GeneScores
from metalayer.schema import CLASSES, NEITHER

Scores = NDArray[np.float32]
_LABELS = "labels"


class ScoresWhenAsked(Mapping[str, Scores]):
    """Scores of systems that are read, or made, when they are asked for."""

    def __init__(self, by_system: Mapping[str, Callable[[], Scores]]) -> None:
        self._by_system = by_system

    def __getitem__(self, system: str) -> Scores:
        return self._by_system[system]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_system)

    def __len__(self) -> int:
        return len(self._by_system)

    def __contains__(self, system: object) -> bool:
        return system in self._by_system


class ScoresOnDisk(Sequence[GeneScores]):
    """Genes whose scores lie on disk, 1 byte a position and 12 a system, and are read when they are asked for."""

    def __init__(self, genes: Iterable[GeneScores], systems: Sequence[str]) -> None:
        """Write genes, one at a time.

        Args:
            genes: each with its scores.
            systems: whose scores to keep.
        """
        kinds: dict[str, tuple[type[np.generic], tuple[int, ...]]] = {_LABELS: (np.uint8, ())}
        self._arrays = Columns(kinds | {name: (np.float32, (len(CLASSES),)) for name in systems})
        self._systems = tuple(systems)
        self._genes: list[GeneScores] = []
        for gene in genes:
            self._arrays.append(**{_LABELS: gene.labels}, **{name: gene.scores[name] for name in systems})
            self._genes.append(replace(gene, labels=np.empty(0, np.uint8), scores={}))

    def __len__(self) -> int:
        return len(self._genes)

    @overload
    def __getitem__(self, number: int) -> GeneScores: ...

    @overload
    def __getitem__(self, number: slice) -> list[GeneScores]: ...

    def __getitem__(self, number: int | slice) -> GeneScores | list[GeneScores]:
        if isinstance(number, slice):
            return [self[i] for i in range(len(self))[number]]
        at = range(len(self))[number]
        scores = {name: partial(self._arrays.read, name, at) for name in self._systems}
        return replace(self._genes[at], labels=self._arrays.read(_LABELS, at), scores=ScoresWhenAsked(scores))


@dataclass(frozen=True)
class MadeOf(Collection[GeneScores]):
    """Other genes, with scores that are made each time that they are read.

    Attributes:
        genes: the others.
        scores: gives the scores of systems for a gene's number and the gene.
        chosen: numbers of those that there are; None: all.
    """

    genes: Collection[GeneScores]
    scores: Callable[[int, GeneScores], Mapping[str, Callable[[], Scores]]]
    chosen: Collection[int] | None = None

    def __len__(self) -> int:
        return len(self.genes if self.chosen is None else self.chosen)

    def __iter__(self) -> Iterator[GeneScores]:
        for number, gene in enumerate(self.genes):
            if self.chosen is None or number in self.chosen:
                yield replace(gene, scores=ScoresWhenAsked(self.scores(number, gene)))

    def __contains__(self, gene: object) -> bool:
        return any(one is gene for one in self)


@dataclass(frozen=True)
class PrincipalLabels(Collection[GeneScores]):
    """Genes whose sites are those of principal transcripts; sites of other isoforms alone do not count."""

    genes: Collection[GeneScores]

    def __len__(self) -> int:
        return len(self.genes)

    def __iter__(self) -> Iterator[GeneScores]:
        for gene in self.genes:
            labels = gene.labels.copy()
            labels[gene.alternative] = NEITHER
            yield replace(gene, labels=labels, ignored=np.union1d(gene.ignored, gene.alternative))

    def __contains__(self, gene: object) -> bool:
        return any(one is gene for one in self)


@dataclass(frozen=True)
class Chained(Collection[GeneScores]):
    """The genes of several collections, one after the other."""

    parts: Sequence[Collection[GeneScores]]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[GeneScores]:
        return chain.from_iterable(self.parts)

    def __contains__(self, gene: object) -> bool:
        return any(one is gene for one in self)
