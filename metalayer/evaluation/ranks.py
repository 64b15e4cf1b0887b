"""Rankings as counts that add up, gene by gene.

What a ranking is worth depends on how many positives and negatives lie at, and between, its thresholds: the distinct
scores of its positives. These are few and must be known first; then each gene adds its counts and can be forgotten.
Counts by cluster of genes make a bootstrap resample (each cluster drawn w times) a weighted sum. They are sparse, wait
on disk once there are many, and are summed a block of thresholds at a time, so that memory does not grow with the
positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from metalayer.errors import EvaluationError
from metalayer.evaluation.columns import Scratch

RECALL_PERCENTS = (90, 95)
"""Recalls at which precision is reported; whole percents, so that reaching one is decided in whole numbers."""
FALSE_CALLS = "false_per_mb_at_recall"
"""Name of false calls per million items, before the percent."""
_NUMBERS_AT_ONCE = 4_000_000
"""Held per array: resamples are worked off in chunks of this over the thresholds, or clusters, of a block."""
_CELLS_A_BLOCK = 4_000_000
"""Thresholds times genes of a block, at most: no more counts than twice this are in memory at a time."""
_WAITING = 500_000
"""Counts of a ranking that wait in memory, at most, before they go to disk."""

Floats = NDArray[np.float64]
_ENTRY = np.dtype([("key", np.uint32), ("cluster", np.uint32), ("count", np.uint32)])


@dataclass(frozen=True)
class Reached:
    """Items of one gene by the threshold that they reach, each pair once.

    Attributes:
        hit: int64 (p,), of each positive, its threshold: its number, 0 for the highest.
        rank: int64 (k,), thresholds that negatives reach, each the highest of those they reach.
        tied: bool (k,), whether they lie at it, not above.
        count: int64 (k,), how many.
    """

    hit: NDArray[np.int64]
    rank: NDArray[np.int64]
    tied: NDArray[np.bool_]
    count: NDArray[np.int64]

    @classmethod
    def of(cls, thresholds: NDArray[np.floating], positive: NDArray[np.bool_], score: NDArray[np.floating]) -> Reached:
        """Count items.

        Args:
            thresholds: (T,), ascending, each once; every score of a positive is one of them.
            positive: (n,).
            score: (n,), of the type of the thresholds.
        """
        last = len(thresholds)
        negative = score[~positive]
        negative = np.sort(negative[negative >= thresholds[0]])  # sorted, the search below is several times as fast
        up_to = np.searchsorted(thresholds, negative, side="right")  # thresholds that each reaches
        tied = thresholds[up_to - 1] == negative
        starts = np.flatnonzero(np.diff(up_to, prepend=-1).astype(bool) | np.diff(tied, prepend=False))
        count = np.diff(starts, append=len(negative))
        hit = last - np.searchsorted(thresholds, score[positive], side="right")
        return cls(hit, last - up_to[starts], tied[starts], count)


@dataclass(frozen=True)
class RankCounts:
    """Positives and negatives of one ranking by cluster and threshold; negatives below all thresholds are not kept.

    Attributes:
        positives: (T, C), positives at each threshold, which descend.
        blocks: gives ranges of thresholds, which follow each other, with the negatives of each (t, C): those at each
            threshold, and those above it and below the one before.
    """

    positives: sparse.csr_matrix[np.float64]
    blocks: Callable[[], Iterator[tuple[slice, sparse.csr_matrix[np.float64], sparse.csr_matrix[np.float64]]]]

    @classmethod
    def of_one(cls, hits: NDArray[np.int64], tied: NDArray[np.int64], between: NDArray[np.int64]) -> RankCounts:
        """Counts of a single cluster by threshold, (T,) each."""
        positives, at, above = (sparse.csr_matrix(n[:, None].astype(np.float64)) for n in (hits, tied, between))
        return cls(positives, lambda: iter([(slice(0, len(hits)), at, above)]))

    def _drawn(self, weights: Floats) -> Iterator[tuple[slice, Floats, Floats, Floats]]:
        """Resamples (b,) at a time and their positives, tied and between, (b, t) each, one block after the other."""
        for block, tied, between in self.blocks():
            counts = (self.positives[block], tied, between)
            step = max(1, _NUMBERS_AT_ONCE // max(tied.shape))
            for start in range(0, len(weights), step):
                rows = slice(start, start + step)
                drawn = weights[rows].T
                hits, at, above = ((matrix @ drawn).T for matrix in counts)
                yield rows, hits, at, above

    def evaluate(self, weights: Floats, sizes: Floats, top_k: Sequence[int] | None = None) -> dict[str, Floats]:
        """All metrics of the ranking.

        Args:
            weights: (B, C), how often each cluster stands in each resample.
            sizes: (C,), positions of each cluster.
            top_k: the fixed k; None for no top-k at all.

        Returns:
            Name to (B,): average precision (`ap`), at each recall precision (`precision_at_recall<percent>`) and
            negatives called per million items (`false_per_mb_at_recall<percent>`), top-k at the number of positives
            (`topk`) and at each k (`top<k>_acc`).
        """
        resamples = len(weights)
        total = weights @ np.asarray(self.positives.sum(axis=0)).ravel()
        fixed = {} if top_k is None else {"topk": total, **{f"top{k}_acc": np.full(resamples, k) for k in top_k}}
        limits = {name: np.minimum(k, weights @ sizes) for name, k in fixed.items()}
        out = {"ap": np.zeros(resamples)}
        out |= {f"precision_at_recall{percent}": np.zeros(resamples) for percent in RECALL_PERCENTS}
        out |= {f"{FALSE_CALLS}{percent}": np.zeros(resamples) for percent in RECALL_PERCENTS}
        out |= {name: np.zeros(resamples) for name in fixed}
        items = weights @ sizes
        found_before, seen_before = np.zeros(resamples), np.zeros(resamples)
        for rows, hits, tied, between in self._drawn(weights):
            found = found_before[rows, None] + np.cumsum(hits, axis=1)
            # Items at or above each threshold.
            seen = seen_before[rows, None] + np.cumsum(hits + tied + between, axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                precision = np.where(seen > 0, found / seen, 0.0)
                out["ap"][rows] += (hits * precision).sum(axis=1)
                for percent in RECALL_PERCENTS:
                    aim = percent * total[rows]
                    reached = 100 * found >= aim[:, None]
                    here = np.flatnonzero(reached[:, -1] & (100 * found_before[rows] < aim))
                    at = (here, reached[here].argmax(axis=1))
                    out[f"precision_at_recall{percent}"][rows][here] = precision[at]
                    wrong = 1e6 * (seen[at] - found[at]) / items[rows][here]
                    out[f"{FALSE_CALLS}{percent}"][rows][here] = wrong
                above = seen - hits - tied
                for name, limit in limits.items():
                    # Of a tie that the limit cuts, the expected share of positives is taken.
                    share = np.clip((limit[rows, None] - above) / (hits + tied), 0.0, 1.0)
                    out[name][rows] += np.where(hits > 0, hits * share, 0.0).sum(axis=1)
            found_before[rows], seen_before[rows] = found[:, -1], seen[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            return out | {"ap": out["ap"] / total} | {name: out[name] / limit for name, limit in limits.items()}

    def roc_auc(self, weights: Floats, sizes: Floats) -> Floats:
        """Share of (positive, negative) pairs ranked right, a tie as half; NaN without a negative.

        Args:
            weights: (B, C), how often each cluster stands in each resample.
            sizes: (C,), positions of each cluster.

        Returns:
            (B,).
        """
        total = weights @ np.asarray(self.positives.sum(axis=0)).ravel()
        wrong_pairs, before = np.zeros(len(weights)), np.zeros(len(weights))
        for rows, hits, tied, between in self._drawn(weights):
            others = before[rows, None] + np.cumsum(tied + between, axis=1)
            # Negatives that outrank the positives of a threshold, and half of those beside them.
            wrong_pairs[rows] += (hits * (others - tied / 2)).sum(axis=1)
            before[rows] = others[:, -1]
        with np.errstate(invalid="ignore", divide="ignore"):
            out: Floats = 1.0 - wrong_pairs / (total * (weights @ sizes - total))
        return out


class ClusterRanks:
    """Adds up `RankCounts`, gene by gene.

    In memory are the positives, at most `_WAITING` counts of negatives and, while metrics are computed, those of one
    block of thresholds. On disk, in a file without a name, is a count a gene and threshold that its negatives reach: 12
    bytes each, at most one a negative.
    """

    def __init__(self, n_thresholds: int, n_clusters: int, n_genes: int) -> None:
        self._shape = (n_thresholds, n_clusters)
        self._block = max(1, _CELLS_A_BLOCK // max(1, n_genes))
        self._hits: list[NDArray[np.int64]] = []
        self._hit_clusters: list[int] = []
        self._waiting: list[NDArray[np.void]] = []
        self._held = 0
        self._file: Scratch | None = None
        self._bytes = 0
        self._written: list[NDArray[np.int64]] = []  # for each writing, where the entries of each block begin and end

    def add(self, cluster: int, reached: Reached) -> None:
        """Count a gene of a cluster."""
        self._hits.append(reached.hit)
        self._hit_clusters.append(cluster)
        entries = np.empty(len(reached.rank), _ENTRY)
        entries["key"] = 2 * reached.rank + reached.tied
        entries["cluster"] = cluster
        entries["count"] = reached.count
        self._waiting.append(entries)
        self._held += len(entries)
        if self._held > _WAITING:
            self._to_disk()

    def counts(self) -> RankCounts:
        """All that was added; nothing more can be."""
        rank = np.concatenate([np.empty(0, np.int64), *self._hits])
        cluster = np.repeat(np.array(self._hit_clusters, np.int64), [len(one) for one in self._hits])
        return RankCounts(sparse.csr_matrix((np.ones(len(rank)), (rank, cluster)), shape=self._shape), self._blocks)

    def _to_disk(self) -> None:
        if self._file is None:
            self._file = Scratch()
        entries = np.concatenate(self._waiting)
        entries = entries[np.argsort(entries["key"])]
        edges = np.arange(0, self._shape[0] + self._block, self._block, dtype=np.uint32)
        self._file.write(self._bytes, entries)
        self._written.append(self._bytes + _ENTRY.itemsize * np.searchsorted(entries["key"], 2 * edges))
        self._bytes += entries.nbytes
        self._waiting, self._held = [], 0

    def _blocks(self) -> Iterator[tuple[slice, sparse.csr_matrix[np.float64], sparse.csr_matrix[np.float64]]]:
        if self._file is not None and self._waiting:
            self._to_disk()
        n_thresholds, n_clusters = self._shape
        for start in range(0, n_thresholds, self._block):
            end = min(start + self._block, n_thresholds)
            entries = self._read(start // self._block)
            rank, tied = (entries["key"] >> 1) - np.uint32(start), (entries["key"] & 1).astype(bool)
            matrices = [
                sparse.csr_matrix(
                    (entries["count"][chosen].astype(np.float64), (rank[chosen], entries["cluster"][chosen])),
                    shape=(end - start, n_clusters),
                )
                for chosen in (tied, ~tied)
            ]
            yield slice(start, end), matrices[0], matrices[1]

    def _read(self, block: int) -> NDArray[np.void]:
        """Entries of a block."""
        if self._file is None:
            entries = np.concatenate([np.empty(0, _ENTRY), *self._waiting])
            here: NDArray[np.void] = entries[entries["key"] // np.uint32(2 * self._block) == block]
            return here
        pieces = []
        for places in self._written:
            start, end = places[block : block + 2].tolist()
            pieces.append(np.empty((end - start) // _ENTRY.itemsize, _ENTRY))
            self._file.read(start, pieces[-1])
        return np.concatenate([np.empty(0, _ENTRY), *pieces])


class GroupRanks:
    """Adds up the counts of a group of genes at the scores of its own positives."""

    def __init__(self, hits: NDArray[np.int64]) -> None:
        """Begin with all positives.

        Args:
            hits: (p,), thresholds of the positives of the group, numbered as in `Reached`.
        """
        self._own, counted = np.unique(hits, return_counts=True)
        self._hits = counted.astype(np.int64)
        self._tied, self._between = (np.zeros(len(self._own), np.int64) for _ in range(2))

    def add(self, reached: Reached) -> None:
        """Count the negatives of a gene."""
        rank = np.searchsorted(self._own, reached.rank)  # the highest of the group's thresholds that they reach
        kept = rank < len(self._own)
        rank, tied, count = rank[kept], reached.tied[kept], reached.count[kept]
        tied &= self._own[rank] == reached.rank[kept]
        np.add.at(self._tied, rank[tied], count[tied])
        np.add.at(self._between, rank[~tied], count[~tied])

    def counts(self) -> RankCounts:
        """Of the group, with all its genes as one."""
        return RankCounts.of_one(self._hits, self._tied, self._between)

    def average_precision(self) -> float:
        """Of the group, with all its genes as one."""
        return float(self.counts().evaluate(np.ones((1, 1)), np.zeros(1))["ap"][0])

    def found_at(self, hits: int, calls: int) -> int:
        """The most positives that can be found while at least `hits` of `calls` are right, or as many in proportion."""
        return int(np.cumsum(self._hits)[self._right(hits, calls)].max(initial=0))

    def last_at(self, hits: int, calls: int) -> int | None:
        """The lowest threshold, numbered as in `Reached`, at which at least `hits` of `calls` are right; None: none."""
        right = np.flatnonzero(self._right(hits, calls))
        return int(self._own[right[-1]]) if len(right) else None

    def _right(self, hits: int, calls: int) -> NDArray[np.bool_]:
        """Thresholds at which at least `hits` of `calls` are right, or as many in proportion."""
        found = np.cumsum(self._hits)
        right: NDArray[np.bool_] = found * calls >= np.cumsum(self._hits + self._tied + self._between) * hits
        return right

    def curve(self, points: int) -> dict[str, list[float]]:
        """Recall and precision at the scores of positives, thinned to so many points."""
        found = np.cumsum(self._hits)
        called = np.cumsum(self._hits + self._tied + self._between)
        at = np.arange(len(found))
        if len(at) > points:
            at = at[np.linspace(0, len(at) - 1, points).astype(int)]
        return {"recall": (found[at] / found[-1]).tolist(), "precision": (found[at] / called[at]).tolist()}


class WeightedRanks:
    """Adds up average precision of items that weigh differently, part by part."""

    def __init__(self, thresholds: Floats) -> None:
        """Begin with nothing.

        Args:
            thresholds: (T,), ascending, each once; the score of every positive is one of them.
        """
        self._thresholds = thresholds
        self._hits, self._seen = np.zeros(len(thresholds)), np.zeros(len(thresholds))

    @classmethod
    def of(cls, positives: Floats) -> WeightedRanks:
        """Begin with the scores of the positives, (p,).

        Raises:
            EvaluationError: none.
        """
        if not len(positives):
            raise EvaluationError("average precision needs at least one positive; there is none")
        return cls(np.unique(positives))

    def add(self, positive: NDArray[np.bool_], score: Floats, weights: Floats) -> None:
        """Count items, (n,) each."""
        reaching = score >= self._thresholds[0]
        for is_hit in (True, False):
            chosen = np.flatnonzero(reaching & (positive == is_hit))
            if not len(chosen):
                continue
            chosen = chosen[np.argsort(score[chosen])]  # sorted, the search is several times as fast
            up_to = np.searchsorted(self._thresholds, score[chosen], side="right")
            starts = np.flatnonzero(np.diff(up_to, prepend=0))
            rank, weight = len(self._thresholds) - up_to[starts], np.add.reduceat(weights[chosen], starts)
            self._seen[rank] += weight
            if is_hit:
                self._hits[rank] += weight

    def average_precision(self) -> float:
        """As scikit-learn's `average_precision_score`, ties included."""
        found, seen = np.cumsum(self._hits), np.cumsum(self._seen)
        precision = np.divide(found, seen, out=np.zeros(len(seen)), where=seen > 0)
        return float((self._hits * precision).sum() / found[-1])
