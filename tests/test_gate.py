"""Every rule of the gate, passed and failed."""

import copy
import json
import math

import numpy as np
import pytest
from scored_genes import make_genes

from metalayer.evaluation.calibration import Calibration
from metalayer.evaluation.gate import Decision, decide
from metalayer.evaluation.looks import widened
from metalayer.evaluation.metrics import GeneScores
from metalayer.evaluation.report import evaluate
from metalayer.settings.sections import EvaluateConfig, GateConfig

FLOOR, BETTER = "absolute_floor", "better_than_base:pr_auc_splice"
DONOR, ACCEPTOR = "not_worse_than_base:ap_donor", "not_worse_than_base:ap_acceptor"
MEAN = "not_worse_than_mean:ap_donor"
CHAMPION, CALIBRATION = "not_worse_than_champion", "calibration"
ROW_RULES = ["rows:not_worse_than_base:ap_donor", "rows:not_worse_than_base:ap_acceptor", "rows:calibration"]
METRICS = ("pr_auc_splice", "ap_donor", "ap_acceptor")


def difference(value=0.05, low=0.02, high=0.08):
    return {metric: {"value": value, "low": low, "high": high} for metric in METRICS}


def good():
    return {"primary": "positions", "positions": compared(), "rows": {}, "ways": ways(), "champion": None}


def compared(log_loss=(-0.001, -0.002, 0.0)):
    """A report of a model whose log loss differs from the base's by value, low, high."""
    gap = dict(zip(("value", "low", "high"), log_loss, strict=True))
    return {
        "base": {"log_loss_per_site": 0.004},
        "meta": dict.fromkeys(METRICS, 0.8) | {"log_loss_per_site": 0.004 + log_loss[0]},
        "difference": difference() | {"log_loss_per_site": gap},
    }


def ways(own=False):
    return {way: {"note": "answered", "own_calibration": own} for way in ("positions", "rows")}


def good_rows(**changes):
    """An evaluation of a model that answers rows otherwise than positions."""
    return good() | {"ways": ways(own=True), "row_answers": compared()} | changes


def joined(low: float, high: float = 0.01):
    """An evaluation of a model of several base models, with its difference to their untrained mean."""
    found = good()
    found["positions"]["differences"] = {"mean": difference(0.002, low, high), "bases.a": difference()}
    return found


def champion(**changes):
    facts = {"scored": True, "error": None, "version": "4", "genes": 20, "difference": difference(0.0, -0.002, 0.002)}
    return facts | changes


def failed(evaluation, **policy):
    decision = decide(evaluation, GateConfig(**policy))
    assert decision.promoted == all(reason.passed for reason in decision.reasons)
    return {reason.rule: reason.text for reason in decision.reasons if not reason.passed}


def changed(path, value):
    evaluation = copy.deepcopy(good())
    *way, last = path.split(".")
    block = evaluation
    for key in way:
        block = block[key]
    if value is KeyError:
        del block[last]
    else:
        block[last] = value
    return evaluation


def test_a_good_model_is_promoted_and_every_rule_is_listed():
    decision = decide(good(), GateConfig())
    assert decision.promoted
    assert [reason.rule for reason in decision.reasons] == [FLOOR, DONOR, ACCEPTOR, BETTER, CALIBRATION, CHAMPION]
    assert decision.reasons[-1].text == "there is no champion yet"


@pytest.mark.parametrize(
    ("path", "value", "rule"),
    [
        ("positions.meta.pr_auc_splice", 0.29, FLOOR),
        ("positions.difference.ap_donor.low", -0.01, DONOR),
        ("positions.difference.ap_acceptor.low", -0.3, ACCEPTOR),
        ("positions.difference.pr_auc_splice.low", 0.0, BETTER),
    ],
)
def test_each_rule_fails_alone_and_says_the_number(path, value, rule):
    found = failed(changed(path, value))
    assert list(found) == [rule]
    assert f"{value:.2f}" in found[rule]


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "0.9", True, KeyError])
@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("positions.meta.pr_auc_splice", FLOOR),
        ("positions.difference.ap_donor.low", DONOR),
        ("positions.difference.ap_acceptor.value", ACCEPTOR),
        ("positions.difference.pr_auc_splice.high", BETTER),
        ("positions.base.log_loss_per_site", CALIBRATION),
        ("positions.difference.log_loss_per_site.high", CALIBRATION),
    ],
)
def test_a_number_that_is_missing_or_none_fails_its_rule(path, rule, value):
    assert list(failed(changed(path, value))) == [rule]


@pytest.mark.parametrize("broken", [{}, {"primary": "positions"}, {"primary": "rows", "rows": None}, {"primary": None}])
def test_an_evaluation_without_a_report_fails_every_rule_and_raises_nothing(broken):
    assert set(failed(broken)) == {FLOOR, DONOR, ACCEPTOR, BETTER, CALIBRATION, "rows:evaluated", CHAMPION}


def test_the_primary_report_decides():
    evaluation = good()
    evaluation["rows"], evaluation["positions"] = evaluation["positions"], {}
    assert failed(evaluation)
    assert not failed(evaluation | {"primary": "rows"})


def seen(left_out, unseen=("1", "3")):
    return good() | {"seen_by_base": {"note": "7 of 9 genes", "unseen_chroms": list(unseen), "left_out": left_out}}


def test_test_genes_that_the_base_was_trained_on_are_left_out_or_fail():
    rule = "held_out_of_base"
    assert failed(seen(left_out=True)) == {}
    assert decide(seen(left_out=True), GateConfig()).reasons[0].text == "test genes: 7 of 9 genes; these are left out"
    assert failed(seen(left_out=False)) == {
        rule: "test genes: 7 of 9 genes; test on chromosomes that are new to the base: 1, 3 (split.test_chroms)"
    }
    text = failed(seen(left_out=False, unseen=()))[rule]
    assert "no human chromosome is new to the base" in text
    assert text.endswith("or accept this with gate.allow_seen_by_base=true")
    accepted = decide(seen(left_out=False), GateConfig(allow_seen_by_base=True))
    assert accepted.promoted
    reason = accepted.reasons[0]
    assert (reason.rule, reason.text) == (
        rule,
        "test genes: 7 of 9 genes; they count all the same (gate.allow_seen_by_base)",
    )


def test_a_gain_may_be_waived_and_is_still_listed():
    evaluation = changed("positions.difference.pr_auc_splice.low", -0.5)
    decision = decide(evaluation, GateConfig(require_better_than_base=False))
    assert decision.promoted
    assert "not required" in next(reason.text for reason in decision.reasons if reason.rule == BETTER)
    missing = changed("positions.difference.pr_auc_splice.value", math.nan)
    assert not decide(missing, GateConfig(require_better_than_base=False)).promoted


def test_the_champion_must_not_be_better_on_any_of_three():
    evaluation = good() | {"champion": champion()}
    assert not failed(evaluation)
    for metric in METRICS:
        worse = copy.deepcopy(evaluation)
        worse["champion"]["difference"][metric]["low"] = -0.02
        assert list(failed(worse)) == [f"{CHAMPION}:{metric}"]
        assert "version 4" in failed(worse)[f"{CHAMPION}:{metric}"]


def test_a_champion_that_could_not_be_scored_fails_with_its_error():
    found = failed(good() | {"champion": {"scored": False, "error": "model.json is damaged", "version": "4"}})
    assert "model.json is damaged" in found[CHAMPION]
    assert "metalayer registry retire" in found[CHAMPION]


def test_a_champion_without_an_interval_fails_with_the_command_that_helps():
    few = champion(difference={metric: {"value": 0.0, "low": None, "high": None} for metric in METRICS})
    found = failed(good() | {"champion": few})
    assert len(found) == 3
    assert all("metalayer registry retire" in text for text in found.values())


def test_genes_that_cannot_show_non_inferiority_are_named_as_the_cause():
    found = failed(good() | {"champion": champion(difference=difference(-0.001, -0.006, 0.004))})
    assert all("differences of 0.0050 and more" in text and "more genes" in text for text in found.values())
    worse = failed(good() | {"champion": champion(difference=difference(-0.004, -0.005, -0.003))})
    assert not any("more genes" in text for text in worse.values())


def test_the_best_champion_of_the_line_must_not_be_better_either():
    """Else each champion may be worse than the last by the margin."""
    best = champion(version=2, compared=5, left_out={})
    evaluation = good() | {"champion": champion(), "best_champion": best}
    assert not failed(evaluation)
    best["difference"] = difference(-0.002, -0.0031, 0.0)
    found = failed(evaluation)
    assert list(found) == ["not_worse_than_best_champion:pr_auc_splice"]
    assert "version 2, of 5 compared" in found["not_worse_than_best_champion:pr_auc_splice"]
    nobody = {"scored": False, "error": None, "compared": 0, "left_out": {"1": "of another schema"}}
    decision = decide(good() | {"champion": champion(), "best_champion": nobody}, GateConfig())
    assert decision.promoted
    assert "version 1: of another schema" in decision.reasons[-1].text


def test_answers_that_were_kept_are_named_with_what_they_are_exact_to():
    kept = champion(by="answers kept with it", exact_to=dict.fromkeys(METRICS, 2e-4))
    decision = decide(good() | {"champion": kept}, GateConfig())
    assert decision.reasons[-1].text.endswith("by the answers kept with it, exact to 2e-04")


def test_how_often_the_test_genes_have_decided_is_said():
    looks = {"decisions": 8, "confidence": widened(0.95, 8)}
    decision = decide(good() | {"looks": looks}, GateConfig())
    [text] = [reason.text for reason in decision.reasons if reason.rule == BETTER]
    assert text.endswith("; decision 8 on these test genes, so the interval is of 98.75 %")
    assert [widened(0.95, n) for n in (0, 1, 2)] == pytest.approx([0.95, 0.95, 0.975])


@pytest.mark.parametrize("value", [KeyError, {}, "yes", []])
def test_an_unclear_champion_fails(value):
    assert list(failed(changed("champion", value))) == [CHAMPION]


def test_an_untrained_model_does_not_pass():
    genes = make_genes(gain=0.0)
    report = evaluate(genes, EvaluateConfig(n_bootstrap=100))
    evaluation = {"primary": "positions", "positions": report, "ways": ways(), "champion": None}
    assert list(failed(evaluation)) == [BETTER]
    assert list(failed(evaluation, min_gain=0.0)) == [BETTER]


def test_a_model_of_shuffled_labels_does_not_pass():
    rng = np.random.default_rng(3)
    genes = [
        GeneScores(g.gene_id, g.chrom, g.labels, g.scores | {"meta": g.scores["base"][rng.permutation(len(g.labels))]})
        for g in make_genes()
    ]
    report = evaluate(genes, EvaluateConfig(n_bootstrap=100))
    assert set(failed({"primary": "positions", "positions": report, "ways": ways(), "champion": None})) == {
        *(FLOOR, DONOR, ACCEPTOR, BETTER, CALIBRATION)
    }


def test_too_few_genes_for_an_interval_fails():
    report = evaluate(make_genes(n_genes=1, gain=4.0), EvaluateConfig(n_bootstrap=100))
    found = failed({"primary": "positions", "positions": report, "ways": ways(), "champion": None})
    assert set(found) == {DONOR, ACCEPTOR, BETTER, CALIBRATION}
    assert "at least 5 clusters" in found[DONOR]
    assert "at least 5 clusters" in found[CALIBRATION]


def test_a_decision_survives_json():
    decision = decide(good(), GateConfig())
    assert Decision.from_dict(json.loads(json.dumps(decision.to_dict()))) == decision


def test_each_way_of_asking_is_judged_alone():
    decision = decide(good_rows(), GateConfig())
    assert decision.promoted
    assert [reason.rule for reason in decision.reasons] == [
        *(FLOOR, DONOR, ACCEPTOR, BETTER, CALIBRATION),
        *(*ROW_RULES, CHAMPION),
    ]
    for rule, worse in zip(ROW_RULES, (compared(), compared(), compared((0.001, 0.0005, 0.0015))), strict=True):
        if rule != "rows:calibration":
            worse["difference"][rule.rpartition(":")[2]]["low"] = -0.02
        assert list(failed(good_rows(row_answers=worse))) == [rule]
    assert list(failed(good_rows(positions=compared((0.001, 0.0005, 0.0015))))) == [CALIBRATION]


@pytest.mark.parametrize("report", [None, {}, KeyError])
def test_answers_to_rows_that_were_not_evaluated_fail(report):
    evaluation = good_rows(row_answers=report)
    if report is KeyError:
        del evaluation["row_answers"]
    assert list(failed(evaluation)) == ROW_RULES


def test_answers_for_positions_that_were_not_evaluated_fail():
    evaluation = good_rows(primary="rows", rows=compared())
    found = failed(evaluation)
    assert list(found) == ["positions:evaluated"]
    assert "give per-nucleotide scores of the test genes" in found["positions:evaluated"]


@pytest.mark.parametrize(
    ("gap", "passes"),
    [
        ((0.0, 0.0, 0.0), True),  # the base itself
        ((0.00001, -0.00002, 0.00004), True),  # noise within 1 % of the base's 0.004
        ((0.00001, -0.00002, 0.0000401), False),
        ((-0.001, -0.003, 0.0005), False),  # better by chance alone
        ((0.0005, 0.0004, 0.0006), False),
    ],
)
def test_log_loss_judges_calibration_relative_to_the_base(gap, passes):
    assert (CALIBRATION not in failed(good() | {"positions": compared(gap)})) == passes
    assert CALIBRATION not in failed(good() | {"positions": compared(gap)}, log_loss_margin=0.2)


@pytest.mark.parametrize("given", [None, {}, {"positions": {}}])
def test_an_evaluation_that_does_not_say_how_rows_are_answered_fails(given):
    assert list(failed(good() | {"ways": given})) == ["rows:evaluated"]


def test_probabilities_under_the_calibration_of_others_fail_and_the_base_passes():
    """Rows under a calibration fitted for other answers: they rank as the base does, and are not what they say."""
    genes = make_genes(n_genes=24, gain=4.0)

    def judged(scale, bias):
        calibration = Calibration(scale, (bias, bias, 0.0))
        rows = [
            GeneScores(g.gene_id, g.chrom, g.labels, g.scores | {"meta": calibration.apply(g.scores["base"])})
            for g in genes
        ]
        config = EvaluateConfig(n_bootstrap=200)
        return failed(good_rows(row_answers=evaluate(rows, config)))

    assert judged(1.0, 0.0) == {}
    assert "rows:calibration" in judged(1.0, 1.5)
    assert "rows:calibration" in judged(3.0, 0.0)


def test_a_model_of_several_is_not_worse_than_their_untrained_mean() -> None:
    rules = {reason.rule for reason in decide(joined(-0.001), GateConfig()).reasons}
    assert {MEAN, "not_worse_than_mean:ap_acceptor"} <= rules
    assert not failed(joined(-0.001))
    worse = failed(joined(-0.02))
    assert worse.keys() == {MEAN, "not_worse_than_mean:ap_acceptor"}
    assert worse[MEAN].startswith(
        "donor AP is not shown to be as good as that of the untrained mean of the base models"
    )
    assert not any("mean" in reason.rule for reason in decide(good(), GateConfig()).reasons)
