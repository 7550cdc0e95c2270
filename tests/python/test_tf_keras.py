"""The same optimizers for Keras 2: inner optimizers of both of its kinds."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import kerasoptimizers.tf_keras
from kerasoptimizers import averaging_optimizer
from kerasoptimizers.tf_keras import (
    LARS,
    SWA,
    AverageModelCheckpoint,
    ExponentialMovingAverage,
    Lookahead,
    MovingAverage,
    SWALearningRate,
    SwapAverages,
)
from recordings import assert_every_step_equals, cases

KINDS = {"new": tf_keras.optimizers, "legacy": tf_keras.optimizers.legacy}
each_kind = pytest.mark.parametrize("kind", KINDS)


@each_kind
@pytest.mark.parametrize(
    "case", cases("SWA", "Lookahead", "ExponentialMovingAverage", "MovingAverage")
)
def test_every_step_equals_the_original(case, kind):
    inner = getattr(KINDS[kind], case["inner"]["class"])(**case["inner"]["config"])
    optimizer = getattr(kerasoptimizers.tf_keras, case["optimizer"])(inner, **case["config"])
    variables = [tf.Variable(np.array(value, "float32")) for value in case["initial"]]

    def apply(gradients):
        optimizer.apply_gradients(zip([tf.constant(g) for g in gradients], variables))

    assert_every_step_equals(case, optimizer, variables, apply)


def train(optimizer, epochs=3, callbacks=(), **fit_arguments):
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential(
        [tf_keras.Input((4,)), tf_keras.layers.Dense(8, "tanh"), tf_keras.layers.Dense(1)]
    )
    model.compile(optimizer, "mse")
    generator = np.random.default_rng(1)
    model.data = generator.normal(size=(64, 4)), generator.normal(size=(64, 1))
    model.history = model.fit(
        *model.data,
        batch_size=8,
        epochs=epochs,
        verbose=0,
        shuffle=False,
        callbacks=list(callbacks),
        **fit_arguments,
    )
    return model


def sgd(kind="new"):
    return KINDS[kind].SGD(0.05, momentum=0.9)


def assert_same(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected):
        np.testing.assert_array_equal(a, b)


def state(optimizer):
    return [v.numpy() for v in optimizer.variables]


def assert_goes_on_where_it_was(model, path):
    """A model saved there and loaded is the same, and stays so when both train on."""
    model.save(path)
    loaded = tf_keras.models.load_model(path)
    assert_same(state(loaded.optimizer), state(model.optimizer))
    for m in (model, loaded):
        m.fit(*model.data, batch_size=8, epochs=1, verbose=0, shuffle=False)
    assert_same(loaded.get_weights(), model.get_weights())
    assert_same(state(loaded.optimizer), state(model.optimizer))


def test_compile_of_the_other_generation_says_which_is_which():
    keras = pytest.importorskip("keras", reason="Keras 3 is not installed")
    import kerasoptimizers

    ours = keras.Sequential([keras.layers.Dense(1)]), tf_keras.Sequential([tf_keras.layers.Dense(1)])
    for model, optimizer, text in (
        (ours[0], SWA("sgd"), r"<SWA for Keras 2 \(Python's tf_keras, R's keras::compile\(\)\)>"),
        (ours[0], LARS(0.1), r"<LARS for Keras 2"),
        (ours[1], kerasoptimizers.SWA("sgd"), r"<SWA for Keras 3 \(Python's keras, R's keras3::"),
    ):
        with pytest.raises(ValueError, match=text):
            model.compile(optimizer, "mse")


@each_kind
def test_swa_leaves_training_as_it_is(kind):
    plain, averaged = train(sgd(kind)), train(SWA(sgd(kind), average_period=2))
    assert_same(averaged.get_weights(), plain.get_weights())
    assert averaged.optimizer.snapshots == 12


@each_kind
@pytest.mark.parametrize("method", [SWA, Lookahead, ExponentialMovingAverage, MovingAverage])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_saved_model_goes_on_training_where_it_was(method, kind, suffix, tmp_path):
    model = train(method(sgd(kind)))
    assert_goes_on_where_it_was(model, tmp_path / f"model{suffix}")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_every_file_holds_one_method_around_another_and_our_lars_in_both(suffix, tmp_path):
    inner = LARS(SWALearningRate(0.1, 0.05, start_averaging=12))
    model = train(Lookahead(SWA(SWA(inner, average_period=3), average_period=5)))
    assert_goes_on_where_it_was(model, tmp_path / f"model{suffix}")


@each_kind
def test_a_savedmodel_loads_with_a_fresh_optimizer(kind, tmp_path):
    # Keras 2 restores no optimizer's state from this format.
    model = train(SWA(sgd(kind)))
    model.save(tmp_path / "model", save_format="tf")
    loaded = tf_keras.models.load_model(tmp_path / "model")
    assert_same(loaded.get_weights(), model.get_weights())
    loaded.fit(*model.data, verbose=0)
    assert loaded.optimizer.snapshots == 1


@each_kind
def test_averages_move_in_and_out(kind):
    model = train(SWA(sgd(kind), average_period=3))
    optimizer = averaging_optimizer(model)
    before = model.get_weights()
    averages = [optimizer.get_slot(v, "average").numpy() for v in model.trainable_variables]
    optimizer.swap_weights()
    assert_same(model.get_weights(), averages)
    optimizer.swap_weights()
    assert_same(model.get_weights(), before)
    optimizer.assign_average_vars(model.variables)
    assert_same(model.get_weights(), averages)


@each_kind
def test_rate_decay_and_clipping_reach_the_inner_optimizer(kind):
    model = train(SWA(sgd(kind), decay=0.1, clipnorm=0.1))
    schedule = tf_keras.optimizers.schedules.InverseTimeDecay(0.05, 1, 0.1)
    twin = train(KINDS[kind].SGD(schedule, momentum=0.9, clipnorm=0.1))
    for a, b in zip(model.get_weights(), twin.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.05)
    model.optimizer.learning_rate = 0.2
    assert float(model.optimizer.optimizer.learning_rate) == pytest.approx(0.2)


def test_an_optimizer_of_keras_3_is_refused_by_name():
    keras = pytest.importorskip("keras", reason="Keras 3 is not installed")
    with pytest.raises(TypeError, match="`optimizer` must be a Keras 2 optimizer, not one of Keras 3"):
        SWA(keras.optimizers.SGD(0.1))
    from kerasoptimizers import SWA as KerasThreeSWA

    with pytest.raises(TypeError, match="`optimizer` must be a Keras 3 optimizer, not one of Keras 2"):
        KerasThreeSWA(sgd())


def test_an_inner_optimizer_of_another_model_is_refused():
    # A new one; legacy optimizers take variables of any model.
    model = train(sgd())
    with pytest.raises(ValueError, match="`optimizer` was built for other variables"):
        train(SWA(model.optimizer))


def test_an_error_in_building_the_inner_optimizer_is_shown_as_it_is():
    class Unready(tf_keras.optimizers.SGD):
        def build(self, var_list):
            raise RuntimeError("The inner optimizer is not ready.")

    with pytest.raises(RuntimeError, match="The inner optimizer is not ready."):
        train(SWA(Unready(0.1)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: LARS(0.1),
        lambda: SWA(LARS(0.1)),
        lambda: SWA(sgd()),
        lambda: SWA(sgd("legacy")),
        lambda: Lookahead(SWA(sgd())),
    ],
)
def test_the_training_step_is_traced_once(make):
    # That of an SGD of Keras's own with momentum is traced twice.
    traces = []

    class Model(tf_keras.Sequential):
        def train_step(self, data):
            traces.append(data)
            return super().train_step(data)

    model = Model([tf_keras.Input((4,)), tf_keras.layers.Dense(1)])
    model.compile(make(), "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 1)), epochs=2, verbose=0)
    assert len(traces) == 1


@each_kind
def test_non_trainable_weights_are_averaged_when_asked(kind):
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential(
        [tf_keras.Input((4,)), tf_keras.layers.BatchNormalization(), tf_keras.layers.Dense(1)]
    )
    settings = {"average_decay": 0.5, "dynamic_decay": False, "trainable_weights_only": False}
    optimizer = ExponentialMovingAverage(sgd(kind), **settings)
    model.compile(optimizer, "mse")
    x = np.random.default_rng(0).normal(size=(16, 4))
    with pytest.raises(ValueError, match=r"call shadow_copy\(model\) before training"):
        model.train_on_batch(x, x[:, :1])
    optimizer.shadow_copy(model)
    model.compile(optimizer, "mse")  # Keras 2 can't use a training step that has failed once
    mean = model.layers[0].moving_mean
    average = mean.numpy()
    for _ in range(4):
        model.train_on_batch(x, x[:, :1])
        average = 0.5 * average + 0.5 * mean.numpy()
    np.testing.assert_allclose(optimizer.get_slot(mean, "average"), average, rtol=1e-6)


@each_kind
def test_validation_and_checkpoints_see_the_averages(kind, tmp_path):
    path = str(tmp_path / "last.keras")
    callbacks = [SwapAverages(), AverageModelCheckpoint(False, path)]
    validation = {"validation_data": (np.ones((8, 4)), np.ones((8, 1)))}
    plain = train(SWA(sgd(kind), 0, 2), **validation)
    model = train(SWA(sgd(kind), 0, 2), callbacks=callbacks, **validation)
    assert_same(model.get_weights(), plain.get_weights())
    loaded = tf_keras.models.load_model(path)
    averages = [plain.optimizer.get_slot(v, "average").numpy() for v in plain.trainable_variables]
    assert_same(loaded.get_weights(), averages)
    assert model.history.history["val_loss"][-1] == pytest.approx(
        loaded.evaluate(*validation["validation_data"], verbose=0), rel=1e-5
    )


@pytest.mark.parametrize("make", [lambda: SWA("sgd"), lambda: SWA(sgd("legacy")), lambda: LARS(0.1)])
def test_the_methods_of_the_originals(make):
    optimizer = make()
    v = tf.Variable([1.0, -2.0])
    assert int(optimizer.minimize(lambda: tf.reduce_sum(v**2), [v])) == 1
    assert np.all(np.abs(v.numpy()) < [1.0, 2.0])
    values = optimizer.get_weights()
    assert values[0] == 1
    optimizer.set_weights(values)
    assert optimizer.add_slot(v, "trace") is optimizer.get_slot(v, "trace")
    assert optimizer.add_weight("scale", (2,)).shape == (2,)
    with pytest.raises(TypeError, match="`grads_and_vars` must be"):
        optimizer.apply_gradients([1.0])
    with pytest.raises(ValueError, match="`grads_and_vars` must hold at least one gradient"):
        optimizer.apply_gradients([(None, v)])
    with pytest.raises(RuntimeError, match="need a graph"):
        optimizer.get_gradients(tf.constant(1.0), [v])
