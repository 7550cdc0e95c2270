"""The rules of the averaging methods: when an average moves, and how far.

Every method lets the inner optimizer take its step and then does

    average += fraction * (weights - average)        if due

A rule is that arithmetic and nothing else. It works on whatever numbers it is
given (Python, NumPy, or the tensors of any backend), so it knows neither Keras
nor a backend. `update` is the number of the update just taken; the first is 0.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rule:
    """When an average moves and by what fraction of its distance to the weights."""

    #: Name of the slot that holds the average.
    slot = "average"
    #: Whether the weights are set to the average each time it has moved.
    writes_back = False
    #: Whether the average means nothing before it first moves. Such a rule is
    #: told how often its average has moved so far (`snapshots`).
    starts_empty = False
    #: Whether the fraction can be 1, so that the average becomes the weights.
    replaces = False

    def due(self, update):
        """Whether the average moves after update number `update`."""
        return True

    def next_due(self, update):
        """The number, a Python int, of the first update from `update` on after which it is due."""
        return update

    def fraction(self, update, snapshots, xp):
        """The fraction, from 0 to 1, by which the average moves.

        `update` and `snapshots` are floating-point numbers here; `xp` is a
        namespace with `maximum`, `minimum` and `where`, such as NumPy's. A fraction that
        is the same for every update is a Python float.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class EqualAverage(Rule):
    """Equal-weight average of snapshots: Izmailov et al. 2018, arXiv 1803.05407."""

    start: int
    period: int
    starts_empty = True
    replaces = True

    def due(self, update):
        if self.period == 1:
            return True if self.start == 0 else update >= self.start
        return (update >= self.start) & ((update - self.start) % self.period == 0)

    def next_due(self, update):
        since = max(update - self.start, 0)
        return self.start + -(-since // self.period) * self.period

    def fraction(self, update, snapshots, xp):
        return 1.0 / (snapshots + 1.0)


@dataclass(frozen=True)
class StepBack(Rule):
    """k steps forward, one back: Zhang et al. 2019, arXiv 1907.08610."""

    period: int
    step_size: float
    slot = "slow"
    writes_back = True

    def due(self, update):
        return True if self.period == 1 else (update + 1) % self.period == 0

    def next_due(self, update):
        return update + -(update + 1) % self.period

    def fraction(self, update, snapshots, xp):
        return self.step_size


@dataclass(frozen=True)
class ExponentialAverage(Rule):
    """Exponential moving average; with `dynamic`, its decay grows from 1/10 to `decay`.

    The originals number their steps differently: `first_step` is the number of
    the first update, 0 in TensorFlow Addons and 1 in the Model Garden. Before
    step `start` the average follows the weights. With `period` k it moves after
    every k updates, with the decay of k updates.
    """

    decay: float
    start: int = 0
    dynamic: bool = False
    first_step: int = 0
    period: int = 1

    @property
    def replaces(self):  # type: ignore[override]
        return self.start > self.first_step or self.decay == 0

    def due(self, update):
        return True if self.period == 1 else (update + 1) % self.period == 0

    def next_due(self, update):
        return update + -(update + 1) % self.period

    def fraction(self, update, snapshots, xp):
        step = update + (self.first_step - self.start)
        # In the originals the decay is a float32.
        decay = float(np.float32(self.decay))
        if self.dynamic:
            since = xp.maximum(step, 0.0)
            decay = xp.minimum(decay, (1.0 + since) / (10.0 + since))
        fraction = 1.0 - decay**self.period
        return xp.where(step < 0, 1.0, fraction) if self.replaces else fraction
