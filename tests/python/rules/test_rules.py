"""The rules, as arithmetic on NumPy's numbers: against recorded numbers and against the papers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from by_hand import ByHand, Inner
from kerasoptimizers.rules import (
    EqualAverage,
    ExponentialAverage,
    PowerAverage,
    PrimalAverage,
    Rule,
    ScheduleFree,
    Slot,
    Step,
    StepBack,
    StepBackWithMomentum,
    host_numbers,
)
from recordings import ZeroStart, assert_equal, cases, recording

pytestmark = pytest.mark.once

paths = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40)
counts = st.integers(1, 12)
decays = st.floats(0, 1)


def follow(rule, path, start=0.0):
    """The average after each update of a single weight that goes along a path."""
    run, averages = ByHand(rule, [start]), []
    for weight in path:
        run.update(lambda weights, rate, weight=weight: [np.array(weight)])
        averages.append(run.slots[0][rule.slot])
    return averages


def step(update, **scalars):
    return Step(update, scalars, None, host_numbers, "float64")


# The recorded numbers of the original implementations.

RULES = {
    "SWA": lambda start_averaging=0, average_period=10: EqualAverage(start_averaging, average_period),
    "Lookahead": lambda sync_period=6, slow_step_size=0.5: StepBack(sync_period, slow_step_size),
    "ExponentialMovingAverage": lambda average_decay=0.99, start_step=0, dynamic_decay=True: ExponentialAverage(
        average_decay, start_step, dynamic_decay, first_step=1
    ),
    "MovingAverage": lambda average_decay=0.99, start_step=0, dynamic_decay=False: ExponentialAverage(
        average_decay, start_step, dynamic_decay
    ),
    "PrimalAveraging": lambda train_interpolation, eval_interpolation: PrimalAverage(
        decay=eval_interpolation, blend=train_interpolation
    ),
}


def not_clipped(case):
    # Limits of gradients are not the rule's.
    return not any(key.startswith("clip") for key in case["config"])


@pytest.mark.parametrize("case", cases(*RULES, where=not_clipped))
def test_a_rule_gives_the_numbers_of_the_original(case):
    run, inner = ByHand(RULES[case["optimizer"]](**case["config"]), case["initial"]), Inner(case["inner"])
    first, zero_start = run.rule.first if run.rule.starts_empty else 0, ZeroStart(case)
    for update, (gradients, after) in enumerate(zip(case["gradients"], case["after_step"])):
        run.update(lambda weights, rate, gradients=gradients: inner(weights, gradients))
        for i, (model, slots) in enumerate(zip(run.models, run.slots)):
            assert_equal(model, after["variables"][i], f"update {update}, weight {i}", 2e-6)
            for name in slots if update >= first else ():
                slot = slots[name] - zero_start.bias(update, i)
                assert_equal(slot, after[name][i], f"update {update}, {name} {i}", 2e-6)


@given(st.floats(0.5, 1e9), st.integers(1, 1000))
def test_a_half_life_leaves_half_of_the_average(half_life, period):
    rule = ExponentialAverage(0.5 ** (1 / half_life), period=period, narrow=False)
    fraction = rule.fraction(Step(0, {}, None, host_numbers, "float32"))
    np.testing.assert_allclose(fraction, -np.expm1(-np.log(2) * period / half_life), rtol=1e-6)


@pytest.mark.parametrize("case", cases("ScheduleFree"))
def test_schedule_free_gives_the_numbers_of_its_authors(case):
    run, inner = ByHand(schedule_free(case), case["initial"]), Inner(case["inner"])
    rates = case.get("learning_rates", [inner.settings["learning_rate"]] * case["steps"])
    for update, (gradients, rate, after) in enumerate(zip(case["gradients"], rates, case["after_step"])):
        run.update(lambda weights, rate, gradients=gradients: inner(weights, gradients, rate), rate)
        for i, (model, slots) in enumerate(zip(run.models, run.slots)):
            for name, value in {"variables": model, **slots}.items():
                assert_equal(value, after[name][i], f"update {update}, {name} {i}", case.get("tolerance", 1e-6))


def schedule_free(case):
    config = case["config"]
    names = ("beta", "warmup_steps", "weight_lr_power", "r", "weight_decay_at_y")
    return ScheduleFree(*(config[name] for name in names))


@pytest.mark.parametrize("case", cases("PostHocEMA", where=lambda case: case["kind"] == "fractions"))
def test_power_averages_have_the_fractions_of_the_paper(case):
    rule = PowerAverage((case["gamma"],))
    late = zip(case["late_t"], case["late_fractions"])
    for t, expected in [*enumerate(case["fractions"], 1), *late]:
        (fraction,) = rule.fraction(step(t - 1))
        np.testing.assert_allclose(fraction, expected, rtol=1e-12, err_msg=f"t = {t}")


def test_power_averages_are_the_tracked_ones_of_the_recording():
    recorded = recording("PostHocEMA")
    gammas = sorted({snapshot["gamma"] for snapshot in recorded["snapshots"]}, reverse=True)
    rule = PowerAverage(tuple(gammas))
    run = ByHand(rule, recorded["trajectory"][0])
    for t, weights in enumerate(recorded["trajectory"], 1):
        run.update(lambda _, rate, weights=weights: [np.array(w) for w in weights])
        for snapshot in recorded["snapshots"]:
            if snapshot["t"] == t:
                name = list(rule.slots)[gammas.index(snapshot["gamma"])]
                for slots, average in zip(run.slots, snapshot["average"]):
                    assert_equal(slots[name], average, f"t = {t}, {name}", 1e-10)


# What the papers say.


@given(paths, st.integers(0, 20), counts)
def test_equal_average_is_the_mean_of_its_snapshots(path, start, period):
    averages = follow(EqualAverage(start, period), path, np.pi)
    for update, average in enumerate(averages):
        snapshots = path[start : update + 1 : period]
        expected = np.mean(snapshots) if snapshots else np.pi
        np.testing.assert_allclose(average, expected, rtol=1e-9, atol=1e-9)


@given(paths, decays, st.integers(0, 20), st.booleans(), st.sampled_from([0, 1]))
def test_exponential_average_weights_the_past_by_the_decays_since(path, decay, start, dynamic, first_step):
    averages = follow(ExponentialAverage(decay, start, dynamic, first_step), path, 2.0)
    weights = [2.0, *path]
    passed = []
    for update, average in enumerate(averages):
        since = update + first_step - start
        limit = (1 + since) / (10 + since) if dynamic and since >= 0 else decay
        passed.append(0.0 if since < 0 else min(decay, limit))
        shares = [1.0, *(1 - d for d in passed)]
        expected = sum(w * share * np.prod(passed[i:]) for i, (w, share) in enumerate(zip(weights, shares)))
        np.testing.assert_allclose(average, expected, rtol=1e-7, atol=1e-7)


@given(paths, decays, counts)
def test_a_longer_period_compounds_the_decay(path, decay, period):
    average = 2.0
    for update in range(period - 1, len(path), period):
        average = decay**period * average + (1 - decay**period) * path[update]
    averages = follow(ExponentialAverage(decay, period=period), path, 2.0)
    np.testing.assert_allclose(averages[-1], average, rtol=1e-7, atol=1e-7)


@given(paths, counts, st.floats(0, 1))
def test_stepping_back_restarts_the_fast_weights_from_the_slow_ones(path, period, step_size):
    run = ByHand(StepBack(period, step_size), [0.0])
    slow = fast = 0.0
    for update, change in enumerate(path, 1):
        run.update(lambda weights, rate, change=change: [weights[0] + change])
        fast += change
        if update % period == 0:
            slow = fast = slow + step_size * (fast - slow)
        np.testing.assert_allclose([run.slots[0]["slow"], run.models[0]], [slow, fast], rtol=1e-9, atol=1e-9)


@given(paths, st.floats(0, 20))
def test_power_average_counts_later_weights_more(path, gamma):
    # The fractions are chosen so that update t has had the part (t / n) ** (gamma + 1) of all after n updates.
    n = len(path)
    parts = np.diff((np.arange(n + 1) / n) ** (gamma + 1))
    average = follow(PowerAverage((gamma,)), path, np.pi)[-1]
    np.testing.assert_allclose(average, parts @ np.array(path), rtol=1e-7, atol=1e-7)


@given(paths)
def test_power_average_of_gamma_0_is_the_equal_average(path):
    expected = follow(EqualAverage(0, 1), path)
    np.testing.assert_allclose(follow(PowerAverage((0.0,)), path), expected, rtol=1e-12, atol=1e-12)


def test_power_average_keeps_its_digits_late_in_a_long_training():
    # In float32 1 - (1 - 1 / t) ** (gamma + 1) is off by a fifth there.
    class Narrow:
        expm1, log1p = staticmethod(np.expm1), staticmethod(np.log1p)
        cast = staticmethod(np.asarray)

    t, gamma = 10**7, 6.94
    (fraction,) = PowerAverage((gamma,)).fraction(Step([t - 1], {}, None, Narrow, "float32"))
    assert fraction.dtype == "float32"
    np.testing.assert_allclose(fraction, -np.expm1((gamma + 1) * np.log1p(-1 / t)), rtol=1e-6)


@given(paths, st.floats(0, 1))
def test_schedule_free_at_a_constant_rate_averages_the_fast_weights_equally(path, beta):
    run, fast = ByHand(ScheduleFree(beta), [0.0]), 0.0
    passed = []
    for change in path:
        run.update(lambda weights, rate, change=change: [weights[0] + change], 0.1)
        fast += change
        passed.append(fast)
        average = np.mean(passed)
        expected = [fast, average, beta * average + (1 - beta) * fast]
        found = [run.slots[0]["fast"], run.slots[0]["average"], run.models[0]]
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)


@given(st.lists(st.sampled_from([0.0, 1e-3, 0.1, 3.0]), min_size=1, max_size=30), st.floats(0, 3), st.floats(0, 3))
def test_schedule_free_counts_an_update_by_its_largest_rate_and_its_number(rates, power_of_rate, power_of_k):
    run = ByHand(ScheduleFree(0.5, 0, power_of_rate, power_of_k), [0.0])
    largest = np.maximum.accumulate(rates)
    # A rate of 0 so far counts as nothing, except where rates don't count.
    counted = (np.arange(len(rates)) + 1.0) ** power_of_k * (largest**power_of_rate if power_of_rate else 1.0)
    passed = np.random.default_rng(0).normal(size=len(rates))
    for k, (rate, weight) in enumerate(zip(rates, passed)):
        run.update(lambda weights, rate, weight=weight: [np.array(weight)], rate)
        total = counted[: k + 1].sum()
        expected = counted[: k + 1] @ passed[: k + 1] / total if total else 0.0
        np.testing.assert_allclose(run.slots[0]["average"], expected, rtol=1e-7, atol=1e-9)


def test_schedule_free_warms_the_rate_up():
    run, seen = ByHand(ScheduleFree(0.9, 4), [0.0]), []
    for _ in range(6):
        run.update(lambda weights, rate: seen.append(rate) or weights, 0.2)
    np.testing.assert_allclose(seen, [0.05, 0.1, 0.15, 0.2, 0.2, 0.2])


def test_schedule_free_decays_the_fast_weights_by_where_the_model_stands():
    rule = ScheduleFree(0.9, decay_at_model=0.5)
    before = rule.before(np.array(3.0), {"fast": np.array(1.0)}, Step(0, {}, 0.2, host_numbers))
    assert before == pytest.approx(1.0 - 0.2 * 0.5 * 3.0)


# When an update is due.


@given(st.integers(0, 200), counts, st.floats(0, 1))
def test_stepping_back_is_due_after_every_period(update, period, step_size):
    rule = StepBack(period, step_size)
    assert bool(rule.due(step(update))) == ((update + 1) % period == 0)
    assert rule.fraction(step(update)) == step_size
    assert rule.writes_back(step(update))


@given(st.integers(0, 100), st.integers(0, 60), counts)
def test_the_next_update_that_is_due_is_the_first_for_which_due_says_so(update, start, period):
    for rule in (EqualAverage(start, period), StepBack(period), ExponentialAverage(0.9, period=period)):
        later = next(number for number in range(update, update + 200) if rule.due(step(number)))
        assert rule.next_due(update) == later


def test_a_rule_that_is_always_due_says_so_without_looking_at_the_count():
    # Backends then need no condition.
    for rule in (EqualAverage(0, 1), ExponentialAverage(0.9), PowerAverage((1.0,)), ScheduleFree()):
        assert rule.due(step(5)) is True


# What a rule keeps.


@pytest.mark.parametrize(
    "rule, names",
    [
        (EqualAverage(), ["average"]),
        (StepBack(), ["slow"]),
        (StepBackWithMomentum(), ["slow", "velocity"]),
        (ExponentialAverage(0.9), ["average"]),
        (PowerAverage((16.97, 6.94, 0.0)), ["average", "average_2", "average_3"]),
        (ScheduleFree(), ["average", "fast"]),
        (ScheduleFree(0.0), ["average", "fast"]),
    ],
)
def test_the_first_slot_is_the_average(rule, names):
    assert list(rule.slots) == names
    assert rule.slot == names[0]


def test_a_slot_has_the_shape_of_its_weight_or_rows_of_it():
    assert Slot().shape((2, 3)) == (2, 3)
    assert Slot(rows=4).shape((2, 3)) == (4, 2, 3)
    assert Slot(rows=1).shape(()) == (1,)


def test_a_blend_between_the_ends_keeps_the_fast_weights():
    class Between(Rule):
        blend = 0.7

        def fraction(self, step):
            return 0.25

    run = ByHand(Between(), [0.0])
    run.update(lambda weights, rate: [weights[0] + 8.0])
    assert (run.slots[0]["fast"], run.slots[0]["average"]) == (8.0, 2.0)
    np.testing.assert_allclose(run.models[0], 0.3 * 8.0 + 0.7 * 2.0)
    # The inner optimizer goes on from there, not from the model.
    run.update(lambda weights, rate: [weights[0] + 1.0])
    assert run.slots[0]["fast"] == 9.0
