"""The loss for Keras 3."""

import keras

from .. import losses


@keras.saving.register_keras_serializable(package="kerasoptimizers")
class GaussianNLL(losses.GaussianNLL, keras.losses.Loss):
    __doc__ = losses.GaussianNLL.__doc__
    __module__ = "kerasoptimizers"

    xp = keras.ops
