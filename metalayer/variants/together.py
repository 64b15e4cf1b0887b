"""Which records are scored together: those that follow each other and lie near each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

MOST_QUESTIONS = 256
"""Asked together: the more, the less the reference costs a variant, and the longer it takes until an answer is kept."""
MOST_RECORDS = 1024
"""Read ahead, those that are not scored among them."""
MOST_BYTES = 1 << 25
"""Of answers, and of lines of records, each."""

_Item = TypeVar("_Item")


class Planned(Protocol):
    """What is asked about a record."""

    @property
    def span(self) -> tuple[str, int, int] | None:
        """Contig and letters [first, last) that the answers depend on; None where nothing is asked."""

    @property
    def answer_bytes(self) -> int:
        """How much memory the answers take."""

    @property
    def questions(self) -> Iterator[object]:
        """To base models."""


def neighbours(
    items: Iterable[_Item],
    plan_of: Callable[[_Item], Planned],
    size_of: Callable[[_Item], int] = lambda _: 0,
    most: int | None = None,
) -> Iterator[list[_Item]]:
    """Items in order, in groups: an item belongs to the group before it where both read some of the same letters.

    Items about which nothing is asked join the group before them. A group depends on the items alone, so that a run
    which goes on where another was cut off has the same ones.

    Args:
        items: in the order of the input.
        plan_of: what is asked about an item.
        size_of: bytes that an item keeps in memory, beside its answers.
        most: questions asked together; None for `MOST_QUESTIONS`.
    """
    most = MOST_QUESTIONS if most is None else most
    group: list[_Item] = []
    contig, first, last, questions, answers, size = "", 0, 0, 0, 0, 0
    for item in items:
        plan = plan_of(item)
        span = plan.span
        if span and questions and not (span[0] == contig and span[1] < last and span[2] > first):
            yield group
            group, questions, answers, size = [], 0, 0, 0
        group.append(item)
        size += size_of(item)
        if span:
            contig, first, last = (contig, min(first, span[1]), max(last, span[2])) if questions else span
            questions += sum(1 for _ in plan.questions)
            answers += plan.answer_bytes
        if not questions or questions >= most or len(group) >= MOST_RECORDS or max(answers, size) >= MOST_BYTES:
            yield group
            group, questions, answers, size = [], 0, 0, 0
    if group:
        yield group
