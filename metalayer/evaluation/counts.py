"""What one system's metrics are made of, added up gene by gene in two passes: scores of true sites, then counts.

Nothing here grows with the positions: the first pass keeps the scores at sites, the second counts by cluster of genes
(see `ranks`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metalayer.evaluation.metrics import (
    TARGETS,
    CalibrationCounts,
    Floats,
    GeneScores,
    ap_name,
    bad_rows,
    confusion_counts,
    log_losses,
    ranking,
    refuse_bad_rows,
    summed,
)
from metalayer.evaluation.ranks import ClusterRanks, Reached
from metalayer.evaluation.sample import Part, Sample
from metalayer.schema import CLASSES, NEITHER

_WAITING_SCORES = 100_000


@dataclass(frozen=True)
class SiteScores:
    """The first pass: scores at true sites.

    Attributes:
        labels: uint8 (s,), donor or acceptor.
        gene: int64 (s,), numbers of their genes, ascending.
        scores: system name to float32 (s, 3).
        alternative: bool (s,), whether the principal transcript lacks them.
        calls: of those systems that are to call sites, class name to the lowest score that is called; None where
            nothing is.
    """

    labels: NDArray[np.uint8]
    gene: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float32]]
    alternative: NDArray[np.bool_]
    calls: Mapping[str, Mapping[str, float | None]]

    @classmethod
    def read(
        cls, genes: Collection[GeneScores], sample: Sample, systems: Sequence[str], calling: Sequence[str] = ()
    ) -> SiteScores:
        """Read all genes once.

        Args:
            genes: of the sample.
            sample: what counts of them.
            systems: whose scores.
            calling: those of them whose calls are wanted.

        Raises:
            EvaluationError: probabilities that are none.
        """
        labels, gene, alternative = [np.empty(0, np.uint8)], [np.empty(0, np.int64)], [np.empty(0, bool)]
        scores: dict[str, list[NDArray[np.float32]]] = {name: [] for name in systems}
        n_sites = {name: int(n) for name, n in zip(CLASSES[:NEITHER], sample.sites.sum(axis=0), strict=True)}
        highest = {system: {name: TopScores(n) for name, n in n_sites.items()} for system in calling}
        bad = dict.fromkeys(systems, 0)
        for part in sample.parts(genes, systems):
            at = np.flatnonzero(part.labels != NEITHER)
            labels.append(part.labels[at])
            gene.append(np.full(len(at), part.number))
            alternative.append(np.isin(part.indices(at), part.gene.alternative))
            for system, values in part.scores.items():
                bad[system] += bad_rows(values)
                scores[system].append(values[at])
            for system, classes in highest.items():
                for name, top in classes.items():
                    top.add(part.scores[system][:, CLASSES.index(name)])
        for system, rows in bad.items():
            refuse_bad_rows(rows, int(sample.lengths.sum()), system)
        return cls(
            np.concatenate(labels),
            np.concatenate(gene),
            {name: np.concatenate(found) for name, found in scores.items()},
            np.concatenate(alternative),
            {system: {name: top.threshold() for name, top in found.items()} for system, found in highest.items()},
        )

    def thresholds(self, system: str, target: str) -> NDArray[np.floating]:
        """Distinct scores of the positives of a target, ascending."""
        positive, score = ranking(self.labels, self.scores[system], target)
        return np.unique(score[positive])


class TopScores:
    """The k highest of scores that come in parts, and where a call of k positions ends."""

    def __init__(self, k: int) -> None:
        self._k = k
        self._above: list[NDArray[np.floating]] = [np.empty(0, np.float32)]
        self._held = 0
        self._cut, self._ties = -np.inf, 0  # scores at the cut are counted, not held

    def add(self, score: NDArray[np.floating]) -> None:
        """Further scores, (n,)."""
        reaching = score[score >= self._cut]
        self._above.append(reaching)
        self._held += len(reaching)
        if self._held > 4 * self._k + _WAITING_SCORES:
            self._settle()

    def threshold(self) -> float | None:
        """The lowest score that is called, where as near to k are called as a tie at the k-th highest lets.

        A tie is called whole or not at all, whichever brings the number of calls nearer to k (not at all where both
        do). None where nothing is called.
        """
        self._settle()
        (above,) = self._above
        if len(above) + self._ties - self._k < self._k - len(above):
            return float(self._cut)
        return float(above.min()) if len(above) else None

    def _settle(self) -> None:
        held = np.concatenate(self._above)
        above = held[held > self._cut]
        self._ties += len(held) - len(above)
        if len(above) >= self._k:
            self._cut = np.partition(above, -self._k)[-self._k]
            self._ties = int(np.count_nonzero(above == self._cut))
            above = above[above > self._cut]
        self._above, self._held = [above], len(above)


class SystemCounts:
    """The second pass: counts of one system by cluster."""

    def __init__(self, sites: SiteScores, system: str, sample: Sample) -> None:
        n_clusters = len(sample.sizes)
        self.system = system
        self._thresholds = {target: sites.thresholds(system, target) for target in TARGETS}
        self._ranks = {
            target: ClusterRanks(len(found), n_clusters, len(sample.lengths))
            for target, found in self._thresholds.items()
        }
        self._sizes = sample.sizes
        self._n_sites = sample.sites_by_cluster().sum(axis=0)
        self.calibration = CalibrationCounts(n_clusters)
        self.log_losses = np.zeros(n_clusters)
        """Sum of -log P(true class) over the positions of each cluster, in nats."""
        self.confusion = np.zeros((len(CLASSES), len(CLASSES)), dtype=np.int64)
        """Counts by true class (rows) and most probable class (columns)."""

    def add(self, part: Part) -> dict[str, Reached]:
        """Count a gene; returns its counts by target."""
        scores, cluster = part.scores[self.system], part.cluster
        found = {}
        for target, ranks in self._ranks.items():
            positive, score = ranking(part.labels, scores, target)
            if target == "splice":
                self.calibration.add(cluster, positive, score)
            found[target] = Reached.of(self._thresholds[target], positive, score)
            ranks.add(cluster, found[target])
        losses = log_losses(part.labels, scores)
        cells = np.zeros(len(losses), np.intp)
        self.log_losses[cluster] = summed(self.log_losses[cluster : cluster + 1], cells, losses)[0]
        self.confusion += confusion_counts(part.labels, scores)
        return found

    def hits(self, sites: SiteScores, target: str, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Thresholds of the positives of a target among chosen sites (s,), numbered as in `Reached`."""
        positive, score = ranking(sites.labels[chosen], sites.scores[self.system][chosen], target)
        return Reached.of(self._thresholds[target], positive, score).hit

    def threshold(self, target: str, number: int) -> float:
        """The score of a threshold of a target, numbered as in `Reached`."""
        return float(self._thresholds[target][-1 - number])

    def metric_values(self, weights: Floats, top_k: Sequence[int]) -> dict[str, Floats]:
        """All metrics under each resample of clusters, weights (B, C): name to (B,)."""
        out: dict[str, Floats] = {}
        for target, ranks in self._ranks.items():
            found = ranks.counts().evaluate(weights, self._sizes, None if target == "splice" else top_k)
            if target == "splice":  # calls are of a class
                found = {name: drawn for name, drawn in found.items() if not name.startswith("false")}
            out[ap_name(target)] = found.pop("ap")
            out |= {f"{name}_{target}": values for name, values in found.items()}
        out["ap_splice"] = (out["ap_donor"] + out["ap_acceptor"]) / 2
        out["ece"] = self.calibration.ece(weights)
        out["log_loss"] = (weights @ self.log_losses) / (weights @ self._sizes)
        out["log_loss_per_site"] = (weights @ self.log_losses) / (weights @ self._n_sites)
        return out


def counted(
    genes: Collection[GeneScores], systems: Sequence[str], related_genes: Sequence[Sequence[str]] = ()
) -> tuple[Sample, dict[str, SystemCounts]]:
    """The sample of genes and the counts of each system.

    Args:
        genes: each once, or as copies; read several times.
        systems: whose scores.
        related_genes: ids of genes that belong together beyond what their places say.

    Raises:
        EvaluationError: as in `Sample.of`, or probabilities that are none.
    """
    sample = Sample.of(genes, systems, related_genes)
    sites = SiteScores.read(genes, sample, systems)
    counts = {name: SystemCounts(sites, name, sample) for name in systems}
    for part in sample.parts(genes, systems):
        for one in counts.values():
            one.add(part)
    return sample, counts
