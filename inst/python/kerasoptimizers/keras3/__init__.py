"""The optimizers for Keras 3, on TensorFlow, JAX and PyTorch."""

import keras

from .. import methods
from .batch_norm import update_batch_norm
from .callbacks import SWACallback
from .lars import LARS
from .schedules import SWALearningRate
from .swap_averages import AverageModelCheckpoint, SwapAverages
from .wrapper import AveragingOptimizer

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
    "update_batch_norm",
]

_register = keras.saving.register_keras_serializable(package="kerasoptimizers")


@_register
class SWA(methods.SWA, AveragingOptimizer):
    __doc__ = methods.SWA.__doc__


@_register
class Lookahead(methods.Lookahead, AveragingOptimizer):
    __doc__ = methods.Lookahead.__doc__


@_register
class ExponentialMovingAverage(methods.ExponentialMovingAverage, AveragingOptimizer):
    __doc__ = methods.ExponentialMovingAverage.__doc__


@_register
class MovingAverage(methods.MovingAverage, AveragingOptimizer):
    __doc__ = methods.MovingAverage.__doc__
