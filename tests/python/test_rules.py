"""The rules, as arithmetic on NumPy numbers, against what the papers say."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kerasoptimizers.rules import EqualAverage, ExponentialAverage, StepBack

paths = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40)
counts = st.integers(1, 12)
# As in the originals, a decay is a float32.
decays = st.floats(0, 1, width=32)


def follow(rule, path, average=0.0):
    """The average after each update; the rule that writes back is not among these."""
    snapshots, averages = 0, []
    for update, weight in enumerate(path):
        if rule.due(update):
            average += rule.fraction(float(update), float(snapshots), np) * (weight - average)
            snapshots += 1
        averages.append(average)
    return averages


@given(paths, st.integers(0, 20), counts)
def test_equal_average_is_the_mean_of_its_snapshots(path, start, period):
    averages = follow(EqualAverage(start, period), path, average=np.pi)
    for update, average in enumerate(averages):
        snapshots = path[start : update + 1 : period]
        expected = np.mean(snapshots) if snapshots else np.pi
        np.testing.assert_allclose(average, expected, rtol=1e-9, atol=1e-9)


@given(paths, decays, st.integers(0, 20), st.booleans(), st.sampled_from([0, 1]))
def test_exponential_average_weights_the_past_by_the_decays_since(
    path, decay, start, dynamic, first_step
):
    averages = follow(ExponentialAverage(decay, start, dynamic, first_step), path, average=2.0)
    weights = [2.0, *path]
    passed = []
    for update, average in enumerate(averages):
        since = update + first_step - start
        limit = (1 + since) / (10 + since) if dynamic and since >= 0 else decay
        passed.append(0.0 if since < 0 else min(decay, limit))
        shares = [1 - d for d in [0.0, *passed]]
        shares[0] = 1.0
        expected = sum(
            w * share * np.prod(passed[i:]) for i, (w, share) in enumerate(zip(weights, shares))
        )
        np.testing.assert_allclose(average, expected, rtol=1e-7, atol=1e-7)


@given(paths, decays, counts)
def test_a_longer_period_compounds_the_decay(path, decay, period):
    average = 2.0
    for update in range(period - 1, len(path), period):
        average = decay**period * average + (1 - decay**period) * path[update]
    averages = follow(ExponentialAverage(decay, period=period), path, average=2.0)
    np.testing.assert_allclose(averages[-1], average, rtol=1e-7, atol=1e-7)


@given(st.integers(0, 200), counts, st.floats(0, 1))
def test_stepping_back_is_due_after_every_period(update, period, step_size):
    rule = StepBack(period, step_size)
    assert bool(rule.due(update)) == ((update + 1) % period == 0)
    assert rule.fraction(float(update), None, np) == step_size
    assert rule.writes_back
