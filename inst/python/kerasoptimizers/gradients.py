"""What is done to gradients before the inner optimizer sees them: clipping.

`xp` is the namespace of tensor functions: `keras.ops`, or its like for Keras 2.
"""


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
    if any(len(pair) != 2 or not hasattr(pair[1], "assign") for pair in listed):
        raise TypeError("`grads_and_vars` must be (gradient, variable) pairs.")
    if listed and all(gradient is None for gradient, _ in listed):
        raise ValueError(
            "`grads_and_vars` must hold at least one gradient, not None for every variable."
        )
    return listed


# Gradients of a loss: what `minimize()` needs from each backend. `native` gives the backend's own
# variable, `weight` the gradient of what is minimized with respect to the loss (None: one).


def with_tensorflow(loss, variables, native, weight, tape):
    import tensorflow as tf

    if callable(loss):
        with tape or tf.GradientTape() as tape:
            # `variables` may be a function where they come into being with the loss.
            loss = loss()
        variables = variables() if callable(variables) else variables
    elif tape is None:
        raise ValueError("`tape` must be the GradientTape that computed `loss`, not None.")
    variables = list(variables)
    return tape.gradient(loss, [native(v) for v in variables], weight), variables


def with_torch(loss, variables, native, weight, tape):
    import torch

    loss = loss() if callable(loss) else loss
    variables = list(variables() if callable(variables) else variables)
    inputs = [native(variable) for variable in variables]
    return list(torch.autograd.grad(loss, inputs, weight, allow_unused=True)), variables


def with_jax(loss, variables, native, weight, tape):
    import jax
    import keras

    if not callable(loss):
        raise TypeError("`loss` must be a function without arguments on JAX, not its value.")
    variables = list(variables() if callable(variables) else variables)

    def of_values(values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values))):
            return loss()

    value, pull_back = jax.vjp(of_values, [native(variable) for variable in variables])
    weight = jax.numpy.ones_like(value) if weight is None else jax.numpy.asarray(weight, value.dtype)
    return list(pull_back(weight)[0]), variables
