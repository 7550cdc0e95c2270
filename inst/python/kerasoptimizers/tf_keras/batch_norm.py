"""Exact batch-norm statistics for Keras 2."""

from typing import Any

import tensorflow as tf
import tf_keras

from .. import batch_norm
from ..batch_norm.tensorflow import TensorFlowPass
from . import private
from .base import Base, require_eager


class Pass(TensorFlowPass):
    __doc__ = TensorFlowPass.__doc__

    keras = tf_keras
    generation = "Keras 2"
    private = private
    norm = private.BATCH_NORM
    backend = Base.backend
    autograph = True

    @property
    def replacements(self):
        # With this momentum a layer's moving statistics become those of the batch.
        fused = [(layer, "momentum", lambda _: 0.0) for layer in self.layers if layer.fused]
        return [*super().replacements, *fused]

    def moments(self, layer, inputs, mask):
        if not layer.fused:
            return super().moments(layer, inputs, mask)
        # TensorFlow's kernel for images has computed them: computing them again takes a third of a forward step. The
        # kernel ignores masks, and corrects the variance by n / (n - 1).
        count = tf.size(inputs, tf.int64) // self.widths[self.positions[id(layer)]]
        n = tf.cast(count, layer.moving_variance.dtype)
        return count, layer.moving_mean, layer.moving_variance * (n - 1) / n

    def channel_axes(self, layer):
        # Keras counts an axis more where it splits the batch into virtual ones.
        return [axis - (layer.virtual_batch_size is not None) for axis in layer.axis]

    def variables(self):
        return [*super().variables(), *private.random_states(self.model)]

    def forward(self, x):
        return self.model(x, training=True)

    def update_metrics(self, x, outputs, y, sample_weight):
        self.model.compute_loss(x, y, outputs, sample_weight)
        return self.model.compute_metrics(x, y, outputs, sample_weight)

    def steps_per_execution(self):
        return private.steps_per_execution(self.model)

    @staticmethod
    def compiled(model: Any) -> list[Any]:
        """What `compile()` makes anew."""
        return [getattr(model, "compiled_loss", None)]


def pass_type() -> Any:
    """The class of passes."""
    require_eager()
    return Pass


update_batch_norm = batch_norm.updater(pass_type)
