"""Why our model says something else than its base: what its answer at one base would be without each of its inputs.

Leave one input out: the letters become N, the base scores of all other bases "no site", the scores of one base model
of several "no site", a piece of evidence missing. What is then missing from the log-odds of the answer is that input's
contribution. They need not add up, as inputs work together. Of the letters, windows are left out one by one in the same
way, which shows where a motif lies that the model reads. Nothing is said of what the base model itself read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import InputError
from metalayer.gene_track import GeneTrack
from metalayer.genome import N_TOKEN
from metalayer.inference.predictor import Predictor
from metalayer.schema import NEITHER

LETTERS, AROUND, BASE_MODEL, EVIDENCE = "letters", "base_scores_around", "base_model", "evidence"
"""Inputs: what the meta model reads of the sequence, of the scores of other bases, of one base model of several, and of
one piece of evidence."""
WINDOW_BP = 6
"""Letters that are left out together."""
AWAY_BP = 96
"""Letters to either side whose windows are left out one by one, a multiple of `WINDOW_BP`."""
_FLOOR = 1e-12


@dataclass(frozen=True)
class Input:
    """What one input adds.

    Attributes:
        name: of `LETTERS`, `AROUND`, `BASE_MODEL`, `EVIDENCE`.
        of: which base model or piece of evidence, else empty.
        without: probability without it.
        log_odds: that it adds to the log-odds of the answer, natural logarithm.
    """

    name: str
    of: str
    without: float
    log_odds: float


@dataclass(frozen=True)
class Window:
    """What a few letters add.

    Attributes:
        start, end: half-open, in the track.
        log_odds: that they add, natural logarithm.
    """

    start: int
    end: int
    log_odds: float


@dataclass(frozen=True)
class Contributions:
    """Of one base and kind of site.

    Attributes:
        base, meta: probabilities.
        inputs: what each adds.
        letters: what windows of letters add; none of a model that reads no letters.
    """

    base: float
    meta: float
    inputs: tuple[Input, ...]
    letters: tuple[Window, ...]

    @property
    def log_odds(self) -> float:
        """Of the meta score less those of the base score."""
        return log_odds(self.meta) - log_odds(self.base)


def log_odds(probability: float) -> float:
    """Natural logarithm of the odds of a probability, which is kept within 1e-12 of 0 and 1."""
    kept = min(max(float(probability), _FLOOR), 1 - _FLOOR)
    return float(np.log(kept) - np.log1p(-kept))


def contributions(predictor: Predictor, track: GeneTrack, position: int, kind: int) -> Contributions:
    """What each input adds to the answer at one base.

    Args:
        predictor: the model.
        track: a gene, or what lies within `Predictor.reach_bp` and `AWAY_BP` of the base.
        position: index in the track.
        kind: DONOR or ACCEPTOR.

    Raises:
        InputError: a position outside the track.
    """
    if not 0 <= position < len(track):
        raise InputError(f"contributions: position {position} of {len(track)}")

    def answer(of: GeneTrack) -> float:
        return float(predictor.predict_stretch(of, position, position + 1)[0, kind])

    meta = answer(track)
    base = float(predictor.best_base(track)[position, kind])

    def added(of: GeneTrack) -> tuple[float, float]:
        without = answer(of)
        return without, log_odds(meta) - log_odds(without)

    inputs = tuple(Input(name, whose, *added(left)) for name, whose, left in _left_out(track, position))
    kept = tuple(one for one in inputs if one.name == AROUND or one.log_odds)
    reads_letters = any(one.name == LETTERS for one in kept)
    windows = (Window(*place, added(_hidden(track, *place))[1]) for place in _windows(position, len(track)))
    return Contributions(base, meta, kept, tuple(windows) if reads_letters else ())


def _left_out(track: GeneTrack, position: int) -> Iterator[tuple[str, str, GeneTrack]]:
    yield LETTERS, "", _hidden(track, 0, len(track))
    here = np.arange(len(track)) == position
    silent = {name: np.where(here[:, None], values, _no_site(values)) for name, values in track.several.items()}
    scores = np.where(here[:, None], track.scores, _no_site(track.scores))
    yield AROUND, "", replace(track, scores=scores, several=silent)
    for name, values in track.several.items():
        without = {**track.several, name: np.broadcast_to(_no_site(values), values.shape)}
        yield BASE_MODEL, name, replace(track, several=without)
    for name, numbers in track.evidence.items():
        missing = {**track.evidence, name: np.full_like(numbers, np.nan)}
        yield EVIDENCE, name, replace(track, evidence=missing)


def _no_site(like: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores (1, C) that say "no site", of as many columns."""
    none = np.zeros((1, like.shape[1]), np.float32)
    if like.shape[1] > 1:
        none[0, NEITHER] = 1.0
    return none


def _windows(position: int, length: int) -> Iterator[tuple[int, int]]:
    """Windows of letters around a base, those that lie in the track; the base is the last letter of one."""
    first = position + 1 - AWAY_BP
    for start in range(first, position + 1 + AWAY_BP, WINDOW_BP):
        low, high = max(start, 0), min(start + WINDOW_BP, length)
        if low < high:
            yield low, high


def _hidden(track: GeneTrack, start: int, end: int) -> GeneTrack:
    """Without letters [start, end)."""
    tokens = track.tokens.copy()
    tokens[start:end] = N_TOKEN
    return replace(track, tokens=tokens)
