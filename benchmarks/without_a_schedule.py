#!/usr/bin/env python3
"""One Schedule-Free training beside trainings with a schedule: `python benchmarks/without_a_schedule.py`.

On each of two data sets of the R package mlbench a small network is trained by SGD with momentum or Adam with a cosine
that falls to 0 at a quarter, at half or at the end of the training; by the same at a constant rate, with an
exponential moving average; and by Schedule-Free SGD or Adam. Each with every rate of a list and five seeds. A seed
splits the data into what is trained on (60 %), what the rate is chosen on (20 %), and what is tested with (20 %).

It takes about 5 minutes on a free core, needs JAX and an Rscript with mlbench, and writes
vignettes/source/without-a-schedule.csv, from which the vignette of that name is made: a row for the end of each
training, and for the chosen rates a row for each epoch.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
# On one core, so that the numbers do not depend on how many there are.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "inst" / "python"))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras.optimizers import SGD, Adam  # noqa: E402

from kerasoptimizers import ExponentialMovingAverage, ScheduleFree  # noqa: E402

BATCH = 64
#: Data set -> its column of classes, epochs.
DATA = {"LetterRecognition": ("lettr", 20), "Satellite": ("classes", 40)}
SGD_RATES, ADAM_RATES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5), (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)

momentum = partial(SGD, momentum=0.9)


def averaged(inner, rate, updates):
    return ExponentialMovingAverage(inner(rate), average_decay=0.999)


def schedule_free(inner, rate, updates):
    # Warm-up: one epoch.
    return ScheduleFree(inner(rate), warmup_steps=updates)


#: Method -> inner optimizer -> how the optimizer is made (given a rate and the updates of an epoch), the rates to try.
METHODS = {
    "cosine": {
        "SGD": (lambda rate, updates: momentum(rate), SGD_RATES),
        "Adam": (lambda rate, updates: Adam(rate), ADAM_RATES),
    },
    "EMA": {
        "SGD": (partial(averaged, momentum), SGD_RATES),
        "Adam": (partial(averaged, Adam), ADAM_RATES),
    },
    "Schedule-Free": {
        "SGD": (partial(schedule_free, SGD), (0.5, 1.0, 2.0, 3.0, 5.0, 10.0)),
        "Adam": (partial(schedule_free, partial(Adam, beta_1=0.0)), (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)),
    },
}
COLUMNS = ("data", "method", "inner", "until", "rate", "seed", "epoch", "held_out", "test")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE.parent / "vignettes" / "source" / "without-a-schedule.csv")
    options = parser.parse_args()
    os.nice(10)
    start, rows = time.perf_counter(), []
    for data, (column, epochs) in DATA.items():
        features, classes = read(data, column)
        for method, inners in METHODS.items():
            for inner, (make, rates) in inners.items():
                training = Training(features, classes, make, rates[0])
                for until in (epochs // 4, epochs // 2, epochs) if method == "cosine" else (epochs,):
                    for rate in rates:
                        for seed in range(1, options.seeds + 1):
                            labels = {"data": data, "method": method, "inner": inner, "until": until}
                            labels |= {"rate": rate, "seed": seed}
                            curve = training.run(seed, rate, until, falls=method == "cosine")
                            rows += [{**labels, **at_epoch} for at_epoch in curve]
                print(f"{time.perf_counter() - start:6.0f} s  {data}, {method}, {inner}", flush=True)
    with open(options.out, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(worth_keeping(rows))


def worth_keeping(rows):
    """The ends of all trainings, and each epoch of those with the chosen rates.

    Chosen is the rate with the highest accuracy on what is held out, at the end, as a mean over the seeds.
    """

    def setting(row):
        return tuple(row[name] for name in ("data", "method", "inner", "until"))

    at_end = {}
    for row in rows:
        if row["epoch"] == row["until"]:
            at_end.setdefault(setting(row), {}).setdefault(row["rate"], []).append(row["held_out"])
    chosen = {
        which: max(rates, key=lambda rate, rates=rates: statistics.mean(rates[rate])) for which, rates in at_end.items()
    }
    return [row for row in rows if row["epoch"] == row["until"] or row["rate"] == chosen[setting(row)]]


def read(data, column):
    """Numbers and classes of a data set of mlbench."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        script = (
            f'data("{data}", package = "mlbench"); {data}[["{column}"]] <- as.integer({data}[["{column}"]]) - 1L; '
            f'write.csv({data}, "{path}", row.names = FALSE)'
        )
        subprocess.run(["Rscript", "-e", script], check=True)
        with open(path, encoding="utf-8") as file:
            names = [name.strip('"') for name in file.readline().strip().split(",")]
            table = np.loadtxt(file, delimiter=",", dtype="float32")
    at = names.index(column)
    return np.delete(table, at, axis=1), table[:, at].astype("int32")


class Training:
    """Trainings that differ in seed, rates and length only: they are compiled once.

    An epoch is one compiled loop over the updates: with fit(), Keras's own work between small steps would take most of
    the time. The optimizer's learning rate is set at each update, as a schedule would set it.
    """

    def __init__(self, features, classes, make, rate):
        self.features, self.classes = features, classes
        self.sizes = [int(share * len(classes)) for share in (0.6, 0.8)]
        self.updates = self.sizes[0] // BATCH
        layers = keras.layers
        self.model = keras.Sequential(
            [
                keras.Input((features.shape[1],)),
                layers.Dense(128, "relu"),
                layers.Dense(128, "relu"),
                layers.Dense(int(classes.max()) + 1),
            ]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.optimizer = make(rate, self.updates)
        weights = self.model.trainable_variables
        self.optimizer.build(weights)
        own = [id(variable) for variable in self.optimizer.variables]
        self.rate_at = own.index(id(self.optimizer.learning_rate))
        # What is evaluated: the average where there is one.
        slots = [self.optimizer.get_slot(w, "average") for w in weights] if hasattr(self.optimizer, "averages") else []
        self.averages_at = [own.index(id(slot)) for slot in slots]
        self.epoch = jax.jit(self._epoch)
        self.accuracy = jax.jit(self._accuracy)

    def run(self, seed, rate, epochs, falls):
        """Accuracy after each epoch, a list of dicts."""
        random = np.random.default_rng(seed)
        order = random.permutation(len(self.classes))
        train, held_out, test = np.split(order, self.sizes)
        center, spread = self.features[train].mean(axis=0), self.features[train].std(axis=0)
        features = (self.features - center) / spread
        weights, state = self._start(seed)
        rates = np.full(epochs * self.updates, rate, "float32")
        if falls:
            rates *= 0.5 * (1 + np.cos(np.pi * np.arange(len(rates)) / len(rates)))
        curve = []
        for epoch, of_epoch in enumerate(np.split(rates, epochs)):
            drawn = random.permutation(train)[: self.updates * BATCH].reshape(self.updates, BATCH)
            weights, state = self.epoch(weights, state, features[drawn], self.classes[drawn], of_epoch)
            shown = [state[i] for i in self.averages_at] or weights
            found = {
                name: round(float(self.accuracy(shown, features[rows], self.classes[rows])), 5)
                for name, rows in (("held_out", held_out), ("test", test))
            }
            curve.append({"epoch": epoch + 1, **found})
        return curve

    def _start(self, seed):
        keras.utils.set_random_seed(seed)
        fresh = keras.models.clone_model(self.model)
        weights = [jnp.copy(w.value) for w in fresh.trainable_variables]
        starts = {id(w): value for w, value in zip(self.model.trainable_variables, weights, strict=True)}
        state = [jnp.zeros_like(v.value) for v in self.optimizer.variables]
        if self.averages_at:
            # Slots that start as copies of the weights.
            own = [id(variable) for variable in self.optimizer.variables]
            for name, slots in self.optimizer.averages.slots.items():
                for slot, weight in zip(slots, self.optimizer.averages.variables, strict=True):
                    assert self.optimizer.averages.rule.slots[name].start == "weights"
                    state[own.index(id(slot))] = starts[id(weight)]
        return weights, state

    def _loss(self, weights, x, y):
        logits, _ = self.model.stateless_call(weights, [], x, training=True)
        return jnp.mean(keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True))

    def _epoch(self, weights, state, x, y, rates):
        def update(carry, batch):
            weights, state = carry
            x, y, rate = batch
            state = [rate if i == self.rate_at else value for i, value in enumerate(state)]
            gradients = jax.grad(self._loss)(weights, x, y)
            weights, state = self.optimizer.stateless_apply(state, gradients, weights)
            return (list(weights), list(state)), None

        return jax.lax.scan(update, (weights, state), (x, y, rates))[0]

    def _accuracy(self, weights, x, y):
        logits, _ = self.model.stateless_call(weights, [], x, training=False)
        return jnp.mean(jnp.argmax(logits, axis=1) == y)


if __name__ == "__main__":
    main()
