"""The arithmetic of the averaging methods, and nothing else: no Keras, no backend.

Every method is one sentence. The inner optimizer takes its step; then, if the update is due,

    average += fraction * (weights - average)
    model    = (1 - blend) * weights + blend * average

A `Rule` says when an update is due, how large the fraction is, and what the blend is. It is handed
numbers of any kind: Python's, NumPy's, or the tensors of a backend. `backends/` runs it over all weights.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Slot:
    """A value that a rule keeps for each weight.

    Attributes:
        start: "weights" or "zeros", what it holds before the first update.
        rows: int, 0 for one value of the weight's shape; k for k of them, in an array of shape
            (k, *shape).
    """

    start: str = "weights"
    rows: int = 0

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The slot's shape for a weight of this shape."""
        return (self.rows, *shape) if self.rows else tuple(shape)


@dataclass(frozen=True)
class Step:
    """One update, as a rule sees it.

    Attributes:
        update: int, the number of the update just made; the first is 0.
        scalars: the rule's scalars by name, as they were before this update.
        rate: the learning rate of the update. None unless the rule has `uses_rate`.
        xp: namespace of functions on these numbers: `cast`, `expm1`, `log1p`, `maximum`, `minimum`, `stack`,
            `where`.
        dtype: str, the floating type to compute in: "float32", or "float64" if an average is.
    """

    update: Any
    scalars: Mapping[str, Any]
    rate: Any
    xp: Any
    dtype: str = "float32"

    def number(self, value: Any) -> Any:
        """A count as a floating-point number."""
        return self.xp.cast(value, self.dtype)

    def scalar(self, name: str) -> Any:
        """A scalar as a floating-point number."""
        return self.number(self.scalars[name])


class Rule:
    """When an average moves, by what fraction, and where the model is afterwards.

    A method is a subclass of a few lines. All of these have defaults but `fraction()`; whatever takes a
    `step` may compute with its numbers only, so that backends can compile it.
    """

    #: The first update that is due, and how many updates there are from one to the next.
    first = 0
    period = 1
    #: Where the model is after an update that was due: 0 at the weights, 1 at the average. Between the
    #: two, the weights are kept in the slot "fast", and the inner optimizer steps from there.
    blend = 0.0
    #: The rule's numbers by name, with their start values: an int for a count, a float for others.
    scalars: Mapping[str, float] = {}
    #: Whether the average means nothing before it first moves.
    starts_empty = False
    #: Whether the fraction can be 1, so that the average becomes the weights.
    reaches = False
    #: Whether `step.rate` is needed.
    uses_rate = False
    #: Whether `move()` treats every element alone: small weights may then be moved together.
    elementwise = True

    @property
    def slots(self) -> dict[str, Slot]:
        """The slots by name; the first one is the average."""
        return {"average": Slot(), **({"fast": Slot()} if 0 < self.blend < 1 else {})}

    @property
    def slot(self) -> str:
        """The name of the slot that holds the average."""
        return next(iter(self.slots))

    def due(self, step: Step) -> Any:
        """Whether the average moves after this update: a bool, or a tensor of one."""
        return periodic(step.update, self.first, self.period)

    def writes_back(self, step: Step) -> Any:
        """Whether the model is moved, too, after an update that was due."""
        return self.blend > 0

    def next_due(self, update: int) -> int:
        """The number of the first update from `update` on that is due."""
        return update + max(self.first - update, (self.first - update) % self.period)

    def fraction(self, step: Step) -> Any:
        """The fraction, from 0 to 1, by which the average moves. A constant is a Python float.

        A tuple has a fraction for each of the first slots, if they are all averages.
        """
        raise NotImplementedError

    def next_scalars(self, step: Step) -> dict[str, Any]:
        """The scalars after an update that was due."""
        return {}

    def rate_factor(self, step: Step) -> Any:
        """The factor of the inner optimizer's learning rate; None for none."""
        return None

    @property
    def starts_from_fast(self) -> bool:
        """Whether the inner optimizer steps from the slot "fast" as it is, so that `before()` need not be asked."""
        return type(self).before is Rule.before

    def before(self, model: Any, slots: Mapping[str, Any], step: Step) -> Any:
        """The value from which the inner optimizer steps, given the model and the slots of one weight."""
        return slots["fast"]

    def move(self, weights: Any, slots: Mapping[str, Any], fraction: Any, xp: Any) -> dict[str, Any]:
        """The slots that move with an update that is due.

        Args:
            weights: a weight after the inner optimizer's step, in the type of the average.
            slots: dict of its slots.
            fraction: what `fraction()` returned.
            xp: as in `Step`.
        """
        parts = fraction if isinstance(fraction, tuple) else (fraction,)
        return {name: lerp(slots[name], weights, part, xp, self.reaches) for name, part in zip(self.slots, parts)}


def lerp(start: Any, end: Any, fraction: Any, xp: Any, reaches: bool = False) -> Any:
    """`start` moved by `fraction` of the way to `end`; with `reaches`, a fraction of 1 is `end` to the bit."""
    if isinstance(fraction, float):
        return end if fraction == 1.0 else start + fraction * (end - start)
    fraction = xp.cast(fraction, start.dtype)
    moved = start + fraction * (end - start)
    return xp.where(fraction == 1, end, moved) if reaches else moved


def periodic(update: Any, first: int, period: int) -> Any:
    """Whether an update is the one numbered `first`, or comes a multiple of `period` after it."""
    since = update - first
    if period == 1:
        return True if first == 0 else since >= 0
    every = since % period == 0
    return every if first < period else (since >= 0) & every


@dataclass(frozen=True)
class EqualAverage(Rule):
    """Equal-weight average of snapshots: Izmailov et al. 2018, arXiv 1803.05407."""

    first: int = 0
    period: int = 1
    scalars = {"snapshots": 0}
    starts_empty = True
    reaches = True

    def fraction(self, step):
        return 1.0 / (step.scalar("snapshots") + 1.0)

    def next_scalars(self, step):
        return {"snapshots": step.scalars["snapshots"] + 1}


@dataclass(frozen=True)
class StepBack(Rule):
    """k steps forward, one back: Zhang et al. 2019, arXiv 1907.08610."""

    period: int = 6
    step_size: float = 0.5
    #: The start of the slow weights, as in `Slot`.
    start: str = "weights"
    blend = 1.0

    @property
    def slots(self):
        return {"slow": Slot(self.start)}

    @property
    def first(self):  # type: ignore[override]
        return self.period - 1

    def fraction(self, step):
        return self.step_size


@dataclass(frozen=True)
class StepBackWithMomentum(StepBack):
    """As `StepBack`, but the slow step is one of SGD with Nesterov momentum: SNOO, arXiv 2510.15830.

    Its gradient is the way back from the fast weights to the slow ones. Without momentum it would be `StepBack`.
    """

    momentum: float = 0.9

    @property
    def slots(self):
        return {"slow": Slot(self.start), "velocity": Slot("zeros")}

    def move(self, weights, slots, fraction, xp):
        back = slots["slow"] - weights
        velocity = self.momentum * slots["velocity"] + back
        return {"slow": slots["slow"] - fraction * (back + self.momentum * velocity), "velocity": velocity}


@dataclass(frozen=True)
class ExponentialAverage(Rule):
    """Exponential moving average: Polyak and Juditsky 1992, doi 10.1137/0330046.

    With `dynamic`, the decay grows from 1/10 to `decay`. The libraries that had it count their steps differently:
    `first_step` is the number of the first update, 0 in TensorFlow Addons and 1 in the Model Garden. Before
    step `start` the average follows the weights. With `period` k it moves after every k updates, by what
    k updates would move it.

    With `gamma` the decay grows as that of timm, diffusers and ema-pytorch: s updates after the start a move's
    decay is at most 1 - (1 + s / gamma)^-power, and at s = 0 the average becomes the weights. While the decay
    grows it is at least `least`. After every `overwrite` updates the model gets the average: arXiv 2402.09240.
    """

    decay: float
    start: int = 0
    dynamic: bool = False
    first_step: int = 0
    period: int = 1
    gamma: float | None = None
    power: float = 2 / 3
    least: float = 0.0
    overwrite: int | None = None
    #: Whether the decay is a float32, as in TensorFlow Addons and the Model Garden.
    narrow: bool = True

    @property
    def blend(self):  # type: ignore[override]
        return 1.0 if self.overwrite else 0.0

    def writes_back(self, step):
        return self.overwrite is not None and periodic(step.update, self.overwrite - 1, self.overwrite)

    @property
    def first(self):  # type: ignore[override]
        return self.period - 1

    @property
    def reaches(self):  # type: ignore[override]
        return self.start > self.first_step - (self.gamma is not None) or self.decay == 0

    def _plain_fraction(self, dtype):
        # TensorFlow Addons and the Model Garden round a decay to float32; close to 1 that would be another one, or 1.
        fraction, rounded = 1.0 - self.decay, 1.0 - float(np.float32(self.decay))
        alike = self.narrow and dtype == "float32" and abs(rounded - fraction) <= 1e-3 * fraction
        return rounded if alike else fraction

    def fraction(self, step):
        fraction = compounded(self._plain_fraction(step.dtype), self.period, step.xp)
        warms = self.dynamic or self.gamma is not None
        if not warms and not self.reaches:
            return fraction
        since = step.number(step.update) + (self.first_step - self.start)
        if warms:
            fraction = step.xp.maximum(self._warming(step.xp.maximum(since, 0.0), step.xp), fraction)
        if warms and self.least:
            fraction = step.xp.minimum(fraction, 1.0 - self.least)
        # timm and similar libraries start with a copy.
        copies = since < 0 if self.gamma is None else since <= 0
        return step.xp.where(copies, step.number(1.0), step.number(fraction)) if self.reaches else fraction

    def _warming(self, since, xp):
        if self.gamma is not None:
            return (1.0 + since / self.gamma) ** -self.power
        return compounded(9.0 / (10.0 + since), self.period, xp)


def compounded(fraction: Any, updates: int, xp: Any) -> Any:
    """The fraction that `updates` moves by `fraction` amount to."""
    if updates == 1:
        return fraction
    if not isinstance(fraction, float):
        return -xp.expm1(updates * xp.log1p(-fraction))
    return 1.0 if fraction == 1.0 else -math.expm1(updates * math.log1p(-fraction))


@dataclass(frozen=True)
class PowerAverage(Rule):
    """Averages in which the weights of update t count as t^gamma: Karras et al. 2024, arXiv 2312.02696.

    There is one slot for each gamma; a gamma of 0 is the equal average of all updates. The average that the model is
    shown is number `shown` of them.
    """

    gammas: tuple[float, ...]
    shown: int = 0
    reaches = True

    @property
    def slot(self):
        return list(self.slots)[self.shown]

    @property
    def slots(self):
        numbers = range(2, len(self.gammas) + 1)
        return {name: Slot() for name in ("average", *(f"average_{n}" for n in numbers))}

    def fraction(self, step):
        t = step.number(step.update) + 1.0
        # Not 1 - (1 - 1/t) ** (gamma + 1), which is off by a fifth at t = 1e7 in float32.
        return tuple(
            1.0 / t if gamma == 0 else -step.xp.expm1((gamma + 1.0) * step.xp.log1p(-1.0 / t)) for gamma in self.gammas
        )


@dataclass(frozen=True)
class ScheduleFree(Rule):
    """Gradients between the fast weights and their average: Defazio et al. 2024, arXiv 2405.15682.

    Update k counts with the weight (k + 1)^power_of_k * (largest learning rate so far)^power_of_rate. The
    fraction is this weight's share of all weights so far; its inverse is kept instead of their sum, which
    would grow without end.
    """

    blend: float = 0.9
    warmup: int = 0
    power_of_rate: float = 2.0
    power_of_k: float = 0.0
    decay_at_model: float = 0.0
    scalars = {"moves": 0, "largest_rate": 0.0, "inverse": 0.0}
    reaches = True
    uses_rate = True

    @property
    def slots(self):
        # Also at the ends, where one of the two is the model: the slots are the method's state.
        return {"average": Slot(), "fast": Slot()}

    def rate_factor(self, step):
        if not self.warmup:
            return None
        return step.xp.minimum((step.scalar("moves") + 1.0) / self.warmup, 1.0)

    @property
    def starts_from_fast(self):
        return not self.decay_at_model

    def before(self, model, slots, step):
        if self.starts_from_fast:
            return slots["fast"]
        rate = step.xp.cast(step.rate, slots["fast"].dtype)
        return slots["fast"] - rate * self.decay_at_model * model

    def _next(self, step):
        largest_before = step.scalar("largest_rate")
        largest = step.xp.maximum(step.number(step.rate), largest_before)
        moves = step.scalar("moves")
        # The weight of the update before, as a part of this one's.
        before = (moves / (moves + 1.0)) ** self.power_of_k if self.power_of_k else 1.0
        if self.power_of_rate:
            some = step.xp.where(largest > 0, largest, 1.0)
            before = before * (largest_before / some) ** self.power_of_rate
        inverse = 1.0 + before * step.scalar("inverse")
        # A rate of 0 so far: nothing counts yet.
        counts = largest > 0 if self.power_of_rate else largest >= 0
        return largest, step.xp.where(counts, inverse, 0.0)

    def fraction(self, step):
        _, inverse = self._next(step)
        return step.xp.where(inverse > 0, 1.0 / step.xp.maximum(inverse, 1.0), 0.0)

    def next_scalars(self, step):
        largest, inverse = self._next(step)
        return {"moves": step.scalars["moves"] + 1, "largest_rate": largest, "inverse": inverse}


@dataclass(frozen=True)
class PrimalAverage(ExponentialAverage):
    """Gradients between the fast weights and their exponential average: arXiv 2512.17131."""

    blend: float = 0.7

    @property
    def slots(self):
        # Also at the ends, as in Schedule-Free.
        return {"average": Slot(), "fast": Slot()}


class _HostNumbers:
    """The functions of `Step.xp` for Python's and NumPy's numbers."""

    expm1 = staticmethod(np.expm1)
    maximum = staticmethod(np.maximum)
    minimum = staticmethod(np.minimum)
    stack = staticmethod(np.stack)
    where = staticmethod(np.where)

    @staticmethod
    def cast(value, dtype):
        return np.asarray(value, "float64")[()]

    @staticmethod
    def log1p(value):
        with np.errstate(divide="ignore"):
            return np.log1p(value)


host_numbers = _HostNumbers()
