"""The optimizers for Keras 3, on TensorFlow, JAX and PyTorch."""

import keras

from ..methods import join
from .wrapper import AveragingOptimizer

globals().update(
    join(AveragingOptimizer, keras.saving.register_keras_serializable(package="kerasoptimizers"))
)
