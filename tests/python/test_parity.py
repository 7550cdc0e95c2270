"""The original implementations' recorded numbers, reproduced after every step."""

import keras
import numpy as np
import pytest

import kerasoptimizers
from recordings import assert_equal, cases

@pytest.mark.parametrize("case", list(cases("SWA", "Lookahead")))
def test_every_step_equals_the_original(case):
    inner = getattr(keras.optimizers, case["inner"]["class"])(**case["inner"]["config"])
    optimizer = getattr(kerasoptimizers, case["optimizer"])(inner, **case["config"])
    variables = [keras.Variable(np.array(value, "float32")) for value in case["initial"]]
    optimizer.build(variables)
    first = case["config"].get("start_averaging", 0)
    for step, (gradients, recorded) in enumerate(zip(case["gradients"], case["after_step"])):
        gradients = [keras.ops.convert_to_tensor(np.array(g, "float32")) for g in gradients]
        optimizer.apply(gradients, variables)
        for i, variable in enumerate(variables):
            where = f"step {step}, variable {i}"
            assert_equal(variable.numpy(), recorded["variables"][i], where)
            if step >= first:
                slot = optimizer.get_slot(variable, case["slot"])
                assert_equal(slot.numpy(), recorded[case["slot"]][i], f"{where}, {case['slot']}")
