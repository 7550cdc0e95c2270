"""The base of all our Keras 3 optimizers."""

import contextlib
from typing import Any

import keras
import numpy as np

from .. import backends, gradients
from ..legacy import LegacyMethods, require_replica_context
from ..optimizer import with_inner
from . import private


class Base(LegacyMethods, keras.optimizers.Optimizer):
    """A Keras 3 optimizer with the methods that TensorFlow Addons' and the Model Garden's optimizers had."""

    keras = keras
    private = private
    generation = "Keras 3 (Python's keras, R's keras3::compile())"
    backend = backends.named(keras.backend.backend())
    built: bool

    def set_weights(self, weights: Any) -> None:
        # A whole model in an HDF5 file: Keras builds its optimizer for no variables, and sets the values of all.
        if self.built and not private.trained_variables(self) and len(weights) != len(self.weights):
            self.__dict__["_from_file"] = [np.array(weight) for weight in weights]
            self.built = False
            return
        super().set_weights(weights)

    def set_weights_from_file(self) -> bool:
        """Set the values that such a file held, once the variables are there."""
        weights = self.__dict__.pop("_from_file", None)
        if weights is not None:
            with self.outside_of_traces():
                self.set_weights(weights)
        return weights is not None

    def key(self, variable: Any) -> Any:
        return private.variable_key(self, variable)

    def new_variable(self, name, shape, dtype, initializer, beside):
        """Add a variable, on the devices of the variable `beside` if one is given."""
        place = contextlib.nullcontext()
        if beside is not None and self.backend.name == "tensorflow":
            place = private.strategy(self).extended.colocate_vars_with(self.backend.native(beside))
        layout = private.layout(beside)
        sharding = {}  # an argument that Keras 3.8 does not know
        if layout is not None and tuple(beside.shape) == tuple(shape):
            sharding = {"layout": layout}
        with self.outside_of_traces(), place:
            return self.add_variable(shape=shape, initializer=initializer, dtype=dtype, name=name, **sharding)

    def refuse_other_model(self) -> None:
        """Raise where a model that this optimizer was not built for begins to train.

        On JAX the steps can't notice: they have the values of variables only.
        """
        model = private.training_on_jax() if self.built and self.backend.name == "jax" else None
        if model is None or not private.trained_variables(self):
            return
        # One of several in Keras's MultiOptimizer does not know all variables.
        if any(optimizer is self for optimizer in with_inner(model.optimizer)):
            gradients.refuse_unknown(self, model.trainable_variables)

    def outside_of_traces(self):
        """Where variables are made at once, also while TensorFlow traces a step."""
        if self.backend.name != "tensorflow":
            return contextlib.nullcontext()
        import tensorflow as tf

        return tf.init_scope()

    def replicas(self) -> int:
        return private.strategy(self).num_replicas_in_sync if self.backend.name == "tensorflow" else 1

    def clip_over_replicas(self, clip, grads, variables):
        """`clip(grads)`, or what amounts to it on several replicas, over which Keras 3 will sum."""
        replicas = self.replicas()
        if replicas == 1 or not (self.clipnorm or self.clipvalue or self.global_clipnorm):
            return clip(grads)
        # The limit holds for the gradient of all replicas together.
        summed = private.sum_over_replicas(self, zip(grads, variables))
        return gradients.scaled(clip([gradient for gradient, _ in summed]), 1.0 / replicas)

    def apply_gradients(
        self, grads_and_vars: Any, name: str | None = None, experimental_aggregate_gradients: bool = True
    ) -> Any:
        """`apply()` for pairs of gradient and variable.

        Args:
            grads_and_vars: iterable of (gradient, variable) pairs; a gradient may be None.
            name: str, name of the operations; the optimizer's when None.
            experimental_aggregate_gradients: bool; False says that the gradients were summed over TensorFlow's
                replicas already.

        Returns:
            The number of updates made.

        Raises:
            TypeError: if `grads_and_vars` is malformed.
            ValueError: if there is no gradient at all.
            RuntimeError: if called outside of TensorFlow's replicas.
        """
        pairs = gradients.pairs(grads_and_vars)
        if not pairs:
            return self.iterations
        grads, variables = zip(*pairs)
        if self.backend.name == "tensorflow":
            require_replica_context()
            if not experimental_aggregate_gradients and self.replicas() > 1:
                # Keras 3 will sum them again.
                grads = gradients.scaled(grads, 1.0 / self.replicas())
        with keras.name_scope(name) if name else contextlib.nullcontext():
            self.apply(grads, variables)
        return self.iterations
