"""Several models of one base on the same genes, each trained with several seeds: comparison and table.

All are compared in the same resamples of genes. Of a variant the mean over its seeds is judged, so an interval
says what other genes would give, and the seeds' own values beside it what another seed would.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from metalayer.evaluation.counts import counted
from metalayer.evaluation.intervals import Resamples
from metalayer.evaluation.metrics import Floats, GeneScores
from metalayer.evaluation.tables import Rows, caption, with_interval
from metalayer.metric_list import JUDGED
from metalayer.settings.sections import EvaluateConfig

Resampled = dict[str, Floats]
"""Metric to its values in the sample and its resamples, (1 + B,)."""


def resampled(genes: Collection[GeneScores], system: str, config: EvaluateConfig) -> tuple[Resamples, Resampled]:
    """The resamples, which are the same for the same genes and configuration, and the compared metrics of one system.

    Raises:
        EvaluationError: no gene, no donor or acceptor, or probabilities that are none.
    """
    sample, counts = counted(genes, [system])
    resamples = Resamples.of(sample, config)
    values = counts[system].metric_values(resamples.weights, ())
    return resamples, {metric: values[metric] for metric in JUDGED}


def compare_variants(
    base: Resampled, variants: Mapping[str, Sequence[Resampled] | None], resamples: Resamples, confidence: float
) -> dict[str, Any]:
    """Compare each variant with the base and with the first variant, the reference, in the same resamples.

    Args:
        base: of the base model.
        variants: by name, one for each seed; None for a variant that failed, which gets no number.
        resamples: in which all were evaluated.
        confidence: coverage of the intervals.

    Returns:
        reference (its name), base (metric to value, low, high) and variants: by name None where it failed, else
        `average_precision`, `minus_base` and `minus_reference` (likewise; None for the reference itself, and where
        it failed) and `by_seed` (metric to one value a seed): JSON-ready.
    """
    means = {name: _mean(runs) for name, runs in variants.items() if runs is not None}
    reference = next(iter(variants))
    compared: dict[str, Any] = dict.fromkeys(variants)
    for name, mean in means.items():
        beside = means.get(reference) if name != reference else None
        compared[name] = {
            "average_precision": resamples.of_metrics(mean, confidence),
            "minus_base": resamples.of_differences(mean, base, confidence),
            "minus_reference": None if beside is None else resamples.of_differences(mean, beside, confidence),
            "by_seed": {metric: [float(run[metric][0]) for run in variants[name] or ()] for metric in JUDGED},
        }
    return {"reference": reference, "base": resamples.of_metrics(base, confidence), "variants": compared}


def _mean(runs: Sequence[Resampled]) -> Resampled:
    return {metric: np.mean([run[metric] for run in runs], axis=0) for metric in JUDGED}


def ablation_table(report: Mapping[str, Any]) -> str:
    """The report of `workflows.ablate.ablate` as Markdown, aligned for a terminal too."""
    seeds = ", ".join(map(str, report["seeds"]))
    facts = (
        f"{caption(report)}. Mean of seeds {seeds}; {report['max_epochs']} epochs each, of which the validation genes "
        "pick the best."
    )
    return "\n\n".join([facts, *map(_markdown, (_comparison_rows(report), _run_rows(report))), *_errors(report)]) + "\n"


def _comparison_rows(report: Mapping[str, Any]) -> Rows:
    heading = ["metric", "variant", "average precision", "minus base", f"minus {report['reference']}"]
    rows = [[*heading, "seeds, lowest to highest"]]
    for metric, title in JUDGED.items():
        rows.append([title, "base", _estimate(report["base"][metric]), "", "", ""])
        for variant in report["variants"]:
            found = variant["compared"]
            if found is None:
                rows.append([title, variant["title"], "failed", "", "", ""])
                continue
            beside, seeds = found["minus_reference"], found["by_seed"][metric]
            rows.append(
                [
                    title,
                    variant["title"],
                    _estimate(found["average_precision"][metric]),
                    _estimate(found["minus_base"][metric], "+.4f"),
                    "" if beside is None else _estimate(beside[metric], "+.4f"),
                    f"{min(seeds):.4f} to {max(seeds):.4f}",
                ]
            )
    return rows


def _run_rows(report: Mapping[str, Any]) -> Rows:
    rows = [["variant", "parameters", "of them trained", "best epochs", "training, s a seed"]]
    for variant in report["variants"]:
        runs = variant["runs"].values()
        epochs = ", ".join(str(run["best_epoch"]) for run in runs)
        seconds = ", ".join(f"{run['seconds']:.1f}" for run in runs)
        sizes = (f"{variant[name]:,}" for name in ("parameters", "trained_parameters"))
        rows.append([variant["title"], *sizes, epochs, seconds])
    return rows


def _errors(report: Mapping[str, Any]) -> list[str]:
    return [
        f"{variant['title']}, seed {seed}, failed: {error}"
        for variant in report["variants"]
        for seed, error in variant["errors"].items()
    ]


def _estimate(found: Mapping[str, Any], form: str = ".4f") -> str:
    return with_interval(found["value"], (found["low"], found["high"]), form)


def _markdown(rows: Rows) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |"
        for row in [rows[0], ["-" * width for width in widths], *rows[1:]]
    ]
    return "\n".join(lines)
