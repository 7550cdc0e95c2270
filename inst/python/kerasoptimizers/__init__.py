"""Averages of weights for Keras: SWA, Lookahead, exponential averages and more.

`from kerasoptimizers import SWA` is for Keras 3, `from kerasoptimizers.tf_keras import SWA` for Keras 2. Neither
imports the other.
"""

from typing import TYPE_CHECKING

from . import methods
from .finishing import assign_average_vars, averages
from .notices import KerasOptimizersWarning
from .optimizer import averaging_optimizer
from .posthoc import posthoc_average, posthoc_scores
from .widths import average_width

if TYPE_CHECKING:
    # What __getattr__() finds, for type checkers and editors.
    from .keras3 import (
        LARS,
        SWAG,
        AverageEarlyStopping,
        AverageModelCheckpoint,
        AverageSnapshots,
        GaussianNLL,
        LatestAverage,
        SWACallback,
        SWALearningRate,
        SwapAverages,
        average_checkpoints,
        average_models,
        greedy_soup,
        interpolate_models,
        model_stock,
        predict_samples,
        update_batch_norm,
    )
    from .methods import *  # noqa: F403

__all__ = [
    "AverageEarlyStopping",
    "AverageModelCheckpoint",
    "AverageSnapshots",
    "GaussianNLL",
    "KerasOptimizersWarning",
    "LARS",
    "LatestAverage",
    "SWACallback",
    "SWAG",
    "SWALearningRate",
    "SwapAverages",
    "assign_average_vars",
    "average_checkpoints",
    "average_models",
    "average_width",
    "averages",
    "averaging_optimizer",
    "greedy_soup",
    "interpolate_models",
    "model_stock",
    "posthoc_average",
    "posthoc_scores",
    "predict_samples",
    "update_batch_norm",
]
__all__ += methods.__all__


def __getattr__(name):
    # Keras 3 is imported when one of its classes is asked for, so that Keras 2 works without it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import keras3

    return getattr(keras3, name)


def __dir__():
    return __all__
