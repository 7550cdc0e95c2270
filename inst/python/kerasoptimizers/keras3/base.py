"""What all our Keras 3 optimizers build on."""

import contextlib

import keras

from .. import gradients
from ..surface import Surface, graph_gradients, require_replica_context

_GRADIENTS = {
    "tensorflow": gradients.with_tensorflow,
    "jax": gradients.with_jax,
    "torch": gradients.with_torch,
}


class Base(Surface, keras.optimizers.Optimizer):
    """A Keras 3 optimizer with the methods of the originals."""

    _keras = keras
    _generation = "Keras 3 (Python's keras, R's keras3::compile())"
    _xp = keras.ops

    @staticmethod
    def _native(variable):
        return variable.value if isinstance(variable, keras.Variable) else variable

    @staticmethod
    def _dtype(variable):
        return keras.backend.standardize_dtype(variable.dtype)

    def _position(self, variable):
        try:
            return self._trainable_variables_indices.get(self._var_key(variable))
        except AttributeError:
            return None  # no variable at all

    def _add(self, name, shape, dtype, initializer, beside):
        """Add a variable, placed on the devices of the variable `beside` where one is given."""
        place = contextlib.nullcontext()
        if beside is not None and keras.backend.backend() == "tensorflow":
            place = self._distribution_strategy.extended.colocate_vars_with(self._native(beside))
        layout = getattr(beside, "_layout", None)
        if layout is None or tuple(beside.shape) != tuple(shape):
            sharding = {}  # which Keras 3.8 does not know
        else:
            sharding = {"layout": layout}
        with place:
            return self.add_variable(
                shape=shape, initializer=initializer, dtype=dtype, name=name, **sharding
            )

    def _outside_of_graphs(self, variables):
        """Where variables that start as copies of `variables` can be created during tracing."""
        if keras.backend.backend() != "tensorflow":
            return contextlib.nullcontext()
        import tensorflow as tf

        with tf.init_scope():
            # Weights that the same trace creates have no value yet: TensorFlow starts the copies
            # with them then.
            ready = all(self._native(variable).is_initialized() for variable in variables)
        return tf.init_scope() if ready else contextlib.nullcontext()

    def _replicas(self):
        if keras.backend.backend() != "tensorflow":
            return 1
        return self._distribution_strategy.num_replicas_in_sync

    def _clip_over_replicas(self, clip, grads, variables):
        """`clip(grads)`, or what amounts to it on several replicas, over which Keras 3 will sum."""
        replicas = self._replicas()
        if replicas == 1 or not (self.clipnorm or self.clipvalue or self.global_clipnorm):
            return clip(grads)
        # What is limited is the gradient of all replicas.
        summed = self._all_reduce_sum_gradients(zip(grads, variables))
        return gradients.scaled(clip([gradient for gradient, _ in summed]), 1.0 / replicas)

    def _gradients(self, loss, variables, weight, tape):
        compute = _GRADIENTS[keras.backend.backend()]
        return compute(loss, variables, self._native, weight, tape)

    def _graph_gradients(self, loss, variables):
        backend = keras.backend.backend()
        if backend == "tensorflow":
            return graph_gradients(loss, [self._native(v) for v in variables])
        if backend == "torch":
            return self._gradients(loss, variables, None, None)[0]
        raise RuntimeError(
            "get_gradients() and get_updates() need the graph of a tensor, which JAX doesn't keep; "
            "use minimize() with a function that returns the loss."
        )

    def apply_gradients(self, grads_and_vars, name=None, experimental_aggregate_gradients=True):
        """`apply()` for pairs of gradient and variable.

        Args:
            grads_and_vars: iterable of (gradient, variable) pairs; a gradient may be None.
            name: str, name of the operations; the optimizer's when None.
            experimental_aggregate_gradients: bool; False says that the gradients
                were summed over TensorFlow's replicas already.

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
        if keras.backend.backend() == "tensorflow":
            require_replica_context()
            if not experimental_aggregate_gradients and self._replicas() > 1:
                # Keras 3 will sum them again.
                grads = gradients.scaled(grads, 1.0 / self._replicas())
        with keras.name_scope(name) if name else contextlib.nullcontext():
            self.apply(grads, variables)
        return self.iterations
