"""The optimizers for Keras 3, on TensorFlow, JAX and PyTorch."""

import keras

from ..methods import join
from .batch_norm import update_batch_norm
from .callbacks import SWACallback
from .lars import LARS
from .schedules import SWALearningRate
from .swap_averages import AverageModelCheckpoint, SwapAverages
from .wrapper import AveragingOptimizer

globals().update(
    join(AveragingOptimizer, keras.saving.register_keras_serializable(package="kerasoptimizers"))
)
