"""Reports: base against meta, with intervals over gene clusters and paired differences."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from metalayer.errors import EvaluationError
from metalayer.evaluation.breakdown import ByBaseScore, ByGroup
from metalayer.evaluation.by_gene import ByGene, DrawnGene
from metalayer.evaluation.calls import Errors, Overlaps, SiteCalls
from metalayer.evaluation.counts import SiteScores, SystemCounts, counted
from metalayer.evaluation.intervals import POWER, STATED_GAIN, Resamples
from metalayer.evaluation.metrics import TARGETS, GeneScores
from metalayer.evaluation.ranks import GroupRanks
from metalayer.evaluation.reliability import Reliability
from metalayer.evaluation.sample import Part, Sample
from metalayer.evaluation.site_recall import site_recall
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
    watch: Callable[[Part, SiteCalls], None] | None = None,
) -> dict[str, Any]:
    """Compare systems on the same genes.

    Args:
        genes: each with scores of `reference`, `candidate` and perhaps others; read several times, one at a time.
        config: bootstrap resamples, coverage, k.
        reference: what the candidate is compared with.
        candidate: what is judged.
        unit: `positions` (all of each gene) or `rows`.
        related_genes: ids of genes that belong together beyond what their places say, as in a split's manifest.
        watch: gets what counts of each gene and what is called there, one after the other.

    Returns:
        unit, genes, clusters (of genes, see `Sample`), clusters_with (sites, by class), clusters_needed, positions,
        sites, metrics by system, `intervals` by system, `difference` (candidate minus reference, paired), `differences`
        (candidate minus each system beside these, by name),
        `resolution` (what gain could be shown, see `Resamples`), `calibration` (see `Reliability`), `overlaps`
        (positions of several genes, see `calls.Overlaps`), `errors` (fixed and made, see `calls.Errors`),
        `same_precision` (see `_same_precision`), `site_recall` (see there), `by_gene` and `drawn_gene` (see `by_gene`),
        `confusion`, `by_chromosome`, `by_paralog`, `by_base_score` (see `breakdown`), `curves`; JSON-ready. False calls
        per Mb are of positions alone. Bounds of intervals are None where fewer than `clusters_needed` clusters carry
        donors, or acceptors.

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
    by_gene = ByGene(reference, candidate)
    drawn = DrawnGene(reference, candidate, sites.calls)
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
        drawn.add(part, calls, by_gene.add(part, calls))
        if watch:
            watch(part, calls)
        overlaps.add(part)
        reliability.add(part)
    values = {name: one.metric_values(resamples.weights, config.top_k_values) for name, one in counts.items()}
    if unit != "positions":  # rows are a sample: how many would be called of a stretch of a gene they do not say
        values = {name: {m: v for m, v in found.items() if "per_mb" not in m} for name, found in values.items()}
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
    report["differences"] = {
        name: resamples.of_differences(values[candidate], values[name], confidence)
        for name in systems
        if name not in (reference, candidate, "uncalibrated")
    }
    report["resolution"] = {"power": POWER, "stated_gain": STATED_GAIN} | {
        metric: resamples.resolution(values[candidate][metric] - values[reference][metric], confidence)
        for metric in JUDGED
    }
    report["calibration"] = reliability.report(resamples, confidence)
    report["overlaps"] = overlaps.report()
    report["errors"] = errors.report()
    report["same_precision"] = _same_precision(report, curves, reference, candidate)
    report["site_recall"] = site_recall(sample, sites, counts, curves, resamples, confidence, (reference, candidate))
    report["by_gene"] = by_gene.report()
    report["drawn_gene"] = drawn.report()
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


def _same_precision(
    report: Mapping[str, Any], curves: Mapping[str, Mapping[str, GroupRanks]], reference: str, candidate: str
) -> dict[str, dict[str, Any] | None]:
    """The most sites of each class that either system finds at the precision that the reference has at as many calls.

    Returns:
        By class: precision, of the reference where it calls as many positions as there are sites (see `calls`), and the
        number of sites that each system finds while its precision is at least that; None where the reference then calls
        no site.
    """
    found: dict[str, dict[str, Any] | None] = {}
    for name, n_sites in report["sites"].items():
        errors = report["errors"][reference][name]
        calls, hits = errors["calls"], n_sites - errors["missed"]
        found[name] = (
            {"precision": hits / calls}
            | {system: curves[system][name].found_at(hits, calls) for system in (reference, candidate)}
            if hits
            else None
        )
    return found


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
