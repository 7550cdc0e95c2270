"""Averages of weights for Keras: SWA, Lookahead and their kin.

`from kerasoptimizers import SWA` is for Keras 3, `from kerasoptimizers.tf_keras
import SWA` for Keras 2. Neither imports the other.
"""

from typing import TYPE_CHECKING

from .averaging import averaging_optimizer

if TYPE_CHECKING:
    # What __getattr__() finds, for type checkers and editors.
    from .keras3 import (
        LARS,
        SWA,
        AverageModelCheckpoint,
        ExponentialMovingAverage,
        Lookahead,
        MovingAverage,
        SWACallback,
        SWALearningRate,
        SwapAverages,
        update_batch_norm,
    )

__all__ = [
    "AverageModelCheckpoint",
    "ExponentialMovingAverage",
    "LARS",
    "Lookahead",
    "MovingAverage",
    "SWA",
    "SWACallback",
    "SWALearningRate",
    "SwapAverages",
    "averaging_optimizer",
    "update_batch_norm",
]


def __getattr__(name):
    # Keras 3 is imported when one of its classes is asked for, so that Keras 2 works without it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import keras3

    return getattr(keras3, name)


def __dir__():
    return __all__
