"""On eight devices averages are those of one device, and lie where the weights lie.

Collected by test_keras_distribution.py alone: it needs KERAS_BACKEND=jax and
XLA_FLAGS=--xla_force_host_platform_device_count=8.
"""

import jax
import keras
import numpy as np
import pytest
from keras import distribution

import kerasoptimizers
from cases import BATCH, METHODS, X, Y, new_optimizer
from generations import assert_same
from kerasoptimizers import SWACallback, SwapAverages, update_batch_norm

CASES = [
    *((method, "plain") for method in METHODS),
    ("SWA", "clipnorm-decay"),
    ("Lookahead", "global_clipnorm"),
    ("LARS", "clipnorm-decay"),
]
LAYOUTS = ["DataParallel", "ModelParallel"]


@pytest.fixture(autouse=True)
def one_device():
    yield
    distribution.set_distribution(None)


def layout(name):
    if name == "DataParallel":
        return distribution.DataParallel()
    mesh = distribution.DeviceMesh((2, 4), ["batch", "model"])
    layouts = distribution.LayoutMap(mesh)
    layouts[".*wide/kernel"] = (None, "model")
    layouts[".*wide/bias"] = ("model",)
    layouts[".*next/kernel"] = ("model", None)
    return distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")


def new_model(optimizer, norm=False):
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((4,)),
        keras.layers.Dense(8, "tanh", name="wide"),
        keras.layers.Dense(8, name="next"),
        keras.layers.Dense(1, name="last"),
    ]
    if norm:
        layers.insert(2, keras.layers.BatchNormalization(name="norm"))
    model = keras.Sequential(layers)
    model.compile(optimizer, "mse")
    return model


def train(model, epochs=3, **arguments):
    model.fit(X, Y, batch_size=BATCH, epochs=epochs, verbose=0, shuffle=False, **arguments)
    return model


def averages(model):
    slot = {"Lookahead": "slow", "LARS": "momentum"}.get(type(model.optimizer).__name__, "average")
    return [model.optimizer.get_slot(v, slot) for v in model.trainable_variables]


def values(variables):
    """Values, after a look at every device: where a piece lies on several, it is the same."""
    for variable in variables:
        pieces = {}
        for shard in variable.value.addressable_shards:
            piece = pieces.setdefault(str(shard.index), np.asarray(shard.data))
            np.testing.assert_array_equal(np.asarray(shard.data), piece)
        assert len(variable.value.addressable_shards) == jax.device_count()
    return [np.array(variable) for variable in variables]


def assert_beside(variables, others):
    for variable, other in zip(variables, others, strict=True):
        a, b = variable.value.sharding, other.value.sharding
        assert a.is_equivalent_to(b, variable.value.ndim), (variable.path, a, b)


def assert_close(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=0)


def test_there_are_eight_devices():
    assert jax.device_count() == 8


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("method, settings", CASES)
def test_averages_are_those_of_one_device_and_sharded_as_the_weights(name, method, settings):
    alone = train(new_model(new_optimizer(keras, kerasoptimizers, method, settings)))
    expected = [np.array(v) for v in alone.trainable_variables + averages(alone)]
    distribution.set_distribution(layout(name))
    model = train(new_model(new_optimizer(keras, kerasoptimizers, method, settings)))
    weights = model.trainable_variables
    assert_close(values(weights + averages(model)), expected)
    assert_beside(weights, averages(model))
    if name == "ModelParallel":
        whole, piece = weights[0].shape, weights[0].value.addressable_shards[0].data.shape
        assert (tuple(whole), piece) == ((4, 8), (4, 2))
        assert averages(model)[0].value.addressable_shards[0].data.shape == piece


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("method", [method for method in METHODS if method != "LARS"])
def test_swapped_loaded_and_assigned_averages_stay_where_they_lie(name, method, tmp_path):
    distribution.set_distribution(layout(name))
    model = train(new_model(new_optimizer(keras, kerasoptimizers, method)))
    weights, kept = model.trainable_variables, averages(model)
    before = values(weights), values(kept)

    model.optimizer.swap_weights()
    assert_same(values(weights), before[1])
    assert_same(values(kept), before[0])
    assert_beside(weights, kept)
    model.optimizer.swap_weights()
    assert_same(values(weights), before[0])
    assert_same(values(kept), before[1])

    path = tmp_path / "model.weights.h5"
    model.save_weights(path)
    again = new_model(new_optimizer(keras, kerasoptimizers, method))
    again.optimizer.build(again.trainable_variables)
    again.load_weights(path)
    assert_same(values(averages(again)), before[1])
    assert_beside(again.trainable_variables, averages(again))

    train(model, 1)
    train(again, 1)
    assert_same(values(averages(again)), values(averages(model)))
    model.optimizer.assign_average_vars(weights)
    assert_same(values(weights), values(kept))
    assert_beside(weights, kept)
    # The training step donates its buffers: two variables can't share one.
    train(model, 1)


@pytest.mark.parametrize("name", LAYOUTS)
def test_callbacks_do_as_on_one_device(name):
    def run():
        model = new_model(new_optimizer(keras, kerasoptimizers, "SWA"))
        callbacks = [SwapAverages(), SWACallback(2, "cyclic", swa_freq=2)]
        train(model, 4, validation_data=(X, Y), callbacks=callbacks)
        losses = model.history.history["val_loss"]
        return [np.array(v) for v in model.trainable_variables], losses

    expected, losses = run()
    distribution.set_distribution(layout(name))
    found, found_losses = run()
    assert_close(found, expected)
    np.testing.assert_allclose(found_losses, losses, atol=1e-5)


@pytest.mark.parametrize("name", LAYOUTS)
def test_batch_norm_statistics_are_exact(name):
    distribution.set_distribution(layout(name))
    model = new_model(new_optimizer(keras, kerasoptimizers, "SWA"), norm=True)
    norm = model.get_layer("norm")

    def assert_exact():
        kernel, bias = (np.array(v, "float64") for v in model.get_layer("wide").weights)
        inputs = np.tanh(X @ kernel + bias)
        np.testing.assert_allclose(np.array(norm.moving_mean), inputs.mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(np.array(norm.moving_variance), inputs.var(0), rtol=1e-5)

    train(model, 4, callbacks=[SWACallback(2)])
    assert_exact()
    model.optimizer.swap_weights()
    update_batch_norm(model, X, batch_size=BATCH, verbose=0)
    assert_exact()
    train(model, 1)
