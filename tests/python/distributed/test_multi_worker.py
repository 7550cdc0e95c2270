"""Two workers, each in its own process, end up with the averages of one alone."""

import json

import numpy as np
import pytest
import tensorflow as tf

import multi_worker
import workers

pytestmark = [pytest.mark.once, pytest.mark.long]


def run_workers(cases, folder):
    """The results of each of two workers."""
    addresses = ",".join(f"127.0.0.1:{port}" for port in workers.free_ports(2))
    script = multi_worker.__file__
    seen, said = workers.run(script, 2, folder, addresses, json.dumps(cases))
    assert not any("AutoGraph could not transform" in text for text in said)
    return seen


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(the cases, what one process alone saw, what each worker saw)."""
    folder = tmp_path_factory.mktemp("workers")
    seen = run_workers(multi_worker.CASES, folder)
    own = folder / "alone"
    own.mkdir()
    alone = multi_worker.run_all(multi_worker.CASES, tf.distribute.get_strategy(), str(own))
    return multi_worker.CASES, alone, seen


def steps(run, case):
    """{step: {variable: value}} of a case."""
    found = {}
    prefix = "/".join(map(str, case)) + "/"
    for key, value in run.items():
        if key.startswith(prefix):
            step, variable, _ = key[len(prefix) :].split("/")
            found.setdefault(step, {})[int(variable)] = value
    return found


def test_every_worker_has_the_same_weights_and_averages(runs):
    _, alone, (first, second) = runs
    assert set(first) == set(second) == set(alone)
    for key, value in first.items():
        np.testing.assert_array_equal(value, second[key], key)


def test_workers_average_as_one_process(runs):
    cases, alone, (first, _) = runs
    for case in cases:
        expected, found = steps(alone, case), steps(first, case)
        assert expected
        for step, variables in expected.items():
            if step.startswith("norm"):
                continue  # batch norm sees smaller batches on each worker
            for i, value in variables.items():
                where = f"{case} {step} {i}"
                np.testing.assert_allclose(found[step][i], value, atol=1e-5, rtol=0, err_msg=where)


def test_averages_are_others_than_the_weights(runs):
    cases, _, (first, _) = runs
    for case in cases:
        if case[1] in ("LARS", "callbacks", "Lookahead"):
            continue
        trained = steps(first, case)["trained"]
        half = len(trained) // 2
        assert any(np.abs(trained[i] - trained[half + i]).max() > 1e-3 for i in range(half)), case


def test_swaps_exchange_on_every_worker_and_twice_restores(runs):
    cases, _, (first, _) = runs
    for case in cases:
        found = steps(first, case)
        if "swapped" not in found:
            continue
        half = len(found["trained"]) // 2
        for i, value in found["trained"].items():
            np.testing.assert_array_equal(found["swapped"][(i + half) % (2 * half)], value)
            np.testing.assert_array_equal(found["swapped_back"][i], value)


def test_what_was_saved_trains_on_as_what_was_not(runs):
    cases, _, (first, _) = runs
    for case in cases:
        found = steps(first, case)
        for i, value in found.get("went_on", {}).items():
            np.testing.assert_array_equal(found["loaded"][i], found["trained"][i])
            np.testing.assert_array_equal(value, found["went_on_unsaved"][i])


@pytest.mark.parametrize("generation", [2, 3])
def test_batch_norm_statistics_are_exact_for_the_weights_on_every_worker(runs, generation):
    _, _, seen = runs
    for run in seen:
        found = steps(run, (generation, "callbacks", "plain"))
        passes = [weights for step, weights in found.items() if step.startswith("norm")]
        assert passes
        for weights in passes:
            inputs = np.tanh(multi_worker.X.astype("float64") @ weights[0] + weights[1])
            np.testing.assert_allclose(weights[4], inputs.mean(0), rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(weights[5], inputs.var(0), rtol=1e-5, atol=1e-6)
