"""Loading a saved file runs no code beyond what Keras's safe mode lets it."""

import ast
import importlib
import json
import pathlib
import pickle
import sys
import zipfile

import keras
import numpy as np
import pytest

import kerasoptimizers
from generations import GENERATIONS, METHODS, Generation

pytestmark = [pytest.mark.oldest_keras, pytest.mark.sample]

NAMES = [*METHODS, "LARS"]
X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")


@pytest.fixture(params=GENERATIONS)
def kit(request):
    return Generation(request.param)


def optimizer(kit, name):
    rate = kit.SWALearningRate(0.1, 0.01, 10, cycle_updates=2)
    if name == "LARS":
        return kit.LARS(rate)
    return getattr(kit, name)(kit.keras.optimizers.SGD(rate, momentum=0.9))


def saved(kit, its, folder):
    """A file with a trained model, and the model."""
    kit.keras.utils.set_random_seed(0)
    model = kit.keras.Sequential([kit.keras.Input((3,)), kit.keras.layers.Dense(1)])
    model.compile(its, "mse")
    model.fit(X, X[:, :1], batch_size=4, verbose=0)
    model.save(folder / "model.keras")
    return folder / "model.keras", model


def values(optimizer):
    variables = optimizer.variables
    return [np.array(v.numpy()) for v in (variables() if callable(variables) else variables)]


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_loads_in_safe_mode_without_pickle(kit, name, tmp_path, monkeypatch):
    file, model = saved(kit, optimizer(kit, name), tmp_path)

    def refuse(*args, **kwargs):
        raise AssertionError("a pickle was loaded")

    for function in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, function, refuse)
    loaded = kit.keras.models.load_model(file, safe_mode=True)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    for a, b in zip(values(loaded.optimizer), values(model.optimizer), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def cleared(kit):
    """Keras knows no custom objects, nor their names, as after R's set_custom_objects(clear = TRUE)."""
    assert kit.SWA  # registered when it is imported
    registry = importlib.import_module(f"{kit.keras.__name__}.src.saving.object_registration")
    known = [vars(registry)[name] for name in vars(registry) if "GLOBAL_CUSTOM" in name]
    assert len(known) == 2
    before = [dict(names) for names in known]

    def clear():
        for names in known:
            names.clear()

    yield clear
    for names, own in zip(known, before):
        names.clear()
        names.update(own)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_saved_loads_after_custom_objects_were_cleared(kit, cleared, name, tmp_path):
    file, model = saved(kit, optimizer(kit, name), tmp_path)
    cleared()
    importlib.import_module("kerasoptimizers." + kit.name).register()
    for _ in range(2):
        loaded = kit.keras.models.load_model(file)
        assert type(loaded.optimizer) is type(model.optimizer)
        assert loaded.optimizer.get_config() == model.optimizer.get_config()
        for a, b in zip(values(loaded.optimizer), values(model.optimizer), strict=True):
            np.testing.assert_array_equal(a, b)
        # Also what is saved now.
        loaded.save(file)
        with zipfile.ZipFile(file) as archive:
            assert f"kerasoptimizers>{name}" in archive.read("config.json").decode()


def tampered(file, change):
    """The file with another optimizer in its configuration."""
    parts = {}
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            parts[name] = archive.read(name)
    config = json.loads(parts["config.json"])
    change(config["compile_config"]["optimizer"])
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return file


def lambda_of(kit):
    """A lambda as Keras writes it: its code."""
    layer = kit.keras.layers.Lambda(lambda x: open("ran", "w") and x)
    return kit.keras.saving.serialize_keras_object(layer)["config"]["function"]


def lambda_layer(kit):
    return kit.keras.saving.serialize_keras_object(kit.keras.layers.Lambda(lambda x: open("ran", "w")))


def evil(kind):
    name = "Evil" if kind == "class" else "function"
    config = {} if kind == "class" else "run"
    return {"module": "evil", "class_name": name, "config": config, "registered_name": name}


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Whether the code of a file, or of the module `evil` that files name, has run."""
    (tmp_path / "evil.py").write_text(
        "open('ran', 'w')\n"
        "class Evil:\n"
        "    def from_config(config):\n"
        "        open('ran', 'w')\n"
        "def run(*args):\n"
        "    open('ran', 'w')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def has_run():
        sys.modules.pop("evil", None)
        there = (tmp_path / "ran").exists()
        (tmp_path / "ran").unlink(missing_ok=True)
        return there

    has_run()
    return has_run


# Where in the configuration of an optimizer what is put: an inner optimizer, a rate, a rate's rate.
def inner(config):
    return config["config"], "optimizer"


def rate_of_inner(config):
    return config["config"]["optimizer"]["config"], "learning_rate"


def initial_rate(config):
    return rate_of_inner(config)[0]["learning_rate"]["config"], "initial_learning_rate"


def rate(config):
    return config["config"], "learning_rate"


PLACES = {"SWA": [inner, rate_of_inner, initial_rate], "LARS": [rate]}
CASES = [(name, place) for name, places in PLACES.items() for place in places]


def put(place, what):
    def change(config):
        holder, key = place(config)
        holder[key] = what

    return change


def load(kit, file):
    """Load and train: whatever the file holds has the chance to run."""
    model = kit.keras.models.load_model(file)
    model.fit(X, X[:, :1], batch_size=8, verbose=0)


@pytest.mark.parametrize("name, place", CASES)
@pytest.mark.parametrize("make", [lambda_of, lambda_layer])
def test_a_lambda_in_an_optimizer_is_refused(kit, name, place, make, tmp_path, ran):
    file, _ = saved(kit, optimizer(kit, name), tmp_path)
    tampered(file, put(place, make(kit)))
    with pytest.raises((TypeError, ValueError)):
        load(kit, file)
    assert not ran()


@pytest.mark.parametrize("name, place", CASES)
@pytest.mark.parametrize("kind", ["class", "function"])
def test_a_module_that_a_file_names_runs_only_where_keras_itself_runs_it(kit, name, place, kind, tmp_path, ran):
    # The same in an optimizer of Keras: its oldest versions, and Keras 2, import any module.
    file, _ = saved(kit, kit.keras.optimizers.SGD(kit.SWALearningRate(0.1, 0.01, 10)), tmp_path)
    tampered(file, put(rate, evil(kind)))
    with pytest.raises(Exception) as own:
        load(kit, file)
    keras_runs_it = ran()
    assert own.value is not None

    file, _ = saved(kit, optimizer(kit, name), tmp_path)
    tampered(file, put(place, evil(kind)))
    with pytest.raises((TypeError, ValueError)):
        load(kit, file)
    assert ran() <= keras_runs_it


def test_the_newest_keras_imports_no_module_that_a_file_names(tmp_path, ran):
    if tuple(int(part) for part in keras.__version__.split(".")[:2]) < (3, 15):
        pytest.skip("older versions of Keras import any module that a file names")
    file, _ = saved(Generation("keras3"), optimizer(Generation("keras3"), "SWA"), tmp_path)
    for kind in ("class", "function"):
        tampered(file, put(inner, evil(kind)))
        with pytest.raises((TypeError, ValueError), match="`optimizer`"):
            load(Generation("keras3"), file)
        assert not ran()


def test_what_is_no_optimizer_is_refused(kit, tmp_path):
    file, _ = saved(kit, optimizer(kit, "SWA"), tmp_path)
    layer = kit.keras.saving.serialize_keras_object(kit.keras.layers.Dense(1))
    tampered(file, put(inner, layer))
    with pytest.raises((TypeError, ValueError), match="`optimizer` must be a Keras"):
        load(kit, file)


def test_the_module_has_no_means_to_run_what_a_file_holds():
    for file in pathlib.Path(kerasoptimizers.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
                assert not {"pickle", "marshal", "dill", "joblib", "shelve"} & set(names), file
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec"), file
                if called.endswith(("np.load", "numpy.load")):
                    assert "allow_pickle=False" in ast.unparse(node), file
