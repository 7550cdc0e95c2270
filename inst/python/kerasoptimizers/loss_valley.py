"""Where an average begins and ends, from validation losses: the rule of SWAD, in NumPy alone."""

import collections
import math
from typing import Any, NamedTuple

import numpy as np

from . import arguments
from .files import listed, numbered


class Snapshot(NamedTuple):
    """The weights at one validation.

    Attributes:
        number: int, which validation it was, from 0.
        loss: float.
        weights: list of arrays.
    """

    number: int
    loss: float
    weights: list[np.ndarray]


class LossValley:
    """The average of the weights in a valley of the validation loss.

    The valley begins where the loss has not fallen for `n_converge` validations: at the first of them. Its threshold is
    their mean loss times 1 + `tolerance_ratio`. It ends when each of the last `n_tolerance` losses is above the
    threshold. All weights in between count alike.

    It does what the authors' code does, to the digit. That has some quirks: the average is made from the first
    snapshot, but its count begins at 0, so that the next one replaces it, until it joins (again) as the oldest of the
    last `n_tolerance`; where less than `n_tolerance` validations came before, one joins several times.

    Args:
        n_converge: int >= 1.
        n_tolerance: int >= 1.
        tolerance_ratio: float >= 0.

    Attributes:
        validations: int, how many there were. Those whose loss is not finite don't count.
        converged: int, number of the validation at which the valley begins, from 0; None while there is none.
        threshold: float or None.
        dead: bool, whether the valley has ended.
        average: list of arrays, of float32 or wider; None while there is none.
        averaged: list of int, the numbers of the validations in it, in the order of joining.

    References:
        Cha et al. 2021, SWAD: Domain Generalization by Seeking Flat Minima, arXiv 2102.08604.
    """

    def __init__(self, n_converge: int = 3, n_tolerance: int = 6, tolerance_ratio: float = 0.3):
        self.n_converge = arguments.whole("n_converge", n_converge, 1)
        self.n_tolerance = arguments.whole("n_tolerance", n_tolerance, 1)
        self.tolerance_ratio = arguments.not_negative("tolerance_ratio", tolerance_ratio)
        self.validations = 0
        self.converged: int | None = None
        self.threshold: float | None = None
        self.dead = False
        self.average: list[np.ndarray] | None = None
        self.averaged: list[int] = []
        # The latest snapshots, oldest first, as many as are still needed.
        self._latest: collections.deque[Snapshot] = collections.deque(maxlen=max(n_converge, n_tolerance))

    def add(self, loss: float, weights: list[np.ndarray]) -> None:
        """Take in a validation.

        Args:
            loss: float.
            weights: list of arrays, which must not change later.
        """
        if self.dead or not math.isfinite(loss):
            return
        self._latest.append(Snapshot(self.validations, float(loss), weights))
        self.validations += 1
        if self.converged is None:
            self._look_for_begin()
        elif self._tolerated()[0].number >= self.converged:
            if self._is_over(self._tolerated()):
                self.dead = True
                self._latest.clear()
            else:
                self._join(self._tolerated()[0])
        if self.converged is not None and not self.dead:
            while len(self._latest) > self.n_tolerance:
                self._latest.popleft()

    def _look_for_begin(self):
        window = list(self._latest)[-self.n_converge :]
        losses = [snapshot.loss for snapshot in window]
        if len(window) < self.n_converge or np.argmin(losses) != 0:
            return
        self.converged = window[0].number
        self.threshold = float(np.mean(losses)) * (1.0 + self.tolerance_ratio)
        self._begin(window[0])
        if self.n_tolerance < self.n_converge:
            joining = window[1 : 1 + self.n_converge - self.n_tolerance]
        elif self.n_tolerance > self.n_converge:
            before = self._tolerated()[: self.n_tolerance - self.n_converge + 1]
            above = [i for i, snapshot in enumerate(before) if snapshot.loss > self.threshold]
            joining = before[max(above, default=-1) + 2 :]
        else:
            joining = []
        for snapshot in joining:
            self._join(snapshot)

    def _tolerated(self):
        return list(self._latest)[-self.n_tolerance :]

    def _is_over(self, snapshots):
        return min(snapshot.loss for snapshot in snapshots) > self.threshold

    def _begin(self, snapshot):
        self.average = [np.array(w, np.result_type(w.dtype, "float32")) for w in snapshot.weights]

    def _join(self, snapshot):
        count = len(self.averaged)
        # New arrays: somebody may hold the old ones.
        self.average = [
            np.array(w, a.dtype) if not count else a + (w.astype(a.dtype) - a) / (count + 1)
            for a, w in zip(self.average or [], snapshot.weights)
        ]
        self.averaged.append(snapshot.number)

    def result(self) -> "LossValley":
        """The average if training ends now: with the snapshots that are still in the valley.

        Returns:
            A copy. It is done: no snapshot can be added to it.
        """
        done = LossValley(self.n_converge, self.n_tolerance, self.tolerance_ratio)
        done.validations, done.converged, done.threshold = self.validations, self.converged, self.threshold
        done.average, done.averaged, done.dead = self.average, list(self.averaged), True
        rest = self._tolerated()[1:] if self.converged is not None and not self.dead else []
        while rest and not self._is_over(rest):
            done._join(rest.pop(0))
        return done

    # In a file.

    def entries(self) -> dict[str, Any]:
        """All that it knows, as `files.save_arrays()` takes it."""
        return {
            "valley_validations": self.validations,
            "valley_converged": -1 if self.converged is None else self.converged,
            "valley_threshold": math.nan if self.threshold is None else self.threshold,
            "valley_dead": self.dead,
            "valley_averaged": np.array(self.averaged, "int64"),
            "valley_latest": np.array([[s.number, s.loss] for s in self._latest], "float64").reshape(-1, 2),
            **numbered("valley_average", self.average or ()),
            **numbered("valley_weights", [array for snapshot in self._latest for array in snapshot.weights]),
        }

    def take_entries(self, entries: dict[str, Any]) -> None:
        """Become what these entries say."""
        self.validations, self.dead = int(entries["valley_validations"]), bool(entries["valley_dead"])
        self.converged = None if entries["valley_converged"] < 0 else int(entries["valley_converged"])
        self.threshold = None if math.isnan(entries["valley_threshold"]) else float(entries["valley_threshold"])
        self.average = listed("valley_average", entries) or None
        self.averaged = [int(number) for number in entries["valley_averaged"]]
        latest, arrays = entries["valley_latest"], listed("valley_weights", entries)
        each = len(arrays) // max(len(latest), 1)
        self._latest.clear()
        for i, (number, loss) in enumerate(latest):
            self._latest.append(Snapshot(int(number), float(loss), arrays[i * each : (i + 1) * each]))

    @property
    def latest(self) -> list[Snapshot]:
        """The snapshots that it still holds, oldest first."""
        return list(self._latest)
