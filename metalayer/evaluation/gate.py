"""The gate: a pure decision from an evaluation and a policy, with every reason.

A metric that is missing or no number fails its rule; nothing here raises for what an evaluation says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from metalayer.config import GateConfig
from metalayer.evaluation.tables import lacking_clusters, resolution_note

_NAMES = {"pr_auc_splice": "PR-AUC splice", "ap_donor": "donor AP", "ap_acceptor": "acceptor AP"}


@dataclass(frozen=True)
class Reason:
    """One rule, whether it passed, and the numbers in words."""

    rule: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Decision:
    """Promoted if and only if every rule passed."""

    promoted: bool
    reasons: tuple[Reason, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"promoted": self.promoted, "reasons": [asdict(reason) for reason in self.reasons]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """From `to_dict`."""
        return cls(bool(values["promoted"]), tuple(Reason(**reason) for reason in values["reasons"]))


def decide(evaluation: Mapping[str, Any], policy: GateConfig) -> Decision:
    """Decide from the primary report of an evaluation (all positions where they were scored, else rows).

    Args:
        evaluation: of `workflows.evaluate`.
        policy: the bar.
    """
    report = evaluation.get(str(evaluation.get("primary"))) or {}
    reasons = [_floor(report, policy)]
    for metric in ("ap_donor", "ap_acceptor"):
        reasons.append(_above(report, metric, -policy.margin, "not_worse_than_base", "base"))
    better = _above(report, "pr_auc_splice", policy.min_gain, "better_than_base", "base")
    if not better.passed and _number(report, "resolution", "pr_auc_splice", "smallest_gain") is not None:
        better = replace(better, text=f"{better.text}; {resolution_note(report)}")
    if not policy.require_better_than_base:
        known = _number(report, "difference", "pr_auc_splice", "value") is not None
        better = Reason(better.rule, known, f"{better.text} (not required: gate.require_better_than_base)")
    reasons.append(better)
    reasons.extend(_champion(evaluation.get("champion", {}), policy))
    return Decision(all(reason.passed for reason in reasons), tuple(reasons))


def _floor(report: Mapping[str, Any], policy: GateConfig) -> Reason:
    value = _number(report, "meta", "pr_auc_splice")
    rule, floor = "absolute_floor", policy.min_pr_auc_splice
    if value is None:
        return Reason(rule, passed=False, text="PR-AUC splice of the model is missing or no number")
    word = "reaches" if value >= floor else "is below"
    return Reason(rule, value >= floor, f"PR-AUC splice {value:.4f} {word} the floor of {floor:g}")


def _above(report: Mapping[str, Any], metric: str, bound: float, rule: str, other: str) -> Reason:
    """The lower end of the paired interval of `metric` lies above `bound`."""
    name = f"{rule}:{metric}"
    low, value = _number(report, "difference", metric, "low"), _number(report, "difference", metric, "value")
    high = _number(report, "difference", metric, "high")
    if value is None:
        return Reason(
            name, passed=False, text=f"{_NAMES[metric]}: the difference to the {other} is missing or no number"
        )
    if low is None or high is None:
        text = f"{_NAMES[metric]}: difference to the {other} {value:+.4f}, but no interval: {_no_interval(report)}"
        return Reason(name, passed=False, text=text)
    passed = low > bound
    aim = "better than" if bound > 0 or rule == "better_than_base" else "not worse than"
    text = (
        f"{_NAMES[metric]} {'is' if passed else 'is not shown to be'} {aim} that of the {other}: "
        f"difference {value:+.5f} ({low:+.5f} to {high:+.5f}), lower end must be above {bound:g}"
    )
    return Reason(name, passed, text)


def _no_interval(report: Mapping[str, Any]) -> str:
    """Why a report has no interval."""
    there = [_number(report, "clusters_with", name) for name in ("donor", "acceptor")]
    if None in there or _number(report, "clusters_needed") is None:
        return "it is missing or no number"
    return lacking_clusters(report) or "a bound is missing or no number"


def _champion(champion: Any, policy: GateConfig) -> list[Reason]:
    rule = "not_worse_than_champion"
    if champion is None:
        return [Reason(rule, passed=True, text="there is no champion yet")]
    if not isinstance(champion, Mapping) or not champion:
        return [Reason(rule, passed=False, text="the evaluation does not say whether there is a champion")]
    who = f"champion (version {champion.get('version', 'unknown')})"
    if not champion.get("scored"):
        cause = champion.get("error") or "no reason given"
        return [Reason(rule, passed=False, text=f"the {who} could not be scored: {cause}")]
    return [_above(champion, metric, -policy.margin, rule, who) for metric in _NAMES]


def _number(values: Mapping[str, Any], *path: str) -> float | None:
    """The finite number at `path`, else None."""
    found: Any = values
    for key in path:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return float(found)
