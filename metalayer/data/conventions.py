"""Do letters, labels and scores of per-nucleotide files keep one convention? What does not is named, with the fix.

Nearly every donor label is followed by GT or GC, nearly every acceptor label has AG before it (`base.agreement` judges
the introns of an annotation so), and a base model's scores are highest at the labels. Where letters and scores fit each
other but not the labels, the labels are wrong; where labels and scores fit each other, the letters are; and so on.

A right file must pass, whatever its base model: files are refused for what chance does not do. Half of five sites do
not lose their letters and nearly all find them at one of the 336 other places looked at (below 1 in a million for
each class, strand and chromosome); scores that know nothing are highest at one of 21 places, so that half of 20 sites,
or nearly all of five, are not at one wrong place (below 1 in 100,000). Fewer sites are counted and not judged.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from metalayer.base.agreement import MIN_CANONICAL, MIN_INTRONS, SHIFTS
from metalayer.data.convention_counts import (
    AS_IT_STANDS,
    AT_MIRRORED,
    BACKWARDS,
    MIRRORED_BACKWARDS,
    NO_SHIFT,
    OTHER,
    OWN,
    ConventionCounts,
    SiteCounts,
)
from metalayer.errors import ArtifactError
from metalayer.genome import chrom_order, exon_base
from metalayer.schema import ACCEPTOR, CLASSES, DONOR

logger = logging.getLogger(__name__)

MIN_SITES = 5
"""Fewer sites of a class on a strand tell nothing, even where nearly all of them fit at one other place."""
MIN_PEAKS = 0.5
"""Share of at least `MIN_INTRONS` peaks at one wrong place at which the scores are off; with fewer, `MIN_CANONICAL`."""
MIN_HIGHER = 0.8
"""Share of at least `MIN_INTRONS` sites near which the other class's score is the higher one, where columns are
swapped; of fewer, `MIN_CANONICAL`."""
MIN_SWAPPED = 8
"""Fewer sites of a class near which one score is clearly the higher one do not tell that columns are swapped: scores
that know nothing do that at eight of eight, for donors and acceptors alike, once in 65,000 times."""
_NOT_BY_CHANCE = 4.0
"""Standard errors by which a share must lie below `MIN_CANONICAL`."""
_NAMED = 10
_SITES = (DONOR, ACCEPTOR)
_CONVENTION = {  # by whether it is one of artifact rows
    False: "A label stands at an exon base: GT or GC follows a donor, AG precedes an acceptor, in transcript "
    "direction; rows ascend along the chromosome, and base is the + strand's letter, in genes of both strands.",
    True: "A row stands at an intron base, the G of GT or GC for a donor, the G of AG for an acceptor; position and "
    "sequence are in transcript direction, in genes of both strands.",
}
_State = Literal["ok", "elsewhere", "nowhere", "unknown"]


@dataclass(frozen=True)
class _Place:
    """Where letters or peaks fit: `shift` bases on in transcript direction, perhaps read otherwise or exchanged."""

    exchanged: bool = False
    way: int = AS_IT_STANDS
    complemented: bool = False
    shift: int = 0


@dataclass(frozen=True)
class _Fit:
    """How many of n sites fit as the file stands, and at the best other place."""

    state: _State
    n: int
    here: int
    best: int = 0
    place: _Place = _Place()


@dataclass(frozen=True)
class _Finding:
    """What is wrong with one class on one strand; chrom is None for all chromosomes.

    Attributes:
        subject: what is wrong.
        place: where it fits; None for nowhere.
        move: bases in transcript direction by which to shift the subject.
    """

    subject: str
    place: _Place | None
    site_class: int
    chrom: str | None
    strand: str
    evidence: tuple[str, ...]
    move: int = 0

    @property
    def along(self) -> int:
        """`move` along the chromosome."""
        return self.move if self.strand == "+" else -self.move


def refuse_mistakes(counts: ConventionCounts, source: str, *, allow_introns: bool) -> None:
    """Judge the genes, or the artifact rows, of one file.

    Args:
        counts: of them.
        source: the file, for the message.
        allow_introns: introns may begin and end with anything, so that letters are no argument.

    Raises:
        ArtifactError: letters, labels and scores that do not keep one convention, saying which and how to fix them.
    """
    findings = [one for where in _suspects(counts, allow_introns) for one in _findings(*where)]
    if not findings:
        return
    lines = "".join(f"  {line}\n" for line in _lines(findings, of_rows=counts.of_rows))
    by_letters = any(one.subject != SCORES for one in findings)
    allow = " Where a genome has other introns, allow them (--allow-introns; setting allow_introns)." * by_letters
    raise ArtifactError(
        f"{source}: letters, labels and scores do not keep one convention:\n{lines}{_CONVENTION[counts.of_rows]}{allow}"
    )


def score_moves(counts: ConventionCounts) -> dict[tuple[int, str], int]:
    """By how many bases to shift scores in transcript direction, by class and strand, where that alone is wrong.

    Returns:
        Empty where nothing is wrong, or anything else is.
    """
    found = [one for where in _suspects(counts, allow_introns=False) for one in _findings(*where)]
    if any(one.subject not in (SCORES, SCORES_OR_LABELS) or one.place != _Place(shift=-one.move) for one in found):
        return {}
    return {(one.site_class, one.strand): one.move for one in found}


def facts(counts: ConventionCounts, *, allow_introns: bool) -> dict[str, Any]:
    """What was counted, JSON-ready: by class labels, those with letters, with an intron's letters, and with peaks."""
    total = SiteCounts()
    for one in counts.totals().values():
        total.add(one)
    found: dict[str, Any] = {}
    for site_class in _SITES:
        letters, peaks = _letters_fit(total, site_class), _peaks_fit(total, site_class)
        found[CLASSES[site_class]] = {
            "labels": int(total.labels[site_class]),
            "with_letters": letters.n,
            "with_intron_letters": letters.here,
            "with_peaks": peaks.n,
            "with_peaks_at_label": peaks.here,
        }
    return found | {"any_introns_allowed": allow_introns}


def log_facts(found: Mapping[str, Any], source: str) -> None:
    """One line of what `facts` counted; a warning where it is too little to judge."""
    donor, acceptor = found["donor"], found["acceptor"]
    if not donor["labels"] + acceptor["labels"]:
        return
    few = min(one["labels"] for one in (donor, acceptor)) < MIN_INTRONS
    logger.log(
        logging.WARNING if few else logging.INFO,
        "%s: GT or GC after %d of %d donor labels, AG before %d of %d acceptor labels; highest scores at %d of %d "
        "donor and %d of %d acceptor labels%s",
        source,
        *(donor["with_intron_letters"], donor["with_letters"]),
        *(acceptor["with_intron_letters"], acceptor["with_letters"]),
        *(donor["with_peaks_at_label"], donor["with_peaks"]),
        *(acceptor["with_peaks_at_label"], acceptor["with_peaks"]),
        ": too few to tell whether letters, labels and scores keep one convention" if few else "",
    )


def _complexity() -> NDArray[np.float64]:
    """Of a place of `SiteCounts.letters`, below 1: of two that fit as well, the simpler one is named."""
    other, way, complemented, shift = np.meshgrid(*(np.arange(n) for n in (2, 4, 2, len(SHIFTS))), indexing="ij")
    simple: NDArray[np.float64] = (100 * (other + way + complemented) + np.abs(shift - NO_SHIFT)) / 1000
    return simple


_COMPLEXITY = _complexity()


def _letters_fit(counts: SiteCounts, site_class: int) -> _Fit:
    n, table = int(counts.lettered[site_class]), counts.letters[site_class]
    here = int(table[OWN, AS_IT_STANDS, 0, NO_SHIFT])
    ranked = table - _COMPLEXITY
    ranked[OWN, AS_IT_STANDS, 0, NO_SHIFT] = -1
    other, way, complemented, shift = np.unravel_index(int(ranked.argmax()), ranked.shape)
    best = int(table[other, way, complemented, shift])
    place = _Place(bool(other), int(way), bool(complemented), SHIFTS[int(shift)])
    state: _State = "unknown"
    if n >= MIN_SITES and 2 * here < n and best >= MIN_CANONICAL * n:
        state = "elsewhere"
    elif n >= MIN_INTRONS and here < MIN_CANONICAL * n - _NOT_BY_CHANCE * math.sqrt(
        n * MIN_CANONICAL * (1 - MIN_CANONICAL)
    ):
        state = "nowhere"
    elif n >= MIN_SITES and 2 * here >= n:
        state = "ok"
    return _Fit(state, n, here, best, place)


def _peaks_fit(counts: SiteCounts, site_class: int) -> _Fit:
    own, mirrored = counts.peaks[site_class, OWN]
    here, n, at_mirrored = int(own[NO_SHIFT]), int(own.sum()), int(mirrored[NO_SHIFT])
    elsewhere = own.copy()
    elsewhere[NO_SHIFT] = 0
    best, of, place = int(elsewhere.max()), n, _Place(shift=SHIFTS[int(elsewhere.argmax())])
    if at_mirrored > best:
        best, of, place = at_mirrored, int(mirrored.sum()), _Place(way=AT_MIRRORED)
    state: _State = "unknown"
    most = MIN_PEAKS if of >= MIN_INTRONS else MIN_CANONICAL
    many = max(MIN_SITES, MIN_PEAKS * counts.labels[site_class])  # peaks of few labels are no sample of all
    if of >= many and best >= most * of and 4 * here <= best:
        state = "elsewhere"
    elif n >= MIN_SITES and 2 * here >= n:
        state = "ok"
    return _Fit(state, n, here, best, place)


def _swapped(counts: SiteCounts) -> list[_Fit] | None:
    """The fits of donors and acceptors where the scores of both are the other's; else None."""
    fits = []
    for site_class in _SITES:
        other = counts.peaks[site_class, OTHER, 0]
        higher, n = int(counts.higher[site_class, OTHER]), int(counts.higher[site_class].sum())
        most = MIN_HIGHER if n >= MIN_INTRONS else MIN_CANONICAL
        if n < MIN_SWAPPED or higher < most * n or 2 * other.max() < other.sum():
            return None
        place = _Place(exchanged=True, shift=SHIFTS[int(other.argmax())] if other.any() else 0)
        fits.append(_Fit("elsewhere", n, n - higher, higher, place))
    return fits


def _fits(counts: SiteCounts, *, allow_introns: bool, of_rows: bool) -> list[tuple[_Fit, _Fit]]:
    """Letters and peaks, of donors and of acceptors."""
    letters = [_letters_fit(counts, site_class) for site_class in _SITES]
    for site_class in _SITES if of_rows else ():
        fit = letters[site_class]
        if fit.place.exchanged:  # the exon base was taken to be on the other side of the row's base
            shift = fit.place.shift + exon_base(0, site_class) - exon_base(0, 1 - site_class)
            letters[site_class] = replace(fit, place=replace(fit.place, shift=shift))
    if allow_introns:
        letters = [fit if fit.state == "ok" else _Fit("unknown", fit.n, fit.here) for fit in letters]
    peaks = _swapped(counts) or [_peaks_fit(counts, site_class) for site_class in _SITES]
    return list(zip(letters, peaks, strict=True))


_Suspect = tuple[str | None, str, list[tuple[_Fit, _Fit]]]


def _suspects(counts: ConventionCounts, allow_introns: bool) -> Iterator[_Suspect]:
    """Chromosome (None for all), strand and fits, where something is wrong: a strand, or some chromosomes of it."""
    for strand, total in sorted(counts.totals().items()):
        whole = _fits(total, allow_introns=allow_introns, of_rows=counts.of_rows)
        states = {fit.state for pair in whole for fit in pair}
        if "elsewhere" in states:
            yield None, strand, whole
            continue
        cells = {
            chrom: _fits(one, allow_introns=allow_introns, of_rows=counts.of_rows)
            for (chrom, where), one in counts.cells.items()
            if where == strand
        }
        wrong = [
            chrom
            for chrom, pairs in cells.items()
            if any(fit.state in ("elsewhere", "nowhere") for p in pairs for fit in p)
        ]
        right = [
            chrom for chrom, pairs in cells.items() if chrom not in wrong and any(p.state == "ok" for p, _ in pairs)
        ]
        if wrong and (right or "nowhere" not in states):
            for chrom in sorted(wrong, key=chrom_order):
                yield chrom, strand, cells[chrom]
        elif "nowhere" in states:
            yield None, strand, whole


SCORES, LABELS, LETTERS, ROWS = "scores", "labels", "letters", "rows"
LABELS_AND_SCORES, SCORES_OR_LABELS, LABELS_OR_LETTERS = "labels and scores", "scores or labels", "labels or letters"


def _findings(chrom: str | None, strand: str, fits: Sequence[tuple[_Fit, _Fit]]) -> Iterator[_Finding]:
    """What is wrong where `fits` are of."""
    for site_class in _SITES:
        letters, peaks = fits[site_class]
        of_letters, of_peaks = _letters_text(letters, site_class), _peaks_text(peaks, site_class)
        place, peak = letters.place, peaks.place
        if letters.state == "nowhere":
            yield _Finding(LABELS_OR_LETTERS, None, site_class, chrom, strand, (of_letters,))
        if letters.state == peaks.state == "elsewhere" and place == peak:
            yield _Finding(LABELS, place, site_class, chrom, strand, (of_letters, of_peaks), place.shift)
            continue
        if letters.state == "elsewhere":
            known = peaks.state == "ok"
            subject = _wrong_by_letters(place, known, alike=_alike(fits))
            move = -place.shift if subject == LETTERS else place.shift
            evidence = (of_letters, of_peaks) if known else (of_letters,)
            yield _Finding(subject, place, site_class, chrom, strand, evidence, move)
        if peaks.state == "elsewhere":
            subject = SCORES if letters.state == "ok" else SCORES_OR_LABELS
            yield _Finding(subject, peak, site_class, chrom, strand, (of_peaks,), -peak.shift)


def _alike(fits: Sequence[tuple[_Fit, _Fit]]) -> bool:
    """Whether the letters of donors and of acceptors, as far as known, fit at the same place."""
    places = {
        letters.place if letters.state == "elsewhere" else None for letters, _ in fits if letters.state != "unknown"
    }
    return len(places) == 1


def _wrong_by_letters(place: _Place, peaks_fit: bool, *, alike: bool) -> str:
    """What is wrong where letters fit labels at `place` only; `peaks_fit`: the scores fit the labels as they stand."""
    if place.way == BACKWARDS:
        return ROWS
    if place.way == MIRRORED_BACKWARDS or place.complemented:
        return LETTERS
    if place.exchanged or place.way == AT_MIRRORED or not alike:
        return LABELS_AND_SCORES if peaks_fit else LABELS
    return LETTERS if peaks_fit else LABELS_OR_LETTERS


def _bases(n: int) -> str:
    return f"{abs(n)} base{'s' * (abs(n) != 1)}"


def _where(place: _Place) -> str:
    parts = {
        BACKWARDS: "read backwards",
        AT_MIRRORED: "at the mirror place in the gene",
        MIRRORED_BACKWARDS: "read backwards from the mirror place in the gene",
    }
    shift = f"{_bases(place.shift)} {'after' if place.shift > 0 else 'before'} them" if place.shift else ""
    complemented = "in complemented letters" if place.complemented else ""
    return " and ".join(filter(None, (shift, parts.get(place.way, ""), complemented)))


def _letters_text(fit: _Fit, site_class: int) -> str:
    ends = ("GT or GC after", "AG before")
    text = f"{ends[site_class]} {fit.here} of {fit.n} {CLASSES[site_class]} labels"
    if fit.state != "elsewhere":
        return text
    other = f"{ends[1 - site_class]} " if fit.place.exchanged else ""
    return f"{text}, but {other}{fit.best} {_where(fit.place)}".rstrip()


def _peaks_text(fit: _Fit, site_class: int) -> str:
    name, other = CLASSES[site_class], CLASSES[1 - site_class]
    if fit.place.exchanged:
        off = f", its peaks {_where(fit.place)}" if fit.place.shift else ""
        return f"{other}_score the higher one near {fit.best} of {fit.n} {name} labels{off}"
    text = f"{name} peaks at {fit.here} of {fit.n} {name} labels"
    return f"{text}, but {fit.best} {_where(fit.place)}" if fit.state == "elsewhere" else text


def _lines(findings: Sequence[_Finding], *, of_rows: bool) -> Iterator[str]:
    """One line for all that is wrong in the same way."""
    groups: dict[Any, list[_Finding]] = {}
    for one in findings:
        groups.setdefault((one.subject, one.place and replace(one.place, shift=0)), []).append(one)
    for (_, place), alike in groups.items():
        if place == _Place():
            yield from _merged(alike, of_rows=of_rows)
        else:
            yield _line(alike, 0, "")


def _merged(findings: Sequence[_Finding], *, of_rows: bool) -> Iterator[str]:
    """One line, or one a class, or one a class and strand, as shifts agree."""
    if not of_rows and len({one.along for one in findings}) == 1:
        yield _line(findings, findings[0].along, "along the chromosome")
    elif len({one.move for one in findings}) == 1:
        yield _line(findings, findings[0].move, "in transcript direction")
    else:
        split = next(name for name in ("site_class", "strand", "move") if len({getattr(f, name) for f in findings}) > 1)
        for value in sorted({getattr(one, split) for one in findings}):
            yield from _merged([one for one in findings if getattr(one, split) == value], of_rows=of_rows)


def _line(findings: Sequence[_Finding], move: int, direction: str) -> str:
    first = findings[0]
    classes = [CLASSES[site_class] for site_class in sorted({one.site_class for one in findings})]
    chroms = [chrom for chrom in dict.fromkeys(one.chrom for one in findings) if chrom is not None]
    strands = {one.strand for one in findings}
    where = [f"chromosome{'s' * (len(chroms) > 1)} {', '.join(chroms[:_NAMED])}"] if chroms else []
    where += [f"{'plus' if '+' in strands else 'minus'}-strand genes"] if len(strands) == 1 else []
    pieces = [f"{one.strand}: {', '.join(one.evidence)}" for one in findings]
    more = [f"and {len(pieces) - _NAMED} more"] if len(pieces) > _NAMED else []
    evidence = "; ".join(pieces[:_NAMED] + more)
    prefix = f"{', '.join(where)}: " if where else ""
    return f"{prefix}{_diagnosis(first.subject, first.place, classes, move, direction)} ({evidence})"


def _diagnosis(subject: str, place: _Place | None, classes: Sequence[str], move: int, direction: str) -> str:
    both = " and ".join(classes)
    scores, labels = " and ".join(f"{name}_score" for name in classes), f"{both} labels"
    names = {
        SCORES: scores,
        LABELS: labels,
        LETTERS: "letters",
        ROWS: "rows",
        LABELS_AND_SCORES: f"{labels} and scores",
        SCORES_OR_LABELS: f"{scores} (or the labels, the other way)",
        LABELS_OR_LETTERS: f"{labels} (or the letters, the other way)",
    }
    name = names[subject]
    if place is None:
        return f"letters do not fit the {labels}, at no shift, strand or order: are both of one genome build?"
    if subject == ROWS:
        fix = "turn round base, scores and labels within each gene" + ", and complement base" * place.complemented
        return f"rows look to be in transcript order: {fix}"
    if place.exchanged:
        what = {SCORES: "columns", SCORES_OR_LABELS: "columns"}.get(subject, "names")
        return f"donor and acceptor look swapped in {_short(subject)}: exchange the {what}"
    turned = place.way != AS_IT_STANDS
    if turned or place.complemented:
        looks = " and ".join(["in the reverse order"] * turned + ["complemented"] * place.complemented)
        fix = ", and ".join(["turn them round within each gene"] * turned + ["complement them"] * place.complemented)
        strand = ", those of the gene's own strand" if place.complemented and not turned else ""
        return f"{name} look {looks}{strand}: {fix}"
    off = f"{_bases(move)} {'late' if move < 0 else 'early'}"
    if subject == SCORES and len(classes) == 1:
        return f"{name} looks {off}: shift it by {move:+d} {direction}"
    return f"{name} look {off}: shift them by {move:+d} {direction}"


def _short(subject: str) -> str:
    return {SCORES_OR_LABELS: SCORES, LABELS_OR_LETTERS: LABELS}.get(subject, subject)
