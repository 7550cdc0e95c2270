"""The loss for Keras 2."""

from types import SimpleNamespace

import tensorflow as tf
import tf_keras

from .. import losses


@tf_keras.saving.register_keras_serializable(package="kerasoptimizers")
class GaussianNLL(losses.GaussianNLL, tf_keras.losses.Loss):
    __doc__ = losses.GaussianNLL.__doc__
    __module__ = "kerasoptimizers.tf_keras"

    xp = SimpleNamespace(
        exp=tf.exp,
        maximum=tf.maximum,
        mean=tf.reduce_mean,
        reshape=tf.reshape,
        shape=tf.shape,
        split=tf.split,
        cast=tf.cast,
    )
