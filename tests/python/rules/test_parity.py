"""The original implementations' recorded numbers, reproduced after every step."""

import keras
import numpy as np
import pytest

import kerasoptimizers
from generations import GENERATIONS, Generation
from kerasoptimizers.rules import Step, host_numbers
from recordings import LATER, RECORDED, assert_every_step_equals, assert_step_equals, cases, method_of

pytestmark = pytest.mark.oldest_keras


@pytest.mark.parametrize("case", cases(*RECORDED))
def test_every_step_equals_the_original(case):
    inner = getattr(keras.optimizers, case["inner"]["class"])(**case["inner"]["config"])
    optimizer = method_of(case, kerasoptimizers)(inner, **case["config"])
    variables = [keras.Variable(np.array(value, "float32")) for value in case["initial"]]

    def apply(gradients):
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)

    assert_every_step_equals(case, optimizer, variables, apply)


def gives_the_model_the_average(case):
    config = case["config"]
    steps = config.get("slow_momentum") or config.get("inner_state", "keep") != "keep"
    return steps or config.get("ema_overwrite_frequency")


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_compiled_fit_ends_where_the_original_does(generation):
    kit = Generation(generation)
    for parameter in cases(*LATER, where=gives_the_model_the_average)[::3]:
        case = parameter.values[0]
        model, loss = kit.model_with_gradients(case["initial"])
        inner = getattr(kit.keras.optimizers, case["inner"]["class"])(**case["inner"]["config"])
        optimizer = getattr(kit, case["optimizer"])(inner, **case["config"])
        model.compile(optimizer, loss, **({} if keras.backend.backend() == "torch" else {"jit_compile": True}))
        rows = np.array([np.concatenate([np.ravel(g) for g in step]) for step in case["gradients"]], "float32")
        model.fit(rows, rows[:, :1], batch_size=1, epochs=1, shuffle=False, verbose=0)
        assert_step_equals(case, len(rows) - 1, optimizer, model.trainable_variables)


@pytest.mark.parametrize("case", cases("EMADecays"))
def test_every_decay_is_that_of_the_library(case):
    rule = kerasoptimizers.ExponentialMovingAverage("sgd", **case["config"]).averages.rule
    for update, decay in enumerate(case["decays"]):
        step = Step(update, {}, None, host_numbers, "float64")
        if update + 1 >= case["begins"] and update + 1 not in case["copied"]:
            ours = 1.0 - rule.fraction(step) if rule.due(step) else 1.0
            np.testing.assert_allclose(ours, decay, rtol=1e-6, atol=1e-6, err_msg=f"update {update}")
