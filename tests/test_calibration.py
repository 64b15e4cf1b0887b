"""Calibration finds a planted distortion and leaves alone what it cannot improve."""

import numpy as np
import pytest
from scipy.special import softmax

from metalayer.errors import EvaluationError
from metalayer.evaluation.calibration import Calibration, fit
from metalayer.schema import ACCEPTOR, DONOR, NEITHER


def sample(n=40_000, seed=0):
    """Probabilities that are true by construction, and classes drawn from them."""
    rng = np.random.default_rng(seed)
    p = softmax(rng.normal([-4.0, -4.0, 0.0], [2.5, 2.5, 0.5], (n, 3)), axis=1)
    labels = (rng.random((n, 1)) > np.cumsum(p, axis=1)[:, :2]).sum(axis=1)
    return p, labels.astype(np.uint8)


def nll(p, labels, weights=None):
    return np.average(-np.log(p[np.arange(len(p)), labels]), weights=weights)


def test_a_planted_distortion_is_undone():
    p, labels = sample()
    true = Calibration(scale=0.6, bias=(0.5, -0.4, 0.0))
    distorted = softmax((np.log(p) - np.array(true.bias)) / true.scale, axis=1)
    found = fit(distorted, labels)
    assert found.scale == pytest.approx(0.6, abs=0.03)
    assert found.bias == pytest.approx((0.5, -0.4, 0.0), abs=0.12)
    assert found.reason == ""
    assert nll(found.apply(distorted), labels) == pytest.approx(nll(p, labels), rel=0.005)


def test_the_optimum_is_reached_where_sites_are_rare():
    p, labels = sample()
    rare = np.concatenate([p, np.tile([1e-7, 1e-7, 1 - 2e-7], (150_000, 1))])
    labels = np.concatenate([labels, np.full(150_000, NEITHER, dtype=np.uint8)])
    distorted = softmax(np.log(rare) * 1.5, axis=1)
    found = fit(distorted, labels)
    best = nll(found.apply(distorted), labels)
    for step in (0.97, 1.03):
        moved = Calibration(found.scale * step, found.bias)
        assert nll(moved.apply(distorted), labels) > best


def test_weights_count_like_repeated_rows():
    p, labels = sample(3000)
    times = np.random.default_rng(1).integers(0, 4, len(labels))
    weighted = fit(p, labels, times)
    repeated = fit(np.repeat(p, times, axis=0), np.repeat(labels, times))
    assert weighted.scale == pytest.approx(repeated.scale, abs=1e-3)
    assert weighted.bias == pytest.approx(repeated.bias, abs=1e-3)


@pytest.mark.parametrize(("missing", "name"), [(DONOR, "donor"), (ACCEPTOR, "acceptor")])
def test_a_missing_class_leaves_probabilities_as_they_are_and_says_why(missing, name):
    p, labels = sample(500)
    found = fit(p[labels != missing], labels[labels != missing])
    assert found == Calibration(reason=f"no {name} to fit on")
    assert found.apply(p) == pytest.approx(p)


def test_zero_probabilities_stay_finite_and_rows_sum_to_one():
    out = Calibration(1.3, (0.2, -0.1, 0.0)).apply(np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=np.float32))
    assert np.isfinite(out).all()
    assert out.sum(axis=1) == pytest.approx([1.0, 1.0])


def test_perfectly_separated_classes_end_at_the_bounds_not_in_infinity():
    p = np.repeat([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]], 50, axis=0)
    found = fit(p, np.repeat([0, 1, 2], 50))
    assert 1.0 < found.scale <= 20.0


def test_what_is_no_probability_or_no_weight_is_refused():
    p, labels = sample(100)
    with pytest.raises(EvaluationError, match="calibration: 1 of 100 rows"):
        fit(np.where(np.arange(100)[:, None] == 3, np.nan, p), labels)
    with pytest.raises(EvaluationError, match="not negative"):
        fit(p, labels, np.full(100, -1.0))
