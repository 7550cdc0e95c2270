"""Averages in a model for good or for a while, with the batch-norm statistics that belong to them, in one line."""

import warnings

import keras
import numpy as np
import pytest

from generations import GENERATIONS, Generation
from kerasoptimizers import assign_average_vars, averages, averaging_optimizer

pytestmark = pytest.mark.sample

X = np.random.default_rng(0).normal(size=(48, 3)).astype("float32")
Y = X[:, :1] * 2 - X[:, 1:2]


@pytest.fixture(params=GENERATIONS)
def generation(request):
    return Generation(request.param)


def trained(generation, dtype=None, optimizer=None):
    generation.keras.utils.set_random_seed(0)
    layers = generation.keras.layers
    model = generation.keras.Sequential(
        [layers.Input((3,)), layers.Dense(4, dtype=dtype), layers.BatchNormalization(), layers.Dense(1)]
    )
    inner = generation.keras.optimizers.SGD(0.05, momentum=0.9)
    model.compile(optimizer or generation.ExponentialMovingAverage(inner, average_decay=0.9), "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X, Y, batch_size=8, epochs=2, verbose=0, shuffle=False)
    return model


def state(model):
    """The weights, and the averages as they are, swapped or not."""
    own = averaging_optimizer(model)
    slots = [own.get_slot(v, own.get_slot_names()[0]) for v in model.trainable_variables]
    return [np.array(v.numpy()) for v in [*model.weights, *slots]]


def slots(model):
    own = averaging_optimizer(model)
    return [np.array(own.get_slot(v, "average").numpy()) for v in model.trainable_variables]


def weights(model):
    return [np.array(v.numpy()) for v in model.trainable_variables]


def equal(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def has_statistics(model):
    dense, norm = model.layers[:2]
    outputs = X @ dense.kernel.numpy() + dense.bias.numpy()
    return np.allclose(norm.moving_mean.numpy(), outputs.mean(axis=0), rtol=1e-4, atol=1e-5) and np.allclose(
        norm.moving_variance.numpy(), outputs.var(axis=0), rtol=1e-4
    )


def test_averages_are_assigned_and_batch_norm_recomputed_in_one_call(generation):
    model = trained(generation)
    expected = slots(model)
    assign_average_vars(model, data=X, batch_size=20)
    assert equal(weights(model), expected)
    assert has_statistics(model)


def test_without_data_only_the_averages_are_assigned(generation):
    model = trained(generation)
    expected, statistics = slots(model), model.layers[1].moving_mean.numpy()
    assign_average_vars(model)
    assert equal(weights(model), expected)
    np.testing.assert_array_equal(model.layers[1].moving_mean.numpy(), statistics)


def test_a_pass_that_fails_leaves_the_model_as_it_was(generation):
    model = trained(generation)
    before = state(model)
    for finish in (assign_average_vars, lambda *args, **kwargs: averages(*args, **kwargs).__enter__()):
        with pytest.raises(Exception):
            finish(model, data=X[:, :2])
        assert equal(state(model), before)
        for name, value in (("data", "x"), ("data", iter([X])), ("batch_size", 0)):
            with pytest.raises((TypeError, ValueError), match=f"`{name}` must be"):
                finish(model, **{"data": X, name: value})
        assert equal(state(model), before)
    assert not averaging_optimizer(model).averages.shown


def test_averages_are_shown_for_a_while_and_the_weights_come_back(generation):
    model = trained(generation)
    before, expected = state(model), slots(model)
    with averages(model):
        assert equal(weights(model), expected)
        with averages(model):
            assert equal(weights(model), expected)
        assert equal(weights(model), expected)
        with pytest.raises(ValueError, match="call swap_weights"):
            assign_average_vars(model)
    assert equal(state(model), before)
    with averages(model, data=X):
        assert equal(weights(model), expected)
        assert has_statistics(model)
        model.evaluate(X, Y, verbose=0)
        model.predict(X, verbose=0)
    assert equal(state(model), before)
    # And training goes on.
    model.fit(X, Y, epochs=1, verbose=0)
    assert not equal(state(model), before)


def test_weights_come_back_after_an_error_or_an_interrupt(generation):
    model = trained(generation)
    before = state(model)
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), averages(model, data=X):
            raise error
        assert equal(state(model), before)

    class Fails(generation.keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), averages(model):
        model.evaluate(X, Y, verbose=0, callbacks=[Fails()])
    assert equal(state(model), before)


def test_bfloat16_weights_come_back_to_the_bit(generation):
    model = trained(generation, dtype="mixed_bfloat16")
    model.layers[0].kernel.assign(model.layers[0].kernel * 1.0)
    before = state(model)
    with averages(model, data=X):
        pass
    assert equal(state(model), before)


def test_there_must_be_an_average(generation):
    keras_ = generation.keras
    model = trained(generation, optimizer=generation.SWA(keras_.optimizers.SGD(0.1), start_averaging=1000))
    before = state(model)
    with pytest.raises(ValueError, match=r"averages\(\) needs an average, and there is none yet"), averages(model):
        pass
    with pytest.raises(ValueError, match=r"assign_average_vars\(\) needs an average"):
        assign_average_vars(model, data=X)
    assert equal(state(model), before)
    model.compile("sgd", "mse")
    for finish in (averages, assign_average_vars):
        with pytest.raises(ValueError, match="`model` must be compiled with an averaging optimizer"):
            finish(model)
        with pytest.raises(ValueError, match="`model` must be a Keras model, not 3"):
            finish(3)


@pytest.mark.parametrize("generation", ["keras3"], indirect=True)
def test_a_loss_scale_around_the_optimizer_is_looked_through(generation):
    inner = generation.keras.optimizers.SGD(0.05)
    scaled = keras.optimizers.LossScaleOptimizer(generation.ExponentialMovingAverage(inner))
    model = trained(generation, optimizer=scaled)
    before, expected = weights(model), slots(model)
    with averages(model):
        assert equal(weights(model), expected)
    assert equal(weights(model), before)
    assign_average_vars(model, data=X)
    assert equal(weights(model), expected)


def test_swap_averages_inside_of_it_changes_nothing(generation):
    model = trained(generation)
    before, expected = state(model), slots(model)
    with averages(model):
        model.evaluate(X, Y, verbose=0, callbacks=[generation.SwapAverages()])
        assert equal(weights(model), expected)
    assert equal(state(model), before)
