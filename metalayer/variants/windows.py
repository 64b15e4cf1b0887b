"""Probabilities of both haplotypes around a variant: what the definitions ask of base models and of ours.

Arrays are in genome order on both strands; networks read them in the gene's sense.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metalayer.base.protocol import BaseModel
from metalayer.device import has_torch
from metalayer.genome import N_TOKEN, decode, reverse_complement

Tokens = NDArray[np.uint8]
Scores = NDArray[np.float32]
"""(L, 3): donor, acceptor, neither."""


class HaplotypePass(Protocol):
    """Probabilities of one window of letters, and of haplotypes that differ from it."""

    @property
    def reference(self) -> Scores:
        """float32 (end - start, 3)."""

    def alternative(self, at: int, ref_len: int, letters: Tokens) -> Scores:
        """Probabilities where window letters [at, at + ref_len) are replaced.

        Args:
            at: index in the window, not before `start`.
            ref_len: letters that go, none beyond `end`.
            letters: uint8 (n,), those that come.

        Returns:
            float32 (end - start - ref_len + n, 3).
        """


PassOf = Callable[[BaseModel, Tokens, int, int], HaplotypePass]
"""Model, window of letters with its flanks, and the positions [start, end) whose probabilities are wanted."""


class WholePass:
    """Scores the whole window of every haplotype: what any faster way must agree with."""

    def __init__(self, model: BaseModel, tokens: Tokens, start: int, end: int) -> None:
        self._model, self._tokens, self._start, self._end = model, tokens, start, end
        self.reference = self._score(tokens, end)

    def _score(self, tokens: Tokens, end: int) -> Scores:
        text = decode(tokens)
        return self._model.score(text[self._start : end], text[: self._start], text[end:])

    def alternative(self, at: int, ref_len: int, letters: Tokens) -> Scores:
        """As in `HaplotypePass`."""
        tokens = np.concatenate([self._tokens[:at], letters, self._tokens[at + ref_len :]])
        return self._score(tokens, self._end + len(letters) - ref_len)


def window_pass(model: BaseModel, tokens: Tokens, start: int, end: int) -> HaplotypePass:
    """Of networks of our own only what a variant can change is computed; of other base models whole windows."""
    if has_torch():
        from metalayer.base.dilated import Ensemble
        from metalayer.base.incremental import WindowPass

        if isinstance(model, Ensemble):
            return WindowPass(model, tokens, start, end, changes=(start, end))
    return WholePass(model, tokens, start, end)


class GenePass:
    """A window in genome order, on the strand of a gene.

    Attributes:
        start, end: 0-based genomic, of the positions that are scored.
    """

    def __init__(self, make: PassOf, model: BaseModel, plus: Tokens, start: int, end: int, *, is_plus: bool) -> None:
        """Score the reference.

        Args:
            make: what does the forward passes.
            model: the network.
            plus: letters of the plus strand, `flank_bp` before `start` to `flank_bp` behind `end`, uint8.
            start: first position, 0-based genomic.
            end: one past the last.
            is_plus: strand of the gene.
        """
        self.start, self.end, self._is_plus = start, end, is_plus
        flank = self._flank = model.flank_bp
        self._tokens = plus if is_plus else reverse_complement(plus)
        self._first = start - flank
        self._pass = make(model, self._tokens, flank, len(plus) - flank)

    @property
    def reference(self) -> Scores:
        """float32 (end - start, 3)."""
        found = self._pass.reference
        return found if self._is_plus else found[::-1]

    def alternative(self, at: int, end: int, letters: Tokens) -> Scores:
        """Probabilities where genomic letters [at, end) are replaced, within [start, end) of the window.

        Those of bases from which the change is too far away to be seen are those of the reference to the last bit,
        which a network does not promise of windows of two lengths.
        """
        first, last, size = at - self._first, end - self._first, len(self._tokens)
        if self._is_plus:
            found = self._pass.alternative(first, last - first, letters)
        else:
            found = self._pass.alternative(size - last, last - first, reverse_complement(letters))[::-1]
        before, behind = at - self._flank - self.start, self.end - end - self._flank
        if before > 0 or behind > 0:
            found = found.copy()
            found[: max(before, 0)] = self.reference[: max(before, 0)]
            found[len(found) - max(behind, 0) :] = self.reference[len(self.reference) - max(behind, 0) :]
        return found


def hidden_outside(tokens: Tokens, first: int, start: int, end: int) -> Tokens:
    """Letters that begin at `first`, with N outside [start, end): all 0-based genomic."""
    hidden = np.full_like(tokens, N_TOKEN)
    inside = slice(max(start - first, 0), max(end - first, 0))
    hidden[inside] = tokens[inside]
    return hidden
