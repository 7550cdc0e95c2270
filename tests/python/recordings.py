"""The original implementations' recorded numbers, compared with ours step by step."""

import json
import pathlib

import numpy as np
import pytest

PARITY = pathlib.Path(__file__).parents[1] / "parity"


def recording(file):
    """All that a file holds."""
    return json.loads((PARITY / f"{file}.json").read_text())


def cases(*files, where=lambda case: True):
    """The recorded cases of averaging optimizers, as parameters of a test."""
    return [
        pytest.param(case, id=f"{file}-{i}")
        for file in files
        for i, case in enumerate(recording(file)["cases"])
        if where(case)
    ]


def assert_equal(actual, recorded, what, tolerance=1e-6):
    # Relative to the largest element: both sides are rounded to float32 at every step.
    recorded = np.array(recorded)
    error = np.max(np.abs(actual - recorded)) / np.max(np.abs(recorded))
    assert error < tolerance, f"{what}: off by {error:.2g} of the largest element"


def assert_every_step_equals(case, optimizer, variables, apply):
    """Run `apply(gradients)` for each recorded step, and compare variables and slots after it."""
    # Before SWA's first snapshot its slot has no meaning.
    first = case["config"].get("start_averaging", 0)
    from_zero = ZeroStart(case)
    for step, (gradients, recorded) in enumerate(zip(case["gradients"], case["after_step"])):
        apply([np.array(gradient, "float32") for gradient in gradients])
        for i, variable in enumerate(variables):
            where = f"step {step}, variable {i}"
            assert_equal(variable.numpy(), recorded["variables"][i], where)
            if step >= first:
                slot = optimizer.get_slot(variable, case["slot"]).numpy() - from_zero.bias(step, i)
                assert_equal(slot, recorded[case["slot"]][i], f"{where}, {case['slot']}")


class ZeroStart:
    """The Model Garden's averages start at zero, ours as a copy of the weights.

    Ours minus theirs is the starting weights times the product of the decays.
    """

    def __init__(self, case):
        self.initial = [np.array(value) for value in case["initial"]]
        self.products = np.zeros(case["steps"])
        if case["optimizer"] == "ExponentialMovingAverage":
            config = {"average_decay": 0.99, "start_step": 0, "dynamic_decay": True, **case["config"]}
            since = np.arange(1, case["steps"] + 1) - config["start_step"]
            decays = np.full(case["steps"], config["average_decay"])
            if config["dynamic_decay"]:
                decays = np.minimum(decays, (1 + since) / (10 + since))
            self.products = np.cumprod(np.where(since < 0, 0.0, decays))

    def bias(self, step, i):
        return self.products[step] * self.initial[i]
