"""Which positions of which genes an evaluation counts, and which genes it draws as one; nothing of their scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import EvaluationError
from metalayer.evaluation.metrics import Floats, GeneScores
from metalayer.gene_groups import related, united
from metalayer.genome import Gene, normalise_build
from metalayer.overlaps import PlacedSites, contradicted, repeated, sharing
from metalayer.schema import ACCEPTOR, CLASSES, DONOR

SITES = (DONOR, ACCEPTOR)


@dataclass(frozen=True)
class Part:
    """What counts of one gene.

    Attributes:
        number: of the gene, from 0.
        gene: all of it.
        cluster: its cluster.
        kept: int64 (n,), its positions that count; None: all.
        labels: uint8 (n,).
        scores: system name to float32 (n, 3).
        overlapping: genes of its strand that share positions with it.
    """

    number: int
    gene: GeneScores
    cluster: int
    kept: NDArray[np.int64] | None
    labels: NDArray[np.uint8]
    scores: Mapping[str, NDArray[np.float32]]
    overlapping: tuple[Gene, ...] = ()

    def indices(self, at: NDArray[np.integer]) -> NDArray[np.integer]:
        """Where some of the n lie in the gene."""
        return at if self.kept is None else self.kept[at]

    def without_positions(self) -> Part:
        """The gene and its place, without labels and scores."""
        gene = replace(self.gene, labels=np.empty(0, np.uint8), scores={}, ignored=np.empty(0, np.int64))
        return replace(self, gene=gene, kept=None, labels=gene.labels, scores={})

    def also_in(self, position: int) -> list[str]:
        """Ids of other genes that have a genomic position (0-based) too; it counts once, as this gene's."""
        return [gene.gene_id for gene in self.overlapping if gene.interval.start <= position < gene.interval.end]


@dataclass(frozen=True)
class Sample:
    """Genes without their scores.

    A position that overlapping genes of a strand label differently counts for none of them; one that they share and
    agree on counts once, as that of the gene that begins first (see `overlaps`). Ignored ones do not count.

    Genes that belong together are one cluster: those that overlap or are paralogs (see `gene_groups`), and the copies
    of one gene from files of several genome builds. A gene without place is a cluster of its own, unless it is said
    to be related.

    Attributes:
        genes: different genes.
        clusters: of each gene, the number of its cluster, from 0 to C - 1.
        shared: of each gene, its positions that another gene has too and that count as its.
        contradicted: of each gene, int64, its positions that another gene labels differently.
        ignored: of each gene, int64, its positions that are ignored for other reasons.
        lengths: int64 (G,), positions of each gene that count.
        sites: int64 (G, 2), donors and acceptors among them.
        overlapping: of each gene, those of its strand that share positions with it.
    """

    genes: int
    clusters: tuple[int, ...]
    shared: tuple[slice, ...]
    contradicted: tuple[NDArray[np.int64], ...]
    ignored: tuple[NDArray[np.int64], ...]
    lengths: NDArray[np.int64]
    sites: NDArray[np.int64]
    overlapping: tuple[tuple[Gene, ...], ...]

    @classmethod
    def of(
        cls, genes: Collection[GeneScores], systems: Sequence[str], related_genes: Sequence[Sequence[str]] = ()
    ) -> Sample:
        """Read places and labels.

        Args:
            genes: each once, or as copies.
            systems: of which each gene must have scores.
            related_genes: ids of genes that belong together beyond what their places say.

        Raises:
            EvaluationError: no gene or one twice (but for copies of another build or place), a system that some
                gene lacks, or no donor or no acceptor.
        """
        ids, builds, places, lengths, placed, sites, marked = [], [], [], [], [], [], []
        copies: Counter[tuple[str, str, Gene | None]] = Counter()
        for gene in genes:
            absent = [name for name in systems if name not in gene.scores]
            if absent:
                raise EvaluationError(f"gene {gene.gene_id} has no scores of {', '.join(absent)}")
            build = normalise_build(gene.genome_build or "")
            copies[gene.gene_id, build, gene.gene] += 1
            ids.append(gene.gene_id)
            builds.append(build)
            places.append(gene.gene)
            lengths.append(len(gene.labels))
            marked.append(gene.ignored)
            placed.append(PlacedSites.of(gene.gene, gene.labels, build) if gene.gene else None)
            sites.append([np.flatnonzero(gene.labels == site_class) for site_class in SITES])
        if not ids:
            raise EvaluationError("no gene to evaluate on: check the test part of the split")
        twice = [gene_id for (gene_id, *_), times in copies.items() if times > 1]
        if twice:
            raise EvaluationError(f"gene {twice[0]} is there more than once; intervals need each gene once")
        shared, odd = _left_out(placed)
        ignored = tuple(np.setdiff1d(one, other) for one, other in zip(marked, odd, strict=True))
        counted = np.zeros((len(ids), len(SITES)), np.int64)
        for number, found in enumerate(sites):
            kept = _kept(lengths[number], shared[number], odd[number], ignored[number])
            counted[number] = [len(at) if kept is None else np.isin(at, kept).sum() for at in found]
            lengths[number] = lengths[number] if kept is None else len(kept)
        for site_class, total in zip(SITES, counted.sum(axis=0), strict=True):
            if not total:
                raise EvaluationError(
                    f"no {CLASSES[site_class]} among the {len(ids)} genes: its average precision is not defined"
                )
        clusters = _clusters(ids, builds, places, related_genes)
        of = {gene_id: number for number, cluster in enumerate(clusters) for gene_id in cluster}
        numbers = tuple(of[gene_id] for gene_id in ids)
        n_positions = np.array(lengths, np.int64)
        return cls(len(of), numbers, shared, odd, ignored, n_positions, counted, _overlapping(placed))

    @property
    def sizes(self) -> Floats:
        """Positions of each cluster, (C,)."""
        return np.bincount(self.clusters, weights=self.lengths).astype(np.float64)

    def sites_by_cluster(self) -> NDArray[np.int64]:
        """Donors and acceptors of each cluster, (2, C)."""
        return np.stack([np.bincount(self.clusters, weights=n).astype(np.int64) for n in self.sites.T])

    def parts(self, genes: Collection[GeneScores], systems: Sequence[str]) -> Iterator[Part]:
        """What counts, one gene at a time.

        Args:
            genes: of which this is, in the same order.
            systems: whose scores to read.

        Raises:
            EvaluationError: scores of another shape.
        """
        for number, gene in enumerate(genes):
            expected = (len(gene.labels), len(CLASSES))
            kept = _kept(expected[0], self.shared[number], self.contradicted[number], self.ignored[number])
            scores = {}
            for name in systems:
                values = gene.scores[name]
                if values.shape != expected:
                    raise EvaluationError(
                        f"{name}, gene {gene.gene_id}: probabilities of shape {values.shape}, expected {expected}"
                    )
                chosen = values if kept is None else values[kept]
                scores[name] = chosen.astype(np.float32, copy=False)
            labels = gene.labels if kept is None else gene.labels[kept]
            yield Part(number, gene, self.clusters[number], kept, labels, scores, self.overlapping[number])


def _kept(length: int, *left_out: slice | NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Positions of a gene that count; None: all."""
    kept = np.ones(length, dtype=bool)
    for some in left_out:
        kept[some] = False
    return None if kept.all() else np.flatnonzero(kept)


def _left_out(placed: Sequence[PlacedSites | None]) -> tuple[tuple[slice, ...], tuple[NDArray[np.int64], ...]]:
    """`Sample.shared` and `Sample.contradicted`; of genes without place, nothing."""
    shared, odd = [slice(0, 0)] * len(placed), [np.empty(0, np.int64)] * len(placed)
    numbers = [number for number, one in enumerate(placed) if one]
    there = [one for one in placed if one]
    for number, again, at in zip(numbers, repeated(there), contradicted(there), strict=True):
        shared[number], odd[number] = again, at
    return tuple(shared), tuple(odd)


def _overlapping(placed: Sequence[PlacedSites | None]) -> tuple[tuple[Gene, ...], ...]:
    """`Sample.overlapping`; of genes without place, nothing."""
    found: list[tuple[Gene, ...]] = [()] * len(placed)
    numbers = [number for number, one in enumerate(placed) if one]
    there = [one for one in placed if one]
    for number, others in zip(numbers, sharing(there), strict=True):
        found[number] = tuple(there[other].gene for other in others)
    return tuple(found)


def _clusters(
    ids: Sequence[str], builds: Sequence[str], places: Sequence[Gene | None], related_genes: Sequence[Sequence[str]]
) -> list[list[str]]:
    """Gene ids by cluster. Places are compared within a genome build: elsewhere the same numbers are other places."""
    lists = list(related_genes)
    by_build: dict[str, list[Gene]] = {}
    for build, gene in zip(builds, places, strict=True):
        if gene:
            by_build.setdefault(build, []).append(gene)
    for there in by_build.values():
        lists += related(there)
    return united(ids, lists)
