"""What all our Keras 2 optimizers build on."""

import contextlib
from types import SimpleNamespace

import tensorflow as tf
import tf_keras

from .. import gradients
from ..surface import Surface, graph_gradients, require_replica_context


class Base(Surface, tf_keras.optimizers.Optimizer):
    """A Keras 2 optimizer with the methods of the originals."""

    _keras = tf_keras
    _generation = "Keras 2 (Python's tf_keras, R's keras::compile())"
    _xp = SimpleNamespace(
        cast=tf.cast,
        clip=tf.clip_by_value,
        cos=tf.cos,
        maximum=tf.maximum,
        minimum=tf.minimum,
        sqrt=tf.sqrt,
        square=tf.square,
        stack=tf.stack,
        sum=tf.reduce_sum,
        where=tf.where,
    )

    @staticmethod
    def _native(variable):
        return variable

    @staticmethod
    def _dtype(variable):
        # Under mixed precision a variable shows the type it is cast to.
        return tf.as_dtype(getattr(variable, "true_dtype", variable.dtype)).name

    @property
    def built(self):
        """Whether the variables of this optimizer exist, as in Keras 3."""
        return getattr(self, "_built", False)

    def _position(self, variable):
        try:
            return self._index_dict.get(self._var_key(variable))
        except AttributeError:
            return None  # no variable at all, or not built

    @staticmethod
    @contextlib.contextmanager
    def _outside_of_graphs():
        """Where variables are created at once: TensorFlow traces a step again whose trace has made some."""

        def create(next_creator, **settings):
            return next_creator(**{**settings, "experimental_enable_variable_lifting": False})

        with tf.init_scope(), tf.variable_creator_scope(create):
            yield

    def _add(self, name, shape, dtype, initializer, beside):
        """Add a variable, placed on the devices of the variable `beside` where one is given."""
        initializer = tf_keras.initializers.get(initializer)
        with self._distribution_strategy.extended.colocate_vars_with(beside):
            return self.add_variable(shape=shape, dtype=dtype, initializer=initializer, name=name)

    def _gradients(self, loss, variables, weight, tape):
        return gradients.with_tensorflow(loss, variables, self._native, weight, tape)

    def _graph_gradients(self, loss, variables):
        return graph_gradients(loss, variables)

    def apply_gradients(
        self,
        grads_and_vars,
        name=None,
        skip_gradients_aggregation=False,
        experimental_aggregate_gradients=True,
    ):
        """Update variables by their gradients.

        Args:
            grads_and_vars: iterable of (gradient, variable) pairs; a gradient may be None.
            name: str, name of the operations; the optimizer's when None.
            skip_gradients_aggregation: bool, whether the gradients were summed
                over the replicas already.
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
        with self._naming_unknown([variable for _, variable in pairs]):
            return self._apply_pairs(pairs, name, skip)

    def _apply_pairs(self, pairs, name, skip_gradients_aggregation):
        return super().apply_gradients(
            pairs, name=name, skip_gradients_aggregation=skip_gradients_aggregation
        )
