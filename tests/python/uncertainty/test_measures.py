"""Measures of probabilities and intervals, against closed forms. No Keras."""

import math

import numpy as np
import pytest

from kerasoptimizers import measures

pytestmark = pytest.mark.once

RANDOM = np.random.default_rng(0)
P = RANDOM.dirichlet([1, 1, 1], size=200)
Y = np.array([RANDOM.choice(3, p=p) for p in P])


def test_known_values():
    p = np.array([[0.8, 0.2], [0.4, 0.6], [0.5, 0.5]])
    y = [0, 0, 1]
    assert measures.nll(y, p) == pytest.approx(-(math.log(0.8) + math.log(0.4) + math.log(0.5)) / 3)
    assert measures.brier(y, p) == pytest.approx((2 * 0.04 + 2 * 0.36 + 2 * 0.25) / 3)
    assert measures.accuracy(y, p) == pytest.approx(1 / 3)
    # Each confidence is in a different bin: |0 - 0.5|, |0 - 0.6| and |1 - 0.8|.
    assert measures.ece(y, p) == pytest.approx((0.5 + 0.6 + 0.2) / 3)
    # All in one bin: mean confidence 1.9 / 3, accuracy 1 / 3.
    assert measures.ece(y, p, bins=1) == pytest.approx((1.9 - 1) / 3)


def test_one_probability_of_two_and_samples():
    p = P[:, :2] / P[:, :2].sum(1, keepdims=True)
    y = (RANDOM.random(200) < p[:, 1]).astype(int)
    samples = np.stack([np.clip(p + d, 0, 1) for d in ([0.01, -0.01], [-0.01, 0.01])])
    samples /= samples.sum(-1, keepdims=True)
    for measure in (measures.nll, measures.brier, measures.ece, measures.temperature):
        expected = measure(y, p)
        for same in (p[:, 1], p[:, 1:], p[None]):
            assert measure(y, same) == pytest.approx(expected)
            assert measure(y[:, None].astype("float32"), same) == pytest.approx(expected)
        assert measure(y, samples) == pytest.approx(measure(y, samples.mean(0)))
        assert measure(y, samples[..., 1:]) == pytest.approx(measure(y, samples.mean(0)))


def test_scikit_learn_says_the_same():
    metrics = pytest.importorskip("sklearn.metrics")
    assert measures.nll(Y, P) == pytest.approx(metrics.log_loss(Y, P))
    y = (Y == 2).astype(int)
    assert measures.brier(y, P[:, 2]) == pytest.approx(2 * metrics.brier_score_loss(y, P[:, 2]))


def test_expectations_of_calibrated_probabilities():
    # For labels drawn with these probabilities: E nll is the entropy, E brier is 1 - sum p^2, and the ECE goes to 0.
    p = np.repeat(P, 500, axis=0)
    y = (RANDOM.random((len(p), 1)) > p.cumsum(1)).sum(1)
    assert measures.nll(y, p) == pytest.approx(-(P * np.log(P)).sum(1).mean(), abs=0.01)
    assert measures.brier(y, p) == pytest.approx((1 - (P**2).sum(1)).mean(), abs=0.01)
    assert measures.ece(y, p) < 0.01
    assert measures.temperature(y, p) == pytest.approx(1, abs=0.02)


def test_a_probability_of_zero_counts_as_the_smallest_step():
    for dtype in ("float32", "float64"):
        p = np.array([[1.0, 0.0]], dtype)
        assert measures.nll([1], p) == pytest.approx(-math.log(np.finfo(dtype).eps))


def test_reliability_bins():
    p = np.array([[0.5, 0.5], [0.6, 0.4], [0.05, 0.95], [1.0, 0.0]])
    found = measures.reliability([0, 1, 1, 0], p, bins=10)
    # A bin holds its upper limit.
    assert found["count"].tolist() == [0, 0, 0, 0, 1, 1, 0, 0, 0, 2]
    np.testing.assert_allclose(found["confidence"][[4, 5, 9]], [0.5, 0.6, 0.975])
    np.testing.assert_allclose(found["accuracy"][[4, 5, 9]], [1, 0, 1])
    assert np.isnan(found["accuracy"][0]) and found["lower"][3] == pytest.approx(0.3)


@pytest.mark.parametrize("t", [0.3, 1.0, 2.5])
def test_temperature_undoes_what_tempering_did(t):
    p = np.repeat(P, 300, axis=0)
    y = (RANDOM.random((len(p), 1)) > p.cumsum(1)).sum(1)
    sharp = measures.tempered(p, 1 / t)
    found = measures.temperature(y, sharp)
    assert found == pytest.approx(t, rel=0.03)
    # It is the minimum.
    best = measures.nll(y, measures.tempered(sharp, found))
    assert all(measures.nll(y, measures.tempered(sharp, found * f)) > best for f in (0.98, 1.02))
    np.testing.assert_allclose(measures.tempered(sharp, t), p, rtol=1e-6)


def test_temperatures_without_an_end():
    p = np.array([[0.7, 0.3], [0.2, 0.8]])
    assert measures.temperature([0, 1], p) == pytest.approx(1e-3, rel=1e-3)
    assert measures.temperature([1, 0], p) == pytest.approx(1e3, rel=1e-3)
    np.testing.assert_allclose(measures.tempered(p, 1e3), 0.5, atol=1e-3)
    assert measures.tempered(p[:, 1], 2.0).shape == (2,)


def test_gaussian_likelihoods():
    half_log = 0.5 * math.log(2 * math.pi)
    assert measures.gaussian_nll([1.0], [1.0], 1.0) == pytest.approx(half_log)
    assert measures.gaussian_nll([3.0, 3.0], [1.0, 3.0], [4.0, 1.0]) == pytest.approx(
        half_log + (0.5 * math.log(4) + 0.5) / 2
    )
    # A mixture: the likelihoods are averaged, not their logarithms.
    mean, y = np.array([[0.0], [4.0]]), [0.0]
    expected = half_log - math.log((1 + math.exp(-8)) / 2)
    assert measures.gaussian_nll(y, mean, 1.0) == pytest.approx(expected)
    assert measures.gaussian_nll([[0.0]], mean[..., None], np.ones((2, 1, 1))) == pytest.approx(expected)
    # Far from both, where each likelihood is 0 in float64.
    assert measures.gaussian_nll([1e3], mean, 1.0) == pytest.approx(half_log + math.log(2) + 996**2 / 2)
    y = RANDOM.normal(size=200_000)
    entropy = half_log + 0.5
    assert measures.gaussian_nll(y, np.zeros_like(y), 1.0) == pytest.approx(entropy, abs=0.01)


def test_coverage_and_width():
    assert measures.coverage([0, 1, 2, 3], [0, 0, 0, 0], [2, 2, 2, 2]) == 0.75
    assert measures.coverage([[0], [1]], [0.5, 0.5], [2, 2]) == 0.5
    assert measures.width([0, 1], [2, 5]) == 3


def test_the_variance_of_the_noise():
    truth = RANDOM.normal(size=100_000)
    samples = truth + 0.5 * RANDOM.normal(size=(100_000,)) + 0.5 * RANDOM.normal(size=(20, 100_000))
    samples += truth * 0 - samples.mean(0) + truth
    y = truth + 0.3 * RANDOM.normal(size=100_000)
    assert measures.noise_variance(y, samples[..., None]) == 0
    exact = np.stack([truth, truth])
    assert measures.noise_variance(y, exact) == pytest.approx(0.09, rel=0.03)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: measures.nll(Y, P * 3), "`probabilities` must be from 0 to 1"),
        (lambda: measures.nll(Y, np.log(P)), "are these logits?"),
        (lambda: measures.nll(Y + 1, P), "`y` must hold whole numbers from 0 to 2."),
        (lambda: measures.nll(Y + 0.5, P), "`y` must hold whole numbers from 0 to 2."),
        (lambda: measures.nll(Y[:9], P), "`y` must hold one label for each of 200 examples."),
        (lambda: measures.nll(Y, P * np.nan), "`probabilities` must hold finite numbers."),
        (lambda: measures.ece(Y, P, 0), "`bins` must be a whole number >= 1, not 0."),
        (lambda: measures.tempered(P, 0), "`temperature` must be a number > 0, not 0."),
        (lambda: measures.gaussian_nll([1.0], [1.0], 0.0), "`variance` must be > 0."),
        (lambda: measures.gaussian_nll([1.0, 2.0], [1.0], 1.0), "`mean` must be of shape"),
        (lambda: measures.noise_variance([1.0, 2.0], [[1.0]]), "`samples` must be of shape"),
    ],
)
def test_what_is_not_as_described_is_refused_in_one_line(call, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert message in str(caught.value) and "\n" not in str(caught.value)
