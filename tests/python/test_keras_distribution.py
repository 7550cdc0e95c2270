"""keras.distribution on eight JAX devices, in a separate process: see eight_devices.py."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import workers

pytestmark = [pytest.mark.once, pytest.mark.long]

TESTS = str(Path(__file__).with_name("eight_devices.py"))


def test_on_eight_devices():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed: keras.distribution was not tested")
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", TESTS],
        env=workers.environment(KERAS_BACKEND="jax", XLA_FLAGS=flags),
        capture_output=True,
        text=True,
        timeout=workers.SECONDS,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout
