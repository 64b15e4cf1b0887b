"""Sites that each system calls, and the errors that one fixes or makes against another.

Systems are compared at the same number of calls: of each class a system calls as many positions as there
are true sites, its highest ones (the threshold of SpliceAI's top-k accuracy). A position is an error of a
class where call and truth differ: a missed site, or a false call. A tie at the threshold is called whole or
not at all, whichever brings the number of calls nearer to the number of sites (not at all where both do).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalayer.evaluation.metrics import Floats, ranking, splice_score
from metalayer.evaluation.sample import Part, Sample
from metalayer.schema import CLASSES, NEITHER

SITE_CLASSES = CLASSES[:NEITHER]
LISTED = 500
"""Errors that a report lists at most, of those fixed and of those made."""
_PROBABILITY_FLOOR = 1e-7
"""Changes in log-odds are between probabilities kept this far from 0 and 1 (float32 ends there)."""
MISSED, FALSE_CALL = "missed", "false call"
KINDS = tuple((name, error) for error in (MISSED, FALSE_CALL) for name in SITE_CLASSES)
"""Class and kind of each error."""

Mask = NDArray[np.bool_]
Thresholds = Mapping[str, Mapping[str, float | None]]
"""The lowest score that is called, by system and class; None where nothing is."""


@dataclass(frozen=True)
class SiteCalls:
    """What each system calls in a gene.

    Attributes:
        sites: class name to (n,), the truth.
        called: system and class name to (n,).
    """

    sites: Mapping[str, Mask]
    called: Mapping[str, Mapping[str, Mask]]

    @classmethod
    def of(cls, part: Part, thresholds: Thresholds) -> SiteCalls:
        """Call donors and acceptors that reach the threshold of their system and class."""
        called = {}
        for system, classes in thresholds.items():
            called[system] = {
                name: _reaches(ranking(part.labels, part.scores[system], name)[1], threshold)
                for name, threshold in classes.items()
            }
        return cls({name: part.labels == CLASSES.index(name) for name in SITE_CLASSES}, called)

    def missed(self, system: str, name: str) -> Mask:
        """True sites that are not called, (n,)."""
        return self.sites[name] & ~self.called[system][name]

    def false_calls(self, system: str, name: str) -> Mask:
        """Calls where there is no site of the class, (n,)."""
        return ~self.sites[name] & self.called[system][name]

    def wrong(self, system: str, kind: tuple[str, str]) -> Mask:
        """Errors of one of `KINDS`, (n,)."""
        name, error = kind
        return self.missed(system, name) if error == MISSED else self.false_calls(system, name)


def _reaches(score: NDArray[np.floating], threshold: float | None) -> Mask:
    return np.zeros(len(score), dtype=bool) if threshold is None else score >= threshold


class Errors:
    """Errors of each system, those that the candidate fixes and those that it makes, added up gene by gene.

    Attributes:
        reference: whose errors are fixed.
        candidate: who makes others.
    """

    def __init__(self, reference: str, candidate: str, thresholds: Thresholds, *, listed: bool) -> None:
        """Begin with none.

        Args:
            reference: whose errors are fixed.
            candidate: who makes others.
            thresholds: of the calls, by system and class.
            listed: whether genes have places, so that errors can be listed.
        """
        self.reference, self.candidate, self._thresholds = reference, candidate, thresholds
        self._counts = {
            system: {name: dict.fromkeys(("calls", "missed", "false_calls"), 0) for name in SITE_CLASSES}
            for system in (reference, candidate)
        }
        self._changes = {"fixed": _Changes((reference, candidate)), "made": _Changes((reference, candidate))}
        self._listed = listed

    def add(self, part: Part, calls: SiteCalls) -> None:
        """Count a gene."""
        for system, classes in self._counts.items():
            for name, counts in classes.items():
                counts["calls"] += int(np.count_nonzero(calls.called[system][name]))
                counts["missed"] += int(np.count_nonzero(calls.missed(system, name)))
                counts["false_calls"] += int(np.count_nonzero(calls.false_calls(system, name)))
        sides = ((self.reference, self.candidate), (self.candidate, self.reference))
        for changes, (wrong, right) in zip(self._changes.values(), sides, strict=True):
            for number, kind in enumerate(KINDS):
                odd = calls.wrong(wrong, kind) & ~calls.wrong(right, kind)
                changes.add(part, number, np.flatnonzero(odd))

    def report(self) -> dict[str, Any]:
        """What was counted.

        Returns:
            JSON-ready:
                <system>: donor and acceptor, each with threshold, calls, missed and false_calls (numbers).
                fixed: errors of the reference where the candidate is right: total, donor and acceptor with missed and
                    false_calls, and `list`.
                made: errors of the candidate where the reference is right, likewise.
                listed_at_most: length of the longest list; totals count all.
            A list holds the errors of the largest change in log-odds first, each with gene_id, chrom, strand, position
            (1-based genomic), class, error (`missed`, `false call`), the probability of the class by each system,
            genome_build where it is known, and also_in, ids of overlapping genes that have the position too, where
            there are any: it is listed once. Without places there are no lists.
        """
        report: dict[str, Any] = {"listed_at_most": LISTED}
        for system, classes in self._counts.items():
            report[system] = {
                name: {"threshold": self._thresholds[system][name], **counts} for name, counts in classes.items()
            }
        for key, changes in self._changes.items():
            found = changes.totals
            report[key] = {"total": sum(found.values())} | {
                name: {"missed": found[name, MISSED], "false_calls": found[name, FALSE_CALL]} for name in SITE_CLASSES
            }
            if self._listed:
                report[key]["list"] = changes.listed()
        return report


class _Changes:
    """Errors of one system that the other does not make: how many of each kind, and those of the largest changes."""

    def __init__(self, systems: tuple[str, str]) -> None:
        self._systems = systems
        self.totals = dict.fromkeys(KINDS, 0)
        self._found = np.empty((0, 6))  # change, kind, gene, position in the gene, both probabilities
        self._waiting: list[Floats] = []
        self._parts: dict[int, Part] = {}  # without what they say of positions

    def add(self, part: Part, kind: int, at: NDArray[np.intp]) -> None:
        """Positions (k,) of a gene's `Part`."""
        self.totals[KINDS[kind]] += len(at)
        if not len(at) or part.gene.gene is None:
            return
        column = CLASSES.index(KINDS[kind][0])
        before, after = (part.scores[system][at, column].astype(np.float64) for system in self._systems)
        change = np.abs(_log_odds(after) - _log_odds(before))
        same = (np.full(len(at), number) for number in (kind, part.number))
        self._waiting.append(np.column_stack([change, *same, part.indices(at), before, after]))
        self._parts[part.number] = part.without_positions()
        if sum(map(len, self._waiting)) > 10 * LISTED:
            self._cut()

    def _cut(self) -> None:
        found = np.concatenate([self._found, *self._waiting])
        order = np.lexsort((found[:, 3], found[:, 2], found[:, 1], -found[:, 0]))[:LISTED]
        self._found, self._waiting = found[order], []

    def listed(self) -> list[dict[str, Any]]:
        """With their places, the largest change in log-odds first."""
        self._cut()
        out = []
        for _, kind, number, index, before, after in self._found.tolist():
            part = self._parts[int(number)]
            assert part.gene.gene is not None
            name, error = KINDS[int(kind)]
            position = part.gene.gene.genomic(int(index))
            entry: dict[str, Any] = {
                "gene_id": part.gene.gene_id,
                "chrom": part.gene.chrom,
                "strand": part.gene.gene.strand,
                "position": position + 1,
                "class": name,
                "error": error,
                self._systems[0]: before,
                self._systems[1]: after,
            }
            if part.gene.genome_build:
                entry["genome_build"] = part.gene.genome_build
            if also_in := part.also_in(position):
                entry["also_in"] = also_in
            out.append(entry)
        return out


class Overlaps:
    """Positions that genes of one strand share, added up gene by gene."""

    def __init__(self, sample: Sample, systems: Sequence[str]) -> None:
        self._sample, self._systems = sample, systems
        self._shared = self._ignored = 0
        self._listed: dict[tuple[Any, ...], list[dict[str, Any]]] = {}

    def add(self, part: Part) -> None:
        """Count a gene."""
        scored, odd = part.gene, self._sample.contradicted[part.number]
        ignored = len(self._sample.ignored[part.number])
        self._ignored += ignored
        self._shared += len(scored.labels) - len(part.labels) - len(odd) - ignored
        for index in odd.tolist():
            assert scored.gene is not None
            place = {"chrom": scored.chrom, "strand": scored.gene.strand, "position": scored.gene.genomic(index) + 1}
            if scored.genome_build:
                place["genome_build"] = scored.genome_build
            entry: dict[str, Any] = {"gene_id": scored.gene_id, **place, "class": CLASSES[scored.labels[index]]}
            entry |= {name: float(splice_score(scored.scores[name][index][None])[0]) for name in self._systems}
            self._listed.setdefault(tuple(place.values()), []).append(entry)

    def report(self) -> dict[str, Any]:
        """What was counted.

        Returns:
            JSON-ready: `shared`, how many positions were there once more and do not count again; `ignored`, how many do
            not count since their file marks them; `contradicted`,
            positions that do not count at all, because one gene has a site where another has none or one of the other
            class; `list` of these, at most `LISTED` entries: gene_id, chrom, strand, position (1-based genomic), class
            and the probability of a site by each system, and genome_build where it is known.
        """
        entries = [entry for entries in self._listed.values() for entry in entries]
        counts = {"shared": self._shared, "ignored": self._ignored, "contradicted": len(self._listed)}
        return counts | {"list": entries[:LISTED]}


def _log_odds(probability: Floats) -> Floats:
    kept = np.clip(probability, _PROBABILITY_FLOOR, 1.0 - _PROBABILITY_FLOOR)
    odds: Floats = np.log(kept) - np.log1p(-kept)
    return odds
