#!/usr/bin/env python3
"""What averaging brings, measured: `make effects`, or `python benchmarks/effects.py [--quick] [--out FOLDER]`.

Every method trains the same small networks on five data sets: LetterRecognition, Satellite, Vowel and BostonHousing of
the R package mlbench, and the digits of scikit-learn. A split takes 60 % of the data to train on, 20 % to choose the
learning rate by and 20 % to test with; there are five splits of the letters and ten of each of the others. Each method
is trained with a constant rate, with a rate that falls to 0 along a cosine and, where there are classes, twice more
with 20 % of the labels replaced by wrong ones (of the data to train on and to choose by, not of the test data).

Within a split all methods have the same data, the same start, the same batches in the same order and the same number of
epochs. Each method tries five learning rates, each twice the one before, around one that is usual for it. The rate with
the best mean accuracy (or RMSE) on the held-out parts is taken; if that is the lowest or the highest one tried,
one more is tried beyond it.

Every training is a row of trainings.csv in the folder of the results, written as soon as it is done. A rerun trains
only what is not there. Then effects_report.py makes tables of it. A full run takes about 60 minutes of CPU time.

An epoch is one compiled loop over its updates, given to Keras's fit() as one step: otherwise the work of fit() between
such small updates would take most of the time. The callbacks are called as in any fit().
"""

import argparse
import contextlib
import functools
import itertools
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import effects_report as report
import numpy as np

HERE = Path(__file__).resolve().parent

#: Data set -> units of the two hidden layers, examples in a batch, epochs, splits; and whether it has batch norm.
DATA = {
    "LetterRecognition": (128, 128, 24, 5, False),
    "Satellite": (128, 64, 40, 10, False),
    "digits": (64, 32, 40, 10, True),
    "Vowel": (64, 32, 60, 10, False),
    "BostonHousing": (64, 32, 100, 10, False),
}
#: Column with the outcome of the sets of mlbench.
OUTCOMES = {"LetterRecognition": "lettr", "Satellite": "classes", "Vowel": "Class", "BostonHousing": "medv"}
#: The middle one of the rates that plain SGD tries. Regressions want lower ones.
MIDDLE = {"LetterRecognition": 0.1, "Satellite": 0.05, "digits": 0.05, "Vowel": 0.05, "BostonHousing": 0.01}
TRIES = (0.25, 0.5, 1, 2, 4)


class Plan:
    """How one data set is trained on, and the moments at which methods act.

    Attributes:
        total: int, updates of a whole training.
        third: int, the first update of the last third of the epochs.
    """

    def __init__(self, data, quick=False, most_splits=None):
        self.units, self.batch, epochs, splits, self.batch_norm = DATA[data]
        self.epochs, self.splits = (epochs // 2, 2) if quick else (epochs, splits)
        self.splits = min(self.splits, most_splits or self.splits)
        self.rates = [MIDDLE[data] * times for times in (TRIES[1:4] if quick else TRIES)]
        self.last_epochs = self.epochs - self.epochs // 3

    def count(self, examples):
        self.updates = examples // self.batch
        self.total = self.epochs * self.updates
        self.third = self.last_epochs * self.updates


# ---- The methods. Each has an optimizer, and what is done around fit() with it.


def sgd(plan):
    import keras

    return keras.optimizers.SGD(0.1, momentum=0.9)


def swa(plan):
    from kerasoptimizers import SWA

    return SWA(sgd(plan), start_averaging=plan.third, average_period=10)


def ema(plan):
    from kerasoptimizers import ExponentialMovingAverage

    return ExponentialMovingAverage(sgd(plan), average_decay=0.999)


def lookahead(plan):
    from kerasoptimizers import Lookahead

    return Lookahead(sgd(plan), sync_period=6, slow_step_size=0.5)


def lars(plan):
    from kerasoptimizers import LARS

    return LARS(1.0, momentum=0.9, exclude_from_weight_decay=["bias", "gamma", "beta"])


def schedule_free(plan):
    import keras

    from kerasoptimizers import ScheduleFree

    return ScheduleFree(keras.optimizers.SGD(1.0), warmup_steps=plan.total // 20)


def primal_averaging(plan):
    from kerasoptimizers import PrimalAveraging

    return PrimalAveraging(sgd(plan))


def power_average(plan):
    from kerasoptimizers import PowerAverage

    return PowerAverage(sgd(plan))


#: Method -> its optimizer, and what the rates that plain SGD tries are multiplied by. LARS needs larger ones because it
#: multiplies them by eeta, 0.001, and Schedule-Free because its authors advise 10 to 50 times those of SGD.
METHODS = {
    "plain SGD": (sgd, 1),
    "SWA": (swa, 1),
    "EMA": (ema, 1),
    "Lookahead": (lookahead, 1),
    "LARS": (lars, 20),
    "SWA callback": (sgd, 1),
    "Schedule-Free": (schedule_free, 20),
    "primal averaging": (primal_averaging, 1),
    "power average": (power_average, 1),
    "LAWA": (sgd, 1),
    "SWAG": (sgd, 1),
    # One training for each rate, from the same start, and one model of them.
    "greedy soup": (sgd, 1),
}
SETTINGS = ("constant", "cosine", "wrong labels", "wrong labels, cosine")


# ---- Data


def read(folder):
    """All data sets, by name: (features, outcomes). They are read once, and kept in the folder of the results."""
    path = folder / "data.npz"
    if not path.exists():
        found = {}
        for name, column in OUTCOMES.items():
            found[f"{name} x"], found[f"{name} y"] = _from_r(name, column)
        # In a process of its own: what it imports is not needed here.
        script = (
            "import sys, numpy as np; from sklearn.datasets import load_digits; "
            "x, y = load_digits(return_X_y=True); np.savez(sys.argv[1], x=x, y=y)"
        )
        with tempfile.TemporaryDirectory() as temporary:
            digits = Path(temporary) / "digits.npz"
            if subprocess.run([sys.executable, "-c", script, digits]).returncode:
                sys.exit("effects: the digits need scikit-learn (requirements/effects.txt).")
            with np.load(digits) as arrays:
                found["digits x"], found["digits y"] = arrays["x"].astype("float32"), arrays["y"].astype("int32")
        unfinished = path.with_suffix(".tmp.npz")
        np.savez_compressed(unfinished, **found)
        os.replace(unfinished, path)
    with np.load(path) as arrays:
        return {name: (arrays[f"{name} x"], arrays[f"{name} y"]) for name in DATA}


def _from_r(name, column):
    """A data set of mlbench; factors count from 0."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        script = (
            f'data("{name}", package = "mlbench"); d <- {name}; classes <- is.factor(d[["{column}"]]); '
            "d[] <- lapply(d, function(x) if (is.factor(x)) as.integer(x) - 1L else as.numeric(x)); "
            f'write.csv(cbind(d[names(d) != "{column}"], outcome = d[["{column}"]]), "{path}", row.names = FALSE)'
        )
        if subprocess.run(["Rscript", "-e", script], stdout=subprocess.DEVNULL).returncode:
            sys.exit("effects: the data need R and its package mlbench (Debian: r-cran-mlbench).")
        table = np.loadtxt(path, delimiter=",", skiprows=1)
    y = table[:, -1].astype("float32" if name == "BostonHousing" else "int32")
    return table[:, :-1].astype("float32"), y


class Split:
    """The data of one split: `x_train`, `y_train`, `x_held`, `y_held`, `x_test`, `y_test`.

    Features are standardized by the training part, and so are the outcomes of a regression: `spread` is what turns them
    back into the unit of the data (None where there are classes).
    """

    def __init__(self, features, outcomes, number, wrong_labels):
        random = np.random.default_rng(number)
        order = random.permutation(len(outcomes))
        train, held, test = np.split(order, [int(0.6 * len(order)), int(0.8 * len(order))])
        center, spread = features[train].mean(0), features[train].std(0)
        x = (features - center) / np.where(spread > 0, spread, 1)
        self.spread, y = None, outcomes
        if outcomes.dtype.kind == "f":
            self.spread = float(outcomes[train].std())
            y = (outcomes - outcomes[train].mean()) / self.spread
        if wrong_labels:
            y = y.copy()
            known = np.concatenate([train, held])
            wrong = random.permutation(known)[: len(known) // 5]
            classes = int(y.max()) + 1
            y[wrong] = (y[wrong] + random.integers(1, classes, len(wrong))) % classes
        self.x_train, self.x_held, self.x_test = x[train], x[held], x[test]
        self.y_train, self.y_held, self.y_test = y[train], y[held], y[test]


# ---- Training


@functools.cache
def kit():
    """What needs Keras: the class of models, the function that makes one, and what predicts. For JAX."""
    import jax
    import jax.numpy as jnp
    import keras

    class Falling(keras.layers.Layer):
        """Passes its inputs on, and holds 1 where the learning rate falls along a cosine, 0 where it is constant."""

        def build(self, shape):
            self.falls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="falls")

        def call(self, x):
            return x

    class Model(keras.Sequential):
        """A model for which a whole epoch is one step: it is given all examples, shuffled by fit()."""

        def prepare(self, plan):
            self.plan, own = plan, self.optimizer.variables
            self.rate_at = [id(v) for v in own].index(id(self.optimizer.learning_rate))
            self.count_at = [id(v) for v in own].index(id(self.optimizer.iterations))
            self.falls_at = [id(v) for v in self.non_trainable_variables].index(id(self.layers[0].falls))

        def train_step(self, state, data):
            plan, one_update = self.plan, super().train_step
            batches = [a[: plan.updates * plan.batch].reshape(plan.updates, plan.batch, *a.shape[1:]) for a in data[:2]]
            rate, falls = state[2][self.rate_at], state[1][self.falls_at]

            def with_rate(state, rate):
                return (*state[:2], [rate if i == self.rate_at else v for i, v in enumerate(state[2])], state[3])

            def update(state, batch):
                part = state[2][self.count_at] / plan.total
                factor = 1 - falls + falls * 0.5 * (1 + jnp.cos(jnp.pi * part))
                _, state = one_update(with_rate(state, rate * factor.astype(rate.dtype)), batch)
                return tuple(map(list, state)), None

            state, _ = jax.lax.scan(update, tuple(map(list, state)), tuple(batches))
            return {}, with_rate(state, rate)

    def network(plan, features, outputs):
        layers = [keras.Input((features,)), Falling()]
        for _ in range(2):
            layers += [keras.layers.Dense(plan.units, use_bias=not plan.batch_norm)]
            layers += [keras.layers.BatchNormalization()] if plan.batch_norm else []
            layers += [keras.layers.Activation("relu")]
        return Model([*layers, keras.layers.Dense(outputs, activation="softmax" if outputs > 1 else None)])

    return Model, network


class Trainer:
    """Trains one model with one optimizer again and again, from any start: it is compiled once."""

    def __init__(self, model, plan, make):
        self.model, self.optimizer = model, make(plan)
        classes = model.output_shape[-1] > 1
        self.model.compile(self.optimizer, "sparse_categorical_crossentropy" if classes else "mse")
        self.optimizer.build(self.model.trainable_variables)
        self.fresh = [np.array(v) for v in self.optimizer.variables]
        self.model.prepare(plan)
        self.plan = plan

    def reset(self, start, rate, falls):
        """The state before the first update.

        Args:
            start: list of arrays, the model's weights.
            rate: float, the learning rate.
            falls: bool, whether the rate falls along a cosine.
        """
        self.model.set_weights(start)
        self.model.layers[0].falls.assign(float(falls))
        for variable, value in zip(self.optimizer.variables, self.fresh):
            variable.assign(value)
        averages = getattr(self.optimizer, "averages", None)
        if averages is not None:
            # Slots that begin as copies of the weights.
            for name, slot in averages.rule.slots.items():
                for variable, weight in zip(averages.slots[name], averages.variables):
                    if slot.start == "weights":
                        variable.assign(np.array(weight))
        self.optimizer.learning_rate = rate

    def fit(self, split, seed, callbacks=()):
        import keras

        keras.utils.set_random_seed(seed)
        everything = {"batch_size": len(split.x_train), "epochs": self.plan.epochs, "shuffle": True, "verbose": 0}
        self.model.fit(split.x_train, split.y_train, callbacks=list(callbacks), **everything)
        if not all(np.isfinite(weights).all() for weights in self.model.get_weights()):
            raise FloatingPointError("the training has diverged")


class Workbench:
    """The trainers of one data set, made when they are first needed.

    Args:
        data: name of the data set.
        features, outcomes: its arrays.
        quick: bool.
    """

    def __init__(self, data, features, outcomes, quick):
        self.features, self.outcomes = features, outcomes
        self.plan = Plan(data, quick)
        self.plan.count(int(0.6 * len(outcomes)))
        self.outputs = 1 if outcomes.dtype.kind == "f" else int(outcomes.max()) + 1
        self.trainers, self.starts, self.known = {}, {}, set()
        self.predicts = None

    def trainer(self, make):
        if make not in self.trainers:
            self.trainers[make] = Trainer(self.network(), self.plan, make)
        return self.trainers[make]

    def network(self):
        return kit()[1](self.plan, self.features.shape[1], self.outputs)

    def start(self, seed):
        """The weights that all methods of a split begin with."""
        import keras

        if seed not in self.starts:
            keras.utils.set_random_seed(seed)
            self.starts[seed] = self.network().get_weights()
        return self.starts[seed]

    def predict(self, model, x):
        """Probabilities, or numbers in a column."""
        import jax

        if self.predicts is None:

            def outputs(trainable, others, x):
                return model.stateless_call(trainable, others, x, training=False)[0]

            self.predicts = jax.jit(outputs)
        values = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
        return np.asarray(self.predicts(*values, x))

    def held_out(self, split, outputs):
        """What rates are chosen by, the higher the better."""
        from kerasoptimizers import measures

        if split.spread is None:
            return measures.accuracy(split.y_held, outputs)
        return -split.spread * float(np.sqrt(((outputs.mean(0)[:, 0] - split.y_held) ** 2).mean()))

    def train(self, method, split, rate, seed, falls):
        """The results of one training: a dict."""
        if method not in self.known:
            # Once without a clock: what it needs is compiled then.
            self.known.add(method)
            self.train(method, split, rate, seed, falls)
        with warnings.catch_warnings():
            # Said to users once, about weights that are still to be assigned and the momentum of Schedule-Free.
            warnings.simplefilter("ignore")
            trainer = self.trainer(METHODS[method][0])
            trainer.reset(self.start(seed), rate, falls)
            began = time.process_time()
            try:
                predicted = self.run(method, trainer, split, rate, seed, falls)
            except FloatingPointError:
                nothing = dict.fromkeys(("score", "nll", "ece"), float("nan"))
                return {"seconds": time.process_time() - began, "held_out": -float("inf"), **nothing}
            # Waits for what is computed yet.
            trainer.model.get_weights()
            seconds = time.process_time() - began
            return {"seconds": seconds, **self.measured(split, predicted(split.x_held), predicted(split.x_test))}

    def run(self, method, trainer, split, rate, seed, falls):
        """Train; what comes back gives predictions for inputs, with one axis more in front: samples."""
        import kerasoptimizers as ours

        plan, model, optimizer = self.plan, trainer.model, trainer.optimizer

        def predicted(x):
            return self.predict(model, x)[None]

        def score(model):
            found = self.predict(model, split.x_held)[None]
            return self.held_out(split, found) if np.isfinite(found).all() else float("nan")

        callbacks, data = [], split.x_train if plan.batch_norm else None
        size = {"data": data, "batch_size": len(split.x_train)}
        if method == "SWA callback":
            # It lowers a constant rate to a tenth by itself.
            schedule = "manual" if falls else "constant"
            callbacks = [ours.SWACallback(plan.last_epochs + 1, schedule, **size)]
        elif method == "LAWA":
            callbacks = [ours.LatestAverage(10, **size)]
        elif method == "SWAG":
            callbacks = [ours.SWAG(plan.last_epochs + 1)]
        if method == "power average":
            with tempfile.TemporaryDirectory() as folder:
                # One step of fit() is an epoch here.
                trainer.fit(split, seed, [ours.AverageSnapshots(folder, every=max(1, plan.epochs // 10))])
                scores = ours.posthoc_scores(model, folder, score, **size)
                best = scores["sigma_rel"][int(np.argmax(scores["score"]))]
                ours.posthoc_average(model, folder, best, **size)
            return predicted
        if method == "greedy soup":
            models = []
            for tried in plan.rates:
                trainer.reset(self.start(seed), tried, falls)
                with contextlib.suppress(FloatingPointError):
                    trainer.fit(split, seed)
                models.append(self.network())
                models[-1].set_weights(model.get_weights())
            ours.greedy_soup(models, score, into=model, **size)
            return predicted
        trainer.fit(split, seed, callbacks)
        if method == "SWAG":
            given = {"samples": 30, "seed": seed, "verbose": 0, **size}
            return lambda x: ours.predict_samples(model, callbacks[0], x, **given)
        if hasattr(optimizer, "averages"):
            optimizer.assign_average_vars(model.trainable_variables)
            if plan.batch_norm:
                ours.update_batch_norm(model, data, len(data), verbose=0)
        return predicted

    def measured(self, split, held, test):
        from kerasoptimizers import measures

        found = {"held_out": self.held_out(split, held)}
        if split.spread is None:
            score, nll, ece = (f(split.y_test, test) for f in (measures.accuracy, measures.nll, measures.ece))
            return {**found, "score": score, "nll": nll, "ece": ece}
        # A Gaussian around the prediction, whose variance comes from the held-out part; in the unit of the data.
        noise = measures.noise_variance(split.y_held, held)
        error = float(np.sqrt(((test.mean(0)[:, 0] - split.y_test) ** 2).mean()))
        nll = measures.gaussian_nll(split.y_test, test, max(noise, 1e-4)) + np.log(split.spread)
        return {**found, "score": error * split.spread, "nll": nll, "ece": float("nan")}


# ---- All of it, by two processes


def jobs(plans, quick, done, extra):
    """What is not yet trained: a list of (data, setting, split, [(method, rate)]), as one process does them in a row.

    Args:
        plans: dict, the `Plan` of each data set.
        quick: bool.
        done: set of keys of rows.
        extra: dict, (data, setting, method) -> rates to try beyond those of everyone.
    """
    found = []
    for name, plan in plans.items():
        for setting in SETTINGS[:2] if quick or name == "BostonHousing" else SETTINGS:
            pairs = []
            # All methods take turns, so that other load of the machine falls on all of them.
            for place, rate in enumerate(plan.rates):
                for method, (_, times) in METHODS.items():
                    if method not in report.UNTUNED or place == len(plan.rates) // 2:
                        pairs.append((method, rate * times))
            for method in METHODS:
                pairs += [(method, rate) for rate in extra.get((name, setting, method), ())]
            for split in range(plan.splits):
                # Those to try beyond may be among the others, if an earlier run had fewer splits.
                wanted = {report.key(name, setting, split, *pair): pair for pair in pairs}
                wanted = [pair for key, pair in wanted.items() if key not in done]
                if wanted:
                    found.append((name, setting, split, wanted))
    # A run that is stopped has something of everything: split by split, and last what takes longest.
    return sorted(found, key=lambda job: (job[1] == SETTINGS[-1], job[0] == "LetterRecognition", job[2]))


_bench: dict = {}


def work(folder, file, quick, job):
    """Do one job in a process of its own; each row is written when it is there."""
    name, setting, split, pairs = job
    if name not in _bench:
        _bench[name] = Workbench(name, *read(folder)[name], quick)
    bench = _bench[name]
    parts = Split(bench.features, bench.outcomes, split, setting.startswith("wrong"))
    for method, rate in pairs:
        found = bench.train(method, parts, rate, split, setting.endswith("cosine"))
        report.append(file, {"data": name, "setting": setting, "split": split, "method": method, "rate": rate, **found})
    return len(pairs)


def run(folder, plans, quick, processes):
    file, began, finished = folder / "trainings.csv", time.monotonic(), 0
    # A process for each core, and no more threads; niced, for it takes long.
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    os.environ.update(threads | {"TF_CPP_MIN_LOG_LEVEL": "3"})
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    with contextlib.suppress(OSError):
        os.nice(max(0, 10 - os.nice(0)))
    read(folder)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for number in itertools.count():
            rows = report.trainings(file)
            extra = report.beyond(rows, {name: plan.splits for name, plan in plans.items()})
            todo = jobs(plans, quick, {report.key_of(row) for row in rows}, extra)
            left = sum(len(pairs) for *_, pairs in todo)
            if not left:
                break
            count = finished + left
            what = "trainings" if number == 0 else "trainings with rates beyond those at an end"
            print(f"round {number + 1}: {left} {what}", file=sys.stderr, flush=True)
            for done in pool.imap_unordered(functools.partial(work, folder, file, quick), todo):
                finished += done
                minutes = (time.monotonic() - began) / 60
                rest = minutes / finished * (count - finished)
                line = f"{finished} of {count} trainings, {minutes:.0f} minutes, {rest:.0f} to go in this round"
                print(line, file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two splits, half of the epochs, three rates: minutes")
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--splits", type=int, help="no more than so many; a later run can add the others")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--table", action="store_true", help="train nothing: the tables of what is there")
    options = parser.parse_args()
    folder = options.out or HERE / "results" / ("effects-quick" if options.quick else "effects")
    folder.mkdir(parents=True, exist_ok=True)
    if not options.table:
        plans = {name: Plan(name, options.quick, options.splits) for name in options.data}
        run(folder, plans, options.quick, options.processes)
    rows = report.trainings(folder / "trainings.csv")
    if not report.write(rows, folder):
        return
    subprocess.run(["Rscript", HERE / "effects.R", folder / "summary.csv", folder / "effects.png"])
    if not options.quick and not options.out:
        shutil.copyfile(folder / "chosen.csv", HERE / "effects.csv")
        shutil.copyfile(folder / "summary.csv", HERE.parent / "vignettes" / "source" / "which-averaging.csv")
    print(f"\nThe same in {folder / 'effects.md'}, as a picture in {folder / 'effects.png'}.")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent / "inst" / "python"))
    paths = [str(HERE.parent / "inst" / "python"), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    main()
