"""Metrics of ranked splice sites, exact under resampling of genes.

Every metric is a function of counts by cluster of genes, so a bootstrap resample (each cluster drawn w times) is a
weighted sum of those counts: no resample sorts or copies positions. Average precision is
scikit-learn's (ties included), top-k accuracy SpliceAI's with its expected value inside a tie, precision at
a recall that of the highest threshold which reaches it (a tie is called whole), ECE has 15 equal-width bins,
log loss is the mean of -log P(true class) in nats.

Probabilities count as the float32 nearest to them, so that a file gives the same numbers whether it stores float32 or
float64; their sums and all else are float64. Bins take a score at 6 decimals: 0.45 + 0.15 is in the bin of 0.6.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from metalayer.errors import EvaluationError
from metalayer.gene_groups import related, united
from metalayer.genome import Gene, normalise_build
from metalayer.overlaps import PlacedSites, contradicted, repeated
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER, PARALOG_UNKNOWN

ECE_BINS = 15
_BINNED_DECIMALS = 6
TARGETS = ("splice", "donor", "acceptor")
RECALL_PERCENTS = (90, 95)
"""Recalls at which precision is reported; whole percents, so that reaching one is decided in whole numbers."""
_RESAMPLES_AT_ONCE = 4_000_000
"""Numbers held per array: resamples are worked off in chunks of this over the number of sites."""

LOG_LOSS_FLOOR = 1e-10
"""Probabilities of the true class below this count as this: no answer is infinitely wrong."""
LOWER_IS_BETTER = ("ece", "log_loss")
"""Metrics that are errors."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GeneScores:
    """What several systems say of one gene.

    Attributes:
        gene_id: the gene.
        chrom: its chromosome.
        labels: uint8 (n,), classes of its positions or rows.
        scores: system name to float32 (n, 3) probabilities.
        gene: where it lies, if the n are all its positions in transcript sense; None for rows.
        paralog: 1 it has paralogs, 0 it has none, -1 unknown.
        genome_build: of its coordinates; None where unknown.
        letters: hash of its letters, or of those around its rows; empty where unknown.
    """

    gene_id: str
    chrom: str
    labels: NDArray[np.uint8]
    scores: Mapping[str, NDArray[np.float32]]
    gene: Gene | None = None
    paralog: int = PARALOG_UNKNOWN
    genome_build: str | None = None
    letters: str = ""


def average_precision(positive: NDArray[np.bool_], score: Floats, weights: Floats | None = None) -> float:
    """Area under the precision-recall steps, as scikit-learn's `average_precision_score`.

    Args:
        positive: (n,).
        score: (n,), higher is more positive.
        weights: (n,), of each item; None weighs all alike.

    Raises:
        EvaluationError: no positive, or a score that is not finite.
    """
    _refuse_not_finite(score)
    order = np.argsort(-score, kind="stable")
    weight = np.ones(len(score)) if weights is None else weights[order]
    hit = positive[order] * weight
    if not hit.sum() > 0:
        raise EvaluationError("average precision needs at least one positive; there is none")
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    true_positives = np.cumsum(hit)[last_of_tie]
    seen = np.cumsum(weight)[last_of_tie]
    precision = np.divide(true_positives, seen, out=np.zeros(len(seen)), where=seen > 0)
    return float((np.diff(true_positives, prepend=0.0) * precision).sum() / true_positives[-1])


def splice_score(probabilities: NDArray[np.floating]) -> Floats:
    """P(donor) + P(acceptor), added in float64: (n, 3) to (n,)."""
    total: Floats = _score(probabilities, DONOR) + _score(probabilities, ACCEPTOR)
    return total


def _score(probabilities: NDArray[np.floating], site_class: int) -> Floats:
    """Of one class, (n, 3) to (n,)."""
    return probabilities[:, site_class].astype(np.float32).astype(np.float64)


def ranking(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], target: str
) -> tuple[NDArray[np.bool_], Floats]:
    """Positives (n,) and scores (n,) of `donor`, `acceptor` or `splice`."""
    if target == "splice":
        return labels != NEITHER, splice_score(probabilities)
    site_class = CLASSES.index(target)
    return labels == site_class, _score(probabilities, site_class)


def log_losses(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> Floats:
    """-log P(true class) in nats: (n,) and (n, 3) to (n,)."""
    true = probabilities[np.arange(len(labels)), labels.astype(np.intp)].astype(np.float32).astype(np.float64)
    losses: Floats = -np.log(np.maximum(true, LOG_LOSS_FLOOR))
    return losses


def ap_name(target: str) -> str:
    """What average precision of a target is called in reports."""
    return "pr_auc_splice" if target == "splice" else f"ap_{target}"


def confusion_counts(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> NDArray[np.intp]:
    """Counts by true class (rows) and most probable class (columns), (C, C)."""
    cell = labels.astype(np.intp) * len(CLASSES) + probabilities.astype(np.float32, copy=False).argmax(axis=1)
    return np.bincount(cell, minlength=len(CLASSES) ** 2).reshape(len(CLASSES), len(CLASSES))


@dataclass(frozen=True)
class RankCounts:
    """Positives and negatives of one ranking, counted by gene and by distinct score of a positive.

    Negatives below the lowest positive are not kept. Memory is of the order of (gene, threshold) pairs that
    occur, at most the positions kept. The thresholds T, distinct scores of positives, descend.

    Attributes:
        positives: (T, G), positives at each threshold.
        tied: (T, G), negatives at each threshold.
        between: (T, G), negatives above each threshold and below the one before.
    """

    positives: sparse.csr_matrix[np.float64]
    tied: sparse.csr_matrix[np.float64]
    between: sparse.csr_matrix[np.float64]

    @classmethod
    def by_gene(cls, positive: NDArray[np.bool_], score: Floats, gene: NDArray[np.intp], n_genes: int) -> RankCounts:
        """Count items of many genes; needs a positive."""
        thresholds = np.unique(score[positive])  # ascending: right gives the number <= score, left the number < score
        n_thresholds = len(thresholds)

        def matrix(column: NDArray[np.intp], gene: NDArray[np.intp]) -> sparse.csr_matrix[np.float64]:
            return sparse.csr_matrix((np.ones(len(column)), (column, gene)), shape=(n_thresholds, n_genes))

        kept = ~positive & (score >= thresholds[0])
        negative, negative_gene = score[kept], gene[kept]
        reached = np.searchsorted(thresholds, negative, side="right")
        tied = reached != np.searchsorted(thresholds, negative, side="left")
        column = n_thresholds - reached  # first threshold (descending) that the score reaches
        hit = n_thresholds - np.searchsorted(thresholds, score[positive], side="right")
        return cls(
            positives=matrix(hit, gene[positive]),
            tied=matrix(column[tied], negative_gene[tied]),
            between=matrix(column[~tied], negative_gene[~tied]),
        )

    @classmethod
    def pooled(cls, positives: NDArray[np.floating], negatives: NDArray[np.floating]) -> RankCounts:
        """Count all items as those of one gene.

        Args:
            positives: scores of the positives, at least one.
            negatives: scores of the negatives, ascending.
        """
        thresholds: NDArray[np.floating]
        thresholds, hits = np.unique(positives, return_counts=True)  # ascending
        above = len(negatives) - np.searchsorted(negatives, thresholds, side="right")
        reaching = len(negatives) - np.searchsorted(negatives, thresholds, side="left")
        between = above - np.append(reaching[1:], 0)
        return cls(*(sparse.csr_matrix(n[::-1, None].astype(np.float64)) for n in (hits, reaching - above, between)))

    def _drawn(self, weights: Floats) -> Iterator[tuple[slice, Floats, Floats, Floats]]:
        """Resamples (b,) at a time and their positives, tied and between, (b, T) each."""
        step = max(1, _RESAMPLES_AT_ONCE // self.positives.shape[0])
        for start in range(0, len(weights), step):
            rows = slice(start, start + step)
            drawn = weights[rows].T
            hits, tied, between = ((matrix @ drawn).T for matrix in (self.positives, self.tied, self.between))
            yield rows, hits, tied, between

    def evaluate(self, weights: Floats, sizes: Floats, top_k: Sequence[int] | None = None) -> dict[str, Floats]:
        """All metrics of the ranking.

        Args:
            weights: (B, G), how often each gene stands in each resample.
            sizes: (G,), positions of each gene.
            top_k: the fixed k; None for no top-k at all.

        Returns:
            Name to (B,): average precision (`ap`), precision at each recall (`precision_at_recall<percent>`), top-k
            at the number of positives (`topk`) and at each k (`top<k>_acc`).
        """
        fixed = {} if top_k is None else {"topk": None, **{f"top{k}_acc": k for k in top_k}}
        names = ["ap", *(f"precision_at_recall{percent}" for percent in RECALL_PERCENTS), *fixed]
        out = {name: np.empty(len(weights)) for name in names}
        for rows, hits, tied, between in self._drawn(weights):
            total = hits.sum(axis=1)
            found = np.cumsum(hits, axis=1)
            seen = np.cumsum(hits + tied + between, axis=1)  # items at or above each threshold
            with np.errstate(invalid="ignore", divide="ignore"):
                precision = np.where(seen > 0, found / seen, 0.0)
                out["ap"][rows] = (hits * precision).sum(axis=1) / total
                for percent in RECALL_PERCENTS:
                    reached = (100 * found >= percent * total[:, None]).argmax(axis=1)
                    out[f"precision_at_recall{percent}"][rows] = precision[np.arange(len(total)), reached]
                above = seen - hits - tied
                for name, fixed_k in fixed.items():
                    k = total if fixed_k is None else np.full(len(total), fixed_k)
                    limit = np.minimum(k, weights[rows] @ sizes)
                    # Of a tie that the limit cuts, the expected share of positives is taken.
                    share = np.clip((limit[:, None] - above) / (hits + tied), 0.0, 1.0)
                    out[name][rows] = np.where(hits > 0, hits * share, 0.0).sum(axis=1) / limit
        return out

    def roc_auc(self, weights: Floats, sizes: Floats) -> Floats:
        """Share of (positive, negative) pairs ranked right, a tie as half; NaN without a negative.

        Args:
            weights: (B, G), how often each gene stands in each resample.
            sizes: (G,), positions of each gene.

        Returns:
            (B,).
        """
        out = np.empty(len(weights))
        for rows, hits, tied, between in self._drawn(weights):
            total = hits.sum(axis=1)
            negatives = weights[rows] @ sizes - total
            # Negatives that outrank the positives of a threshold, and half of those beside them.
            wrong = np.cumsum(tied + between, axis=1) - tied / 2
            with np.errstate(invalid="ignore", divide="ignore"):
                out[rows] = 1.0 - (hits * wrong).sum(axis=1) / (total * negatives)
        return out


class CalibrationCounts:
    """Counts, mean probability and share of sites by gene and bin of P(donor) + P(acceptor)."""

    def __init__(self, site: NDArray[np.bool_], score: Floats, gene: NDArray[np.intp], n_genes: int) -> None:
        # Rounded, so that sums of decimals do not fall beside the edge that they mean.
        place = np.round(np.clip(score, 0.0, 1.0), _BINNED_DECIMALS) * ECE_BINS
        bins = np.minimum(place.astype(np.intp), ECE_BINS - 1)
        cell = gene * ECE_BINS + bins
        shape = (n_genes, ECE_BINS)
        self.items = np.bincount(cell, minlength=n_genes * ECE_BINS).reshape(shape).astype(np.float64)
        self.probability = np.bincount(cell, weights=score, minlength=n_genes * ECE_BINS).reshape(shape)
        self.sites = np.bincount(cell, weights=site, minlength=n_genes * ECE_BINS).reshape(shape)

    def add(self, other: CalibrationCounts) -> None:
        """Add the counts of other items of the same genes."""
        self.items = self.items + other.items
        self.probability = self.probability + other.probability
        self.sites = self.sites + other.sites

    def ece(self, weights: Floats) -> Floats:
        """Expected calibration error of each resample: (B, G) to (B,)."""
        gap = np.abs(weights @ self.probability - weights @ self.sites).sum(axis=1)
        error: Floats = gap / (weights @ self.items).sum(axis=1)
        return error

    def reliability(self) -> list[dict[str, float]]:
        """Filled bins, over all genes: mean probability, observed share of sites, count."""
        items, probability, sites = (cells.sum(axis=0) for cells in (self.items, self.probability, self.sites))
        return [
            {"mean": float(probability[i] / items[i]), "observed": float(sites[i] / items[i]), "count": int(items[i])}
            for i in range(ECE_BINS)
            if items[i]
        ]


@dataclass(frozen=True)
class Pooled:
    """The positions of all genes that count, in one array each, checked.

    A position that overlapping genes of a strand label differently counts for none of them; one that they share and
    agree on counts once, as that of the gene that begins first (see `overlaps`).

    Genes that belong together are one cluster: those that overlap or are paralogs (see `gene_groups`), and the copies
    of one gene from files of several genome builds. A gene without place is a cluster of its own, unless it is said
    to be related.

    Attributes:
        labels: uint8 (n,).
        cluster: (n,), number of the cluster, from 0 to C - 1.
        sizes: (C,), positions of each cluster.
        scores: system name to float32 (n, 3).
        genes: different genes.
        kept: of each gene, bool (L,), its positions that are among the n.
        contradicted: of each gene, int64, its positions that another gene labels differently.
    """

    labels: NDArray[np.uint8]
    cluster: NDArray[np.intp]
    sizes: Floats
    scores: dict[str, NDArray[np.float32]]
    genes: int
    kept: tuple[NDArray[np.bool_], ...]
    contradicted: tuple[NDArray[np.int64], ...]

    @classmethod
    def of(
        cls, genes: Sequence[GeneScores], systems: Sequence[str], related_genes: Sequence[Sequence[str]] = ()
    ) -> Pooled:
        """Pool genes.

        Args:
            genes: each once, or as copies.
            systems: whose scores.
            related_genes: ids of genes that belong together beyond what their places say.

        Raises:
            EvaluationError: no gene or one twice (but for copies of another build or place), a system that some
                gene lacks, no donor or no acceptor, or probabilities that are none.
        """
        if not genes:
            raise EvaluationError("no gene to evaluate on: check the test part of the split")
        copies = Counter((gene.gene_id, normalise_build(gene.genome_build or ""), gene.gene) for gene in genes)
        twice = [gene_id for (gene_id, *_), times in copies.items() if times > 1]
        if twice:
            raise EvaluationError(f"gene {twice[0]} is there more than once; intervals need each gene once")
        for gene in genes:
            absent = [name for name in systems if name not in gene.scores]
            if absent:
                raise EvaluationError(f"gene {gene.gene_id} has no scores of {', '.join(absent)}")
            for name in systems:
                if gene.scores[name].shape != (len(gene.labels), len(CLASSES)):
                    raise EvaluationError(
                        f"{name}, gene {gene.gene_id}: probabilities of shape {gene.scores[name].shape}, expected "
                        f"({len(gene.labels)}, {len(CLASSES)})"
                    )
        kept, odd = _kept(genes)
        labels = np.concatenate([gene.labels[mask] for gene, mask in zip(genes, kept, strict=True)])
        for site_class in (DONOR, ACCEPTOR):
            if not (labels == site_class).any():
                raise EvaluationError(
                    f"no {CLASSES[site_class]} among the {len(genes)} genes: its average precision is not defined"
                )
        scores = {
            name: np.concatenate(
                [gene.scores[name][mask] for gene, mask in zip(genes, kept, strict=True)], dtype=np.float32
            )
            for name in systems
        }
        for name, values in scores.items():
            check_probabilities(values, name)
        clusters = _clusters(genes, related_genes)
        number = {gene_id: i for i, cluster in enumerate(clusters) for gene_id in cluster}
        numbers = [number[gene.gene_id] for gene in genes]
        lengths = [int(mask.sum()) for mask in kept]
        sizes = np.bincount(numbers, weights=lengths).astype(np.float64)
        return cls(labels, np.repeat(numbers, lengths), sizes, scores, len(number), kept, odd)

    @property
    def lengths(self) -> list[int]:
        """Positions of each gene that count."""
        return [int(mask.sum()) for mask in self.kept]

    def sites_by_cluster(self) -> NDArray[np.int64]:
        """Donors and acceptors of each cluster, (2, C)."""
        return np.stack(
            [np.bincount(self.cluster[self.labels == c], minlength=len(self.sizes)) for c in (DONOR, ACCEPTOR)]
        )

    def log_losses(self, system: str) -> Floats:
        """Sum of -log P(true class) over the positions of each cluster, in nats, (C,)."""
        losses = log_losses(self.labels, self.scores[system])
        summed: Floats = np.bincount(self.cluster, weights=losses, minlength=len(self.sizes)).astype(np.float64)
        return summed

    def ranking(self, system: str, target: str) -> tuple[NDArray[np.bool_], Floats]:
        """`ranking` of one system."""
        return ranking(self.labels, self.scores[system], target)

    def confusion(self, system: str) -> list[list[int]]:
        """Counts by true class (rows) and most probable class (columns)."""
        counts: list[list[int]] = confusion_counts(self.labels, self.scores[system]).tolist()
        return counts


def metric_values(pooled: Pooled, system: str, weights: Floats, top_k: Sequence[int]) -> dict[str, Floats]:
    """All metrics of one system under each resample: name to (B,)."""
    n_clusters = len(pooled.sizes)
    out: dict[str, Floats] = {}
    for target in TARGETS:
        positive, score = pooled.ranking(system, target)
        found = RankCounts.by_gene(positive, score, pooled.cluster, n_clusters).evaluate(
            weights, pooled.sizes, None if target == "splice" else top_k
        )
        out[ap_name(target)] = found.pop("ap")
        out |= {f"{name}_{target}": values for name, values in found.items()}
    out["ap_splice"] = (out["ap_donor"] + out["ap_acceptor"]) / 2
    positive, score = pooled.ranking(system, "splice")
    out["ece"] = CalibrationCounts(positive, score, pooled.cluster, n_clusters).ece(weights)
    out["log_loss"] = (weights @ pooled.log_losses(system)) / (weights @ pooled.sizes)
    return out


def _kept(genes: Sequence[GeneScores]) -> tuple[tuple[NDArray[np.bool_], ...], tuple[NDArray[np.int64], ...]]:
    """`Pooled.kept` and `Pooled.contradicted`; of genes without place, all positions and none."""
    kept = tuple(np.ones(len(gene.labels), dtype=bool) for gene in genes)
    odd = [np.empty(0, np.int64)] * len(genes)
    numbers = [number for number, gene in enumerate(genes) if gene.gene]
    placed = [
        PlacedSites.of(one.gene, one.labels, normalise_build(one.genome_build or "")) for one in genes if one.gene
    ]
    for number, shared, at in zip(numbers, repeated(placed), contradicted(placed), strict=True):
        kept[number][shared] = False
        kept[number][at] = False
        odd[number] = at
    return kept, tuple(odd)


def _clusters(genes: Sequence[GeneScores], related_genes: Sequence[Sequence[str]]) -> list[list[str]]:
    """Gene ids by cluster. Places are compared within a genome build: elsewhere the same numbers are other places."""
    lists = list(related_genes)
    by_build: dict[str, list[Gene]] = {}
    for gene in genes:
        if gene.gene:
            by_build.setdefault(normalise_build(gene.genome_build or ""), []).append(gene.gene)
    for placed in by_build.values():
        lists += related(placed)
    return united((gene.gene_id for gene in genes), lists)


def check_probabilities(values: NDArray[np.floating], what: str) -> None:
    """Refuse NaN and what is outside [0, 1].

    Raises:
        EvaluationError: with how many rows of (n, 3) are at fault, and of what they are.
    """
    # The extremes tell without an array of their own, and a NaN is the extreme of any values.
    if not values.size or (values.min() >= 0.0 and values.max() <= 1.0 + 1e-6):
        return
    bad = int((~((values >= 0.0) & (values <= 1.0 + 1e-6))).any(axis=1).sum())
    raise EvaluationError(f"{what}: {bad:,} of {len(values):,} rows have probabilities that are NaN or outside [0, 1]")


def _refuse_not_finite(score: Floats) -> None:
    if not np.isfinite(score).all():
        raise EvaluationError("scores that are NaN or infinite cannot be ranked")
