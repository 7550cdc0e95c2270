"""The methods of the originals' optimizers, on every one of ours."""

import keras
import numpy as np
import pytest

from kerasoptimizers import (
    LARS,
    SWA,
    ExponentialMovingAverage,
    Lookahead,
    MovingAverage,
    PowerAverage,
    PrimalAveraging,
    ScheduleFree,
)

BACKEND = keras.backend.backend()
MAKERS = {
    "SWA": lambda: SWA("sgd", average_period=1),
    "Lookahead": lambda: Lookahead("sgd"),
    "ExponentialMovingAverage": lambda: ExponentialMovingAverage("sgd"),
    "MovingAverage": lambda: MovingAverage("sgd"),
    "PowerAverage": lambda: PowerAverage("sgd"),
    "PrimalAveraging": lambda: PrimalAveraging("sgd"),
    "ScheduleFree": lambda: ScheduleFree("sgd"),
    "LARS": lambda: LARS(0.1),
}
only_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="tests TensorFlow's graphs")


@pytest.fixture(params=MAKERS)
def optimizer(request):
    return MAKERS[request.param]()


def variable(*values):
    return keras.Variable(np.array(values, "float32"))


def gradient(*values):
    return keras.ops.convert_to_tensor(np.array(values, "float32"))


def squares(*variables):
    return lambda: sum(keras.ops.sum(keras.ops.square(v)) for v in variables)


def test_apply_gradients_counts_updates(optimizer):
    v = variable(1.0, 2.0)
    count = optimizer.apply_gradients([(gradient(1.0, 1.0), v)], name="step")
    assert int(count) == int(optimizer.iterations) == 1
    optimizer.apply_gradients(zip([gradient(1.0, 1.0)], [v]), experimental_aggregate_gradients=False)
    assert int(optimizer.iterations) == 2
    assert np.all(v.numpy() < [1.0, 2.0])


def test_no_pairs_are_no_update(optimizer):
    assert int(optimizer.apply_gradients([])) == 0


@pytest.mark.parametrize("pairs", [[1.0], [(1.0,)], 5, [(1.0, 2.0)], [(None, None)]])
def test_malformed_pairs_are_a_type_error(optimizer, pairs):
    with pytest.raises(TypeError, match="`grads_and_vars` must be"):
        optimizer.apply_gradients(pairs)


def test_no_gradient_at_all_is_a_value_error(optimizer):
    v, w = variable(1.0), variable(2.0)
    with pytest.raises(ValueError, match="`grads_and_vars` must hold at least one gradient"):
        optimizer.apply_gradients([(None, v), (None, w)])
    assert (v.numpy(), w.numpy(), int(optimizer.iterations)) == (1.0, 2.0, 0)


def test_minimize_steps_down_the_gradient(optimizer):
    v, w = variable(1.0, -2.0), variable(3.0)
    twin = type(optimizer).from_config(optimizer.get_config())
    v2, w2 = variable(1.0, -2.0), variable(3.0)
    optimizer.minimize(squares(v, w), [v, w])
    twin.apply_gradients([(gradient(2.0, -4.0), v2), (gradient(6.0), w2)])
    np.testing.assert_allclose(v.numpy(), v2.numpy(), rtol=1e-6)
    np.testing.assert_allclose(w.numpy(), w2.numpy(), rtol=1e-6)


def test_minimize_takes_variables_as_a_function_and_weights_the_loss():
    results = []
    for weight in (None, 3.0):
        v = variable(1.0, -2.0)
        weight = None if weight is None else keras.ops.convert_to_tensor(weight)
        SWA(keras.optimizers.SGD(0.1)).minimize(squares(v), lambda: [v], grad_loss=weight)
        results.append(v.numpy())
    np.testing.assert_allclose(results[0], [0.8, -1.6], rtol=1e-6)
    np.testing.assert_allclose(results[1], [0.4, -0.8], rtol=1e-6)


def test_minimize_allows_for_the_loss_scale():
    v = variable(1.0)
    SWA(keras.optimizers.SGD(0.1, loss_scale_factor=64.0)).minimize(squares(v), [v])
    np.testing.assert_allclose(v.numpy(), [0.8], rtol=1e-6)


@only_tensorflow
def test_minimize_takes_a_tensor_with_its_tape(optimizer):
    import tensorflow as tf

    v = variable(1.0, -2.0)
    with tf.GradientTape() as tape:
        loss = squares(v)()
    optimizer.minimize(loss, [v], tape=tape)
    assert np.all(np.abs(v.numpy()) < [1.0, 2.0])
    with pytest.raises(ValueError, match="`tape` must be the GradientTape that computed `loss`"):
        optimizer.minimize(loss, [v])


@only_tensorflow
def test_graph_mode_gradients_and_updates(optimizer):
    import tensorflow as tf

    v = variable(1.0, -2.0)
    optimizer.build([v])

    @tf.function
    def step():
        loss = squares(v)()
        grads = optimizer.get_gradients(loss, [v])
        optimizer.get_updates(loss, [v])
        return grads

    np.testing.assert_allclose(step()[0], [2.0, -4.0])
    assert int(optimizer.iterations) == 1
    assert np.all(np.abs(v.numpy()) < [1.0, 2.0])
    with pytest.raises(RuntimeError, match="need a graph"):
        optimizer.get_gradients(squares(v)(), [v])


@only_tensorflow
def test_a_loss_that_does_not_depend_on_a_variable_is_named():
    import tensorflow as tf

    v, w = variable(1.0), variable(2.0)
    optimizer = SWA("sgd")

    @tf.function
    def gradients():
        return optimizer.get_gradients(squares(v)(), [v, w])

    with pytest.raises(ValueError, match="`params` must be variables that `loss` depends on"):
        gradients()


@only_tensorflow
def test_outside_of_the_replicas_is_a_runtime_error():
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        v, optimizer = variable(1.0), SWA("sgd")
        with pytest.raises(RuntimeError, match="must be called in a replica context"):
            optimizer.apply_gradients([(gradient(1.0), v)])


@pytest.mark.skipif(BACKEND != "jax", reason="the limit is JAX's")
def test_jax_says_what_to_use_instead_of_graphs(optimizer):
    v = variable(1.0)
    with pytest.raises(RuntimeError, match="use minimize"):
        optimizer.get_gradients(squares(v)(), [v])
    with pytest.raises(TypeError, match="`loss` must be a function"):
        optimizer.minimize(squares(v)(), [v])


def test_weights_come_count_first_and_can_be_set(optimizer):
    v = variable(1.0, 2.0)
    optimizer.apply_gradients([(gradient(1.0, 1.0), v)])
    values = optimizer.get_weights()
    assert values[0] == 1 and len(values) == len(optimizer.weights) == len(optimizer.variables())
    twin = type(optimizer).from_config(optimizer.get_config())
    twin.build([v])
    twin.set_weights(values)
    for a, b in zip(twin.get_weights(), values):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="`weights` must be arrays of the shapes"):
        twin.set_weights(values[:-1])


def test_slots_can_be_added(optimizer):
    v = variable(1.0, 2.0)
    optimizer.build([v])
    own = optimizer.get_slot_names()
    slot = optimizer.add_slot(v, "trace", initializer="ones")
    np.testing.assert_array_equal(slot.numpy(), [1.0, 1.0])
    assert optimizer.add_slot(v, "trace") is slot is optimizer.get_slot(v, "trace")
    assert optimizer.get_slot_names() == own + ["trace"]
    assert any(slot is variable for variable in optimizer.variables)
    given = optimizer.add_slot(v, "given", initializer=np.array([3.0, 4.0]))
    np.testing.assert_array_equal(given.numpy(), [3.0, 4.0])
    with pytest.raises(ValueError, match="`var` must be a variable this optimizer was built for"):
        optimizer.add_slot(variable(1.0), "trace")
    with pytest.raises(ValueError, match="`slot_name` must be"):
        optimizer.get_slot(v, "nothing")


def test_weights_can_be_added(optimizer):
    weight = optimizer.add_weight("scale", (2, 3), initializer="ones")
    np.testing.assert_array_equal(weight.numpy(), np.ones((2, 3)))
    assert any(weight is variable for variable in optimizer.weights)
