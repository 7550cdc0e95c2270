"""Work that the inner optimizer does by itself: gradient accumulation, clipping, weight decay, averages, parts."""

import keras
import numpy as np
import pytest

import kerasoptimizers
from generations import METHODS, assert_same, average_slot
from kerasoptimizers import SWA, ExponentialMovingAverage, Lookahead, averaging_optimizer

pytestmark = [pytest.mark.oldest_keras, pytest.mark.sample]

BACKEND = keras.backend.backend()
each_method = pytest.mark.parametrize(
    "method",
    [
        pytest.param(getattr(kerasoptimizers, name), marks=() if name in ("SWA", "Lookahead") else pytest.mark.long)
        for name in METHODS
    ],
)
needs_multi_optimizer = pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has no MultiOptimizer"
)


def data():
    generator = np.random.default_rng(1)
    x = generator.normal(size=(64, 4)).astype("float32")
    return x, (x @ np.array([[1.0], [-2.0], [0.5], [3.0]], "float32")).astype("float32")


class Recorder(keras.callbacks.Callback):
    """The weights after each call of the optimizer."""

    def on_train_begin(self, logs=None):
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.weights.append(weights(self.model))


def compiled_model(optimizer):
    keras.utils.set_random_seed(0)
    # Weights get the same paths wherever the model is made: MultiOptimizer goes by them.
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(8, activation="tanh", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(1, name="out")(hidden))
    model.compile(optimizer, "mse")
    return model


def train(optimizer, epochs=3):
    """A model after 8 calls of its optimizer in each epoch, and its weights after each."""
    model = compiled_model(optimizer)
    recorder = Recorder()
    model.fit(*data(), batch_size=8, epochs=epochs, verbose=0, shuffle=False, callbacks=[recorder])
    return model, recorder.weights


def weights(model):
    return [np.array(v.numpy()) for v in model.trainable_variables]


def state(optimizer):
    return [np.array(v.numpy()) for v in optimizer.variables]


def averages(optimizer, variables):
    slot = average_slot(optimizer)
    return [np.array(optimizer.get_slot(v, slot).numpy()) for v in variables]


def assert_close(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def mean(snapshots):
    return [np.mean(w, axis=0) for w in zip(*snapshots)]


def sgd(**config):
    return keras.optimizers.SGD(**{"learning_rate": 0.05, "momentum": 0.9, **config})


def adamw(**config):
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1, **config)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


INNER = {
    "clipnorm": lambda **c: sgd(clipnorm=0.1, **c),
    "clipvalue": lambda **c: sgd(clipvalue=0.05, **c),
    "global_clipnorm": lambda **c: sgd(global_clipnorm=0.1, **c),
    "weight_decay": lambda **c: sgd(weight_decay=0.1, **c),
    "excluded from weight_decay": adamw,
    "use_ema": lambda **c: sgd(use_ema=True, ema_momentum=0.8, **c),
    "ema_overwrite_frequency": lambda **c: sgd(use_ema=True, ema_momentum=0.8, ema_overwrite_frequency=5, **c),
    "loss_scale_factor": lambda **c: sgd(loss_scale_factor=1024.0, **c),
}


@pytest.mark.parametrize("steps", [pytest.param(None, marks=pytest.mark.long), 4])
@pytest.mark.parametrize("setting", INNER)
def test_settings_of_the_inner_optimizer_keep_working(setting, steps):
    plain, path = train(INNER[setting](gradient_accumulation_steps=steps))
    averaged, averaged_path = train(SWA(INNER[setting](gradient_accumulation_steps=steps), average_period=2))
    for actual, expected in zip(averaged_path, path, strict=True):
        assert_same(actual, expected)
    # At the end of fit() an inner `use_ema` puts its own averages into the model.
    assert_same(weights(averaged), weights(plain))
    assert_same(state(averaged.optimizer.optimizer), state(plain.optimizer))
    assert len(path) == 24
    assert averaged.optimizer.snapshots == (12 if steps is None else 3)
    updates = path[slice(None) if steps is None else slice(steps - 1, None, steps)]
    assert_close(averages(averaged.optimizer, averaged.trainable_variables), mean(updates[::2]))


@pytest.mark.long
@pytest.mark.parametrize("setting", INNER)
def test_settings_of_the_inner_optimizer_change_training(setting):
    # Or the test before would compare nothing.
    base = keras.optimizers.AdamW(0.01, weight_decay=0.1) if setting.startswith("excl") else sgd()
    plain, _ = train(base)
    other, _ = train(INNER[setting]())
    same = all(np.array_equal(a, b) for a, b in zip(weights(plain), weights(other)))
    # A power of two divides out again without rounding.
    assert same == (setting == "loss_scale_factor")


@each_method
def test_accumulated_gradients_are_one_update(method):
    accumulated, path = train(method(sgd(gradient_accumulation_steps=4)), epochs=6)
    # Four batches of 8 are one of 32.
    whole = compiled_model(method(sgd()))
    whole.fit(*data(), batch_size=32, epochs=6, verbose=0, shuffle=False)
    assert int(accumulated.optimizer.iterations) == int(whole.optimizer.iterations) == 12
    assert_close(path[-1], weights(whole))
    variables = accumulated.trainable_variables, whole.trainable_variables
    assert_close(averages(accumulated.optimizer, variables[0]), averages(whole.optimizer, variables[1]))


@each_method
def test_a_saved_model_goes_on_between_two_updates(method, tmp_path):
    def train_on(model, batches):
        x, y = data()
        for batch in batches:
            model.train_on_batch(x[8 * batch : 8 * batch + 8], y[8 * batch : 8 * batch + 8])

    model = compiled_model(method(sgd(gradient_accumulation_steps=3)))
    train_on(model, range(5))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for m in (model, loaded):
        train_on(m, range(5, 8))
    assert int(loaded.optimizer.iterations) == 2
    assert_same(weights(loaded), weights(model))
    assert_same(state(loaded.optimizer), state(model.optimizer))


def test_both_clip_where_both_are_asked_to():
    # The wrapper clips first, then the inner optimizer clips the result.
    both, _ = train(SWA(sgd(clipnorm=0.02), clipnorm=0.1))
    tighter, _ = train(sgd(clipnorm=0.02))
    assert_close(weights(both), weights(tighter))
    both, _ = train(SWA(sgd(clipvalue=0.5), clipnorm=0.02))
    assert_close(weights(both), weights(tighter))


def test_an_inner_average_and_ours_stand_side_by_side():
    model, path = train(
        ExponentialMovingAverage(sgd(use_ema=True, ema_momentum=0.8), average_decay=0.8, dynamic_decay=False)
    )
    variables = model.trainable_variables
    ours = averages(model.optimizer, variables)
    inner = [np.array(v.numpy()) for v in model.optimizer.optimizer._model_variables_moving_average]
    start = weights(compiled_model("sgd"))
    expected = start
    for w in path:
        expected = [0.8 * a + 0.2 * b for a, b in zip(expected, w)]
    assert_close(ours, expected)
    # Keras's average has another start and the same arithmetic, and is in the model after fit().
    assert_same(weights(model), inner)
    model.optimizer.assign_average_vars(variables)
    assert_same(weights(model), ours)


def test_accumulation_is_the_inner_optimizers():
    with pytest.raises(TypeError, match="no argument `gradient_accumulation_steps`.* inner optimizer"):
        SWA(sgd(), gradient_accumulation_steps=4)
    optimizer = SWA(sgd())
    with pytest.raises(ValueError, match="`gradient_accumulation_steps` must be set on the inner optimizer"):
        optimizer.gradient_accumulation_steps = 4


@each_method
def test_variables_are_excluded_from_the_inner_weight_decay(method):
    models = []
    for excluded_first in (True, False):
        inner = keras.optimizers.AdamW(0.01, weight_decay=0.5)
        optimizer = method(inner)
        (inner if excluded_first else optimizer).exclude_from_weight_decay(var_names=["bias"])
        models.append(train(optimizer)[0])
    plain, _ = train(method(keras.optimizers.AdamW(0.01, weight_decay=0.5)))
    assert_same(weights(models[0]), weights(models[1]))
    assert not np.allclose(weights(models[0])[1], weights(plain)[1])


@pytest.mark.parametrize("steps", [None, 3])
def test_nested_methods_count_the_same_updates(steps):
    optimizer = Lookahead(SWA(sgd(gradient_accumulation_steps=steps), average_period=2), sync_period=4)
    model, path = train(optimizer)
    alone, alone_path = train(Lookahead(sgd(gradient_accumulation_steps=steps), sync_period=4))
    for actual, expected in zip(path, alone_path, strict=True):
        assert_same(actual, expected)
    inner = optimizer.optimizer
    updates = 24 // (steps or 1)
    assert int(optimizer.iterations) == int(inner.iterations) == updates
    assert inner.snapshots == updates // 2
    # Snapshots are of even updates, before Lookahead steps back after odd ones.
    snapshots = path[(steps or 1) - 1 :: (steps or 1)][::2]
    assert_close(averages(inner, model.trainable_variables), mean(snapshots))


# Keras's MultiOptimizer: as the inner optimizer, and with one of this package's in it.


def multi(hidden=None, out=None, around_out=lambda optimizer: optimizer):
    """SGD for the output layer, Adam for the hidden one, with their steps of accumulation."""
    optimizers = keras.optimizers
    return optimizers.MultiOptimizer(
        optimizers.OptimizerMap(
            around_out(sgd(gradient_accumulation_steps=out)),
            {"hidden/.*": optimizers.Adam(0.01, gradient_accumulation_steps=hidden)},
        )
    )


@needs_multi_optimizer
@pytest.mark.parametrize("hidden, out", [(None, None), (4, 4), (2, 4), (4, None)])
def test_a_multi_optimizer_updates_as_often_as_its_most_frequent_part(hidden, out):
    _, path = train(multi(hidden, out))
    model, averaged_path = train(SWA(multi(hidden, out), start_averaging=1, average_period=2))
    for actual, expected in zip(averaged_path, path, strict=True):
        assert_same(actual, expected)
    calls = min(hidden or 1, out or 1)
    snapshots = path[calls - 1 :: calls][1::2]
    assert int(model.optimizer.iterations) == 24 // calls
    assert model.optimizer.snapshots == len(snapshots)
    assert_close(averages(model.optimizer, model.trainable_variables), mean(snapshots))


@needs_multi_optimizer
def test_a_part_without_variables_does_not_count():
    optimizers = keras.optimizers
    map_of_parts = optimizers.OptimizerMap(sgd(gradient_accumulation_steps=4), {"none": sgd()})
    model, _ = train(SWA(optimizers.MultiOptimizer(map_of_parts), average_period=1))
    assert int(model.optimizer.iterations) == model.optimizer.snapshots == 6


@needs_multi_optimizer
def test_parts_chosen_by_a_function():
    part = sgd(gradient_accumulation_steps=4)
    optimizer = SWA(keras.optimizers.MultiOptimizer(lambda variable: part), average_period=1)
    assert int(optimizer.iterations) == 0
    model, _ = train(optimizer)
    assert int(model.optimizer.iterations) == model.optimizer.snapshots == 6


@needs_multi_optimizer
def test_setting_iterations_reaches_every_part():
    optimizer = SWA(multi(2, 4))
    compiled_model(optimizer)
    optimizer.iterations = 6
    assert [int(part.iterations) for part in optimizer.optimizer.optimizers] == [6, 6]
    assert int(optimizer.iterations) == 6


@needs_multi_optimizer
def test_one_of_ours_in_a_multi_optimizer(tmp_path):
    _, path = train(multi(2, 4))
    model, averaged_path = train(multi(2, 4, lambda inner: SWA(inner, average_period=1)))
    for actual, expected in zip(averaged_path, path, strict=True):
        assert_same(actual, expected)
    ours = next(part for part in model.optimizer.optimizers if isinstance(part, SWA))
    variables = model.layers[-1].trainable_variables
    assert int(ours.iterations) == ours.snapshots == 6
    expected = mean([w[2:] for w in path[3::4]])
    assert_close(averages(ours, variables), expected)

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(state(loaded.optimizer), state(model.optimizer))

    before = weights(model)
    ours.swap_weights()
    assert_close(weights(model), before[:2] + expected)
    ours.swap_weights()
    assert_same(weights(model), before)
    with pytest.raises(ValueError, match="`var_list` must hold variables this optimizer was built for"):
        ours.assign_average_vars(model.trainable_variables)
    ours.assign_average_vars(variables)
    assert_close(weights(model), before[:2] + expected)
    with pytest.raises(ValueError, match="averaging optimizer such as SWA, not with MultiOptimizer"):
        averaging_optimizer(model)


@needs_multi_optimizer
def test_a_multi_optimizer_is_saved_with_the_averages(tmp_path):
    model, _ = train(Lookahead(multi(2, 4), sync_period=5))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(state(loaded.optimizer), state(model.optimizer))
    for m in (model, loaded):
        m.fit(*data(), batch_size=8, verbose=0, shuffle=False)
    assert_same(weights(loaded), weights(model))
    assert_same(state(loaded.optimizer), state(model.optimizer))


@needs_multi_optimizer
@pytest.mark.parametrize("setting", ["lr", "decay"])
def test_several_learning_rates_take_no_lr_or_decay(setting):
    with pytest.raises(ValueError, match=f"`{setting}` cannot be given: .* several"):
        SWA(multi(), **{setting: 0.1})
