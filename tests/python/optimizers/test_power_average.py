"""`PowerAverage`: several widths in one training, and how widths translate."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from generations import GENERATIONS, Generation
from kerasoptimizers import average_width
from kerasoptimizers.widths import WIDEST, gamma_of, sigma_of
from recordings import recording

pytestmark = pytest.mark.sample


@pytest.fixture(params=GENERATIONS)
def generation(request):
    return Generation(request.param)


def slots(optimizer, variables, name):
    return [np.array(optimizer.get_slot(variable, name).numpy()) for variable in variables]


def trained(generation, optimizer, updates=12):
    """A model trained for a number of updates with known gradients."""
    model, loss = generation.model_with_gradients([np.ones((3, 2)), np.ones(4)])
    compiled = {} if keras.backend.backend() == "torch" and generation.name == "keras3" else {"jit_compile": True}
    model.compile(optimizer, loss, **compiled)
    rows = np.random.default_rng(0).normal(size=(updates, 10)).astype("float32")
    model.fit(rows, rows[:, :1], batch_size=1, epochs=1, shuffle=False, verbose=0)
    return model


def sgd(generation):
    return generation.keras.optimizers.SGD(0.1)


def test_the_fraction_keeps_its_digits_in_a_compiled_step_at_update_ten_million(generation):
    # By the plain formula it is off by a fifth in float32.
    optimizer = generation.PowerAverage(sgd(generation))
    model = trained(generation, optimizer, 1)
    for t in (10**7, 2 * 10**7):
        optimizer.iterations = t - 1
        for variable in model.trainable_variables:
            variable.assign(np.ones(variable.shape))
            for name in ("average", "average_2"):
                optimizer.get_slot(variable, name).assign(np.zeros(variable.shape))
        model.fit(np.zeros((1, 10)), np.zeros((1, 1)), batch_size=1, verbose=0)
        for name, sigma_rel in zip(("average", "average_2"), (0.05, 0.10)):
            expected = -np.expm1((gamma_of(sigma_rel) + 1) * np.log1p(-1 / t))
            for found in slots(optimizer, model.trainable_variables, name):
                np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=f"{t}, {name}")


def test_the_widest_average_is_the_equal_average_of_all_updates_to_the_bit(generation):
    power = generation.PowerAverage(sgd(generation), sigma_rel=[0.1, 0.2887])
    swa = generation.SWA(sgd(generation), start_averaging=0, average_period=1)
    models = [trained(generation, optimizer) for optimizer in (power, swa)]
    for one, other in zip(
        slots(power, models[0].trainable_variables, "average_2"), slots(swa, models[1].trainable_variables, "average")
    ):
        np.testing.assert_array_equal(one, other)


def test_the_model_is_shown_the_first_width_or_the_one_that_is_chosen(generation, tmp_path):
    optimizer = generation.PowerAverage(sgd(generation), sigma_rel=(0.05, 0.10, 0.2))
    model = trained(generation, optimizer)
    variables = model.trainable_variables
    averages = {name: slots(optimizer, variables, name) for name in ("average", "average_2", "average_3")}
    weights = [v.numpy() for v in variables]
    for width, name in ((0.05, "average"), (0.2, "average_3"), (0.10, "average_2")):
        if name != "average":
            optimizer.shown_width = width
        assert optimizer.shown_width == width
        assert optimizer.get_config()["shown_width"] == (None if name == "average" else width)
        optimizer.swap_weights()
        for variable, average in zip(variables, averages[name]):
            np.testing.assert_array_equal(variable.numpy(), average)
        with pytest.raises(ValueError, match="`shown_width` can't be set while the averages are swapped"):
            optimizer.shown_width = 0.05 if width != 0.05 else 0.10
        optimizer.swap_weights()
        for variable, weight in zip(variables, weights):
            np.testing.assert_array_equal(variable.numpy(), weight)
    with pytest.raises(ValueError, match="`shown_width` must be one of `sigma_rel`, 0.05, 0.1, 0.2, not 0.3"):
        optimizer.shown_width = 0.3
    again = type(optimizer).from_config(optimizer.get_config())
    assert (again.sigma_rel, again.shown_width) == ([0.05, 0.10, 0.2], 0.10)
    optimizer.assign_average_vars(variables)
    for variable, average in zip(variables, averages["average_2"]):
        np.testing.assert_array_equal(variable.numpy(), average)


def test_a_chosen_width_is_shown_after_training_went_on(generation):
    # The step was compiled before it was chosen.
    optimizer = generation.PowerAverage(sgd(generation))
    model = trained(generation, optimizer, 3)
    optimizer.shown_width = 0.10
    model.fit(np.ones((2, 10)), np.ones((2, 1)), batch_size=1, verbose=0)
    expected = slots(optimizer, model.trainable_variables, "average_2")
    optimizer.assign_average_vars(model.trainable_variables)
    for variable, average in zip(model.trainable_variables, expected):
        np.testing.assert_array_equal(variable.numpy(), average)


# Widths.


@pytest.mark.once
def test_widths_have_the_powers_of_the_recording():
    for case in recording("PostHocEMA")["cases"]:
        assert gamma_of(case["sigma_rel"]) == pytest.approx(case["gamma"], rel=1e-9, abs=1e-9)
        assert sigma_of(case["gamma"]) == pytest.approx(case["sigma_rel"], rel=1e-12)


@pytest.mark.once
@given(st.floats(1e-3, WIDEST))
def test_a_width_and_its_power_are_inverse_to_each_other(sigma_rel):
    assert sigma_of(gamma_of(sigma_rel)) == pytest.approx(sigma_rel, rel=1e-6)


@pytest.mark.once
def test_only_the_widest_average_has_the_power_0():
    assert gamma_of(WIDEST) == gamma_of(0.2887) == 0.0
    assert 0 < gamma_of(0.288) < 0.02


@pytest.mark.once
@given(st.floats(0.5, 1e6))
def test_decay_and_half_life_translate_both_ways(half_life):
    found = average_width(half_life=half_life)
    assert found["average_decay"] == pytest.approx(0.5 ** (1 / half_life))
    back = average_width(average_decay=found["average_decay"])
    assert back["half_life"] == pytest.approx(half_life, rel=1e-6)
    assert back["width"] == pytest.approx(found["width"], rel=1e-6)
    assert found["sigma_rel"] is found["gamma"] is None


@pytest.mark.once
@given(st.floats(0.001, 0.28), st.integers(100, 10**7))
def test_an_equally_wide_decay_gives_the_same_width_back(sigma_rel, updates):
    found = average_width(sigma_rel=sigma_rel, updates=updates)
    assert found["width"] == pytest.approx(sigma_rel * updates)
    back = average_width(half_life=found["half_life"], updates=updates)
    assert back["sigma_rel"] == pytest.approx(sigma_rel, rel=1e-6)
    assert back["gamma"] == pytest.approx(found["gamma"], rel=1e-4)


@pytest.mark.once
def test_the_width_is_the_standard_deviation_of_the_updates_that_are_averaged():
    ages = np.arange(100_000)
    shares = 0.99**ages * 0.01
    mean = shares @ ages
    assert average_width(average_decay=0.99)["width"] == pytest.approx(np.sqrt(shares @ (ages - mean) ** 2), rel=1e-6)
    t = np.arange(1, 100_001)
    shares = (t / t[-1]) ** gamma_of(0.1)
    shares /= shares.sum()
    mean = shares @ t
    assert average_width(sigma_rel=0.1, updates=100_000)["width"] == pytest.approx(
        np.sqrt(shares @ (t - mean) ** 2), rel=1e-4
    )


@pytest.mark.once
def test_what_cannot_be_translated_is_none_or_refused():
    assert average_width(sigma_rel=0.1) == {
        **dict.fromkeys(("average_decay", "half_life", "width", "updates")),
        "sigma_rel": 0.1,
        "gamma": gamma_of(0.1),
    }
    assert average_width(half_life=1000, updates=2000)["sigma_rel"] is None
    for wrong in ({}, {"sigma_rel": 0.1, "half_life": 3.0}):
        with pytest.raises(ValueError, match="Give exactly one of `sigma_rel`, `average_decay` and `half_life`"):
            average_width(**wrong)
    for name, value in (("sigma_rel", 0.3), ("average_decay", 1.0), ("half_life", 0.0), ("half_life", "x")):
        with pytest.raises(ValueError, match=f"`{name}` must be a number"):
            average_width(**{name: value})
    with pytest.raises(ValueError, match="`updates` must be a whole number >= 1"):
        average_width(half_life=3, updates=0)
