"""The comparison in parts: by chromosome, by paralog flag, by score of the base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalayer.evaluation.calls import SITE_CLASSES, SiteCalls
from metalayer.evaluation.metrics import TARGETS, GeneScores, Pooled, RankCounts, ap_name, ranking, splice_score
from metalayer.schema import ACCEPTOR, CLASSES, DONOR

SCORE_BIN_EDGES = (0.001, 0.01, 0.1, 0.5, 0.9)
"""Inner edges of the bins of the reference's larger score, donor or acceptor; each belongs to the bin above it."""
_PARALOG_FLAGS = (1, 0, -1)


def by_chromosome(pooled: Pooled, genes: Sequence[GeneScores]) -> dict[str, Any]:
    """`_by_group` of each chromosome: numbers first, in their order."""
    chroms = sorted({gene.chrom for gene in genes}, key=lambda c: (not c.isdigit(), int(c) if c.isdigit() else 0, c))
    return _by_group(pooled, genes, [gene.chrom for gene in genes], chroms)


def by_paralog(pooled: Pooled, genes: Sequence[GeneScores]) -> dict[str, Any]:
    """`_by_group` of the paralog flags that occur: `1` genes with paralogs, `0` without, `-1` unknown."""
    there = {gene.paralog for gene in genes}
    flags = [str(flag) for flag in _PARALOG_FLAGS if flag in there]
    return _by_group(pooled, genes, [str(gene.paralog) for gene in genes], flags)


def _by_group(pooled: Pooled, genes: Sequence[GeneScores], of: Sequence[str], groups: Sequence[str]) -> dict[str, Any]:
    """Genes, positions, sites and average precisions of each group of genes that has both kinds of site."""
    number = np.array([groups.index(group) for group in of])
    group_of = np.repeat(number, pooled.lengths)
    out: dict[str, Any] = {}
    for i, group in enumerate(groups):
        here = group_of == i
        labels = pooled.labels[here]
        entry: dict[str, Any] = {
            "genes": len({gene.gene_id for gene, name in zip(genes, of, strict=True) if name == group}),
            "positions": len(labels),
            "sites": {CLASSES[c]: int((labels == c).sum()) for c in (DONOR, ACCEPTOR)},
        }
        if all(entry["sites"].values()):
            whole, one, n = np.zeros(len(labels), np.intp), np.ones((1, 1)), np.array([float(len(labels))])
            for system, scores in pooled.scores.items():
                there = scores[here]
                entry[system] = {
                    ap_name(target): float(
                        RankCounts.by_gene(*ranking(labels, there, target), whole, 1).evaluate(one, n)["ap"][0]
                    )
                    for target in TARGETS
                }
        out[group] = entry
    return out


def by_base_score(pooled: Pooled, calls: SiteCalls, reference: str, candidate: str) -> list[dict[str, Any]]:
    """What becomes of positions that the reference scores alike.

    Args:
        pooled: all positions.
        calls: of both systems.
        reference: its larger score, donor or acceptor, decides the bin.
        candidate: the other system.

    Returns:
        For each bin [low, high), the last one closed: low, high, positions, sites (by class), and by system
        expected_sites (sum of P(donor) + P(acceptor)), calibration_gap (expected less true sites, over
        positions; None in an empty bin), missed and false_calls (donors and acceptors, see `calls`).
    """
    n_bins = len(SCORE_BIN_EDGES) + 1
    larger = pooled.scores[reference][:, [DONOR, ACCEPTOR]].max(axis=1)
    bins = np.digitize(larger, np.array(SCORE_BIN_EDGES, dtype=larger.dtype))  # a float32 0.01 is below a float64 one

    def count(*masks: NDArray[np.bool_]) -> NDArray[np.intp]:
        return np.bincount(np.concatenate([bins[mask] for mask in masks]), minlength=n_bins)

    positions = np.bincount(bins, minlength=n_bins)
    sites = {name: count(calls.sites[name]) for name in SITE_CLASSES}
    counts = {}
    for system in (reference, candidate):
        expected = np.bincount(bins, weights=splice_score(pooled.scores[system]), minlength=n_bins)
        missed = count(*(calls.missed(system, name) for name in SITE_CLASSES))
        false_calls = count(*(calls.false_calls(system, name) for name in SITE_CLASSES))
        counts[system] = (expected, missed, false_calls)
    out: list[dict[str, Any]] = []
    for i, (low, high) in enumerate(zip((0.0, *SCORE_BIN_EDGES), (*SCORE_BIN_EDGES, 1.0), strict=True)):
        n, true = int(positions[i]), {name: int(numbers[i]) for name, numbers in sites.items()}
        entry: dict[str, Any] = {"low": low, "high": high, "positions": n, "sites": true}
        for system, (expected, missed, false_calls) in counts.items():
            entry[system] = {
                "expected_sites": float(expected[i]),
                "calibration_gap": float((expected[i] - sum(true.values())) / n) if n else None,
                "missed": int(missed[i]),
                "false_calls": int(false_calls[i]),
            }
        out.append(entry)
    return out
