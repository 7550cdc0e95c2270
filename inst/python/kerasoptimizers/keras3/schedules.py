"""The learning-rate schedule of SWA for Keras 3."""

import keras

from .. import schedules


@keras.saving.register_keras_serializable(package="kerasoptimizers")
class SWALearningRate(schedules.SWALearningRate, keras.optimizers.schedules.LearningRateSchedule):
    __doc__ = schedules.SWALearningRate.__doc__
    __module__ = "kerasoptimizers"

    _xp = keras.ops
    _schedule = keras.optimizers.schedules.LearningRateSchedule
    _serialize = staticmethod(keras.optimizers.schedules.serialize)
    _deserialize = staticmethod(keras.optimizers.schedules.deserialize)
