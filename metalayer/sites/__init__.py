"""Splice sites called from probabilities, and the exons that they make."""

from __future__ import annotations

from metalayer.sites.calling import CalledSites, call_sites
from metalayer.sites.exons import Chain, Decoded, decode_exons
from metalayer.sites.lengths import DEFAULT_LENGTHS, LengthPriors, count_lengths

__all__ = [
    "DEFAULT_LENGTHS",
    "CalledSites",
    "Chain",
    "Decoded",
    "LengthPriors",
    "call_sites",
    "count_lengths",
    "decode_exons",
]
