"""The callbacks for Keras 2."""

from typing import Any

import tensorflow as tf
import tf_keras

from .. import sampling
from ..callbacks import checkpoint, early_stopping, latest, snapshots, swa, swag, swap_averages
from . import batch_norm, private
from .base import Base


class OfKeras2:
    """The parts of Keras 2 that our callbacks need."""

    keras = tf_keras
    generation = "Keras 2"
    private = private
    callback_list = tf_keras.callbacks.CallbackList
    early_stopping = tf_keras.callbacks.EarlyStopping
    backend = Base.backend
    pass_type = staticmethod(batch_norm.pass_type)

    @staticmethod
    def new_variable(shape: tuple[int, ...], dtype: str) -> Any:
        return tf.Variable(tf.zeros(shape, dtype), trainable=False)


class SwapAverages(swap_averages.SwapAverages, OfKeras2, tf_keras.callbacks.Callback):
    __doc__ = swap_averages.SwapAverages.__doc__
    __module__ = "kerasoptimizers.tf_keras"


class AverageModelCheckpoint(checkpoint.AverageModelCheckpoint, OfKeras2, tf_keras.callbacks.ModelCheckpoint):
    __doc__ = checkpoint.AverageModelCheckpoint.__doc__
    __module__ = "kerasoptimizers.tf_keras"


class SWACallback(swa.SWACallback, OfKeras2, tf_keras.callbacks.Callback):
    __doc__ = swa.SWACallback.__doc__
    __module__ = "kerasoptimizers.tf_keras"


class SWAG(swag.SWAG, OfKeras2, tf_keras.callbacks.Callback):
    __doc__ = swag.SWAG.__doc__
    __module__ = "kerasoptimizers.tf_keras"


predict_samples = sampling.predictor(SWAG)


class AverageSnapshots(snapshots.AverageSnapshots, OfKeras2, tf_keras.callbacks.Callback):
    __doc__ = snapshots.AverageSnapshots.__doc__
    __module__ = "kerasoptimizers.tf_keras"


class LatestAverage(latest.LatestAverage, OfKeras2, tf_keras.callbacks.Callback):
    __doc__ = latest.LatestAverage.__doc__
    __module__ = "kerasoptimizers.tf_keras"


class AverageEarlyStopping(early_stopping.AverageEarlyStopping, OfKeras2, tf_keras.callbacks.Callback):
    __doc__ = early_stopping.AverageEarlyStopping.__doc__
    __module__ = "kerasoptimizers.tf_keras"
