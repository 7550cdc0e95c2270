"""Steps that XLA compiles, as `jit_compile="auto"` makes them on a GPU, do what the eager ones do."""

import keras
import numpy as np
import pytest

from generations import GENERATIONS, METHODS, Generation, average_slot
from kerasoptimizers import averaging_optimizer
from test_mixed_precision import assert_close, each_method, make, ours, policy, sgd, weights

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="on TensorFlow alone variables may come to be within the step"
)
each_generation = pytest.mark.parametrize("generation", GENERATIONS, indirect=True)


@pytest.fixture
def generation(request):
    return Generation(request.param)


def trained(generation, optimizer, dtype="float32", built=False, **settings):
    """A model after two fits of 4 updates each; `built` is whether it knows its input shape before these."""
    layers = generation.keras.layers
    generation.keras.utils.set_random_seed(0)
    generator = np.random.default_rng(1)
    x = generator.normal(size=(32, 3)).astype("float32")
    y = np.tanh(x.sum(axis=1, keepdims=True))
    with policy(generation, dtype):
        shape = [generation.keras.Input((3,))] if built else []
        model = generation.keras.Sequential([*shape, layers.Dense(2, "tanh"), layers.Dense(1)])
        model.compile(optimizer, "mse", **settings)
        for _ in range(2):
            model.fit(x, y, batch_size=8, verbose=0, shuffle=False)
    return model


def averages(optimizer, model):
    slot = average_slot(optimizer)
    return [np.array(optimizer.get_slot(v, slot).numpy()) for v in model.trainable_variables]


def assert_as_eager(generation, make_optimizer, tolerance=1e-5, built=False, **settings):
    """That the compiled step does what the eager one does. The model that it compiles is not built before."""
    eager = trained(generation, make_optimizer(), built=True, run_eagerly=True, **settings)
    model = trained(generation, make_optimizer(), built=built, jit_compile=True, **settings)
    assert_close(weights(model), weights(eager), tolerance)
    assert int(model.optimizer.iterations) == int(eager.optimizer.iterations)
    if isinstance(ours(model), generation.LARS):
        return
    found, expected = averaging_optimizer(model), averaging_optimizer(eager)
    assert_close(averages(found, model), averages(expected, eager), tolerance)
    assert getattr(found, "snapshots", None) == getattr(expected, "snapshots", None)
    assert found.refused == 0


@each_generation
@pytest.mark.parametrize(
    "method",
    [pytest.param(n, marks=pytest.mark.long) if n == "MovingAverage" else n for n in [*METHODS, "LARS"]],
)
def test_compiled_by_xla_a_step_is_the_eager_one(generation, method):
    assert_as_eager(generation, lambda: make(generation, method))


@each_generation
@each_method
@pytest.mark.sample
def test_compiled_by_xla_a_step_of_a_model_that_was_built_before_is_the_eager_one(generation, method):
    assert_as_eager(generation, lambda: make(generation, method), built=True)


@each_generation
@each_method
def test_compiled_by_xla_under_mixed_float16_a_step_is_the_eager_one(generation, method):
    # What is rounded to float16 on the way differs.
    assert_as_eager(generation, lambda: make(generation, method), tolerance=5e-3, dtype="mixed_float16")


@pytest.mark.parametrize("generation", ["keras3"], indirect=True)
@each_method
def test_compiled_by_xla_accumulated_gradients_are_one_update(generation, method):
    def optimizer():
        if method == "LARS":
            return generation.LARS(0.05, gradient_accumulation_steps=2)
        return make(generation, method, sgd(generation, gradient_accumulation_steps=2))

    assert_as_eager(generation, optimizer)
