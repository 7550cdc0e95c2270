"""Weights that are not finite stay out of the averages, on the backend that KERAS_BACKEND names."""

import importlib
import warnings

import keras
import numpy as np
import pytest

from generations import GENERATIONS, METHODS, Generation, average_slot
from kerasoptimizers import KerasOptimizersWarning

pytestmark = pytest.mark.sample

EVERY_UPDATE = {"SWA": {"average_period": 1}, "Lookahead": {"sync_period": 1}}


@pytest.fixture(params=GENERATIONS)
def generation(request):
    return Generation(request.param)


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


def make(generation, method, **settings):
    """An optimizer that averages after every update, and a built model that it trains."""
    ours = getattr(generation, method)
    settings = {**EVERY_UPDATE.get(method, {}), **settings}
    optimizer = ours(generation.keras.optimizers.SGD(0.1), **settings)
    layers = generation.keras.layers
    model = generation.keras.Sequential(
        [layers.Input((3,)), layers.Dense(4, name="first"), layers.Dense(1, name="second")]
    )
    model.compile(optimizer, loss="mse")
    return optimizer, model


def fit(model, bad_batches=(), batches=6, **arguments):
    """Train; the targets of some batches of 4 are infinite, and the weights after them not finite."""
    generator = np.random.default_rng(0)
    data = generator.normal(size=(4 * batches, 4)).astype("float32")
    x, y = data[:, :3], data[:, 3:]
    for batch in bad_batches:
        y[4 * batch] = np.inf
    model.fit(x, y, batch_size=4, epochs=1, shuffle=False, verbose=0, **arguments)


def recover(optimizer, model, weights):
    model.set_weights(weights)
    for variable in optimizer.optimizer._variables:
        # Keras 2's SGD keeps a velocity that is not finite, even if momentum is 0.
        if not np.isfinite(variable.numpy()).all():
            variable.assign(np.zeros(variable.shape))


def averages(optimizer, model):
    slot = average_slot(optimizer)
    return [optimizer.get_slot(v, slot).numpy() for v in model.trainable_variables]


def refusals(caught):
    return [str(w.message) for w in caught if "not finite" in str(w.message)]


def test_a_bad_update_leaves_the_average_of_the_good_ones(generation, method):
    optimizer, model = make(generation, method)
    start = [np.array(w) for w in model.get_weights()]
    fit(model, batches=3)
    good = averages(optimizer, model)
    model.set_weights(start)

    optimizer, other = make(generation, method)
    other.set_weights(start)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(other, bad_batches=[3], batches=6)
    for average, expected in zip(averages(optimizer, other), good):
        np.testing.assert_array_equal(average, expected)
    assert optimizer.refused == 3
    if method == "SWA":
        assert optimizer.snapshots == 3
    (message,) = refusals(caught)
    assert "first" in message and "skipped update 3" in message and "\n" not in message


def test_weights_that_recover_enter_the_average_again(generation):
    optimizer, model = make(generation, "SWA")
    fit(model, batches=2)
    own = [np.array(w) for w in model.get_weights()]
    model.layers[-1].bias.assign([np.nan])
    with pytest.warns(UserWarning, match="skipped update 2"):
        fit(model, batches=1)
        recover(optimizer, model, own)
        fit(model, batches=1)
    assert (optimizer.refused, optimizer.snapshots) == (1, 3)
    optimizer.assign_average_vars(model.trainable_variables)
    assert all(np.isfinite(w).all() for w in model.get_weights())


@pytest.mark.parametrize("action", ["swap_weights", "assign_average_vars"])
def test_where_every_snapshot_was_refused_the_error_says_so(generation, action):
    optimizer, model = make(generation, "SWA", start_averaging=1, average_period=2)
    with pytest.warns(UserWarning, match="skipped update 1"):
        fit(model, bad_batches=[0], batches=6)
    arguments = [model.trainable_variables] if action == "assign_average_vars" else []
    message = rf"{action}\(\) needs an average.*: after each of 3 updates at which one was due, weights were not finite"
    with pytest.raises(ValueError, match=message):
        getattr(optimizer, action)(*arguments)


def test_without_the_check_the_average_is_what_arithmetic_makes_it(generation, method):
    optimizer, model = make(generation, method, check_finite=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", KerasOptimizersWarning)
        warnings.filterwarnings("ignore", message=".*holds the weights to train on")
        fit(model, bad_batches=[3])
    assert optimizer.refused == 0
    assert not all(np.isfinite(average).all() for average in averages(optimizer, model))


def test_updates_at_which_no_average_is_due_are_not_checked(generation):
    optimizer, model = make(generation, "SWA", start_averaging=0, average_period=4)
    fit(model, batches=2)
    own = [np.array(w) for w in model.get_weights()]
    model.layers[-1].bias.assign([np.nan])
    fit(model, batches=1)
    recover(optimizer, model, own)
    with warnings.catch_warnings():
        warnings.simplefilter("error", KerasOptimizersWarning)
        fit(model, batches=2)
    assert (optimizer.refused, optimizer.snapshots) == (0, 2)


def test_a_refused_lookahead_sync_leaves_weights_and_slow_weights(generation):
    optimizer, model = make(generation, "Lookahead")
    fit(model, batches=2)
    slow = averages(optimizer, model)
    model.layers[-1].bias.assign([np.inf])
    kernel = model.layers[0].kernel.numpy()
    with pytest.warns(UserWarning, match="skipped update 2: .*second.*bias.* was not finite"):
        optimizer.apply_gradients([(0 * v, v) for v in model.trainable_variables[:-1]])
        assert optimizer.has_average
    assert optimizer.refused == 1
    np.testing.assert_array_equal(model.layers[0].kernel.numpy(), kernel)
    for before, after in zip(slow, averages(optimizer, model)):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_one_bad_element_of_any_kind_is_found_and_large_ones_are_not_bad(dtype):
    ours = importlib.import_module("kerasoptimizers")
    for value, refused in ((np.nan, 1), (np.inf, 1), (-np.inf, 1), (6e4, 0)):
        weights = [
            keras.Variable(np.full(shape, 6e4), dtype=dtype, name=f"w{i}")
            for i, shape in enumerate([(), (3, 50), (0, 2), (2, 2, 2)])
        ]
        optimizer = ours.SWA("sgd", average_period=1)
        optimizer.build(weights)
        values = np.full((3, 50), 6e4)
        values[1, 7] = value
        weights[1].assign(values)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer.apply([keras.ops.zeros(w.shape, w.dtype) for w in weights])
        assert optimizer.refused == refused, value


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_the_largest_finite_weights_are_finite(generation, dtype):
    if dtype == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX has float64 only where it is switched on for the whole process")
    largest = 1.7e308 if dtype == "float64" else 3e38
    shapes = [(), (8,), (8,), (300, 200)]
    # Once all alike, once such that sums of parts are infinite with both signs.
    for value in (largest, -largest, np.resize([largest] * 4 + [-largest] * 4, (300, 200))):
        values = [np.broadcast_to(np.resize(value, shape), shape) for shape in shapes]
        variables = generation.variables(values, dtype)
        optimizer = generation.SWA(generation.keras.optimizers.SGD(0.0), average_period=1)
        generation.apply(optimizer, [np.zeros(shape) for shape in shapes], variables)
        assert (optimizer.refused, optimizer.snapshots) == (0, 1)
        average = optimizer.get_slot(variables[-1], "average").numpy()
        np.testing.assert_allclose(average.astype("float64"), values[-1], rtol=1e-2)


def test_the_count_of_refusals_is_saved_and_an_old_one_is_not_warned_of(tmp_path):
    generation = Generation("keras3")
    optimizer, model = make(generation, "SWA")
    with pytest.warns(UserWarning, match="not finite"):
        fit(model, bad_batches=[3])
    model.save(tmp_path / "model.keras")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.optimizer.refused == 3
        assert loaded.optimizer.has_average
    assert not refusals(caught)


def test_a_device_that_decides_for_itself_does_as_the_host(monkeypatch):
    if keras.backend.backend() != "torch":
        pytest.skip("PyTorch alone has two ways, one for GPUs.")
    import torch

    from kerasoptimizers.backends import torch as backend

    results = []
    for waits in (True, False):
        monkeypatch.setattr(backend, "is_host", lambda tensor, waits=waits: waits)
        for method in METHODS:
            torch.manual_seed(0)
            keras.utils.set_random_seed(0)
            optimizer, model = make(Generation("keras3"), method)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fit(model, bad_batches=[3])
            results.append((optimizer.refused, averages(optimizer, model), model.get_weights()))
    for host, device in zip(results[: len(METHODS)], results[len(METHODS) :]):
        assert host[0] == device[0] == 3
        for a, b in zip(host[1], device[1]):
            np.testing.assert_allclose(a, b, rtol=1e-6)
        for a, b in zip(host[2], device[2]):
            np.testing.assert_allclose(a, b, rtol=1e-6)


# Alike and different, small and large, more of one kind than are taken together, and single numbers.
SHAPES = [(8, 8), (8,), (200, 100), (8, 8), (), *[(90, 100)] * 9, (8,), (0, 3), (8, 8), ()]


@pytest.mark.parametrize("position", [i for i, shape in enumerate(SHAPES) if 0 not in shape])
def test_of_many_weights_the_one_that_is_not_finite_is_named(generation, position):
    if generation.name == "keras3":
        variable, tensor = keras.Variable, keras.ops.convert_to_tensor
    else:
        tensorflow = importlib.import_module("tensorflow")
        variable, tensor = tensorflow.Variable, tensorflow.constant
    variables = [variable(np.full(s, i, "float32"), name=f"weight{i}") for i, s in enumerate(SHAPES)]
    grads = [tensor(np.ones(shape, "float32")) for shape in SHAPES]
    optimizer = generation.SWA(generation.keras.optimizers.SGD(0.5), average_period=1)

    def update():
        optimizer.apply_gradients(list(zip(grads, variables)))
        return [optimizer.get_slot(v, "average").numpy() for v in variables]

    for i, average in enumerate(update()):
        np.testing.assert_array_equal(average, np.full(SHAPES[i], i - 0.5))
    for i, average in enumerate(update()):
        np.testing.assert_array_equal(average, np.full(SHAPES[i], i - 0.75))
    bad = np.array(variables[position].numpy())
    bad[(-1,) * bad.ndim] = np.nan
    variables[position].assign(bad)
    with pytest.warns(UserWarning, match=rf"skipped update 2: .*weight{position}\b"):
        after = update()
        optimizer.warn_of_refusals()
    for i, average in enumerate(after):
        np.testing.assert_array_equal(average, np.full(SHAPES[i], i - 0.75))
