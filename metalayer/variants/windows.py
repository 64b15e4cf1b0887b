"""Probabilities of both haplotypes around variants: what the definitions ask of base models, several at a time.

Variants near each other share the reference's forward pass. Arrays are in genome order on both strands; networks read
them in the gene's sense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from metalayer.base.haplotypes import Alternative, Answers, Scores, Tokens
from metalayer.base.protocol import BaseModel
from metalayer.device import has_torch
from metalayer.genome import N_TOKEN, decode, reverse_complement

AnswersOf = Callable[[BaseModel, Tokens, Sequence[Alternative]], Sequence[Answers]]
"""Model, letters in its sense, and haplotypes of them."""
Shown = tuple[int, int]
"""Letters outside of [start, end), 0-based genomic, are N."""


@dataclass(frozen=True)
class Question:
    """Both haplotypes around a variant, of one base model. Places are 0-based genomic.

    Two genes of a strand that both show all letters which the answers depend on ask the same.

    Attributes:
        model: its name.
        contig: where.
        is_plus: strand on which the model reads.
        start, end: positions [start, end) of the reference whose probabilities are wanted.
        at, behind: reference letters [at, behind) are replaced, all of them within [start, end).
        letters: tokens that come in their place, plus strand.
        flank: letters to either side that the model reads.
        visible: as `shown`, within the letters that the answers depend on.
        shown: letters of the contig that are not hidden.
    """

    model: str
    contig: str
    is_plus: bool
    start: int
    end: int
    at: int
    behind: int
    letters: bytes
    flank: int
    visible: Shown
    shown: Shown = field(compare=False)

    @property
    def first(self) -> int:
        """First letter that the answers depend on."""
        return self.start - self.flank

    @property
    def last(self) -> int:
        """One past the last of these letters."""
        return self.end + self.flank


Pairs = Mapping[Question, Answers]
"""Probabilities of both haplotypes, (end - start, 3) and (end - start + surplus, 3), in genome order."""


def answered(
    questions: Iterable[Question],
    models: Mapping[str, BaseModel],
    tokens: Callable[[str, str, int, int], Tokens],
    ask: AnswersOf,
) -> Pairs:
    """Ask all questions, those of one window at a time.

    Args:
        questions: in any order; equal ones are asked once.
        models: by name.
        tokens: gives letters [first, last) of the plus strand as a model reads them: name of the model, contig, first,
            last.
        ask: what does the forward passes.
    """
    found: dict[Question, Answers] = {}
    for window in _windows(dict.fromkeys(questions)):
        one = window[0]
        first, last = one.first, max(question.last for question in window)
        plus = hidden_outside(tokens(one.model, one.contig, first, last), first, *one.shown)
        if one.is_plus:
            there = [
                Alternative(
                    question.at - first,
                    question.behind - question.at,
                    np.frombuffer(question.letters, dtype=np.uint8),
                    question.start - first,
                    question.end - first,
                )
                for question in window
            ]
            found |= zip(window, ask(models[one.model], plus, there), strict=True)
            continue
        there = [
            Alternative(
                last - question.behind,
                question.behind - question.at,
                reverse_complement(np.frombuffer(question.letters, dtype=np.uint8)),
                last - question.end,
                last - question.start,
            )
            for question in window
        ]
        answers = ask(models[one.model], reverse_complement(plus), there)
        found |= {
            question: Answers(pair.reference[::-1], pair.alternative[::-1])
            for question, pair in zip(window, answers, strict=True)
        }
    return found


def _windows(questions: Iterable[Question]) -> Iterator[list[Question]]:
    """Questions of one model on one strand that read the same letters, by place, parted where they share none."""
    alike: dict[object, list[Question]] = {}
    for question in questions:
        alike.setdefault((question.model, question.contig, question.is_plus, question.shown), []).append(question)
    for some in alike.values():
        window: list[Question] = []
        last = 0
        for question in sorted(some, key=lambda question: question.start):
            if window and question.first >= last:
                yield window
                window, last = [], 0
            window.append(question)
            last = max(last, question.last)
        yield window


def haplotype_answers(model: BaseModel, tokens: Tokens, alternatives: Sequence[Alternative]) -> Sequence[Answers]:
    """Of networks of our own only what a variant can change is computed; of other base models whole windows."""
    if has_torch():
        from metalayer.base.dilated import Ensemble
        from metalayer.base.incremental import score_alternatives

        if isinstance(model, Ensemble):
            return score_alternatives(model, tokens, alternatives)
    return whole_answers(model, tokens, alternatives)


def whole_answers(model: BaseModel, tokens: Tokens, alternatives: Sequence[Alternative]) -> list[Answers]:
    """Every haplotype scored whole: what any faster way must agree with.

    Probabilities of bases from which the change is too far away to be seen are those of the reference to the last bit,
    which a network does not promise of windows of two lengths.
    """

    def scores(letters: Tokens, start: int, end: int) -> Scores:
        text, flank = decode(letters[max(start - model.flank_bp, 0) : end + model.flank_bp]), model.flank_bp
        before = min(start, flank)
        return model.score(text[before : before + end - start], text[:before], text[before + end - start :])

    references: dict[tuple[int, int], Scores] = {}
    found = []
    for one in alternatives:
        start, end, behind = one.start, one.end, one.at + one.ref_len
        if (start, end) not in references:
            references[start, end] = scores(tokens, start, end)
        reference = references[start, end]
        changed = scores(np.concatenate([tokens[: one.at], one.letters, tokens[behind:]]), start, end + one.shift)
        same, rest = max(one.at - model.flank_bp - start, 0), max(end - behind - model.flank_bp, 0)
        changed = np.concatenate(
            [reference[:same], changed[same : len(changed) - rest], reference[len(reference) - rest :]]
        )
        found.append(Answers(reference, changed))
    return found


def hidden_outside(tokens: Tokens, first: int, start: int, end: int) -> Tokens:
    """Letters that begin at `first`, with N outside [start, end): all 0-based genomic."""
    hidden = np.full_like(tokens, N_TOKEN)
    inside = slice(max(start - first, 0), max(end - first, 0))
    hidden[inside] = tokens[inside]
    return hidden
