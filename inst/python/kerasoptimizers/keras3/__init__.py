"""The optimizers for Keras 3, on any of its backends."""

import keras

from .. import methods
from .batch_norm import update_batch_norm
from .callbacks import (
    SWAG,
    AverageEarlyStopping,
    AverageModelCheckpoint,
    AverageSnapshots,
    LatestAverage,
    SWACallback,
    SwapAverages,
    predict_samples,
)
from .lars import LARS
from .losses import GaussianNLL
from .optimizer import AveragingOptimizer
from .schedules import SWALearningRate
from .soups import average_checkpoints, average_models, greedy_soup, interpolate_models, model_stock

globals().update(
    methods.joined(
        AveragingOptimizer,
        "kerasoptimizers",
        keras.saving.register_keras_serializable(package="kerasoptimizers"),
    )
)


def register() -> None:
    """Make models with our optimizers load again, after Keras's custom objects were cleared."""
    classes = [globals()[name] for name in (*methods.__all__, "LARS", "SWALearningRate", "GaussianNLL")]
    methods.register_again(keras, classes)


__all__ = [
    "AverageEarlyStopping",
    "AverageModelCheckpoint",
    "AverageSnapshots",
    "GaussianNLL",
    "LARS",
    "LatestAverage",
    "SWACallback",
    "SWAG",
    "SWALearningRate",
    "SwapAverages",
    "average_checkpoints",
    "average_models",
    "greedy_soup",
    "interpolate_models",
    "model_stock",
    "predict_samples",
    "update_batch_norm",
]
__all__ += methods.__all__
