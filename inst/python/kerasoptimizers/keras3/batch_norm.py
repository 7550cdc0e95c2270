"""Exact batch-norm statistics for Keras 3."""

import functools
import importlib
import inspect
from typing import Any

import keras

from .. import batch_norm
from ..batch_norm.data import leaves
from ..batch_norm.passes import Pass
from . import private
from .base import Base

_PASSES = {"tensorflow": "TensorFlowPass", "jax": "JaxPass", "torch": "TorchPass"}


class Keras3Pass(Pass):
    """The part that is the same on all backends."""

    keras = keras
    generation = "Keras 3"
    private = private
    norm = keras.layers.BatchNormalization
    backend = Base.backend

    def _watched(self, call):
        watched = super()._watched(call)

        @functools.wraps(call)
        def normalized(layer, inputs, training=None, mask=None):
            if not training or mask is not None or layer.synchronized or id(layer) not in self.positions:
                return watched(layer, inputs, training, mask)
            # Keras's call() would compute the moments again: on PyTorch a sixth of a forward step.
            x = self.xp.cast(inputs, self._dtype)
            found = self._see(layer, x, training, mask)
            outputs = keras.ops.batch_normalization(x, *found, layer.axis, layer.beta, layer.gamma, layer.epsilon)
            return self.xp.cast(outputs, layer.compute_dtype)

        return normalized

    @functools.cached_property
    def _arguments(self) -> dict[str, Any]:
        return {"training": True} if "training" in inspect.signature(self.model.call).parameters else {}

    def forward(self, x):
        return self.model(x, **self._arguments)

    def update_metrics(self, x, outputs, y, sample_weight):
        model = self.model
        loss = model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=sample_weight)
        for metric in model.metrics:
            if metric.name == "loss":
                metric.update_state(loss, sample_weight=keras.ops.shape(leaves(x)[0])[0])
        return model.compute_metrics(x, y, outputs, sample_weight)

    @staticmethod
    def compiled(model: Any) -> list[Any]:
        """The tracker of the loss, which `compile()` makes anew. A model may override `metrics`."""
        return keras.Model.metrics.fget(model)[:1]


@functools.cache
def pass_type() -> Any:
    """The class of passes for the backend in use."""
    name = keras.backend.backend()
    if name not in _PASSES:
        raise RuntimeError(
            f"Batch-norm statistics need the Keras backend {', '.join(_PASSES)}, not {name}: "
            "set KERAS_BACKEND before Keras is imported."
        )
    of_backend = getattr(importlib.import_module(f"..batch_norm.{name}", __package__), _PASSES[name])
    return type(_PASSES[name], (Keras3Pass, of_backend), {})


update_batch_norm = batch_norm.updater(pass_type)
