"""Training on two or four replicas gives the averages of training on one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import kerasoptimizers
import kerasoptimizers.tf_keras
from cases import BATCH, METHODS, SETTINGS, X, Y, new_optimizer

pytestmark = pytest.mark.once

GENERATIONS = {3: (keras, kerasoptimizers), 2: (tf_keras, kerasoptimizers.tf_keras)}
#: Settings that give a method more to do on replicas.
MORE = {"Lookahead": {"slow_momentum": 0.5, "inner_state": "average"}}
SLOTS = {"Lookahead": "slow", "LARS": "momentum"}


def ways():
    """A list of (method, number of replicas, settings)."""
    # What is not long: of each method the plain settings, but for these.
    short = {"SWA": ("plain", "clipnorm-decay"), "MovingAverage": (), "PowerAverage": (), "PrimalAveraging": ()}
    found = []
    for method in METHODS:
        for number in (2, 4):
            for settings in SETTINGS:
                marks = () if number == 2 and settings in short.get(method, ("plain",)) else pytest.mark.long
                found.append(pytest.param(method, number, settings, marks=marks))
    return found


def mirrored(number):
    devices = tf.config.list_logical_devices("CPU")
    if len(devices) < number:
        pytest.fail("conftest.py makes four logical CPUs; TensorFlow was started before it could")
    # TensorFlow's collective operations take groups of one size only in a process.
    return tf.distribute.MirroredStrategy(
        [device.name for device in devices[:number]], tf.distribute.ReductionToOneDevice()
    )


def train(keras, optimizer, strategy):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)])
        model.compile(optimizer(), "mse")
    fit(model, 3)
    return model


def fit(model, epochs=1):
    model.fit(X, Y, batch_size=BATCH, epochs=epochs, verbose=0, shuffle=False)


def slots(model, method):
    slot = SLOTS.get(method, "average")
    return [model.optimizer.get_slot(v, slot) for v in model.trainable_variables]


def on_every_replica(model, variables, number):
    """The values of variables, which are the same on each of the replicas."""
    found = []
    for variable in variables:
        copies = [copy.numpy() for copy in model.optimizer.backend.native(variable).values]
        assert len(copies) == number
        for copy in copies:
            np.testing.assert_array_equal(copy, copies[0])
        found.append(copies[0])
    return found


def assert_equal(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("method, number, settings", ways())
def test_replicas_average_as_one(generation, method, number, settings):
    keras, _ = GENERATIONS[generation]

    def optimizer():
        return new_optimizer(*GENERATIONS[generation], method, settings, **MORE.get(method, {}))

    alone = train(keras, optimizer, tf.distribute.get_strategy())
    together = train(keras, optimizer, mirrored(number))
    weights, averages = together.trainable_variables, slots(together, method)
    expected = [v.numpy() for v in alone.trainable_variables + slots(alone, method)]
    before = on_every_replica(together, weights + averages, number)
    for found, value in zip(before, expected, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-5)
    if method == "LARS":
        return
    half = len(weights)
    together.optimizer.swap_weights()
    swapped = on_every_replica(together, weights + averages, number)
    assert_equal(swapped, before[half:] + before[:half])
    together.optimizer.swap_weights()
    assert_equal(on_every_replica(together, weights + averages, number), before)
    together.optimizer.assign_average_vars(weights)
    assert_equal(on_every_replica(together, weights, number), before[half:])


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("method", [m if m == "SWA" else pytest.param(m, marks=pytest.mark.long) for m in METHODS])
def test_a_file_holds_the_averages_of_every_replica(generation, method, tmp_path):
    keras, _ = GENERATIONS[generation]

    def optimizer():
        return new_optimizer(*GENERATIONS[generation], method, **MORE.get(method, {}))

    strategy = mirrored(2)
    model = train(keras, optimizer, strategy)
    # Keras 2 can't load a .weights.h5 file with metrics under a strategy, with any optimizer.
    path = str(tmp_path / ("model.weights.h5" if generation == 3 else "model"))
    model.save_weights(path)
    again = train(keras, optimizer, strategy)
    fit(again)
    again.load_weights(path)
    for _ in range(2):
        for of in (lambda model: model.trainable_variables, lambda model: slots(model, method)):
            assert_equal(on_every_replica(again, of(again), 2), on_every_replica(model, of(model), 2))
        fit(model)
        fit(again)
