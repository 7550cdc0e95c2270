"""The averaging methods: arguments and documentation, once for both Keras generations.

Each class here is a mixin that turns its arguments into a rule. The folders
`keras3` and `tf_keras` join it to the wrapper of their generation.
"""

import numpy as np

from . import arguments, rules

_SETTINGS = """**kwargs: settings every averaging optimizer takes.
                `clipnorm`: float > 0, limit of each gradient's norm;
                `clipvalue`: float > 0, limit of each gradient element's size;
                `global_clipnorm`: float > 0, limit of the norm of all
                gradients together; `decay`: float >= 0, the inner learning
                rate is divided by 1 + decay * updates; `lr`: float >= 0,
                deprecated, sets the inner learning rate; `sequential_update`:
                bool, accepted for old scripts, both values average after the
                update; `check_finite`: bool, True; averages do not move after an
                update that leaves a weight which is not finite, and one warning
                names it, at the end of `fit()` or when the averages are next used.

        Raises:
            TypeError, ValueError: in one line, for an argument that is not as
                described, before anything is changed."""


class SWA:
    """Stochastic weight averaging: an equal-weight average of the weights along training.

        The inner optimizer trains the model. After update number
        `start_averaging` (counted from 0) and every `average_period` updates
        from there on, a snapshot of the weights enters the average. The model
        trains on undisturbed; `assign_average_vars(model.trainable_variables)`
        puts the average into it at the end, and batch-norm statistics must be
        recomputed afterwards.

        Args:
            optimizer: Keras optimizer that takes the steps, or the name of one.
            start_averaging: int >= 0, in updates; when the first snapshot is taken.
            average_period: int >= 1, in updates; how often one is taken. The paper
                takes one per epoch or per cycle of a cyclic learning rate.
            name: str.
            {settings}

        Slots: `average`, of each variable's shape, float32 or wider.

        References:
            Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and
            Better Generalization, arXiv 1803.05407. Arguments and numbers are
            those of TensorFlow Addons' `SWA`.
    """

    def __init__(self, optimizer, start_averaging=0, average_period=10, name="SWA", **kwargs):
        rule = rules.EqualAverage(
            arguments.whole("start_averaging", start_averaging, 0),
            arguments.whole("average_period", average_period, 1),
        )
        super().__init__(optimizer, rule, name, **kwargs)

    @property
    def snapshots(self):
        """How many snapshots the average holds."""
        return 0 if self._snapshots is None else int(self._number(self._snapshots))

    def get_config(self):
        return {
            **super().get_config(),
            "start_averaging": self._rule.start,
            "average_period": self._rule.period,
        }


class Lookahead:
    """Lookahead: k fast steps, then one slow step back.

        The inner optimizer moves the fast weights. Every `sync_period` updates
        the slow weights move towards the fast ones by `slow_step_size`, and
        the fast weights start again from there.

        Args:
            optimizer: Keras optimizer that takes the fast steps, or the name of one.
            sync_period: int >= 1, in updates.
            slow_step_size: float from 0 to 1; share of the way that the slow
                weights go.
            name: str.
            {settings}

        Slots: `slow`, of each variable's shape, float32 or wider.

        References:
            Zhang et al. 2019, Lookahead Optimizer: k steps forward, 1 step
            back, arXiv 1907.08610. Arguments and numbers are those of
            TensorFlow Addons' `Lookahead`.
    """

    def __init__(self, optimizer, sync_period=6, slow_step_size=0.5, name="Lookahead", **kwargs):
        rule = rules.StepBack(
            arguments.whole("sync_period", sync_period, 1),
            arguments.fraction("slow_step_size", slow_step_size),
        )
        super().__init__(optimizer, rule, name, **kwargs)

    def get_config(self):
        return {
            **super().get_config(),
            "sync_period": self._rule.period,
            "slow_step_size": self._rule.step_size,
        }


class ExponentialMovingAverage:
    """Exponential moving average of the weights, with warm-up.

        After every update: average += (1 - decay) * (weights - average). It
        starts as a copy of the weights. (The Model Garden's starts at zero,
        which biases it towards zero by the product of the decays so far.)

        Args:
            optimizer: Keras optimizer that takes the steps, or the name of one.
            trainable_weights_only: bool; False also averages the non-trainable
                weights, such as batch-norm statistics. Then `shadow_copy(model)`
                must be called before training. Not on JAX, whose compiled step
                does not show them to an optimizer.
            average_decay: float from 0 to 1, per update.
            start_step: int >= 0, in updates; until then the average is the weights.
            dynamic_decay: bool; whether the decay grows from 0.1 up to
                `average_decay`: after s updates from the start it is at most
                (1 + s) / (10 + s).
            name: str.
            update_period: int >= 1, in updates; the average moves once in so many
                updates, with their decay (`average_decay ** update_period`).
            {settings}

        Slots: `average`, of each variable's shape, float32 or wider.

        References:
            Polyak and Juditsky 1992, Acceleration of Stochastic Approximation by
            Averaging, doi 10.1137/0330046. Arguments and decays are those of the
            Model Garden's `ExponentialMovingAverage`.
    """

    def __init__(
        self,
        optimizer,
        trainable_weights_only=True,
        average_decay=0.99,
        start_step=0,
        dynamic_decay=True,
        name="ExponentialMovingAverage",
        update_period=1,
        **kwargs,
    ):
        arguments.flag("trainable_weights_only", trainable_weights_only)
        rule = rules.ExponentialAverage(
            decay=arguments.fraction("average_decay", average_decay),
            start=arguments.whole("start_step", start_step, 0),
            dynamic=arguments.flag("dynamic_decay", dynamic_decay),
            first_step=1,
            period=arguments.whole("update_period", update_period, 1),
        )
        if not trainable_weights_only:
            self._require_live_non_trainable_weights()
        super().__init__(optimizer, rule, name, **kwargs)
        self.trainable_weights_only = trainable_weights_only
        # With non-trainable weights: whether they are known, and averages read from a file before.
        vars(self).update(_copied=trainable_weights_only, _loaded=None)

    def shadow_copy(self, model):
        """Create the averages before training; needed where `trainable_weights_only` is False.

        Args:
            model: a built model, or a list of its weights.
        """
        super().shadow_copy(model)
        if self._copied:
            return
        weights = getattr(model, "non_trainable_weights", None)
        if weights is None:
            weights = [variable for variable in model if not variable.trainable]
        # Counters and seeds of random generators have no average.
        self._average_too([v for v in weights if "float" in str(self._dtype(v))])
        vars(self)["_copied"] = True
        if self._loaded is not None:
            self.load_own_variables(self._loaded)
            vars(self)["_loaded"] = None

    def _require_ready(self):
        if not self._copied:
            raise ValueError(
                "`trainable_weights_only` is False: call shadow_copy(model) before training, so that "
                "the non-trainable weights are known."
            )

    def load_own_variables(self, store):
        if self._copied:
            super().load_own_variables(store)
        else:
            vars(self)["_loaded"] = {key: np.array(store[key]) for key in store.keys()}

    def update_average(self, strategy=None):
        """Move the averages once more, for the last update; training does this by itself.

        Args:
            strategy: accepted for old scripts.
        """
        self._require_average("update_average")
        self._move_averages(self._count() - 1)

    def get_config(self):
        return {
            **super().get_config(),
            "trainable_weights_only": self.trainable_weights_only,
            "average_decay": self._rule.decay,
            "start_step": self._rule.start,
            "dynamic_decay": self._rule.dynamic,
            "update_period": self._rule.period,
        }


class MovingAverage:
    """Exponential moving average of the weights, as TensorFlow Addons has it.

        For new work take `ExponentialMovingAverage`: it differs in its
        defaults, and counts the first update as step 1, not 0.

        Args:
            optimizer: Keras optimizer that takes the steps, or the name of one.
            average_decay: float from 0 to 1, per update.
            num_updates: int >= 0, or None; limits the decay to
                (1 + num_updates) / (10 + num_updates).
            start_step: int >= 0, in updates; until then the average is the weights.
            dynamic_decay: bool; whether the decay grows from 0.1 up to
                `average_decay` with the updates.
            name: str.
            {settings}

        Slots: `average`, of each variable's shape, float32 or wider.

        References:
            Arguments and numbers are those of TensorFlow Addons' `MovingAverage`.
    """

    def __init__(
        self,
        optimizer,
        average_decay=0.99,
        num_updates=None,
        start_step=0,
        dynamic_decay=False,
        name="MovingAverage",
        **kwargs,
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
        rule = rules.ExponentialAverage(
            decay=limited,
            start=arguments.whole("start_step", start_step, 0),
            dynamic=arguments.flag("dynamic_decay", dynamic_decay),
        )
        super().__init__(optimizer, rule, name, **kwargs)
        self.average_decay = average_decay
        self.num_updates = num_updates

    def get_config(self):
        return {
            **super().get_config(),
            "average_decay": self.average_decay,
            "num_updates": self.num_updates,
            "start_step": self._rule.start,
            "dynamic_decay": self._rule.dynamic,
        }


for _method in (SWA, Lookahead, ExponentialMovingAverage, MovingAverage):
    _method.__doc__ = (_method.__doc__ or "").replace("{settings}", _SETTINGS)
