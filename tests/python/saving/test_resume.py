"""Training that stops, is saved, and goes on in another process, equals training in one go.

Run as a program, this file is the other process: test_resume.py <folder>. It goes on with all cases
of the folder.
"""

import io
import itertools
import json
import pathlib
import sys
import traceback
import zipfile

import h5py
import keras
import numpy as np
import pytest

from generations import GENERATIONS, Generation, assert_same
from kerasoptimizers import assign_average_vars
from processes import run_python

BACKEND = keras.backend.backend()
RANDOM = np.random.default_rng(0)
# 15 updates: 3 epochs of 5 batches of 8. Training stops after 10 of them.
X = RANDOM.normal(1, 2, size=(120, 4)).astype("float32")
Y = X.sum(axis=1, keepdims=True) / 8
UPDATES, STOP, EPOCH, BATCH = 15, 10, 5, 8

# What is averaged when training stops: 2 snapshots; 2 updates of a period of 4; and so on.
METHODS = {
    "SWA": {"start_averaging": 3, "average_period": 4},
    "Lookahead": {"sync_period": 4},
    "ExponentialMovingAverage": {"average_decay": 0.9, "start_step": 2, "update_period": 3},
    "MovingAverage": {"average_decay": 0.9, "dynamic_decay": True},
    "PowerAverage": {"sigma_rel": (0.1, 0.2887), "shown_width": 0.2887},
    "PrimalAveraging": {"eval_interpolation": 0.9},
    "ScheduleFree": {"warmup_steps": 12, "weight_decay_at_y": 0.1},
}
INNER = ["SGD", "Adam", "AdamW", "LARS"]
WAYS = {
    "keras3": ["model", "weights", "values", "backup"],
    "tf_keras": ["model", "h5", "weights", "values", "backup", "checkpoint"],
}
if BACKEND == "tensorflow":
    WAYS["keras3"].append("checkpoint")


def cases(kind):
    """The cases of the other process: "few" or "all", and the same of the callback."""
    generations = GENERATIONS if BACKEND == "tensorflow" else GENERATIONS[:1]
    makers = {
        "few": few,
        "all": product,
        "few of the callback": few_callback_cases,
        "all of the callback": callback_cases,
    }
    found = [{"generation": g, **case} for g in generations for case in makers[kind](g)]
    for case in found:
        # Tracing takes TensorFlow longer than such a short training.
        case["eager"] = BACKEND == "tensorflow" and kind == "few"
        told = [case["generation"], case["method"], case["inner"], case.get("way"), case.get("name")]
        case["id"] = "-".join(str(word) for word in [*told, case["what"]] if word)
    return found


def few(generation):
    def case(method, inner, way, what="", **more):
        return {"method": method, "inner": inner, "way": way, "what": what, **more}

    last = "checkpoint" if "checkpoint" in WAYS[generation] else "weights"
    steps = {"sync_period": 4, "slow_momentum": 0.5, "inner_state": "average"}
    yield case("SWA", "SGD", "model")
    yield case("Lookahead", "SGD", last, "momenta", settings=steps)
    yield case("ExponentialMovingAverage", "AdamW", "values")
    yield case("MovingAverage", "LARS", "backup")
    yield case("ScheduleFree", "Adam", "model")
    yield case("ScheduleFree", "SGD", last, "mixed precision")
    yield case("LARS", None, last)
    if generation == "tf_keras":
        yield case("SWA", "legacy.Adam", "h5")
    if BACKEND != "jax":
        whole = {"average_decay": 0.9, "trainable_weights_only": False}
        yield case("ExponentialMovingAverage", "SGD", "model", "all weights", settings=whole)
    # The rest has nothing of the backend's. PyTorch compiles nothing.
    if BACKEND == "torch":
        yield case("Lookahead", "Adam", "weights")
        yield case("PrimalAveraging", "AdamW", "weights")
        yield case("Lookahead", "SGD", "model", "mixed precision")
        yield case("SWA", "SGD", "weights", "a schedule")
        warming = {"half_life": 5, "warmup_gamma": 2.0, "min_decay": 0.2, "overwrite_period": 3}
        yield case("ExponentialMovingAverage", "SGD", "model", "overwritten", settings=warming)
        late = {"start_averaging": 12, "average_period": 3, "clipnorm": 0.5, "decay": 0.01}
        yield case("SWA", "Adam", last, "before the first snapshot", settings=late)


def product(generation):
    inner = INNER + (["legacy.SGD", "legacy.Adam"] if generation == "tf_keras" else [])
    pairs = [*itertools.product(METHODS, inner), ("LARS", None)]
    for (method, inner), way in itertools.product(pairs, WAYS[generation]):
        yield {"method": method, "inner": inner, "way": way, "what": ""}


def inner_optimizer(kit, name, what):
    make = kit.keras.optimizers
    if name.startswith("legacy."):
        make, name = make.legacy, name.partition(".")[2]
    rate = 0.02
    if what == "a schedule":
        rate = kit.keras.optimizers.schedules.ExponentialDecay(0.02, 3, 0.9)
    if name == "LARS":
        return kit.LARS(1.0)
    return getattr(make, name)(rate, **({"momentum": 0.9} if name == "SGD" else {}))


def build(kit, case):
    """The model before training."""
    kit.keras.utils.set_random_seed(1)
    what, layers = case["what"], kit.keras.layers
    dtypes = {"mixed precision": "mixed_float16", "bfloat16": "bfloat16"}
    kind = {"dtype": dtypes[what]} if what in dtypes else {}
    norm = [layers.BatchNormalization(**kind)] if what in ("all weights", "batch norm", "bfloat16") else []
    model = kit.keras.Sequential(
        [kit.keras.Input((4,)), layers.Dense(6, "tanh", **kind), *norm, layers.Dense(1, **kind)]
    )
    if case["method"] == "LARS":
        optimizer = kit.LARS(0.5)
    else:
        optimizer = inner_optimizer(kit, case["inner"], what)
        if case["method"] is not None:
            settings = case.get("settings", METHODS[case["method"]])
            optimizer = getattr(kit, case["method"])(optimizer, **settings)
    if what == "mixed precision":
        # As Keras does under the policy "mixed_float16" for the whole model.
        scaled = kit.keras.optimizers if kit.name == "keras3" else kit.keras.mixed_precision
        optimizer = scaled.LossScaleOptimizer(optimizer)
    # An object, because Keras 3 can't read "mse" back from every file.
    loss = kit.keras.losses.MeanSquaredError()
    model.compile(optimizer, loss, run_eagerly=case["eager"])
    if what == "all weights":
        optimizer.shadow_copy(model)
    return model


def train(model, first, last):
    for update in range(first, last):
        batch = slice(BATCH * update, BATCH * update + BATCH)
        model.train_on_batch(X[batch], Y[batch])


def fit(model, callbacks, **settings):
    settings = {"epochs": UPDATES // EPOCH, **settings}
    x, y = X[: EPOCH * BATCH], Y[: EPOCH * BATCH]
    return model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=callbacks, **settings)


def optimizer_variables(model):
    variables = model.optimizer.variables
    return list(variables() if callable(variables) else variables)


def state(model):
    """Weights, averages, slots and counts."""
    values = [np.array(v.numpy()) for v in [*model.weights, *optimizer_variables(model)]]
    # Of bfloat16 a file of NumPy's would only hold the bytes.
    return [value.astype("float32") if value.dtype.kind == "V" else value for value in values]


class Stop(Exception):
    pass


def stopper(kit, method, at):
    """A callback that fails at a number: the epoch's, or (epoch, batch)."""

    class Stopper(kit.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch
            self.stop("on_epoch_begin", epoch)

        def on_train_batch_end(self, batch, logs=None):
            self.stop("on_train_batch_end", [self.epoch, batch])

        def on_epoch_end(self, epoch, logs=None):
            self.stop("on_epoch_end", epoch)

        def on_train_end(self, logs=None):
            self.stop("on_train_end", None)

        def stop(self, name, number):
            if (name, number) == (method, at):
                raise Stop

    return Stopper()


def checkpoint_of(model):
    import tensorflow as tf

    return tf.train.Checkpoint(model=model, optimizer=model.optimizer)


PATHS = {"model": "model.keras", "h5": "model.h5"}


def weights_path(kit, folder):
    # Keras 2 keeps the optimizer in TensorFlow's format only.
    return str(folder / ("model.weights.h5" if kit.name == "keras3" else "weights"))


def train_and_save(kit, case, folder):
    model, way = build(kit, case), case["way"]
    if way == "backup":
        backup = kit.keras.callbacks.BackupAndRestore(str(folder / "backup"))
        with pytest.raises(Stop):
            fit(model, [backup, stopper(kit, "on_epoch_begin", STOP // EPOCH)])
        return model
    train(model, 0, STOP)
    if way in PATHS:
        model.save(folder / PATHS[way])
    elif way == "weights":
        model.save_weights(weights_path(kit, folder))
    elif way == "checkpoint":
        checkpoint_of(model).save(str(folder / "checkpoint"))
    else:
        np.savez(folder / "values.npz", *model.get_weights(), *values_of(model.optimizer))
    return model


def values_of(optimizer):
    # Keras 3's own optimizers have no get_weights(); ours and those of Keras 2 have.
    return [np.array(value) for value in optimizer.get_weights()]


def load_and_train(kit, case, folder):
    way = case["way"]
    if way in PATHS:
        model = kit.keras.models.load_model(folder / PATHS[way])
        model.run_eagerly = case["eager"]
        if case["what"] == "all weights":
            model.optimizer.shadow_copy(model)
    else:
        model = build(kit, case)
    if way == "backup":
        fit(model, [kit.keras.callbacks.BackupAndRestore(str(folder / "backup"))])
        return model
    if way not in PATHS:
        model.optimizer.build(model.trainable_variables)
    if way == "weights":
        model.load_weights(weights_path(kit, folder))
    elif way == "checkpoint":
        checkpoint_of(model).restore(str(folder / "checkpoint-1")).assert_consumed()
    elif way == "values":
        with np.load(folder / "values.npz") as file:
            values = [file[name] for name in file.files]
        model.set_weights(values[: len(model.weights)])
        model.optimizer.set_weights(values[len(model.weights) :])
    train(model, STOP, UPDATES)
    return model


# The SWA callback.


def callback_cases(generation):
    def case(what, method, at, first="swa", **settings):
        settings = {"start_epoch": 3, "lr_schedule": "manual", **settings}
        return {
            "what": what,
            "name": f"{first} first, {method}, {at}, {settings['lr_schedule']}",
            "method": None,
            "inner": "Adam",
            "stop": {"method": method, "at": at},
            "first": first,
            "settings": settings,
        }

    constant = {"start_epoch": 4, "lr_schedule": "constant"}
    cyclic = {"lr_schedule": "cyclic", "swa_lr": 0.005, "swa_freq": 2}
    # 6 epochs, the first is number 0. Killed between the two callbacks' writes, in either order.
    yield case("", "on_epoch_end", 3)
    yield case("", "on_epoch_end", 3, "backup")
    yield case("", "on_epoch_end", 0, **constant)
    yield case("", "on_epoch_end", 2, "backup", **constant)
    yield case("", "on_epoch_begin", 4, **constant)
    yield case("batch norm", "on_train_batch_end", [4, 2], **cyclic)
    yield case("batch norm", "on_train_batch_end", [5, 2], "backup", **cyclic)
    # There is no epoch left: before the callback's own end, and between it and that of the backup.
    yield case("batch norm", "on_train_end", None, "stop")
    yield case("batch norm", "on_train_end", None)
    yield case("", "on_train_end", None)
    yield case("bfloat16", "on_train_end", None, "stop")
    # By the user's own hand: `initial_epoch` and a model that was saved.
    yield case("batch norm", "on_epoch_begin", 4, "file", **cyclic)


def few_callback_cases(generation):
    """All of them on PyTorch, which compiles nothing."""
    cases = list(callback_cases(generation))
    return cases if BACKEND == "torch" else [cases[i] for i in (6, 8, 10)]


def callbacks_of(kit, case, folder, stops):
    swa = kit.SWACallback(**case["settings"], backup_dir=folder / "average")
    if case["first"] == "file":
        other = kit.keras.callbacks.ModelCheckpoint(str(folder / "model-{epoch}.keras"))
    else:
        other = kit.keras.callbacks.BackupAndRestore(str(folder / "backup"))
    stop = [stopper(kit, **case["stop"])] if stops else []
    if case["first"] == "stop":
        return swa, [*stop, swa, other]
    return swa, ([other, *stop, swa] if case["first"] == "backup" else [swa, *stop, other])


def callback_result(model, swa):
    rates = [] if swa.lr_schedule == "manual" else swa.lr_record
    return [*state(model), *swa.swa_weights, np.array(swa.snapshots), np.array(rates)]


def in_one_go(kit, case, folder):
    swa, callbacks = callbacks_of(kit, case, folder, False)
    model = build(kit, case)
    fit(model, callbacks, epochs=6)
    assert not (folder / "average").exists()
    return callback_result(model, swa)


def go_on(kit, case, folder):
    swa, callbacks = callbacks_of(kit, case, folder, False)
    if case["first"] == "file":
        model = kit.keras.models.load_model(folder / "model-4.keras")
        model.run_eagerly = case["eager"]
        fit(model, callbacks, epochs=6, initial_epoch=4)
    else:
        model = build(kit, case)
        fit(model, callbacks, epochs=6)
    return callback_result(model, swa)


# A model that is saved while weights and averages are swapped.


@pytest.fixture(params=GENERATIONS)
def kit(request):
    return Generation(request.param)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_model_saved_while_swapped_loads_swapped_and_swaps_back(kit, dtype, tmp_path):
    layers = kit.keras.layers
    # Keras 2 can't read bfloat16 weights back from a file.
    kind = {"dtype": dtype} if kit.name == "keras3" else {}
    model = kit.keras.Sequential([kit.keras.Input((4,)), layers.Dense(3, **kind), layers.Dense(1)])
    model.compile(kit.SWA("sgd", average_period=3), kit.keras.losses.MeanSquaredError())
    train(model, 0, 10)
    before = state(model)
    model.optimizer.swap_weights()
    swapped = state(model)
    model.save(tmp_path / "swapped.keras")
    loaded = kit.keras.models.load_model(tmp_path / "swapped.keras")
    assert_same(state(loaded), swapped)
    with pytest.raises(ValueError, match="swapped into the model"):
        loaded.optimizer.assign_average_vars(loaded.trainable_variables)
    loaded.optimizer.swap_weights()
    assert_same(state(loaded), before)
    # A file that is not swapped ends it, also in an optimizer that is.
    model.optimizer.swap_weights()
    model.save_weights(tmp_path / "own.weights.h5")
    model.optimizer.swap_weights()
    if kit.name == "keras3":
        model.load_weights(tmp_path / "own.weights.h5")
        assert_same(state(model), before)
        model.optimizer.swap_weights()
        assert_same(state(model), swapped)


@pytest.mark.skipif(BACKEND == "jax", reason="on JAX only trainable weights can be averaged")
def test_averages_of_all_weights_wait_for_a_loaded_model_and_are_not_lost(kit, tmp_path):
    layers = kit.keras.layers
    model = kit.keras.Sequential([kit.keras.Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(1)])
    optimizer = kit.ExponentialMovingAverage("sgd", average_decay=0.9, trainable_weights_only=False)
    model.compile(optimizer, kit.keras.losses.MeanSquaredError())
    optimizer.shadow_copy(model)
    train(model, 0, 10)
    path, again = tmp_path / "model.keras", tmp_path / "again.keras"
    model.save(path)
    own, both = state(model), model.weights
    expected = [np.array(optimizer.get_slot(v, "average").numpy()) for v in both]
    assert not any(np.array_equal(a, v.numpy()) for a, v in zip(expected, both, strict=True))

    loaded = kit.keras.models.load_model(path)
    assert not loaded.optimizer.has_shadow_copy and not loaded.optimizer.has_average
    for call in (lambda: loaded.optimizer.assign_average_vars(loaded.variables), loaded.optimizer.swap_weights):
        with pytest.raises(ValueError, match="needs the averages of the file that was loaded, .*shadow_copy"):
            call()
    # Who saves it now saves what waits, too.
    loaded.save(again)
    # A function that is given the model needs nothing.
    for file in (path, again):
        loaded = kit.keras.models.load_model(file)
        assign_average_vars(loaded)
        assert loaded.optimizer.has_shadow_copy
        assert_same([v.numpy() for v in loaded.weights], expected)
    loaded = kit.keras.models.load_model(again)
    loaded.optimizer.shadow_copy(loaded)
    assert_same(state(loaded), own)


# What a file holds.


def test_files_hold_each_variable_once(runs):
    """Whatever was saved for the other process: no variable is missing, and none is there twice."""
    run = runs("few")
    counted = 0
    for case in run.cases.values():
        where = run.folder / case["number"]
        if "mixed precision" in case["id"]:
            continue  # Keras's LossScaleOptimizer writes the variables of the one in it twice.
        if case["way"] == "model":
            with zipfile.ZipFile(where / "model.keras") as archive:
                file = io.BytesIO(archive.read("model.weights.h5"))
        elif case["way"] == "weights" and case["generation"] == "keras3":
            file = where / "model.weights.h5"
        else:
            continue
        found = []
        with h5py.File(file) as opened:
            # Ends at the first result that is not None.
            opened.visititems(lambda *entry, found=found: found.append(entry))
        found = [
            name
            for name, item in found
            # Keras 2 also writes the metrics.
            if isinstance(item, h5py.Dataset) and not name.startswith("metrics/")
        ]
        expected = run.expected[case["id"]]
        assert len(found) == len(expected), (case["id"], found)
        counted += 1
    assert counted >= 3


# The two processes.


def other_process(folder):
    for case in json.loads((folder / "cases.json").read_text()):
        kit, where = Generation(case["generation"]), folder / case["number"]
        # Keras reads classes from files that were imported.
        assert kit.SWA
        try:
            if "stop" in case:
                result = go_on(kit, case, where)
            else:
                result = state(load_and_train(kit, case, where))
            np.savez(where / "result.npz", *result)
        except Exception:
            (where / "error.txt").write_text(traceback.format_exc())


class Runs:
    """Cases that were trained and saved here, and went on in one other process."""

    def __init__(self, folder, kind):
        self.folder = folder
        self.cases = {}
        self.expected = {}
        for number, case in enumerate(cases(kind)):
            where = folder / str(number)
            where.mkdir()
            case["number"] = str(number)
            self.cases[case["id"]] = case
            kit = Generation(case["generation"])
            if "stop" in case:
                one = folder / f"{number}-in-one-go"
                one.mkdir()
                self.expected[case["id"]] = in_one_go(kit, case, one)
                with pytest.raises(Stop):
                    fit(build(kit, case), callbacks_of(kit, case, where, True)[1], epochs=6)
                continue
            model = build(kit, case)
            if case["way"] == "backup":
                fit(model, [])
            else:
                train(model, 0, UPDATES)
            self.expected[case["id"]] = state(model)
            train_and_save(kit, case, where)
        (folder / "cases.json").write_text(json.dumps(list(self.cases.values())))
        run = run_python(__file__, folder, KERAS_BACKEND=BACKEND)
        self.output = run.stdout + run.stderr

    def assert_equal(self, name):
        where = self.folder / self.cases[name]["number"]
        path, error = where / "result.npz", where / "error.txt"
        assert path.exists(), error.read_text() if error.exists() else self.output[-3000:]
        with np.load(path) as file:
            found = [file[key] for key in file.files]
        for a, b in zip(found, self.expected[name], strict=True):
            if BACKEND == "jax":
                np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)
            else:
                np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = Runs(tmp_path_factory.mktemp(kind), kind)
        return made[kind]

    return get


def names(kind):
    return [case["id"] for case in cases(kind)]


@pytest.mark.parametrize("name", names("few"))
def test_training_goes_on_in_another_process(runs, name):
    runs("few").assert_equal(name)


@pytest.mark.parametrize("name", names("few of the callback"))
def test_the_callback_goes_on_in_another_process_with_its_average(runs, name):
    assert_the_callback_equal(runs("few of the callback"), name)


@pytest.mark.long
@pytest.mark.parametrize("name", names("all of the callback"))
def test_the_callback_goes_on_wherever_it_was_stopped(runs, name):
    assert_the_callback_equal(runs("all of the callback"), name)


def assert_the_callback_equal(run, name):
    # Rates of the epochs that were trained twice, or in the other process alone.
    path = run.folder / run.cases[name]["number"] / "result.npz"
    if path.exists():
        with np.load(path) as file:
            *_, last = file.files
            rates = len(file[last])
        run.expected[name][-1] = run.expected[name][-1][-rates or None :][:rates]
    run.assert_equal(name)


@pytest.mark.long
@pytest.mark.parametrize("name", names("all"))
def test_training_goes_on_in_another_process_whatever_it_was(runs, name):
    runs("all").assert_equal(name)


if __name__ == "__main__":
    other_process(pathlib.Path(sys.argv[1]))
