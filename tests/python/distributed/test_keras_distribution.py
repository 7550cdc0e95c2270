"""keras.distribution on eight JAX devices, in a separate process: see eight_devices.py."""

import importlib.util
from pathlib import Path

import pytest

import workers
from processes import run_python

pytestmark = [pytest.mark.once, pytest.mark.long]

TESTS = str(Path(__file__).with_name("eight_devices.py"))


def test_on_eight_devices():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed: keras.distribution was not tested")
    flags = "--xla_force_host_platform_device_count=8"
    arguments = ["-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS]
    done = run_python(*arguments, timeout=workers.SECONDS, KERAS_BACKEND="jax", XLA_FLAGS=flags)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout
