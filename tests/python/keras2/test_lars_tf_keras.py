"""LARS for Keras 2: the original's numbers, and what the original could not do."""

import json

import numpy as np
import pytest

tf_keras = pytest.importorskip("tf_keras", reason="Keras 2 (tf_keras) is not installed")
import tensorflow as tf  # noqa: E402

from kerasoptimizers.tf_keras import LARS  # noqa: E402
from recordings import recording  # noqa: E402

CASES = recording("LARS")["cases"]


def variable(value, name="layer/kernel", dtype="float32"):
    return tf.Variable(tf.cast(np.array(value, "float32"), dtype), name=name)


def assert_equal(actual, recorded, what=""):
    recorded = np.array(recorded)
    error = np.max(np.abs(actual - recorded)) / np.max(np.abs(recorded))
    assert error < 1e-6, f"{what}: off by {error:.2g} of the largest element"


def model_and_data(optimizer, **compile_arguments):
    tf_keras.utils.set_random_seed(3)
    model = tf_keras.Sequential(
        [tf_keras.layers.Dense(5, activation="tanh", input_shape=(4,)),
         tf_keras.layers.BatchNormalization(), tf_keras.layers.Dense(1)]
    )  # fmt: skip
    model.compile(optimizer, "mse", **compile_arguments)
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 4)).astype("float32")
    return model, x, x[:, :1] - 2 * x[:, 1:2]


def make(**config):
    return LARS(
        0.5,
        weight_decay_rate=1e-4,
        eeta=0.02,
        exclude_from_weight_decay=["bias", "batch_normalization"],
        **config,
    )


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_every_step_equals_the_original(case):
    optimizer = LARS(**case["config"])
    variables = [variable(v, name) for v, name in zip(case["initial"], case["names"])]
    for step, (gradients, recorded) in enumerate(zip(case["gradients"], case["after_step"])):
        gradients = [tf.constant(np.array(g, "float32")) for g in gradients]
        optimizer.apply_gradients(zip(gradients, variables))
        for i, v in enumerate(variables):
            where = f"step {step}, variable {i}"
            assert_equal(v.numpy(), recorded["variables"][i], where)
            slot = optimizer.get_slot(v, "momentum")
            assert_equal(slot.numpy(), recorded["momentum"][i], f"{where}, momentum")


@pytest.mark.parametrize("classic", [True, False])
@pytest.mark.parametrize("weights, gradient", [([0, 0], [3, 4]), ([3, 4], [0, 0])])
def test_a_norm_of_zero_means_trust_ratio_one(weights, gradient, classic):
    v = variable(weights)
    LARS(0.1, classic_momentum=classic).apply_gradients([(tf.constant(gradient, tf.float32), v)])
    expected = np.array(weights) - 0.1 * np.array(gradient)
    np.testing.assert_allclose(v.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("patterns", ["bias", ["bias:0$"], "^dense/bias$"])
def test_exclusion(patterns):
    kernel, bias = variable([3.0, 4.0], "dense/kernel"), variable([3.0, 4.0], "dense/bias")
    optimizer = LARS(0.1, weight_decay_rate=0.5, exclude_from_weight_decay=patterns)
    gradient = tf.constant([0.0, 1.0])
    optimizer.apply_gradients([(gradient, kernel), (gradient, bias)])
    np.testing.assert_allclose(bias.numpy(), [3.0, 3.9], rtol=1e-6)
    assert not np.allclose(kernel.numpy(), [3.0, 3.9])


@pytest.mark.parametrize(
    "config",
    [{}, {"weight_decay_rate": 0.1}, {"classic_momentum": False}, {"clipnorm": 1.0},
     {"clipvalue": 0.5}, {"global_clipnorm": 1.0}],
    ids=str,
)  # fmt: skip
def test_sparse_equals_dense(config):
    random = np.random.default_rng(1)
    start = random.normal(size=(5, 3))
    (sparse, v), (dense, w) = [(LARS(0.3, eeta=0.1, **config), variable(start)) for _ in range(2)]
    for _ in range(4):
        rows, indices = random.normal(size=(4, 3)).astype("float32"), np.array([1, 4, 1, 0])
        gradient = np.zeros((5, 3), "float32")
        np.add.at(gradient, indices, rows)
        slices = tf.IndexedSlices(tf.constant(rows), tf.constant(indices), tf.constant([5, 3]))
        sparse.apply_gradients([(slices, v)])
        dense.apply_gradients([(tf.constant(gradient), w)])
    np.testing.assert_allclose(v.numpy(), w.numpy(), rtol=1e-5, atol=1e-6)


def test_schedules_functions_and_decay_give_the_rate_of_each_update():
    rates = [0.5, 0.25, 0.125]
    called = iter([0.0] + rates)  # once to make the variable that shows the rate
    optimizers = [
        LARS(tf_keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], rates)),
        LARS(lambda: next(called)),
        LARS(0.5),
    ]
    variables = [variable([3.0, 4.0]) for _ in optimizers]
    decayed, d = LARS(0.5, decay=1.0), variable([3.0, 4.0])
    for step in range(3):
        optimizers[2].learning_rate = rates[step]
        gradient = tf.constant([1.0, -float(step)])
        for optimizer, v in zip(optimizers, variables):
            optimizer.apply_gradients([(gradient, v)])
        if step < 2:
            decayed.apply_gradients([(gradient, d)])
            np.testing.assert_allclose(d.numpy(), variables[2].numpy(), rtol=1e-6)
    a, b, c = [v.numpy() for v in variables]
    np.testing.assert_allclose(a, c, rtol=1e-6)
    np.testing.assert_allclose(b, c, rtol=1e-6)
    with pytest.raises(TypeError, match="`learning_rate` cannot be set to a number"):
        optimizers[1].lr = 0.1
    with pytest.warns(DeprecationWarning, match="`lr` is deprecated"):
        assert float(LARS(lr=0.25).lr) == 0.25


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_momentum_is_float32_at_least(dtype):
    optimizer, v = LARS(), variable([1.0, 2.0], dtype=dtype)
    optimizer.apply_gradients([(tf.cast([1.0, 1.0], dtype), v)])
    assert optimizer.get_slot(v, "momentum").dtype == tf.float32


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_fit_lowers_the_loss(policy):
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        model, x, y = model_and_data(make())
        history = model.fit(x, y, epochs=30, verbose=0).history["loss"]
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    assert history[-1] < 0.3 * history[0]


@pytest.mark.parametrize("file", ["model.keras", "model.h5"])
@pytest.mark.parametrize("rate", ["number", "schedule"])
def test_a_saved_model_goes_on_bit_for_bit(tmp_path, file, rate):
    optimizer = make(decay=0.01, clipnorm=1.0)
    if rate == "schedule":
        optimizer.learning_rate = tf_keras.optimizers.schedules.CosineDecay(0.5, 100)
    model, x, y = model_and_data(optimizer)
    model.fit(x, y, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / file)
    loaded = tf_keras.models.load_model(tmp_path / file)
    assert type(loaded.optimizer) is LARS
    for m in (model, loaded):
        m.fit(x, y, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(model.optimizer.variables, loaded.optimizer.variables):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_savedmodel_keeps_the_settings(tmp_path):
    # Not the state: Keras 2 restores that of none of its own optimizers from this format either.
    model, x, y = model_and_data(make())
    model.fit(x, y, epochs=1, verbose=0)
    model.save(tmp_path / "model")
    loaded = tf_keras.models.load_model(tmp_path / "model")
    assert type(loaded.optimizer) is LARS
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    loaded.fit(x, y, epochs=1, verbose=0)


def test_tensorflow_checkpoint(tmp_path):
    model, x, y = model_and_data(make())
    model.fit(x, y, epochs=1, verbose=0)
    path = tf.train.Checkpoint(optimizer=model.optimizer).save(str(tmp_path / "checkpoint"))
    other, x, y = model_and_data(make())
    other.optimizer.build(other.trainable_variables)
    tf.train.Checkpoint(optimizer=other.optimizer).restore(path).assert_existing_objects_matched()
    for a, b in zip(model.optimizer.variables, other.optimizer.variables):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_slots_and_variables():
    optimizer, v = LARS(), variable([3.0, 4.0])
    with pytest.raises(ValueError, match="`var` must be a variable this optimizer was built for"):
        optimizer.get_slot(v, "momentum")
    optimizer.build([v])
    assert optimizer.variables() == optimizer.variables
    assert any(s is optimizer.get_slot(v, "momentum") for s in optimizer.variables)
    with pytest.raises(ValueError, match="`slot_name` must be 'momentum'"):
        optimizer.get_slot(v, "average")
    with pytest.raises(ValueError, match="`var` must be a variable"):
        optimizer.get_slot("kernel", "momentum")


def test_configuration_makes_the_same_optimizer():
    optimizer = LARS(
        tf_keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5), 0.8, 0.01, 0.002, True, False,
        ["bias", r"gamma\d"], "beta", "mine", clipnorm=1.0, clipvalue=2.0, decay=0.1, use_ema=True,
    )  # fmt: skip
    config = json.loads(json.dumps(optimizer.get_config()))
    assert LARS.from_config(config).get_config() == optimizer.get_config()
    serialized = tf_keras.optimizers.serialize(optimizer)
    again = tf_keras.optimizers.deserialize(serialized)
    assert type(again) is LARS
    assert again.get_config() == optimizer.get_config()
    assert LARS.from_config(LARS().get_config()).get_config() == LARS().get_config()


def test_a_schedule_of_keras_3_is_refused():
    keras = pytest.importorskip("keras", "3")
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    with pytest.raises(TypeError, match="must be a schedule of tf_keras.*, not of keras"):
        LARS(schedule)
    from kerasoptimizers import LARS as Keras3LARS

    schedule = tf_keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    with pytest.raises(TypeError, match="must be a schedule of keras.*, not of tf_keras"):
        Keras3LARS(schedule)


@pytest.mark.parametrize(
    "config, error, message",
    [
        ({"momentum": 1.5}, ValueError, "`momentum` must be a number from 0 to 1, not 1.5"),
        ({"exclude_from_weight_decay": "("}, ValueError, "`exclude_from_weight_decay` must be"),
        ({"weight_decay": 0.1}, ValueError, "`weight_decay` cannot be given"),
        ({"gradient_accumulation_steps": 2}, TypeError, "has no argument `gradient_acc"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(config, error, message):
    with pytest.raises(error) as raised:
        LARS(**config)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
