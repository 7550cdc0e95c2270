"""Averages of any width, made after training of a few that were stored: Karras et al. 2024, arXiv 2312.02696."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import arguments, batch_norm
from .finishing import put, warn_of_statistics
from .generation import built_model
from .optimizer import AveragingOptimizer, with_inner
from .snapshots import Anatomy, Folder
from .values import Held, others_of
from .widths import gamma_of, width, widths

#: The widths to evaluate if none are given.
GRID = (0.03, 0.05, 0.07, 0.10, 0.13, 0.16, 0.20, 0.24, 0.28)


def _product(t_a, gamma_a, t_b, gamma_b):
    """The integral of the product of two averages' profiles: appendix C of the paper, algorithm 3."""
    power = np.where(t_a < t_b, gamma_b, -gamma_a)
    parts = (gamma_a + 1.0) * (gamma_b + 1.0) / (gamma_a + gamma_b + 1.0)
    return parts * (t_a / t_b) ** power / np.maximum(t_a, t_b)


def coefficients(times: Any, gammas: Any, t: float, gamma: float) -> np.ndarray:
    """The factors of stored averages whose sum is another average.

    Args:
        times: after how many updates each was stored.
        gammas: the power of each.
        t, gamma: those of the average that is wanted.

    Returns:
        float64 array, of sum 1.
    """
    times, gammas = np.asarray(times, "float64"), np.asarray(gammas, "float64")
    exact = (times == t) & (gammas == gamma)
    if exact.any():
        # It is there.
        return np.where(np.arange(len(times)) == exact.argmax(), 1.0, 0.0)
    products = _product(times[:, None], gammas[:, None], times[None], gammas[None])
    wanted = _product(times, gammas, float(t), float(gamma))
    try:
        found = np.linalg.solve(products, wanted)
    except np.linalg.LinAlgError:
        # More snapshots than digits.
        found = np.linalg.lstsq(products, wanted, rcond=None)[0]
    return found / found.sum()


class Rebuilding(contextlib.ExitStack):
    """Averages of one training, put into a model one after the other. It gets its own weights back after a `with`.

        with Rebuilding(model, "snapshots") as averages:
            for sigma_rel in (0.05, 0.1, 0.2):
                averages.place(sigma_rel)
                print(sigma_rel, model.evaluate(x, y))

    Args:
        model, directory, data, batch_size: as in `posthoc_average()`.

    Attributes:
        updates: list of int, after how many updates there are snapshots.
        tracked: list of the widths in the latest snapshot.
    """

    def __init__(self, model: Any, directory: Any, data: Any = None, batch_size: int = 32):
        super().__init__()
        self._ours = built_model(model)
        self._model, self._data = model, data
        self._folder = Folder(arguments.path("directory", directory))
        self._batch_size = arguments.whole("batch_size", batch_size, 1)
        batch_norm.require_data(data, self._batch_size)
        _require_own_weights(model)
        anatomy = Anatomy(model, self._ours.AveragingOptimizer.private)
        self._headers = self._folder.headers(anatomy)
        self._variables = [anatomy.variables[position] for position in self._headers[0]["positions"]]
        self.updates = [header["updates"] for header in self._headers]
        self.tracked = self._headers[-1]["sigma_rel"]

    def _moment(self, at):
        last = self.updates[-1]
        if at is None:
            return last
        if arguments.whole("at", at, 1) > last:
            arguments.refuse(
                "at",
                f"at most {last}, the last snapshot in '{self._folder.path}'; a moment needs one at or after it",
                at,
            )
        return int(at)

    def average(self, sigma_rel: float, at: int | None = None) -> Iterator[np.ndarray]:
        """The arrays of an average, float64, one after the other; the model stays as it is."""
        sigma_rel, at = width("sigma_rel", sigma_rel), self._moment(at)
        # A moment between two snapshots needs those after it, too.
        used = [header for header in self._headers if at not in self.updates or header["updates"] <= at]
        times = [header["updates"] for header in used for _ in header["gamma"]]
        gammas = [gamma for header in used for gamma in header["gamma"]]
        shares = coefficients(times, gammas, at, gamma_of(sigma_rel))
        ends = np.cumsum([len(header["gamma"]) for header in used])[:-1]
        return self._folder.combined(used, np.split(shares, ends))

    def place(self, sigma_rel: float, at: int | None = None) -> None:
        """Put an average into the model, and with data the batch-norm statistics that belong to it.

        Args:
            sigma_rel, at: as in `posthoc_average()`.
        """
        values = self.average(sigma_rel, at)
        put(self._model, self._variables, values, self._data, self._batch_size)

    def __enter__(self):
        variables = [*self._variables, *others_of(self._model, self._variables)]
        held = Held(variables, self._ours.AveragingOptimizer.backend)
        for _ in range(2):  # as for values.Undoing
            self.push(lambda *error: held.undo())
        return self

    # Python's own, so that an interrupt can't come before its first line. R calls it without arguments.
    __exit__ = functools.partialmethod(contextlib.ExitStack.__exit__, None, None, None)


def _require_own_weights(model):
    """Raise where the model shows an optimizer's averages, which its weights would take the place of."""
    for optimizer in with_inner(getattr(model, "optimizer", None)):
        if isinstance(optimizer, AveragingOptimizer) and optimizer.averages.shown:
            raise ValueError(
                "`model` must hold its own weights, and its averages are swapped in: call swap_weights() first."
            )


def posthoc_average(
    model: Any, directory: Any, sigma_rel: float, at: int | None = None, data: Any = None, batch_size: int = 32
) -> None:
    """Put the average of any width into a model, made after training of the snapshots that `AverageSnapshots` stored.

    The average is a sum of stored ones, with the coefficients (solved in float64) whose profile over the updates comes
    closest to that of the wanted average. How close depends on the number of snapshots and on how smoothly the weights
    move. In a recorded run with 10 moments, of the widths 0.05 and 0.10, the relative difference from an average that
    was kept during training was 3e-4 at a width of 0.07, 6e-3 at 0.20 and 3e-2 at 0.25. (The coefficients are scaled
    to a sum of 1, so that weights which do not move stay. Without that it was 6e-4 and 2e-2 at 0.07 and 0.25.) A width
    that was kept comes back as it was stored. Below the narrowest stored width the rounding of the stored averages
    grows: about 20-fold at 0.02.

    Memory: one more copy of the weights, to be given back if a file is torn, and some 150 MB.

    Args:
        model: Keras model of either generation, built, of the architecture that was trained. It need not be compiled.
            The weights that were averaged are overwritten.
        directory: str or path, the folder of the snapshots.
        sigma_rel: float > 0 and at most 0.2887 (1 / sqrt(12), the equal average of all updates); the width, see
            `PowerAverage`.
        at: int >= 1, the number of updates after which the average was wanted; None for the latest snapshot. A moment
            needs a snapshot at or after it.
        data: inputs to recompute batch-norm statistics with, as `update_batch_norm()` takes them; None leaves the
            statistics, and a model with batch norm gets a warning: they belong to other weights.
        batch_size: int >= 1, examples in a batch of `data`.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described, a moment after the last snapshot,
            and a folder with a file that is torn, missing, or of another model, which is named. The model stays as it
            was then.

    References:
        Karras et al. 2024, Analyzing and Improving the Training Dynamics of Diffusion Models, arXiv 2312.02696.
    """
    rebuilding = Rebuilding(model, directory, data, batch_size)
    rebuilding.place(sigma_rel, at)
    if data is None:
        warn_of_statistics(model, "posthoc_average()")


def posthoc_scores(
    model: Any,
    directory: Any,
    score: Any,
    sigma_rel: Any = GRID,
    at: int | None = None,
    data: Any = None,
    batch_size: int = 32,
) -> dict[str, np.ndarray]:
    """A metric against the width of the average, from the snapshots of one training.

    The model has its own weights again at the end, whatever happens.

    Args:
        model, directory, at, data, batch_size: as in `posthoc_average()`.
        score: function of the model that returns a number, or a dict of numbers by name. For example
            `lambda model: model.evaluate(x, y, verbose=0, return_dict=True)`, with data held out from training.
        sigma_rel: list of the widths.

    Returns:
        Dict of arrays: `sigma_rel`, sorted; `tracked`, whether a width was stored; and the scores (as `score`, or by
        their names).

    Raises:
        TypeError, ValueError: as `posthoc_average()`, and for a `score` that is no function.

    References:
        Karras et al. 2024, Analyzing and Improving the Training Dynamics of Diffusion Models, arXiv 2312.02696.
    """
    if not callable(score):
        arguments.refuse("score", "a function of the model", score)
    grid = sorted(widths("sigma_rel", sigma_rel))
    rows = []
    with Rebuilding(model, directory, data, batch_size) as averages:
        for one in grid:
            averages.place(one, at)
            found = score(model)
            rows.append(found if isinstance(found, dict) else {"score": found})
        tracked = np.isin(grid, averages.tracked)
        scores = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
    return {"sigma_rel": np.array(grid), "tracked": tracked, **scores}
