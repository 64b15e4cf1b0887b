"""From the probabilities of two haplotypes to what a variant does to the exons of a gene: a research prediction.

Sites are called on REF and on ALT, the exons of one transcript are decoded on both (`metalayer.sites`), and what
differs is named. What the model says of the window counts there; outside it the annotation does.

- Transcript: of those that the variant touches, the one with most sites that fall by `NOTABLE` or more, then the
  principal one, then the one with the longest exons. A gene of which junctions alone are known gets exons decoded from
  them.
- A site is lost where its base is deleted, or its probability falls by `LEAST_CHANGE` or more and below half.
- Annotated sites of the transcript are there, with `ANNOTATED` at least, on ALT those that are not lost.
- Any other site that is called, from `CANDIDATE` on, counts where it changes by `LEAST_CHANGE`, where it could stand
  for a lost site of its kind, be the other end of an exon with one that changes, or where another isoform has it and
  the transcript loses one. So exons of REF are those of the annotation, but for what the variant takes away, and what a
  model finds beside them is not laid to the variant.
- Where nothing changes by `LEAST_CHANGE`, no change is called.

docs/variants.md says what the names mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, groupby, pairwise, takewhile

import numpy as np
from numpy.typing import NDArray

from metalayer.genome import decode, reverse_complement
from metalayer.schema import ACCEPTOR, CLASSES, DONOR
from metalayer.sites import CalledSites, call_sites, decode_exons
from metalayer.sites.lengths import MIN_INTRON_BP
from metalayer.variants.columns import Columns, Place
from metalayer.variants.definition import Aligned
from metalayer.variants.genes import GeneSites, Transcript
from metalayer.variants.meaning import (
    CRYPTIC,
    EXON_DELETED,
    GAIN,
    INTRON_DELETED,
    KEPT,
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
    TERMS,
    UNCLEAR,
    UNKNOWN,
    ChangedSite,
    ExonEvent,
    Meaning,
    OtherWay,
    ShownExon,
)

CANDIDATE = 0.1
"""Least probability of a site that the exons of a haplotype may use. On 64 genes of chromosomes 1, 5 and 7
(OpenSpliceAI, flank 10,000), of sites called from here on 0.88 of donors and 0.90 of acceptors are real: weak ones
count as what they are, by their odds."""
ANNOTATED = 0.9
"""What an annotated site counts as at least: a model that misses it on REF does not make an exon go."""
LEAST_CHANGE = 0.1
"""Smaller changes are noise here: nothing is called for them."""
NOTABLE = 0.2
"""Changes of sites that are listed: the least threshold that SpliceAI's authors recommend."""
LIKELY = 0.1
"""Least probability of an alternative that is listed."""
LONGEST_RETAINED_BP = 2000
"""Of retained introns that are called; internal exons that were counted have up to 1,591 nt."""
_BEYOND = 3
"""Exons to either side of the window that are decoded, too."""
_WAYS = 4

Span = tuple[int, int]
Edge = tuple[int, int]
"""A place in transcript sense, and the kind of its site."""
Letters = NDArray[np.uint8]
LettersOf = Callable[[int, int], Letters]


def meaning_of(
    found: Aligned,
    gene: GeneSites,
    coding: Callable[[str], Span | None],
    letters: LettersOf,
    change: tuple[int, int, Letters],
) -> Meaning:
    """Name what a variant does.

    Args:
        found: probabilities of both haplotypes in a window around it.
        gene: of which the exons are.
        coding: gives start and end of the coding sequence of a transcript, 0-based half-open, by its name.
        letters: gives tokens [start, end) of the reference, plus strand.
        change: start and end of the letters that go, 0-based half-open, and tokens of those that come, plus strand.
    """
    return _Reader(found, gene, coding, letters, change).meaning()


class _Reader:
    """Places are in transcript sense of the columns (`Columns`), unless they say otherwise."""

    def __init__(
        self,
        found: Aligned,
        gene: GeneSites,
        coding: Callable[[str], Span | None],
        letters: LettersOf,
        change: tuple[int, int, Letters],
    ) -> None:
        self._found, self._gene, self._coding_of = found, gene, coding
        self._letters, self._change = letters, change
        self._columns = Columns(int(found.positions[0]), found.opened, found.surplus, gene.is_plus)
        self._size = len(found.positions)
        self._annotated = {
            kind: {self._sense(int(at)) for at in self._inside(known)}
            for kind, known in ((DONOR, gene.donors), (ACCEPTOR, gene.acceptors))
        }

    def _inside(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        low, high = np.searchsorted(positions, (self._found.positions[0], self._found.positions[-1] + 1))
        return positions[low:high]

    def _sense(self, position: int) -> int:
        return self._columns.turned(self._columns.column(position))

    def _place(self, sense: int) -> Place:
        return self._columns.place(self._columns.turned(sense))

    def _scores(self, sense: int, kind: int) -> tuple[float, float] | None:
        """Probabilities of a place on both haplotypes; None outside the window."""
        column = self._columns.turned(sense)
        if not 0 <= column < self._size:
            return None
        return float(self._found.reference[column, kind]), float(self._found.alternative[column, kind])

    def _is_lost(self, sense: int, kind: int) -> bool:
        pair = self._scores(sense, kind)
        if pair is None:
            return False
        before, after = pair
        is_gone = not self._columns.are_on(np.array([self._columns.turned(sense)]), alt=True)[0]
        return is_gone or (before - after >= LEAST_CHANGE and after < before / 2)

    def meaning(self) -> Meaning:
        sites = self._changed_sites()
        is_changed = bool((np.abs(self._delta()) >= LEAST_CHANGE).any())
        name, exons = self._transcript(is_changed=is_changed)
        if not exons:
            return Meaning(name, (NO_CHANGE,), sites=sites)
        low, high = self._decoded_range(exons)
        part = exons[low:high]
        numbers = {exon: low + i + 1 for i, exon in enumerate(part)}
        if not is_changed:
            shown = self._shown(part, part, numbers)
            return Meaning(name, (NO_CHANGE,), before=shown[0], after=shown[1], exons=len(exons), sites=sites)
        called = {alt: self._called(alt=alt) for alt in (False, True)}
        counting = self._counting(part, {*called[False], *called[True]})
        before, _ = self._decode(part, called[False], counting, alt=False)[0]
        (after, probability), *others = self._decode(part, called[True], counting, alt=True)
        events = self._events(before, after, numbers)
        alternatives = []
        for other, share in others:
            if share >= LIKELY:
                different = self._events(before, other, numbers)
                alternatives.append(OtherWay(_terms(different), share, tuple(different)))
        terms, whole = _terms(events), tuple([*exons[:low], *one, *exons[high:]] for one in (before, after))
        length, frame, stop = 0, None, None
        if terms != (NO_CHANGE,) and UNCLEAR not in terms:
            length = self._length(whole[1], alt=True) - self._length(whole[0], alt=False)
            frame, stop = self._frame(name, *whole)
        return Meaning(
            name,
            terms,
            tuple(events),
            length,
            frame,
            stop,
            *self._shown(before, after, numbers),
            len(exons),
            probability,
            tuple(alternatives),
            sites,
        )

    def _delta(self) -> NDArray[np.float32]:
        sites = [DONOR, ACCEPTOR]
        change: NDArray[np.float32] = self._found.alternative[:, sites] - self._found.reference[:, sites]
        return change

    def _changed_sites(self) -> tuple[ChangedSite, ...]:
        """Those that change by `NOTABLE`, in transcript sense."""
        rows = []
        for column, kind in zip(*np.nonzero(np.abs(self._delta()) >= NOTABLE), strict=True):
            sense = self._columns.turned(int(column))
            before, after = self._scores(sense, int(kind)) or (0.0, 0.0)
            known = sense in self._annotated[int(kind)]
            rows.append((sense, ChangedSite(CLASSES[kind], self._place(sense), before, after, known)))
        return tuple(site for _, site in sorted(rows))

    def _transcript(self, *, is_changed: bool) -> tuple[str, list[Span]]:
        """Name of the transcript that is read, and its exons, first and last base."""
        middle = int(self._found.positions[self._size // 2])

        def rank(one: Transcript) -> tuple[bool, int, bool, int, str]:
            start, end = int(one.exons[0, 0]), int(one.exons[-1, 1])
            falling = 0
            if is_changed:
                falling = sum(self._falls(sense, kind) for sense, kind in self._sites_of(self._exons(one)))
            return not start <= middle < end, -falling, not one.is_principal, -one.length, one.name

        if self._gene.transcripts:
            chosen = min(self._gene.transcripts, key=rank)
            return chosen.name, self._exons(chosen)
        return "", self._from_junctions() if is_changed else []

    def _falls(self, sense: int, kind: int) -> bool:
        pair = self._scores(sense, kind)
        return pair is not None and pair[0] - pair[1] >= NOTABLE

    def _exons(self, transcript: Transcript) -> list[Span]:
        found = [(self._sense(int(start)), self._sense(int(end) - 1)) for start, end in transcript.exons]
        return found if self._gene.is_plus else [(last, first) for first, last in found[::-1]]

    def _from_junctions(self) -> list[Span]:
        """Of a gene without transcripts: the most probable exons of all its sites."""
        span = self._gene.gene.interval
        ends = sorted((self._sense(span.start), self._sense(span.end - 1)))
        known = [*map(int, self._gene.donors)], [*map(int, self._gene.acceptors)]
        places = np.array([self._sense(at) for at in (*known[0], *known[1])], np.int64)
        kinds = np.repeat([DONOR, ACCEPTOR], [len(known[0]), len(known[1])])
        if not len(places):
            return []
        sites = CalledSites.of(places, kinds, np.full(len(places), ANNOTATED))
        return list(decode_exons(sites, ends[0], ends[1]).chains[0].exons)

    @staticmethod
    def _sites_of(exons: Sequence[Span]) -> Iterator[tuple[int, int]]:
        for (_, donor), (acceptor, _) in pairwise(exons):
            yield donor, DONOR
            yield acceptor, ACCEPTOR

    def _decoded_range(self, exons: Sequence[Span]) -> tuple[int, int]:
        """Indices of the exons that are decoded: those about the window, and some to either side."""
        edges = sorted((self._columns.turned(0), self._columns.turned(self._size - 1)))
        low = sum(last < edges[0] for _, last in exons)
        high = sum(first <= edges[1] for first, _ in exons)
        return max(0, min(low, high) - _BEYOND), min(len(exons), max(low, high) + _BEYOND)

    def _called(self, *, alt: bool) -> dict[Edge, float]:
        """Probabilities of the sites of a haplotype in the window."""
        scores = self._found.alternative if alt else self._found.reference
        there = np.flatnonzero(self._columns.are_on(np.arange(self._size), alt=alt))
        there = there if self._gene.is_plus else there[::-1]
        called = call_sites(scores[there], CANDIDATE)
        return {
            (self._columns.turned(int(there[index])), int(kind)): float(probability)
            for index, kind, probability in zip(called.positions, called.kinds, called.probabilities, strict=True)
        }

    def _counting(self, exons: Sequence[Span], called: set[Edge]) -> set[Edge]:
        """Sites that are none of the transcript's and count all the same: see the module's text."""
        known = {*self._sites_of(exons)}
        others = called - known
        changed = {edge for edge in others if self._changes(edge)}
        replaced = {kind for sense, kind in known if self._is_lost(sense, kind)}
        paired = {ACCEPTOR + DONOR - kind for _, kind in changed}
        isoforms = {(sense, kind) for kind in self._annotated for sense in self._annotated[kind]} if replaced else set()
        return changed | {edge for edge in others if edge[1] in replaced | paired or edge in isoforms}

    def _changes(self, edge: Edge) -> bool:
        before, after = self._scores(*edge) or (0.0, 0.0)
        return abs(after - before) >= LEAST_CHANGE

    def _decode(
        self, exons: Sequence[Span], called: dict[Edge, float], counting: set[Edge], *, alt: bool
    ) -> list[tuple[list[Span], float]]:
        """Exons of a haplotype and their probability, the best first."""
        columns = self._columns
        found = {
            edge: probability
            for edge, probability in called.items()
            if edge in counting and not (alt and self._is_lost(*edge))
        }
        for edge in self._sites_of(exons):
            if not (alt and self._is_lost(*edge)):
                found[edge] = self._weight(*edge, alt=alt)
        numbers = np.array([columns.on_haplotype(sense, alt=alt) for sense, _ in found], np.int64)
        kinds = np.array([kind for _, kind in found], np.uint8)
        sites = CalledSites.of(numbers, kinds, np.array([*found.values()], np.float64))
        known = [(columns.on_haplotype(one, alt=alt), columns.on_haplotype(two, alt=alt)) for one, two in exons]
        first, last = known[0][0], max(known[0][0], known[-1][1])
        decoded = decode_exons(sites, first, last, best=_WAYS, known=known)

        def back(chain: Sequence[Span]) -> list[Span]:
            inner = [(columns.from_haplotype(one, alt=alt), columns.from_haplotype(two, alt=alt)) for one, two in chain]
            inner[0] = exons[0][0], inner[0][1]
            inner[-1] = inner[-1][0], exons[-1][1]
            return inner

        return [(back(chain.exons), chain.probability) for chain in decoded.chains]

    def _weight(self, sense: int, kind: int, *, alt: bool) -> float:
        """Of an annotated site of the transcript that is not lost."""
        pair = self._scores(sense, kind)
        if pair is None:
            return ANNOTATED
        before, after = pair
        if not alt or before - after < LEAST_CHANGE:
            return max(ANNOTATED, after if alt else before)
        return max(after, ANNOTATED * after / before)

    def _events(self, before: Sequence[Span], after: Sequence[Span], numbers: dict[Span, int]) -> list[ExonEvent]:
        """What differs between the exons of REF and ALT, in transcript sense."""
        if list(before) == list(after):
            return []
        events: list[ExonEvent] = []
        for old, new in _overlapping(before, after):
            if not new:
                events.append(self._skipped(old, numbers))
            elif not old:
                events += [self._new(exon) for exon in new]
            else:
                events += self._within(old, new, before, after, numbers)
        lost = [edge for edge in self._sites_of(before) if edge not in {*self._sites_of(after)}]
        losses = [self._site(LOSS[kind], sense, kind, 0) for sense, kind in lost if self._is_lost(sense, kind)]
        return [*losses, *events]

    def _new(self, exon: Span) -> ExonEvent:
        is_known = exon[0] in self._annotated[ACCEPTOR] and exon[1] in self._annotated[DONOR]
        return self._event(OTHER_EXON if is_known else PSEUDOEXON, *exon, self._columns.length(*exon, alt=True))

    def _skipped(self, old: Sequence[Span], numbers: dict[Span, int]) -> ExonEvent:
        length = sum(self._columns.length(*exon, alt=False) for exon in old)
        is_gone = not sum(self._columns.length(*exon, alt=True) for exon in old)
        event = self._event(EXON_DELETED if is_gone else SKIPPED, old[0][0], old[-1][1], -length)
        return event._replace(exon=numbers.get(old[0], 0), skipped=len(old))

    def _within(
        self,
        old: Sequence[Span],
        new: Sequence[Span],
        before: Sequence[Span],
        after: Sequence[Span],
        numbers: dict[Span, int],
    ) -> list[ExonEvent]:
        """Exons that lie in one another."""
        events = []
        if old[0][0] != new[0][0] and old[0] != before[0] and new[0] != after[0]:
            events += self._moved(ACCEPTOR, old[0][0], new[0][0], numbers.get(old[0], 0))
        new_introns = [(one[1], two[0]) for one, two in pairwise(new)]
        for one, two in pairwise(old):
            donor, acceptor = one[1], two[0]
            if any(first <= donor and acceptor <= last for first, last in new):
                inside = donor + 1, acceptor - 1
                length = self._columns.length(*inside, alt=True)
                term = RETAINED if length <= LONGEST_RETAINED_BP else UNCLEAR
                if length < MIN_INTRON_BP:
                    term, length = INTRON_DELETED, -self._columns.length(*inside, alt=False)
                events.append(self._event(term, *inside, length)._replace(exon=numbers.get(one, 0)))
                continue
            for other in new_introns:
                if other[0] < acceptor and donor < other[1] and other != (donor, acceptor):
                    events += self._moved(DONOR, donor, other[0], numbers.get(one, 0))
                    events += self._moved(ACCEPTOR, acceptor, other[1], numbers.get(two, 0))
        for donor, acceptor in new_introns:
            holding = [exon for exon in old if exon[0] <= donor and acceptor <= exon[1]]
            if holding:
                inside = donor + 1, acceptor - 1
                length = self._columns.length(*inside, alt=False)
                events.append(self._event(NEW_INTRON, *inside, -length)._replace(exon=numbers.get(holding[0], 0)))
                events += [self._gained(DONOR, donor, 0), self._gained(ACCEPTOR, acceptor, 0)]
        if old[-1][1] != new[-1][1] and old[-1] != before[-1] and new[-1] != after[-1]:
            events += self._moved(DONOR, old[-1][1], new[-1][1], numbers.get(old[-1], 0))
        return events

    def _moved(self, kind: int, old: int, new: int, exon: int) -> list[ExonEvent]:
        """Another site takes the place of one."""
        if old == new:
            return []
        is_longer = (new > old) == (kind == DONOR)
        between = (min(old, new) + (kind == DONOR), max(old, new) - (kind == ACCEPTOR))
        length = self._columns.length(*between, alt=is_longer)
        event = self._event(LONGER if is_longer else SHORTER, *between, length if is_longer else -length)
        distance = length if new > old else -length
        return [self._gained(kind, new, distance), event._replace(exon=exon)]

    def _gained(self, kind: int, sense: int, distance: int) -> ExonEvent:
        term = (GAIN if sense in self._annotated[kind] else CRYPTIC)[kind]
        return self._site(term, sense, kind, distance)

    def _site(self, term: str, sense: int, kind: int, distance: int) -> ExonEvent:
        before, after = self._scores(sense, kind) or (-1.0, -1.0)
        return self._event(term, sense, sense, distance)._replace(reference=before, alternative=after)

    def _event(self, term: str, first: int, last: int, length: int) -> ExonEvent:
        return ExonEvent(term, self._place(first), self._place(last), length)

    def _length(self, exons: Sequence[Span], *, alt: bool) -> int:
        return sum(self._columns.length(*exon, alt=alt) for exon in exons)

    def _shown(
        self, before: Sequence[Span], after: Sequence[Span], numbers: dict[Span, int]
    ) -> tuple[tuple[ShownExon, ...], tuple[ShownExon, ...]]:
        """Exons around what differs, one more to either side; where nothing does, around the window's middle."""
        first, behind = _differing(before, after)
        if first is None:
            middle = self._columns.turned(self._size // 2)
            near = sum(last < middle for _, last in before)
            low, behind = max(0, near - 1), max(0, len(before) - near - 2)
        else:
            low, behind = max(0, first - 1), max(0, behind - 1)

        def shown(exons: Sequence[Span], *, alt: bool) -> tuple[ShownExon, ...]:
            return tuple(
                ShownExon(
                    self._place(first),
                    self._place(last),
                    self._columns.length(first, last, alt=alt),
                    numbers.get((first, last), 0),
                )
                for first, last in exons
            )

        return (
            shown(before[low : len(before) - behind], alt=False),
            shown(after[low : len(after) - behind], alt=True),
        )

    def _frame(self, name: str, before: Sequence[Span], after: Sequence[Span]) -> tuple[str, tuple[int, int] | None]:
        """What happens to the reading frame, and to the stop of translation."""
        span = self._coding_of(name)
        if span is None:
            return UNKNOWN, None
        start, stop = sorted((self._sense(span[0]), self._sense(span[1] - 1)))
        coding = [_clipped(exons, start, stop) for exons in (before, after)]
        same = self._length(coding[1], alt=True) == self._length(coding[0], alt=False)
        if same and coding[0] == coding[1]:
            return OUTSIDE, None
        if not any(first <= start <= last for first, last in after):
            return START_LOST, None
        stop_early = self._early_stop(start, before, after)
        if not any(first <= stop <= last for first, last in after):
            return STOP_LOST, stop_early
        difference = self._length(coding[1], alt=True) - self._length(coding[0], alt=False)
        return (SHIFTED if difference % 3 else KEPT), stop_early

    def _early_stop(self, start: int, before: Sequence[Span], after: Sequence[Span]) -> tuple[int, int] | None:
        """Codon of the first stop on ALT and on REF, where that on ALT leaves more of the transcript behind it."""
        codons, behind = [], []
        for exons, alt in ((after, True), (before, False)):
            codon = self._first_stop(start, exons, alt=alt)
            if codon is None:
                return None
            codons.append(codon)
            behind.append(self._length(_clipped(exons, start, exons[-1][1]), alt=alt) - 3 * codon)
        return (codons[0], codons[1]) if behind[0] > behind[1] else None

    def _first_stop(self, start: int, exons: Sequence[Span], *, alt: bool) -> int | None:
        """Number of the codon; None where translation does not begin with ATG, or does not end."""
        left = b""
        number = 0
        for first, last in _clipped(exons, start, exons[-1][1]):
            left += self._text(first, last, alt=alt)
            if not number and len(left) >= 3 and left[:3] != b"ATG":
                return None
            for at in range(0, len(left) - 2, 3):
                number += 1
                if left[at : at + 3] in (b"TAA", b"TAG", b"TGA"):
                    return number
            left = left[len(left) - len(left) % 3 :]
        return None

    def _text(self, first: int, last: int, *, alt: bool) -> bytes:
        """Letters of a haplotype, transcript sense."""
        low, high = sorted((self._columns.turned(first), self._columns.turned(last)))
        start, size = self._columns.start, self._size
        window = self._letters(start, start + size - max(self._columns.surplus, 0))
        if alt:
            at, end, come = self._change
            window = np.concatenate([window[: at - start], come, window[end - start :]])
        inside = slice(
            self._columns.index(min(max(low, 0), size), alt=alt),
            self._columns.index(min(max(high + 1, 0), size), alt=alt),
        )
        shift = start - max(self._columns.surplus, 0)
        parts = [
            self._letters(start + low, start + max(low, min(high + 1, 0))),
            window[inside],
            self._letters(shift + max(low, size), shift + max(high + 1, low, size)),
        ]
        tokens = np.concatenate([part for part in parts if len(part)])
        return decode(tokens if self._gene.is_plus else reverse_complement(tokens)).encode()


def _differing(before: Sequence[Span], after: Sequence[Span]) -> tuple[int | None, int]:
    """Exons that are the same from the start on, None where all are, and from the end."""
    if list(before) == list(after):
        return None, 0
    same = [
        sum(1 for _ in takewhile(_are_one, zip(one, two, strict=False)))
        for one, two in ((before, after), (before[::-1], after[::-1]))
    ]
    return same[0], same[1]


def _are_one(pair: tuple[Span, Span]) -> bool:
    return pair[0] == pair[1]


def _clipped(exons: Sequence[Span], first: int, last: int) -> list[Span]:
    """What of exons lies from `first` to `last`."""
    return [(max(one, first), min(two, last)) for one, two in exons if one <= last and first <= two]


def _overlapping(before: Sequence[Span], after: Sequence[Span]) -> Iterator[tuple[list[Span], list[Span]]]:
    """Exons of REF and of ALT in groups that share bases; neighbours on one side alone are one group."""
    groups: list[tuple[list[Span], list[Span]]] = []
    reach = 0
    for exon, side in sorted([*((exon, 0) for exon in before), *((exon, 1) for exon in after)]):
        if not groups or exon[0] > reach:
            groups.append(([], []))
            reach = exon[1]
        groups[-1][side].append(exon)
        reach = max(reach, exon[1])
    for _, joined in groupby(groups, key=lambda group: (bool(group[0]), bool(group[1]))):
        several = [*joined]
        if all(several[0]):
            yield from several
        else:
            yield [*chain(*(old for old, _ in several))], [*chain(*(new for _, new in several))]


def _terms(events: Sequence[ExonEvent]) -> tuple[str, ...]:
    said = {event.term for event in events}
    return tuple(term for term in TERMS if term in said) or (NO_CHANGE,)
