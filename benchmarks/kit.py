"""What every part of the benchmarks uses: models, optimizers and timing, for one backend."""

import functools
import gc
import importlib
import itertools
import statistics
import sys
import time
from pathlib import Path

import numpy as np

BACKENDS = ("tensorflow", "jax", "torch", "keras2", "tfa")
METHODS = ("swa", "lookahead", "ema", "moving_average", "schedule_free")
BATCH = 32
#: Updates in a block: a whole number of periods of SWA (10) and Lookahead (6).
BLOCK = 30


class Kit:
    """Keras, the optimizers to compare, and how a training step is run, for a backend.

    Args:
        backend: one of BACKENDS. "tfa" is TensorFlow Addons with the Keras 2 it was made for.
    """

    def __init__(self, backend):
        self.backend = backend
        self.keras2 = backend in ("keras2", "tfa")
        if backend == "tfa":
            self.keras = importlib.import_module("tensorflow").keras
            self.plain = self.keras.optimizers.legacy
        else:
            self.keras = importlib.import_module("tf_keras" if self.keras2 else "keras")
            self.plain = self.keras.optimizers
            sys.path.insert(0, str(Path(__file__).parent.parent / "inst" / "python"))
            name = "kerasoptimizers.tf_keras" if self.keras2 else "kerasoptimizers.keras3"
            self.ours = importlib.import_module(name)

    def methods(self, chosen=None):
        """Names of what can be compared here; the plain optimizer is always the first."""
        if self.backend == "tfa":
            names = ["plain", "swa", "lookahead", "moving_average"]
        else:
            names = ["plain", *METHODS, "use_ema"]
            # The least that an average of every update can cost: nothing but its own pass.
            names += ["averaged_model_swa", "averaged_model_ema"] if self.backend == "torch" else ["bare_ema"]
        return [name for name in names if name == "plain" or chosen is None or name in chosen]

    def sgd(self, **settings):
        return self.plain.SGD(0.01, momentum=0.9, **settings)

    def optimizer(self, method):
        if method == "use_ema":
            return self.sgd(use_ema=True, ema_momentum=0.99)
        if method in ("plain", "bare_ema") or method.startswith("averaged_model"):
            return self.sgd()
        if self.backend == "tfa":
            source = importlib.import_module("tensorflow_addons.optimizers")
        else:
            source = self.ours
        if method == "swa":
            return source.SWA(self.sgd(), start_averaging=0, average_period=10)
        if method == "lookahead":
            return source.Lookahead(self.sgd(), sync_period=6, slow_step_size=0.5)
        if method == "ema":
            return source.ExponentialMovingAverage(self.sgd())
        if method == "schedule_free":
            # It has its own momentum.
            return source.ScheduleFree(self.plain.SGD(0.01))
        return source.MovingAverage(self.sgd())

    def trainer(self, task, method, optimizer=None):
        """A new model, compiled, with its data; no step was run yet."""
        model, x, y = TASKS[task](self.keras) if isinstance(task, str) else task(self.keras)
        loss = self.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer or self.optimizer(method), loss=loss)
        kinds = {"jax": JaxTrainer, "torch": TorchTrainer}
        return kinds.get(self.backend, TensorFlowTrainer)(model, x, y, method)

    def adamw_and_schedule_free(self):
        """AdamW, Schedule-Free around Adam, and Keras's own Schedule-Free if it has one: name -> function."""
        optimizers = {
            "plain": lambda: self.plain.AdamW(0.001),
            "schedule_free": lambda: self.ours.ScheduleFree(self.plain.Adam(0.001, beta_1=0.0)),
        }
        if hasattr(self.plain, "ScheduleFreeAdamW"):
            optimizers["keras_schedule_free_adamw"] = lambda: self.plain.ScheduleFreeAdamW(0.001)
        return optimizers

    def forward_loop(self, model):
        """A function that runs the model forward in training mode over an array, by batches."""
        if self.backend == "jax":
            forward = self._jax_forward(model)
        elif self.backend == "torch":
            forward = self._torch_forward(model)
        else:
            import tensorflow as tf

            forward = tf.function(lambda x: model(x, training=True), reduce_retracing=True)

        def loop(x):
            for start in range(0, len(x), BATCH):
                y = forward(x[start : start + BATCH])
            np.asarray(y)  # waits

        return loop

    @staticmethod
    def _jax_forward(model):
        import jax

        @jax.jit
        def forward(weights, state, x):
            return model.stateless_call(weights, state, x, training=True)

        weights = [v.value for v in model.trainable_variables]
        state = [v.value for v in model.non_trainable_variables]

        def stateful(x):
            nonlocal state
            y, state = forward(weights, state, x)
            return y

        return stateful

    @staticmethod
    def _torch_forward(model):
        import torch

        @torch.no_grad()
        def forward(x):
            return model(torch.from_numpy(x), training=True)

        return forward

    def clear(self):
        self.keras.backend.clear_session()
        gc.collect()


# A trainer runs training steps the way fit() does, on one batch that lies ready, without fit()'s
# work between them, which is the same whatever the optimizer and would hide differences.


class TensorFlowTrainer:
    def __init__(self, model, x, y, method):
        import tensorflow as tf

        self.model = model
        self._data = tf.data.Dataset.from_tensors((tf.constant(x), tf.constant(y))).repeat()
        self._iterator = iter(self._data)
        self._average = lambda: None
        if method == "bare_ema":
            pairs = [(tf.Variable(w), w) for w in model.trainable_variables]

            @tf.function(jit_compile=True)
            def average():
                for a, w in pairs:
                    a.assign_add(0.01 * (w - a))

            self._average = average

    def fit(self, steps=1):
        """Steps of fit(); the first builds, traces and compiles what is needed."""
        self.model.fit(self._data, steps_per_epoch=steps, verbose=0)

    def run(self, steps):
        step, iterator, average = self.model.train_function, self._iterator, self._average
        for _ in range(steps):
            logs = step(iterator)
            average()
        float(logs["loss"])  # waits


class JaxTrainer:
    def __init__(self, model, x, y, method):
        self.model = model
        self._x, self._y, self._state = x, y, None
        self._averages = [] if method == "bare_ema" else None

    def fit(self, steps=1):
        self.model.fit(self._x, self._y, batch_size=len(self._x), epochs=steps, verbose=0)

    @functools.cached_property
    def _average(self):
        import jax

        def average(averages, weights):
            return [a + 0.01 * (w - a) for a, w in zip(averages, weights, strict=True)]

        return jax.jit(average, donate_argnums=0)

    def run(self, steps):
        import jax
        import jax.numpy as jnp

        if self._state is None:
            parts = ("trainable", "non_trainable", "optimizer", "metrics")
            state = self.model._get_jax_state(**{f"{part}_variables": True for part in parts})
            # After fit() Keras's use_ema leaves one buffer for two variables.
            self._state = jax.tree.map(jnp.copy, state)
            self._batches = itertools.repeat((jnp.asarray(self._x), jnp.asarray(self._y)))
        step, batches, state = self.model.train_function, self._batches, self._state
        for _ in range(steps):
            _, state = step(state, batches)
            if self._averages is not None:
                self._averages = self._average(self._averages or [jnp.copy(w) for w in state[0]], state[0])
        self._state = jax.block_until_ready(state)


class TorchTrainer:
    def __init__(self, model, x, y, method):
        import torch

        self.model = model
        self._x, self._y, self._data = x, y, None
        self._averaged, self._every, self._steps = None, 1, 0
        if method.startswith("averaged_model"):
            from torch.optim import swa_utils

            # Keras models can't be copied as AveragedModel does it: their parameters can.
            self._weights = torch.nn.ParameterList(v.value for v in model.trainable_variables)
            swa = method.endswith("swa")
            average = swa_utils.get_swa_multi_avg_fn if swa else swa_utils.get_ema_multi_avg_fn
            self._averaged = swa_utils.AveragedModel(self._weights, multi_avg_fn=average() if swa else average(0.99))
            self._every = 10 if swa else 1

    def fit(self, steps=1):
        self.model.fit(self._x, self._y, batch_size=len(self._x), epochs=steps, verbose=0)

    def run(self, steps):
        from keras import ops

        if self._data is None:
            self._data = [(ops.convert_to_tensor(self._x), ops.convert_to_tensor(self._y))]
        step, data, averaged = self.model.train_function, self._data, self._averaged
        for i in range(steps):
            logs = step(data)
            if averaged is not None and (self._steps + i) % self._every == 0:
                averaged.update_parameters(self._weights)
        self._steps += steps
        float(logs["loss"])


class TorchLoop:
    """Steps of a network without Keras, as one writes them for PyTorch; otherwise like the trainers.

    Args:
        make: function that makes an optimizer from parameters.
    """

    def __init__(self, make, width=512, layers=8):
        import torch

        hidden = [layer for _ in range(layers) for layer in (torch.nn.Linear(width, width), torch.nn.ReLU())]
        self.model = torch.nn.Sequential(*hidden, torch.nn.Linear(width, 10))
        self.optimizer = make(self.model.parameters())
        if hasattr(self.optimizer, "train"):
            self.optimizer.train()
        x, y = _data((width,))
        self._x, self._y = torch.from_numpy(x), torch.from_numpy(y).long()

    def run(self, steps):
        import torch

        for _ in range(steps):
            self.optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(self.model(self._x), self._y)
            loss.backward()
            self.optimizer.step()
        float(loss)


# The models: (model, one batch of inputs, its labels).


def _data(shape, classes=10, words=None):
    random = np.random.default_rng(1)
    if words is None:
        x = random.normal(size=(BATCH, *shape)).astype("float32")
    else:
        x = random.integers(words, size=(BATCH, *shape)).astype("int32")
    return x, random.integers(classes, size=(BATCH,)).astype("int32")


def mlp(keras, width=512, layers=8):
    """`layers` layers, each with about width**2 weights in two variables."""
    dense = keras.layers.Dense
    hidden = [dense(width, "relu") for _ in range(layers)]
    return (keras.Sequential([keras.Input((width,)), *hidden, dense(10)]), *_data((width,)))


def mlp_with_batch_norm(keras):
    layers = keras.layers
    hidden = [layer for _ in range(8) for layer in (layers.Dense(512), layers.BatchNormalization())]
    return (keras.Sequential([keras.Input((512,)), *hidden, layers.Dense(10)]), *_data((512,)))


def cnn(keras):
    layers = keras.layers
    blocks = []
    for filters in (32, 64, 128):
        blocks += [
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
        ]
    model = [keras.Input((32, 32, 3)), *blocks, layers.GlobalAveragePooling2D(), layers.Dense(10)]
    return (keras.Sequential(model), *_data((32, 32, 3)))


def transformer(keras):
    layers = keras.layers
    inputs = keras.Input((64, 128))
    x = layers.MultiHeadAttention(num_heads=4, key_dim=32)(inputs, inputs)
    x = middle = layers.LayerNormalization()(layers.add([inputs, x]))
    x = layers.Dense(128)(layers.Dense(512, "relu")(x))
    x = layers.LayerNormalization()(layers.add([middle, x]))
    outputs = layers.Dense(10)(layers.GlobalAveragePooling1D()(x))
    return (keras.Model(inputs, outputs), *_data((64, 128)))


def embedding(keras):
    """Of 50,000 rows a step uses a few hundred: on TensorFlow their gradient is sparse."""
    layers = keras.layers
    words = 50_000
    model = keras.Sequential(
        [
            keras.Input((20,), dtype="int32"),
            layers.Embedding(words, 64),
            layers.GlobalAveragePooling1D(),
            layers.Dense(10),
        ]
    )
    return (model, *_data((20,), words=words))


TASKS = {"mlp": mlp, "cnn": cnn, "transformer": transformer, "embedding": embedding}


# Timing.


def timed(function, *args):
    start = time.perf_counter()
    function(*args)
    return time.perf_counter() - start


def interleave(runs, rounds, reference, warm_up=1):
    """Time many things in turn, and each against the reference.

    Two models built alike may differ by half: where their memory fell. So a configuration is
    timed on several separate models; in each round every one of them runs once; and times are
    compared within a round, in which the machine was about as fast for all.

    Args:
        runs: dict, configuration -> list of functions without argument, one per model.
        rounds: int >= 1.
        reference: key of `runs`; its median in a round is what times of the round are divided by.
        warm_up: int, rounds that don't count.

    Returns:
        Dict, configuration -> list of (seconds, ratio), one per model, medians over the rounds.
    """
    gc.collect()
    gc.disable()
    seconds = {name: [[] for _ in functions] for name, functions in runs.items()}
    order = [(name, i) for i in range(max(map(len, runs.values()))) for name in runs]
    order = [(name, i) for name, i in order if i < len(runs[name])]
    try:
        for number in range(warm_up + rounds):
            # Forwards, then backwards: nothing always follows the same neighbour.
            for name, i in order if number % 2 else reversed(order):
                took = timed(runs[name][i])
                # Without, a run of 25 models on PyTorch came to 24 GB.
                gc.collect()
                if number >= warm_up:
                    seconds[name][i].append(took)
    finally:
        gc.enable()
    typical = [statistics.median(times) for times in zip(*seconds[reference], strict=True)]
    return {
        name: [
            (
                statistics.median(times),
                statistics.median(t / usual for t, usual in zip(times, typical, strict=True)),
            )
            for times in models
        ]
        for name, models in seconds.items()
    }


def ratios(times, reference):
    """What `interleave()` returns, from times that were taken otherwise, one per model."""
    usual = statistics.median(times[reference])
    return {name: [(t, t / usual) for t in taken] for name, taken in times.items()}


def rows(results, scale=1.0, **labels):
    """Rows of the table in long form: one per model.

    Args:
        results: what `interleave()` returns.
        scale: float, what seconds are multiplied by, such as 1 / steps in a block.
        **labels: the other columns: part, backend, task, measure.
    """
    return [
        {**labels, "method": name, "model": i, "value": scale * seconds, "unit": "s", "ratio": r}
        for name, models in results.items()
        for i, (seconds, r) in enumerate(models)
    ]
