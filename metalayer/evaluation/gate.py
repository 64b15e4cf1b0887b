"""The gate: a pure decision from an evaluation and a policy, with every reason.

A metric that is missing or no number fails its rule; nothing here raises for what an evaluation says.

What is served is judged: where a model answers rows otherwise than positions (`ways` of the evaluation), the rules
`rows:...` judge those answers too, on all positions of the test genes. Calibration is judged by log loss, not by ECE:
resampling can only widen the gaps in ECE's bins, so that its resamples lie above its value, and near 0 nothing but
noise decides. Log loss is a sum over positions, which resampling leaves unbiased, and being honest minimises it. Its
rule is relative to the base's and per true site, so that it holds for any share of sites; a model that equals its
base, with a difference of 0 in every resample, passes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from metalayer.evaluation.tables import lacking_clusters, resolution_note
from metalayer.metric_list import JUDGED
from metalayer.schema import POSITIONS, ROWS
from metalayer.settings.sections import GateConfig

CALIBRATION, PER_SITE = "calibration", "log_loss_per_site"
SEEN_BY_BASE = "held_out_of_base"
MEAN = "mean"
"""Of a model of several base models: their untrained mean, among the systems of its report."""
NOT_WORSE_THAN_MEAN, MEAN_IN_WORDS = "not_worse_than_mean", "untrained mean of the base models"
RETIRE = "`metalayer registry retire --reason TEXT` takes that champion out of the line"


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
    reasons = [*_held_out_of_base(evaluation.get("seen_by_base"), policy), _floor(report, policy)]
    for metric in ("ap_donor", "ap_acceptor"):
        reasons.append(_above(report, metric, -policy.margin, "not_worse_than_base", "base"))
    reasons.extend(_mean(report, policy))
    better = _above(report, "pr_auc_splice", policy.min_gain, "better_than_base", "base")
    better = replace(better, text=f"{better.text}{_looks(evaluation)}")
    if not better.passed and _number(report, "resolution", "pr_auc_splice", "smallest_gain") is not None:
        better = replace(better, text=f"{better.text}; {resolution_note(report)}")
    if not policy.require_better_than_base:
        known = _number(report, "difference", "pr_auc_splice", "value") is not None
        better = Reason(better.rule, known, f"{better.text} (not required: gate.require_better_than_base)")
    reasons.append(better)
    reasons.append(_calibration(report, policy, CALIBRATION, "answers"))
    reasons.extend(_rows(evaluation, policy))
    reasons.extend(_champion(evaluation.get("champion", {}), policy))
    reasons.extend(_best_champion(evaluation.get("best_champion"), policy))
    return Decision(all(reason.passed for reason in reasons), tuple(reasons))


def new_to_base(chroms: Sequence[str]) -> str:
    """What to do where test genes are those that the base model was trained on.

    Args:
        chroms: human chromosomes that it was not trained on.
    """
    if chroms:
        return f"test on chromosomes that are new to the base: {', '.join(chroms)} (split.test_chroms)"
    return (
        "no human chromosome is new to the base, so no human gene is held out: take another base model, or genes of "
        "another species, or accept this with gate.allow_seen_by_base=true"
    )


def _held_out_of_base(seen: Any, policy: GateConfig) -> list[Reason]:
    """Test genes that the base model was trained on are left out, or say nothing of how it does on new ones."""
    if not seen:
        return []
    if seen.get("left_out"):
        return [Reason(SEEN_BY_BASE, passed=True, text=f"test genes: {seen['note']}; these are left out")]
    if policy.allow_seen_by_base:
        text = f"test genes: {seen['note']}; they count all the same (gate.allow_seen_by_base)"
        return [Reason(SEEN_BY_BASE, passed=True, text=text)]
    text = f"test genes: {seen['note']}; {new_to_base(seen['unseen_chroms'])}"
    return [Reason(SEEN_BY_BASE, passed=False, text=text)]


def against_mean(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report with differences to the untrained mean of several base models; empty where there is none."""
    differences = report.get("differences")
    return (
        {**report, "difference": differences[MEAN]} if isinstance(differences, Mapping) and MEAN in differences else {}
    )


def _mean(report: Mapping[str, Any], policy: GateConfig) -> list[Reason]:
    """Not worse than what several base models say together before anything is learned."""
    against = against_mean(report)
    metrics = ("ap_donor", "ap_acceptor") if against else ()
    return [_above(against, metric, -policy.margin, NOT_WORSE_THAN_MEAN, MEAN_IN_WORDS) for metric in metrics]


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
            name, passed=False, text=f"{JUDGED[metric]}: the difference to the {other} is missing or no number"
        )
    if low is None or high is None:
        text = f"{JUDGED[metric]}: difference to the {other} {value:+.4f}, but no interval: {_no_interval(report)}"
        return Reason(name, passed=False, text=text)
    passed = low > bound
    wants_more = bound > 0 or rule == "better_than_base"
    if passed:
        found = "better than" if wants_more else "not worse than"
    elif high is not None and high < 0:
        found = "worse than"
    else:
        found = f"not shown to be {'better than' if wants_more else 'as good as'}"
    text = (
        f"{JUDGED[metric]} is {found} that of the {other}: "
        f"difference {value:+.5f} ({low:+.5f} to {high:+.5f}), lower end must be above {bound:g}"
    )
    return Reason(name, passed, text)


def _no_interval(report: Mapping[str, Any]) -> str:
    """Why a report has no interval."""
    there = [_number(report, "clusters_with", name) for name in ("donor", "acceptor")]
    if None in there or _number(report, "clusters_needed") is None:
        return "it is missing or no number"
    return lacking_clusters(report) or "a bound is missing or no number"


def _calibration(report: Mapping[str, Any], policy: GateConfig, rule: str, what: str) -> Reason:
    """The upper end of the paired interval of log loss per site is at most `log_loss_margin` of the base's."""
    base, meta = (_number(report, system, PER_SITE) for system in ("base", "meta"))
    low, value, high = (_number(report, "difference", PER_SITE, end) for end in ("low", "value", "high"))
    name = f"log loss per site of {what}"
    if base is None or meta is None or value is None:
        return Reason(rule, passed=False, text=f"{name}, or of the base, is missing or no number")
    if low is None or high is None:
        text = f"{name}: difference to the base {value:+.4f}, but no interval: {_no_interval(report)}"
        return Reason(rule, passed=False, text=text)
    allowed = policy.log_loss_margin * base
    passed = high <= allowed
    found = "" if passed else f" is {'worse than' if low > 0 else 'not shown to be as good as'} that of the base"
    text = (
        f"{name}{found}: {meta:.4f} against {base:.4f}, difference {value:+.4f} ({low:+.4f} to {high:+.4f}), upper end "
        f"must be at most {allowed:.4f}, {100 * policy.log_loss_margin:g} % of the base's"
    )
    return Reason(rule, passed, text)


def _rows(evaluation: Mapping[str, Any], policy: GateConfig) -> list[Reason]:
    """Rules of what rows are answered, where that is not what positions are."""
    ways = evaluation.get("ways")
    if not isinstance(ways, Mapping) or not {POSITIONS, ROWS} <= ways.keys():
        return [Reason(f"{ROWS}:evaluated", passed=False, text="the evaluation does not say how rows are answered")]
    if not ways[ROWS].get("own_calibration"):
        return []
    report = evaluation.get("row_answers") or {}
    reasons = []
    if evaluation.get("primary") != POSITIONS:
        text = (
            "the model reads base scores around a position, and too few test genes have them to judge that: give "
            "per-nucleotide scores of the test genes, or train a model without track_encoder"
        )
        reasons.append(Reason(f"{POSITIONS}:evaluated", passed=False, text=text))
    for metric in ("ap_donor", "ap_acceptor"):
        found = _above(report, metric, -policy.margin, "not_worse_than_base", "base")
        reasons.append(Reason(f"{ROWS}:{found.rule}", found.passed, f"answers to rows: {found.text}"))
    return [*reasons, _calibration(report, policy, f"{ROWS}:{CALIBRATION}", "answers to rows")]


def _looks(evaluation: Mapping[str, Any]) -> str:
    """How often the test genes have decided, in words."""
    before, confidence = _number(evaluation, "looks", "decisions"), _number(evaluation, "looks", "confidence")
    if before is None or confidence is None or before < 2:
        return ""
    return f"; decision {before:.0f} on these test genes, so the interval is of {100 * confidence:.4g} %"


def _champion(champion: Any, policy: GateConfig) -> list[Reason]:
    rule = "not_worse_than_champion"
    if champion is None:
        return [Reason(rule, passed=True, text="there is no champion yet")]
    if not isinstance(champion, Mapping) or not champion:
        return [Reason(rule, passed=False, text="the evaluation does not say whether there is a champion")]
    who = f"champion (version {champion.get('version', 'unknown')})"
    if not champion.get("scored"):
        cause = champion.get("error") or "no reason given"
        return [Reason(rule, passed=False, text=f"the {who} could not be scored: {cause}. {RETIRE}")]
    return [_against(champion, metric, policy, rule, who) for metric in JUDGED]


def _best_champion(best: Any, policy: GateConfig) -> list[Reason]:
    """Without it each champion may be worse than the last by the margin, one after the other."""
    rule = "not_worse_than_best_champion"
    if not isinstance(best, Mapping):
        return []
    if not best.get("scored"):
        causes = "; ".join(f"version {version}: {cause}" for version, cause in (best.get("left_out") or {}).items())
        return [Reason(rule, passed=True, text=f"no earlier champion can be compared ({causes or best.get('error')})")]
    who = f"best champion of the line (version {best.get('version', 'unknown')}, of {best.get('compared')} compared)"
    return [_against(best, "pr_auc_splice", policy, rule, who)]


def _against(champion: Mapping[str, Any], metric: str, policy: GateConfig, rule: str, who: str) -> Reason:
    """Not worse than a champion; with how its answers were had, and what to do where there can be no interval."""
    found = _above(champion, metric, -policy.margin, rule, who)
    text = found.text
    if champion.get("by") and champion.get("exact_to"):
        text += f", by the {champion['by']}, exact to {_number(champion, 'exact_to', metric) or 0.0:.0e}"
    low, value, high = (_number(champion, "difference", metric, end) for end in ("low", "value", "high"))
    is_worse = high is not None and high < 0  # which more genes would not change
    if not found.passed and low is None:
        text += f". {RETIRE}"
    elif not (found.passed or is_worse) and low is not None and value is not None and value - low > policy.margin:
        text += f"; these test genes show differences of {value - low:.4f} and more only: test on more genes"
    return replace(found, text=text)


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
