"""LARS for Keras 3: the original's numbers, and what the original could not do."""

import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasoptimizers import LARS
from recordings import recording

pytestmark = pytest.mark.oldest_keras

CASES = recording("LARS")["cases"]
BACKEND = keras.backend.backend()
tensorflow_only = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="only TensorFlow has sparse gradients (tf.IndexedSlices)"
)


def variable(value, path="layer/kernel", dtype="float32"):
    *scopes, name = path.split("/")
    with keras.name_scope("/".join(scopes) or "model"):
        return keras.Variable(np.array(value, "float32"), name=name, dtype=dtype)


def tensor(value, dtype="float32"):
    return keras.ops.cast(keras.ops.convert_to_tensor(np.array(value, "float32")), dtype)


def values(variables):
    return [keras.ops.convert_to_numpy(keras.ops.cast(v, "float32")) for v in variables]


def assert_equal(actual, recorded, what=""):
    # Relative to the largest element: both sides are rounded to float32 at every step.
    recorded = np.array(recorded)
    error = np.max(np.abs(actual - recorded)) / max(np.max(np.abs(recorded)), 1e-30)
    assert error < 1e-6, f"{what}: off by {error:.2g} of the largest element"


def independent(weights, gradient, velocity, rate, m, wd, eeta, nesterov, classic, adapt=True):
    """LARS for one variable, written down a second time."""

    def ratio(direction):
        w, d = np.sqrt(np.sum(weights**2)), np.sqrt(np.sum(direction**2))
        return eeta * w / d if adapt and w > 0 and d > 0 else 1.0

    g = gradient + wd * weights
    if classic:
        local = rate * ratio(g)
        velocity = m * velocity + local * g
        return weights - (m * velocity + local * g if nesterov else velocity), velocity
    velocity = m * velocity + g
    direction = m * velocity + g if nesterov else velocity
    return weights - rate * ratio(direction) * direction, velocity


# The numbers.


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_every_step_equals_the_original(case):
    optimizer = LARS(**case["config"])
    variables = [variable(v, path) for v, path in zip(case["initial"], case["names"])]
    optimizer.build(variables)
    for step, (gradients, recorded) in enumerate(zip(case["gradients"], case["after_step"])):
        optimizer.apply([tensor(g) for g in gradients], variables)
        for i, v in enumerate(variables):
            where = f"step {step}, variable {i}"
            assert_equal(values([v])[0], recorded["variables"][i], where)
            slot = values([optimizer.get_slot(v, "momentum")])[0]
            assert_equal(slot, recorded["momentum"][i], f"{where}, momentum")


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), max_size=3).map(tuple),
    momentum=st.sampled_from([0.0, 0.5, 0.9]),
    wd=st.sampled_from([0.0, 0.01]),
    eeta=st.sampled_from([0.01, 0.5]),
    nesterov=st.booleans(),
    classic=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_shape_equals_an_independent_version(shape, momentum, wd, eeta, nesterov, classic, seed):
    random = np.random.default_rng(seed)
    weights = random.normal(size=shape).astype("float32").astype("float64")
    velocity = np.zeros(shape)
    optimizer = LARS(0.3, momentum, wd, eeta, nesterov, classic)
    v = variable(weights)
    for _ in range(3):
        gradient = random.normal(size=shape).astype("float32").astype("float64")
        optimizer.apply([tensor(gradient)], [v])
        weights, velocity = independent(weights, gradient, velocity, 0.3, momentum, wd, eeta, nesterov, classic)
    np.testing.assert_allclose(values([v])[0], weights, rtol=1e-5, atol=2e-6)
    slot = values([optimizer.get_slot(v, "momentum")])[0]
    np.testing.assert_allclose(slot, velocity, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("classic", [True, False])
@pytest.mark.parametrize("nesterov", [True, False])
def test_variables_of_many_kinds_in_one_update(nesterov, classic):
    # With and without weight decay and trust ratio, large and small, and one in another dtype.
    paths = ["a/kernel", "a/bias", "norm/gamma", "norm/beta", "b/kernel", "half"]
    shapes = [(3, 4), (4,), (2,), (), (5, 6), (3,)]
    random = np.random.default_rng(1)
    variables = [
        variable(random.normal(size=shape), path, "bfloat16" if path == "half" else "float32")
        for path, shape in zip(paths, shapes)
    ]
    optimizer = LARS(
        0.3,
        0.9,
        0.01,
        0.5,
        nesterov,
        classic,
        exclude_from_weight_decay=["bias", "norm"],
        exclude_from_layer_adaptation=["gamma", "b/"],
    )
    expected = [(v.astype("float64"), np.zeros(v.shape)) for v in values(variables)]
    for _ in range(3):
        gradients = [tensor(random.normal(size=shape)) for shape in shapes]
        before = values(gradients)
        optimizer.apply(gradients, variables)
        assert all(map(np.array_equal, values(gradients), before)), "gradients were changed"
        for i, path in enumerate(paths):
            decay = 0.0 if "bias" in path or "norm" in path else 0.01
            adapt = "gamma" not in path and "b/" not in path
            expected[i] = independent(
                expected[i][0],
                before[i].astype("float64"),
                expected[i][1],
                0.3,
                0.9,
                decay,
                0.5,
                nesterov,
                classic,
                adapt,
            )
    for v, path, (weights, velocity) in zip(variables, paths, expected):
        rtol = 2e-2 if path == "half" else 1e-5
        np.testing.assert_allclose(values([v])[0], weights, rtol, rtol, err_msg=path)
        slot = values([optimizer.get_slot(v, "momentum")])[0]
        np.testing.assert_allclose(slot, velocity, rtol, rtol, err_msg=path)


@pytest.mark.parametrize("classic", [True, False])
@pytest.mark.parametrize("weights, gradient", [([0, 0], [3, 4]), ([3, 4], [0, 0]), ([], [])])
def test_a_norm_of_zero_means_trust_ratio_one(weights, gradient, classic):
    optimizer = LARS(0.1, classic_momentum=classic)
    v = variable(weights)
    optimizer.apply([tensor(gradient)], [v])
    expected = np.array(weights, "float32") - 0.1 * np.array(gradient)
    np.testing.assert_allclose(values([v])[0], expected, rtol=1e-6)


def test_large_float16_gradients_do_not_overflow():
    v = variable([1.0] * 100, dtype="float16")
    optimizer = LARS(1.0, momentum=0.0, eeta=0.5)
    optimizer.apply([tensor([3e4] * 100, "float16")], [v])
    # The step's norm is half of the weights', whatever the gradient's is.
    np.testing.assert_allclose(values([v])[0], 0.5, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_momentum_is_float32_at_least(dtype):
    v = variable([1.0, 2.0], dtype=dtype)
    optimizer = LARS()
    optimizer.apply([tensor([1e-3, 1e-3], dtype)], [v])
    slot = optimizer.get_slot(v, "momentum")
    assert keras.backend.standardize_dtype(slot.dtype) == "float32"
    assert keras.backend.standardize_dtype(v.dtype) == dtype


# Exclusions.


@pytest.mark.parametrize(
    "patterns, excluded",
    [
        (None, []),
        ([], []),
        ("bias", ["dense/bias"]),
        (["bias", "^norm/"], ["dense/bias", "norm/gamma"]),
        ("^bias$", ["dense/bias"]),
        ("bias:0", ["dense/bias"]),
        ("^d.*kernel", ["dense/kernel"]),
        ("", ["dense/kernel", "dense/bias", "norm/gamma"]),
    ],
)
def test_exclusion_by_path_or_name(patterns, excluded):
    paths = ["dense/kernel", "dense/bias", "norm/gamma"]
    variables = [variable([3.0, 4.0], path) for path in paths]
    optimizer = LARS(1.0, weight_decay_rate=0.5, eeta=0.1, exclude_from_weight_decay=patterns)
    optimizer.apply([tensor([0.0, 1.0])] * 3, variables)
    for v, path in zip(variables, paths):
        # Excluded from the decay is, when nothing else is said, excluded from the adaptation.
        free = path in excluded
        expected, _ = independent(
            np.array([3.0, 4.0]), np.array([0.0, 1.0]), 0.0, 1.0, 0.9,
            0.0 if free else 0.5, 0.1, False, True, adapt=not free,
        )  # fmt: skip
        np.testing.assert_allclose(values([v])[0], expected, rtol=1e-6, err_msg=path)


@pytest.mark.parametrize("patterns, adapt", [([], True), ("kernel", True), (["bias"], False)])
def test_exclusion_from_layer_adaptation_alone(patterns, adapt):
    v = variable([3.0, 4.0], "dense/bias")
    optimizer = LARS(
        1.0,
        weight_decay_rate=0.5,
        exclude_from_weight_decay="bias",
        exclude_from_layer_adaptation=patterns,
    )
    optimizer.apply([tensor([0.0, 1.0])], [v])
    expected, _ = independent(np.array([3.0, 4.0]), np.array([0.0, 1.0]), 0.0, 1.0, 0.9, 0.0, 0.001, False, True, adapt)
    np.testing.assert_allclose(values([v])[0], expected, rtol=1e-6)


def test_keras_own_way_of_exclusion_works_too():
    plain, decayed = LARS(1.0), LARS(1.0, weight_decay_rate=0.5)
    v, w = variable([3.0, 4.0]), variable([3.0, 4.0])
    decayed.exclude_from_weight_decay(var_list=[w])
    plain.apply([tensor([0.0, 1.0])], [v])
    decayed.apply([tensor([0.0, 1.0])], [w])
    np.testing.assert_array_equal(*values([v, w]))


# Learning rates.


def test_schedules_functions_and_decay_give_the_rate_of_each_update():
    rates = [0.5, 0.25, 0.125]
    called = iter(rates)
    optimizers = [
        LARS(keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], rates)),
        LARS(lambda: next(called)),
        LARS(0.5),
    ]
    variables = [variable([3.0, 4.0]) for _ in optimizers]
    for step in range(3):
        optimizers[2].learning_rate = rates[step]
        for optimizer, v in zip(optimizers, variables):
            optimizer.apply([tensor([1.0, -step])], [v])
    a, b, c = values(variables)
    np.testing.assert_allclose(a, c, rtol=1e-6)
    np.testing.assert_allclose(b, c, rtol=1e-6)
    decayed, v = LARS(0.5, decay=0.5), variable([3.0, 4.0])
    set_by_hand, w = LARS(0.5), variable([3.0, 4.0])
    for step in range(3):
        set_by_hand.learning_rate = 0.5 / (1 + 0.5 * step)
        decayed.apply([tensor([1.0, -step])], [v])
        set_by_hand.apply([tensor([1.0, -step])], [w])
    np.testing.assert_allclose(*values([v, w]), rtol=1e-6)
    assert float(decayed.learning_rate) == 0.5


def test_lr_is_another_name_of_the_learning_rate():
    with pytest.warns(DeprecationWarning, match="`lr` is deprecated"):
        optimizer = LARS(lr=0.25)
    assert float(optimizer.learning_rate) == float(optimizer.lr) == 0.25
    optimizer.lr = 0.125
    assert float(optimizer.learning_rate) == 0.125
    with pytest.raises(TypeError, match="`learning_rate` cannot be set to a number"):
        LARS(lambda: 0.1).learning_rate = 0.2


# Clipping and Keras's own settings.


@pytest.mark.parametrize("limit", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_clipping(limit):
    clipped, v = LARS(0.1, exclude_from_layer_adaptation="", **{limit: 0.5}), variable([3.0, 4.0])
    clipped.apply([tensor([6.0, 8.0])], [v])
    step = np.array([0.5, 0.5] if limit == "clipvalue" else [0.3, 0.4])
    np.testing.assert_allclose(values([v])[0], [3.0, 4.0] - 0.1 * step, rtol=1e-6)


def test_accumulated_gradients_are_one_update():
    whole, v = LARS(0.5, decay=1.0), variable([3.0, 4.0])
    halves, w = LARS(0.5, decay=1.0, gradient_accumulation_steps=2), variable([3.0, 4.0])
    for gradient in ([1.0, 2.0], [-1.0, 0.5]):
        whole.apply([tensor(gradient)], [v])
        for factor in (0.5, 1.5):
            halves.apply([tensor(factor * np.array(gradient))], [w])
    np.testing.assert_allclose(*values([v, w]), rtol=1e-6)


def test_loss_scale_and_moving_average_of_keras():
    plain, v = LARS(0.5, use_ema=True, ema_momentum=0.5), variable([3.0, 4.0])
    scaled, w = LARS(0.5, loss_scale_factor=8.0, clipnorm=1.0), variable([3.0, 4.0])
    plain.apply([tensor([0.6, 0.8])], [v])
    scaled.apply([tensor([4.8, 6.4])], [w])
    np.testing.assert_allclose(*values([v, w]), rtol=1e-6)


# Sparse gradients.


@tensorflow_only
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"weight_decay_rate": 0.1},
        {"classic_momentum": False, "nesterov": True},
        {"clipnorm": 1.0},
        {"clipvalue": 0.5},
        {"global_clipnorm": 1.0},
        {"loss_scale_factor": 4.0},
        {"gradient_accumulation_steps": 2},
    ],
    ids=str,
)
def test_sparse_equals_dense(config):
    import tensorflow as tf

    random = np.random.default_rng(1)
    start = random.normal(size=(5, 3))
    sparse, v, a = LARS(0.3, eeta=0.1, **config), variable(start), variable([1.0])
    dense, w, b = LARS(0.3, eeta=0.1, **config), variable(start), variable([1.0])

    @tf.function
    def step(rows, indices, gradient):
        slices = tf.IndexedSlices(rows, indices, tf.shape(gradient, tf.int64))
        sparse.apply([slices, tensor([1.0])], [v, a])
        dense.apply([gradient, tensor([1.0])], [w, b])

    sparse.build([v, a])
    dense.build([w, b])
    for _ in range(6):
        rows, indices = random.normal(size=(4, 3)).astype("float32"), np.array([1, 4, 1, 0])
        gradient = np.zeros((5, 3), "float32")
        np.add.at(gradient, indices, rows)
        step(tf.constant(rows), tf.constant(indices), tf.constant(gradient))
    for x, y in zip(values([v, a] + sparse.variables), values([w, b] + dense.variables)):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@tensorflow_only
def test_an_embedding_trains_without_a_warning(recwarn):
    model = keras.Sequential(
        [keras.Input((4,), dtype="int32"), keras.layers.Embedding(50, 3), keras.layers.Flatten(),
         keras.layers.Dense(1)]
    )  # fmt: skip
    model.compile(LARS(1.0, clipnorm=1.0), "mse")
    before = model.get_weights()
    model.fit(np.arange(40).reshape(10, 4), np.ones(10), epochs=2, verbose=0)
    assert not [w for w in recwarn if "IndexedSlices" in str(w.message)]
    assert all(np.any(a != b) for a, b in zip(before, model.get_weights()))


# In a model.


def model_and_data(optimizer):
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5, activation="tanh"),
         keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    )  # fmt: skip
    model.compile(optimizer, "mse", jit_compile="auto" if BACKEND != "torch" else False)
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


def test_fit_lowers_the_loss():
    model, x, y = model_and_data(make())
    history = model.fit(x, y, epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]
    assert int(model.optimizer.iterations) == 60


@pytest.mark.parametrize("rate", ["number", "schedule"])
def test_a_saved_model_goes_on_bit_for_bit(tmp_path, rate):
    optimizer = make(decay=0.01, clipnorm=1.0)
    if rate == "schedule":
        optimizer.learning_rate = keras.optimizers.schedules.CosineDecay(0.5, 100)
    model, x, y = model_and_data(optimizer)
    model.fit(x, y, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is LARS
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for a, b in zip(values(model.optimizer.variables), values(loaded.optimizer.variables)):
        np.testing.assert_array_equal(a, b)
    for m in (model, loaded):
        m.fit(x, y, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(values(model.optimizer.variables), values(loaded.optimizer.variables)):
        np.testing.assert_array_equal(a, b)


def test_a_whole_model_in_an_hdf5_file_goes_on_where_it_was(tmp_path):
    # Keras 3 builds the optimizer of such a file for no variables.
    model, x, y = model_and_data(make())
    model.compile(model.optimizer, keras.losses.MeanSquaredError())
    model.fit(x, y, epochs=2, shuffle=False, verbose=0)
    model.save(tmp_path / "model.h5")
    loaded = keras.models.load_model(tmp_path / "model.h5")
    for m in (model, loaded):
        m.fit(x, y, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(values(model.optimizer.variables), values(loaded.optimizer.variables), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(model.get_weights(), loaded.get_weights()):
        np.testing.assert_array_equal(a, b)


@tensorflow_only
def test_tensorflow_checkpoint(tmp_path):
    import tensorflow as tf

    model, x, y = model_and_data(make())
    model.fit(x, y, epochs=1, verbose=0)
    path = tf.train.Checkpoint(optimizer=model.optimizer).save(str(tmp_path / "checkpoint"))
    other, x, y = model_and_data(make())
    other.optimizer.build(other.trainable_variables)
    tf.train.Checkpoint(optimizer=other.optimizer).restore(path).assert_existing_objects_matched()
    for a, b in zip(values(model.optimizer.variables), values(other.optimizer.variables)):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_mixed_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model, x, y = model_and_data(make())
        history = model.fit(x, y, epochs=30, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy(before)
    assert history[-1] < 0.5 * history[0]


@pytest.mark.skipif(BACKEND == "tensorflow", reason="Keras has no stateless_apply on TensorFlow")
def test_stateless_apply_equals_apply():
    optimizer, v = make(nesterov=True), variable([3.0, 4.0])
    stateless, w = make(nesterov=True), variable([3.0, 4.0])
    stateless.build([w])
    weights, state = [w.value], [s.value for s in stateless.variables]
    for step in range(3):
        gradient = tensor([1.0, -step])
        optimizer.apply([gradient], [v])
        weights, state = stateless.stateless_apply(state, [gradient], weights)
    # On PyTorch the other form updates in place, with the last bit rounded otherwise.
    np.testing.assert_allclose(*values([v, weights[0]]), rtol=1e-6)
    for a, b in zip(values(optimizer.variables), values(state)):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert values([w])[0].tolist() == [3.0, 4.0]


# Slots, variables and configuration.


def test_slots_and_variables():
    optimizer, v = LARS(), variable([3.0, 4.0])
    with pytest.raises(ValueError, match="`var` must be a variable this optimizer was built for"):
        optimizer.get_slot(v, "momentum")
    optimizer.build([v])
    optimizer.build([v])
    assert optimizer.variables() == optimizer.variables
    assert len(optimizer.variables) == 3
    assert any(s is optimizer.get_slot(v, "momentum") for s in optimizer.variables)
    with pytest.raises(ValueError, match="`slot_name` must be 'momentum'"):
        optimizer.get_slot(v, "average")
    for stranger in (variable([1.0]), "kernel", None):
        with pytest.raises(ValueError, match="`var` must be a variable"):
            optimizer.get_slot(stranger, "momentum")


def test_configuration_makes_the_same_optimizer():
    optimizer = LARS(
        keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5),
        0.8,
        0.01,
        0.002,
        True,
        False,
        ["bias", r"gamma\d"],
        "beta",
        "mine",
        clipnorm=1.0,
        clipvalue=2.0,
        decay=0.1,
        use_ema=True,
        gradient_accumulation_steps=3,
    )
    config = json.loads(json.dumps(optimizer.get_config()))
    assert config["exclude_from_weight_decay"] == ["bias", r"gamma\d"]
    again = LARS.from_config(config)
    assert again.get_config() == optimizer.get_config()
    assert keras.saving.get_registered_name(LARS) == "kerasoptimizers>LARS"
    serialized = keras.optimizers.serialize(optimizer)
    assert keras.optimizers.deserialize(serialized).get_config() == optimizer.get_config()
    assert LARS.from_config(LARS().get_config()).get_config() == LARS().get_config()


@pytest.mark.parametrize(
    "config, error, message",
    [
        ({"learning_rate": -1}, ValueError, "`learning_rate` must be a number >= 0, a Keras"),
        ({"learning_rate": "fast"}, ValueError, "`learning_rate` must be"),
        ({"learning_rate": None}, TypeError, "`learning_rate` must be"),
        ({"learning_rate": True}, TypeError, "`learning_rate` must be"),
        ({"learning_rate": float("nan")}, ValueError, "`learning_rate` must be"),
        (
            {"learning_rate": keras.optimizers.schedules.ExponentialDecay},
            TypeError,
            "`learning_rate` must be",
        ),
        ({"momentum": 1.5}, ValueError, "`momentum` must be a number from 0 to 1, not 1.5"),
        ({"weight_decay_rate": -0.1}, ValueError, "`weight_decay_rate` must be a number >= 0"),
        ({"eeta": 0}, ValueError, "`eeta` must be a number > 0, not 0"),
        ({"nesterov": 1}, ValueError, "`nesterov` must be True or False"),
        ({"classic_momentum": "yes"}, ValueError, "`classic_momentum` must be True or False"),
        ({"exclude_from_weight_decay": 3}, ValueError, "`exclude_from_weight_decay` must be a reg"),
        ({"exclude_from_weight_decay": ["a", 3]}, TypeError, "`exclude_from_weight_decay` must be"),
        ({"exclude_from_weight_decay": "("}, ValueError, "`exclude_from_weight_decay` must be"),
        (
            {"exclude_from_layer_adaptation": ["a", "*b"]},
            ValueError,
            "`exclude_from_layer_adaptation` must be a regular expression or a list of them, "
            "not '*b': nothing to repeat.",
        ),
        ({"name": ""}, ValueError, "`name` must be a string"),
        ({"clipnorm": 0}, ValueError, "`clipnorm` must be a number > 0, not 0"),
        ({"clipnorm": 1, "global_clipnorm": 1}, ValueError, "Only one of `clipnorm` and"),
        ({"decay": -1}, ValueError, "`decay` must be a number >= 0, not -1"),
        ({"lr": "a"}, ValueError, "`lr` must be a number >= 0"),
        ({"weight_decay": 0.1}, ValueError, "the weight decay of LARS, which is part of its"),
        ({"gradient_accumulation_steps": 1}, ValueError, "`gradient_accumulation_steps` must be a"),
        ({"use_ema": "yes"}, ValueError, "`use_ema` must be True or False"),
        ({"beta": 1}, TypeError, "LARS() has no argument `beta`"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(config, error, message):
    with pytest.raises(error) as raised:
        LARS(**config)
    text = str(raised.value)
    assert message in text
    assert "\n" not in text
