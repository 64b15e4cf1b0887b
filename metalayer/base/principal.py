"""Which transcript of a gene is the principal one, as its annotation says, and what says so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

Rank = tuple[int, int]
"""Of a transcript that an annotation calls principal: its source, then its number there; the lowest is principal."""

_SOURCES = (
    ("MANE Select", re.compile(r"mane_select")),
    ("Ensembl canonical", re.compile(r"ensembl_canonical")),
    ("RefSeq Select", re.compile(r"refseq_select")),
    ("APPRIS principal", re.compile(r"appris_principal_?([1-5]?)")),
)
"""Tags of transcripts, in the order in which they decide: GENCODE's, Ensembl's and NCBI's."""
ONLY, NO_SOURCE = "its only transcript", "no transcript is called principal"
JUNCTIONS = "no transcript is known"


class Principal(NamedTuple):
    """The principal transcript of a gene, None where nothing says which one it is, and what says so."""

    transcript: str | None
    source: str


def rank_of_tags(tags: str) -> Rank | None:
    """The rank that the tags of a transcript, with commas between, give it; None for none."""
    if not tags:
        return None
    named = [tag.strip().lower().replace(" ", "_") for tag in tags.split(",")]
    for number, (_, pattern) in enumerate(_SOURCES):
        found = [int("".join(match.groups()) or 0) for tag in named if (match := pattern.fullmatch(tag))]
        if found:
            return number, min(found)
    return None


def principal_of(lengths: Mapping[str, int], ranks: Mapping[str, Rank]) -> Principal:
    """The transcript of the lowest rank, of several the one with the longest exons, then by name.

    Args:
        lengths: of the transcripts of a gene, nt of their exons; empty of a table of junctions.
        ranks: of those that the annotation calls principal.
    """
    if ranks:
        chosen = min(ranks, key=lambda name: (ranks[name], -lengths[name], name))
        return Principal(chosen, _SOURCES[ranks[chosen][0]][0])
    if not lengths:
        return Principal(None, JUNCTIONS)
    if len(lengths) == 1:
        return Principal(next(iter(lengths)), ONLY)
    return Principal(None, NO_SOURCE)
