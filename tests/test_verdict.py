"""The reason of a rejection in a sentence, and what to do next."""

from typing import Any

import pytest

from metalayer.evaluation.gate import decide
from metalayer.evaluation.verdict import verdict
from metalayer.metric_list import JUDGED
from metalayer.settings.sections import GateConfig
from metalayer.workflows.outcome import decision_lines, model_lines

MORE = "more chromosomes"


def judged(
    value: float, half: float, *, clusters: int = 21, log_loss: float = 0.4, champion: dict[str, Any] | None = None
) -> dict[str, Any]:
    """An evaluation whose judged differences to the base are all `value`, with intervals of `half` on both sides."""
    report = {
        "unit": "positions",
        "genes": clusters,
        "sites": {"donor": 20},
        "same_precision": {"donor": {"precision": 0.5, "base": 11, "meta": 12}},
        "clusters": clusters,
        "clusters_with": {"donor": clusters, "acceptor": clusters - 1},
        "clusters_needed": 5,
        "meta": {"pr_auc_splice": 0.8, "log_loss_per_site": log_loss},
        "base": {"pr_auc_splice": 0.8 - value, "log_loss_per_site": 0.5},
        "difference": differences(value, half, clusters)
        | {"log_loss_per_site": {"value": log_loss - 0.5, "low": log_loss - 0.52, "high": log_loss - 0.48}},
        "resolution": {
            "power": 0.8,
            "stated_gain": 0.005,
            "pr_auc_splice": {"smallest_gain": 1.4 * half, "clusters_for_stated_gain": 99},
        },
    }
    return {
        "primary": "positions",
        "positions": report,
        "ways": {"positions": {}, "rows": {"own_calibration": False}},
        "champion": champion,
        "best_champion": None,
    }


def differences(value: float, half: float, clusters: int = 21) -> dict[str, dict[str, float | None]]:
    low, high = (value - half, value + half) if clusters > 5 else (None, None)
    return {name: {"value": value, "low": low, "high": high} for name in JUDGED}


def with_log_loss(evaluation: dict[str, Any], value: float, half: float) -> dict[str, Any]:
    """The evaluation with an interval of `half` on both sides of the difference in log loss."""
    gap = {"value": value, "low": value - half, "high": value + half}
    report = evaluation["positions"]
    return evaluation | {"positions": report | {"difference": report["difference"] | {"log_loss_per_site": gap}}}


def told(evaluation: dict[str, Any], **policy: Any) -> tuple[str, str]:
    decision = decide(evaluation, GateConfig(**policy)).to_dict()
    assert not decision["promoted"]
    return verdict(evaluation, decision, MORE)[:2]


def test_a_gain_that_these_genes_cannot_show() -> None:
    """Four times the clusters halve the interval."""
    why, advice = told(judged(0.005, 0.008))
    assert why == (
        "perhaps slightly better than the base (PR-AUC splice +0.0050); 21 gene clusters cannot show it: "
        "about 110 would"  # 21 * (1.4 * .008 / .005) ** 2 = 105.4
    )
    assert advice == "test on more genes: more chromosomes"
    why, advice = told(judged(0.0005, 0.004))
    assert why.endswith("about 2,700 would")
    assert advice == "train on more genes or longer (train.max_epochs); or test on more: more chromosomes"
    assert told(judged(0.02, 0.03))[0].startswith("perhaps better than the base")


@pytest.mark.parametrize(
    ("evaluation", "policy", "why"),
    [
        (judged(-0.001, 0.002), {}, "no better than the base on these genes (PR-AUC splice -0.0010)"),
        (judged(-0.02, 0.002), {}, "worse than the base: PR-AUC splice -0.0200"),
        (
            judged(0.1, 0.2, clusters=4),
            {},
            "too few test genes to tell whether it is better: 4 with donors and 3 with acceptors (clusters of genes; "
            "overlapping ones count as one), and an interval needs 5 of each",
        ),
        (
            judged(0.01, 0.001, log_loss=0.6),
            {},
            "its probabilities are less right than those of the base (log loss per site 0.600 against 0.500)",
        ),
        (
            with_log_loss(judged(0.01, 0.001), -0.1, 0.2),
            {},
            "its probabilities are perhaps as right as those of the base (log loss per site 0.400 against 0.500); "
            "21 gene clusters cannot tell",
        ),
        (judged(0.01, 0.001), {"min_pr_auc_splice": 0.9}, "PR-AUC splice 0.8000 is below the floor of 0.9"),
        (
            judged(0.01, 0.001, champion={"version": 3, "scored": True, "clusters": 20} | {"difference": {}}),
            {},
            None,
        ),
    ],
)
def test_reasons(evaluation: dict[str, Any], policy: dict[str, Any], why: str | None) -> None:
    if why is None:
        champion = evaluation["champion"]
        champion["difference"] = differences(-0.02, 0.001)
        assert told(evaluation)[0] == "worse than the champion, version 3: PR-AUC splice -0.0200"
        champion["difference"] = differences(-0.001, 0.004)
        why, advice = told(evaluation)
        assert (
            why == "perhaps worse than the champion, version 3 in PR-AUC splice (-0.0010); 20 gene clusters cannot tell"
        )
        assert advice == f"test on more genes: {MORE}"
        champion |= {"scored": False, "error": "its files are damaged"}
        why, advice = told(evaluation)
        assert why == "the champion, version 3, cannot be compared with: its files are damaged"
        assert "registry retire" in advice
        return
    assert told(evaluation, **policy)[0] == why


def test_the_untrained_mean_of_several() -> None:
    evaluation = judged(0.02, 0.001)
    evaluation["positions"]["differences"] = {"mean": differences(0.001, 0.02)}
    why, advice = told(evaluation)
    assert why.startswith("perhaps as good as the untrained mean of the base models in donor AP (+0.0010); 21 gene")
    assert advice.startswith("test on more genes")
    evaluation["positions"]["differences"] = {"mean": differences(-0.03, 0.01)}
    assert told(evaluation)[0].startswith("worse than the untrained mean of the base models: ")


def test_answers_to_rows() -> None:
    evaluation = judged(0.05, 0.001)
    evaluation["ways"]["rows"]["own_calibration"] = True
    evaluation["row_answers"] = judged(0.001, 0.009)["positions"]
    why, advice = told(evaluation)
    assert why == (
        "where single rows are asked for, which lack the base scores around a position: perhaps as good as the base in "
        "donor AP (+0.0010); 21 gene clusters cannot tell"
    )
    assert advice == "test on more genes: more chromosomes"


def test_the_reason_comes_before_the_rules() -> None:
    evaluation = judged(0.005, 0.008)
    lines = decision_lines(evaluation, decide(evaluation, GateConfig()).to_dict(), MORE)
    assert lines[0] == "gate: rejected"
    assert [line.split()[0] for line in lines[1:4]] == ["found", "why", "next"]
    assert "finds 12 of the 20 donors, 1 more than the base at the same precision" in lines[1]
    assert lines[4].startswith("  FAILED")
    good = judged(0.05, 0.008)
    lines = decision_lines(good, decide(good, GateConfig()).to_dict(), MORE)
    assert lines[0] == "gate: promoted"
    assert not any("why" in line for line in lines)


def test_how_a_rejected_version_is_asked_for() -> None:
    made = {"name": "metalayer-pwm", "version": 4, "champion_again": False}
    lines = model_lines(made, {"alias": "challenger"}, {"tag": None, "reason": "no"}, lambda *given: " ".join(given))
    assert lines == [
        "model   metalayer-pwm version 4, alias challenger",
        "        serve --model pwm/4 serves it all the same, and says what it is",
        "Bento   no",
    ]


@pytest.mark.parametrize(
    ("value", "half", "text"),
    [
        (0.02, 0.001, "donor AP is not worse than that of the base: "),
        (-0.002, 0.004, "donor AP is not shown to be as good as that of the base: "),
        (-0.02, 0.001, "donor AP is worse than that of the base: "),
    ],
)
def test_rules_say_what_was_shown(value: float, half: float, text: str) -> None:
    reasons = decide(judged(value, half), GateConfig()).reasons
    found = next(reason for reason in reasons if reason.rule == "not_worse_than_base:ap_donor")
    assert found.text.startswith(text)
