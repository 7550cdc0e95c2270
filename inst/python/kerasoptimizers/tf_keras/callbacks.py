"""The callbacks for Keras 2."""

import tf_keras

from ..callbacks import checkpoint, early_stopping, swa, swap_averages
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


class SWACallback(swa.SWACallback, tf_keras.callbacks.Callback):
    __doc__ = swa.SWACallback.__doc__
    __module__ = "kerasoptimizers.tf_keras"

    private = private
    callback_list = tf_keras.callbacks.CallbackList
    backend = Base.backend
    pass_type = staticmethod(batch_norm.pass_type)
    update_batch_norm = staticmethod(batch_norm.update_batch_norm)


class AverageEarlyStopping(early_stopping.AverageEarlyStopping, tf_keras.callbacks.Callback):
    __doc__ = early_stopping.AverageEarlyStopping.__doc__
    __module__ = "kerasoptimizers.tf_keras"

    private = private
    callback_list = tf_keras.callbacks.CallbackList
    early_stopping = tf_keras.callbacks.EarlyStopping
