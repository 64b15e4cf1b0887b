"""Sites that each system calls, and the errors that one fixes or makes against another.

Systems are compared at the same number of calls: of each class a system calls as many positions as there
are true sites, its highest ones (the threshold of SpliceAI's top-k accuracy). A position is an error of a
class where call and truth differ: a missed site, or a false call. A tie at the threshold is called whole or
not at all, whichever brings the number of calls nearer to the number of sites (not at all where both do).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalayer.evaluation.metrics import Floats, GeneScores, Pooled, splice_score
from metalayer.schema import CLASSES, NEITHER

SITE_CLASSES = CLASSES[:NEITHER]
LISTED = 500
"""Errors that a report lists at most, of those fixed and of those made."""
_PROBABILITY_FLOOR = 1e-7
"""Changes in log-odds are between probabilities kept this far from 0 and 1 (float32 ends there)."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SiteCalls:
    """What each system calls.

    Attributes:
        sites: class name to (n,), the truth.
        called: system and class name to (n,).
        thresholds: system and class name to the lowest score that is called; None where nothing is.
    """

    sites: dict[str, Mask]
    called: dict[str, dict[str, Mask]]
    thresholds: dict[str, dict[str, float | None]]

    @classmethod
    def of(cls, pooled: Pooled, systems: Sequence[str]) -> SiteCalls:
        """Call donors and acceptors, each as often as there are true ones."""
        calls = cls({name: pooled.labels == CLASSES.index(name) for name in SITE_CLASSES}, {}, {})
        for system in systems:
            found = {name: call_sites(*pooled.ranking(system, name)) for name in SITE_CLASSES}
            calls.called[system] = {name: called for name, (_, called) in found.items()}
            calls.thresholds[system] = {name: threshold for name, (threshold, _) in found.items()}
        return calls

    def missed(self, system: str, name: str) -> Mask:
        """True sites that are not called, (n,)."""
        return self.sites[name] & ~self.called[system][name]

    def false_calls(self, system: str, name: str) -> Mask:
        """Calls where there is no site of the class, (n,)."""
        return ~self.sites[name] & self.called[system][name]


def call_sites(site: Mask, score: Floats) -> tuple[float | None, Mask]:
    """Call as many positions as there are sites.

    Args:
        site: (n,), at least one.
        score: (n,).

    Returns:
        The lowest score that is called (None where nothing is), and what is called, (n,).
    """
    n_sites = int(site.sum())
    cut = np.partition(score, -n_sites)[-n_sites]
    reaching, above = score >= cut, score > cut
    if reaching.sum() - n_sites < n_sites - above.sum():
        return float(cut), reaching
    return (float(score[above].min()) if above.any() else None), above


def error_report(
    pooled: Pooled, genes: Sequence[GeneScores], calls: SiteCalls, reference: str, candidate: str
) -> dict[str, Any]:
    """Errors of each system, those that the candidate fixes and those that it makes.

    Args:
        pooled: all positions of `genes`.
        genes: with their places, or none of them with it (rows).
        calls: of both systems.
        reference: whose errors are fixed.
        candidate: who makes others.

    Returns:
        JSON-ready:
            <system>: donor and acceptor, each with threshold, calls, missed and false_calls (numbers).
            fixed: errors of the reference where the candidate is right: total, donor and acceptor with missed and
                false_calls, and `list`.
            made: errors of the candidate where the reference is right, likewise.
            listed_at_most: length of the longest list; totals count all.
        A list holds the errors of the largest change in log-odds first, each with gene_id, chrom, strand,
        position (1-based genomic), class, error (`missed`, `false call`), the probability of the class by each system,
        and genome_build where it is known. Without places there are no lists.
    """
    report: dict[str, Any] = {"listed_at_most": LISTED}
    for system in (reference, candidate):
        report[system] = {
            name: {
                "threshold": calls.thresholds[system][name],
                "calls": int(calls.called[system][name].sum()),
                "missed": int(calls.missed(system, name).sum()),
                "false_calls": int(calls.false_calls(system, name).sum()),
            }
            for name in SITE_CLASSES
        }
    for key, wrong, right in (("fixed", reference, candidate), ("made", candidate, reference)):
        found = {
            (name, "missed"): np.flatnonzero(calls.missed(wrong, name) & calls.called[right][name])
            for name in SITE_CLASSES
        } | {
            (name, "false call"): np.flatnonzero(calls.false_calls(wrong, name) & ~calls.called[right][name])
            for name in SITE_CLASSES
        }
        report[key] = {"total": sum(map(len, found.values()))} | {
            name: {"missed": len(found[name, "missed"]), "false_calls": len(found[name, "false call"])}
            for name in SITE_CLASSES
        }
        if all(gene.gene for gene in genes):
            report[key]["list"] = _listed(found, pooled, genes, (reference, candidate))
    return report


def overlap_report(pooled: Pooled, genes: Sequence[GeneScores]) -> dict[str, Any]:
    """Positions that genes of one strand share.

    Args:
        pooled: all positions of `genes`.
        genes: with their places; those without share none.

    Returns:
        JSON-ready: `shared`, how many positions were there once more and do not count again; `contradicted`, positions
        that do not count at all, because one gene has a site where another has none or one of the other class; `list`
        of these, at most `LISTED` entries: gene_id, chrom, strand, position (1-based genomic), class and the
        probability of a site by each system, and genome_build where it is known.
    """
    listed: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    left_out = 0
    for scored, mask, odd in zip(genes, pooled.kept, pooled.contradicted, strict=True):
        left_out += len(mask) - int(mask.sum()) - len(odd)
        for index in odd.tolist():
            assert scored.gene is not None
            place = {"chrom": scored.chrom, "strand": scored.gene.strand, "position": scored.gene.genomic(index) + 1}
            if scored.genome_build:
                place["genome_build"] = scored.genome_build
            entry: dict[str, Any] = {"gene_id": scored.gene_id, **place, "class": CLASSES[scored.labels[index]]}
            entry |= {name: float(splice_score(scored.scores[name][index][None])[0]) for name in pooled.scores}
            listed.setdefault(tuple(place.values()), []).append(entry)
    entries = [entry for entries in listed.values() for entry in entries]
    return {"shared": left_out, "contradicted": len(listed), "list": entries[:LISTED]}


def _listed(
    found: dict[tuple[str, str], NDArray[np.intp]],
    pooled: Pooled,
    genes: Sequence[GeneScores],
    systems: tuple[str, str],
) -> list[dict[str, Any]]:
    """Errors with their places, the largest change in log-odds first."""
    at = np.concatenate(list(found.values()))
    kinds = [kind for kind, where in found.items() for _ in range(len(where))]
    column = np.array([CLASSES.index(name) for name, _ in kinds], dtype=np.intp)
    before, after = (pooled.scores[system][at, column].astype(np.float64) for system in systems)
    order = np.argsort(-np.abs(_log_odds(after) - _log_odds(before)), kind="stable")[:LISTED]
    ends = np.cumsum(pooled.lengths)
    out = []
    for i in order:
        owner = int(np.searchsorted(ends, at[i], side="right"))
        scored = genes[owner]
        index = np.flatnonzero(pooled.kept[owner])[at[i] - (ends[owner] - pooled.lengths[owner])]
        assert scored.gene is not None
        name, error = kinds[i]
        entry: dict[str, Any] = {
            "gene_id": scored.gene_id,
            "chrom": scored.chrom,
            "strand": scored.gene.strand,
            "position": scored.gene.genomic(int(index)) + 1,
            "class": name,
            "error": error,
            systems[0]: float(before[i]),
            systems[1]: float(after[i]),
        }
        if scored.genome_build:
            entry["genome_build"] = scored.genome_build
        out.append(entry)
    return out


def _log_odds(probability: Floats) -> Floats:
    kept = np.clip(probability, _PROBABILITY_FLOOR, 1.0 - _PROBABILITY_FLOOR)
    odds: Floats = np.log(kept) - np.log1p(-kept)
    return odds
