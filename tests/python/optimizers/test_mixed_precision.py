"""Narrow weights and computations, and the loss scales that go with them."""

import contextlib
import importlib

import keras
import numpy as np
import pytest

from generations import GENERATIONS, METHODS, Generation, assert_same
from kerasoptimizers import averaging_optimizer

pytestmark = pytest.mark.sample

BACKEND = keras.backend.backend()
BAD = (2, 5)  # batches whose gradients are not finite
long = pytest.mark.long
needs_inner_loss_scale = pytest.mark.skipif(
    BACKEND == "jax", reason="on JAX a LossScaleOptimizer can only stand outermost"
)
each_generation = pytest.mark.parametrize("generation", GENERATIONS, indirect=True)
each_method = pytest.mark.parametrize(
    "method",
    [
        name if name in ("SWA", "Lookahead", "ScheduleFree") else pytest.param(name, marks=long)
        for name in [*METHODS, "LARS"]
    ],
)
SETTINGS = {
    "SWA": {"average_period": 2},
    "Lookahead": {"sync_period": 2, "slow_momentum": 0.5, "inner_state": "average"},
    "ExponentialMovingAverage": {"average_decay": 0.8},
    "MovingAverage": {"average_decay": 0.8, "dynamic_decay": True},
    "PowerAverage": {"sigma_rel": (0.1, 0.2)},
    "PrimalAveraging": {"eval_interpolation": 0.8},
    "ScheduleFree": {"warmup_steps": 3, "weight_decay_at_y": 0.1},
}


@pytest.fixture
def generation(request):
    return Generation(request.param)


@contextlib.contextmanager
def policy(generation, name):
    dtypes = generation.keras.mixed_precision
    before = dtypes.global_policy() if generation.name == "tf_keras" else dtypes.dtype_policy()
    change = getattr(dtypes, "set_global_policy", None) or dtypes.set_dtype_policy
    change(name)
    try:
        yield
    finally:
        change(before)


def sgd(generation, **config):
    return generation.keras.optimizers.SGD(**{"learning_rate": 0.05, "momentum": 0.9, **config})


def make(generation, method, inner=None):
    if method == "LARS":
        return generation.LARS(0.05)
    return getattr(generation, method)(inner or sgd(generation), **SETTINGS[method])


def compiled_model(generation, optimizer, policy_name="float32", batch_norm=False):
    keras = generation.keras
    keras.utils.set_random_seed(0)
    layers = keras.layers
    with policy(generation, policy_name):
        model = keras.Sequential(
            [keras.Input((4,)), layers.Dense(8, activation="tanh")]
            + [layers.BatchNormalization()] * batch_norm
            + [layers.Dense(1)]
        )
        model.compile(optimizer, "mse")
    return model


def data(bad=()):
    generator = np.random.default_rng(1)
    x = generator.normal(size=(64, 4)).astype("float32")
    y = np.tanh(x.sum(axis=1, keepdims=True))
    for batch in bad:
        x[8 * batch : 8 * batch + 8] = np.inf
    return x, y


def fit(model, x, y, **settings):
    return model.fit(x, y, batch_size=8, verbose=0, shuffle=False, **settings)


def good(x, y):
    keep = np.isfinite(x).all(axis=1)
    return x[keep], y[keep]


def weights(model):
    return [np.array(v.numpy()) for v in model.trainable_variables]


def averages(model):
    optimizer = averaging_optimizer(model)
    return [np.array(v.numpy()) for v in optimizer.averages.average]


def ours(model):
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def assert_close(actual, expected, tolerance):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a.astype("float32"), b.astype("float32"), rtol=tolerance, atol=tolerance)


def loss_scale_of(generation):
    return generation.keras.mixed_precision.LossScaleOptimizer


def assert_trained_on_the_good_batches(generation, model, twin, tolerance):
    """That `model`, which met the bad batches too, is where `twin` is, which did not."""
    for _ in range(2):
        fit(model, *data(BAD))
        fit(twin, *good(*data(BAD)))
    assert_close(weights(model), weights(twin), tolerance)
    if isinstance(ours(twin), generation.LARS):
        return
    assert np.isfinite(averages(model)[0]).all()
    assert_close(averages(model), averages(twin), tolerance)
    if isinstance(ours(twin), generation.SWA):
        assert averaging_optimizer(model).snapshots == averaging_optimizer(twin).snapshots == 6


@each_generation
@each_method
def test_updates_skipped_under_mixed_float16_do_not_count(generation, method):
    model, twin = (compiled_model(generation, make(generation, method), "mixed_float16") for _ in range(2))
    assert isinstance(model.optimizer, loss_scale_of(generation))
    assert_trained_on_the_good_batches(generation, model, twin, 2e-3)


@each_generation
@each_method
@pytest.mark.parametrize("place", ["around", pytest.param("inside", marks=needs_inner_loss_scale)])
def test_updates_skipped_by_a_loss_scale_do_not_count(generation, method, place):
    scale = loss_scale_of(generation)
    if place == "around":
        optimizer = scale(make(generation, method))
    elif method == "LARS":
        pytest.skip("LARS has no optimizer inside")
    else:
        optimizer = make(generation, method, scale(sgd(generation)))
    model = compiled_model(generation, optimizer)
    twin = compiled_model(generation, make(generation, method))
    # Scales are powers of two, which divide out again.
    assert_trained_on_the_good_batches(generation, model, twin, 1e-6)


@each_generation
@pytest.mark.parametrize("place", ["around", pytest.param("inside", marks=needs_inner_loss_scale)])
def test_updates_skipped_around_nested_methods_do_not_count(generation, place):
    def nested(inner):
        return generation.Lookahead(generation.SWA(inner, average_period=2), sync_period=3)

    scale = loss_scale_of(generation)
    if place == "around":
        optimizer = scale(nested(sgd(generation)))
    else:
        optimizer = nested(scale(sgd(generation)))
    model = compiled_model(generation, optimizer)
    twin = compiled_model(generation, nested(sgd(generation)))
    assert_trained_on_the_good_batches(generation, model, twin, 1e-6)
    inner, twins = averaging_optimizer(model).optimizer, twin.optimizer.optimizer
    assert inner.snapshots == twins.snapshots == 6
    assert_close([inner.averages.average[0].numpy()], [twins.averages.average[0].numpy()], 1e-6)


@each_generation
@needs_inner_loss_scale
@pytest.mark.parametrize("initial_scale", [1.0, 2.0**10])
def test_updates_at_which_a_scale_inside_grows_count(generation, initial_scale):
    scale = loss_scale_of(generation)(sgd(generation), initial_scale=initial_scale, dynamic_growth_steps=3)
    model = compiled_model(generation, generation.SWA(scale, average_period=2))
    twin = compiled_model(generation, generation.SWA(sgd(generation), average_period=2))
    assert_trained_on_the_good_batches(generation, model, twin, 1e-6)


@each_generation
@needs_inner_loss_scale
def test_a_loss_scale_inside_scales_the_loss(generation):
    moved = []
    for wrap in (lambda inner: inner, loss_scale_of(generation)):
        keras = generation.keras
        keras.utils.set_random_seed(0)
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(1, dtype="mixed_float16"),
                layers.Activation("linear", dtype="float32"),
            ]
        )
        inner = wrap(sgd(generation, learning_rate=1e5))
        model.compile(generation.SWA(inner, average_period=1), "mse")
        before = weights(model)[0]
        # Gradients of 1e-9 are zero in float16.
        fit(model, *data(), sample_weight=np.full(64, 1e-9))
        moved.append(np.any(weights(model)[0] != before))
    assert moved == [False, True]


@each_generation
@needs_inner_loss_scale
@pytest.mark.parametrize("limit", ["clipnorm", "clipvalue", "global_clipnorm"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_clipping_around_a_loss_scale_limits_the_gradient_itself(generation, limit, dtype):
    models = []
    for wrap in (lambda inner: inner, lambda inner: loss_scale_of(generation)(inner, initial_scale=2.0**11)):
        inner = sgd(generation, learning_rate=0.1, momentum=0.0)
        models.append(compiled_model(generation, generation.SWA(wrap(inner), **{limit: 0.1}), dtype))
        fit(models[-1], *data())
    assert_close(weights(models[0]), weights(models[1]), 2e-2 if dtype == "float16" else 1e-5)
    assert averaging_optimizer(models[1]).snapshots == 1


@each_generation
@needs_inner_loss_scale
@pytest.mark.parametrize("limit", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_clipping_around_a_loss_scale_makes_no_bad_gradient_a_good_one(generation, limit):
    variable, tensor = keras.Variable, keras.ops.convert_to_tensor
    if generation.name == "tf_keras":
        tensorflow = importlib.import_module("tensorflow")
        variable, tensor = tensorflow.Variable, tensorflow.constant
    variable = variable(np.ones(3, "float32"))
    optimizer = generation.SWA(loss_scale_of(generation)(sgd(generation)), average_period=1, **{limit: 0.1})
    for bad in (np.inf, -np.inf, np.nan):
        optimizer.apply_gradients([(tensor(np.array([0.5, bad, 0.5], "float32")), variable)])
        np.testing.assert_array_equal(variable.numpy(), np.ones(3))
    assert optimizer.snapshots == 0


# Variables of float8 layers, which a step overwrites with what stands for their gradients.


@pytest.mark.parametrize("method", METHODS)
def test_variables_that_are_overwritten_are_not_clipped_and_not_averaged(method):
    def history(optimizer):
        keras.utils.set_random_seed(0)
        layer = keras.layers.Dense(4)
        model = keras.Sequential([keras.Input((4,)), layer])
        layer.quantize("float8")
        model.compile(optimizer, "mse")
        fit(model, *data())
        return model, layer.inputs_amax_history.numpy()

    generation = Generation("keras3")
    _, plain = history(sgd(generation))
    settings = {**SETTINGS[method], "clipnorm": 0.01}
    model, ours = history(getattr(generation, method)(sgd(generation), **settings))
    assert plain.max() > 1
    np.testing.assert_array_equal(ours, plain)
    # They are trainable, and moving the averages leaves them alone.
    optimizer = model.optimizer
    assert len(optimizer.averages.variables) == 2 < len(model.trainable_variables)
    optimizer.assign_average_vars(model.trainable_variables)
    np.testing.assert_array_equal(model.layers[0].inputs_amax_history.numpy(), plain)


@needs_inner_loss_scale
def test_two_loss_scales_are_refused():
    # Keras 3 would divide the gradients by both, though it multiplies the loss by one.
    generation = Generation("keras3")
    inner = keras.optimizers.SGD(loss_scale_factor=2.0)
    loss_scale_of(generation)(inner)
    if inner.loss_scale_factor is not None:
        pytest.skip("in Keras 3.8 a LossScaleOptimizer does not tell the optimizer in it of itself")
    optimizer = generation.SWA(loss_scale_of(generation)(sgd(generation)))
    with pytest.raises(ValueError, match="`optimizer` must not hold a LossScaleOptimizer") as error:
        compiled_model(generation, optimizer, "mixed_float16")
    assert "\n" not in str(error.value)


def test_a_tf_keras_loss_scale_may_come_after_the_averages():
    generation = Generation("tf_keras")
    optimizer = generation.SWA(sgd(generation), average_period=2)
    model = compiled_model(generation, "sgd")
    optimizer.shadow_copy(model)
    model.compile(loss_scale_of(generation)(optimizer), "mse")
    twin = compiled_model(generation, generation.SWA(sgd(generation), average_period=2))
    assert_trained_on_the_good_batches(generation, model, twin, 1e-6)
    # Keras 2's own count has the skipped ones too.
    assert int(optimizer.iterations) == 16
    optimizer.iterations = 4
    assert int(optimizer.iterations) == int(optimizer.count()) == 4


@pytest.mark.parametrize("steps", [2, 3])
def test_accumulation_under_a_loss_scale(steps):
    generation = Generation("keras3")

    def accumulating():
        return generation.SWA(sgd(generation, gradient_accumulation_steps=steps), average_period=1)

    model = compiled_model(generation, loss_scale_of(generation)(accumulating()))
    twin = compiled_model(generation, accumulating())
    for _ in range(2):
        fit(model, *data(BAD))
        fit(twin, *good(*data(BAD)))
    assert ours(model).snapshots == ours(twin).snapshots == 12 // steps
    assert_close(weights(model), weights(twin), 1e-6)
    assert_close(averages(model), averages(twin), 1e-6)


# Types.


def load(generation, path, policy_name):
    # Keras puts a loss scale around by the policy at the time of loading.
    with policy(generation, policy_name):
        return generation.keras.models.load_model(path)


class Recorder:
    def on_train_begin(self, logs=None):
        self.weights = []

    def on_train_batch_end(self, batch, logs=None):
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        self.weights.append([w.astype("float64") for w in weights(self.model)])


def recorder(generation):
    return type("Recording", (Recorder, generation.keras.callbacks.Callback), {})()


@each_generation
@pytest.mark.parametrize("name", ["mixed_bfloat16", "bfloat16", pytest.param("mixed_float16", marks=long), "float16"])
def test_averages_are_float32_and_swap_bit_for_bit(generation, name, tmp_path):
    model = compiled_model(generation, make(generation, "SWA"), name)
    record = recorder(generation)
    fit(model, *data(), callbacks=[record])
    narrow = not name.startswith("mixed")
    assert [w.dtype.name for w in weights(model)] == [name if narrow else "float32"] * 4
    before, average = weights(model), averages(model)
    assert {a.dtype.name for a in average} == {"float32"}
    # As precise as float32, not as the weights.
    assert_close(average, [np.mean(w, axis=0) for w in zip(*record.weights[::2])], 1e-6)
    assert not all(np.array_equal(a, w.astype("float32")) for a, w in zip(average, before))

    averaging_optimizer(model).swap_weights()
    assert_same(weights(model), [a.astype(w.dtype) for a, w in zip(average, before)])
    averaging_optimizer(model).swap_weights()
    assert_same(weights(model), before)
    assert_same(averages(model), average)

    if generation.name == "tf_keras" and name == "bfloat16":
        return  # Keras 2 cannot read bfloat16 variables of its own optimizers back.
    model.save(tmp_path / "model.keras")
    loaded = load(generation, tmp_path / "model.keras", name)
    assert_same(weights(loaded), before)
    assert_same(averages(loaded), average)
    for m in (model, loaded):
        fit(m, *data())
    assert_same(weights(loaded), weights(model))
    assert_same(averages(loaded), averages(model))


@each_generation
@pytest.mark.parametrize("method", ["ExponentialMovingAverage", "MovingAverage"])
def test_a_decay_of_0_9999_moves_in_bfloat16(generation, method):
    optimizer = getattr(generation, method)(
        sgd(generation, learning_rate=0.5), average_decay=0.9999, dynamic_decay=False
    )
    model = compiled_model(generation, optimizer, "bfloat16")
    expected = start = [w.astype("float64") for w in weights(model)]
    record = recorder(generation)
    fit(model, *data(), callbacks=[record], epochs=2)
    for after in record.weights:
        expected = [a + 1e-4 * (w - a) for a, w in zip(expected, after)]
    moved = [a - s for a, s in zip(averages(model), start)]
    assert all(np.any(m) for m in moved)
    for actual, e, s in zip(moved, expected, start):
        # XLA may leave out the rounding to bfloat16 of weights on their way into the average.
        np.testing.assert_allclose(actual, e - s, atol=5e-6)
        assert np.max(np.abs(e - s)) > 1e-5


# With everything else, under mixed_float16.


@each_generation
@each_method
def test_a_model_saved_with_its_loss_scale_goes_on(generation, method, tmp_path):
    model = compiled_model(generation, make(generation, method), "mixed_float16")
    fit(model, *data(BAD))
    model.save(tmp_path / "model.keras")
    loaded = load(generation, tmp_path / "model.keras", "mixed_float16")
    scales = [
        float(m.optimizer.dynamic_scale if generation.name == "keras3" else m.optimizer.loss_scale)
        for m in (model, loaded)
    ]
    assert scales[0] == 2.0**13
    if generation.name == "keras3":
        assert scales[1] == scales[0]
    else:
        # Keras 2 leaves the scale out of such files.
        assert scales[1] == 2.0**15
    for m in (model, loaded):
        fit(m, *data(BAD))
    same = assert_same if generation.name == "keras3" else lambda a, b: assert_close(a, b, 2e-3)
    same(weights(loaded), weights(model))
    assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations)
    if method != "LARS":
        same(averages(loaded), averages(model))


@each_generation
def test_validation_and_checkpoints_see_the_averages(generation, tmp_path):
    x, y = data()
    model, plain = (compiled_model(generation, make(generation, "SWA"), "mixed_float16") for _ in range(2))
    path = str(tmp_path / "averages.keras")
    callbacks = [generation.SwapAverages(), generation.AverageModelCheckpoint(False, path)]
    history = fit(model, x, y, epochs=2, validation_data=(x, y), callbacks=callbacks).history
    other = fit(plain, x, y, epochs=2, validation_data=(x, y)).history
    assert_same(weights(model), weights(plain))
    assert_same(averages(model), averages(plain))
    assert history["val_loss"] != other["val_loss"]
    loaded = generation.keras.models.load_model(path)
    assert_same(weights(loaded), averages(model))
    averaging_optimizer(model).assign_average_vars(model.trainable_variables)
    assert_same(weights(model), averages(model))
    assert model.evaluate(x, y, verbose=0) == pytest.approx(history["val_loss"][-1], rel=1e-3)


@each_generation
def test_swa_by_epochs_with_batch_norm(generation):
    x, y = data()
    model = compiled_model(generation, sgd(generation), "mixed_float16", batch_norm=True)
    record = recorder(generation)
    fit(model, x, y, epochs=4, callbacks=[record, generation.SWACallback(start_epoch=2)])
    assert isinstance(model.optimizer, loss_scale_of(generation))
    # Of epochs 2 and 3; the last one recalibrates batch norm.
    snapshots = record.weights[15:24:8]
    assert_close(weights(model), [np.mean(w, axis=0) for w in zip(*snapshots)], 1e-6)
    mean = np.array(model.layers[1].moving_mean.numpy())
    hidden = np.tanh(x @ weights(model)[0] + weights(model)[1])
    np.testing.assert_allclose(mean, hidden.mean(axis=0), atol=2e-3)

    averaged = compiled_model(generation, make(generation, "SWA"), "mixed_float16", batch_norm=True)
    fit(averaged, x, y, epochs=2)
    averaging_optimizer(averaged).assign_average_vars(averaged.trainable_variables)
    assert_same(weights(averaged), averages(averaged))
    generation.update_batch_norm(averaged, x, verbose=0)
    hidden = np.tanh(x @ weights(averaged)[0] + weights(averaged)[1])
    layer = averaged.layers[1]
    np.testing.assert_allclose(layer.moving_mean.numpy(), hidden.mean(axis=0), atol=2e-3)
    np.testing.assert_allclose(layer.moving_variance.numpy(), hidden.var(axis=0), rtol=1e-2)
