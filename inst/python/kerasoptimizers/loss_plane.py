"""The plane through three weight vectors, and a model placed on its points."""

import numpy as np


class LossPlane:
    """The plane through three weight vectors of a model.

    Its first axis points from the first vector to the second; the second axis is at a right angle
    to it, towards the third. Coordinates are distances, so the plane isn't distorted. Only the
    trainable weights move; the others stay as they are in the model. Used with `with`, the model
    has its own weights back at the end, bit for bit, whatever happens.

        with LossPlane(model, [start, sgd, swa]) as plane:
            plane.place(*plane.points[2])
            loss = model.evaluate(x, y)

    Args:
        model: a built Keras model of either generation.
        vectors: list of three lists of arrays, each as `model.get_weights()` returns it.

    Attributes:
        points: float64 array of shape (3, 2), the coordinates of the three vectors.

    Raises:
        ValueError: if there are not three vectors, one of them has not the model's shapes or is not
            finite, or they lie on one line.

    References:
        Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization,
        arXiv 1803.05407, figure 1 and appendix.
    """

    def __init__(self, model, vectors):
        self._model, vectors = model, list(vectors)
        if len(vectors) != 3:
            raise ValueError(f"`weights` must be three weight vectors, not {len(vectors)}.")
        shapes = [tuple(weight.shape) for weight in model.weights]
        for number, vector in enumerate(vectors, 1):
            given = [np.shape(values) for values in vector]
            if given != shapes:
                raise ValueError(
                    f"`weights` must be of the shapes of the model's weights, {shapes}; number "
                    f"{number} is of the shapes {given}."
                )
        trainable = {id(weight) for weight in model.trainable_weights}
        moves = [i for i, weight in enumerate(model.weights) if id(weight) in trainable]
        if not moves:
            raise ValueError("`model` must have trainable weights.")
        self._variables = [model.weights[i] for i in moves]
        flat = [
            np.concatenate([np.asarray(vector[i], "float64").ravel() for i in moves])
            for vector in vectors
        ]
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
        # float32 weights on a line are so up to rounding.
        if height <= 1e-6 * max(length, abs(along)):
            raise ValueError("`weights` must not be on one line.")
        self._second = second / height
        self.points = np.array([[0.0, 0.0], [length, 0.0], [along, height]])

    def place(self, first, second):
        """Set the model's trainable weights to a point of the plane.

        Args:
            first, second: float, its coordinates.
        """
        flat = self._origin + first * self._first + second * self._second
        begin = 0
        for variable in self._variables:
            end = begin + int(np.prod(variable.shape))
            values = flat[begin:end].reshape(variable.shape)
            variable.assign(values.astype(np.array(variable.numpy()).dtype))
            begin = end

    def __enter__(self):
        self._own = [np.array(variable.numpy()) for variable in self._model.weights]
        return self

    def __exit__(self, *error):
        for variable, value in zip(self._model.weights, self._own):
            variable.assign(value)
