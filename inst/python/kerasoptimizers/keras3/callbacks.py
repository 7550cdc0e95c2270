"""The callbacks for Keras 3."""

from typing import Any

import keras

from .. import sampling
from ..callbacks import checkpoint, early_stopping, latest, snapshots, swa, swag, swap_averages
from . import batch_norm, private
from .base import Base


class OfKeras3:
    """The parts of Keras 3 that our callbacks need."""

    keras = keras
    generation = "Keras 3"
    private = private
    callback_list = keras.callbacks.CallbackList
    early_stopping = keras.callbacks.EarlyStopping
    backend = Base.backend
    pass_type = staticmethod(batch_norm.pass_type)

    @staticmethod
    def new_variable(shape: tuple[int, ...], dtype: str) -> Any:
        return keras.Variable("zeros", shape=shape, dtype=dtype, trainable=False)


class SwapAverages(swap_averages.SwapAverages, OfKeras3, keras.callbacks.Callback):
    __doc__ = swap_averages.SwapAverages.__doc__
    __module__ = "kerasoptimizers"


class AverageModelCheckpoint(checkpoint.AverageModelCheckpoint, OfKeras3, keras.callbacks.ModelCheckpoint):
    __doc__ = checkpoint.AverageModelCheckpoint.__doc__
    __module__ = "kerasoptimizers"


class SWACallback(swa.SWACallback, OfKeras3, keras.callbacks.Callback):
    __doc__ = swa.SWACallback.__doc__
    __module__ = "kerasoptimizers"


class SWAG(swag.SWAG, OfKeras3, keras.callbacks.Callback):
    __doc__ = swag.SWAG.__doc__
    __module__ = "kerasoptimizers"


predict_samples = sampling.predictor(SWAG)


class AverageSnapshots(snapshots.AverageSnapshots, OfKeras3, keras.callbacks.Callback):
    __doc__ = snapshots.AverageSnapshots.__doc__
    __module__ = "kerasoptimizers"


class LatestAverage(latest.LatestAverage, OfKeras3, keras.callbacks.Callback):
    __doc__ = latest.LatestAverage.__doc__
    __module__ = "kerasoptimizers"


class AverageEarlyStopping(early_stopping.AverageEarlyStopping, OfKeras3, keras.callbacks.Callback):
    __doc__ = early_stopping.AverageEarlyStopping.__doc__
    __module__ = "kerasoptimizers"
