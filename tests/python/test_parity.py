"""The original implementations' recorded numbers, reproduced after every step."""

import keras
import numpy as np
import pytest

import kerasoptimizers
from recordings import assert_every_step_equals, cases

pytestmark = pytest.mark.oldest_keras


@pytest.mark.parametrize("case", cases("SWA", "Lookahead", "ExponentialMovingAverage", "MovingAverage"))
def test_every_step_equals_the_original(case):
    inner = getattr(keras.optimizers, case["inner"]["class"])(**case["inner"]["config"])
    optimizer = getattr(kerasoptimizers, case["optimizer"])(inner, **case["config"])
    variables = [keras.Variable(np.array(value, "float32")) for value in case["initial"]]

    def apply(gradients):
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], variables)

    assert_every_step_equals(case, optimizer, variables, apply)
