"""How many positions of its genes a row stands for.

Artifact rows are a sample in which true sites and false positives are all there and easy negatives
are drawn sparsely. A model trained on them as they stand learns that a low base score means little,
and ranks whole genes worse than its base. Where per-nucleotide scores are at hand, each negative row
weighs the positions of its base-score stratum over the rows of it (post-stratification, the
Horvitz-Thompson weight of a stratified sample), so that the weighted rows look like whole genes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metalayer.data.row_table import Rows, RowTable
from metalayer.data.tracks import TrackStore
from metalayer.features import gene_row_scores
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER
from metalayer.site_labels import row_classes

STRATA = np.array([0.0, 1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.3, 1.0 + 1e-6])
"""Edges of the larger of donor and acceptor score."""
MIN_ROWS = 5
"""A stratum with fewer rows joins its lower neighbour."""


def prevalence_weights(table: RowTable, store: TrackStore | None, rows: Rows | None = None) -> NDArray[np.float32]:
    """Positions that each row stands for: negatives by stratum, sites by class (1 where none was left out).

    Rows of genes without tracks stand for themselves.

    Args:
        table: rows.
        store: per-nucleotide scores.
        rows: the rows of one part, whole genes; nothing is read from the genes of another. None: all.

    Returns:
        float32 (n,), of those rows.
    """
    rows = np.arange(len(table)) if rows is None else rows
    weights = np.ones(len(rows), dtype=np.float32)
    if store is None:
        return weights
    gene_ids = table.frame["gene_id"].gather(rows).to_numpy()
    labels, features = table.labels[rows], table.features[rows]
    tracked = [gene_id for gene_id in dict.fromkeys(gene_ids) if gene_id in store]
    positions = np.zeros(len(STRATA) - 1, dtype=np.int64)
    sites = np.zeros(len(CLASSES), dtype=np.int64)
    for track in store.read_many(tracked):
        scores = gene_row_scores(track.scores)
        labels_here = row_classes(track.labels)
        negative = labels_here == NEITHER
        sites += np.bincount(labels_here, minlength=len(CLASSES))
        positions += np.histogram(scores[negative, :2].max(axis=1), STRATA)[0]
    in_tracked = np.isin(gene_ids, tracked)
    for site_class in (DONOR, ACCEPTOR):
        here = in_tracked & (labels == site_class)
        weights[here] = max(1.0, sites[site_class] / max(1, int(here.sum())))
    is_negative = (labels == NEITHER) & in_tracked
    score = features[:, :2].max(axis=1)
    stratum = np.clip(np.searchsorted(STRATA, score, side="right") - 1, 0, len(STRATA) - 2)
    counts = np.bincount(stratum[is_negative], minlength=len(positions))
    stratum_weight = _positions_per_row(positions, counts)
    weights[is_negative] = stratum_weight[stratum[is_negative]]
    return weights


def _positions_per_row(positions: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Positions over rows of each stratum, sparse strata pooled with their lower neighbours."""
    out = np.ones(len(positions))
    end = len(positions)
    while end > 0:
        start = end - 1
        while start > 0 and rows[start:end].sum() < MIN_ROWS:
            start -= 1
        total = rows[start:end].sum()
        out[start:end] = positions[start:end].sum() / total if total else 1.0
        end = start
    return np.maximum(out, 1.0)
