"""Several base models as one, before anything is learned: their geometric mean.

Of base models that tell donors from acceptors it is the mean of log-probabilities. One that gives a splice site of
either kind, P(spliced), joins with its probability divided between the two kinds as the others together divide theirs.
Axes: L positions, C classes (donor, acceptor, neither).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from metalayer.errors import InputError
from metalayer.features import log_probabilities
from metalayer.schema import ACCEPTOR, BASE_SCORES, CLASSES, DONOR, SPLICED_SCORE

Floats = NDArray[np.float32]
Bases = Mapping[str, Floats]
"""Scores of base models by name, transcript sense, at exon bases: (L, C), or (L, 1) of P(spliced)."""


def tells_kinds(scores: Floats) -> bool:
    """Whether scores tell donors from acceptors."""
    return bool(scores.shape[1] == len(CLASSES))


def untrained_mean(bases: Bases) -> Floats:
    """Geometric mean of base models, normalised: float32 (L, C).

    Raises:
        InputError: none of them tells donors from acceptors.
    """
    telling = [log_probabilities(scores) for scores in bases.values() if tells_kinds(scores)]
    if not telling:
        raise InputError(
            f"scores of base model {', '.join(filter(None, bases)) or 'unnamed'}: given {SPLICED_SCORE} alone, which "
            f"does not tell donors from acceptors; put those of one that does ({', '.join(BASE_SCORES)}) beside them: "
            "metalayer merge"
        )
    total = np.sum(telling, axis=0)
    kinds = softmax(total[:, [DONOR, ACCEPTOR]] / len(telling), axis=1)
    for scores in bases.values():
        if not tells_kinds(scores):
            spliced = scores[:, 0].astype(np.float64)
            parts = np.stack([spliced * kinds[:, DONOR], spliced * kinds[:, ACCEPTOR], 1.0 - spliced], axis=1)
            total += log_probabilities(parts)
    mean: Floats = softmax(total / len(bases), axis=1).astype(np.float32)
    return mean
