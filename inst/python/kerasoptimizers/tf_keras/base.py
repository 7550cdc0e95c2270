"""The base of all our Keras 2 optimizers."""

import contextlib
from typing import Any

import tensorflow as tf
import tf_keras

from .. import gradients
from ..backends.tensorflow import TensorFlow
from ..legacy import LegacyMethods, require_replica_context
from . import private


class Base(LegacyMethods, tf_keras.optimizers.Optimizer):
    """A Keras 2 optimizer with the methods that TensorFlow Addons' and the Model Garden's optimizers had."""

    keras = tf_keras
    private = private
    generation = "Keras 2 (Python's tf_keras, R's keras::compile())"
    backend = TensorFlow()

    @property
    def built(self) -> bool:
        """Whether the variables of this optimizer exist, as in Keras 3."""
        return getattr(self, "_built", False)

    def key(self, variable: Any) -> Any:
        return private.variable_key(self, variable)

    @staticmethod
    @contextlib.contextmanager
    def outside_of_traces():
        """Where variables are made at once: a step whose trace makes some is traced again."""

        def create(next_creator, **settings):
            return next_creator(**{**settings, "experimental_enable_variable_lifting": False})

        with tf.init_scope(), tf.variable_creator_scope(create):
            yield

    def new_variable(self, name, shape, dtype, initializer, beside):
        """Add a variable, on the devices of the variable `beside` if one is given."""
        initializer = tf_keras.initializers.get(initializer)
        with self.outside_of_traces(), private.strategy(self).extended.colocate_vars_with(beside):
            return self.add_variable(shape=shape, dtype=dtype, initializer=initializer, name=name)

    def apply_gradients(
        self,
        grads_and_vars: Any,
        name: str | None = None,
        skip_gradients_aggregation: bool = False,
        experimental_aggregate_gradients: bool = True,
    ) -> Any:
        """Update variables by their gradients.

        Args:
            grads_and_vars: iterable of (gradient, variable) pairs; a gradient may be None.
            name: str, name of the operations; the optimizer's when None.
            skip_gradients_aggregation: bool, whether the gradients were summed over the replicas already.
            experimental_aggregate_gradients: bool, the older opposite of it.

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
        require_replica_context()
        skip = skip_gradients_aggregation or not experimental_aggregate_gradients
        with gradients.naming_unknown(self, [variable for _, variable in pairs]):
            return self.apply_pairs(pairs, name, skip)

    def apply_pairs(self, pairs: list, name: str | None, skip_gradients_aggregation: bool) -> Any:
        return super().apply_gradients(pairs, name=name, skip_gradients_aggregation=skip_gradients_aggregation)


def require_eager() -> None:
    """Raise where Keras 2 trains with graphs only: `fit()` would change nothing there, and say nothing."""
    if not tf.compat.v1.executing_eagerly_outside_functions():
        raise RuntimeError(
            "Keras 2 in graph mode is not supported: remove tf.compat.v1.disable_eager_execution() from the program."
        )
