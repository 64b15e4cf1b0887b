"""The comparison in parts: by chromosome, by paralog flag, by score of the base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalayer.evaluation.calls import SITE_CLASSES, SiteCalls
from metalayer.evaluation.counts import SiteScores, SystemCounts
from metalayer.evaluation.metrics import TARGETS, Floats, ap_name, splice_score, summed
from metalayer.evaluation.ranks import GroupRanks, Reached
from metalayer.evaluation.sample import Part
from metalayer.schema import ACCEPTOR, CLASSES, DONOR

SCORE_BIN_EDGES = (0.001, 0.01, 0.1, 0.5, 0.9)
"""Inner edges of the bins of the reference's larger score, donor or acceptor; each belongs to the bin above it."""
_PARALOG_FLAGS = ("0", "1", "-1")


class ByGroup:
    """Genes, positions, sites and average precisions of groups of genes, added up gene by gene."""

    def __init__(
        self, group_of: Sequence[str], sites: SiteScores, counts: Mapping[str, SystemCounts], order: Sequence[str]
    ) -> None:
        """Begin with the true sites.

        Args:
            group_of: of each gene.
            sites: true ones.
            counts: by system.
            order: of the groups.
        """
        self._group_of = group_of
        number = np.array([order.index(group) for group in group_of])[sites.gene]
        self._groups = {group: _Group(sites, counts, number == i) for i, group in enumerate(order)}

    @classmethod
    def chromosomes(cls, chroms: Sequence[str], sites: SiteScores, counts: Mapping[str, SystemCounts]) -> ByGroup:
        """Chromosomes of the genes: numbers first, in their order."""
        order = sorted(set(chroms), key=lambda c: (not c.isdigit(), int(c) if c.isdigit() else 0, c))
        return cls(chroms, sites, counts, order)

    @classmethod
    def paralogs(cls, flags: Sequence[int], sites: SiteScores, counts: Mapping[str, SystemCounts]) -> ByGroup:
        """Paralog flags of the genes, those that occur: `0` genes without paralogs, `1` with, `-1` unknown."""
        names = [str(flag) for flag in flags]
        return cls(names, sites, counts, [flag for flag in _PARALOG_FLAGS if flag in names])

    def add(self, part: Part, reached: Mapping[str, Mapping[str, Reached]]) -> None:
        """Count a gene, of which the counts by system and target are there."""
        self._groups[self._group_of[part.number]].add(part, reached)

    def report(self) -> dict[str, Any]:
        """By group: genes, positions, sites, and average precisions by system where there are both kinds of site.

        Of whole genes also false calls of each class per Mb at each recall.
        """
        return {group: one.report() for group, one in self._groups.items()}


class _Group:
    def __init__(self, sites: SiteScores, counts: Mapping[str, SystemCounts], chosen: NDArray[np.bool_]) -> None:
        self._genes: set[str] = set()
        self._positions = 0
        self._whole = True  # genes, and not rows
        self._sites = {CLASSES[c]: int((sites.labels[chosen] == c).sum()) for c in (DONOR, ACCEPTOR)}
        self._ranks: dict[str, dict[str, GroupRanks]] = {}
        if all(self._sites.values()):
            self._ranks = {
                system: {target: GroupRanks(one.hits(sites, target, chosen)) for target in TARGETS}
                for system, one in counts.items()
            }

    def add(self, part: Part, reached: Mapping[str, Mapping[str, Reached]]) -> None:
        self._genes.add(part.gene.gene_id)
        self._positions += len(part.labels)
        self._whole &= part.gene.gene is not None
        for system, targets in self._ranks.items():
            for target, ranks in targets.items():
                ranks.add(reached[system][target])

    def report(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"genes": len(self._genes), "positions": self._positions, "sites": self._sites}
        for system, targets in self._ranks.items():
            entry[system] = {}
            for target, ranks in targets.items():
                found = ranks.counts().evaluate(np.ones((1, 1)), np.array([float(self._positions)]))
                entry[system][ap_name(target)] = float(found["ap"][0])
                if self._whole and target != "splice":
                    entry[system] |= {
                        f"{name}_{target}": float(drawn[0]) for name, drawn in found.items() if "per_mb" in name
                    }
        return entry


class ByBaseScore:
    """What becomes of positions that the reference scores alike, added up gene by gene."""

    def __init__(self, reference: str, candidate: str) -> None:
        """Begin with none.

        Args:
            reference: its larger score, donor or acceptor, decides the bin.
            candidate: the other system.
        """
        self._reference, self._systems = reference, (reference, candidate)
        n_bins = len(SCORE_BIN_EDGES) + 1

        def zeros(names: Sequence[str]) -> dict[str, NDArray[np.int64]]:
            return {name: np.zeros(n_bins, np.int64) for name in names}

        self._positions = np.zeros(n_bins, np.int64)
        self._sites = zeros(SITE_CLASSES)
        self._expected: dict[str, Floats] = {system: np.zeros(n_bins) for system in self._systems}
        self._missed, self._false_calls = zeros(self._systems), zeros(self._systems)

    def add(self, part: Part, calls: SiteCalls) -> None:
        """Count a gene, of which both systems' calls are there."""
        larger = part.scores[self._reference][:, [DONOR, ACCEPTOR]].max(axis=1)
        # A float32 0.01 is below a float64 one.
        bins = np.digitize(larger, np.array(SCORE_BIN_EDGES, dtype=larger.dtype))
        n_bins = len(self._positions)
        self._positions += np.bincount(bins, minlength=n_bins)
        for name in SITE_CLASSES:
            self._sites[name] += np.bincount(bins[calls.sites[name]], minlength=n_bins)
        kinds: tuple[tuple[dict[str, NDArray[np.int64]], Callable[[str, str], NDArray[np.bool_]]], ...]
        kinds = (self._missed, calls.missed), (self._false_calls, calls.false_calls)
        for system in self._systems:
            self._expected[system] = summed(self._expected[system], bins, splice_score(part.scores[system]))
            for found, which in kinds:
                for name in SITE_CLASSES:
                    found[system] += np.bincount(bins[which(system, name)], minlength=n_bins)

    def report(self) -> list[dict[str, Any]]:
        """What was counted.

        Returns:
            For each bin [low, high), the last one closed: low, high, positions, sites (by class), and by system
            expected_sites (sum of P(donor) + P(acceptor)), calibration_gap (expected less true sites, over
            positions; None in an empty bin), missed and false_calls (donors and acceptors, see `calls`).
        """
        out: list[dict[str, Any]] = []
        for i, (low, high) in enumerate(zip((0.0, *SCORE_BIN_EDGES), (*SCORE_BIN_EDGES, 1.0), strict=True)):
            n, true = int(self._positions[i]), {name: int(numbers[i]) for name, numbers in self._sites.items()}
            entry: dict[str, Any] = {"low": low, "high": high, "positions": n, "sites": true}
            for system in self._systems:
                expected = float(self._expected[system][i])
                entry[system] = {
                    "expected_sites": expected,
                    "calibration_gap": (expected - sum(true.values())) / n if n else None,
                    "missed": int(self._missed[system][i]),
                    "false_calls": int(self._false_calls[system][i]),
                }
            out.append(entry)
        return out
