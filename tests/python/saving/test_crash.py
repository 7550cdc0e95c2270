"""Training that is killed, and saving that is stopped: what is on disk loads, and is what its name says."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import killed_training
from generations import GENERATIONS, Generation
from processes import environment


def arrays(variables):
    return [np.array(v.numpy()) for v in variables]


def averages(model):
    return arrays(model.optimizer.get_slot(v, "average") for v in model.trainable_variables)


def key(values):
    return b"".join(value.tobytes() for value in values)


def reference(generation):
    """Of every update: the number, by the weights and by the averages after it."""

    class Recorder(generation.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            model = self.model
            if hasattr(model, "jax_state_sync"):
                model.jax_state_sync()
            for name, values in (
                ("weights", arrays(model.trainable_variables)),
                ("averages", averages(model)),
            ):
                updates[name][key(values)] = int(model.optimizer.iterations)

    updates = {"weights": {}, "averages": {}}
    killed_training.fit(killed_training.compiled_model(generation), [Recorder()])
    count = killed_training.EPOCHS * killed_training.BATCHES
    # No two are the same, or a file could be either.
    assert len({**updates["weights"], **updates["averages"]}) == 2 * count
    return updates


def kill_while_it_saves(generation, folder, seconds):
    """Start a training, and kill it some time after it has saved averages for the first time."""
    command = [sys.executable, killed_training.__file__, generation.name, str(folder)]
    with open(folder.with_suffix(".log"), "w") as log:
        training = subprocess.Popen(command, env=environment(), stdout=log, stderr=subprocess.STDOUT)
    try:
        while not list(folder.glob("averages-*")) and training.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)
        # It has not come to its end by itself.
        assert training.poll() is None, folder.with_suffix(".log").read_text()[-2000:]
    finally:
        training.send_signal(signal.SIGKILL)
        training.wait()


def loaded(generation, path):
    if path.name.endswith(".keras"):
        return generation.keras.models.load_model(path)
    model = killed_training.compiled_model(generation)
    model.load_weights(path)
    return model


def check(generation, path, updates):
    """That a file holds what its name says, of one and the same update."""
    model = loaded(generation, path)
    kind = path.name.partition("-")[0]
    found = updates[kind].get(key(arrays(model.trainable_variables)))
    assert found is not None, f"{path.name} holds no {kind}"
    if "epoch" in path.name:
        assert found == int(path.name.split("-")[2].partition(".")[0]) * killed_training.BATCHES
    if path.name.endswith(".keras"):
        assert int(model.optimizer.iterations) == found
        assert updates["averages"][key(averages(model))] == found


@pytest.mark.parametrize(
    "generation, kills",
    [("keras3", 1), ("tf_keras", 1)] + [pytest.param(name, 12, marks=pytest.mark.long) for name in GENERATIONS],
)
def test_checkpoints_of_a_killed_training_are_what_their_names_say(generation, kills, tmp_path):
    generation = Generation(generation)
    updates = reference(generation)
    for kill in range(kills):
        folder = tmp_path / str(kill)
        folder.mkdir()
        kill_while_it_saves(generation, folder, random.uniform(0.0, 1.0))
        files = sorted(folder.glob("[!.]*"), key=lambda path: path.stat().st_mtime_ns)
        keras_own = [path for path in files if path.name.startswith("weights-")]
        for path in files:
            # Keras writes in place: the file that its own callback wrote last may be torn.
            if path != keras_own[-1]:
                check(generation, path, updates)
        assert any(path.name.startswith("averages-") for path in files)
        partial = [path.name for path in folder.glob(".*")]
        assert all(name.startswith(".part-") for name in partial) and len(partial) < 2


@pytest.mark.parametrize("name", ["last.keras", "last.h5", "last.weights.h5"])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_save_that_is_stopped_leaves_the_file_before(generation, name, tmp_path):
    generation = Generation(generation)
    model = killed_training.compiled_model(generation)
    x, y = killed_training.data()
    model.train_on_batch(x, y)
    weights_only = ".weights." in name
    checkpoint = generation.AverageModelCheckpoint(False, str(tmp_path / name), save_weights_only=weights_only)
    checkpoint.set_model(model)
    checkpoint.on_epoch_end(0, {})
    before = (tmp_path / name).read_bytes()
    model.train_on_batch(x, y)
    weights = arrays(model.trainable_variables)

    method = "save_weights" if weights_only else "save"
    save = getattr(model, method)

    def stopped(path, *args, **kwargs):
        save(path, *args, **kwargs)
        os.truncate(path, 1000)
        raise KeyboardInterrupt

    vars(model)[method] = stopped
    with pytest.raises(KeyboardInterrupt):
        checkpoint.on_epoch_end(1, {})
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before
    for actual, expected in zip(arrays(model.trainable_variables), weights, strict=True):
        np.testing.assert_array_equal(actual, expected)
    # The model's own methods are as they were.
    assert vars(model)[method] is stopped
    del vars(model)[method]
    checkpoint.on_epoch_end(2, {})
    assert "save" not in vars(model) and "save_weights" not in vars(model)
    assert (tmp_path / name).read_bytes() != before


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_checkpoint_follows_links_and_keeps_folders(generation, tmp_path):
    generation = Generation(generation)
    model = killed_training.compiled_model(generation)
    model.train_on_batch(*killed_training.data())
    (tmp_path / "there").mkdir()
    pathlib.Path(tmp_path / "link.keras").symlink_to(tmp_path / "there" / "model.keras")
    checkpoint = generation.AverageModelCheckpoint(False, str(tmp_path / "link.keras"))
    checkpoint.set_model(model)
    checkpoint.on_epoch_end(0, {})
    assert (tmp_path / "link.keras").is_symlink()
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["model.keras"]

    (tmp_path / "folder.keras").mkdir()
    checkpoint.filepath = str(tmp_path / "folder.keras")
    with pytest.raises(IOError, match="non-directory filepath"):
        checkpoint.on_epoch_end(1, {})
    assert list((tmp_path / "folder.keras").iterdir()) == []
    assert not list(tmp_path.glob(".part-*"))
