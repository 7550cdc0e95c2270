"""The callbacks for Keras 3."""

import keras

from ..callbacks import checkpoint, early_stopping, swa, swap_averages
from . import batch_norm, private
from .base import Base


class SwapAverages(swap_averages.SwapAverages, keras.callbacks.Callback):
    __doc__ = swap_averages.SwapAverages.__doc__
    __module__ = "kerasoptimizers"

    private = private
    callback_list = keras.callbacks.CallbackList


class AverageModelCheckpoint(checkpoint.AverageModelCheckpoint, keras.callbacks.ModelCheckpoint):
    __doc__ = checkpoint.AverageModelCheckpoint.__doc__
    __module__ = "kerasoptimizers"


class SWACallback(swa.SWACallback, keras.callbacks.Callback):
    __doc__ = swa.SWACallback.__doc__
    __module__ = "kerasoptimizers"

    private = private
    callback_list = keras.callbacks.CallbackList
    backend = Base.backend
    pass_type = staticmethod(batch_norm.pass_type)
    update_batch_norm = staticmethod(batch_norm.update_batch_norm)


class AverageEarlyStopping(early_stopping.AverageEarlyStopping, keras.callbacks.Callback):
    __doc__ = early_stopping.AverageEarlyStopping.__doc__
    __module__ = "kerasoptimizers"

    private = private
    callback_list = keras.callbacks.CallbackList
    early_stopping = keras.callbacks.EarlyStopping
