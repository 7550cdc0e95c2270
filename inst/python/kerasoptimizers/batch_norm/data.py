"""Batches of model inputs from whatever `fit()` takes."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from .. import arguments


def map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    """`value` with `function` applied to each array in its lists, tuples and dicts."""
    if isinstance(value, dict):
        return {key: map_leaves(function, part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        parts = [map_leaves(function, part) for part in value]
        return parts if isinstance(value, list) else tuple(parts)
    return function(value)


def leaves(value: Any) -> list[Any]:
    """The arrays in lists, tuples and dicts, without None."""
    found: list[Any] = []
    map_leaves(found.append, value)
    return [leaf for leaf in found if leaf is not None]


def require_data(data: Any, batch_size: int, again: bool = True) -> None:
    """Raise unless `data` is None, or inputs (with `again`, inputs that can be drawn more than once)."""
    if again and hasattr(data, "__next__"):
        arguments.refuse("data", "data that can be drawn more than once", data)
    if data is not None:
        batches(data, batch_size, None, name="data")


def batches(x: Any, batch_size: int, steps: int | None, name: str = "x") -> tuple[int | None, Iterator[Any]]:
    """Batches of model inputs.

    Args:
        x: as for `update_batch_norm()`.
        batch_size: int >= 1, for arrays.
        steps: int >= 1, or None for all.
        name: str, the argument that `x` was given as.

    Returns:
        (number of batches or None if it isn't known, iterator)

    Raises:
        TypeError, ValueError: in one line, before anything is drawn.
    """
    if hasattr(x, "__next__"):
        if steps is None:
            raise ValueError("`steps` must be given for a generator: it says where a pass ends.")
        return steps, _inputs(x, steps)
    if hasattr(x, "element_spec"):  # a tf.data.Dataset
        count = int(x.cardinality()) if hasattr(x, "cardinality") else -2
        if count == -1 and steps is None:
            raise ValueError("`steps` must be given for a data set that repeats without end.")
        return _smaller(count if count >= 0 else None, steps), _inputs(x, steps)
    if hasattr(x, "__getitem__") and hasattr(x, "on_epoch_end"):  # a PyDataset or Sequence
        count = _smaller(_length(x), steps)
        if count is None:
            raise ValueError("`steps` must be given for a data set without a length.")
        return count, _inputs(map(x.__getitem__, range(count)), count)
    if is_batched(x):
        return _smaller(_length(x), steps), _inputs(x, steps)
    return _slices(x, batch_size, steps, name)


def is_batched(x: Any) -> bool:
    """Whether it gives batches: a data set or loader, and not arrays."""
    if hasattr(x, "element_spec") or (hasattr(x, "__getitem__") and hasattr(x, "on_epoch_end")):
        return True
    return hasattr(x, "__iter__") and not (hasattr(x, "shape") or isinstance(x, (list, tuple, dict, str)))


def refuse_misfit(model: Any, x: Any, name: str) -> None:
    """Raise in one line where inputs, with which a model has just failed, are not what it takes.

    Only afterwards, because some models take more than they say.

    Args:
        model: Keras model.
        x: one batch of inputs.
        name: str, the argument that they are from.

    Raises:
        ValueError: if the model says which inputs it takes, and these are others.
    """
    wanted = _inputs_of(model)
    if not wanted:
        return
    refuse_other_names(model, x, name)
    if isinstance(x, dict) and set(wanted) <= set(x):
        parts = {key: x[key] for key in wanted}
    else:
        parts = dict(zip(wanted, leaves(x)))
        if len(leaves(x)) != len(wanted):
            raise ValueError(
                f"`{name}` must hold {len(wanted)} input{'s'[: len(wanted) > 1]} for '{model.name}' "
                f"({', '.join(wanted)}), not {len(leaves(x))}."
            )
    for key, part in parts.items():
        if hasattr(part, "shape") and not _fits(part.shape, wanted[key]):
            of_input = f" for the input '{key}'" if len(wanted) > 1 else ""
            raise ValueError(
                f"`{name}` must have the shape {_shape(wanted[key])}{of_input} of '{model.name}', not "
                f"{_shape(part.shape)}."
            )


def refuse_other_names(model: Any, x: Any, name: str) -> None:
    """Raise in one line where named inputs are not those that a model says it takes; arguments as before."""
    wanted = _inputs_of(model)
    missing = [key for key in wanted if isinstance(x, dict) and key not in x]
    if not missing:
        return
    if len(wanted) > 1:
        known = ", ".join(wanted)
        raise ValueError(f"`{name}` must hold all inputs of '{model.name}' ({known}), and has no '{missing[0]}'.")
    if len(x) > 1:
        raise ValueError(
            f"`{name}` must be one array of shape {_shape(*wanted.values())}, as '{model.name}' has one input, not "
            f"{len(x)} named ones (in R, as.matrix() makes an array of a data frame of numbers)."
        )


def without_others(model: Any, x: Any) -> Any:
    """Named inputs without those that a model does not have: of several, Keras 3 could take the wrong ones."""
    wanted = _inputs_of(model) if isinstance(x, dict) else {}
    return {key: x[key] for key in wanted} if wanted and set(wanted) < set(x) else x


def _inputs_of(model):
    """{name: shape} of a model's inputs; empty where it doesn't say."""
    try:
        inputs = model.input
    except (AttributeError, RuntimeError, ValueError):
        inputs = None
    if not isinstance(inputs, dict):
        inputs = {one.name.split(":")[0]: one for one in getattr(model, "inputs", None) or ()}
    if not all(hasattr(one, "shape") for one in inputs.values()):
        return {}
    return {name: one.shape for name, one in inputs.items()}


def _sizes(shape):
    """A shape without its first dimension, the examples; None where it isn't known."""
    try:
        return [None if size is None else int(size) for size in tuple(shape)[1:]]
    except (TypeError, ValueError):
        return None


def _shape(shape):
    """A shape as messages show it."""
    return f"({', '.join(['examples', *('any' if size is None else str(size) for size in _sizes(shape) or ())])})"


def _fits(given, wanted):
    given, wanted = _sizes(given), _sizes(wanted)
    if given is None or wanted is None:
        return True
    # Keras adds and takes away a last dimension of 1.
    if len(given) == len(wanted) + 1 and given[-1] == 1:
        given = given[:-1]
    elif len(given) == len(wanted) - 1 and wanted[-1] == 1:
        given = [*given, 1]
    return len(given) == len(wanted) and all(None in pair or pair[0] == pair[1] for pair in zip(given, wanted))


def _length(x):
    try:
        return len(x)
    except TypeError:
        return None


def _smaller(*counts):
    return min((count for count in counts if count is not None), default=None)


def _inputs(elements, steps):
    for element in itertools.islice(elements, steps):
        # As in Keras, a list or tuple is (inputs, targets, sample weights).
        if isinstance(element, (list, tuple)):
            if not 1 <= len(element) <= 3:
                raise ValueError(
                    "`x` must give inputs, or tuples of inputs, targets and sample weights, not "
                    f"{type(element).__name__}s of {len(element)}."
                )
            element = element[0]
        yield element


def _slices(x, batch_size, steps, name):
    arrays = leaves(x)
    if not arrays or not all(len(getattr(array, "shape", ())) > 0 for array in arrays):
        arguments.refuse(name, "an array, a list or dict of arrays, a data set, or a generator", x)
    sizes = sorted({int(array.shape[0]) for array in arrays})
    if len(sizes) > 1:
        raise ValueError(f"`{name}` must hold arrays of one length, not of {' and '.join(map(str, sizes))}.")
    if sizes == [0]:
        raise ValueError(f"`{name}` must hold at least one example.")
    x = map_leaves(lambda array: array.to_numpy() if hasattr(array, "to_numpy") else array, x)
    starts = range(0, sizes[0], batch_size)[:steps]

    def part(start):
        return map_leaves(lambda array: None if array is None else array[start : start + batch_size], x)

    return len(starts), map(part, starts)
