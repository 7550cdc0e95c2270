"""SWA's learning-rate schedule: arguments, arithmetic and documentation, once."""

import math
from typing import Any, ClassVar

from . import arguments

_SHAPES = ("cosine", "linear")


class SWALearningRate:
    """The learning rates of stochastic weight averaging: anneal, then constant or cyclic.

    The initial rate holds, is annealed to the SWA rate, and stays there while snapshots are
    taken. With `cycle_updates` it falls again and again from `cycle_learning_rate` to the SWA
    rate instead, which it reaches where a cycle ends. Give `SWA` the same `start_averaging`
    and `average_period=cycle_updates`, and every snapshot is taken at the end of a cycle, as
    in the paper:

        rate = SWALearningRate(0.1, 0.01, start_averaging=1000, cycle_updates=100)
        SWA(keras.optimizers.SGD(rate), start_averaging=1000, average_period=100)

    Args:
        initial_learning_rate: float >= 0, or a Keras learning-rate schedule, which is followed
            until annealing starts and annealed from where it got to.
        swa_learning_rate: float >= 0; the rate while averaging, in a cycle the lowest.
        start_averaging: int >= 0, in updates counted from 0; when the first snapshot is taken.
            The first cycle starts right after it.
        anneal_updates: int >= 0, in updates; how long annealing takes. None: two fifths of
            start_averaging. 0: the rate jumps.
        anneal: "cosine" or "linear".
        cycle_updates: int >= 2, in updates; the length of a cycle. None: no cycles.
        cycle_learning_rate: float >= swa_learning_rate; where a cycle starts. The rate of its
            first update is one `cycle_updates`-th of the way down already. None: a quarter of
            the way from the SWA rate to the initial one.
        start_annealing: int >= 0, in updates counted from 0; the last update at the initial
            rate (where anneal_updates is 0, the first at the SWA rate). None: start_averaging -
            anneal_updates, so that averaging starts where annealing ends.
        name: str.

    Called with the number of an update (scalar, or an array of them to plot), it returns that
    update's rate, as float32. In a Keras 3 optimizer with `gradient_accumulation_steps`, Keras
    calls its schedules with the number of the batch, so give these arguments in batches there.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described.

    References:
        Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better
        Generalization, arXiv 1803.05407, section 3.1. The shapes of annealing are those of
        PyTorch's `SWALR`; keras-swa's schedule is `anneal="linear"` with
        `start_annealing=start_averaging // 2`.
    """

    __module__ = "kerasoptimizers"

    # Set for each Keras: functions on tensors; the class of its schedules, and how they are saved and loaded.
    _xp: ClassVar[Any]
    _schedule: ClassVar[type]
    _serialize: ClassVar[Any]
    _deserialize: ClassVar[Any]

    def __init__(
        self,
        initial_learning_rate: Any,
        swa_learning_rate: float,
        start_averaging: int,
        anneal_updates: int | None = None,
        anneal: str = "cosine",
        cycle_updates: int | None = None,
        cycle_learning_rate: float | None = None,
        start_annealing: int | None = None,
        name: str = "SWALearningRate",
    ):
        # Kept as given, for get_config(); what follows from them has a _ in front.
        optional = arguments.optional
        if not isinstance(initial_learning_rate, self._schedule):
            initial_learning_rate = arguments.real(
                "initial_learning_rate",
                initial_learning_rate,
                "a number >= 0 or a Keras learning-rate schedule",
                lambda x: x >= 0,
            )
        self.initial_learning_rate = initial_learning_rate
        self.swa_learning_rate = arguments.not_negative("swa_learning_rate", swa_learning_rate)
        self.start_averaging = arguments.whole("start_averaging", start_averaging, 0)
        self.anneal_updates = optional(_count, "anneal_updates", anneal_updates)
        self.anneal = arguments.choice("anneal", anneal, _SHAPES)
        self.cycle_updates = optional(
            lambda name, value: arguments.whole(name, value, 2), "cycle_updates", cycle_updates
        )
        self.cycle_learning_rate = optional(arguments.not_negative, "cycle_learning_rate", cycle_learning_rate)
        self.start_annealing = optional(_count, "start_annealing", start_annealing)
        self.name = arguments.string("name", name)
        self._place_annealing()
        if self.cycle_updates is not None:
            self._place_cycles()
        elif self.cycle_learning_rate is not None:
            raise ValueError("`cycle_learning_rate` needs `cycle_updates`, which is not given.")

    def _place_annealing(self):
        length = self.anneal_updates
        self._anneal_updates = 2 * self.start_averaging // 5 if length is None else length
        if self.start_annealing is not None:
            self._start_annealing = self.start_annealing
        elif self._anneal_updates > self.start_averaging:
            arguments.refuse(
                "anneal_updates",
                f"a whole number from 0 to start_averaging ({self.start_averaging}) where start_annealing is not given",
                self.anneal_updates,
            )
        else:
            self._start_annealing = self.start_averaging - self._anneal_updates

    def _place_cycles(self):
        end = self._start_annealing + self._anneal_updates
        if end > self.start_averaging:
            raise ValueError(
                f"Cycles need annealing to end at `start_averaging` ({self.start_averaging}) or "
                f"before: it ends at {end} (`start_annealing` + `anneal_updates`)."
            )
        lowest, highest = self.swa_learning_rate, self.cycle_learning_rate
        if highest is None:
            initial = self.initial_learning_rate
            if not isinstance(initial, float) or initial < lowest:
                raise ValueError(
                    "`cycle_learning_rate` must be given where `initial_learning_rate` is a "
                    "schedule, or lower than `swa_learning_rate`."
                )
            highest = lowest + (initial - lowest) / 4
        elif highest < lowest:
            arguments.refuse("cycle_learning_rate", f"a number >= swa_learning_rate ({lowest})", highest)
        self._cycle_learning_rate = highest

    def __call__(self, step: Any) -> Any:
        xp = self._xp
        if isinstance(step, (bool, str, bytes, dict, float, type(None))) or callable(step):
            allowed = "the number of an update, or an array of them"
            arguments.real("step", step, allowed, lambda x: True)
        # Counted in whole numbers: as a float32 an update number is exact to 16.7 million only.
        update = xp.cast(step, "int32")
        start, length = self._start_annealing, self._anneal_updates
        if length == 0:
            start, length = start - 1, 1
        done = xp.cast(xp.clip(update - start, 0, length), "float32") / length
        if self.anneal == "cosine":
            done = (1.0 - xp.cos(math.pi * done)) / 2.0
        initial = self.initial_learning_rate
        if not isinstance(initial, float):
            initial = xp.cast(initial(xp.minimum(update, self._start_annealing)), "float32")
        rate = (1.0 - done) * initial + done * self.swa_learning_rate
        if self.cycle_updates is None:
            return rate
        position = (update - self.start_averaging - 1) % self.cycle_updates + 1
        done = xp.cast(position, "float32") / self.cycle_updates
        cyclic = (1.0 - done) * self._cycle_learning_rate + done * self.swa_learning_rate
        return xp.where(update > self.start_averaging, cyclic, rate)

    def get_config(self) -> dict[str, Any]:
        """Arguments from which `from_config()` makes the same schedule."""
        initial = self.initial_learning_rate
        return {
            "initial_learning_rate": (initial if isinstance(initial, float) else self._serialize(initial)),
            "swa_learning_rate": self.swa_learning_rate,
            "start_averaging": self.start_averaging,
            "anneal_updates": self.anneal_updates,
            "anneal": self.anneal,
            "cycle_updates": self.cycle_updates,
            "cycle_learning_rate": self.cycle_learning_rate,
            "start_annealing": self.start_annealing,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SWALearningRate":
        """Make a schedule from the result of `get_config()`."""
        config = arguments.config(config, "initial_learning_rate")
        initial = config["initial_learning_rate"]
        if isinstance(initial, dict):
            config["initial_learning_rate"] = arguments.part("initial_learning_rate", initial, cls._deserialize)
        return cls(**config)


def _count(name, value):
    return arguments.whole(name, value, 0)
