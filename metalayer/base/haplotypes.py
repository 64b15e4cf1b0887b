"""What is asked of a base model about haplotypes that differ from a stretch of letters, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.uint8]
Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Alternative:
    """A haplotype: letters that stand for others of the window, and where its answers are wanted.

    Attributes:
        at: position of the first letter that goes.
        ref_len: letters that go.
        letters: uint8 tokens that come in their place.
        start: first position whose answers are wanted.
        end: behind the last one, in REF; in the haplotype that is `end + shift`.
    """

    at: int
    ref_len: int
    letters: Tokens
    start: int
    end: int

    @property
    def shift(self) -> int:
        """How much further right letters behind the change lie in the haplotype than in REF."""
        return len(self.letters) - self.ref_len


class Answers(NamedTuple):
    """Scores at [start, end) of REF, and at [start, end + shift) of the haplotype: float32 (n, columns) each."""

    reference: Scores
    alternative: Scores
