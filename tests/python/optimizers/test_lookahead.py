"""The inner optimizer's momentum when Lookahead steps back."""

import keras
import numpy as np
import pytest

from generations import GENERATIONS, Generation
from kerasoptimizers.facts import facts as facts_of
from kerasoptimizers.rules import StepBack
from recordings import momentum_of

BACKEND = keras.backend.backend()
START = [[1.0, -2.0], [[3.0], [0.5]]]
GRADIENTS = [[0.5, 0.25], [[-1.0], [2.0]]]


@pytest.fixture(params=GENERATIONS)
def generation(request):
    return Generation(request.param)


def sgd(generation, **settings):
    return generation.keras.optimizers.SGD(0.1, momentum=0.9, **settings)


def trained(generation, optimizer, updates, gradients=GRADIENTS, dtype="float32"):
    variables = generation.variables(START, dtype)
    for _ in range(updates):
        generation.apply(optimizer, gradients, variables)
    return variables


def values(variables):
    return [np.array(v.numpy(), "float64") for v in variables]


def momenta(optimizer, variables):
    return values(momentum_of(optimizer, variable) for variable in variables)


def test_by_default_nothing_is_added_to_lookahead(generation):
    optimizer = generation.Lookahead(sgd(generation))
    # Equal rules: the arithmetic is the same, bit for bit, and a file holds the same variables.
    assert optimizer.averages.rule == StepBack(6, 0.5)
    trained(generation, optimizer, 1)
    assert optimizer.get_slot_names() == ["slow"]
    slots = [v for v in optimizer.saved_variables() if len(v.shape) != 1 or v.shape[0] != 3]
    assert len(slots) == len(START)


def adam(generation):
    return generation.keras.optimizers.Adam(0.1)


def lars(generation):
    return generation.LARS(0.1)


def in_swa(generation):
    return generation.SWA(sgd(generation))


def loss_scaled(generation):
    if generation.name == "tf_keras":
        return generation.keras.mixed_precision.LossScaleOptimizer(sgd(generation))
    if BACKEND == "jax":
        pytest.skip("On JAX a LossScaleOptimizer can only stand outermost.")
    return generation.keras.optimizers.LossScaleOptimizer(sgd(generation))


def old(generation):
    if generation.name == "keras3":
        pytest.skip("Keras 3 has no optimizers of the old kind.")
    return generation.keras.optimizers.legacy.SGD(0.1, momentum=0.9)


@pytest.mark.parametrize("inner", [sgd, adam, lars, in_swa, loss_scaled, old])
def test_a_reset_momentum_is_zero_after_a_sync_and_grows_again(generation, inner):
    optimizer = generation.Lookahead(inner(generation), sync_period=3, inner_state="reset")
    variables = trained(generation, optimizer, 2)
    assert all(m.any() for m in momenta(optimizer, variables))
    generation.apply(optimizer, GRADIENTS, variables)
    assert not any(m.any() for m in momenta(optimizer, variables))
    generation.apply(optimizer, GRADIENTS, variables)
    assert all(m.any() for m in momenta(optimizer, variables))


@pytest.mark.parametrize("state", ["reset", "average"])
def test_averages_of_squared_gradients_stay_as_they_are(generation, state):
    plain, optimizer = adam(generation), generation.Lookahead(adam(generation), 3, inner_state=state)
    name = "velocity" if generation.name == "keras3" else "v"
    kept = generation.Lookahead(plain, 3)
    variables, others = trained(generation, optimizer, 7), trained(generation, kept, 7)
    for variable, other in zip(variables, others):
        found, expected = optimizer.get_slot(variable, name), kept.get_slot(other, name)
        np.testing.assert_array_equal(found.numpy(), expected.numpy())


@pytest.mark.parametrize("state", ["reset", "average"])
def test_an_optimizer_without_momentum_is_left_as_it_is(generation, state):
    plain = generation.keras.optimizers.SGD
    kept = trained(generation, generation.Lookahead(plain(0.1), 2), 5)
    found = trained(generation, generation.Lookahead(plain(0.1), 2, inner_state=state), 5)
    for one, other in zip(values(found), values(kept)):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("generation", ["keras3"], indirect=True)
def test_the_momentum_steps_back_after_updates_not_calls(generation):
    once = generation.Lookahead(sgd(generation), 2, slow_momentum=0.5, inner_state="average")
    twice = generation.Lookahead(
        sgd(generation, gradient_accumulation_steps=2), 2, slow_momentum=0.5, inner_state="average"
    )
    variables, others = trained(generation, once, 5), trained(generation, twice, 10)
    for one, other in zip(momenta(once, variables) + values(variables), momenta(twice, others) + values(others)):
        np.testing.assert_allclose(one, other, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_slow_momentum_of_narrow_weights_is_wide(generation, dtype):
    optimizer = generation.Lookahead(sgd(generation), 2, slow_momentum=0.5, inner_state="average")
    wide = generation.Lookahead(sgd(generation), 2, slow_momentum=0.5, inner_state="average")
    variables, others = trained(generation, optimizer, 6, dtype=dtype), trained(generation, wide, 6)
    assert all("float32" in str(slot.dtype) for slot in optimizer.momenta.average)
    for found, expected in zip(momenta(optimizer, variables), momenta(wide, others)):
        np.testing.assert_allclose(found, expected, rtol=0.03)


def test_a_sync_that_is_not_finite_changes_no_slow_momentum_and_is_said_once(generation, recwarn):
    optimizer = generation.Lookahead(sgd(generation), 1, inner_state="average")
    variables = trained(generation, optimizer, 2)
    before = values(optimizer.momenta.average)
    generation.apply(optimizer, [[np.inf, 0.25], [[-1.0], [2.0]]], variables)
    optimizer.warn_of_refusals()
    for old_value, new in zip(before, values(optimizer.momenta.average)):
        np.testing.assert_array_equal(new, old_value)
    assert len([w for w in recwarn if "was not finite" in str(w.message)]) == 1


def test_the_memory_of_momenta_is_counted(generation):
    optimizer = generation.Lookahead(sgd(generation), 2, slow_momentum=0.5, inner_state="reset")
    trained(generation, optimizer, 1)
    sizes = facts_of(optimizer)["bytes"]
    assert sizes["averages"] == 3 * sizes["weights"]


@pytest.mark.skipif(not hasattr(keras.optimizers, "MultiOptimizer"), reason="this Keras has no MultiOptimizer")
def test_each_part_of_several_optimizers_has_its_own_momentum():
    generation = Generation("keras3")
    parts = [keras.optimizers.SGD(0.1, momentum=0.9), keras.optimizers.SGD(0.1)]
    variables = generation.variables(START)
    inner = keras.optimizers.MultiOptimizer(lambda v: parts[0] if v.path == variables[0].path else parts[1])
    optimizer = generation.Lookahead(inner, 3, inner_state="reset")
    for update in range(6):
        generation.apply(optimizer, GRADIENTS, variables)
        assert momentum_of(optimizer, variables[0]).numpy().any() == (update % 3 != 2)
    assert len(optimizer.momenta.variables) == 1


@pytest.mark.skipif(not hasattr(keras.optimizers, "ScheduleFreeAdamW"), reason="this Keras has no ScheduleFreeAdamW")
def test_what_an_optimizer_calls_momentum_but_is_weights_is_refused():
    generation = Generation("keras3")
    with pytest.raises(ValueError, match="`inner_state` must be 'keep' around Keras's ScheduleFreeAdamW, not 'reset'"):
        generation.Lookahead(keras.optimizers.ScheduleFreeAdamW(), inner_state="reset")
