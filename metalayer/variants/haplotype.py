"""One haplotype, however it is written: the change of letters in its widest form, as a key and as coordinates.

A deletion or an insertion in a repeat can be written at several places and means the same letters. Its widest form
takes in all of these places: for `CA` deleted from `G CACACA T` the segment `CACACA` that becomes `CACA`. Two writings
of one haplotype have one widest form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metalayer.base.haplotypes import Tokens
from metalayer.genome import N_TOKEN

_CHUNK = 64


@dataclass(frozen=True)
class Event:
    """REF letters [start, end) become `letters`; 0-based half-open, plus strand.

    Attributes:
        start, end: of the segment; the places among which the change can be written.
        letters: tokens of the segment on the other haplotype.
        repeat: so many letters at the end of both are the same: without them it is the leftmost short form.
    """

    start: int
    end: int
    letters: bytes
    repeat: int = 0

    @property
    def surplus(self) -> int:
        """Letters that the haplotype has more than the reference."""
        return len(self.letters) - (self.end - self.start)

    @property
    def anchor(self) -> int:
        """0-based POS of the left-aligned record: the base before an insertion or deletion, else the first one."""
        return self.start - 1 if self.is_indel else self.start

    @property
    def is_indel(self) -> bool:
        """Whether letters are only inserted, or only deleted."""
        return self.repeat == min(self.end - self.start, len(self.letters))

    @property
    def change(self) -> tuple[int, int, Tokens]:
        """The leftmost short form: 0-based start and end in the reference, and the letters instead, uint8 (n,)."""
        letters = np.frombuffer(self.letters[: len(self.letters) - self.repeat], dtype=np.uint8)
        return self.start, self.end - self.repeat, letters


def event_of(position: int, ref: Tokens, alt: Tokens, letters: Callable[[int, int], Tokens]) -> Event | None:
    """The widest form of a change.

    Args:
        position: 0-based place of the first letter of `ref`.
        ref: letters of the reference there, uint8 (n,).
        alt: letters in their place, uint8 (m,).
        letters: gives letters [start, end) of the reference, N outside the contig. N is like no other letter.

    Returns:
        None where both are the same.
    """
    before = common(ref, alt)
    ref, alt, position = ref[before:], alt[before:], position + before
    after = common(ref[::-1], alt[::-1])
    ref, alt = ref[: len(ref) - after], alt[: len(alt) - after]
    if not len(ref) and not len(alt):
        return None
    if len(ref) and len(alt):
        return Event(position, position + len(ref), alt.tobytes())
    moved = ref if len(ref) else alt
    end = position + len(ref)
    left = _rolled(moved[::-1], lambda n: letters(position - n - _CHUNK, position - n)[::-1])
    right = _rolled(moved, lambda n: letters(end + n, end + n + _CHUNK))
    around = letters(position - left, end + right)
    start, repeat = position - left, left + right
    if len(ref):
        return Event(start, end + right, around[:repeat].tobytes(), repeat)
    turned = np.roll(moved, left)  # what is inserted at the leftmost place
    return Event(start, end + right, turned.tobytes() + around.tobytes(), repeat)


def common(one: Tokens | str, other: Tokens | str) -> int:
    """How many first letters are the same."""
    n = min(len(one), len(other))
    return next((i for i in range(n) if one[i] != other[i]), n)


def _rolled(moved: Tokens, following: Callable[[int], Tokens]) -> int:
    """How many letters a change can move on: the letters that follow go on as `moved` does, over and over.

    Args:
        moved: inserted or deleted letters, in the direction of the move.
        following: the `_CHUNK` letters after the first n.
    """
    n = 0
    while True:
        there = following(n)
        expected = moved[(n + np.arange(len(there))) % len(moved)]
        unlike = np.flatnonzero((there != expected) | (there == N_TOKEN))
        if unlike.size:
            return n + int(unlike[0])
        n += len(there)
