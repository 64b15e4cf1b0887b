import math

import numpy as np
import pytest

from metalayer.base import load_base_model
from metalayer.base.pwm import SITE_FREQUENCIES, PwmModel
from metalayer.errors import ConfigError, InputError
from metalayer.schema import ACCEPTOR, DONOR, NEITHER

PRIOR = 0.01
DONOR_MOTIF = "CAGGTAAGT"  # the consensus: CAG|GTAAGT, exon base at index 2
ACCEPTOR_MOTIF = "TTTTTTTCTTCCAGG"  # ...CAG|G, exon base at index 14


def test_consensus_donor_by_hand():
    # Shares of C A G | G T A A G T at -3 .. +6, over 1/4 each.
    shares = [0.37, 0.59, 0.80, 1.0, 1.0, 0.53, 0.71, 0.81, 0.46]
    odds = math.prod(share / 0.25 for share in shares)
    expected = PRIOR * odds / (PRIOR * odds + 1 - 2 * PRIOR)
    score = PwmModel(prior=PRIOR).score(DONOR_MOTIF)
    assert score[2, DONOR] == pytest.approx(expected, rel=0.01)  # the floor moves shares of 0 by 0.1 %
    assert score[2, DONOR] > 0.95
    assert score[:, DONOR].argmax() == 2


def test_consensus_acceptor_sits_on_the_first_exonic_base():
    score = PwmModel(prior=PRIOR).score(ACCEPTOR_MOTIF + "CCC")
    assert score[:, ACCEPTOR].argmax() == 14
    assert score[14, ACCEPTOR] > 0.9


def test_scores_are_float32_probabilities():
    letters = "".join(np.random.default_rng(0).choice(list("ACGTN"), 500))
    score = PwmModel().score(letters)
    assert score.dtype == np.float32 and score.shape == (500, 3)
    assert (score >= 0).all()
    np.testing.assert_allclose(score.sum(axis=1), 1.0, atol=1e-6)


def test_n_says_nothing():
    score = PwmModel(prior=PRIOR).score("N" * 20)
    np.testing.assert_allclose(score, np.tile([PRIOR, PRIOR, 1 - 2 * PRIOR], (20, 1)), rtol=1e-6)


def test_flanks_are_read_and_missing_ones_are_n():
    model = PwmModel()
    letters = "".join(np.random.default_rng(1).choice(list("ACGT"), 200))
    whole = model.score(letters)
    part = model.score(letters[50:150], letters[:50], letters[150:])
    np.testing.assert_array_equal(part, whole[50:150])
    n = "N" * model.flank_bp
    np.testing.assert_array_equal(model.score(letters), model.score(letters, n, n))
    reach = model.flank_bp
    np.testing.assert_array_equal(
        model.score(letters[50:150], letters[50 - reach : 50], letters[150 : 150 + reach]), part
    )
    without = model.score(letters[50:150])
    assert (without[reach:-reach] == part[reach:-reach]).all() and (without[0] != part[0]).any()


def test_flank_bp_is_the_reach():
    model = PwmModel()
    changed = []
    letters = "A" * 61
    for at in range(61):
        other = letters[:at] + "C" + letters[at + 1 :]
        if (model.score(other)[30] != model.score(letters)[30]).any():
            changed.append(abs(at - 30))
    assert max(changed) == model.flank_bp


def test_case_does_not_matter_and_other_letters_are_refused():
    model = PwmModel()
    np.testing.assert_array_equal(model.score(DONOR_MOTIF.lower()), model.score(DONOR_MOTIF))
    with pytest.raises(InputError, match="'R'"):
        model.score("ACGRT")


def test_frequencies_add_up():
    for table in SITE_FREQUENCIES.values():
        np.testing.assert_allclose(table.sum(axis=1), 1.0)
    assert SITE_FREQUENCIES[DONOR].shape == (9, 4) and SITE_FREQUENCIES[ACCEPTOR].shape == (15, 4)


def test_base_models_by_name():
    model = load_base_model("pwm", prior=PRIOR)
    assert (model.name, model.flank_bp) == ("pwm", 14)
    assert model.score("N")[0, NEITHER] == pytest.approx(1 - 2 * PRIOR)


def test_unknown_base_model_names_those_that_exist():
    with pytest.raises(
        ConfigError, match=r"'spliceby'.*there are cispliceai, openspliceai, pangolin, pangolin_spliced, pwm, spliceai"
    ):
        load_base_model("spliceby")


def test_unknown_option_names_those_that_exist():
    with pytest.raises(ConfigError, match="its options are prior"):
        load_base_model("pwm", priors=0.1)


@pytest.mark.parametrize("prior", [0.0, 0.5, float("nan")])
def test_impossible_prior(prior):
    with pytest.raises(ConfigError, match="between 0 and"):
        load_base_model("pwm", prior=prior)
