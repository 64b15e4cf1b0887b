"""What a variant means, in words and as a drawing of letters, for a terminal, and as JSON for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from metalayer.variants.columns import Place
from metalayer.variants.exon_layout import Drawn, laid_out
from metalayer.variants.meaning import (
    CRYPTIC,
    EXON_DELETED,
    GAIN,
    INTRON_DELETED,
    KEPT,
    LABEL,
    LONGER,
    LOSS,
    NEW_INTRON,
    NO_CHANGE,
    OTHER_EXON,
    OUTSIDE,
    PSEUDOEXON,
    RETAINED,
    SHIFTED,
    SHORTER,
    SKIPPED,
    START_LOST,
    STOP_LOST,
    UNCLEAR,
    UNKNOWN,
    ChangedSite,
    ExonEvent,
    Meaning,
    OtherWay,
    ShownExon,
)

WIDTH = 100
"""Columns of a terminal that are used at most."""
_ROOM = WIDTH - 4
"""Without the indent of a caller."""
_DRAWN = _ROOM - 12
_SITE_TERMS = {term: kind for terms in (LOSS, GAIN, CRYPTIC) for kind, term in terms.items()}
_FRAME = {
    SHIFTED: "reading frame shifted",
    OUTSIDE: "outside the coding sequence",
    UNKNOWN: "no coding sequence of this transcript in the annotation",
    START_LOST: "the start codon is lost",
    STOP_LOST: "the stop codon is lost",
}


def place_in_words(place: Place) -> str:
    """1-based; `x^n`: inserted letter n behind x."""
    position, inserted = place
    return f"{position + 1}^{inserted}" if inserted else f"{position + 1}"


def span_in_words(first: Place, last: Place) -> str:
    """From the lower end to the higher one."""
    low, high = sorted((first, last))
    return place_in_words(low) if low == high else f"{place_in_words(low)}-{place_in_words(high)}"


def term_in_words(term: str) -> str:
    """Without underlines."""
    return term.replace("_", " ")


def event_in_words(event: ExonEvent, contig: str) -> str:
    """One line without its end.

    Args:
        event: what happens.
        contig: where.
    """
    where, size = f"{contig}:{span_in_words(event.first, event.last)}", f"{abs(event.length):,} nt"
    exon = f"exon {event.exon}" if event.exon else "an exon"
    if event.term in _SITE_TERMS:
        moved = f" at {event.length:+,}" if event.length else ""
        change = "" if event.reference < 0 else f", {event.reference:.2f} on REF, {event.alternative:.2f} on ALT"
        return f"{term_in_words(event.term)}{moved}: {where}{change}"
    if event.term in (SKIPPED, EXON_DELETED):
        last = f" to {event.exon + event.skipped - 1}" if event.skipped > 1 else ""
        what = f"exons {event.exon}" if last else exon
        done = "skipped" if event.term == SKIPPED else "deleted with its sites"
        return f"{what}{last} {done}: {where}, {size} less"
    return {
        RETAINED: f"intron after {exon} retained: {where}, {size} more",
        INTRON_DELETED: f"intron after {exon} deleted: {where}, {size} of intron",
        OTHER_EXON: f"exon of another isoform: {where}, {size} more",
        PSEUDOEXON: f"pseudoexon: {where}, {size} more",
        SHORTER: f"{exon} is shorter by {size}: {where}",
        LONGER: f"{exon} is longer by {size}: {where}",
        NEW_INTRON: f"an intron within {exon}: {where}, {size} less",
        UNCLEAR: f"what happens instead is unclear: the intron after {exon} is too long to be retained ({size})",
    }[event.term]


def frame_in_words(meaning: Meaning) -> str:
    """Length and reading frame."""
    if meaning.frame is None:
        return ""
    size = f"{abs(meaning.length):,} nt {'more' if meaning.length > 0 else 'less'}" if meaning.length else "same length"
    third = (", a multiple of three" if meaning.length % 3 == 0 else ", no multiple of three") if meaning.length else ""
    said = "reading frame kept" if meaning.frame == KEPT else _FRAME[meaning.frame]
    stop = f"; stop at codon {meaning.stop[0]:,} in place of {meaning.stop[1]:,}" if meaning.stop else ""
    return f"{size}{third}; {said}{stop}"


def lines_of(meaning: Meaning, contig: str, strand: str) -> list[str]:
    """A paragraph for a terminal, of at most `WIDTH` columns.

    Args:
        meaning: what the variant does.
        contig: where.
        strand: of the gene.
    """
    if meaning.is_change:
        said = ", ".join(map(term_in_words, meaning.terms))
        lines = [f"consequence: {said} ({LABEL})"]
    else:
        lines = [f"consequence: no change of exons is called ({LABEL})"]
    lines += [f"  {event_in_words(event, contig)}" for event in meaning.events]
    if frame := frame_in_words(meaning):
        lines.append(f"  {frame}")
    named = {event.first for event in meaning.events}
    lines += [f"  {_site_in_words(site, contig)}" for site in meaning.sites if site.place not in named]
    if meaning.alternatives:
        ways = [f"{_alternative_in_words(other)}: {other.probability:.0%}" for other in meaning.alternatives]
        lines.append(f"  among ways to splice ALT this one has {meaning.probability:.0%}")
        lines += [f"  or {way}" for way in ways]
    drawn = drawing(meaning, strand)
    if drawn:
        of = f"transcript {meaning.transcript}" if meaning.transcript else "exons of all known junctions"
        lines += [f"  {of}, {meaning.exons} exons, 5' to 3', not to scale", *(f"  {line}" for line in drawn)]
    return [part for line in lines for part in _wrapped(line)]


def _wrapped(line: str) -> list[str]:
    if len(line) <= _ROOM:
        return [line]
    return textwrap.wrap(line, _ROOM, initial_indent="  " * line.startswith(" "), subsequent_indent="    ")


def _site_in_words(site: ChangedSite, contig: str) -> str:
    known = ", annotated" if site.annotated else ""
    change = f"{site.reference:.2f} on REF, {site.alternative:.2f} on ALT"
    return f"{site.kind} {contig}:{place_in_words(site.place)} changes: {change}{known}"


def _alternative_in_words(other: OtherWay) -> str:
    if other.terms == (NO_CHANGE,):
        return "no change of exons"
    moved = [event for event in other.events if event.term in (*GAIN.values(), *CRYPTIC.values())]
    parts = [term_in_words(term) for term in other.terms]
    return ", ".join(parts) + "".join(f", {event.length:+,} nt" for event in moved if event.length)


def drawing(meaning: Meaning, strand: str) -> list[str]:
    """Exons of REF over those of ALT: rows of numbers, exons before, exons after, and lengths.

    Args:
        meaning: what the variant does.
        strand: of the gene.
    """
    layout = laid_out(meaning, strand, _DRAWN, least=3)
    if layout is None:
        return []
    total = layout.width

    def row(places: Sequence[Drawn]) -> str:
        text = [" "] * total
        for (_, end), (start, _) in pairwise(places):
            text[end:start] = "-" * (start - end)
        for start, end in places:
            text[start:end] = f"[{'=' * (end - start - 2)}]"
        return "".join(text)

    def labels(places: Sequence[Drawn], words: Sequence[str]) -> str:
        text = [" "] * total
        for (start, end), word in zip(places, words, strict=True):
            begin = min(max(0, (start + end - len(word)) // 2), max(0, total - len(word)))
            if not "".join(text[max(0, begin - 1) : begin + len(word) + 1]).strip():
                text[begin : begin + len(word)] = word
        return "".join(text).rstrip()

    return [
        f"exon    {labels(layout.before, [str(exon.number or '?') for exon in meaning.before])}",
        f"before  {row(layout.before)}",
        f"after   {row(layout.after)}",
        f"nt      {labels(layout.after, [f'{exon.length:,}' for exon in meaning.after])}",
    ]


def described(meaning: Meaning, contig: str, strand: str) -> dict[str, Any]:
    """JSON-ready; places are 1-based, `x^n` for inserted letter n behind x.

    Args:
        meaning: what the variant does.
        contig: where.
        strand: of the gene.
    """
    return {
        "label": LABEL,
        "consequence": list(meaning.terms),
        "text": lines_of(meaning, contig, strand),
        "probability": meaning.probability,
        "transcript": meaning.transcript or None,
        "exon_count": meaning.exons,
        "length_change": meaning.length if meaning.frame else None,
        "multiple_of_three": meaning.length % 3 == 0 if meaning.frame else None,
        "frame": meaning.frame,
        "stop_codon": {"alt": meaning.stop[0], "ref": meaning.stop[1]} if meaning.stop else None,
        "events": [_event(event) for event in meaning.events],
        "exons_before": [_exon(exon) for exon in meaning.before],
        "exons_after": [_exon(exon) for exon in meaning.after],
        "alternatives": [
            {
                "consequence": list(other.terms),
                "probability": other.probability,
                "events": [_event(event) for event in other.events],
            }
            for other in meaning.alternatives
        ],
        "changed_sites": [
            {
                "kind": site.kind,
                "position": _place(site.place),
                "ref": site.reference,
                "alt": site.alternative,
                "annotated": site.annotated,
            }
            for site in meaning.sites
        ],
    }


def _place(place: Place) -> int | str:
    return place_in_words(place) if place[1] else place[0] + 1


def _exon(exon: ShownExon) -> dict[str, Any]:
    low, high = sorted((exon.first, exon.last))
    return {"start": _place(low), "end": _place(high), "length": exon.length, "number": exon.number or None}


def _event(event: ExonEvent) -> dict[str, Any]:
    low, high = sorted((event.first, event.last))
    found: dict[str, Any] = {"term": event.term, "start": _place(low), "end": _place(high), "length": event.length}
    if event.term in _SITE_TERMS:
        seen = event.reference >= 0
        return found | {
            "ref": event.reference if seen else None,
            "alt": event.alternative if seen else None,
            "distance": found.pop("length"),
        }
    return found | {"exon": event.exon or None, "exons_skipped": event.skipped or None}
