"""Reports: base against meta, with intervals over gene clusters and paired differences."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from metalayer.errors import EvaluationError
from metalayer.evaluation.breakdown import ByBaseScore, ByGroup
from metalayer.evaluation.calls import Errors, Overlaps, SiteCalls
from metalayer.evaluation.counts import SiteScores, SystemCounts, counted
from metalayer.evaluation.intervals import POWER, STATED_GAIN, Resamples
from metalayer.evaluation.metrics import TARGETS, GeneScores
from metalayer.evaluation.ranks import GroupRanks
from metalayer.evaluation.reliability import Reliability
from metalayer.evaluation.sample import Sample
from metalayer.metric_list import JUDGED
from metalayer.schema import ACCEPTOR, CLASSES, DONOR
from metalayer.settings.sections import EvaluateConfig

CURVE_POINTS = 300


def evaluate(
    genes: Collection[GeneScores],
    config: EvaluateConfig,
    reference: str = "base",
    candidate: str = "meta",
    unit: str = "positions",
    related_genes: Sequence[Sequence[str]] = (),
) -> dict[str, Any]:
    """Compare systems on the same genes.

    Args:
        genes: each with scores of `reference`, `candidate` and perhaps others; read several times, one at a time.
        config: bootstrap resamples, coverage, k.
        reference: what the candidate is compared with.
        candidate: what is judged.
        unit: `positions` (all of each gene) or `rows`.
        related_genes: ids of genes that belong together beyond what their places say, as in a split's manifest.

    Returns:
        unit, genes, clusters (of genes, see `Sample`), clusters_with (sites, by class), clusters_needed, positions,
        sites, metrics by system, `intervals` by system, `difference` (candidate minus reference, paired),
        `resolution` (what gain could be shown, see `Resamples`), `calibration` (see `Reliability`), `overlaps`
        (positions of several genes, see `calls.Overlaps`), `errors` (fixed and made, see `calls.Errors`), `confusion`,
        `by_chromosome`, `by_paralog`, `by_base_score` (see `breakdown`), `curves`; JSON-ready. Bounds of
        intervals are None where fewer than `clusters_needed` clusters carry donors, or acceptors.

    Raises:
        EvaluationError: no gene, no donor or acceptor, or probabilities that are none.
    """
    first = next(iter(genes), None)
    systems = list(dict.fromkeys([reference, candidate, *(first.scores if first else ())]))
    sample = Sample.of(genes, systems, related_genes)
    resamples, confidence = Resamples.of(sample, config), config.confidence
    sites = SiteScores.read(genes, sample, systems, (reference, candidate))
    counts = {name: SystemCounts(sites, name, sample) for name in systems}
    facts = [(gene.chrom, gene.paralog, gene.gene is not None) for gene in genes]
    everywhere = np.ones(len(sites.labels), dtype=bool)
    curves = {
        name: {target: GroupRanks(one.hits(sites, target, everywhere)) for target in TARGETS}
        for name, one in counts.items()
    }
    by_chromosome = ByGroup.chromosomes([chrom for chrom, *_ in facts], sites, counts)
    by_paralog = ByGroup.paralogs([paralog for _, paralog, _ in facts], sites, counts)
    by_base_score = ByBaseScore(reference, candidate)
    reliability = Reliability(systems, (reference, candidate), len(sample.sizes))
    overlaps = Overlaps(sample, systems)
    errors = Errors(reference, candidate, sites.calls, listed=all(placed for *_, placed in facts))
    for part in sample.parts(genes, systems):
        reached = {name: one.add(part) for name, one in counts.items()}
        for name, targets in curves.items():
            for target, ranks in targets.items():
                ranks.add(reached[name][target])
        for groups in (by_chromosome, by_paralog):
            groups.add(part, reached)
        calls = SiteCalls.of(part, sites.calls)
        errors.add(part, calls)
        by_base_score.add(part, calls)
        overlaps.add(part)
        reliability.add(part)
    values = {name: one.metric_values(resamples.weights, config.top_k_values) for name, one in counts.items()}
    report: dict[str, Any] = {
        "unit": unit,
        "genes": sample.genes,
        **resamples.facts(),
        "positions": int(sample.lengths.sum()),
        "sites": {CLASSES[c]: int(n) for c, n in zip((DONOR, ACCEPTOR), sample.sites.sum(axis=0), strict=True)},
        "confidence": config.confidence,
        "resamples": config.n_bootstrap,
    }
    for name in systems:
        report[name] = {metric: float(drawn[0]) for metric, drawn in values[name].items()}
    report["intervals"] = {
        name: {metric: [one["low"], one["high"]] for metric, one in resamples.of_metrics(found, confidence).items()}
        for name, found in values.items()
    }
    report["difference"] = resamples.of_differences(values[candidate], values[reference], confidence)
    report["resolution"] = {"power": POWER, "stated_gain": STATED_GAIN} | {
        metric: resamples.resolution(values[candidate][metric] - values[reference][metric], confidence)
        for metric in JUDGED
    }
    report["calibration"] = reliability.report(resamples, confidence)
    report["overlaps"] = overlaps.report()
    report["errors"] = errors.report()
    report["confusion"] = {name: one.confusion.tolist() for name, one in counts.items()}
    report["by_chromosome"] = by_chromosome.report()
    report["by_paralog"] = by_paralog.report()
    report["by_base_score"] = by_base_score.report()
    report["curves"] = {
        name: {target: ranks.curve(CURVE_POINTS) for target, ranks in curves[name].items()}
        | {"reliability": one.calibration.reliability()}
        for name, one in counts.items()
    }
    return report


def compare_champion(
    genes: Collection[GeneScores],
    config: EvaluateConfig,
    related_genes: Sequence[Sequence[str]] = (),
    confidence: float | None = None,
) -> dict[str, Any]:
    """Candidate (`meta`) against `champion` on the same genes.

    Args:
        genes: with scores of both.
        config: bootstrap resamples and coverage.
        related_genes: see `evaluate`.
        confidence: coverage of the intervals; None for that of the configuration.

    Returns:
        `meta`, `champion`: metrics; `difference`: meta minus champion, paired; clusters, clusters_with and
        clusters_needed. JSON-ready.

    Raises:
        EvaluationError: as in `evaluate`; the champion cannot be scored on these genes.
    """
    if not genes:
        raise EvaluationError(
            "the champion was trained or validated on every test gene, so it cannot be compared with; test on other "
            "genes (split.test_chroms)"
        )
    sample, counts = counted(genes, ["meta", "champion"], related_genes)
    resamples = Resamples.of(sample, config)
    values = {}
    for name, one in counts.items():
        found = one.metric_values(resamples.weights, ())
        values[name] = {metric: found[metric] for metric in JUDGED}
    return {
        **resamples.facts(),
        **{name: {metric: float(drawn[0]) for metric, drawn in found.items()} for name, found in values.items()},
        "difference": resamples.of_differences(values["meta"], values["champion"], confidence or config.confidence),
    }
