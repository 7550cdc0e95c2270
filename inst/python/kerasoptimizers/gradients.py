"""What is done to gradients before the inner optimizer sees them: clipping.

`xp` is the namespace of tensor functions: `keras.ops`, or its like for Keras 2.
"""

import numpy as np

from . import arguments


def clip(gradients, xp, clipnorm=None, clipvalue=None, global_clipnorm=None):
    """Clip by value, then each gradient by its norm, or all by their common norm.

    A gradient may be None (left so) or sparse (`tf.IndexedSlices`): repeated
    rows are added up first, because the norm of the gradient is that of the sum.
    """
    if clipnorm is None and clipvalue is None and global_clipnorm is None:
        return gradients
    gradients = [_merge_repeated_rows(g) for g in gradients]
    if clipvalue is not None:
        gradients = _map(lambda g: xp.clip(g, -clipvalue, clipvalue), gradients)
    if clipnorm is not None:
        gradients = _map(lambda g: _limit(g, _squared_norm(g, xp), clipnorm, xp), gradients)
    if global_clipnorm is not None:
        squared_norm = sum(_squared_norm(_values(g), xp) for g in gradients if g is not None)
        gradients = _map(lambda g: _limit(g, squared_norm, global_clipnorm, xp), gradients)
    return gradients


def scaled(gradients, factor):
    """Each gradient, where there is one, times a number."""
    return _map(lambda values: values * factor, gradients)


def _limit(values, squared_norm, largest, xp):
    norm = xp.sqrt(squared_norm)
    # Divided last, as TensorFlow does: the originals' numbers come out.
    return values * largest / xp.cast(xp.maximum(norm, largest), values.dtype)


def _squared_norm(values, xp):
    # float16 overflows at 65504, which a sum of squares passes easily.
    return xp.sum(xp.square(xp.cast(values, "float32")))


def _map(function, gradients):
    return [None if g is None else _with_values(g, function(_values(g))) for g in gradients]


def _is_sparse(gradient):
    return type(gradient).__name__ == "IndexedSlices"


def _values(gradient):
    return gradient.values if _is_sparse(gradient) else gradient


def _with_values(gradient, values):
    if not _is_sparse(gradient):
        return values
    return type(gradient)(values, gradient.indices, gradient.dense_shape)


def _merge_repeated_rows(gradient):
    if not _is_sparse(gradient):
        return gradient
    import tensorflow as tf

    rows, position = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, position, tf.size(rows))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


def pairs(grads_and_vars):
    """The (gradient, variable) pairs as a list, or an error where they are none."""
    try:
        listed = [tuple(pair) for pair in grads_and_vars]
    except TypeError:
        listed = [()]
    if any(len(pair) != 2 or not arguments.is_variable(pair[1]) for pair in listed):
        raise TypeError("`grads_and_vars` must be (gradient, variable) pairs.")
    for gradient, variable in listed:
        if gradient is not None and not _fits(gradient, variable.shape):
            raise ValueError(
                "`grads_and_vars` must hold gradients of the shapes of their variables, not "
                f"{arguments.describe(gradient)} for a variable of shape {tuple(variable.shape)}."
            )
    if listed and all(gradient is None for gradient, _ in listed):
        raise ValueError(
            "`grads_and_vars` must hold at least one gradient, not None for every variable."
        )
    return listed


def _fits(gradient, shape):
    if isinstance(gradient, (str, bytes)):
        return False
    given = gradient.shape if hasattr(gradient, "shape") else np.shape(gradient)
    # TensorFlow may not know the shape yet.
    known = getattr(given, "is_compatible_with", None)
    return tuple(given) == tuple(shape) if known is None else known(shape)


def _require_loss(found, loss):
    if not found:
        allowed = "a function without arguments that returns a tensor, or a tensor"
        arguments.refuse("loss", allowed, loss)


# Gradients of a loss: what `minimize()` needs from each backend. `native` gives the backend's own
# variable, `weight` the gradient of what is minimized with respect to the loss (None: one).


def _some_variables(variables):
    variables = arguments.variables("var_list", variables)
    if not variables:
        raise ValueError("`var_list` must hold at least one variable.")
    return variables


def _are_tensors(loss):
    import tensorflow as tf

    parts = tf.nest.flatten(loss)
    return bool(parts) and all(tf.is_tensor(part) for part in parts)


def with_tensorflow(loss, variables, native, weight, tape):
    import tensorflow as tf

    if callable(loss):
        with tape or tf.GradientTape() as tape:
            # `variables` may be a function where they come into being with the loss.
            loss = loss()
        variables = variables() if callable(variables) else variables
        _require_loss(_are_tensors(loss), loss)
    else:
        _require_loss(_are_tensors(loss), loss)
        if tape is None:
            raise ValueError("`tape` must be the GradientTape that computed `loss`, not None.")
    variables = _some_variables(variables)
    return tape.gradient(loss, [native(v) for v in variables], weight), variables


def with_torch(loss, variables, native, weight, tape):
    import torch

    loss = loss() if callable(loss) else loss
    _require_loss(torch.is_tensor(loss), loss)
    variables = _some_variables(variables() if callable(variables) else variables)
    inputs = [native(variable) for variable in variables]
    return list(torch.autograd.grad(loss, inputs, weight, allow_unused=True)), variables


def with_jax(loss, variables, native, weight, tape):
    import jax
    import keras

    if not callable(loss):
        raise TypeError("`loss` must be a function without arguments on JAX, not its value.")
    variables = _some_variables(variables() if callable(variables) else variables)

    def of_values(values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values))):
            value = loss()
            _require_loss(hasattr(value, "dtype"), value)
            return value

    value, pull_back = jax.vjp(of_values, [native(variable) for variable in variables])
    weight = jax.numpy.ones_like(value) if weight is None else jax.numpy.asarray(weight, value.dtype)
    return list(pull_back(weight)[0]), variables
