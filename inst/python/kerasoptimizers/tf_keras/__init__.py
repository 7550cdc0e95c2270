"""The optimizers for Keras 2: Python's `tf_keras`, the R package keras."""

import tf_keras

from ..methods import join
from .wrapper import AveragingOptimizer

globals().update(
    join(AveragingOptimizer, tf_keras.saving.register_keras_serializable(package="kerasoptimizers"))
)
