"""SWALearningRate, for both Keras generations: the rate of each update, and life in a model."""

import importlib
import json
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kerasoptimizers

pytestmark = pytest.mark.sample

BACKEND = keras.backend.backend()


def generation(name):
    """Keras and this package for it, or a skip that says why not."""
    if name == "keras3":
        return keras, kerasoptimizers
    tf_keras = pytest.importorskip("tf_keras", reason="Keras 2 (tf_keras) is not installed")
    return tf_keras, importlib.import_module("kerasoptimizers.tf_keras")


GENERATIONS = ["keras3", "tf_keras"]


def number(rate):
    return float(keras.ops.convert_to_numpy(rate) if not hasattr(rate, "numpy") else rate)


def rates(schedule, updates):
    return [number(schedule(i)) for i in range(updates)]


def independent(u, initial, swa, start, length, shape, cycle, top, begin):
    """The rate of update u, written down a second time, with branches."""
    if cycle is not None and u > start:
        i = u - start  # the paper's i, counted from 1 in the first cycle
        t = ((i - 1) % cycle + 1) / cycle
        return (1 - t) * top + t * swa
    if u < begin or (u == begin and length > 0):
        return initial
    if u >= begin + length:
        return swa
    t = (u - begin) / length
    if shape == "cosine":
        t = (1 - math.cos(math.pi * t)) / 2
    return initial + t * (swa - initial)


@pytest.mark.parametrize("name", GENERATIONS)
@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(0, 30),
    length=st.integers(0, 30),
    begin=st.integers(0, 30),
    shape=st.sampled_from(["cosine", "linear"]),
    cycle=st.one_of(st.none(), st.integers(2, 7)),
)
def test_every_rate_equals_an_independent_version(name, start, length, begin, shape, cycle):
    _, ours = generation(name)
    if cycle is not None:
        length = min(length, start)
        begin = min(begin, start - length)
    schedule = ours.SWALearningRate(0.5, 0.05, start, length, shape, cycle, None if cycle is None else 0.2, begin)
    expected = [independent(u, 0.5, 0.05, start, length, shape, cycle, 0.2, begin) for u in range(50)]
    np.testing.assert_allclose(rates(schedule, 50), expected, rtol=1e-5)


@pytest.mark.parametrize("name", GENERATIONS)
def test_defaults(name):
    _, ours = generation(name)
    constant = rates(ours.SWALearningRate(0.5, 0.1, start_averaging=10), 20)
    # Two fifths of the time before averaging: updates 6 to 10.
    np.testing.assert_allclose(constant[:7], 0.5, rtol=1e-6)
    assert constant[8] == pytest.approx(0.3)
    np.testing.assert_allclose(constant[10:], 0.1, rtol=1e-6)
    cyclic = rates(ours.SWALearningRate(0.5, 0.1, start_averaging=10, cycle_updates=4), 20)
    # A quarter of the way back up, and down in four steps.
    np.testing.assert_allclose(cyclic[10:], [0.1] + [0.175, 0.15, 0.125, 0.1] * 2 + [0.175])


@pytest.mark.parametrize("name", GENERATIONS)
def test_both_ends_are_exact(name):
    _, ours = generation(name)
    for shape in ("cosine", "linear"):
        schedule = ours.SWALearningRate(0.3, 0.07, 1000, 777, shape)
        assert number(schedule(223)) == np.float32(0.3)
        assert number(schedule(1000)) == number(schedule(10**9)) == np.float32(0.07)


@pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="PyTorch's optimizers, which some builds can't load beside TensorFlow"
)
def test_annealing_equals_that_of_pytorch():
    import torch

    for shape, theirs in (("cosine", "cos"), ("linear", "linear")):
        for length in (0, 1, 10):
            sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
            swalr = torch.optim.swa_utils.SWALR(sgd, 0.05, length, theirs)
            expected = []
            for _ in range(15):
                expected.append(swalr.get_last_lr()[0])
                sgd.step()
                swalr.step()
            schedule = kerasoptimizers.SWALearningRate(
                0.5, 0.05, 100, anneal_updates=length, anneal=shape, start_annealing=0
            )
            ours = rates(schedule, 15)
            # Without annealing theirs jumps at once, too.
            np.testing.assert_allclose(ours, expected, rtol=1e-5, err_msg=f"{shape}, {length}")


def test_annealing_equals_that_of_keras_swa():
    start, initial, swa = 20, 0.5, 0.05
    schedule = kerasoptimizers.SWALearningRate(initial, swa, start, anneal="linear", start_annealing=start // 2)
    for u in range(30):
        t = u / start
        factor = 1.0 if t <= 0.5 else swa / initial
        if 0.5 < t <= 0.9:
            factor = 1.0 - (1.0 - swa / initial) * (t - 0.5) / 0.4
        assert number(schedule(u)) == pytest.approx(initial * factor, rel=1e-5)


@pytest.mark.parametrize("name", GENERATIONS)
def test_another_schedule_leads_up_to_annealing(name):
    k, ours = generation(name)
    first = k.optimizers.schedules.ExponentialDecay(1.0, 10, 0.5)
    schedule = ours.SWALearningRate(first, 0.01, 20, 10, "linear")
    for u in range(11):
        assert number(schedule(u)) == pytest.approx(number(first(u)), rel=1e-6)
    held = number(first(10))
    assert number(schedule(15)) == pytest.approx((held + 0.01) / 2, rel=1e-6)
    assert number(schedule(20)) == np.float32(0.01)
    config = json.loads(json.dumps(schedule.get_config()))
    assert rates(type(schedule).from_config(config), 25) == rates(schedule, 25)


def test_an_update_number_needs_no_float():
    # As a float32, 2**24 + 1 is 2**24.
    big = 2**24
    schedule = kerasoptimizers.SWALearningRate(0.5, 0.1, big, 0, cycle_updates=2)
    assert number(schedule(big + 1)) == pytest.approx(0.15)
    assert number(schedule(big + 2)) == pytest.approx(0.1)


def test_an_array_of_updates_gives_an_array_of_rates():
    schedule = kerasoptimizers.SWALearningRate(0.5, 0.1, 10, cycle_updates=4)
    at_once = keras.ops.convert_to_numpy(schedule(np.arange(30)))
    np.testing.assert_allclose(at_once, rates(schedule, 30), rtol=1e-6)


def model_and_data(k, optimizer):
    k.utils.set_random_seed(3)
    model = k.Sequential([k.layers.Dense(3, input_shape=(4,)), k.layers.Dense(1)])
    model.compile(optimizer, "mse")
    x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
    return model, x, x[:, :1]


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
@pytest.mark.parametrize("name", GENERATIONS)
def test_in_fit_every_update_has_its_rate(name):
    k, ours = generation(name)
    schedule = ours.SWALearningRate(0.1, 0.01, 6, 4, cycle_updates=3, cycle_learning_rate=0.05)
    model, x, y = model_and_data(k, k.optimizers.SGD(schedule))
    twin, _, _ = model_and_data(k, k.optimizers.SGD(0.1))
    model.fit(x, y, batch_size=8, epochs=5, shuffle=False, verbose=0)
    for u, rate in enumerate(rates(schedule, 20)):
        twin.optimizer.learning_rate = rate
        batch = slice(u % 4 * 8, u % 4 * 8 + 8)
        twin.train_on_batch(x[batch], y[batch])
    for a, b in zip(model.get_weights(), twin.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", GENERATIONS)
def test_snapshots_of_swa_fall_on_the_ends_of_cycles(name):
    k, ours = generation(name)
    schedule = ours.SWALearningRate(0.1, 0.01, 6, cycle_updates=3)
    swa = ours.SWA(k.optimizers.SGD(schedule), start_averaging=6, average_period=3)
    v = (k.Variable if name == "keras3" else __import__("tensorflow").Variable)(np.float32([1, 2]))
    gradient = v * 0 + 1.0
    snapshots = 0
    for u in range(16):
        swa.apply_gradients([(gradient, v)])
        rate = number(schedule(u))
        if swa.snapshots > snapshots:
            assert rate == np.float32(0.01), f"snapshot after update {u}"
        elif u > 6:
            assert rate > 0.011
        snapshots = swa.snapshots
    assert snapshots == 4


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
@pytest.mark.parametrize("name", GENERATIONS)
@pytest.mark.parametrize("optimizer", ["SGD", "SWA", "LARS"])
def test_a_saved_model_goes_on_with_the_schedule(tmp_path, name, optimizer):
    k, ours = generation(name)
    schedule = ours.SWALearningRate(k.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5), 0.01, 6, 4, "linear", 3, 0.05)
    make = {
        "SGD": lambda: k.optimizers.SGD(schedule),
        "SWA": lambda: ours.SWA(k.optimizers.SGD(schedule), 6, 3),
        "LARS": lambda: ours.LARS(schedule, eeta=0.1),
    }[optimizer]
    model, x, y = model_and_data(k, make())
    model.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = k.models.load_model(tmp_path / "model.keras")
    inner = getattr(loaded.optimizer, "optimizer", loaded.optimizer)
    assert type(inner._learning_rate) is ours.SWALearningRate
    assert inner._learning_rate.get_config() == schedule.get_config()
    for m in (model, loaded):
        m.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", GENERATIONS)
def test_configuration(name):
    k, ours = generation(name)
    given = [0.5, 0.1, 10, 4, "linear", 3, 0.2, 5, "mine"]
    schedule = ours.SWALearningRate(*given)
    assert list(schedule.get_config().values()) == given
    serialized = json.loads(json.dumps(k.optimizers.schedules.serialize(schedule)))
    assert "kerasoptimizers>SWALearningRate" in json.dumps(serialized)
    again = k.optimizers.schedules.deserialize(serialized)
    assert type(again) is ours.SWALearningRate
    assert again.get_config() == schedule.get_config()


@pytest.mark.parametrize(
    "changed, error, message",
    [
        ({"initial_learning_rate": -1}, ValueError, "`initial_learning_rate` must be a number >="),
        ({"initial_learning_rate": None}, TypeError, "`initial_learning_rate` must be a number"),
        ({"initial_learning_rate": abs}, TypeError, "or a Keras learning-rate schedule, not"),
        ({"swa_learning_rate": "a"}, ValueError, "`swa_learning_rate` must be a number >= 0"),
        ({"swa_learning_rate": float("inf")}, ValueError, "`swa_learning_rate` must be a number"),
        ({"start_averaging": 1.5}, ValueError, "`start_averaging` must be a whole number >= 0"),
        ({"anneal_updates": -1}, ValueError, "`anneal_updates` must be a whole number >= 0"),
        ({"anneal_updates": 11}, ValueError, "`anneal_updates` must be a whole number from 0 to"),
        ({"anneal": "cos"}, ValueError, "`anneal` must be 'cosine' or 'linear', not 'cos'"),
        ({"anneal": None}, TypeError, "`anneal` must be 'cosine' or 'linear', not None"),
        ({"cycle_updates": 1}, ValueError, "`cycle_updates` must be a whole number >= 2, not 1"),
        ({"cycle_learning_rate": 1}, ValueError, "`cycle_learning_rate` needs `cycle_updates`"),
        (
            {"cycle_updates": 2, "cycle_learning_rate": 0.05},
            ValueError,
            "`cycle_learning_rate` must be a number >= swa_learning_rate (0.1), not 0.05.",
        ),
        (
            {"cycle_updates": 2, "swa_learning_rate": 0.9},
            ValueError,
            "`cycle_learning_rate` must be given where",
        ),
        ({"cycle_updates": 2, "start_annealing": 9}, ValueError, "Cycles need annealing to end at"),
        ({"start_annealing": True}, TypeError, "`start_annealing` must be a whole number"),
        ({"name": 3}, ValueError, "`name` must be a string"),
    ],
)
@pytest.mark.parametrize("name", GENERATIONS)
def test_a_wrong_argument_is_named_in_one_line(name, changed, error, message):
    _, ours = generation(name)
    config = {"initial_learning_rate": 0.5, "swa_learning_rate": 0.1, "start_averaging": 10}
    with pytest.raises(error) as raised:
        ours.SWALearningRate(**{**config, **changed})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
