"""The original implementations' recorded numbers."""

import json
import pathlib

import numpy as np
import pytest

PARITY = pathlib.Path(__file__).parents[1] / "parity"


def cases(*files):
    for file in files:
        recording = json.loads((PARITY / f"{file}.json").read_text())
        for i, case in enumerate(recording["cases"]):
            yield pytest.param(case, id=f"{file}-{i}")


def assert_equal(actual, recorded, what):
    # Relative to the largest element: both sides are rounded to float32 at every step.
    recorded = np.array(recorded)
    error = np.max(np.abs(actual - recorded)) / np.max(np.abs(recorded))
    assert error < 1e-6, f"{what}: off by {error:.2g} of the largest element"
