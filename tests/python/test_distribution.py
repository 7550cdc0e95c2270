"""Training on two replicas gives the averages of training on one."""

import keras
import numpy as np
import pytest

if keras.backend.backend() != "tensorflow":
    pytest.skip("tf.distribute is TensorFlow's", allow_module_level=True)

import tensorflow as tf
import tf_keras

import kerasoptimizers
import kerasoptimizers.tf_keras

GENERATIONS = {3: (keras, kerasoptimizers), 2: (tf_keras, kerasoptimizers.tf_keras)}
METHODS = {
    "SWA": {"start_averaging": 2, "average_period": 3},
    "Lookahead": {"sync_period": 4},
    "ExponentialMovingAverage": {},
}
SETTINGS = [{}, {"clipnorm": 0.1, "decay": 0.1}, {"global_clipnorm": 0.1}]


@pytest.fixture(scope="module")
def replicas():
    devices = tf.config.list_logical_devices("CPU")
    if len(devices) < 2:
        pytest.fail("conftest.py makes two logical CPUs; TensorFlow was started before it could")
    return tf.distribute.MirroredStrategy([device.name for device in devices[:2]])


def train(keras, optimizer, strategy):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dense(1)]
        )
        model.compile(optimizer(), "mse")
    x = np.random.default_rng(0).normal(size=(64, 4))
    model.fit(x, 2 * x[:, :1], batch_size=16, epochs=3, verbose=0, shuffle=False)
    return model


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings) or "plain")
def test_two_replicas_average_as_one(generation, method, settings, replicas):
    keras, module = GENERATIONS[generation]

    def optimizer():
        inner = keras.optimizers.SGD(0.05, momentum=0.9)
        return getattr(module, method)(inner, **METHODS[method], **settings)

    alone = train(keras, optimizer, tf.distribute.get_strategy())
    together = train(keras, optimizer, replicas)
    slot = "slow" if method == "Lookahead" else "average"
    for a, b in zip(alone.trainable_variables, together.trainable_variables):
        np.testing.assert_allclose(b.numpy(), a.numpy(), atol=1e-5)
        average = alone.optimizer.get_slot(a, slot).numpy()
        copies = together.optimizer.get_slot(b, slot)
        copies = together.optimizer._native(copies).values
        assert len(copies) == 2
        for copy in copies:
            np.testing.assert_allclose(copy.numpy(), average, atol=1e-5)
    together.optimizer.swap_weights()
    together.optimizer.swap_weights()
    together.optimizer.assign_average_vars(together.trainable_variables)
    for copy in together.trainable_variables:
        copies = together.optimizer._native(copy).values
        np.testing.assert_array_equal(copies[0].numpy(), copies[1].numpy())
