"""The same optimizers for Keras 2: inner optimizers of both of its kinds."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import kerasoptimizers.tf_keras
from kerasoptimizers import averaging_optimizer
from kerasoptimizers.tf_keras import SWA, Lookahead
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


def train(optimizer, epochs=3):
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential(
        [tf_keras.Input((4,)), tf_keras.layers.Dense(8, "tanh"), tf_keras.layers.Dense(1)]
    )
    model.compile(optimizer, "mse")
    generator = np.random.default_rng(1)
    model.data = generator.normal(size=(64, 4)), generator.normal(size=(64, 1))
    model.fit(*model.data, batch_size=8, epochs=epochs, verbose=0, shuffle=False)
    return model


def sgd(kind="new"):
    return KINDS[kind].SGD(0.05, momentum=0.9)


def assert_same(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected):
        np.testing.assert_array_equal(a, b)


def state(optimizer):
    return [v.numpy() for v in optimizer.variables]


@each_kind
def test_swa_leaves_training_as_it_is(kind):
    plain, averaged = train(sgd(kind)), train(SWA(sgd(kind), average_period=2))
    assert_same(averaged.get_weights(), plain.get_weights())
    assert averaged.optimizer.snapshots == 12


@each_kind
@pytest.mark.parametrize("method", [SWA, Lookahead])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_saved_model_goes_on_training_where_it_was(method, kind, suffix, tmp_path):
    model = train(method(sgd(kind), 5))
    model.save(tmp_path / f"model{suffix}")
    loaded = tf_keras.models.load_model(tmp_path / f"model{suffix}")
    assert_same(state(loaded.optimizer), state(model.optimizer))
    for m in (model, loaded):
        m.fit(*model.data, batch_size=8, epochs=1, verbose=0, shuffle=False)
    assert_same(loaded.get_weights(), model.get_weights())
    assert_same(state(loaded.optimizer), state(model.optimizer))


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
