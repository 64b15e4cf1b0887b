"""Why a model was promoted or rejected, in a sentence, and what to do next: the rule that decided, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from metalayer.evaluation.gate import (
    CALIBRATION,
    MEAN_IN_WORDS,
    NOT_WORSE_THAN_MEAN,
    PER_SITE,
    RETIRE,
    SEEN_BY_BASE,
    against_mean,
    new_to_base,
)
from metalayer.metric_list import JUDGED
from metalayer.schema import ROWS
from metalayer.words import count_of

MORE_IN_A_RUN = "further chromosomes in split.test_chroms, or split.by=gene with a larger split.test_fraction"
"""How a run is given more test genes."""
_SLIGHT = 0.01
"""A difference in an average precision below which a model is perhaps slightly better."""
_MANY = 10
"""Times as many gene clusters as there are, above which testing on more is not the first advice."""
_TRAIN = "train on more genes or longer (train.max_epochs)"
_CHAMPIONS = {"champion": "champion", "best_champion": "best champion of the line"}
_BETTER = "better_than_base"
_FIRST = ("absolute_floor", _BETTER, "not_worse_than_base", CALIBRATION)
"""Rules in the order in which they are named; rows, and champions, come after."""


class Verdict(NamedTuple):
    """A decision in words, each a sentence or two without a full stop at the end.

    Attributes:
        why: the reason.
        advice: what to do next; empty where there is nothing to do.
        rule: of the gate, that decided.
    """

    why: str
    advice: str
    rule: str


def verdict(evaluation: Mapping[str, Any], decision: Mapping[str, Any], more: str) -> Verdict:
    """The reason of a decision and, of a rejection, the advice.

    Args:
        evaluation: of `workflows.evaluate`.
        decision: of the gate, as a dictionary.
        more: how this command is given more test genes, in words.
    """
    if decision["promoted"]:
        return _approval(evaluation, decision)
    failed = [str(reason["rule"]) for reason in decision["reasons"] if not reason["passed"]]
    why, advice, rule = _rejection(evaluation, decision, more)
    return Verdict(why, advice, next((one for one in failed if one == rule or one.startswith(f"{rule}:")), failed[0]))


def _approval(evaluation: Mapping[str, Any], decision: Mapping[str, Any]) -> Verdict:
    report = evaluation[evaluation["primary"]]
    metric = "pr_auc_splice"
    gap, rule = report["difference"][metric], f"{_BETTER}:{metric}"
    against = [
        f"the {words}, version {found.get('version')}"
        for name, words in _CHAMPIONS.items()
        if (found := evaluation.get(name) or {}).get("scored")
    ]
    others = f"; it is not worse than {' or '.join(against)}" if against else ""
    if gap["low"] is None or gap["low"] <= 0:
        return Verdict(f"no rule failed; a gain over the base was not required{others}", "", rule)
    return Verdict(f"better than the base ({JUDGED[metric]} {gap['value']:+.4f}), and no rule failed{others}", "", rule)


def _rejection(evaluation: Mapping[str, Any], decision: Mapping[str, Any], more: str) -> tuple[str, str, str]:
    """Why, what to do next, and the rule, or the beginning of its name; an empty one is the first that failed."""
    failed = {str(reason["rule"]): str(reason["text"]) for reason in decision["reasons"] if not reason["passed"]}
    report = evaluation.get(str(evaluation.get("primary"))) or {}
    there, needed = report.get("clusters_with") or {}, report.get("clusters_needed")
    if needed and there and min(there.values()) < needed:
        have = " and ".join(f"{count} with {name}s" for name, count in there.items())
        return (
            f"too few test genes to tell whether it is better: {have} (clusters of genes; overlapping ones count as "
            f"one), and an interval needs {needed} of each",
            f"test on more genes: {more}",
            "",
        )
    if SEEN_BY_BASE in failed:
        seen = evaluation["seen_by_base"]
        return (
            f"test genes are not held out of the base: {seen['note']}",
            new_to_base(seen["unseen_chroms"]),
            SEEN_BY_BASE,
        )
    if worse := _clearly_worse(evaluation, report, failed):
        why, rule = worse
        return why, f"{_TRAIN}, or with another encoder (model.sequence_encoder)", rule
    rule = next((rule for first in _FIRST for rule in failed if rule.partition(":")[0] == first), next(iter(failed)))
    kind, _, metric = rule.partition(":")
    if kind == ROWS and (rows := evaluation.get("row_answers")) and metric.startswith("not_worse_than_base:"):
        asked = "where single rows are asked for, which lack the base scores around a position"
        why, advice = _perhaps_worse(rows, metric.partition(":")[2], "the base", more)
        return f"{asked}: {why}", advice, rule
    if kind == _BETTER:
        return *_not_better(report, metric, more), rule
    if kind == "not_worse_than_base":
        return *_perhaps_worse(report, metric, "the base", more), rule
    if kind == NOT_WORSE_THAN_MEAN:
        return *_perhaps_worse(against_mean(report), metric, f"the {MEAN_IN_WORDS}", more), rule
    if kind == "absolute_floor":
        return failed[rule], f"{_TRAIN}; gate.min_pr_auc_splice is the floor", rule
    if kind == CALIBRATION:
        meta, base = (report[system][PER_SITE] for system in ("meta", "base"))
        figures = f"log loss per site {meta:.3f} against {base:.3f}"
        there = count_of(report["clusters"], "gene cluster")
        perhaps = f"perhaps as right as those of the base ({figures}); {there} cannot tell"
        return (
            f"its probabilities are {perhaps if meta < base else f'less right than those of the base ({figures})'}",
            f"validate on more genes, which calibrate it, or test on more: {more}",
            rule,
        )
    for name, words in _CHAMPIONS.items():
        if kind == f"not_worse_than_{name}":
            found = evaluation.get(name) or {}
            who = f"the {words}, version {found.get('version', 'unknown')}"
            if not found.get("scored"):
                return f"{who}, cannot be compared with: {found.get('error') or 'no reason given'}", RETIRE, rule
            return *_perhaps_worse(found, metric or "pr_auc_splice", who, more), rule
    return failed[rule], f"see the report, or test on more genes: {more}", rule


def _not_better(report: Mapping[str, Any], metric: str, more: str) -> tuple[str, str]:
    gap = report["difference"][metric]
    name, value = JUDGED[metric], gap["value"]
    if value <= 0:
        return (
            f"no better than the base on these genes ({name} {value:+.4f})",
            f"{_TRAIN}, or with another encoder (model.sequence_encoder)",
        )
    clusters, shown = report["clusters"], report["resolution"][metric]["smallest_gain"]
    about = math.ceil(clusters * (shown / value) ** 2) if shown else None
    slightly = "slightly " if value < _SLIGHT else ""
    there = count_of(clusters, "gene cluster")
    why = f"perhaps {slightly}better than the base ({name} {value:+.4f}); {there} cannot show it"
    if about is None or about <= clusters:
        return why, f"test on more genes: {more}"
    advice = (_TRAIN, f"or test on more: {more}") if about > _MANY * clusters else (f"test on more genes: {more}",)
    return f"{why}: about {_rounded(about):,} would", "; ".join(advice)


def _perhaps_worse(report: Mapping[str, Any], metric: str, who: str, more: str) -> tuple[str, str]:
    name, value = JUDGED[metric], report["difference"][metric]["value"]
    perhaps = "perhaps as good as" if value >= 0 else "perhaps worse than"
    return (
        f"{perhaps} {who} in {name} ({value:+.4f}); {count_of(report['clusters'], 'gene cluster')} cannot tell",
        f"test on more genes: {more}",
    )


def _clearly_worse(
    evaluation: Mapping[str, Any], report: Mapping[str, Any], failed: Mapping[str, str]
) -> tuple[str, str] | None:
    """Than what a model is shown to be worse, in words, and the beginning of the rule's name; None where it is not."""
    sides = [("base", report, "the base"), ("mean", against_mean(report), f"the {MEAN_IN_WORDS}")]
    for name, words in _CHAMPIONS.items():
        found = evaluation.get(name) or {}
        sides.append((name, found, f"the {words}, version {found.get('version')}"))
    for name, found, who in sides:
        gaps = found.get("difference") or {}
        for metric in JUDGED:
            high = (gaps.get(metric) or {}).get("high")
            named = [rule for rule in failed if rule.startswith(f"not_worse_than_{name}")]
            if high is not None and high < 0 and named:
                why = f"worse than {who}: {JUDGED[metric]} {gaps[metric]['value']:+.4f}"
                return why, next((rule for rule in named if rule.endswith(f":{metric}")), named[0])
    return None


def _rounded(count: int) -> int:
    """To two digits: it is an estimate."""
    step: int = 10 ** max(0, len(str(count)) - 2)
    return math.ceil(count / step) * step
