"""The plain backend, which any new backend of Keras gets, does what the fast one of this Keras does."""

import keras
import numpy as np
import pytest

from kerasoptimizers import backends
from kerasoptimizers.backends.plain import Plain
from kerasoptimizers.keras3.optimizer import AveragingOptimizer
from kerasoptimizers.rules import (
    EqualAverage,
    ExponentialAverage,
    PowerAverage,
    ScheduleFree,
    StepBack,
    StepBackWithMomentum,
)

pytestmark = pytest.mark.filterwarnings("ignore:averaged skipped update")

BACKEND = keras.backend.backend()
# The number of an update that leaves a weight which is not finite; in every rule here it is due.
BAD = 3
RULES = {
    "every update": EqualAverage(0, 1),
    "every second update": EqualAverage(1, 2),
    "exponential": ExponentialAverage(0.9, start=2, dynamic=True),
    "exponential, every second update": ExponentialAverage(0.9, period=2),
    "exponential, overwriting": ExponentialAverage(0.9, start=1, first_step=1, gamma=2.0, least=0.5, overwrite=4),
    "Lookahead": StepBack(2, 0.3),
    "Lookahead with momentum": StepBackWithMomentum(2, 0.3, momentum=0.9),
    "Schedule-Free": ScheduleFree(0.9, warmup=3, power_of_k=1.0, decay_at_model=0.1),
    "Schedule-Free, plain": ScheduleFree(0.8),
    "two power averages": PowerAverage((6.94, 0.0)),
}
# Those that give the model the average.
OVERWRITING = ["exponential, overwriting", "Lookahead", "Lookahead with momentum"]
# Many small weights of few kinds, a large one, and one whose sum is infinite although it is finite.
SHAPES = [(3,), (2, 2)] * 6 + [()] + [(130, 130)]
# JAX has no float64 unless the whole program wants it.
TYPES = ["float16", "bfloat16"] + (["float64"] if BACKEND != "jax" else [])
BFLOAT16 = len(SHAPES) + 1


class PlainOptimizer(AveragingOptimizer):
    backend = Plain()


def new_variables():
    random = np.random.default_rng(0)
    values = [random.normal(size=shape) for shape in SHAPES]
    variables = [keras.Variable(value.astype("float32")) for value in values]
    variables += [keras.Variable(random.normal(size=(2, 2)).astype("float32"), dtype=dtype) for dtype in TYPES]
    variables.append(keras.Variable(np.full(3, 3e38, "float32")))
    variables.append(keras.Variable(np.ones((2, 2), "float32")))
    # A constraint makes a weight unlike the others.
    variables[-1].constraint = keras.constraints.UnitNorm(axis=0)
    return variables


def gradients(update, variables):
    random = np.random.default_rng(update)
    found = [random.normal(size=variable.shape) for variable in variables]
    if update == BAD:
        found[5].flat[1] = np.inf
    return [keras.ops.convert_to_tensor(g, dtype=v.dtype) for g, v in zip(found, variables)]


def eager(optimizer, variables):
    return lambda grads: optimizer.apply(grads, variables)


def compiled(optimizer, variables):
    """A function that applies gradients, compiled as Keras's `fit()` does."""
    optimizer.build(variables)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda grads: optimizer.apply(grads, variables))
    import jax

    step = jax.jit(optimizer.stateless_apply)

    def apply(grads):
        own = [variable.value for variable in optimizer.variables]
        changed = step(own, grads, [variable.value for variable in variables])
        for variable, value in zip([*variables, *optimizer.variables], [*changed[0], *changed[1]]):
            variable.assign(value)

    return apply


def run(kind, rule, inner, way):
    """All values after every update."""
    optimizer, variables = kind(inner(), rule, "averaged", {}, {}), new_variables()
    apply = way(optimizer, variables)
    seen, kept = [], []
    for update in range(7):
        if update == BAD + 1:
            # As one who goes on after such an update would: from the values before it.
            for variable, value in kept:
                variable.assign(value)
        fast = optimizer.averages.slots.get("fast", [])
        kept = [(v, keras.ops.copy(v)) for v in [*variables, *fast]] if update == BAD else kept
        apply(gradients(update, variables))
        averages = optimizer.averages
        slots = {f"{name} {i}": v for name, own in averages.slots.items() for i, v in enumerate(own)}
        found = {**slots, **averages.scalars, "refused": averages.refused}
        found.update({f"model {i}": v for i, v in enumerate(variables)})
        seen.append({name: Plain().numpy(v).astype("float64") for name, v in found.items()})
    return seen


def sgd():
    return keras.optimizers.SGD(0.1)


def accumulating():
    return keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)


def assert_alike(rule, inner, way):
    fast, plain = (run(kind, rule, inner, way) for kind in (AveragingOptimizer, PlainOptimizer))
    for update, (one, other) in enumerate(zip(fast, plain)):
        assert one.keys() == other.keys()
        for name, value in one.items():
            # Within a step JAX's compiler computes with more digits than a bfloat16 has, where it likes to.
            loose = BACKEND == "jax" and way is compiled and name.endswith(f" {BFLOAT16}")
            tolerance = 1e-2 if loose else 2e-6
            # A velocity is a small difference of weights, and has their rounding.
            small = 1e-6 if name.startswith("velocity") else 1e-7
            np.testing.assert_allclose(value, other[name], tolerance, small, err_msg=f"update {update}, {name}")
    return fast


@pytest.mark.parametrize("name", RULES)
def test_plain_and_fast_backends_agree(name):
    seen = assert_alike(RULES[name], sgd, eager)
    # What was not finite moved no average, and the next update did.
    slot = RULES[name].slot
    before, bad, *later = (values[f"{slot} 5"] for values in seen[BAD - 1 :])
    np.testing.assert_array_equal(before, bad)
    assert all(np.isfinite(value).all() for value in later)
    assert not np.array_equal(bad, later[-1])
    assert seen[-1]["refused"].tolist() == [1, 5, BAD]


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch compiles no step.")
@pytest.mark.parametrize("name", ["every second update", "exponential", *OVERWRITING, "Schedule-Free"])
def test_plain_and_fast_backends_agree_in_a_compiled_step(name):
    assert_alike(RULES[name], sgd, compiled)


@pytest.mark.parametrize("name", ["every update", "Schedule-Free"])
def test_plain_and_fast_backends_agree_while_gradients_are_accumulated(name):
    # On JAX conditions outside of a compiled step are compiled each time.
    seen = assert_alike(RULES[name], accumulating, compiled if BACKEND == "jax" else eager)
    slot = RULES[name].slot
    moved = [not np.array_equal(one[f"{slot} 0"], two[f"{slot} 0"]) for one, two in zip(seen, seen[1:])]
    # After calls 1, 3 and 5; that after call 3 was not finite.
    assert moved == [True, False, False, False, True, False]


def test_a_backend_that_is_not_known_gets_the_plain_one():
    assert type(backends.named("openvino")) is Plain
    assert type(backends.named(BACKEND)) is not Plain
