"""The plane through three weight vectors, and a model placed on its points."""

import contextlib
import functools
from typing import Any

import numpy as np

from . import arguments, backends
from .values import Held, variables_of


class LossPlane(contextlib.ExitStack):
    """The plane through three weight vectors of a model.

    Its first axis points from the first vector to the second. The second axis is at a right angle to it, towards the
    third. Coordinates are distances, so the plane isn't distorted. Only the trainable weights move. At the end of a
    `with` the model gets its own values back, bit for bit, whatever happens.

        with LossPlane(model, [start, sgd, swa]) as plane:
            plane.place(*plane.points[2])
            loss = model.evaluate(x, y)

    Args:
        model: a built Keras model, of Keras 3 or Keras 2.
        vectors: list of three lists of arrays, each as `model.get_weights()` returns it.

    Attributes:
        points: float64 array of shape (3, 2), the coordinates of the three vectors.

    Raises:
        ValueError: if there are not three vectors, one of them has not the model's shapes or is not finite, or they
            lie on one line.

    References:
        Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization, arXiv 1803.05407,
        figure 1 and appendix.
    """

    def __init__(self, model: Any, vectors: Any):
        super().__init__()
        vectors = list(vectors)
        if len(vectors) != 3:
            raise ValueError(f"`weights` must be three weight vectors, not {len(vectors)}.")
        weights = _places(model)
        for number, vector in enumerate(vectors, 1):
            _check_shapes(number, vector, weights)
        trainable = {id(weight) for weight in model.trainable_weights}
        moves = [i for i, weight in enumerate(weights) if id(weight) in trainable]
        if not moves:
            raise ValueError("`model` must have trainable weights.")
        self._model, self._variables = model, [weights[i] for i in moves]
        flat = [np.concatenate([np.asarray(vector[i], "float64").ravel() for i in moves]) for vector in vectors]
        if not np.isfinite(flat).all():
            raise ValueError("`weights` must be finite.")
        self._origin = flat[0]
        first, second = flat[1] - flat[0], flat[2] - flat[0]
        length = np.linalg.norm(first)
        if length == 0:
            raise ValueError("`weights` must not be on one line: the first two are the same.")
        self._first = first / length
        along = second @ self._first
        second = second - along * self._first
        height = np.linalg.norm(second)
        # float32 weights lie on a line only up to rounding.
        if height <= 1e-6 * max(length, abs(along)):
            raise ValueError("`weights` must not be on one line.")
        self._second = second / height
        self.points = np.array([[0.0, 0.0], [length, 0.0], [along, height]])

    def place(self, first: float, second: float) -> None:
        """Set the model's trainable weights to a point of the plane.

        Args:
            first, second: float, its coordinates.
        """
        backend = _backend_of(self._variables[0])
        flat = self._origin + first * self._first + second * self._second
        ends = np.cumsum([np.prod(variable.shape, dtype=int) for variable in self._variables])
        for variable, values in zip(self._variables, np.split(flat, ends[:-1])):
            backend.write(variable, backend.cast(values.reshape(variable.shape), backend.dtype(variable)))

    def __enter__(self):
        # Not the weights only: an evaluate() that breaks off on JAX loses seeds, too.
        variables = variables_of(self._model)
        held = Held(variables, _backend_of(variables[0]))
        for _ in range(2):  # as for values.Undoing
            self.push(lambda *error: held.undo())
        return self

    # Python's own, so that an interrupt can't come before its first line. R calls it without arguments.
    __exit__ = functools.partialmethod(contextlib.ExitStack.__exit__, None, None, None)


def _places(model):
    """For each array of `model.get_weights()` its variable; None for those of a lookup table."""
    places: list[Any] = []
    for weight in model.weights:
        places += [None] * weight.num_tensors if arguments.is_table(weight) else [weight]
    return places


def _check_shapes(number, vector, weights):
    expected = [None if weight is None else tuple(weight.shape) for weight in weights]
    given = [np.shape(values) for values in vector]
    if len(given) != len(expected) or any(a not in (None, b) for a, b in zip(expected, given)):
        shapes = [shape for shape in expected if shape is not None]
        raise ValueError(
            f"`weights` must be of the shapes of the model's weights, {shapes}; number {number} is of shapes {given}."
        )


def _backend_of(variable):
    """How to read and write a variable. In Keras 3 its value is a property, in TensorFlow a method."""
    if callable(getattr(variable, "value", None)):
        return backends.named("tensorflow")
    import keras

    return backends.named(keras.backend.backend())
