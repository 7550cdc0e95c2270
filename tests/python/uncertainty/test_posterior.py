"""SWAG's Gaussian: the authors' recorded snapshots and draws, and what its moments must be. No Keras."""

import numpy as np
import pytest

from kerasoptimizers import files
from kerasoptimizers.posterior import Posterior
from recordings import recording

pytestmark = pytest.mark.once

CASES = recording("SWAG")["cases"]
NAMES = ["dense/kernel", "dense/bias", "head/kernel"]


def collected(snapshots, rank):
    posterior = Posterior(rank)
    for weights in snapshots:
        posterior.add([np.array(w, "float32") for w in weights], NAMES)
    return posterior


def random_snapshots(count, center=0.0, spread=1.0, seed=0):
    """Snapshots that wander, so that weights of different layers vary together."""
    random = np.random.default_rng(seed)
    steps = random.normal(size=(count, 10)) @ random.normal(size=(10, 10)) * spread
    rows = (center + np.cumsum(steps, axis=0) / np.sqrt(count)).astype("float32")
    return [[row[:6].reshape(3, 2), row[6:8], row[8:].reshape(2, 1)] for row in rows]


def flat(arrays, size=()):
    rows = [np.reshape(array, (*size, int(np.prod(np.shape(array)[len(size) :])))) for array in arrays]
    return np.concatenate(rows, axis=-1)


def exact(snapshots):
    """Mean and variance in float64, over all at once."""
    rows = np.array([flat(weights) for weights in snapshots], "float64")
    return rows.mean(0), rows.var(0)


@pytest.mark.parametrize("case", CASES)
def test_recorded_snapshots_are_reproduced(case):
    snapshots = [[np.array(w, "float32") for w in weights] for weights in case["weights"]]
    for n, recorded in enumerate(case["after_collect"], 1):
        posterior = collected(snapshots[:n], case["config"]["max_num_models"])
        mean, variance = exact(snapshots[:n])
        np.testing.assert_allclose(flat(posterior.state.mean), mean, rtol=1e-13)
        np.testing.assert_allclose(flat(posterior.variance), variance, rtol=1e-9, atol=1e-18)
        # Theirs are float32.
        near = 2e-7 * np.abs(mean).max() * n
        np.testing.assert_allclose(flat(posterior.state.mean), flat([np.array(m) for m in recorded["mean"]]), atol=near)
        theirs = [np.array(rows) for rows in recorded.get("deviations", ())]
        for ours, rows in zip(posterior.deviations, theirs if posterior.rank else []):
            np.testing.assert_allclose(ours.reshape(rows.shape), rows, atol=near)
    if "variance_float64" in case:
        # Weights around 100: the variance of the authors' code is wrong in its first digit here.
        truth = flat([np.array(v) for v in case["variance_float64"]])
        np.testing.assert_allclose(flat(posterior.variance), truth, rtol=1e-6)
        recorded = case["after_collect"][-1]
        theirs = flat([np.array(s) for s in recorded["sq_mean"]]) - flat([np.array(m) for m in recorded["mean"]]) ** 2
        assert np.abs(theirs / truth - 1).max() > 10


def authors_posterior(case):
    """A posterior with the authors' own float32 moments, and the divisor that they use with fewer columns."""
    last, rank = case["after_collect"][-1], case["config"]["max_num_models"]
    posterior = collected(case["weights"], rank)
    means = [np.array(m, "float32") for m in last["mean"]]
    squares = [np.array(s, "float32") - m * m for s, m in zip(last["sq_mean"], means)]
    columns = len(posterior.state.columns)
    factor = np.sqrt(max(columns - 1, 1) / (rank - 1)) if rank else 1.0
    state = posterior.state._replace(
        mean=tuple(m.astype("float64") for m in means),
        squares=tuple(np.maximum(s, 1e-30).astype("float64") * posterior.state.snapshots for s in squares),
        columns=tuple(tuple(factor * w for w in column) for column in posterior.state.columns),
    )
    posterior.state = state
    return posterior


@pytest.mark.parametrize("case", CASES)
def test_recorded_draws_are_reproduced(case):
    posterior, compared = collected(case["weights"], case["config"]["max_num_models"]), 0
    theirs = authors_posterior(case)
    full = len(posterior.state.columns) == case["config"]["max_num_models"]
    for sample in case["samples"]:
        if sample["block"]:
            continue  # their draws by blocks: not the square root of the scale, and layers apart
        z1 = [np.array(z) for z in sample["z1"]]
        z2 = None if sample["z2"] is None or not sample["cov"] else np.array(sample["z2"])
        if z2 is not None:
            z2 = z2[: len(posterior.state.columns)]
        theta = flat([np.array(t) for t in sample["theta"]])
        drawn = flat(theirs.draw(sample["scale"], z1, z2))
        np.testing.assert_allclose(drawn, theta, rtol=1e-6, atol=1e-6)
        compared += 1
        # With our own moments, where their divisor is right and their variance has not cancelled.
        if (full or z2 is None) and "quirk" not in case:
            ours = flat(posterior.draw(sample["scale"], z1, z2))
            np.testing.assert_allclose(ours, theta, atol=case["tolerance"])
    assert compared


@pytest.mark.parametrize("center, spread", [(0, 1), (100, 1e-3), (100, 1e-6), (-1e4, 1e-2)])
def test_mean_and_variance_are_exact_however_small_against_the_weights(center, spread):
    # float32 holds 100 to 8e-6: the weights themselves are rounded, their moments are not.
    snapshots = random_snapshots(50, center, spread)
    if spread == 1e-6:
        snapshots = [[w.astype("float64") + 0 for w in weights] for weights in snapshots]
        random = np.random.default_rng(1)
        snapshots = [[100 + spread * random.normal(size=w.shape) for w in weights] for weights in snapshots]
    posterior = Posterior(20)
    for weights in snapshots:
        posterior.add(weights, NAMES)
    rows = np.array([flat(weights) for weights in snapshots], "float64")
    # Shifted first: not even float64 loses digits then.
    shifted = rows - rows[0]
    np.testing.assert_allclose(flat(posterior.state.mean), rows[0] + shifted.mean(0), rtol=1e-14)
    np.testing.assert_allclose(flat(posterior.variance), shifted.var(0), rtol=1e-6)


@pytest.mark.parametrize("count, rank", [(30, 5), (4, 20), (2, 20), (10, 1), (12, 0), (3, 3)])
def test_the_covariance_of_draws_is_that_of_the_formula(count, rank):
    posterior = collected(random_snapshots(count, 3.0), rank)
    draws, scale = 100_000, 0.7
    z = posterior.normals(np.random.default_rng(3), (draws,))
    drawn = flat(posterior.draw(scale, *z), (draws,))
    columns = min(count, rank)
    deviations = flat(posterior.deviations, (columns,)).astype("float64")
    expected = scale * (np.diag(flat(posterior.variance)) + deviations.T @ deviations / max(columns - 1, 1))
    # The standard error of a covariance, for each pair of weights: blocks between layers too.
    deviation = np.sqrt(np.diag(expected))
    error = np.sqrt((expected**2 + np.outer(deviation, deviation) ** 2) / draws)
    found = np.cov(drawn.T)
    assert np.abs((found - expected) / error).max() < 5
    assert np.abs((drawn.mean(0) - flat(posterior.state.mean)) / (deviation / np.sqrt(draws))).max() < 5
    # The layers do vary together, where there are columns for it.
    between = np.abs(found[:6, 6:] / np.outer(deviation[:6], deviation[6:])).max()
    assert between > 0.2 if columns > 1 or rank == 1 else between < 0.02


def test_columns_are_the_last_deviations_oldest_first():
    snapshots = random_snapshots(7)
    posterior = collected(snapshots, 3)
    for i, deviations in enumerate(posterior.deviations):
        assert deviations.shape == (3, *snapshots[0][i].shape) and deviations.dtype == "float32"
        for column, n in zip(deviations, (5, 6, 7)):
            mean = np.mean([np.asarray(w[i], "float64") for w in snapshots[:n]], axis=0)
            np.testing.assert_allclose(column, snapshots[n - 1][i] - mean, rtol=1e-6, atol=1e-7)


def test_the_first_column_is_zero_and_one_snapshot_has_no_variance():
    posterior = collected(random_snapshots(1), 20)
    assert all(np.all(d == 0) and len(d) == 1 for d in posterior.deviations)
    drawn = posterior.sample(0.5, np.random.default_rng(0))
    for value, mean in zip(drawn, posterior.state.mean):
        np.testing.assert_array_equal(value, mean)


def test_one_draw_is_one_of_many():
    posterior = collected(random_snapshots(9), 4)
    z1, z2 = posterior.normals(np.random.default_rng(0), (6,))
    many = posterior.draw(0.5, z1, z2)
    for i in range(6):
        for a, b in zip(many, posterior.draw(0.5, [z[i] for z in z1], z2[i])):
            np.testing.assert_allclose(a[i], b, rtol=1e-12)
    # Each weight has normal numbers that no other has.
    one = posterior.normals(np.random.default_rng(0))
    assert len(np.unique(np.concatenate([flat(one[0]), one[1]]))) == 14


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_deviations_are_as_wide_as_the_weights_or_wider(dtype):
    posterior = Posterior(2)
    for weights in random_snapshots(3):
        posterior.add([w.astype(dtype) for w in weights], NAMES)
    assert posterior.deviations[0].dtype == ("float64" if dtype == "float64" else "float32")
    assert posterior.state.mean[0].dtype == posterior.variance[0].dtype == "float64"


@pytest.mark.parametrize("count, rank", [(0, 3), (1, 3), (5, 3), (5, 0)])
def test_a_file_holds_all_of_it(tmp_path, count, rank):
    posterior, path = collected(random_snapshots(count), rank) if count else Posterior(rank), str(tmp_path / "p.npz")
    files.save_arrays(path, posterior.entries())
    loaded = Posterior(0)
    loaded.take_entries(files.load_arrays(path))
    assert loaded.rank == rank and loaded.state.snapshots == count and loaded.state.names == posterior.state.names
    for name in ("mean", "squares"):
        for a, b in zip(getattr(loaded.state, name), getattr(posterior.state, name), strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(loaded.deviations, posterior.deviations, strict=True):
        np.testing.assert_array_equal(a, b)
    # It goes on as if nothing had been.
    for p in (posterior, loaded):
        for weights in random_snapshots(4, seed=5):
            p.add(weights, NAMES)
    np.testing.assert_array_equal(flat(loaded.variance), flat(posterior.variance))


def test_a_file_whose_parts_do_not_fit_is_refused_and_nothing_changes():
    posterior = collected(random_snapshots(5), 3)
    before = posterior.state
    entries = collected(random_snapshots(4), 3).entries()
    for name, value in (("squares-1", np.zeros(5)), ("deviations-0", np.zeros((2, 3, 2))), ("snapshots", 1)):
        with pytest.raises(ValueError):
            posterior.take_entries({**entries, name: value})
        assert posterior.state is before


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "p.npz"
    files.save_arrays(str(path), {"a": 1})
    save = np.savez

    def full(file, **arrays):
        save(file, **arrays)
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        files.save_arrays(str(path), {"a": np.zeros(1000)})
    assert [p.name for p in tmp_path.iterdir()] == ["p.npz"]
    assert files.load_arrays(str(path)) == {"a": 1}
