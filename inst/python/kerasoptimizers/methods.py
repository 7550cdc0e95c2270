"""The averaging methods: arguments and documentation, once for both Keras generations.

Each class here is a mixin that turns its arguments into a rule. The folders
`keras3` and `tf_keras` join it to the wrapper of their generation.
"""

from . import arguments, rules

_SETTINGS = """**kwargs: settings every averaging optimizer takes.
                `clipnorm`: float > 0, limit of each gradient's norm;
                `clipvalue`: float > 0, limit of each gradient element's size;
                `global_clipnorm`: float > 0, limit of the norm of all
                gradients together; `decay`: float >= 0, the inner learning
                rate is divided by 1 + decay * updates; `lr`: float >= 0,
                deprecated, sets the inner learning rate; `sequential_update`:
                bool, accepted for old scripts, both values average after the
                update.

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


METHODS = (SWA, Lookahead)
for _method in METHODS:
    _method.__doc__ = _method.__doc__.replace("{settings}", _SETTINGS)


def join(wrapper, register):
    """The public classes of a generation: each method, joined to the generation's wrapper."""
    return {
        method.__name__: register(
            type(
                method.__name__,
                (method, wrapper),
                {"__doc__": method.__doc__, "__module__": wrapper.__module__},
            )
        )
        for method in METHODS
    }
