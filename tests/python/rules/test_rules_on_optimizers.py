"""Rules on real optimizers: those whose classes are yet to come, and rules that nobody has planned."""

import keras
import numpy as np
import pytest

from by_hand import ByHand, Inner
from generations import GENERATIONS, Generation
from kerasoptimizers.rules import EqualAverage, PowerAverage, Rule, ScheduleFree, Slot
from recordings import assert_equal, cases, recording


@pytest.fixture(params=GENERATIONS)
def generation(request):
    return Generation(request.param)


def values(variables):
    return [np.array(variable.numpy(), "float64") for variable in variables]


def slots(optimizer, variables, name):
    return values(optimizer.get_slot(variable, name) for variable in variables)


# Schedule-Free.


def test_schedule_free_undoes_its_warm_up_after_every_update(generation):
    optimizer = generation.ScheduleFree(generation.keras.optimizers.SGD(0.5), warmup_steps=3)
    variables = generation.variables([[1.0, -2.0]])
    for _ in range(4):
        generation.apply(optimizer, [[0.5, 0.25]], variables)
        assert float(np.array(optimizer.learning_rate)) == 0.5


@pytest.mark.oldest_keras
def test_schedule_free_gives_the_numbers_of_its_authors_in_fit(generation):
    # With a warm-up and a decay: the rate of each update counts.
    (case,) = [
        p.values[0]
        for p in cases("ScheduleFree", where=lambda c: c["optimizer"] == "SGDScheduleFree")
        if p.values[0]["config"]["warmup_steps"] and p.values[0]["config"]["weight_decay_at_y"]
    ]
    model, loss = generation.model_with_gradients(case["initial"])
    inner = getattr(generation.keras.optimizers, case["inner"]["class"])(**case["inner"]["config"])
    optimizer = generation.ScheduleFree(inner, **case["config"])
    model.compile(optimizer, loss)
    rows = np.array([np.concatenate([np.ravel(g) for g in gradients]) for gradients in case["gradients"]], "float32")
    with pytest.warns(UserWarning, match="weights to train on"):
        model.fit(rows, rows[:, :1], batch_size=1, epochs=1, shuffle=False, verbose=0)
    variables, after = model.trainable_variables, case["after_step"][-1]
    found = {"variables": values(variables)}
    found |= {name: slots(optimizer, variables, name) for name in ("average", "fast")}
    for name, arrays in found.items():
        for i, array in enumerate(arrays):
            assert_equal(array, after[name][i], f"{name} {i}")


@pytest.mark.parametrize(
    "generation, legacy", [("keras3", False), ("tf_keras", False), ("tf_keras", True)], indirect=["generation"]
)
def test_schedule_free_follows_a_schedule_of_the_learning_rate(generation, legacy):
    optimizers = generation.keras.optimizers
    initial, gradients = [[1.0, -2.0], [[3.0]]], [[0.5, 0.25], [[-1.0]]]
    schedule = optimizers.schedules.PiecewiseConstantDecay([2, 4], [0.1, 0.4, 0.2])
    inner = (optimizers.legacy if legacy else optimizers).SGD(schedule)
    optimizer, variables = generation.averaging(inner, ScheduleFree(0.9)), generation.variables(initial)
    run, inner = ByHand(ScheduleFree(0.9), initial), Inner({"class": "SGD", "config": {}})
    for rate in (0.1, 0.1, 0.1, 0.4, 0.4, 0.2):
        generation.apply(optimizer, gradients, variables)
        run.update(lambda weights, rate: inner(weights, gradients, rate), rate)
    for i, average in enumerate(slots(optimizer, variables, "average")):
        np.testing.assert_allclose(average, run.slots[i]["average"], rtol=1e-5)
        np.testing.assert_allclose(values(variables)[i], run.models[i], rtol=1e-5)


@pytest.mark.parametrize("generation", ["keras3"], indirect=True)
def test_schedule_free_stays_where_it_is_while_gradients_are_accumulated(generation):
    initial, gradients = [[1.0, -2.0], [[3.0]]], [[0.5, 0.25], [[-1.0]]]
    rule = ScheduleFree(0.9, decay_at_model=0.1)
    inner = generation.keras.optimizers.SGD(0.5, gradient_accumulation_steps=3)
    optimizer, variables = generation.averaging(inner, rule), generation.variables(initial)
    run, inner = ByHand(rule, initial), Inner({"class": "SGD", "config": {}})
    for call in range(1, 13):
        generation.apply(optimizer, gradients, variables)
        if call % 3 == 0:
            run.update(lambda weights, rate: inner(weights, gradients, rate), 0.5)
        for i, own in enumerate(run.slots):
            for name, slot in own.items():
                np.testing.assert_allclose(slots(optimizer, variables, name)[i], slot, rtol=1e-6, err_msg=name)
            np.testing.assert_allclose(values(variables)[i], run.models[i], rtol=1e-6)
    assert optimizer.averages.number("moves") == 4


def test_schedule_free_stays_where_it_is_when_a_loss_scale_skips_an_update(generation):
    optimizers = generation.keras.optimizers
    if generation.name == "keras3":
        scaled = optimizers.LossScaleOptimizer
        if keras.backend.backend() == "jax":
            pytest.skip("On JAX a LossScaleOptimizer can only stand outermost: it then skips our call, too.")
    else:
        scaled = generation.keras.mixed_precision.LossScaleOptimizer
    variables = generation.variables([[1.0, -2.0], [[3.0]]])
    optimizer = generation.averaging(scaled(optimizers.SGD(0.5)), ScheduleFree(0.9, decay_at_model=0.1))
    seen = []
    for gradient in (0.5, 0.25, np.inf, 0.125):
        generation.apply(optimizer, [[gradient, 0.25], [[-1.0]]], variables)
        seen.append(values(variables) + slots(optimizer, variables, "average") + slots(optimizer, variables, "fast"))
    for before, after in zip(seen[1], seen[2]):
        np.testing.assert_array_equal(before, after)
    assert not any(np.array_equal(before, after) for before, after in zip(seen[2], seen[3]))
    assert optimizer.averages.number("moves") == 3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_schedule_free_keeps_what_a_narrow_weight_cannot_hold(generation, dtype):
    # No gradient: the weights decay, by less than a bfloat16 can tell.
    initial = [np.random.default_rng(0).normal(size=400)]
    rule, rate = ScheduleFree(0.9, decay_at_model=0.05), 0.01
    variables = generation.variables(initial, dtype)
    run = ByHand(rule, values(variables))
    optimizer = generation.averaging(generation.keras.optimizers.SGD(rate), rule)
    for _ in range(20):
        generation.apply(optimizer, [np.zeros(400)], variables)
        run.update(lambda weights, rate: weights, rate)
    for name in ("fast", "average"):
        (found,) = slots(optimizer, variables, name)
        np.testing.assert_allclose(found, run.slots[0][name], rtol=1e-4)
    np.testing.assert_allclose(values(variables)[0], run.models[0], rtol=5e-3, atol=1e-4)


# Power averages.


def test_power_averages_are_the_tracked_ones_of_the_recording(generation):
    recorded = recording("PostHocEMA")
    path = [[np.array(w, "float32") for w in weights] for weights in recorded["trajectory"][:100]]
    gammas = sorted({snapshot["gamma"] for snapshot in recorded["snapshots"]}, reverse=True)
    rule = PowerAverage(tuple(gammas))
    # Steps of a length that take the weights along the path.
    optimizer = generation.averaging(generation.keras.optimizers.SGD(1.0), rule)
    variables = generation.variables(path[0])
    found = {}
    for t, weights in enumerate(path, 1):
        generation.apply(optimizer, [v.numpy() - w for v, w in zip(variables, weights)], variables)
        for name in rule.slots if t % 50 == 0 else ():
            found[t, name] = slots(optimizer, variables, name)
    for snapshot in recorded["snapshots"]:
        name = list(rule.slots)[gammas.index(snapshot["gamma"])]
        for average, expected in zip(found.pop((snapshot["t"], name), []), snapshot["average"]):
            assert_equal(average, expected, f"t = {snapshot['t']}, {name}", 2e-6)
    assert not found


def test_power_averages_in_fit_are_those_of_numpy(generation):
    rule, initial = PowerAverage((6.94, 0.0)), [np.ones((3, 2)), np.ones(4)]
    rows = np.random.default_rng(0).normal(size=(30, 10)).astype("float32")
    model, loss = generation.model_with_gradients(initial)
    optimizer = generation.averaging(generation.keras.optimizers.SGD(0.1), rule)
    model.compile(optimizer, loss)
    model.fit(rows, rows[:, :1], batch_size=1, epochs=1, shuffle=False, verbose=0)
    run = ByHand(rule, initial)
    for row in rows:
        gradients = row[:6].reshape(3, 2), row[6:]
        run.update(lambda weights, rate, g=gradients: [w - 0.1 * x for w, x in zip(weights, g)])
    for name in rule.slots:
        for average, own in zip(slots(optimizer, model.trainable_variables, name), run.slots):
            np.testing.assert_allclose(average, own[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("method", ["Lookahead", "SWA"])
def test_what_the_model_gets_from_the_average_fulfils_its_constraints(generation, method):
    # Between two vectors of length 1 there is none.
    layers, unit = generation.keras.layers, generation.keras.constraints.UnitNorm(axis=0)
    model = generation.keras.Sequential([layers.Input((3,)), layers.Dense(2, kernel_constraint=unit, use_bias=False)])
    period = {"Lookahead": {"sync_period": 2}, "SWA": {"average_period": 2}}[method]
    optimizer = getattr(generation, method)(generation.keras.optimizers.SGD(0.5), **period)
    model.compile(optimizer, "mse")
    rows = ROWS[:, :3]
    model.fit(rows, rows[:, :2], batch_size=3, epochs=1, shuffle=False, verbose=0)
    (kernel,) = values(model.trainable_variables)
    np.testing.assert_allclose(np.linalg.norm(kernel, axis=0), 1.0, rtol=1e-5)
    (average,) = slots(optimizer, model.trainable_variables, optimizer.get_slot_names()[0])
    # An average that only stands beside the model is the mean, whatever its length.
    assert np.allclose(np.linalg.norm(average, axis=0), 1.0, rtol=1e-5) == (method == "Lookahead")


# Rules that nobody has planned: one class each, and no change elsewhere.


class LatestMean(Rule):
    """The mean of the latest `count` snapshots, which are taken every `period` updates."""

    scalars = {"snapshots": 0}
    starts_empty = True

    def __init__(self, count, period):
        self.count, self.period = count, period

    @property
    def slots(self):
        return {"average": Slot(), "latest": Slot("zeros", rows=self.count)}

    def fraction(self, step):
        return 1.0 / step.xp.minimum(step.scalar("snapshots") + 1.0, float(self.count))

    def next_scalars(self, step):
        return {"snapshots": step.scalars["snapshots"] + 1}

    def move(self, weights, slots, fraction, xp):
        rows = [*(slots["latest"][i] for i in range(1, self.count)), weights]
        return {"average": sum(rows) * xp.cast(fraction, weights.dtype), "latest": xp.stack(rows)}


class LowRateMean(EqualAverage):
    """The mean of the weights after those updates whose learning rate is below a limit."""

    uses_rate = True
    limit = 0.15

    def due(self, step):
        return step.rate < self.limit


def compiled(generation, rule, rate, rows):
    """The optimizer and a model after one `fit()`, and the weights after each update."""
    optimizers = generation.keras.optimizers
    # Weights alike, which a backend may join, and others.
    model, loss = generation.model_with_gradients(START)
    optimizer = generation.averaging(optimizers.SGD(rate(optimizers.schedules)), rule)
    model.compile(optimizer, loss)
    model.fit(rows, rows[:, :1], batch_size=1, epochs=1, shuffle=False, verbose=0)
    return optimizer, model.trainable_variables


def eager(generation, rule, rate, rows):
    optimizers = generation.keras.optimizers
    variables = generation.variables(START)
    optimizer = generation.averaging(optimizers.SGD(rate(optimizers.schedules)), rule)
    for row in rows:
        generation.apply(optimizer, split(row), variables)
    return optimizer, variables


START = [np.full((2, 2), 0.5), np.ones((2, 2)), np.arange(3.0), np.zeros(())]
ROWS = np.random.default_rng(0).normal(size=(12, 12)).astype("float32")


def split(row):
    return [row[:4].reshape(2, 2), row[4:8].reshape(2, 2), row[8:11], row[11]]


each_way = pytest.mark.parametrize("run", [compiled, eager])


@pytest.mark.sample
@each_way
@pytest.mark.parametrize("count, period", [(3, 2), (4, 1), (8, 2)])
def test_a_rule_with_rows_averages_the_latest_snapshots(generation, run, count, period):
    rule, weights = LatestMean(count, period), START
    optimizer, variables = run(generation, rule, lambda schedules: 0.1, ROWS)
    snapshots = []
    for update, row in enumerate(ROWS):
        weights = [w - 0.1 * g for w, g in zip(weights, split(row))]
        snapshots += [weights] if update % period == 0 else []
    latest = snapshots[-count:]
    for i, variable in enumerate(variables):
        rows = np.array([taken[i] for taken in latest])
        slot = optimizer.get_slot(variable, "latest").numpy()
        assert slot.shape == (count, *variable.shape)
        np.testing.assert_allclose(slot[count - len(rows) :], rows, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(optimizer.get_slot(variable, "average").numpy(), rows.mean(0), rtol=1e-5, atol=1e-6)
    # Everything that shows averages works on it.
    averages = slots(optimizer, variables, "average")
    optimizer.assign_average_vars(variables)
    for found, expected in zip(values(variables), averages):
        np.testing.assert_array_equal(found, expected)


@each_way
def test_a_rule_that_goes_by_the_learning_rate_averages_at_low_rates_only(generation, run):
    def rate(schedules):
        return schedules.PiecewiseConstantDecay([3, 5, 8], [0.2, 0.1, 0.3, 0.05])

    optimizer, variables = run(generation, LowRateMean(), rate, ROWS)
    rates = [0.2] * 4 + [0.1] * 2 + [0.3] * 3 + [0.05] * 3
    weights, taken = START, []
    for row, step in zip(ROWS, rates):
        weights = [w - step * g for w, g in zip(weights, split(row))]
        taken += [weights] if step < LowRateMean.limit else []
    assert optimizer.averages.number("snapshots") == len(taken) == 5
    for i, average in enumerate(slots(optimizer, variables, "average")):
        np.testing.assert_allclose(average, np.mean([w[i] for w in taken], 0), rtol=1e-5, atol=1e-6)


def test_a_rule_that_goes_by_the_learning_rate_has_no_average_before_one_is_low(generation):
    optimizer, variables = eager(generation, LowRateMean(), lambda schedules: 0.5, ROWS[:3])
    assert not optimizer.has_average
    with pytest.raises(ValueError, match="no snapshot was taken in 3 updates"):
        optimizer.assign_average_vars(variables)


def test_rows_can_start_as_copies_of_the_weights(generation):
    class Kept(LatestMean):
        @property
        def slots(self):
            return {"average": Slot(), "latest": Slot(rows=self.count)}

    variables = generation.variables(START)
    optimizer = generation.averaging(generation.keras.optimizers.SGD(0.1), Kept(3, 1))
    optimizer.build(variables)
    for variable, start in zip(variables, START):
        np.testing.assert_array_equal(optimizer.get_slot(variable, "latest").numpy(), np.stack([start] * 3))
