"""Gradients before the inner optimizer sees them: checks and clipping.

`xp` is the namespace of tensor functions: `keras.ops`, or the same functions for Keras 2.
"""

import contextlib

import numpy as np

from . import arguments


def clip(gradients, xp, clipnorm=None, clipvalue=None, global_clipnorm=None, keep_bad=False):
    """Clip by value, then each gradient by its norm, or all by their common norm.

    A gradient may be None (left so) or sparse (`tf.IndexedSlices`): repeated
    rows are added up first, because the norm of the gradient is that of the sum.

    Args:
        keep_bad: bool, whether an infinite gradient must not become a finite one: a loss scale that comes
            afterwards skips the update then.
    """
    if clipnorm is None and clipvalue is None and global_clipnorm is None:
        return gradients
    gradients = [_merge_repeated_rows(g) for g in gradients]
    if clipvalue is not None:
        gradients = _map(lambda g: _limit_values(g, clipvalue, keep_bad, xp), gradients)
    if clipnorm is not None:
        gradients = _map(lambda g: _limit(g, _squared_norm(g, xp), clipnorm, xp), gradients)
    if global_clipnorm is not None:
        squared_norm = sum(_squared_norm(_values(g), xp) for g in gradients if g is not None)
        gradients = _map(lambda g: _limit(g, squared_norm, global_clipnorm, xp), gradients)
    return gradients


def scaled(gradients, factor):
    """Each gradient, where there is one, times a number."""
    return _map(lambda values: values * factor, gradients)


def _limit_values(values, largest, keep_bad, xp):
    wide, largest = _wide(values, largest, xp)
    clipped = xp.clip(wide, -largest, largest)
    # 0 times infinity is not a number.
    return xp.cast(clipped + 0 * wide if keep_bad else clipped, values.dtype)


def _limit(values, squared_norm, largest, xp):
    wide, largest = _wide(values, largest, xp)
    norm = xp.cast(xp.sqrt(squared_norm), wide.dtype)
    # Divided last, as TensorFlow does, so that the numbers are the same.
    return xp.cast(wide * largest / xp.maximum(norm, largest), values.dtype)


def _wide(values, largest, xp):
    """Values and their limit in a type that holds the product with a loss scale."""
    wide = values if "64" in str(values.dtype) else xp.cast(values, "float32")
    return wide, xp.cast(largest, wide.dtype)


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
                f"{arguments.in_short(gradient)} for a variable of shape {tuple(variable.shape)}."
            )
    if listed and all(gradient is None for gradient, _ in listed):
        raise ValueError("`grads_and_vars` must hold at least one gradient, not None for every variable.")
    return listed


def _fits(gradient, shape):
    if isinstance(gradient, (str, bytes)):
        return False
    given = gradient.shape if hasattr(gradient, "shape") else np.shape(gradient)
    # TensorFlow may not know the shape yet.
    known = getattr(given, "is_compatible_with", None)
    return tuple(given) == tuple(shape) if known is None else known(shape)


@contextlib.contextmanager
def naming_unknown(optimizer, variables):
    """Say in one line which variable it is, where Keras meets one that it does not know."""
    try:
        yield
    except Exception:  # in a graph Keras 3.8 fails to write its message
        refuse_unknown(optimizer, variables or ())
        raise


def refuse_unknown(optimizer, variables):
    """Raise where a built optimizer does not know all of these variables."""
    for variable in variables if optimizer.built else ():
        float8 = getattr(variable, "overwrite_with_gradient", False)
        if optimizer.position(variable) is None and not float8:
            _refuse_other_model(f", and not for {arguments.variable_name(variable)}")


def _refuse_other_model(which):
    error = ValueError(
        f"`optimizer` was built for other variables{which}: make a new one for each model. (In tidymodels each "
        "resample is a model: a name from register_keras_optimizer() of kerasnip makes a new optimizer each time, an "
        "object in `compile_optimizer` does not.)"
    )
    # TensorFlow would make many lines of it where it traces a step.
    error.ag_pass_through = True  # type: ignore[attr-defined]
    raise error from None


def require_same_variables(optimizer, known, variables):
    """Raise where a built inner optimizer knows other variables, by their keys, than these."""
    if {optimizer.key(variable) for variable in variables} != set(known):
        _refuse_other_model(" than this model's")
