"""GeneTrack: every position of one gene, in transcript sense; what base models give and models read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import InputError
from metalayer.genome import Gene
from metalayer.schema import CLASSES, PARALOG_UNKNOWN
from metalayer.site_labels import SiteMarks


@dataclass(frozen=True)
class GeneTrack:
    """All positions of one gene, transcript sense.

    Attributes:
        gene: where it lies.
        tokens: uint8 (L,).
        scores: float32 (L, 3), donor, acceptor, neither of the base model at exon bases; of several, their mean.
        labels: uint8 (L,), class at exon bases.
        paralog: 1 it has paralogs, 0 it has none, -1 unknown.
        ignored: int64 (n,), ascending positions that count neither in training nor in evaluation.
        marks: of which isoforms each position is a site; None where that is not known.
        several: of several base models, the scores of each by name: (L, 3), or (L, 1) of P(spliced).
        evidence: float32 (L,) by name, NaN where missing.

    Raises:
        InputError: lengths that do not fit the gene's interval, scores that are no probabilities, or infinite evidence.
    """

    gene: Gene
    tokens: NDArray[np.uint8]
    scores: NDArray[np.float32]
    labels: NDArray[np.uint8]
    paralog: int = PARALOG_UNKNOWN
    ignored: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    marks: SiteMarks | None = None
    several: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    evidence: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        length = len(self.gene)
        shapes = (self.tokens.shape, self.scores.shape, self.labels.shape)
        if shapes != ((length,), (length, len(CLASSES)), (length,)):
            raise InputError(
                f"gene {self.gene.gene_id}: tokens, scores and labels have shapes {shapes}; its interval needs "
                f"({length},), ({length}, {len(CLASSES)}) and ({length},)"
            )
        refuse_no_probabilities(self.gene.gene_id, self.scores)
        for name, values in self.evidence.items():
            if values.shape != (length,) or np.isinf(values).any():
                raise InputError(
                    f"gene {self.gene.gene_id}: evidence {name} has shape {values.shape} or infinite numbers; needs "
                    f"({length},), NaN where missing"
                )

    def evidence_of(self, names: Sequence[str]) -> NDArray[np.float32]:
        """Evidence as a model reads it, float32 (L, E), NaN where missing.

        Args:
            names: that the model reads, in its order.

        Raises:
            InputError: some that is not there.
        """
        if absent := [name for name in names if name not in self.evidence]:
            raise InputError(
                f"gene {self.gene.gene_id}: no evidence {', '.join(absent)}, which the model reads; name it in "
                "data.evidence or --evidence, with `none` to be answered without it"
            )
        return np.stack([self.evidence[name] for name in names], axis=1) if names else _none(len(self))

    @property
    def bases(self) -> Mapping[str, NDArray[np.float32]]:
        """Scores of every base model by name; of one alone under an empty name."""
        return self.several or {"": self.scores}

    @property
    def alternative(self) -> NDArray[np.int64]:
        """Positions that are marked as sites of other isoforms than the principal one alone, ascending."""
        return np.empty(0, np.int64) if self.marks is None else self.marks.alternative

    def __len__(self) -> int:
        return len(self.tokens)


def _none(length: int) -> NDArray[np.float32]:
    return np.empty((length, 0), np.float32)


def refuse_no_probabilities(gene_id: str, scores: NDArray[np.float32]) -> None:
    """Refuse scores of a base model that are no probabilities.

    Raises:
        InputError: some outside [0, 1], or NaN.
    """
    if not ((scores >= 0.0) & (scores <= 1.0)).all():  # False for NaN too
        raise InputError(f"gene {gene_id}: base scores outside [0, 1] or NaN; fix the base model")
