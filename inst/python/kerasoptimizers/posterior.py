"""SWAG's Gaussian over weights: what it keeps of the snapshots, and how weights are drawn from it.

Arithmetic on NumPy arrays, without Keras. After snapshot number n of weights w (Welford, in float64)

    mean  <-  mean + (w - mean_before) / n
    M2    <-  M2 + (w - mean_before) (w - mean)          variance = M2 / n
    D     <-  the last `rank` deviations w - mean

and a draw, with standard normal z1 (one number for each weight) and z2 (one for each column of D, the same for all
variables: that is what couples the layers), is

    mean + sqrt(scale) * (sqrt(variance) z1 + D z2 / sqrt(max(min(n, rank) - 1, 1)))

so that the covariance of the draws is scale * (diag(variance) + D D' / (columns - 1)).

The authors' code keeps a mean of squares in float32 instead. Their variance then is the difference of two large
numbers: with weights around 100 that vary by 1e-3 it is a thousand times too large, or negative.

Maddox et al. 2019, A Simple Baseline for Bayesian Uncertainty in Deep Learning, arXiv 1902.02476.
"""

from typing import Any, NamedTuple

import numpy as np

from .files import listed, numbered


class State(NamedTuple):
    """The state of a posterior. It is replaced as a whole: an interrupt leaves the old one or the new one."""

    snapshots: int = 0
    #: float64 arrays, one for each variable.
    mean: tuple[np.ndarray, ...] = ()
    squares: tuple[np.ndarray, ...] = ()
    #: For each of the last snapshots, oldest first, an array for each variable: float32 or wider.
    columns: tuple[tuple[np.ndarray, ...], ...] = ()
    #: Of the variables.
    names: tuple[str, ...] = ()


class Posterior:
    """A Gaussian over weights, with a diagonal and a low-rank part.

    Args:
        rank: int >= 0, how many deviations it keeps. 0 keeps the diagonal only.
    """

    def __init__(self, rank: int):
        self.rank, self.state = rank, State()

    def forget(self) -> None:
        """Begin anew."""
        self.state = State()

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return [mean.shape for mean in self.state.mean]

    @property
    def variance(self) -> list[np.ndarray]:
        """The variance of each weight over the snapshots, with their number as divisor."""
        return [squares / max(self.state.snapshots, 1) for squares in self.state.squares]

    @property
    def deviations(self) -> list[np.ndarray]:
        """For each variable an array of shape (columns, *shape), oldest column first."""
        columns = self.state.columns
        shapes = [(len(columns), *shape) for shape in self.shapes]
        return [np.array([column[i] for column in columns]).reshape(shape) for i, shape in enumerate(shapes)]

    def add(self, weights: list[np.ndarray], names: list[str]) -> None:
        """Take one snapshot.

        Args:
            weights: list of arrays of any floating type, of the same shapes each time.
            names: list of str, of the weights.
        """
        old = self.state
        count = old.snapshots + 1
        means = old.mean or tuple(np.zeros(w.shape) for w in weights)
        squares = old.squares or tuple(np.zeros(w.shape) for w in weights)
        new_means, new_squares, column = [], [], []
        for w, mean, square in zip(weights, means, squares):
            width = np.result_type("float32", w.dtype if w.dtype.kind == "f" else "float32")
            w = w.astype("float64")
            before = w - mean
            new_means.append(w if count == 1 else mean + before / count)
            after = w - new_means[-1]
            new_squares.append(square if count == 1 else square + before * after)
            if self.rank:
                column.append(after.astype(width))
        columns = (*old.columns, tuple(column))[-self.rank :] if self.rank else ()
        self.state = State(count, tuple(new_means), tuple(new_squares), columns, tuple(names))

    def normals(
        self, generator: np.random.Generator, size: tuple[int, ...] = ()
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Standard normal numbers for draws: (z1, z2), as `draw()` takes them."""
        z1 = [generator.standard_normal((*size, *shape)) for shape in self.shapes]
        return z1, generator.standard_normal((*size, len(self.state.columns)))

    def draw(self, scale: float, z1: list[np.ndarray], z2: np.ndarray | None) -> list[np.ndarray]:
        """Weights for given normal numbers.

        Args:
            scale: float >= 0, what multiplies the covariance.
            z1: list of arrays, each of its variable's shape; axes before these make several draws at once.
            z2: array of shape (..., columns); None for the diagonal part only.

        Returns:
            list of float64 arrays.
        """
        state, size = self.state, len(self.state.columns)
        divisor, found = np.sqrt(max(size - 1, 1)), []
        for i, (mean, variance, z) in enumerate(zip(state.mean, self.variance, z1)):
            noise = np.sqrt(variance) * z
            for k in range(size if z2 is not None else 0):
                # For one draw a number, for several an array that varies along their axes only.
                factor = np.asarray(z2)[..., k].reshape((*np.shape(z2)[:-1], *[1] * mean.ndim))
                noise += factor / divisor * state.columns[k][i]
            found.append(mean + np.sqrt(scale) * noise)
        return found

    def sample(self, scale: float, generator: np.random.Generator) -> list[np.ndarray]:
        """One draw."""
        return self.draw(scale, *self.normals(generator))

    # In a file.

    def entries(self) -> dict[str, Any]:
        """All that it knows, as `files.save_arrays()` takes it."""
        state = self.state
        lists = {"mean": state.mean, "squares": state.squares, "deviations": self.deviations}
        found: dict[str, Any] = {"snapshots": state.snapshots, "rank": self.rank}
        if state.names:
            found["names"] = np.array(state.names)
        for name, arrays in lists.items():
            found.update(numbered(name, arrays))
        return found

    def take_entries(self, entries: dict[str, Any]) -> None:
        """Become what these entries say.

        Raises:
            KeyError, ValueError, TypeError: if they are not those of a posterior.
        """
        mean, squares, deviations = (listed(name, entries) for name in ("mean", "squares", "deviations"))
        names, snapshots = tuple(map(str, entries.get("names", ()))), int(entries["snapshots"])
        rank, shapes = int(entries["rank"]), [array.shape for array in mean]
        count = min(snapshots, rank)
        fits = [array.shape for array in squares] == shapes and len(names) == len(mean)
        if not fits or [array.shape for array in deviations] != [(count, *shape) for shape in shapes]:
            raise ValueError("arrays differ in shape")
        columns = tuple(tuple(array[k] for array in deviations) for k in range(count if mean else 0))
        self.rank, self.state = rank, State(snapshots, tuple(mean), tuple(squares), columns, names)
