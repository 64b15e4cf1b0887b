"""Regions as people write them: `chr3:42600000-42610000`, `chr3:42.6M-42.61M`, one strand of it with `:+` or `:-`."""

from __future__ import annotations

import re

from metalayer.errors import InputError
from metalayer.genome import Interval, half_open

BOTH = "+-"
_REGION = re.compile(r"(?P<contig>.+?):(?P<start>[\d,.]+[kKmM]?)-(?P<end>[\d,.]+[kKmM]?)(:(?P<strand>[+-]))?")
_UNITS = {"k": 1_000, "m": 1_000_000}


def parse_region(text: str) -> tuple[str, Interval]:
    """Strands (`BOTH` where none is named) and place of a region; `chrom` is as it is written.

    Raises:
        InputError: another form, or a last base before the first.
    """
    match = _REGION.fullmatch(text.strip())
    start, end = (_number(match["start"]), _number(match["end"])) if match else (None, None)
    if match is None or start is None or end is None or not 1 <= start <= end:
        raise InputError(
            f"region {text!r}: needed is CONTIG:FIRST-LAST, 1-based and both included, as in chr3:42600000-42610000 or "
            "chr3:42.6M-42.61M, with :+ or :- behind it for one strand"
        )
    return match["strand"] or BOTH, Interval(match["contig"], *half_open(start, end))


def _number(text: str) -> int | None:
    unit = _UNITS.get(text[-1].lower(), 1)
    digits = text.rstrip("kKmM").replace(",", "")
    if not re.fullmatch(r"\d+(\.\d+)?", digits):
        return None
    value = float(digits) * unit
    return int(value) if value == int(value) and value < 2**53 else None
