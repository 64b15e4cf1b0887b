"""What each metric is: its name in reports, title, decimals, direction and bounds, and who shows or judges it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args


@dataclass(frozen=True)
class Metric:
    """A metric that tables compare.

    Attributes:
        name: in reports.
        title: in tables and texts.
        decimals: shown. Nearly all positions are no site, so errors of probabilities over whole genes are small.
        lower_is_better: whether it is an error.
        bounded: whether it lies from 0 to 1; else it may be above 1.
        in_summary: whether the short table of an evaluation has it.
        judged: whether the gate compares it with the champion, and an ablation its variants by it.
        in_terminal: whether the long table of a terminal has it; not where another line says the same.
    """

    name: str
    title: str
    decimals: int
    lower_is_better: bool
    bounded: bool
    in_summary: bool = False
    judged: bool = False
    in_terminal: bool = True


def _share(
    name: str, title: str, *, in_summary: bool = False, judged: bool = False, in_terminal: bool = True
) -> Metric:
    return Metric(name, title, 4, False, True, in_summary, judged, in_terminal)


def _false_calls(class_name: str, percent: int) -> Metric:
    title = f"false {class_name}s per Mb, recall 0.{percent}"
    return Metric(f"false_per_mb_at_recall{percent}_{class_name}", title, 2, lower_is_better=True, bounded=False)


METRICS = (
    _share("pr_auc_splice", "PR-AUC splice", in_summary=True, judged=True),
    _share("ap_donor", "donor AP", in_summary=True, judged=True),
    _share("ap_acceptor", "acceptor AP", in_summary=True, judged=True),
    _share("topk_donor", "top-k donor", in_summary=True),
    _share("topk_acceptor", "top-k acceptor", in_summary=True),
    _share("precision_at_recall90_splice", "splice P at recall 0.90"),
    _share("precision_at_recall90_donor", "donor P at recall 0.90", in_terminal=False),
    _share("precision_at_recall90_acceptor", "acceptor P at recall 0.90", in_terminal=False),
    _share("precision_at_recall95_splice", "splice P at recall 0.95"),
    _share("precision_at_recall95_donor", "donor P at recall 0.95", in_terminal=False),
    _share("precision_at_recall95_acceptor", "acceptor P at recall 0.95", in_terminal=False),
    *(_false_calls(name, percent) for percent in (90, 95) for name in ("donor", "acceptor")),
    Metric("ece", "ECE", decimals=6, lower_is_better=True, bounded=True, in_summary=True),
    Metric("log_loss", "log loss", decimals=6, lower_is_better=True, bounded=False),
    Metric("log_loss_per_site", "log loss per site", decimals=4, lower_is_better=True, bounded=False, in_summary=True),
)
"""In the order in which tables show them."""
JUDGED = {metric.name: metric.title for metric in METRICS if metric.judged}
"""The average precisions that models are judged by: name to title."""
UNBOUNDED = tuple(metric.name for metric in METRICS if not metric.bounded)
"""Metrics that may be above 1."""

ValidationMetric = Literal["pr_auc_splice", "ap_splice", "ap_donor", "ap_acceptor", "loss"]
"""A figure of each epoch's validation (`val_...`): it picks the best epoch, or is what a search is for."""
VALIDATION_METRICS: tuple[str, ...] = get_args(ValidationMetric)
