"""Where the marks of a drawn gene lie: introns shortened, the gene cut into pieces that fit side by side or below.

Lengths are in units of the drawing, of which a piece is `WIDTH` wide: about a pixel on a telephone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

WIDTH, LEFT, RIGHT = 360.0, 36.0, 8.0
_ROOM = WIDTH - LEFT - RIGHT
TRACK = 46.0
"""Height of a probability of 1."""
BASELINES = {"base": 60.0, "meta": 124.0}
"""Where a probability of 0 lies, by system; from above."""
MODEL, HEIGHT = 148.0, 178.0
"""Middle of the exons, and the whole."""
RIGHT_CALL, MISSED, FALSE_CALL, OTHER = "right", "missed", "false", "other"


@dataclass(frozen=True)
class Mark:
    """What a system says of a place.

    Attributes:
        system: `base` or `meta`.
        class_name: donor or acceptor.
        kind: a right call, a missed site, a false call, or a place that is no site and not called.
        x, y: where its probability lies.
    """

    system: str
    class_name: str
    kind: str
    x: float
    y: float


@dataclass(frozen=True)
class Piece:
    """A part of the drawing.

    Attributes:
        first, last: genomic positions at its ends, 1-based.
        exons: (x, width) of those in it.
        sites: (x, whether it counts) of annotated sites.
        marks: of both systems.
    """

    first: int
    last: int
    exons: tuple[tuple[float, float], ...]
    sites: tuple[tuple[float, bool], ...]
    marks: tuple[Mark, ...]

    def number(self, system: str, kind: str) -> int:
        """How many marks of a kind a system has here."""
        return sum(mark.system == system and mark.kind == kind for mark in self.marks)


def exons_of(gene: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Exons as the sites have them, genomic, 1-based inclusive, ascending.

    Each begins at the first acceptor after an intron, or at the 5' end of the gene, and ends at the last donor before
    the next acceptor, or at the 3' end. Sites say no more: where transcripts differ, this need not be one of them.

    Args:
        gene: `drawn_gene` of a report.
    """
    forward = gene["strand"] == "+"
    five, three = (gene["start"], gene["end"]) if forward else (gene["end"], gene["start"])
    sites = sorted({(place["position"], place["class"]) for place in gene["places"] if place["site"]})
    exons: list[tuple[int, int]] = []
    begins, ends = five, None
    for position, class_name in sites if forward else sites[::-1]:
        if class_name == "donor":
            ends = position
            continue
        if ends is not None:
            exons.append((begins, ends))
            begins, ends = position, None
        elif begins == five and not exons:
            begins = position  # no donor before it: what lies before is no exon that is known
    exons.append((begins, three if ends is None else ends))
    return sorted((min(exon), max(exon)) for exon in exons)


def pieces_of(gene: Mapping[str, Any]) -> list[Piece]:
    """The drawing of a gene, along the chromosome.

    Args:
        gene: `drawn_gene` of a report.
    """
    exons = exons_of(gene)
    edges = {gene["start"], gene["end"], *(edge for exon in exons for edge in exon)}
    known = np.array(sorted(edges | {place["position"] for place in gene["places"]}))
    along = np.concatenate([[0.0], np.cumsum([_length(int(gap)) for gap in np.diff(known)])])
    cuts = _cuts(known, along, exons)
    return [_piece(gene, exons, known, along, low, high) for low, high in pairwise(cuts)]


def _length(bases: int) -> float:
    """Of so many bases: near places can be seen apart, and an intron takes little room."""
    return 6.0 + 10.0 * math.log10(1.0 + bases / 10.0)


def _cuts(known: np.ndarray, along: np.ndarray, exons: Sequence[tuple[int, int]]) -> list[float]:
    """Where the drawing is cut into pieces of about the same length, in introns where there are any."""
    total = float(along[-1])
    number = math.ceil(total / _ROOM)
    inside = [
        float(along[i] + along[i + 1]) / 2
        for i, (low, high) in enumerate(pairwise(known.tolist()))
        if not any(start <= low and high <= end for start, end in exons)
    ]
    cuts = [0.0]
    for i in range(1, number):
        wanted = total * i / number
        near = [cut for cut in inside if abs(cut - wanted) < total / number / 3 and cut > cuts[-1]]
        cuts.append(min(near, key=partial(_distance, wanted)) if near else wanted)
    return [*cuts, total]


def _distance(one: float, other: float) -> float:
    return abs(one - other)


def _piece(
    gene: Mapping[str, Any],
    exons: Sequence[tuple[int, int]],
    known: np.ndarray,
    along: np.ndarray,
    low: float,
    high: float,
) -> Piece:
    def x_of(position: float) -> float:
        at = float(np.interp(position, known, along))
        return round(LEFT + _ROOM * (at - low) / (high - low), 1)

    first, last = (float(np.interp(at, along, known)) for at in (low, high))
    drawn = []
    for start, end in exons:
        x, width = x_of(max(start, first)), x_of(min(end, last)) - x_of(max(start, first))
        if start <= last and end >= first:
            drawn.append((x, round(max(width, 1.5), 1)))
    here = [place for place in gene["places"] if first <= place["position"] <= last]
    sites = tuple((x_of(place["position"]), bool(place["counts"])) for place in here if place["site"])
    marks = tuple(
        Mark(
            system,
            place["class"],
            _kind(place, system),
            x_of(place["position"]),
            round(baseline - TRACK * place[system]["probability"], 1),
        )
        for place in here
        for system, baseline in BASELINES.items()
    )
    return Piece(round(first), round(last), tuple(drawn), sites, marks)


def _kind(place: Mapping[str, Any], system: str) -> str:
    called = place[system]["called"]
    if place["site"]:
        return RIGHT_CALL if called else MISSED
    return FALSE_CALL if called else OTHER
