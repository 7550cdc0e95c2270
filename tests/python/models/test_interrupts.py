"""Interrupts at every line of our code, and at random moments: the model has its own weights afterwards."""

import gc
import importlib
import itertools
import os
import pathlib
import random
import signal
import sys
import time
import traceback

import numpy as np
import pytest

import kerasoptimizers
from generations import GENERATIONS, Generation
from processes import run_python

PACKAGE = os.path.dirname(kerasoptimizers.__file__)
TENSORFLOW = os.sep + "tensorflow" + os.sep
#: Whose code an interrupt is in: other code is at work for one of them.
PLACES = [TENSORFLOW, PACKAGE, os.sep + "keras" + os.sep, os.sep + "tf_keras" + os.sep, __file__]
X = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
Y = X.sum(axis=1, keepdims=True) + 1.0


@pytest.fixture(scope="module", params=GENERATIONS)
def generation(request):
    return Generation(request.param)


def trained(generation, method="SWA"):
    """A model with averages, whose functions are compiled."""
    keras, layers = generation.keras, generation.keras.layers
    keras.utils.set_random_seed(0)
    # Few weights: what is done with each is the same.
    normalization = layers.BatchNormalization(center=False, scale=False)
    model = keras.Sequential([layers.Input((3,)), normalization, layers.Dense(1)])
    settings = {"SWA": {"average_period": 2}, "Lookahead": {"sync_period": 3}}[method]
    model.compile(getattr(generation, method)(keras.optimizers.SGD(0.05), **settings), "mse")
    model.fit(X, Y, batch_size=8, epochs=2, verbose=0, validation_data=(X, Y))
    model.predict(X, verbose=0)
    return model


def values(variables):
    return [np.array(variable.numpy()) for variable in variables]


def state(model):
    return values(model.weights), values(model.optimizer.averages.average)


def at_every_line(action):
    """Run an action interrupted at the first line of our code, at the second, ... until it comes through.

    Yields the number of the line after each interrupt.
    """
    line, through = 0, False
    while not through:
        line += 1
        left = line

        def trace(frame, event, argument):
            nonlocal left
            if not frame.f_code.co_filename.startswith(PACKAGE):
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    sys.settrace(None)
                    raise KeyboardInterrupt(f"{frame.f_code.co_filename}:{frame.f_lineno}")
            return trace

        sys.settrace(trace)
        try:
            action()
            through = left > 0
        except KeyboardInterrupt as interrupt:
            where = str(interrupt)
        finally:
            sys.settrace(None)
        # Not in the `except`, which would keep all frames alive.
        if not through:
            yield where


def checkpoint(generation, model, folder):
    callback = generation.AverageModelCheckpoint(False, str(folder / "last.weights.h5"), save_weights_only=True)
    callback.set_model(model)
    return lambda: callback.on_epoch_end(0, {})


def swap_twice(generation, model, folder):
    def action():
        model.optimizer.swap_weights()
        model.optimizer.swap_weights()

    return action


def backend_of(generation):
    return generation.keras.backend.backend() if generation.name == "keras3" else "tensorflow"


def batches(generation, targets=True):
    """Data that `evaluate()` takes at once: arrays would be wrapped anew at every call."""
    if backend_of(generation) != "tensorflow":
        return (X, Y) if targets else (X,)
    import tensorflow as tf

    return (tf.data.Dataset.from_tensor_slices((X, Y) if targets else X).batch(16),)


def evaluate(generation, model, folder):
    data = batches(generation)
    return lambda: model.evaluate(*data, verbose=0, callbacks=[generation.SwapAverages()])


def predict(generation, model, folder):
    data = batches(generation, targets=False)
    return lambda: model.predict(*data, verbose=0, callbacks=[generation.SwapAverages()])


def fit(generation, model, folder):
    # Epochs that leave the weights as they are.
    model.optimizer.learning_rate = 0.0
    save = generation.AverageModelCheckpoint(False, str(folder / "last.weights.h5"), save_weights_only=True)
    callbacks = [generation.SwapAverages(), save]
    data = batches(generation)
    validation = data[0] if len(data) == 1 else data
    return lambda: model.fit(*data, verbose=0, validation_data=validation, callbacks=callbacks)


ACTIONS = {"swap_weights": swap_twice, "evaluate": evaluate, "predict": predict, "checkpoint": checkpoint, "fit": fit}
long = pytest.mark.long


def check(model, before, name, where):
    """The model and its averages are as before; between two calls of the package `swap_weights()` may be needed."""
    if model.optimizer.averages.shown:
        assert name in ("swap_weights", "evaluate", "predict"), where
        model.optimizer.swap_weights()
        # The callback that was interrupted goes, and what it has put on the model goes with it.
        gc.collect()
    assert not model.optimizer.averages.shown, where
    (weights, averages), (found_weights, found_averages) = before, state(model)
    if name == "fit":
        # Averages have moved towards the weights, and statistics as ever.
        weights, found_weights = values_of(model, weights), values_of(model, found_weights)
        for weight, average, found in zip(weights, averages, found_averages, strict=True):
            assert np.all((found - average) * (weight - found) >= -1e-7), where
    else:
        for average, found in zip(averages, found_averages, strict=True):
            np.testing.assert_array_equal(found, average, where)
    for weight, found in zip(weights, found_weights, strict=True):
        np.testing.assert_array_equal(found, weight, where)


def values_of(model, weights):
    """Those of a model's values that are averaged."""
    averages = model.optimizer.averages
    return [value for value, v in zip(weights, model.weights) if averages.position(v) is not None]


@pytest.mark.parametrize(
    "method, name",
    [
        ("SWA", "swap_weights"),
        ("SWA", "evaluate"),
        ("SWA", "checkpoint"),
        pytest.param("SWA", "predict", marks=long),
        *(
            pytest.param("Lookahead", name, marks=long)
            for name in ("swap_weights", "evaluate", "predict", "checkpoint")
        ),
    ],
)
def test_interrupted_at_any_line_the_model_has_its_own_weights(generation, method, name, tmp_path):
    model = trained(generation, method)
    action = ACTIONS[name](generation, model, tmp_path)
    before, lines = state(model), 0
    for where in at_every_line(action):
        lines += 1
        check(model, before, name, f"interrupted at {where}")
    assert lines > 10


def test_an_update_that_is_interrupted_at_any_line_leaves_the_learning_rate(generation):
    optimizer = generation.SWA(generation.keras.optimizers.SGD(0.5), decay=1.0, average_period=1)
    variables = generation.variables([[1.0, 1.0]])

    def update():
        generation.apply(optimizer, [np.ones(2)], variables)

    update()
    for where in at_every_line(update):
        assert float(optimizer.backend.numpy(optimizer.learning_rate)) == 0.5, where


def interrupt_at_random(generation, name, interrupts, folder, seed=0):
    """Interrupt an action at a number of random moments, and check the model after each; yields after each check."""
    model = trained(generation)
    action = ACTIONS[name](generation, model, folder)
    begin = time.perf_counter()
    for _ in range(3):
        action()
    duration = (time.perf_counter() - begin) / 3
    before, came, broken, moments = state(model), 0, 0, random.Random(seed)

    def interrupt(number, frame):
        nonlocal came
        while frame is not None and not any(place in frame.f_code.co_filename for place in PLACES):
            frame = frame.f_back
        if frame is not None and TENSORFLOW in frame.f_code.co_filename:
            # It does not survive every interrupt: its C++ aborts, its caches lose what they hold. Once it is through.
            signal.setitimer(signal.ITIMER_REAL, 2e-5)
            return
        came += 1
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        while came < interrupts:
            last, where = came, "not interrupted"
            try:
                signal.setitimer(signal.ITIMER_REAL, moments.uniform(1e-6, duration))
                action()
                signal.setitimer(signal.ITIMER_REAL, 0)
            except BaseException as error:
                # NumPy makes a TypeError of an interrupt that comes while it looks for a type.
                if came == last:
                    # An interrupt before has left TensorFlow's cache of functions without one, or Keras 2 without the
                    # attribute that it was setting: the model's functions are made anew.
                    broken += 1
                    if backend_of(generation) != "tensorflow" or broken > interrupts / 20:
                        raise
                    model.compile(model.optimizer, "mse")
                where = "".join(traceback.format_tb(error.__traceback__, limit=-3))
                if backend_of(generation) == "torch":
                    # An interrupt at the end of PyTorch's own no_grad() leaves gradients off.
                    importlib.import_module("torch").set_grad_enabled(True)
            check(model, before, name, where)
            if name == "fit":
                before = before[0], state(model)[1]
            yield from range(last, came)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def skip_what_keras_loses(generation, name):
    if name == "fit" and backend_of(generation) == "jax":
        pytest.skip("Keras itself loses the weights when fit() on JAX is interrupted after a step.")


@pytest.mark.parametrize("name", ACTIONS)
def test_interrupted_at_a_random_moment_the_model_has_its_own_weights(generation, name, tmp_path):
    skip_what_keras_loses(generation, name)
    assert len(list(interrupt_at_random(generation, name, 20, tmp_path))) == 20


@long
@pytest.mark.parametrize("name", ACTIONS)
def test_a_thousand_interrupts_lose_nothing(generation, name, tmp_path):
    """A hundred in a separate process: interrupted often, TensorFlow may abort it. The interrupts until then count."""
    skip_what_keras_loses(generation, name)
    came = ended = 0
    for seed in itertools.count(1):
        interrupts = min(100, 1000 - came)
        run = run_python(__file__, generation.name, name, interrupts, tmp_path, seed)
        came += run.stdout.count("nothing lost")
        if came >= 1000:
            return
        if run.returncode != 0:
            ended += 1
            # An error in Python is one of ours, or one that no new compile() mends.
            assert run.returncode < 0 and backend_of(generation) == "tensorflow" and ended <= 10, run.stderr[-3000:]


if __name__ == "__main__":
    generation, name, interrupts, folder, seed = sys.argv[1:]
    for _ in interrupt_at_random(Generation(generation), name, int(interrupts), pathlib.Path(folder), int(seed)):
        print("nothing lost", flush=True)
