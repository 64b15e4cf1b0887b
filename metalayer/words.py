"""Words of counts, as messages and pages have them."""

from __future__ import annotations


def count_of(number: int, what: str) -> str:
    """A count with what is counted, `what` in the singular: `1 gene`, `1,204 genes`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
