"""GeneTrack: every position of one gene, in transcript sense; what base models give and models read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import InputError
from metalayer.genome import Gene
from metalayer.schema import CLASSES, PARALOG_UNKNOWN


@dataclass(frozen=True)
class GeneTrack:
    """All positions of one gene, transcript sense.

    Attributes:
        gene: where it lies.
        tokens: uint8 (L,).
        scores: float32 (L, 3), donor, acceptor, neither of the base model at exon bases.
        labels: uint8 (L,), class at exon bases.
        paralog: 1 it has paralogs, 0 it has none, -1 unknown.

    Raises:
        InputError: lengths that do not fit the gene's interval, or scores that are no probabilities.
    """

    gene: Gene
    tokens: NDArray[np.uint8]
    scores: NDArray[np.float32]
    labels: NDArray[np.uint8]
    paralog: int = PARALOG_UNKNOWN

    def __post_init__(self) -> None:
        length = len(self.gene)
        shapes = (self.tokens.shape, self.scores.shape, self.labels.shape)
        if shapes != ((length,), (length, len(CLASSES)), (length,)):
            raise InputError(
                f"gene {self.gene.gene_id}: tokens, scores and labels have shapes {shapes}; its interval needs "
                f"({length},), ({length}, {len(CLASSES)}) and ({length},)"
            )
        if not ((self.scores >= 0.0) & (self.scores <= 1.0)).all():  # False for NaN too
            raise InputError(f"gene {self.gene.gene_id}: base scores outside [0, 1] or NaN; fix the base model")

    def __len__(self) -> int:
        return len(self.tokens)
