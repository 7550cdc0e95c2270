"""The behaviour of every averaging optimizer, on the Keras 3 backend that KERAS_BACKEND names."""

import io
import zipfile

import h5py
import keras
import numpy as np
import pytest

import kerasoptimizers
from generations import GENERATIONS, METHODS, Generation, assert_same, average_slot
from kerasoptimizers import (
    SWA,
    ExponentialMovingAverage,
    Lookahead,
    MovingAverage,
    averaging_optimizer,
    backends,
)

pytestmark = pytest.mark.sample

BACKEND = keras.backend.backend()
TENSORFLOW = BACKEND == "tensorflow"
LOSS_SCALE_OUTERMOST = "on JAX a LossScaleOptimizer can only stand outermost"
each_method = pytest.mark.parametrize("method", [getattr(kerasoptimizers, name) for name in METHODS])
# Those that average what the model holds, whoever has set it.
each_that_follows = pytest.mark.parametrize("method", [SWA, Lookahead, ExponentialMovingAverage, MovingAverage])
needs_tensorflow = pytest.mark.skipif(
    not TENSORFLOW, reason="sparse gradients (tf.IndexedSlices) exist on TensorFlow only"
)


def data(examples=64):
    generator = np.random.default_rng(1)
    x = generator.normal(size=(examples, 4)).astype("float32")
    return x, (x @ np.array([[1.0], [-2.0], [0.5], [3.0]], "float32")).astype("float32")


def compiled_model(optimizer, seed=0, **compile_arguments):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)])
    # An object, because Keras 3 can't read "mse" back from an HDF5 file.
    model.compile(optimizer, keras.losses.MeanSquaredError(), **compile_arguments)
    return model


def sgd(**config):
    return keras.optimizers.SGD(**{"learning_rate": 0.05, "momentum": 0.9, **config})


def weights(model):
    return [np.array(v.numpy()) for v in model.trainable_variables]


def averages(model):
    optimizer = averaging_optimizer(model)
    slot = average_slot(optimizer)
    return [np.array(optimizer.get_slot(v, slot).numpy()) for v in model.trainable_variables]


def assert_close(actual, expected, tolerance=1e-6):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


class Recorder(keras.callbacks.Callback):
    """The weights after each update."""

    def on_train_begin(self, logs=None):
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.weights.append(weights(self.model))


def train(optimizer, updates=24, **compile_arguments):
    """A model after `updates` updates in fit(), and its weights after each."""
    model = compiled_model(optimizer, **compile_arguments)
    x, y = data()
    recorder = Recorder()
    model.fit(x, y, batch_size=8, epochs=updates // 8, verbose=0, shuffle=False, callbacks=[recorder])
    return model, recorder.weights


# Rules, as fit() compiles them.


@pytest.mark.parametrize("start, period", [(0, 1), (0, 10), (3, 4), (23, 1)])
def test_swa_average_is_the_mean_of_the_snapshots(start, period):
    model, path = train(SWA(sgd(), start_averaging=start, average_period=period))
    snapshots = path[start::period]
    assert_close(averages(model), [np.mean(w, axis=0) for w in zip(*snapshots)])
    assert model.optimizer.snapshots == len(snapshots)


def test_swa_leaves_training_as_it_is():
    plain, _ = train(sgd())
    averaged, _ = train(SWA(sgd(), average_period=2))
    assert_same(weights(averaged), weights(plain))


def test_first_snapshot_is_the_weights_bit_for_bit():
    model, path = train(SWA(sgd(), start_averaging=20, average_period=100))
    assert_same(averages(model), path[20])


@pytest.mark.parametrize("period, step_size", [(6, 0.5), (1, 0.3), (5, 1.0), (24, 0.8)])
def test_lookahead_sets_weights_to_the_slow_weights(period, step_size):
    # The inner optimizer has no state, so that its path can be followed from any weights.
    model, path = train(Lookahead(sgd(momentum=0.0), period, step_size))
    assert_same(averages(model), path[24 // period * period - 1])


def test_lookahead_follows_the_paper():
    x, y = data(8)
    model = compiled_model(Lookahead(sgd(momentum=0.0), sync_period=3, slow_step_size=0.4))
    twin = compiled_model(sgd(momentum=0.0))
    slow = weights(twin)
    for update in range(9):
        model.train_on_batch(x, y)
        twin.train_on_batch(x, y)
        if update % 3 == 2:
            slow = [s + 0.4 * (f - s) for s, f in zip(slow, weights(twin))]
            twin.set_weights(slow)
        assert_close(weights(model), weights(twin))
    assert_close(averages(model), slow)


@pytest.mark.parametrize("large", [False, True] if TENSORFLOW else [False])
@each_method
def test_compiled_and_eager_training_agree(method, large, monkeypatch):
    # On TensorFlow large averages are moved in another way than small ones.
    monkeypatch.setattr(backends, "is_large", lambda average: large)
    compiled, _ = train(method(sgd()))
    eager, _ = train(method(sgd()), run_eagerly=True)
    assert_close(weights(compiled), weights(eager), 1e-5)
    assert_close(averages(compiled), averages(eager), 1e-5)


@pytest.mark.parametrize("inner", ["sgd", "adam", "rmsprop", "adagrad", "adamw", "lion"])
def test_inner_optimizers_by_name(inner):
    by_name, _ = train(SWA(inner, average_period=5))
    by_object, _ = train(SWA(keras.optimizers.get(inner), average_period=5))
    assert_same(averages(by_name), averages(by_object))
    assert isinstance(by_name.optimizer.optimizer, type(keras.optimizers.get(inner)))


def test_wrappers_nest():
    model, path = train(SWA(Lookahead(sgd(), sync_period=4), average_period=3))
    assert_close(averages(model), [np.mean(w, axis=0) for w in zip(*path[::3])])
    slow = model.optimizer.get_slot(model.trainable_variables[0], "slow")
    assert tuple(slow.shape) == (4, 8)


def test_accumulated_gradients_are_one_update():
    optimizer = SWA(sgd(gradient_accumulation_steps=4), start_averaging=1, average_period=2)
    model, path = train(optimizer)
    snapshots = path[3::4][1::2]  # after each real update, from number 1, every second
    assert model.optimizer.snapshots == len(snapshots) == 3
    assert_close(averages(model), [np.mean(w, axis=0) for w in zip(*snapshots)])


# Reading and setting through to the inner optimizer.


@pytest.mark.parametrize("attribute", ["learning_rate", "lr"])
def test_learning_rate_is_the_inner_optimizers(attribute):
    optimizer = SWA(sgd(learning_rate=0.05))
    assert float(getattr(optimizer, attribute)) == pytest.approx(0.05)
    setattr(optimizer, attribute, 0.02)
    assert float(optimizer.optimizer.learning_rate) == pytest.approx(0.02)


def test_learning_rate_callback_reaches_the_inner_optimizer():
    rates = [0.1, 0.01]
    model = compiled_model(SWA(sgd()))
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rates[epoch])
    history = model.fit(*data(), epochs=2, verbose=0, callbacks=[scheduler]).history
    assert history["learning_rate"] == pytest.approx(rates)
    assert float(model.optimizer.optimizer.learning_rate) == pytest.approx(0.01)


def test_iterations_are_the_inner_optimizers():
    model, _ = train(SWA(sgd()))
    assert int(model.optimizer.iterations) == int(model.optimizer.optimizer.iterations) == 24
    model.optimizer.iterations = 100
    assert int(model.optimizer.optimizer.iterations) == 100


@pytest.mark.parametrize(
    "inner",
    [
        lambda: sgd(gradient_accumulation_steps=4),
        pytest.param(
            lambda: keras.optimizers.LossScaleOptimizer(sgd()),
            marks=pytest.mark.skipif(BACKEND == "jax", reason=LOSS_SCALE_OUTERMOST),
        ),
        lambda: Lookahead(sgd()),
    ],
)
def test_setting_iterations_reaches_the_optimizer_that_counts(inner):
    optimizer = SWA(inner())
    optimizer.iterations = 7
    assert int(optimizer.iterations) == 7


@pytest.mark.skipif(BACKEND != "jax", reason="the limit is JAX's")
def test_a_loss_scale_inside_is_refused_on_jax():
    with pytest.raises(ValueError, match="`optimizer` must not be a LossScaleOptimizer on JAX"):
        SWA(keras.optimizers.LossScaleOptimizer(sgd()))


@pytest.mark.skipif(BACKEND == "jax", reason=LOSS_SCALE_OUTERMOST)
def test_updates_skipped_by_an_inner_loss_scale_do_not_count():
    model = compiled_model(SWA(keras.optimizers.LossScaleOptimizer(sgd()), average_period=1))
    x, y = data(32)
    for i in range(4):
        model.train_on_batch(np.full_like(x, np.inf) if i == 2 else x, y)
    assert int(model.optimizer.iterations) == model.optimizer.snapshots == 3
    assert all(np.isfinite(average).all() for average in averages(model))


def test_decay_divides_the_rate_by_one_plus_decay_times_updates():
    decayed, _ = train(SWA(sgd(), decay=0.1))
    schedule = keras.optimizers.schedules.InverseTimeDecay(0.05, decay_steps=1, decay_rate=0.1)
    scheduled, _ = train(SWA(sgd(learning_rate=schedule)))
    assert_close(weights(decayed), weights(scheduled))
    assert float(decayed.optimizer.learning_rate) == pytest.approx(0.05)


def test_lr_sets_the_inner_rate_and_says_what_to_use():
    with pytest.warns(DeprecationWarning, match="learning_rate"):
        optimizer = SWA(sgd(), lr=0.3)
    assert float(optimizer.optimizer.learning_rate) == pytest.approx(0.3)


@pytest.mark.parametrize("clip", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_clipping_is_that_of_keras(clip):
    ours, _ = train(SWA(sgd(), **{clip: 0.1}))
    keras_own, _ = train(sgd(**{clip: 0.1}))
    unclipped, _ = train(sgd())
    assert_close(weights(ours), weights(keras_own))
    assert not np.allclose(weights(ours)[0], weights(unclipped)[0])


def test_clipping_limits_the_gradient_without_its_loss_scale():
    scaled, _ = train(SWA(sgd(loss_scale_factor=1024.0), clipnorm=0.1))
    plain, _ = train(SWA(sgd(), clipnorm=0.1))
    assert_close(weights(scaled), weights(plain), 1e-5)


# Sparse gradients.


def sparse_model(optimizer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Embedding(20, 3), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    tokens = np.array([[1, 1, 2], [3, 1, 1], [7, 2, 2], [9, 9, 9]])
    model.fit(tokens, np.arange(4.0), epochs=6, batch_size=2, verbose=0, shuffle=False)
    return model


@needs_tensorflow
@each_method
def test_embeddings_average_rows_without_gradient_too(method):
    model = sparse_model(method(sgd()))
    plain = sparse_model(sgd())
    if model.optimizer.averages.rule.blend == 0:
        assert_same(weights(model), weights(plain))
    untouched = model.layers[0].embeddings.numpy()[0]
    np.testing.assert_array_equal(averages(model)[0][0], untouched)


@needs_tensorflow
@pytest.mark.parametrize("clip", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_clipping_a_sparse_gradient_is_clipping_the_dense_one(clip):
    import tensorflow as tf

    values = tf.constant([[1.0, 2.0], [3.0, -4.0], [0.5, 0.5]])
    sparse = tf.IndexedSlices(values, tf.constant([2, 0, 2]), tf.constant([4, 2]))
    results = []
    for gradient in (sparse, tf.convert_to_tensor(sparse)):
        variable = keras.Variable(np.ones((4, 2), "float32"))
        optimizer = SWA(sgd(learning_rate=1.0, momentum=0.0), **{clip: 0.7})
        optimizer.build([variable])
        optimizer.apply([gradient], [variable])
        results.append(variable.numpy())
    assert_close([results[0]], [results[1]])
    assert not np.allclose(results[0], 1.0)


# Moving averages in and out.


@pytest.mark.parametrize("action", ["assign_average_vars", "swap_weights"])
def test_before_the_first_snapshot_there_is_no_average(action):
    model, path = train(SWA(sgd(), start_averaging=100))
    arguments = [model.trainable_variables] if action == "assign_average_vars" else []
    with pytest.raises(ValueError, match=f"{action}.. needs an average.*24 updates.*after update 100"):
        getattr(model.optimizer, action)(*arguments)
    assert_same(weights(model), path[-1])
    assert not model.optimizer.has_average


def test_assign_average_vars_sets_weights_and_keeps_averages():
    model, _ = train(SWA(sgd(), average_period=3))
    before = averages(model)
    model.optimizer.assign_average_vars(model.trainable_variables)
    assert_same(weights(model), before)
    assert_same(averages(model), before)


def test_assign_average_vars_leaves_other_variables_alone():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    model.compile(SWA(sgd(), average_period=3), "mse")
    model.fit(*data(), epochs=2, verbose=0)
    statistics = [v.numpy() for v in model.non_trainable_variables]
    model.optimizer.assign_average_vars(model.variables)
    assert_same([v.numpy() for v in model.non_trainable_variables], statistics)
    assert_same(weights(model), averages(model))


def test_variables_of_another_model_are_refused_before_anything_is_changed():
    model, path = train(SWA(sgd(), average_period=3))
    other = compiled_model("sgd", seed=9)
    mixed = model.trainable_variables[:2] + other.trainable_variables
    with pytest.raises(ValueError, match="`var_list` must hold variables this optimizer"):
        model.optimizer.assign_average_vars(mixed)
    assert_same(weights(model), path[-1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_swapping_twice_is_bit_for_bit(dtype):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype=dtype)])
    model.compile(SWA(sgd(), average_period=3), "mse")
    model.fit(data()[0], np.zeros((64, 3)), epochs=2, verbose=0)
    before, average_before = weights(model), averages(model)
    assert average_before[0].dtype == np.float32
    model.optimizer.swap_weights()
    assert_same(weights(model), [a.astype(w.dtype) for a, w in zip(average_before, before)])
    model.optimizer.swap_weights()
    assert_same(weights(model), before)
    assert_same(averages(model), average_before)


@pytest.mark.parametrize("action", ["assign", "swap"])
def test_training_goes_on_after_averages_were_moved(action):
    # On JAX a weight and an average that share a buffer make the next fit() fail.
    model, _ = train(SWA(sgd(), average_period=2))
    for _ in range(3):
        if action == "assign":
            model.optimizer.assign_average_vars(model.trainable_variables)
        else:
            model.optimizer.swap_weights()
            model.optimizer.swap_weights()
        model.fit(*data(), epochs=1, verbose=0)
    assert model.optimizer.snapshots == 12 + 3


def test_swapping_between_epochs_does_not_disturb_training():
    model = compiled_model(SWA(sgd(), average_period=2))
    plain = compiled_model(sgd())
    for _ in range(3):
        for m in (model, plain):
            m.fit(*data(), epochs=1, verbose=0, shuffle=False)
        model.optimizer.swap_weights()
        model.optimizer.swap_weights()
    assert_same(weights(model), weights(plain))


def test_get_slot_finds_averages_and_inner_slots():
    model, _ = train(SWA(sgd()))
    variable = model.trainable_variables[0]
    assert tuple(model.optimizer.get_slot(variable, "average").shape) == tuple(variable.shape)
    assert np.any(model.optimizer.get_slot(variable, "momentum").numpy())
    with pytest.raises(ValueError, match="`slot_name` must be 'average'"):
        model.optimizer.get_slot(variable, "velocity")
    with pytest.raises(ValueError, match="`var` must be a variable this optimizer was built for"):
        model.optimizer.get_slot(compiled_model("sgd").trainable_variables[0], "average")


def test_averaging_optimizer_looks_through_loss_scaling():
    inner = SWA(sgd())
    model = compiled_model(keras.optimizers.LossScaleOptimizer(inner))
    assert averaging_optimizer(model) is averaging_optimizer(model.optimizer) is inner
    with pytest.raises(ValueError, match="`model` must be compiled with an averaging optimizer"):
        averaging_optimizer(compiled_model("sgd"))


# Variables and files.


@each_method
def test_variables_are_listed_once_count_first(method):
    model, _ = train(method(sgd()))
    variables = model.optimizer.variables
    assert len({id(v) for v in variables}) == len(variables)
    assert variables[0] is model.optimizer.optimizer.variables[0]
    assert list(variables()) == list(variables)
    # count, rate, momentum and slots of four weights, refused updates, and the rule's numbers
    rule = model.optimizer.averages.rule
    assert len(variables) == 2 + 4 + 4 * len(rule.slots) + 1 + len(rule.scalars)


@each_method
def test_config_makes_the_same_optimizer(method):
    optimizer = method(sgd(), name="mine", clipvalue=0.5, decay=0.01)
    twin = method.from_config(optimizer.get_config())
    assert twin.get_config() == optimizer.get_config()
    assert isinstance(twin.optimizer, keras.optimizers.SGD)


@each_method
def test_a_saved_model_goes_on_training_where_it_was(method, tmp_path):
    model, _ = train(method(sgd()))
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert type(loaded.optimizer) is method
    assert_same([v.numpy() for v in loaded.optimizer.variables], [v.numpy() for v in model.optimizer.variables])
    for m in (model, loaded):
        m.fit(*data(), batch_size=8, epochs=2, verbose=0, shuffle=False)
    assert_same(weights(loaded), weights(model))
    assert_same(averages(loaded), averages(model))


@each_method
def test_a_whole_model_in_an_hdf5_file_goes_on_where_it_was(method, tmp_path):
    # Keras 3 builds the optimizer of such a file for no variables.
    model, _ = train(method(sgd()))
    model.save(tmp_path / "model.h5")
    loaded = keras.models.load_model(tmp_path / "model.h5")
    assert_same(weights(loaded), weights(model))
    built = keras.models.load_model(tmp_path / "model.h5")
    built.optimizer.shadow_copy(built)
    assert_same(averages(built), averages(model))
    for m in (model, loaded):
        m.fit(*data(), batch_size=8, epochs=2, verbose=0, shuffle=False)
    assert_same(weights(loaded), weights(model))
    assert_same(averages(loaded), averages(model))
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations) == 24 + 16


def test_a_file_holds_each_variable_once(tmp_path):
    model, _ = train(SWA(sgd()))
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        file = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    found = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    assert len(found) == len(model.variables) + len(model.optimizer.variables)


def test_set_weights_sets_all_or_nothing():
    model, _ = train(SWA(sgd()))
    saved = [v.numpy() for v in model.optimizer.variables]
    with pytest.raises(ValueError, match="`weights` must be arrays of the shapes"):
        model.optimizer.set_weights([value + 1 for value in saved[:-1]])
    assert_same([v.numpy() for v in model.optimizer.variables], saved)
    model.optimizer.set_weights([2 * value for value in saved])
    assert_same([v.numpy() for v in model.optimizer.variables], [2 * value for value in saved])


def test_an_inner_optimizer_of_another_model_is_refused():
    model, _ = train(sgd())
    optimizer = SWA(model.optimizer)
    with pytest.raises(ValueError, match="`optimizer` was built for other variables"):
        optimizer.build(compiled_model("sgd").trainable_variables)


def test_a_trained_optimizer_can_be_wrapped():
    # Its count has gone on, but the average is of the snapshots taken since.
    model, _ = train(sgd())
    model.compile(SWA(model.optimizer, average_period=4), "mse")
    recorder = Recorder()
    model.fit(*data(), batch_size=8, verbose=0, callbacks=[recorder])
    assert_close(averages(model), [np.mean(w, axis=0) for w in zip(*recorder.weights[::4])])


# Arguments.


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: SWA(None), "`optimizer` must be a Keras 3 optimizer or the name of one, not None."),
        (lambda: SWA("nonsense"), "`optimizer` must be a Keras 3 optimizer.*not 'nonsense'"),
        (lambda: SWA(keras.optimizers.SGD), "`optimizer` must be a Keras 3 optimizer"),
        (lambda: SWA(sgd(), -1), "`start_averaging` must be a whole number >= 0 or a text such as '3 epochs', not -1."),
        (
            lambda: SWA(sgd(), 1.5),
            "`start_averaging` must be a whole number >= 0 or a text such as '3 epochs', not 1.5.",
        ),
        (
            lambda: SWA(sgd(), True),
            "`start_averaging` must be a whole number >= 0 or a text such as '3 epochs', not True.",
        ),
        (lambda: SWA(sgd(), 0, 0), "`average_period` must be a whole number >= 1, not 0."),
        (lambda: SWA(sgd(), 0, None), "`average_period` must be a whole number >= 1, not None."),
        (lambda: SWA(sgd(), name=""), "`name` must be a string"),
        (lambda: SWA(sgd(), sequential_update=1), "`sequential_update` must be True or False"),
        (lambda: SWA(sgd(), clipnorm=0), "`clipnorm` must be a number > 0, not 0."),
        (lambda: SWA(sgd(), clipvalue=float("nan")), "`clipvalue` must be a number > 0, not nan."),
        (lambda: SWA(sgd(), decay=-0.1), "`decay` must be a number >= 0, not -0.1."),
        (lambda: SWA(sgd(), lr="fast"), "`lr` must be a number >= 0, not 'fast'."),
        (lambda: SWA(sgd(), clipnorm=1, global_clipnorm=1), "Only one of `clipnorm` and"),
        (lambda: SWA(sgd(), weight_decay=0.1), "no argument `weight_decay`.*inner optimizer"),
        (
            lambda: ExponentialMovingAverage(sgd(), average_decay=1.1),
            "`average_decay` must be a number from 0 to 1, not 1.1.",
        ),
        (
            lambda: ExponentialMovingAverage(sgd(), trainable_weights_only=None),
            "`trainable_weights_only` must be True or False, not None.",
        ),
        (
            lambda: ExponentialMovingAverage(sgd(), update_period=0),
            "`update_period` must be a whole number >= 1, not 0.",
        ),
        (
            lambda: ExponentialMovingAverage(sgd(), average_decay=0.99, half_life=10),
            "Only one of `average_decay` and `half_life` can be given, not both.",
        ),
        (
            lambda: ExponentialMovingAverage(sgd(), half_life=1, warmup_gamma=1, min_decay=0.75),
            "`min_decay` must be at most `average_decay`, 0.5, not 0.75.",
        ),
        (
            lambda: ExponentialMovingAverage(sgd(), update_period=2, overwrite_period=3),
            "`overwrite_period` must be a multiple of `update_period`, 2, not 3.",
        ),
        (lambda: MovingAverage(sgd(), num_updates=-1), "`num_updates` must be a whole number >= 0"),
        (lambda: MovingAverage(sgd(), start_step=0.5), "`start_step` must be a whole number >= 0"),
        (lambda: Lookahead(sgd(), 0), "`sync_period` must be a whole number >= 1, not 0."),
        (lambda: Lookahead(sgd(), 5, 1.5), "`slow_step_size` must be a number from 0 to 1, not 1.5"),
        (lambda: Lookahead(sgd(), 5, "x"), "`slow_step_size` must be a number from 0 to 1, not 'x'"),
        (lambda: Lookahead(sgd(), slow_momentum=-0.5), "`slow_momentum` must be a number from 0 to 1, not -0.5."),
        (lambda: Lookahead(sgd(), inner_state="zero"), "`inner_state` must be .keep., .reset. or .average., not "),
    ],
)
def test_wrong_arguments_are_named_in_one_line(make, message):
    with pytest.raises((TypeError, ValueError), match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_rate_that_is_a_schedule_takes_no_lr_or_decay():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    for setting in ("lr", "decay"):
        with pytest.raises(ValueError, match=f"`{setting}` cannot be given"):
            SWA(sgd(learning_rate=schedule), **{setting: 0.1})


def test_a_wrong_argument_leaves_the_inner_optimizer_as_it_was():
    inner = sgd(learning_rate=0.05)
    with pytest.raises(ValueError, match="`average_period`"):
        SWA(inner, average_period=0, lr=0.9)
    with pytest.raises(ValueError, match="Only one"):
        SWA(inner, lr=0.9, clipnorm=1.0, global_clipnorm=1.0)
    assert float(inner.learning_rate) == pytest.approx(0.05)


# Exponential moving averages.


def test_ema_follows_its_formula_in_fit():
    model, path = train(ExponentialMovingAverage(sgd(), average_decay=0.9, start_step=5))
    average = path[0]
    for step, w in enumerate(path, start=1):
        decay = 0.0 if step < 5 else min(0.9, (1 + step - 5) / (10 + step - 5))
        average = [decay * a + (1 - decay) * b for a, b in zip(average, w)]
    assert_close(averages(model), average)


def test_ema_starts_as_a_copy_of_the_weights():
    optimizer = ExponentialMovingAverage(sgd())
    model = compiled_model(optimizer)
    optimizer.shadow_copy(model)
    assert optimizer.has_shadow_copy
    assert_same(averages(model), weights(model))


def test_update_period_compounds_the_decay():
    settings = {"average_decay": 0.9, "dynamic_decay": False}
    model, path = train(ExponentialMovingAverage(sgd(), update_period=4, **settings))
    average = weights(compiled_model(sgd()))
    for w in path[3::4]:
        average = [0.9**4 * a + (1 - 0.9**4) * b for a, b in zip(average, w)]
    assert_close(averages(model), average)


def test_num_updates_limits_the_decay():
    limited, _ = train(MovingAverage(sgd(), average_decay=0.99, num_updates=5))
    plain, _ = train(MovingAverage(sgd(), average_decay=6 / 15))
    assert_same(averages(limited), averages(plain))
    assert MovingAverage.from_config(limited.optimizer.get_config()).num_updates == 5


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("method", ["ExponentialMovingAverage", "MovingAverage"])
@pytest.mark.parametrize("decay", [0.9999, 0.9999999, 0.99999999, 1 - 1e-12])
def test_a_decay_that_float32_would_round_to_one_moves_the_average(generation, method, decay):
    generation = Generation(generation)
    inner = generation.keras.optimizers.SGD(1.0)
    optimizer = getattr(generation, method)(inner, average_decay=decay, dynamic_decay=False)
    variables = generation.variables([np.zeros(3), np.zeros((200, 100))])
    expected, weight = 0.0, 0.0
    for _ in range(3):
        generation.apply(optimizer, [-np.ones(3), -np.ones((200, 100))], variables)
        weight += 1.0
        expected += (1 - decay) * (weight - expected)
    for variable in variables:
        average = optimizer.get_slot(variable, "average").numpy()
        np.testing.assert_allclose(average, np.full(average.shape, expected), rtol=2e-3)


@pytest.mark.parametrize("generation", GENERATIONS)
@each_that_follows
def test_averages_of_float64_weights_are_computed_in_float64(generation, method):
    generation = Generation(generation)
    if BACKEND == "jax":
        pytest.skip("JAX has float64 only where it is switched on for the whole process")
    ours = getattr(generation, method.__name__)
    settings = {"SWA": {"average_period": 1}, "Lookahead": {"sync_period": 1, "slow_step_size": 0.1}}
    decays = {"average_decay": 0.9, "dynamic_decay": True}
    optimizer = ours(generation.keras.optimizers.SGD(0.0), **settings.get(method.__name__, decays))
    (variable,) = variables = generation.variables([[1 / 3, 2 / 7]], "float64")
    slot = optimizer.get_slot_names()[0]
    for update in range(5):
        # Not by a gradient: Keras's own learning rate is a float32.
        variable.assign(np.array([np.pi, np.e]) / (update + 1))
        weights = variable.numpy()
        generation.apply(optimizer, [[0.0, 0.0]], variables)
        fraction = {"SWA": 1 / (update + 1), "Lookahead": 0.1}.get(method.__name__)
        if fraction is None:
            step = update + (1 if method is ExponentialMovingAverage else 0)
            fraction = 1 - min(0.9, (1 + step) / (10 + step))
        if update == 0:
            # The averages start as copies of the weights before the first update.
            expected = weights
        expected = expected + fraction * (weights - expected)
        np.testing.assert_allclose(optimizer.get_slot(variable, slot).numpy(), expected, rtol=1e-14)


@pytest.mark.parametrize("generation", GENERATIONS)
@each_that_follows
def test_complex_weights_are_averaged_and_checked(generation, method):
    generation = Generation(generation)
    ours = getattr(generation, method.__name__)
    settings = {"SWA": {"average_period": 1}, "Lookahead": {"sync_period": 1, "slow_step_size": 1.0}}
    still = {"average_decay": 0.0, "dynamic_decay": False}
    optimizer = ours(generation.keras.optimizers.SGD(0.5), **settings.get(method.__name__, still))
    (variable,) = variables = generation.variables([[1 + 2j, 3 - 1j]], "complex64")
    slot = optimizer.get_slot_names()[0]
    generation.apply(optimizer, [[1j, 2.0]], variables)
    np.testing.assert_allclose(variable.numpy(), [1 + 1.5j, 2 - 1j])
    np.testing.assert_allclose(optimizer.get_slot(variable, slot).numpy(), [1 + 1.5j, 2 - 1j])
    variable.assign(np.array([1 + 1j * np.inf, 2], "complex64"))
    with pytest.warns(UserWarning, match="was not finite"):
        generation.apply(optimizer, [[0.0, 0.0]], variables)
        optimizer.warn_of_refusals()
    assert optimizer.refused == 1
    np.testing.assert_allclose(optimizer.get_slot(variable, slot).numpy(), [1 + 1.5j, 2 - 1j])


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("sync_period", [1, 3])
def test_constraints_hold_after_a_slow_step(generation, sync_period):
    generation = Generation(generation)
    keras, layers = generation.keras, generation.keras.layers
    keras.utils.set_random_seed(0)
    unit = layers.Dense(3, kernel_constraint=keras.constraints.UnitNorm())
    model = keras.Sequential([layers.Input((4,)), unit, layers.Dense(1)])
    model.compile(generation.Lookahead(keras.optimizers.SGD(0.2), sync_period), "mse")
    model.fit(*data(), batch_size=8, epochs=3, verbose=0)  # 24 updates: the last one is a slow step
    np.testing.assert_allclose(np.linalg.norm(unit.get_weights()[0], axis=0), np.ones(3), rtol=1e-5)


def test_a_high_decay_moves_bfloat16_weights():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, dtype="bfloat16")])
    settings = {"average_decay": 0.9999, "dynamic_decay": False}
    model.compile(ExponentialMovingAverage(sgd(learning_rate=0.5), **settings), "mse")
    before = weights(model)[0].astype("float32")
    model.fit(data()[0], np.ones((64, 3)), epochs=1, verbose=0)
    moved = averages(model)[0] - before
    assert moved.dtype == np.float32
    assert 0 < np.max(np.abs(moved)) < 1e-2


def batch_norm_model(optimizer):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.1, seed=1),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer, "mse")
    return model


def whole(**settings):
    return ExponentialMovingAverage(sgd(), trainable_weights_only=False, **settings)


on_jax = BACKEND == "jax"
needs_live_weights = pytest.mark.skipif(
    on_jax, reason="a compiled JAX step does not show non-trainable weights to an optimizer"
)


@needs_live_weights
def test_non_trainable_weights_are_averaged_when_asked(tmp_path):
    model = batch_norm_model(whole(average_decay=0.5, dynamic_decay=False))
    optimizer = model.optimizer
    optimizer.shadow_copy(model)
    mean = model.layers[0].moving_mean
    average = mean.numpy()
    x, y = data()
    for batch in range(4):
        model.train_on_batch(x[16 * batch : 16 * batch + 16], y[16 * batch : 16 * batch + 16])
        average = 0.5 * average + 0.5 * mean.numpy()
    assert_close([optimizer.get_slot(mean, "average").numpy()], [average])

    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"shadow_copy\(model\) before training"):
        loaded.fit(x, y, verbose=0)
    loaded.optimizer.shadow_copy(loaded)
    assert_same([v.numpy() for v in loaded.optimizer.variables], [v.numpy() for v in optimizer.variables])

    before = mean.numpy()
    optimizer.swap_weights()
    assert_close([mean.numpy()], [average])
    optimizer.swap_weights()
    assert_same([mean.numpy()], [before])
    optimizer.assign_average_vars(model.variables)
    assert_close([mean.numpy()], [average])


@needs_live_weights
def test_training_without_the_needed_shadow_copy_is_refused():
    model = batch_norm_model(whole())
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"shadow_copy\(model\) before training"):
        model.train_on_batch(*data())
    assert_same(model.get_weights()[:2], before[:2])


@pytest.mark.skipif(BACKEND != "jax", reason="the limit is JAX's")
def test_non_trainable_weights_are_refused_on_jax():
    with pytest.raises(ValueError, match="`trainable_weights_only` must be True on JAX"):
        whole()


def test_update_average_moves_the_averages_once_more():
    model, _ = train(ExponentialMovingAverage(sgd(), average_decay=0.5, dynamic_decay=False))
    before, w = averages(model), weights(model)
    model.optimizer.update_average()
    assert_close(averages(model), [(a + b) / 2 for a, b in zip(before, w)])


@pytest.mark.skipif(not TENSORFLOW, reason="tests TensorFlow's checkpoints")
@each_method
def test_tensorflow_checkpoints_hold_averages(method, tmp_path):
    import tensorflow as tf

    model, _ = train(method(sgd()))
    path = tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(tmp_path / "c"))
    twin, _ = train(method(sgd()), updates=8)
    tf.train.Checkpoint(model=twin, optimizer=twin.optimizer).restore(path).assert_consumed()
    assert_same(weights(twin), weights(model))
    assert_same([v.numpy() for v in twin.optimizer.variables], [v.numpy() for v in model.optimizer.variables])


@pytest.mark.parametrize("variable, write", [(0, 0), (1, 0), (2, 1)])
def test_an_interrupted_swap_leaves_no_model_half_swapped(variable, write, monkeypatch):
    model, _ = train(SWA(sgd(), average_period=3))
    before, average_before = weights(model), averages(model)
    writes = iter(range(100))
    backend = type(model.optimizer).backend
    assign = backend.write

    def interrupted(target, value):
        if next(writes) == 2 * variable + write:
            raise KeyboardInterrupt
        assign(target, value)

    monkeypatch.setattr(backend, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.optimizer.swap_weights()
    assert_same(weights(model), before)
    assert_same(averages(model), average_before)


def test_assigning_while_swapped_is_refused():
    model, _ = train(SWA(sgd(), average_period=3))
    average = averages(model)
    model.optimizer.swap_weights()
    with pytest.raises(ValueError, match="swapped into the model: .*call swap_weights"):
        model.optimizer.assign_average_vars(model.trainable_variables)
    assert_same(weights(model), average)


def test_averaging_optimizer_says_that_a_model_is_not_compiled():
    with pytest.raises(ValueError, match="but is not compiled"):
        averaging_optimizer(keras.Sequential([keras.layers.Dense(1)]))


@each_method
@pytest.mark.parametrize("settings", [{"jit_compile": True}, {"steps_per_execution": 4}])
def test_compiled_in_other_ways_training_is_the_same(method, settings):
    if BACKEND == "torch":
        pytest.skip("Keras has no steps_per_execution on PyTorch, and torch.compile takes minutes")
    plain, _ = train(method(sgd()))
    other, _ = train(method(sgd()), **settings)
    assert_close(weights(other), weights(plain), 1e-5)
    assert_close(averages(other), averages(plain), 1e-5)


@pytest.mark.skipif(not TENSORFLOW, reason="tests tf.function")
@each_method
def test_a_first_step_inside_of_a_tf_function(method):
    import tensorflow as tf

    variables = [keras.Variable(np.array([1.0, 2.0], "float32"))]
    optimizer, twin = method(sgd()), method(sgd())

    @tf.function
    def step():
        optimizer.apply([tf.constant([0.5, -0.5])], variables)

    others = [keras.Variable(np.array([1.0, 2.0], "float32"))]
    for _ in range(12):
        step()
        twin.apply([tf.constant([0.5, -0.5])], others)
    assert_close([v.numpy() for v in optimizer.variables], [v.numpy() for v in twin.variables])
    assert_close([variables[0].numpy()], [others[0].numpy()])


@each_method
@pytest.mark.parametrize("settings", [{}, {"run_eagerly": True}])
def test_a_model_that_learns_its_input_shape_from_the_data_trains(method, settings):
    models = []
    for shape in ([], [keras.Input((4,))]):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([*shape, keras.layers.Dense(3), keras.layers.Dense(1)])
        model.compile(method(sgd()), "mse", **settings)
        model.fit(*data(), epochs=2, verbose=0, shuffle=False)
        models.append(model)
    assert_close(weights(models[0]), weights(models[1]))
    assert_close(averages(models[0]), averages(models[1]))


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("method", [*METHODS, "LARS"])
def test_a_model_without_trainable_weights_runs_through_fit(generation, method):
    generation = Generation(generation)
    layers = generation.keras.layers
    model = generation.keras.Sequential([layers.Input((4,)), layers.Dense(1, trainable=False)])
    ours = getattr(generation, method)
    optimizer = ours(0.1) if method == "LARS" else ours(generation.keras.optimizers.SGD(0.1))
    model.compile(optimizer, "mse")
    before = model.get_weights()
    model.fit(*data(), batch_size=32, epochs=2, verbose=0, validation_data=data())
    assert_same(model.get_weights(), before)
    if method == "LARS":
        return
    assert not optimizer.has_average
    calls = {
        "swap_weights": optimizer.swap_weights,
        "assign_average_vars": lambda: optimizer.assign_average_vars(model.variables),
    }
    for action, call in calls.items():
        with pytest.raises(ValueError, match=rf"{action}\(\) needs an average, .* trainable weights\."):
            call()


@pytest.mark.skipif(BACKEND != "torch", reason="only on PyTorch does each step decide anew what to do")
@each_method
def test_an_update_on_a_device_waits_for_nothing(method, monkeypatch):
    import torch

    from kerasoptimizers.backends import torch as backend

    monkeypatch.setattr(backend, "is_host", lambda tensor: False)
    settings = {"average_period": 2} if method is SWA else {}
    optimizer, variables = method(sgd(), **settings), [keras.Variable(np.ones((3, 2), "float32"))]
    gradient, waits = torch.full((3, 2), 0.5), []

    def watched(name, read):
        def watch(tensor, *args, **kwargs):
            waits.append(name)
            return read(tensor, *args, **kwargs)

        return watch

    optimizer.apply([gradient], variables)
    optimizer.apply([gradient])
    with monkeypatch.context() as patch:
        for name in ("__bool__", "__int__", "__float__", "__index__", "__len__", "item", "tolist", "numpy", "cpu"):
            patch.setattr(torch.Tensor, name, watched(name, getattr(torch.Tensor, name)))
        for _ in range(12):
            optimizer.apply([gradient])
    assert waits == []
    assert int(optimizer.iterations) == 14
    if method is SWA:
        assert optimizer.snapshots == 7


class FirstStep(keras.callbacks.Callback):
    def __init__(self, when, error):
        super().__init__()
        self.error = error
        setattr(self, when, self.fail)

    def fail(self, batch, logs=None):
        raise self.error


@each_method
def test_what_stops_the_first_step_comes_through_as_it_is(method):
    # On JAX the variables may have no values then.
    for error in (ValueError("broken"), KeyboardInterrupt("broken")):

        def loss(y, y_pred):
            raise error

        for where in ("the loss", "on_train_batch_begin", "on_train_batch_end"):
            model = compiled_model(method(sgd()))
            callbacks = [FirstStep(where, error)]
            if where == "the loss":
                model.compile(method(sgd()), loss)
                callbacks = []
            for _ in range(2):
                with pytest.raises(type(error), match="broken"):
                    model.fit(*data(), batch_size=8, verbose=0, callbacks=callbacks)


@pytest.mark.skipif(not on_jax, reason="tests JAX's stateless form")
@each_method
def test_stateless_apply_is_apply(method):
    gradient = np.array([0.5, -0.5], "float32")
    variable = keras.Variable(np.array([1.0, 2.0], "float32"))
    other = keras.Variable(np.array([1.0, 2.0], "float32"))
    optimizer, twin = method(sgd()), method(sgd())
    optimizer.build([variable])
    values, state = [variable.value], [v.value for v in optimizer.variables]
    for _ in range(12):
        values, state = optimizer.stateless_apply(state, [gradient], values)
        twin.apply([gradient], [other])
    assert_close(values, [other.numpy()])
    assert_close(state, [v.numpy() for v in twin.variables])
