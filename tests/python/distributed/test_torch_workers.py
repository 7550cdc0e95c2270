"""Two workers of PyTorch's DistributedDataParallel end up with the averages of one alone."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    pytest.skip("torch is not installed: its workers were not tested", allow_module_level=True)

import workers
from kerasoptimizers import methods

pytestmark = pytest.mark.once

SCRIPT = str(Path(__file__).with_name("torch_worker.py"))
METHODS = [*methods.__all__, "LARS"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The results of one process alone, and of each of two workers."""

    def run(number):
        # Gloo otherwise asks the name service for this machine's address.
        loopback = {"GLOO_SOCKET_IFNAME": "lo"} if Path("/sys/class/net/lo").exists() else {}
        folder = tmp_path_factory.mktemp(f"torch-{number}")
        return workers.run(SCRIPT, number, folder, str(number), **loopback)[0]

    return run(1)[0], run(2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("settings", ["plain", "clipnorm-decay", "global_clipnorm"])
def test_two_workers_average_as_one(method, settings, runs):
    alone, (first, second) = runs
    keys = [key for key in alone if key.startswith(f"{method}/{settings}/")]
    assert len(keys) == (8 if method == "LARS" else 40)
    for key in keys:
        np.testing.assert_allclose(first[key], alone[key], atol=1e-5, rtol=0, err_msg=key)
        np.testing.assert_array_equal(first[key], second[key], key)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "LARS"])
def test_swaps_exchange_and_twice_restores(method, runs):
    _, (first, _) = runs

    def values(step, what):
        return [first[f"{method}/plain/{step}/{what}/{i}"] for i in range(4)]

    for i in range(4):
        for what, other in (("weights", "averages"), ("averages", "weights")):
            trained = values("trained", what)[i]
            np.testing.assert_array_equal(values("swapped", other)[i], trained)
            np.testing.assert_array_equal(values("swapped back", what)[i], trained)
