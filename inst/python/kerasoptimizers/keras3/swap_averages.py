"""The callbacks that show the averages, for Keras 3."""

import keras

from .. import swap_averages
from .guards import Guards


class SwapAverages(swap_averages.SwapAverages, Guards, keras.callbacks.Callback):
    __doc__ = swap_averages.SwapAverages.__doc__


class AverageModelCheckpoint(
    swap_averages.AverageModelCheckpoint, keras.callbacks.ModelCheckpoint
):
    __doc__ = swap_averages.AverageModelCheckpoint.__doc__
