"""The learning-rate schedule of SWA for Keras 2."""

import tf_keras

from .. import schedules
from .base import Base


@tf_keras.saving.register_keras_serializable(package="kerasoptimizers")
class SWALearningRate(schedules.SWALearningRate, tf_keras.optimizers.schedules.LearningRateSchedule):
    __doc__ = schedules.SWALearningRate.__doc__
    __module__ = "kerasoptimizers.tf_keras"

    _xp = Base.backend.xp
    _schedule = tf_keras.optimizers.schedules.LearningRateSchedule
    _serialize = staticmethod(tf_keras.optimizers.schedules.serialize)
    _deserialize = staticmethod(tf_keras.optimizers.schedules.deserialize)
