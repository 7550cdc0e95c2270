"""The rule of SWAD: the authors' recorded runs, and what it does besides."""

import numpy as np
import pytest

from kerasoptimizers.loss_valley import LossValley
from recordings import recording

pytestmark = pytest.mark.once

CASES = [pytest.param(c, id=f"{i}: {c['curve']}") for i, c in enumerate(recording("LossValley")["cases"])]


def weights_of(case, i):
    return [np.array(w, "float32") for w in case["weights"][i]]


def run(case, from_state_at=None):
    valley, dead_at, converged_at = LossValley(**case["config"]), None, None
    for i, loss in enumerate(case["losses"]):
        if i == from_state_at:
            valley, old = LossValley(**case["config"]), valley
            valley.take_entries(old.entries())
        valley.add(loss, weights_of(case, i))
        converged_at = i if converged_at is None and valley.converged is not None else converged_at
        dead_at = i if dead_at is None and valley.dead else dead_at
        assert len(valley.latest) <= max(case["config"]["n_converge"], case["config"]["n_tolerance"])
    return valley.result(), converged_at, dead_at


def assert_as_recorded(case, valley, converged_at, dead_at):
    assert (valley.converged, converged_at, dead_at) == (case["converge_step"], case["converged_at"], case["dead_at"])
    assert valley.averaged == case["averaged"]
    if case["converge_step"] is None:
        assert valley.average is None
        return
    np.testing.assert_allclose(valley.threshold, case["threshold"], rtol=1e-12)
    for found, expected in zip(valley.average, case["average"]):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("case", CASES)
def test_start_end_and_average_are_those_of_the_authors(case):
    assert_as_recorded(case, *run(case))


@pytest.mark.parametrize("case", CASES)
def test_it_goes_on_from_its_state_at_any_validation(case):
    for at in range(1, len(case["losses"]), 3):
        assert_as_recorded(case, *run(case, at))


def test_a_loss_that_is_not_finite_is_no_validation():
    case = CASES[0].values[0]
    with_some = {**case, "losses": [np.nan, *case["losses"][:9], np.inf, *case["losses"][9:]]}
    with_some["weights"] = [case["weights"][5], *case["weights"][:9], case["weights"][0], *case["weights"][9:]]
    valley, _, _ = run(with_some)
    assert valley.averaged == case["averaged"]
    for found, expected in zip(valley.average, case["average"]):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_the_result_leaves_the_valley_as_it_is():
    case = CASES[5].values[0]
    valley = LossValley(**case["config"])
    for i, loss in enumerate(case["losses"]):
        valley.add(loss, weights_of(case, i))
        valley.result()
    assert_as_recorded(case, valley.result(), case["converged_at"], case["dead_at"])


@pytest.mark.parametrize("name", ["n_converge", "n_tolerance", "tolerance_ratio"])
def test_bad_arguments_are_refused(name):
    for value in (-1, "3", None, True):
        with pytest.raises((ValueError, TypeError), match=f"`{name}` must be"):
            LossValley(**{name: value})
