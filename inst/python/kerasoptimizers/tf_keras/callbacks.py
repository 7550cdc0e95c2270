"""The callbacks for Keras 2."""

from typing import Any

import tensorflow as tf
import tf_keras

from .. import sampling
from ..callbacks import checkpoint, early_stopping, latest, snapshots, swa, swag, swap_averages
from . import batch_norm, private
from .base import Base


class SwapAverages(swap_averages.SwapAverages, tf_keras.callbacks.Callback):
    __doc__ = swap_averages.SwapAverages.__doc__
    __module__ = "kerasoptimizers.tf_keras"

    private = private
    callback_list = tf_keras.callbacks.CallbackList


class AverageModelCheckpoint(checkpoint.AverageModelCheckpoint, tf_keras.callbacks.ModelCheckpoint):
    __doc__ = checkpoint.AverageModelCheckpoint.__doc__
    __module__ = "kerasoptimizers.tf_keras"

    callback_list = tf_keras.callbacks.CallbackList


class SWACallback(swa.SWACallback, tf_keras.callbacks.Callback):
    __doc__ = swa.SWACallback.__doc__
    __module__ = "kerasoptimizers.tf_keras"

    private = private
    callback_list = tf_keras.callbacks.CallbackList
    backend = Base.backend
    pass_type = staticmethod(batch_norm.pass_type)
    update_batch_norm = staticmethod(batch_norm.update_batch_norm)


class SWAG(swag.SWAG, tf_keras.callbacks.Callback):
    __doc__ = swag.SWAG.__doc__
    __module__ = "kerasoptimizers.tf_keras"

    keras = tf_keras
    generation = "Keras 2"
    private = private
    callback_list = tf_keras.callbacks.CallbackList
    backend = Base.backend
    pass_type = staticmethod(batch_norm.pass_type)
    update_batch_norm = staticmethod(batch_norm.update_batch_norm)


predict_samples = sampling.predictor(SWAG)


class AverageSnapshots(snapshots.AverageSnapshots, tf_keras.callbacks.Callback):
    __doc__ = snapshots.AverageSnapshots.__doc__
    __module__ = "kerasoptimizers.tf_keras"

    private = private


class LatestAverage(latest.LatestAverage, tf_keras.callbacks.Callback):
    __doc__ = latest.LatestAverage.__doc__
    __module__ = "kerasoptimizers.tf_keras"

    private = private
    callback_list = tf_keras.callbacks.CallbackList
    backend = Base.backend

    @staticmethod
    def new_variable(shape: tuple[int, ...], dtype: str) -> Any:
        return tf.Variable(tf.zeros(shape, dtype), trainable=False)


class AverageEarlyStopping(early_stopping.AverageEarlyStopping, tf_keras.callbacks.Callback):
    __doc__ = early_stopping.AverageEarlyStopping.__doc__
    __module__ = "kerasoptimizers.tf_keras"

    private = private
    callback_list = tf_keras.callbacks.CallbackList
    early_stopping = tf_keras.callbacks.EarlyStopping
