"""The averaging methods: arguments and documentation, once for both Kerases.

Each class turns its arguments into a rule. `METHODS` lists them: `keras3` and `tf_keras` join every one to their
own `AveragingOptimizer`, and tests, benchmarks and the package's names follow it.
"""

from typing import Any

import numpy as np

from . import arguments, rules
from .optimizer import AveragingOptimizer

_SETTINGS = """**settings: what every averaging optimizer takes. `clipnorm`: float > 0, limit of each gradient's
                norm; `clipvalue`: float > 0, limit of each gradient element's size; `global_clipnorm`:
                float > 0, limit of the norm of all gradients together; `decay`: float >= 0, the inner
                learning rate is divided by 1 + decay * updates; `lr`: float >= 0, deprecated, sets the
                inner learning rate; `sequential_update`: bool, accepted for old scripts, both values
                average after the update; `check_finite`: bool, True; an update that leaves a weight
                which is not finite moves no average, and one warning names the weight, at the end of
                `fit()` or when the averages are next used.

        Raises:
            TypeError, ValueError: in one line, for an argument that is not as described, before anything
                is changed."""


class Argument:
    """An argument of a method, to be read as an attribute."""

    def __set_name__(self, owner, name):
        self._name = name

    def __get__(self, optimizer, owner=None):
        return self if optimizer is None else optimizer.given[self._name]

    def __set__(self, optimizer, value):
        method = type(optimizer).__name__
        raise AttributeError(f"`{self._name}` can't be changed: make a new {method} with the value that you want.")


class SWA(AveragingOptimizer):
    """Stochastic weight averaging: an equal-weight average of the weights along training.

        The inner optimizer trains the model. After update number `start_averaging` (counted from 0), and then
        every `average_period` updates, a snapshot of the weights enters the average. This does not
        disturb training; `assign_average_vars(model.trainable_variables)` puts the average into the model at
        the end, and batch-norm statistics must be recomputed afterwards.

        Args:
            optimizer: Keras optimizer that takes the steps, or the name of one.
            start_averaging: int >= 0, in updates; when the first snapshot is taken.
            average_period: int >= 1, in updates; how often one is taken. The paper takes one per epoch or
                per cycle of a cyclic learning rate.
            name: str.
            {settings}

        Slots: `average`, of each variable's shape, float32 or wider.

        References:
            Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization, arXiv
            1803.05407. Arguments and numbers are those of TensorFlow Addons' `SWA`.
    """

    start_averaging = Argument()
    average_period = Argument()

    def __init__(
        self,
        optimizer: Any,
        start_averaging: int = 0,
        average_period: int = 10,
        name: str = "SWA",
        **settings: Any,
    ):
        given = {
            "start_averaging": arguments.whole("start_averaging", start_averaging, 0),
            "average_period": arguments.whole("average_period", average_period, 1),
        }
        super().__init__(optimizer, rules.EqualAverage(*given.values()), name, settings, given)

    @property
    def snapshots(self) -> int:
        """How many snapshots the average holds."""
        return int(self.averages.number("snapshots"))


class Lookahead(AveragingOptimizer):
    """Lookahead: k fast steps, then one slow step back.

        The inner optimizer moves the fast weights. Every `sync_period` updates the slow weights move towards
        the fast ones by `slow_step_size`, and the fast weights start again from there.

        Args:
            optimizer: Keras optimizer that takes the fast steps, or the name of one.
            sync_period: int >= 1, in updates.
            slow_step_size: float from 0 to 1; share of the way that the slow weights go.
            name: str.
            {settings}

        Slots: `slow`, of each variable's shape, float32 or wider.

        References:
            Zhang et al. 2019, Lookahead Optimizer: k steps forward, 1 step back, arXiv 1907.08610. Arguments
            and numbers are those of TensorFlow Addons' `Lookahead`.
    """

    sync_period = Argument()
    slow_step_size = Argument()

    def __init__(
        self,
        optimizer: Any,
        sync_period: int = 6,
        slow_step_size: float = 0.5,
        name: str = "Lookahead",
        **settings: Any,
    ):
        given = {
            "sync_period": arguments.whole("sync_period", sync_period, 1),
            "slow_step_size": arguments.fraction("slow_step_size", slow_step_size),
        }
        super().__init__(optimizer, rules.StepBack(*given.values()), name, settings, given)


class ExponentialMovingAverage(AveragingOptimizer):
    """Exponential moving average of the weights, with warm-up.

        After every update: average += (1 - decay) * (weights - average). It starts as a copy of the weights.
        (The Model Garden's starts at zero, which biases it towards zero by the product of the decays so far.)

        Args:
            optimizer: Keras optimizer that takes the steps, or the name of one.
            trainable_weights_only: bool; False also averages the non-trainable weights, such as batch-norm
                statistics. Then `shadow_copy(model)` must be called before training. Not on JAX, whose
                compiled step does not show them to an optimizer.
            average_decay: float from 0 to 1, per update. A float32 average can't follow changes of less than
                6e-8 of its size, so it hardly moves at decays above 0.9999999.
            start_step: int >= 0, in updates; until then the average is the weights.
            dynamic_decay: bool; whether the decay grows from 0.1 up to `average_decay`: after s updates from
                the start it is at most (1 + s) / (10 + s).
            name: str.
            update_period: int >= 1, in updates; the average moves once every `update_period` updates, with
                their decay (`average_decay ** update_period`).
            {settings}

        Slots: `average`, of each variable's shape, float32 or wider.

        References:
            Polyak and Juditsky 1992, Acceleration of Stochastic Approximation by Averaging, doi
            10.1137/0330046. Arguments and decays are those of the Model Garden's
            `ExponentialMovingAverage`.
    """

    trainable_weights_only = Argument()
    average_decay = Argument()
    start_step = Argument()
    dynamic_decay = Argument()
    update_period = Argument()

    # With non-trainable weights: whether they are known, and averages read from a file before.
    _knows_all: bool
    _loaded: dict[str, Any] | None

    def __init__(
        self,
        optimizer: Any,
        trainable_weights_only: bool = True,
        average_decay: float = 0.99,
        start_step: int = 0,
        dynamic_decay: bool = True,
        name: str = "ExponentialMovingAverage",
        update_period: int = 1,
        **settings: Any,
    ):
        given = {
            "trainable_weights_only": arguments.flag("trainable_weights_only", trainable_weights_only),
            "average_decay": arguments.fraction("average_decay", average_decay),
            "start_step": arguments.whole("start_step", start_step, 0),
            "dynamic_decay": arguments.flag("dynamic_decay", dynamic_decay),
            "update_period": arguments.whole("update_period", update_period, 1),
        }
        rule = rules.ExponentialAverage(
            given["average_decay"], given["start_step"], given["dynamic_decay"], 1, given["update_period"]
        )
        if not trainable_weights_only and self.backend.name == "jax":
            raise ValueError(
                "`trainable_weights_only` must be True on JAX, not False: its compiled step does not show "
                "non-trainable weights to an optimizer. Recompute batch-norm statistics with "
                "update_batch_norm() instead."
            )
        super().__init__(optimizer, rule, name, settings, given)
        # Past the tracking of attributes.
        vars(self).update(_knows_all=trainable_weights_only, _loaded=None)

    def shadow_copy(self, model: Any) -> None:
        """Create the averages before training; needed where `trainable_weights_only` is False.

        Args:
            model: a built model, or a list of its weights.
        """
        _, others = self._weights_of(model)
        # Counters, seeds and lookup tables have no average.
        others = [v for v in others if not arguments.is_table(v) and "float" in self.backend.dtype(v)]
        super().shadow_copy(model)
        if self._knows_all:
            return
        self.averages.add(others)
        vars(self)["_knows_all"] = True
        if self._loaded is not None:
            self.load_own_variables(self._loaded)
            vars(self)["_loaded"] = None

    def require_ready(self) -> None:
        if not self._knows_all:
            raise ValueError(
                "`trainable_weights_only` is False: call shadow_copy(model) before training, so that the "
                "non-trainable weights are known."
            )
        super().require_ready()

    def load_own_variables(self, store: Any) -> None:
        if self._knows_all:
            super().load_own_variables(store)
        else:
            vars(self)["_loaded"] = {key: np.array(store[key]) for key in store.keys()}

    def update_average(self, strategy: Any = None) -> None:
        """Move the averages once more, for the last update; training does this by itself.

        Args:
            strategy: accepted for old scripts.
        """
        self.averages.require("update_average")
        self.averages.move(self.count() - 1, None, None)


class MovingAverage(AveragingOptimizer):
    """Exponential moving average of the weights, as TensorFlow Addons has it.

        For new work take `ExponentialMovingAverage`: it differs in its defaults, and counts the first update as
        step 1, not 0.

        Args:
            optimizer: Keras optimizer that takes the steps, or the name of one.
            average_decay: float from 0 to 1, per update.
            num_updates: int >= 0, or None; limits the decay to (1 + num_updates) / (10 + num_updates).
            start_step: int >= 0, in updates; until then the average is the weights.
            dynamic_decay: bool; whether the decay grows from 0.1 up to `average_decay` with the updates.
            name: str.
            {settings}

        Slots: `average`, of each variable's shape, float32 or wider.

        References:
            Arguments and numbers are those of TensorFlow Addons' `MovingAverage`.
    """

    average_decay = Argument()
    num_updates = Argument()
    start_step = Argument()
    dynamic_decay = Argument()

    def __init__(
        self,
        optimizer: Any,
        average_decay: float = 0.99,
        num_updates: Any = None,
        start_step: int = 0,
        dynamic_decay: bool = False,
        name: str = "MovingAverage",
        **settings: Any,
    ):
        average_decay = arguments.fraction("average_decay", average_decay)
        if hasattr(num_updates, "numpy"):  # a variable, as the original takes it: read once there too
            num_updates = num_updates.numpy().item()
        num_updates = arguments.optional(
            lambda name, value: arguments.whole(name, value, 0), "num_updates", num_updates
        )
        limited = average_decay
        if num_updates is not None:
            limited = min(average_decay, (1.0 + num_updates) / (10.0 + num_updates))
        given = {
            "average_decay": average_decay,
            "num_updates": num_updates,
            "start_step": arguments.whole("start_step", start_step, 0),
            "dynamic_decay": arguments.flag("dynamic_decay", dynamic_decay),
        }
        rule = rules.ExponentialAverage(limited, given["start_step"], given["dynamic_decay"])
        super().__init__(optimizer, rule, name, settings, given)


__all__ = ["ExponentialMovingAverage", "Lookahead", "MovingAverage", "SWA"]

METHODS: tuple[type[AveragingOptimizer], ...] = tuple(globals()[name] for name in __all__)

for _method in METHODS:
    _method.__doc__ = (_method.__doc__ or "").replace("{settings}", _SETTINGS)
    # R goes by the names of classes: theirs must not depend on the file that they stand in.
    _method.__module__ = "kerasoptimizers"


def joined(base: type, module: str, register: Any) -> dict[str, type]:
    """The methods as classes of one Keras, by name.

    Args:
        base: its `AveragingOptimizer`.
        module: str, the module that they are imported from.
        register: function that makes a class known to that Keras's loading of models.
    """
    classes = {}
    for method in METHODS:
        attributes = {"__doc__": method.__doc__, "__module__": module}
        classes[method.__name__] = register(type(method.__name__, (method, base), attributes))
    return classes


def register_again(keras: Any, classes: list[type]) -> None:
    """Make classes known once more to a Keras whose custom objects, and perhaps their names, have been cleared."""
    for kind in classes:
        keras.saving.register_keras_serializable(package="kerasoptimizers")(kind)
