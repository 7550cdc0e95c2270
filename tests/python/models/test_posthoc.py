"""Averages that are stored as training goes, and those that are made of them afterwards."""

import functools
import json
import os
import warnings

import keras
import numpy as np
import pytest

from generations import GENERATIONS, Generation
from kerasoptimizers import KerasOptimizersWarning, posthoc_average, posthoc_scores
from kerasoptimizers.posthoc import Rebuilding, coefficients
from kerasoptimizers.snapshots import Anatomy, Folder, _from_bfloat16, _narrowed, _to_bfloat16
from kerasoptimizers.widths import gamma_of
from recordings import assert_equal, recording

pytestmark = pytest.mark.sample

RECONSTRUCTIONS = [case for case in recording("PostHocEMA")["cases"] if case["kind"] == "reconstruction"]


@pytest.fixture(params=GENERATIONS)
def generation(request):
    return Generation(request.param)


# The arithmetic.


@pytest.mark.once
@pytest.mark.parametrize("case", RECONSTRUCTIONS, ids=lambda case: f"{case['sigma_rel']}-{case['t']}")
def test_coefficients_are_the_recorded_ones(case):
    snapshots = [recorded()["snapshots"][i] for i in case["snapshots_used"]]
    times, gammas = [s["t"] for s in snapshots], [s["gamma"] for s in snapshots]
    found = coefficients(times, gammas, case["t"], gamma_of(case["sigma_rel"]))
    np.testing.assert_allclose(found, case["coefficients_normalized"], rtol=1e-7, atol=1e-8)
    assert found.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.once
def test_an_average_that_was_stored_comes_back_alone():
    found = coefficients([10, 10, 20, 20], [16.97, 6.94, 16.97, 6.94], 20, 6.94)
    np.testing.assert_array_equal(found, [0, 0, 0, 1])


@pytest.mark.once
def test_a_thousand_snapshots_are_solved_without_large_coefficients():
    times = np.repeat(np.arange(1, 501) * 250, 2)
    gammas = np.tile([gamma_of(0.05), gamma_of(0.10)], 500)
    for sigma_rel in (0.07, 0.15, 0.28):
        found = coefficients(times, gammas, times[-1], gamma_of(sigma_rel))
        assert np.isfinite(found).all() and np.abs(found).sum() < 3


@functools.cache
def recorded():
    return recording("PostHocEMA")


# Recorded runs, through files and a model.


def recorded_model(generation, widths=2):
    layers = generation.keras.layers
    return generation.keras.Sequential([layers.Input((3,)), layers.Dense(widths), layers.Dense(1, use_bias=False)])


def module(generation):
    return __import__(f"kerasoptimizers.{generation.name}", fromlist=["private"])


def write_recorded(generation, folder, dtype="float32"):
    """The recorded averages as files, as the callback writes them."""
    model = recorded_model(generation)
    anatomy = Anatomy(model, module(generation).private)
    header = {
        "fingerprint": anatomy.fingerprint,
        "parts": anatomy.parts,
        "layers": anatomy.layers,
        "positions": anatomy.positions(model.trainable_variables),
        "names": recorded()["names"],
    }
    for t in range(50, 501, 50):
        own = [snapshot for snapshot in recorded()["snapshots"] if snapshot["t"] == t]
        widths = {"sigma_rel": [s["sigma_rel"] for s in own], "gamma": [s["gamma"] for s in own]}
        averages = [[np.array(array, "float32") for array in snapshot["average"]] for snapshot in own]
        Folder(str(folder)).write(t, {**header, **widths}, averages, dtype)
    return model


def values(model):
    return [np.array(variable.numpy()) for variable in model.weights]


def test_averages_made_afterwards_are_the_recorded_ones(generation, tmp_path):
    model = write_recorded(generation, tmp_path)
    for case in RECONSTRUCTIONS:
        at = None if case["t"] == 500 else case["t"]
        posthoc_average(model, tmp_path, case["sigma_rel"], at)
        where = f"sigma_rel {case['sigma_rel']} at {case['t']}"
        for found, expected in zip(values(model), case["reconstruction_normalized"]):
            assert_equal(found, expected, where, 1e-6)
        # And as far from those that were kept as the help says.
        limit = {0.07: 3e-4, 0.1: 2e-7, 0.12: 5e-3, 0.15: 4e-3, 0.2: 6e-3, 0.25: 3e-2}[case["sigma_rel"]]
        assert relative(values(model), case["tracked"]) < limit, where


def relative(found, expected):
    found, expected = (np.concatenate([np.ravel(a) for a in arrays]) for arrays in (found, expected))
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("dtype, tolerance", [("float16", 2e-3), ("bfloat16", 2e-2), ("float64", 1e-6)])
def test_narrow_files_are_off_by_their_rounding(generation, tmp_path, dtype, tolerance):
    model = write_recorded(generation, tmp_path, dtype)
    case = RECONSTRUCTIONS[0]
    posthoc_average(model, tmp_path, case["sigma_rel"], case["t"])
    off = relative(values(model), case["reconstruction_normalized"])
    assert off < tolerance
    assert (off > 1e-5) == (dtype != "float64")


@pytest.mark.once
def test_bfloat16_is_rounded_to_the_nearest_number():
    import ml_dtypes

    array = np.random.default_rng(0).normal(size=1000).astype("float32") * 1e3
    array[:4] = [0.0, np.inf, -np.inf, 3.3e38]
    expected = array.astype(ml_dtypes.bfloat16)
    np.testing.assert_array_equal(_to_bfloat16(array), expected.view("uint16"))
    np.testing.assert_array_equal(_from_bfloat16(_to_bfloat16(array)), expected.astype("float32"))
    assert np.isnan(_from_bfloat16(_to_bfloat16(np.float32("nan"))))


@pytest.mark.once
def test_what_float16_cannot_hold_is_stored_as_float32():
    assert _narrowed(np.float32([1.0, 70000.0]), "float16").dtype == "float32"
    assert _narrowed(np.float32([1.0, 60000.0]), "float16").dtype == "float16"


# What is wrong with a folder.


def refuses(model, folder, match, *args, **kwargs):
    before, files = values(model), state(folder)
    with pytest.raises(ValueError, match=match) as caught:
        posthoc_average(model, folder, *(args or (0.15,)), **kwargs)
    assert "\n" not in str(caught.value)
    for one, other in zip(before, values(model)):
        np.testing.assert_array_equal(one, other)
    assert state(folder) == files


def state(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else None


def test_a_folder_that_is_not_as_written_says_which_file_and_changes_nothing(tmp_path):
    generation, folder = Generation("keras3"), tmp_path / "snapshots"
    refuses(recorded_model(generation), folder, "there is no folder '.*snapshots'")
    folder.mkdir()
    refuses(recorded_model(generation), folder, "must hold snapshots, as AverageSnapshots writes them")
    model = write_recorded(generation, folder)
    whole = (folder / "averages-000000200.npz").read_bytes()
    # A file of another kind is nobody's business.
    (folder / "notes.txt").write_text("mine")
    posthoc_average(model, folder, 0.15)

    (folder / "averages-000000200.npz").write_bytes(whole[: len(whole) // 2])
    refuses(model, folder, "must hold whole files: '.*averages-000000200.npz' can't be read")
    # In the middle, where nothing but its data is read.
    at = whole.index(b"average-0-0.npy") + 150
    (folder / "averages-000000200.npz").write_bytes(whole[:at] + bytes(8) + whole[at + 8 :])
    refuses(model, folder, "'.*averages-000000200.npz' can't be read")
    (folder / "averages-000000200.npz").write_bytes(b"")
    refuses(model, folder, "'.*averages-000000200.npz' can't be read")
    (folder / "averages-000000200.npz").unlink()
    refuses(model, folder, "must hold all snapshots of the training: '.*averages-000000200.npz' is missing")
    (folder / "averages-000000200.npz").write_bytes(whole)

    np.savez(folder / "mine.npz", header=np.zeros(3))
    refuses(model, folder, "must hold files that AverageSnapshots wrote: '.*mine.npz' is none")
    (folder / "mine.npz").unlink()
    other = recorded_model(generation, 3)
    refuses(other, folder, r"averages-000000050.npz' does not: weight . is a Dense's .*\(2,.* there, and .*\(3,.* in")
    posthoc_average(model, folder, 0.15)


def test_a_moment_needs_a_snapshot_at_or_after_it(tmp_path):
    model = write_recorded(Generation("keras3"), tmp_path)
    refuses(model, tmp_path, "`at` must be at most 500, the last snapshot in .*; a moment needs one", 0.1, at=501)
    refuses(model, tmp_path, "`at` must be a whole number >= 1", 0.1, at=0)
    refuses(model, tmp_path, "`sigma_rel` must be a number > 0 and at most 0.2887", 0.3)
    for wrong in (None, 3, ""):
        with pytest.raises((TypeError, ValueError), match="`directory` must be a path"):
            posthoc_average(model, wrong, 0.1)
    with pytest.raises(ValueError, match="`model` must be a Keras model, not 3"):
        posthoc_average(3, tmp_path, 0.1)
    with pytest.raises(ValueError, match="`model` must be built"):
        posthoc_average(keras.Sequential([keras.layers.Dense(1)]), tmp_path, 0.1)


# Training.

X = np.random.default_rng(0).normal(size=(48, 3)).astype("float32")
Y = X[:, :1] * 2 - X[:, 1:2]


def build(generation, seed=0):
    generation.keras.utils.set_random_seed(seed)
    layers = generation.keras.layers
    return generation.keras.Sequential(
        [layers.Input((3,)), layers.Dense(4), layers.BatchNormalization(), layers.Dense(1)]
    )


def compiled(generation, *widths, **settings):
    model = build(generation)
    inner = generation.keras.optimizers.SGD(0.02, momentum=0.9)
    model.compile(generation.PowerAverage(inner, *([widths] if widths else []), **settings), "mse")
    return model


def fit(model, epochs, *callbacks, initial_epoch=0):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(
            X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks),
            initial_epoch=initial_epoch,
        )  # fmt: skip
    return model


def slots(model, name="average"):
    return [np.array(model.optimizer.get_slot(v, name).numpy()) for v in model.trainable_variables]


def snapshots(folder):
    return sorted(path.name for path in folder.iterdir())


def names(*updates):
    return [f"averages-{t:09d}.npz" for t in updates]


@pytest.mark.filterwarnings("ignore:posthoc_average")
def test_stored_averages_come_back_bit_for_bit_in_a_new_model(generation, tmp_path):
    folder = tmp_path / "snapshots"
    model = fit(compiled(generation), 3, generation.AverageSnapshots(folder))
    # With frozen layers, of other names, and without an optimizer.
    other = build(generation, 1)
    for layer in other.layers[1:]:
        layer.trainable = False
    assert snapshots(folder) == names(6, 12, 18)
    for sigma_rel, name in ((0.10, "average_2"), (0.05, "average")):
        posthoc_average(other, str(folder), sigma_rel)
        other_weights = {i: w for i, w in enumerate(weights_of_layers(other))}
        for average, own in zip(slots(model, name), (other_weights[i] for i in (0, 1, 2, 3, 6, 7))):
            np.testing.assert_array_equal(average, own)


def weights_of_layers(model):
    """Trainable or not, in the order of the layers: batch norm's own two last."""
    return [np.array(w.numpy()) for layer in model.layers for w in layer.weights]


@pytest.mark.filterwarnings("ignore:posthoc_average")
def test_an_average_made_afterwards_is_close_to_the_one_that_was_kept(generation, tmp_path):
    model = fit(compiled(generation, 0.05, 0.10, 0.15, 0.2887), 5, generation.AverageSnapshots(tmp_path, every=2))
    kept = {0.15: slots(model, "average_3"), 0.2887: slots(model, "average_4")}
    for header in tmp_path.iterdir():
        # As if only two had been kept.
        drop_widths(header, 2)
    for sigma_rel, limit in ((0.15, 2e-2), (0.2887, 0.1)):
        posthoc_average(model, tmp_path, sigma_rel)
        found = [v.numpy() for v in model.trainable_variables]
        assert 0 < relative(found, kept[sigma_rel]) < limit


def drop_widths(path, count):
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays["header"].tobytes())
    header.update({name: header[name][:count] for name in ("sigma_rel", "gamma")})
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), "uint8")
    np.savez(path, **arrays)


def test_snapshots_come_every_so_many_batches_and_at_the_end(generation, tmp_path):
    fit(compiled(generation), 2, generation.AverageSnapshots(tmp_path, every=5))
    assert snapshots(tmp_path) == names(5, 10, 12)


def test_an_interrupted_write_leaves_the_others_whole(tmp_path, monkeypatch):
    generation = Generation("keras3")
    model = fit(compiled(generation), 2, generation.AverageSnapshots(tmp_path))
    before = state(tmp_path)

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(model, 3, generation.AverageSnapshots(tmp_path), initial_epoch=2)
    assert state(tmp_path) == before


def test_training_goes_on_in_the_same_folder_and_begins_in_an_empty_one(generation, tmp_path):
    folder, file = tmp_path / "snapshots", str(tmp_path / "model.keras")
    whole = fit(compiled(generation), 4, generation.AverageSnapshots(tmp_path / "whole"))
    model = fit(compiled(generation), 2, generation.AverageSnapshots(folder))
    model.save(file)
    # It broke off after one more epoch than was saved, and another number of updates.
    fit(model, 3, generation.AverageSnapshots(folder, every=4), initial_epoch=2)
    assert snapshots(folder) == names(6, 12, 16, 18)
    loaded = generation.keras.models.load_model(file)
    fit(loaded, 4, generation.AverageSnapshots(folder), initial_epoch=2)
    assert snapshots(folder) == [
        *names(6, 12),
        "averages-000000016.npz.old",
        *names(18),
        names(18)[0] + ".old",
        *names(24),
    ]
    before = values(loaded)
    for at in (None, 18, 15):
        with pytest.warns(UserWarning, match="batch-norm statistics of .* belong to other weights"):
            posthoc_average(loaded, folder, 0.2, at)
        with pytest.warns(UserWarning):
            posthoc_average(whole, tmp_path / "whole", 0.2, at)
        for one, other in zip(values(loaded), values(whole)):
            np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)
    assert not np.array_equal(before[0], values(loaded)[0])

    files = state(folder)
    fresh = compiled(generation)
    weights = values(fresh)
    with pytest.raises(ValueError, match="`directory` must be a folder without snapshots .* has 4, up to update 24"):
        fit(fresh, 1, generation.AverageSnapshots(folder))
    for one, other in zip(weights, values(fresh)):
        np.testing.assert_array_equal(one, other)
    assert state(folder) == files


def test_backup_and_restore_goes_on_in_the_folder(tmp_path):
    # It loads the model when training begins, whichever comes first in the list.
    generation, folder = Generation("keras3"), tmp_path / "snapshots"

    def parts():
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup", delete_checkpoint=False)
        return generation.AverageSnapshots(folder), backup

    fit(compiled(generation), 2, *parts())
    fit(compiled(generation), 3, *parts())
    assert snapshots(folder) == names(6, 12, 18)


def test_only_a_model_with_power_averages_has_snapshots(generation, tmp_path):
    model = build(generation)
    sgd = generation.keras.optimizers.SGD(0.01)
    for optimizer, found in ((sgd, "not with SGD"), (generation.SWA("sgd"), "not with SWA")):
        model.compile(optimizer, "mse")
        with pytest.raises(ValueError, match=f"`model` must be compiled with PowerAverage .*{found}"):
            fit(model, 1, generation.AverageSnapshots(tmp_path))
    # Inside of another one it is found.
    model.compile(generation.Lookahead(generation.PowerAverage("sgd")), "mse")
    fit(model, 1, generation.AverageSnapshots(tmp_path))
    assert snapshots(tmp_path) == names(6)


def test_arguments_of_average_snapshots_are_checked(generation, tmp_path):
    for name, value in (
        ("every", 0), ("every", "batch"), ("every", 2.5), ("dtype", "int8"), ("verbose", 2), ("directory", None),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError), match=f"`{name}` must be"):
            generation.AverageSnapshots(**{"directory": tmp_path, name: value})


# Batch norm, and a metric against the width.


def test_data_recompute_batch_norm_for_the_average(generation, tmp_path):
    model = fit(compiled(generation), 2, generation.AverageSnapshots(tmp_path))
    other = build(generation, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", KerasOptimizersWarning)
        posthoc_average(other, tmp_path, 0.07, data=X)
    dense = other.layers[0]
    outputs = X @ dense.kernel.numpy() + dense.bias.numpy()
    norm = other.layers[1]
    np.testing.assert_allclose(norm.moving_mean.numpy(), outputs.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance.numpy(), outputs.var(axis=0), rtol=1e-4)
    # Nothing is changed where the data don't fit the model.
    before = values(model)
    with pytest.raises(Exception):
        posthoc_average(model, tmp_path, 0.07, data=X[:, :2])
    for one, own in zip(before, values(model)):
        np.testing.assert_array_equal(one, own)


def test_scores_of_each_width_leave_the_model_as_it_was(generation, tmp_path):
    model = fit(compiled(generation), 2, generation.AverageSnapshots(tmp_path))
    before, seen = values(model), []

    def score(model):
        seen.append(np.array(model.layers[0].kernel.numpy()))
        return {"loss": len(seen), "width": seen[-1].sum()}

    found = posthoc_scores(model, tmp_path, score, [0.1, 0.05, 0.2], data=X)
    np.testing.assert_array_equal(found["sigma_rel"], [0.05, 0.1, 0.2])
    np.testing.assert_array_equal(found["tracked"], [True, True, False])
    np.testing.assert_array_equal(found["loss"], [1, 2, 3])
    np.testing.assert_array_equal(seen[0], slots(model)[0])
    np.testing.assert_array_equal(seen[1], slots(model, "average_2")[0])
    for one, own in zip(before, values(model)):
        np.testing.assert_array_equal(one, own)

    def fails(model):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        posthoc_scores(model, tmp_path, fails)
    for one, own in zip(before, values(model)):
        np.testing.assert_array_equal(one, own)
    with pytest.raises(ValueError, match="`score` must be a function of the model"):
        posthoc_scores(model, tmp_path, 3)


def test_averages_that_are_swapped_in_are_not_overwritten(generation, tmp_path):
    model = fit(compiled(generation), 1, generation.AverageSnapshots(tmp_path))
    model.optimizer.swap_weights()
    with pytest.raises(ValueError, match="its averages are swapped in: call swap_weights"):
        posthoc_average(model, tmp_path, 0.1)
    with pytest.raises(ValueError, match="its averages are swapped in: call swap_weights"):
        Rebuilding(model, tmp_path)
