"""Each gene's errors by either system, and which genes gain and lose most; and one gene that can be drawn."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np

from metalayer.evaluation.calls import SITE_CLASSES, SiteCalls, Thresholds
from metalayer.evaluation.sample import Part
from metalayer.schema import CLASSES

LISTED = 10
"""Genes that are listed at most, of those with fewer errors and of those with more."""
DRAWN_SITES = 40
"""A gene with more sites is drawn only where there is no other: it could not be read."""
DRAWN_FROM = 0.05
"""Places that are no site are drawn where a system gives them this or more."""
DRAWN_PLACES = 200
"""Places of a gene that are drawn at most."""


class ByGene:
    """Errors of two systems by gene, added up gene by gene."""

    def __init__(self, reference: str, candidate: str) -> None:
        """Begin with none.

        Args:
            reference: whose errors are compared with.
            candidate: whose errors are fewer in a gene that gains.
        """
        self._systems = (reference, candidate)
        self._genes: list[tuple[int, int, dict[str, Any]]] = []  # change, changed calls, entry
        self._counted_elsewhere = 0

    def add(self, part: Part, calls: SiteCalls) -> int:
        """Count a gene; returns how many calls the systems differ in there."""
        if not len(part.labels):
            self._counted_elsewhere += 1
            return 0
        first, second = self._systems
        errors, fixed, made = {first: 0, second: 0}, 0, 0
        for name in SITE_CLASSES:
            before, after = (calls.sites[name] ^ calls.called[system][name] for system in self._systems)
            errors[first] += int(np.count_nonzero(before))
            errors[second] += int(np.count_nonzero(after))
            fixed += int(np.count_nonzero(before & ~after))
            made += int(np.count_nonzero(after & ~before))
        sites = {name: int(np.count_nonzero(calls.sites[name])) for name in SITE_CLASSES}
        entry = {**named(part), "sites": sites, **errors, "fixed": fixed, "made": made}
        self._genes.append((errors[second] - errors[first], fixed + made, entry))
        return fixed + made

    @property
    def unchanged(self) -> int:
        """Genes in which both systems call the same."""
        return sum(not changed for _, changed, _ in self._genes)

    def report(self) -> dict[str, Any]:
        """What was counted.

        Returns:
            JSON-ready:
                genes: how many have positions that count; counted_elsewhere: genes all of whose positions count as
                    those of an overlapping gene.
                gained, lost, same: genes with fewer errors of the candidate, more, and as many; unchanged: those of the
                    last in which both systems call the same.
                changes: [change in errors, genes], ascending; errors of the candidate less those of the reference.
                most_gained, most_lost: at most `listed_at_most` genes, the largest change first, each with gene_id,
                    chrom, strand, start and end (1-based, where its place is known), genome_build (where known), sites
                    (by class), errors by system, fixed and made.
            An error is a missed site or a false call, see `calls`.
        """
        changes = Counter(change for change, *_ in self._genes)
        gained = sorted((one for one in self._genes if one[0] < 0), key=lambda one: (one[0], -one[1]))
        lost = sorted((one for one in self._genes if one[0] > 0), key=lambda one: (-one[0], -one[1]))
        return {
            "genes": len(self._genes),
            "counted_elsewhere": self._counted_elsewhere,
            "gained": len(gained),
            "lost": len(lost),
            "same": changes[0],
            "unchanged": self.unchanged,
            "changes": [list(one) for one in sorted(changes.items())],
            "listed_at_most": LISTED,
            "most_gained": [entry for *_, entry in gained[:LISTED]],
            "most_lost": [entry for *_, entry in lost[:LISTED]],
        }


class DrawnGene:
    """The gene in which the systems differ in most calls, gene by gene: of those that have few enough sites to be read.

    Where they differ nowhere, it is the one with most sites.
    """

    def __init__(self, reference: str, candidate: str, thresholds: Thresholds) -> None:
        """Begin with none.

        Args:
            reference: one system.
            candidate: the other.
            thresholds: of the calls, by system and class.
        """
        self._systems, self._thresholds = (reference, candidate), thresholds
        self._rank: tuple[int, ...] = ()
        self._found: dict[str, Any] | None = None

    def add(self, part: Part, calls: SiteCalls, differing: int) -> None:
        """See whether a gene is to be drawn, of which the systems differ in so many calls."""
        sites = [int(np.count_nonzero(calls.sites[name])) for name in SITE_CLASSES]
        if part.gene.gene is None or not all(sites):
            return
        can_be_read = sum(sites) <= DRAWN_SITES
        rank = (1, differing, sum(sites)) if can_be_read else (0, -sum(sites), 0)
        if rank > self._rank:
            self._rank, self._found = rank, self._drawing(part)

    def _drawing(self, part: Part) -> dict[str, Any]:
        gene, scored = part.gene.gene, part.gene
        assert gene is not None
        scores = {system: scored.scores[system].astype(np.float32) for system in self._systems}
        whole = SiteCalls.of(replace(part, kept=None, labels=scored.labels, scores=scores), self._thresholds)
        counts = np.zeros(len(scored.labels), dtype=bool)
        counts[part.indices(np.arange(len(part.labels)))] = True
        places: list[tuple[float, dict[str, Any]]] = []
        for name in SITE_CLASSES:
            column = CLASSES.index(name)
            highest = np.maximum(*(scores[system][:, column] for system in self._systems))
            called = [whole.called[system][name] for system in self._systems]
            for at in np.flatnonzero(whole.sites[name] | called[0] | called[1] | (highest >= DRAWN_FROM)).tolist():
                place: dict[str, Any] = {
                    "position": gene.genomic(at) + 1,
                    "class": name,
                    "site": bool(whole.sites[name][at]),
                    "counts": bool(counts[at]),
                }
                for system, calls in zip(self._systems, called, strict=True):
                    place[system] = {"probability": float(scores[system][at, column]), "called": bool(calls[at])}
                matters = place["site"] or any(place[system]["called"] for system in self._systems)
                places.append((2.0 if matters else float(highest[at]), place))
        places.sort(key=lambda one: -one[0])
        shown = [place for _, place in places[:DRAWN_PLACES]]
        return {
            **named(part),
            "places": sorted(shown, key=lambda one: (one["position"], one["class"])),
            "places_left_out": len(places) - len(shown),
        }

    def report(self) -> dict[str, Any] | None:
        """The gene, or None where none has a place and both kinds of site.

        Returns:
            JSON-ready: gene_id, chrom, strand, start, end (1-based), genome_build where it is known; drawn_from, and
            at_most_sites, by which it was chosen; differing_calls; places: position (1-based genomic), class, whether
            it is a site of that class, whether it counts (it is this gene's, and no gene contradicts it), and by system
            the probability of the class and whether it is called; places_left_out, of low probability.
        """
        if self._found is None:
            return None
        differing = sum(
            place["counts"] and len({place[system]["called"] for system in self._systems}) > 1
            for place in self._found["places"]
        )
        facts = {"drawn_from": DRAWN_FROM, "at_most_sites": DRAWN_SITES, "differing_calls": differing}
        return self._found | facts


def named(part: Part) -> dict[str, Any]:
    """Which gene this is, and where it lies, as far as it is known; JSON-ready."""
    found: dict[str, Any] = {"gene_id": part.gene.gene_id, "chrom": part.gene.chrom}
    if gene := part.gene.gene:
        found |= {"strand": gene.strand, "start": gene.interval.start + 1, "end": gene.interval.end}
    if part.gene.genome_build:
        found["genome_build"] = part.gene.genome_build
    return found
