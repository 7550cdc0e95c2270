"""The callbacks that show the averages, for Keras 2."""

import tf_keras

from .. import swap_averages
from ..guards import Guards


class SwapAverages(swap_averages.SwapAverages, Guards, tf_keras.callbacks.Callback):
    __doc__ = swap_averages.SwapAverages.__doc__


class AverageModelCheckpoint(
    swap_averages.AverageModelCheckpoint, tf_keras.callbacks.ModelCheckpoint
):
    __doc__ = swap_averages.AverageModelCheckpoint.__doc__
