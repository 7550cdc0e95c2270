"""The averaging methods: arguments and documentation, once for both Kerases.

Each class turns its arguments into a rule. `METHODS` lists them: `keras3` and `tf_keras` join every one to their
own `AveragingOptimizer`, and tests, benchmarks and the package's names follow it.
"""

import warnings
from typing import Any

import numpy as np

from . import arguments, rules
from .averages import Averages
from .generation import steps_of_fit
from .notices import KerasOptimizersWarning
from .optimizer import AveragingOptimizer, has_schedule, innermost
from .widths import gamma_of, widths

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


class Default(float):
    """The default of an argument, which can so be told from the same number given."""


class SWA(AveragingOptimizer):
    """Stochastic weight averaging: an equal-weight average of the weights along training.

    The inner optimizer trains the model. After update number `start_averaging` (counted from 0), and then
    every `average_period` updates, a snapshot of the weights enters the average. This does not
    disturb training; `assign_average_vars(model.trainable_variables)` puts the average into the model at
    the end, and batch-norm statistics must be recomputed afterwards.

    Args:
        optimizer: Keras optimizer that takes the steps, or the name of one.
        start_averaging: int >= 0, in updates; when the first snapshot is taken. Or a text such as "3 epochs": after
            3 * (batches of an epoch) updates, whose number the first `fit()` with this optimizer tells. Updates count
            from the optimizer's first one, also over several `fit()`; accumulated batches count as one. It must be
            `fit()` that trains, with a known number of batches, and not under a TensorFlow strategy with several
            replicas.
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
        start_averaging: int | str = 0,
        average_period: int = 10,
        name: str = "SWA",
        **settings: Any,
    ):
        given = {
            "start_averaging": arguments.updates_or_epochs("start_averaging", start_averaging),
            "average_period": arguments.whole("average_period", average_period, 1),
        }
        known = not isinstance(start_averaging, str)
        rule = rules.EqualAverage(given["start_averaging"] if known else 2**31 - 1, given["average_period"])
        super().__init__(optimizer, rule, name, settings, given)
        # Past the tracking of attributes.
        vars(self)["start_is_known"] = known

    #: Whether it is known after how many updates the first snapshot comes.
    start_is_known: bool

    def build(self, variables: Any) -> None:
        # The earliest moment in a fit(): on JAX an error in its step would take the weights' values along.
        self._settle_start(None if self.start_is_known else steps_of_fit())
        super().build(variables)

    def require_ready(self) -> None:
        # Now, while the step is made: once compiled, it contains the number.
        self._settle_start(None if self.start_is_known else steps_of_fit() or 0)
        super().require_ready()

    def _settle_start(self, steps):
        """Turn epochs into updates, given the batches of an epoch: 0 if they are not known, None to wait."""
        if self.start_is_known or steps is None:
            return
        if steps == 0:
            raise ValueError(
                f"`start_averaging` can't be {self.start_averaging!r}: that needs a fit() that knows how many batches "
                "an epoch has. Give `steps_per_epoch` to fit(), or the number of updates here."
            )
        accumulated = getattr(innermost(self.optimizer), "gradient_accumulation_steps", None) or 1
        first = int(str(self.start_averaging).split()[0]) * steps // accumulated
        self.averages.rule = rules.EqualAverage(first, self.average_period)
        vars(self)["start_is_known"] = True

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
        slow_momentum: float from 0 to 1; Nesterov momentum of the slow steps. With d = slow - fast,
            velocity = slow_momentum * velocity + d, and slow -= slow_step_size * (d + slow_momentum *
            velocity). 0 is Lookahead as published. The authors of SNOO take `sync_period=28`,
            `slow_step_size=0.68` and `slow_momentum=0.37`; DiLoCo 500, 0.7 and 0.9.
        inner_state: "keep", "reset" or "average"; what becomes of the inner optimizer's momentum when the
            weights step back: it stays, becomes 0, or steps back like the weights, towards what it was
            after the slow step before. Momentum is the average of gradients that SGD, Adam and others have;
            an average of squared gradients stays, because without it Adam's next steps would be too long.
            "reset" and "average" take the memory of one more copy of it. An optimizer without momentum is
            left as it is.
        {settings}

    Slots: `slow`, of each variable's shape, float32 or wider; with `slow_momentum` also `velocity`.

    References:
        Zhang et al. 2019, Lookahead Optimizer: k steps forward, 1 step back, arXiv 1907.08610. Arguments
        and numbers are those of TensorFlow Addons' `Lookahead`. For `slow_momentum`: Kallusky et al. 2025,
        SNOO: Step-K Nesterov Outer Optimizer, arXiv 2510.15830, and Douillard et al. 2023, DiLoCo,
        arXiv 2311.08105.
    """

    sync_period = Argument()
    slow_step_size = Argument()
    slow_momentum = Argument()
    inner_state = Argument()

    #: The inner optimizer's momenta, which step back as the weights do; None where they are kept.
    momenta: Averages | None

    def __init__(
        self,
        optimizer: Any,
        sync_period: int = 6,
        slow_step_size: float = 0.5,
        name: str = "Lookahead",
        slow_momentum: float = 0.0,
        inner_state: str = "keep",
        **settings: Any,
    ):
        given = {
            "sync_period": arguments.whole("sync_period", sync_period, 1),
            "slow_step_size": arguments.fraction("slow_step_size", slow_step_size),
            "slow_momentum": arguments.fraction("slow_momentum", slow_momentum),
            "inner_state": arguments.choice("inner_state", inner_state, ("keep", "reset", "average")),
        }
        period, step_size, momentum, _ = given.values()
        rule = rules.StepBack(period, step_size)
        if momentum:
            rule = rules.StepBackWithMomentum(period, step_size, momentum=momentum)
        if inner_state != "keep" and type(innermost(optimizer)).__name__ == "ScheduleFreeAdamW":
            raise ValueError(
                f"`inner_state` must be 'keep' around Keras's ScheduleFreeAdamW, not {inner_state!r}: what it calls "
                "momentum are weights."
            )
        super().__init__(optimizer, rule, name, settings, given)
        momenta = None
        if inner_state != "keep":
            # A step of 0 leads back to the start, and a momentum starts from 0.
            back = rules.StepBack(period, step_size if inner_state == "average" else 0.0, start="zeros")
            momenta = Averages(back, self.backend, self, self.averages.check_finite, warns=False)
        # Past the tracking of attributes.
        vars(self)["momenta"] = momenta

    def create_averages(self, variables: list[Any]) -> None:
        super().create_averages(variables)
        if self.momenta is not None:
            found = [self._momentum_of(variable) for variable in self.averages.variables]
            self.momenta.create([momentum for momentum in found if momentum is not None])

    def _momentum_of(self, variable):
        """The momentum of the inner optimizer that belongs to a weight; None if there is none."""
        for name in ("momentum", "m"):
            momentum = self.inner_slot(variable, name)
            if momentum is not None:
                return momentum
        return None

    def move_averages(self, update: Any, counted: Any, rate: Any) -> None:
        super().move_averages(update, counted, rate)
        if self.momenta is not None:
            self.momenta.move(update, counted, rate)

    def all_slots(self) -> list[Any]:
        return super().all_slots() + ([] if self.momenta is None else self.momenta.average)


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
            6e-8 of its size, so it hardly moves at decays above 0.9999999. With `half_life` it can't be
            given, and is `0.5 ** (1 / half_life)`.
        start_step: int >= 0, in updates; until then the average is the weights.
        dynamic_decay: bool; whether the decay grows from 0.1 up to `average_decay`: after s updates from
            the start it is at most (1 + s) / (10 + s). `warmup_gamma` takes its place.
        name: str.
        update_period: int >= 1, in updates; the average moves once every `update_period` updates, with
            their decay (`average_decay ** update_period`).
        half_life: float > 0, in updates, or None; in place of `average_decay`: after this many updates half of
            the old average is left in it.
        warmup_gamma: float > 0, or None; whether the decay of a move grows from 0 as in timm, diffusers
            (`use_ema_warmup`) and ema-pytorch: s updates after the start it is at most
            1 - (1 + s / warmup_gamma) ** -warmup_power, and at s = 0 the average becomes the weights. s is 1
            after the first update; those count their first update as s = 0, which is `start_step=1`.
        warmup_power: float > 0. With `warmup_gamma=1` and 2/3 the decay reaches 0.999 after 31,600 updates
            and 0.9999 after 1,000,000; with 3/4 after 10,000 and 215,000.
        min_decay: float from 0 to `average_decay`; the lowest decay of a move while the decay grows.
        overwrite_period: int >= 1, in updates, a multiple of `update_period`, or None; every
            `overwrite_period` updates the model gets the average, and trains on from there (Switch-EMA, Keras's
            `ema_overwrite_frequency`). If a weight has a constraint, its average obeys it, too.
        {settings}

    Slots: `average`, of each variable's shape, float32 or wider.

    References:
        Polyak and Juditsky 1992, Acceleration of Stochastic Approximation by Averaging, doi
        10.1137/0330046. Arguments and decays are those of the Model Garden's
        `ExponentialMovingAverage`. For `overwrite_period`: Li et al. 2024, Switch EMA: A Free Lunch for
        Better Flatness and Sharpness, arXiv 2402.09240.
    """

    trainable_weights_only = Argument()
    average_decay = Argument()
    start_step = Argument()
    dynamic_decay = Argument()
    update_period = Argument()
    half_life = Argument()
    warmup_gamma = Argument()
    warmup_power = Argument()
    min_decay = Argument()
    overwrite_period = Argument()

    # With non-trainable weights: whether they are known, and averages read from a file before.
    _knows_all: bool

    def __init__(
        self,
        optimizer: Any,
        trainable_weights_only: bool = True,
        average_decay: float = Default(0.99),
        start_step: int = 0,
        dynamic_decay: bool = True,
        name: str = "ExponentialMovingAverage",
        update_period: int = 1,
        half_life: float | None = None,
        warmup_gamma: float | None = None,
        warmup_power: float = 2 / 3,
        min_decay: float = 0.0,
        overwrite_period: int | None = None,
        **settings: Any,
    ):
        half_life = arguments.optional(arguments.positive, "half_life", half_life)
        if half_life is None:
            average_decay = arguments.fraction("average_decay", average_decay)
        elif average_decay is None or isinstance(average_decay, Default):
            average_decay = 0.5 ** (1.0 / half_life)
        else:
            raise ValueError("Only one of `average_decay` and `half_life` can be given, not both.")
        given = {
            "trainable_weights_only": arguments.flag("trainable_weights_only", trainable_weights_only),
            "average_decay": average_decay,
            "start_step": arguments.whole("start_step", start_step, 0),
            "dynamic_decay": arguments.flag("dynamic_decay", dynamic_decay),
            "update_period": arguments.whole("update_period", update_period, 1),
            "half_life": half_life,
            "warmup_gamma": arguments.optional(arguments.positive, "warmup_gamma", warmup_gamma),
            "warmup_power": arguments.positive("warmup_power", warmup_power),
            "min_decay": arguments.fraction("min_decay", min_decay),
            "overwrite_period": arguments.optional(
                lambda name, value: arguments.whole(name, value, 1), "overwrite_period", overwrite_period
            ),
        }
        if min_decay > average_decay:
            arguments.refuse("min_decay", f"at most `average_decay`, {average_decay:.9g}", min_decay)
        if overwrite_period is not None and overwrite_period % update_period:
            arguments.refuse("overwrite_period", f"a multiple of `update_period`, {update_period}", overwrite_period)
        rule = rules.ExponentialAverage(
            average_decay,
            given["start_step"],
            given["dynamic_decay"],
            first_step=1,
            period=given["update_period"],
            gamma=given["warmup_gamma"],
            power=given["warmup_power"],
            least=given["min_decay"],
            overwrite=given["overwrite_period"],
            narrow=half_life is None,
        )
        if not trainable_weights_only and self.backend.name == "jax":
            raise ValueError(
                "`trainable_weights_only` must be True on JAX, not False: its compiled step does not show "
                "non-trainable weights to an optimizer. Recompute batch-norm statistics with "
                "update_batch_norm() instead."
            )
        super().__init__(optimizer, rule, name, settings, given)
        # Past the tracking of attributes.
        vars(self)["_knows_all"] = trainable_weights_only

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if self.half_life is not None:
            # Only one of the two can be given.
            del config["average_decay"]
        return config

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
        loaded, self.averages.waiting = self.averages.waiting, None
        if loaded is not None:
            self.load_own_variables(loaded)

    def meet(self, model: Any) -> None:
        if self.averages.waiting is not None:
            self.shadow_copy(model)

    @property
    def has_shadow_copy(self) -> bool:
        return self._knows_all and super().has_shadow_copy

    def require_ready(self) -> None:
        if not self._knows_all:
            raise ValueError(
                "`trainable_weights_only` is False: call optimizer.shadow_copy(model) before training (in R "
                "shadow_copy(model$optimizer, model)), so that the non-trainable weights are known. After this error "
                "call compile() again, too."
            )
        super().require_ready()

    def load_own_variables(self, store: Any) -> None:
        if self._knows_all:
            super().load_own_variables(store)
        else:
            self.averages.waiting = {key: np.array(store[key]) for key in store.keys()}

    def update_average(self, strategy: Any = None) -> None:
        """Move the averages once more, for the last update; training does this by itself.

        Args:
            strategy: accepted for old scripts.
        """
        self.averages.require("update_average")
        self.averages.move(self.count() - 1, None, None)


class MovingAverage(AveragingOptimizer):
    """Exponential moving average of the weights, as in TensorFlow Addons.

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


class PowerAverage(AveragingOptimizer):
    """Averages that widen as training goes on, and from which one of any width can be made afterwards.

    After each update every average moves towards the weights: average += fraction * (weights - average). With t the
    number of updates made, fraction = 1 - (1 - 1 / t) ** (gamma + 1): update t counts as t ** gamma. The width of
    an average, `sigma_rel`, is the standard deviation of the updates in it as a part of all updates so far;
    `average_width()` translates it. Widths: 0.05 is gamma 16.97, 0.10 is 6.94, 0.15 is 3.56, 0.20 is 1.83, 0.25 is
    0.72, and 0.2887 is 0: the equal average of all updates.

    Keep two averages, store them with the callback `AverageSnapshots`, and `posthoc_average()` gives the average
    of any width after training. Batch-norm statistics don't fit an average: recompute them afterwards.

    Args:
        optimizer: Keras optimizer that takes the steps, or the name of one.
        sigma_rel: float > 0 and at most 0.2887 (1 / sqrt(12)), or a list of different ones: the widths. Each takes
            the memory of one copy of the weights.
        name: str.
        shown_width: float, one of `sigma_rel`, or None for the first: the average that `assign_average_vars()`,
            `swap_weights()`, `SwapAverages` and `AverageModelCheckpoint` take. You can also set it as an attribute
            at any time, but while averages are swapped in.
        {settings}

    Slots: `average` for the first width, `average_2` for the second and so on, of each variable's shape, float32 or
    wider. `get_slot()` gives them all.

    References:
        Karras et al. 2024, Analyzing and Improving the Training Dynamics of Diffusion Models, arXiv 2312.02696.
    """

    sigma_rel = Argument()

    def __init__(
        self,
        optimizer: Any,
        sigma_rel: Any = (0.05, 0.10),
        name: str = "PowerAverage",
        shown_width: float | None = None,
        **settings: Any,
    ):
        sigma_rel = widths("sigma_rel", sigma_rel)
        rule = rules.PowerAverage(tuple(map(gamma_of, sigma_rel)), _number_of(shown_width, sigma_rel))
        given = {"sigma_rel": sigma_rel, "shown_width": None if shown_width is None else sigma_rel[rule.shown]}
        super().__init__(optimizer, rule, name, settings, given)

    @property
    def shown_width(self) -> float:
        """The width of the average that the model is shown."""
        rule = self.averages.rule
        return self.sigma_rel[list(rule.slots).index(rule.slot)]

    @shown_width.setter
    def shown_width(self, sigma_rel: float) -> None:
        number = _number_of(sigma_rel, self.sigma_rel)
        if self.averages.shown:
            raise ValueError(
                "`shown_width` can't be set while the averages are swapped into the model: call swap_weights() first."
            )
        self.averages.rule = rules.PowerAverage(tuple(map(gamma_of, self.sigma_rel)), number)
        self.given["shown_width"] = self.sigma_rel[number]


def _number_of(shown_width, sigma_rel):
    """The position of a width among those that are tracked."""
    if shown_width is None:
        return 0
    words = ", ".join(f"{width:g}" for width in sigma_rel)
    return sigma_rel.index(
        arguments.real("shown_width", shown_width, f"one of `sigma_rel`, {words}", sigma_rel.__contains__)
    )


class PrimalAveraging(AveragingOptimizer):
    """Primal averaging: gradients between the fast weights and their exponential average.

    With x the average, z the fast weights and y what the model holds in training:

        z: the inner optimizer's step from z, with the gradient at y
        x = eval_interpolation * x + (1 - eval_interpolation) * z
        y = train_interpolation * x + (1 - train_interpolation) * z

    After `fit()` the model holds y, and one line says so. `assign_average_vars()`, `swap_weights()`,
    `SwapAverages` and `AverageModelCheckpoint` work on x, the weights to use. The next step after
    `assign_average_vars()` takes its gradient at x, and training goes on as before. Weights that you set
    yourself are where the next gradient is taken, and no more: to start from them, compile with a new optimizer.

    Args:
        optimizer: Keras optimizer that moves the fast weights, or the name of one. Its weight decay, its
            momentum and the variables' constraints act on z.
        train_interpolation: float from 0 to 1, share of the average in y. 0 is an exponential moving average.
        eval_interpolation: float from 0 to 1, share of x that stays at an update. 0 is the inner optimizer.
            0.9 ** (1 / H) is about as slow as H local steps of DiLoCo: 0.9967 is 32 of them.
        name: str.
        {settings}

    Slots: `average` (x) and `fast` (z), of each variable's shape, float32 or wider.

    References:
        Generalized Primal Averaging, arXiv 2512.17131. Numbers are those of its authors' `GPAAdamW`, but
        that the inner optimizer's weight decay leaves the average alone.
    """

    train_interpolation = Argument()
    eval_interpolation = Argument()

    def __init__(
        self,
        optimizer: Any,
        train_interpolation: float = 0.7,
        eval_interpolation: float = 0.9967,
        name: str = "PrimalAveraging",
        **settings: Any,
    ):
        given = {
            "train_interpolation": arguments.fraction("train_interpolation", train_interpolation),
            "eval_interpolation": arguments.fraction("eval_interpolation", eval_interpolation),
        }
        rule = rules.PrimalAverage(decay=given["eval_interpolation"], blend=given["train_interpolation"])
        super().__init__(optimizer, rule, name, settings, given)


class ScheduleFree(AveragingOptimizer):
    """Schedule-Free learning: gradients between the fast weights and their average, and no schedule.

    With x the average, z the fast weights and y what the model holds in training, update k (counted from 0):

        z: the inner optimizer's step from z, with the gradient at y
        x = (1 - c) * x + c * z
        y = beta * x + (1 - beta) * z

    where c is the share of this update's weight, (k + 1)^r * (largest learning rate so far)^weight_lr_power,
    in all weights so far.

    After `fit()` the model holds y, and one line says so. `assign_average_vars()`, `swap_weights()`,
    `SwapAverages` and `AverageModelCheckpoint` work on x, the weights to use; batch-norm statistics are those
    of y, so recompute them. The next step after `assign_average_vars()` takes its gradient at x, and training
    goes on as before. Weights that you set yourself are where the next gradient is taken, and no more: to
    start from them, compile with a new optimizer.

    Args:
        optimizer: Keras optimizer that moves the fast weights, or the name of one; best without a momentum
            (SGD, or Adam with beta_1 = 0). Its weight decay and the variables' constraints act on z. It has
            one learning rate, so it is no MultiOptimizer.
        beta: float from 0 to 1, share of the average in y. The authors take 0.95 or 0.98 for long trainings.
        warmup_steps: int >= 0, updates in which the learning rate grows from 0 to its full size. Not together
            with a learning-rate schedule: put the warm-up into the schedule.
        weight_lr_power: float >= 0, see above. 0 counts updates of all learning rates alike.
        r: float >= 0, see above. More than 0 makes late updates count more.
        weight_decay_at_y: float >= 0; each update moves z by -(learning rate) * weight_decay_at_y * y.
        name: str.
        {settings}

    Slots: `average` (x) and `fast` (z), of each variable's shape, float32 or wider.

    References:
        Defazio et al. 2024, The Road Less Scheduled, arXiv 2405.15682. Numbers are those of the authors'
        `ScheduleFreeWrapper`, `SGDScheduleFree` and `AdamWScheduleFree`.
    """

    beta = Argument()
    warmup_steps = Argument()
    weight_lr_power = Argument()
    r = Argument()
    weight_decay_at_y = Argument()

    def __init__(
        self,
        optimizer: Any,
        beta: float = 0.9,
        warmup_steps: int = 0,
        weight_lr_power: float = 2.0,
        r: float = 0.0,
        weight_decay_at_y: float = 0.0,
        name: str = "ScheduleFree",
        **settings: Any,
    ):
        given = {
            "beta": arguments.fraction("beta", beta),
            "warmup_steps": arguments.whole("warmup_steps", warmup_steps, 0),
            "weight_lr_power": arguments.not_negative("weight_lr_power", weight_lr_power),
            "r": arguments.not_negative("r", r),
            "weight_decay_at_y": arguments.not_negative("weight_decay_at_y", weight_decay_at_y),
        }
        optimizer = self.inner_optimizer_from(optimizer)
        inner = innermost(optimizer)
        if getattr(inner, "learning_rate", None) is None:
            raise ValueError(
                f"`optimizer` must have one learning rate, and {type(inner).__name__} has several: ScheduleFree "
                "weighs updates by it."
            )
        if warmup_steps and has_schedule(optimizer, self.private):
            raise ValueError(
                "`warmup_steps` cannot be given: the learning rate of the inner optimizer is a schedule or a "
                "function, not a number. Put the warm-up into it."
            )
        super().__init__(optimizer, rules.ScheduleFree(*given.values()), name, settings, given)
        _warn_of_momentum(inner)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> AveragingOptimizer:
        with warnings.catch_warnings():
            # It was said when the optimizer was made.
            warnings.filterwarnings("ignore", message="ScheduleFree has its own momentum")
            return super().from_config(config, custom_objects)


def _warn_of_momentum(inner):
    config = inner.get_config()
    for argument in ("momentum", "beta_1"):
        if config.get(argument):
            warnings.warn(
                f"ScheduleFree has its own momentum, `beta`: its authors advise `{argument}` = 0 in the inner "
                f"{type(inner).__name__}, not {config[argument]:g}.",
                KerasOptimizersWarning,
                stacklevel=3,
            )


__all__ = [
    "ExponentialMovingAverage",
    "Lookahead",
    "MovingAverage",
    "PowerAverage",
    "PrimalAveraging",
    "SWA",
    "ScheduleFree",
]

METHODS: tuple[type[AveragingOptimizer], ...] = tuple(globals()[name] for name in __all__)

for _method in METHODS:
    _method.__doc__ = (_method.__doc__ or "").replace("{settings}", _SETTINGS)
    # R looks at the names of classes: they must not depend on the file that a class is in.
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
