"""What variants change in the answers of a dilated network: only what can differ from REF is computed.

Behind some convolutions a position depends on `a` letters to either side: 0 at first, `half` of them at the end. In the
positions of a haplotype whose letters [at, at + inserted) stand for REF's [at, at + ref_len),

- [at - a, at + inserted + a) can differ from REF; left of it activations are REF's, right of it REF's, shifted;
- [start - (half - a), stop + (half - a)) is what the answers [start, stop) depend on.

An alternative is computed where both meet: little at first, little at the end. REF is computed once, where any answer
depends on it, and a layer keeps of it what alternatives to come can need. Alternatives of one form, which is lengths
and distances from the answers, are one batch. Axes: B alternatives, L positions, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from metalayer.base.dilated import Ensemble, Network
from metalayer.base.haplotypes import Alternative, Answers, Scores, Tokens
from metalayer.errors import InputError
from metalayer.genome import N_TOKEN

BLOCK = 20_000
"""Letters by which REF goes on at a time."""
BATCH = 8
"""Alternatives computed at a time. With `BLOCK` it bounds the memory."""


class Range(NamedTuple):
    """Positions [start, stop)."""

    start: int
    stop: int

    @property
    def length(self) -> int:
        """Of an empty one 0."""
        return max(0, self.stop - self.start)


class _Form(NamedTuple):
    """What the alternatives of a batch share. Positions are relative to `at`, in the haplotype."""

    inserted: int
    shift: int
    start: int
    stop: int

    def computed(self, a: int, half: int) -> Range:
        """What differs from REF, and is needed, behind convolutions that read `a` letters to either side."""
        left, right = max(-a, self.start - (half - a)), min(self.inserted + a, self.stop + (half - a))
        return Range(left, max(left, right))


@dataclass(frozen=True)
class _Batch:
    """Alternatives of one form: their numbers in the caller's list, `at` (B) and letters (B, inserted)."""

    form: _Form
    numbers: list[int]
    at: Tensor
    letters: Tensor


class _Kept:
    """Rows (L, ...), of which the first is that of position `start`."""

    def __init__(self, start: int, rows: Tensor) -> None:
        self.start, self.rows = start, rows

    @property
    def stop(self) -> int:
        return self.start + len(self.rows)

    def add(self, rows: Tensor) -> None:
        self.rows = torch.cat((self.rows, rows)) if len(self.rows) else rows

    def keep(self, start: int, stop: int) -> None:
        """Forget what is not in this range."""
        start, stop = max(start, self.start), min(stop, self.stop)
        if stop - start < len(self.rows):
            self.rows, self.start = self.rows[start - self.start : stop - self.start].clone(), start

    def __getitem__(self, range_: Range) -> Tensor:
        return self.rows[range_.start - self.start : range_.stop - self.start]

    def at(self, starts: Tensor, length: int) -> Tensor:
        """(B, length, ...) from each start on."""
        if len(starts) == 1:
            start = int(starts) - self.start
            return self.rows[None, start : start + length]
        return self.rows[(starts - self.start)[:, None] + torch.arange(length, device=starts.device)]


class _Trace:
    """One network on its way along REF: it reads letters, and answers for alternatives where it has been.

    Attributes:
        letters: int64 tokens (L).
        x: what each unit reads (L, C), and after the last one nothing.
        h: what each unit's second convolution reads (L, C).
        end: behind the last position that has an answer.
    """

    def __init__(self, network: Network, start: int) -> None:
        self.network, self.half = network, network.half
        nothing = network.first[:0]
        self.letters = _Kept(start, torch.zeros(0, dtype=torch.int64, device=nothing.device))
        self.x, self.h, a = [], [], 0
        for unit in network.units:
            self.x.append(_Kept(start + a, nothing))
            self.h.append(_Kept(start + a + unit.lost // 2, nothing.to(network.dtype)))
            a += unit.lost
        self.x.append(_Kept(start + a, nothing))

    @property
    def end(self) -> int:
        return self.x[-1].stop

    def read_on(self, letters: Tensor) -> Tensor:
        """Letters (L) behind those before; the first time 2 `half` more. Probabilities (classes, L) of REF."""
        network = self.network
        self.letters.add(letters)
        self.x[0].add(functional.embedding(letters, network.first))
        new = Range(self.end, self.letters.stop - self.half)
        for unit, x, h, after in zip(network.units, self.x[:-1], self.h, self.x[1:], strict=True):
            lost, r = unit.lost, unit.lost // 2
            given = x[Range(h.stop - r, x.stop)]
            h.add(functional.leaky_relu_(unit.conv_1(unit.entered(given)[None]), unit.slope)[0])
            old = after.stop
            out = unit.conv_2(h[Range(old - r, h.stop)][None])[0]
            after.add(x[Range(old, x.stop - lost)] + out)
        out = functional.embedding(self.letters[new], network.letters).T
        for point, read in network.reads.items():
            out = out + read @ self.x[point][new].T
        return network.probabilities(out)

    def keep(self, answers: Range, changes: Range) -> None:
        """Forget what no alternative in `changes` with `answers`, both in REF, can need, nor what is read next."""
        a = 0
        for unit, x, h in zip(self.network.units, self.x[:-1], self.h, strict=True):
            for kept in (x, h):
                rim, more = a + unit.lost, self.half - a
                start = min(max(answers.start - more, changes.start - rim), answers.start)
                stop = max(min(answers.stop + more, changes.stop + rim), answers.stop)
                kept.keep(min(start, kept.stop - unit.lost, self.end), stop)
                a += unit.lost // 2
        self.x[-1].keep(self.end, self.end)
        self.letters.keep(min(answers.start, changes.start, self.end), max(answers.stop, changes.stop))

    def alternatives(self, batch: _Batch) -> Tensor:
        """Probabilities (classes, B, n) where the haplotypes' answers can differ from REF's."""
        network, form = self.network, batch.form
        answers = form.computed(self.half, self.half)
        whole = Range(0, form.inserted)
        letters = self._around(self.letters, batch.letters, whole, answers, batch)
        out = functional.embedding(letters, network.letters)
        here = form.computed(0, self.half)
        x = functional.embedding(batch.letters[:, here.start : here.stop], network.first)
        a = 0
        for point, unit in enumerate(network.units):
            if point in network.reads:
                out += self._around(self.x[point], x, here, answers, batch) @ network.reads[point].T
            r = unit.lost // 2
            inner, after = (form.computed(a + further, self.half) for further in (r, unit.lost))
            given = Range(inner.start - r, inner.stop + r)
            x = self._around(self.x[point], x, here, given, batch)
            h = functional.leaky_relu_(unit.conv_1(unit.entered(x)), unit.slope)
            h = self._around(self.h[point], h, inner, Range(after.start - r, after.stop + r), batch)
            x = x[:, after.start - given.start : after.stop - given.start] + unit.conv_2(h)
            here = after
            a += unit.lost
        out += x @ network.reads[len(network.units)].T
        found = network.probabilities(out.permute(2, 0, 1).flatten(1))
        return found.view(-1, *out.shape[:2])

    @staticmethod
    def _around(kept: _Kept, own: Tensor, have: Range, want: Range, batch: _Batch) -> Tensor:
        """The haplotypes' rows (B, want, ...): their own, where they have them, and REF's to either side."""
        left = Range(want.start, min(have.start, want.stop))
        right = Range(max(have.stop, want.start), want.stop)
        parts = [own[:, max(0, want.start - have.start) : max(0, want.stop - have.start)]]
        if left.length:
            parts.insert(0, kept.at(batch.at + left.start, left.length))
        if right.length:
            parts.append(kept.at(batch.at + right.start - batch.form.shift, right.length))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


@torch.inference_mode()
def score_alternatives(ensemble: Ensemble, tokens: Tokens, alternatives: Iterable[Alternative]) -> list[Answers]:
    """REF and haplotype of each alternative, on a stretch of any length.

    Where answers are near each other REF is computed once, `BLOCK` letters at a time; where they are far from each
    other, what lies between them is left out. One network is computed after the other, so memory does not grow with the
    stretch, but for the answers.

    Args:
        ensemble: base model.
        tokens: uint8 (L) letters; beyond them there is N.
        alternatives: in any order, each with its own answers.

    Returns:
        As they came. Equal to what `Ensemble` gives for the letters of each, to 1e-6; where the haplotype does not
        differ from REF, the numbers are REF's.

    Raises:
        InputError: no answers, tokens that are none, letters that are not in the window or too far from the answers, or
            more letters removed than there are answers.
    """
    _checked(tokens)
    given = list(alternatives)
    for one in given:
        if one.start >= one.end:
            raise InputError(f"answers at [{one.start}, {one.end}) are none; the end must be greater than the start")
    minimal = [_minimal(one, tokens, ensemble.flank_bp) for one in given]
    found: dict[int, Answers] = {}
    for run in _runs(minimal, ensemble):
        found |= _run(ensemble, tokens, minimal, run)
    return [found[number] for number in range(len(minimal))]


def _run(ensemble: Ensemble, tokens: Tokens, alternatives: list[Alternative], run: list[int]) -> dict[int, Answers]:
    """Alternatives (numbers, by their start) that share REF."""
    half = ensemble.flank_bp
    start, end = alternatives[run[0]].start, max(alternatives[number].end for number in run)
    blocks = -(-(end - start) // BLOCK)
    stops = [start + (end - start) * block // blocks for block in range(1, blocks + 1)]
    plan: list[tuple[int, list[_Batch], list[Alternative]]] = []
    waiting = run
    for stop in stops:
        ready = [number for number in waiting if alternatives[number].end <= stop]
        waiting = [number for number in waiting if alternatives[number].end > stop]
        plan.append((stop, _batches(ready, alternatives, ensemble), [alternatives[number] for number in waiting]))
    letters = _letters(ensemble, tokens, start - half, end + half)
    totals: dict[int, Tensor] = {}
    reference = torch.zeros(())
    for network in ensemble.networks:
        trace, read, parts, count = _Trace(network, start - half), 0, [], 0
        for stop, batches, later in plan:
            parts.append(trace.read_on(letters[read : stop + 2 * half - start]))
            read = stop + 2 * half - start
            for batch in batches:
                totals[count] = trace.alternatives(batch) + totals.get(count, 0)
                count += 1
            if later:
                first = min(one.start for one in later)
                trace.keep(Range(first, end), Range(min(one.at for one in later), end + half))
        reference = torch.cat(parts, dim=1) + reference
    scores = ensemble.scores(reference)
    of = {number: scores[alternatives[number].start - start : alternatives[number].end - start] for number in run}
    found = {number: Answers(part, _whole(part, part[:0], alternatives[number], half)) for number, part in of.items()}
    for batch, total in zip((batch for _, batches, _ in plan for batch in batches), totals.values(), strict=True):
        for number, own in zip(batch.numbers, _scores(ensemble, total), strict=True):
            found[number] = Answers(of[number], _whole(of[number], own, alternatives[number], half))
    return found


def _runs(alternatives: list[Alternative], ensemble: Ensemble) -> list[list[int]]:
    """Numbers by their start, parted where to begin REF again costs less than to go on to the next answers."""
    costs = [(unit.conv_1.width, unit.lost) for unit in ensemble.networks[0].units]
    left, again = ensemble.flank, 0.0
    for width, lost in costs:
        again += width * (2 * left - 3 * lost)  # behind the first convolution `left - lost`, behind the second one less
        left -= 2 * lost
    furthest = again / sum(2 * width for width, _ in costs)
    runs: list[list[int]] = []
    end = 0
    for number in sorted(range(len(alternatives)), key=lambda number: alternatives[number].start):
        if not runs or alternatives[number].start - end > furthest:
            runs.append([])
            end = alternatives[number].end
        runs[-1].append(number)
        end = max(end, alternatives[number].end)
    return runs


def _batches(numbers: Iterable[int], alternatives: Sequence[Alternative], ensemble: Ensemble) -> list[_Batch]:
    """Of those that differ from REF where an answer sees it."""
    forms: dict[_Form, list[int]] = {}
    for number in numbers:
        one = alternatives[number]
        form = _Form(len(one.letters), one.shift, one.start - one.at, one.end + one.shift - one.at)
        if (one.ref_len or form.inserted) and form.computed(ensemble.flank_bp, ensemble.flank_bp).length:
            forms.setdefault(form, []).append(number)
    batches = []
    for form, members in forms.items():
        for first in range(0, len(members), BATCH):
            some = members[first : first + BATCH]
            at = torch.tensor([alternatives[number].at for number in some], device=ensemble.device)
            letters = np.stack([alternatives[number].letters for number in some]).astype(np.int64)
            batches.append(_Batch(form, some, at, torch.from_numpy(letters).to(ensemble.device)))
    return batches


def _whole(reference: Scores, own: Scores, alternative: Alternative, half: int) -> Scores:
    """All answers of a haplotype: REF's, its own where they can differ, and REF's, shifted."""
    start = min(max(0, alternative.at - half - alternative.start), len(reference) + alternative.shift)
    return np.concatenate((reference[:start], own, reference[start + len(own) - alternative.shift :]))


def _scores(ensemble: Ensemble, total: Tensor) -> NDArray[np.float32]:
    """Sums over the networks (classes, B, n) to float32 (B, n, columns)."""
    return ensemble.scores(total.flatten(1)).reshape(*total.shape[1:], -1)


def _letters(ensemble: Ensemble, tokens: Tokens, start: int, stop: int) -> Tensor:
    """Tokens [start, stop) as int64 on the device, N where there are none."""
    inside = tokens[max(0, start) : max(0, stop)].astype(np.int64)
    before = min(max(0, -start), stop - start)
    padded = np.pad(inside, (before, stop - start - before - len(inside)), constant_values=N_TOKEN)
    return torch.from_numpy(padded).to(ensemble.device)


def _minimal(given: Alternative, tokens: Tokens, half: int) -> Alternative:
    """The same haplotype without letters at either end of the change that stay as they are.

    Raises:
        InputError: letters that are not there, and answers that have no meaning.
    """
    _checked(given.letters)
    stop, answers = given.at + given.ref_len, f"the answers [{given.start}, {given.end})"
    if given.ref_len < 0 or given.at < 0 or stop > len(tokens):
        raise InputError(f"letters [{given.at}, {stop}) are not in a window of {len(tokens)}; give a wider one")
    if given.end + given.shift < given.start:
        raise InputError(f"{-given.shift} letters less leave none of {answers}; ask for more of them")
    old, new = tokens[given.at : stop], given.letters
    before = _same(old, new)
    after = _same(old[before:][::-1], new[before:][::-1])
    one = replace(
        given, at=given.at + before, ref_len=len(old) - before - after, letters=new[before : len(new) - after]
    )
    is_change = one.ref_len > 0 or len(one.letters) > 0
    if is_change and (one.at + one.ref_len < given.start - half or one.at > given.end + half):
        raise InputError(
            f"letters [{one.at}, {one.at + one.ref_len}) are further than the flank of {half} from {answers}, which "
            "they do not change; leave them out"
        )
    return one


def _same(one: Tokens, other: Tokens) -> int:
    """Letters at the start that are the same."""
    shared = min(len(one), len(other))
    differs = np.flatnonzero(one[:shared] != other[:shared])
    return int(differs[0]) if differs.size else shared


def _checked(tokens: Tokens) -> Tokens:
    if tokens.dtype != np.uint8 or tokens.ndim != 1 or (tokens > N_TOKEN).any():
        raise InputError(
            f"letters are {tokens.dtype} of shape {tokens.shape}; they must be uint8 (L) tokens from 0 to {N_TOKEN}, "
            "as metalayer.genome.encode gives them"
        )
    return tokens
