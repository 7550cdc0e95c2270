"""LARS: arguments, arithmetic and documentation, once for both Keras generations."""

import re
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from . import arguments, gradients
from .legacy import LegacyMethods, VariableList

if TYPE_CHECKING:

    class _KerasOptimizer(LegacyMethods):
        """The attributes that the class beside `LARS`, one of Keras's optimizers, must have."""

        iterations: Any
        clipnorm: float | None
        clipvalue: float | None
        global_clipnorm: float | None

        def __init__(self, learning_rate: Any, name: str, **settings: Any): ...
        def key(self, variable: Any) -> Any: ...
        def load_own_variables(self, store: Any) -> None: ...
        def get_config(self) -> dict[str, Any]: ...
        @classmethod
        def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any: ...
        def _use_weight_decay(self, variable: Any) -> bool: ...

else:
    _KerasOptimizer = LegacyMethods


class LARS(_KerasOptimizer):
    """Layer-wise adaptive rate scaling, for training with large batches.

    SGD with momentum in which every variable has its own learning rate: it is multiplied
    by the trust ratio

        eeta * norm(weights) / norm(gradient + weight_decay_rate * weights)

    so that no layer moves by more than a small share of its own size, whatever the size of its
    gradient. Where one of the norms is zero the ratio is 1. Norms are those of whole variables.

    Args:
        learning_rate: float >= 0, a Keras learning-rate schedule, or a function of no argument
            that returns a rate.
        momentum: float from 0 to 1; share of the last step that the next one keeps.
        weight_decay_rate: float >= 0; this times the weights is added to the gradient, before
            the norms are taken.
        eeta: float > 0; the trust coefficient of the paper.
        nesterov: bool; whether to look one momentum step ahead.
        classic_momentum: bool. True: momentum sums steps, each already multiplied by its
            learning rate and trust ratio, as in the paper. False: momentum sums gradients, and
            the trust ratio (then of the sum's norm) and the rate multiply the sum, so that a
            change of the rate acts at once.
        exclude_from_weight_decay: str, list of str or None: regular expressions; a variable in
            whose path or name one is found has no weight decay, such as "bias".
        exclude_from_layer_adaptation: the same for the trust ratio, which is then 1. None: as
            exclude_from_weight_decay; an empty list: no variable is excluded.
        name: str.
        **kwargs: `clipnorm`: float > 0, limit of each gradient's norm; `clipvalue`: float > 0,
            limit of each gradient element's size; `global_clipnorm`: float > 0, limit of the
            norm of all gradients together; `decay`: float >= 0, the learning rate is divided by
            1 + decay * updates; `lr`: float >= 0, deprecated, in place of `learning_rate`; and
            what every optimizer of this Keras takes, such as `use_ema` (not `weight_decay`,
            which is another decay, outside of the trust ratio).

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described, before
            anything is changed.

    Slots: `momentum`, of each variable's shape, float32 or wider, as all of the arithmetic.
    Sparse gradients (`tf.IndexedSlices`) count as the dense ones that they represent: momentum
    and weight decay move every row.

    References:
        You et al. 2017, Large Batch Training of Convolutional Networks, arXiv 1708.03888.
        Arguments and numbers are those of the TensorFlow Model Garden's `LARS`.
    """

    __module__ = "kerasoptimizers"

    # Set for each Keras: the class of its schedules, how one is loaded, the name of a slot, and the positions of
    # the variables that the optimizer was built for, by their keys.
    _schedule: ClassVar[type]
    _deserialize: ClassVar[Any]
    _momentum_name: ClassVar[Any]
    built_for: ClassVar[Any]

    decay: float | None
    _learning_rate: Any

    _settings = {
        "clipnorm": arguments.positive,
        "clipvalue": arguments.positive,
        "global_clipnorm": arguments.positive,
        "decay": arguments.not_negative,
        "lr": arguments.not_negative,
    }
    # The arguments that optimizers of both Kerases take; each adds its own.
    _base_settings = {
        "use_ema": arguments.flag,
        "ema_momentum": arguments.fraction,
        "ema_overwrite_frequency": lambda name, value: arguments.whole(name, value, 1),
    }

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.9,
        weight_decay_rate: float = 0.0,
        eeta: float = 0.001,
        nesterov: bool = False,
        classic_momentum: bool = True,
        exclude_from_weight_decay: Any = None,
        exclude_from_layer_adaptation: Any = None,
        name: str = "LARS",
        **kwargs: Any,
    ):
        learning_rate = _rate(learning_rate, self._schedule)
        momentum = arguments.fraction("momentum", momentum)
        weight_decay_rate = arguments.not_negative("weight_decay_rate", weight_decay_rate)
        eeta = arguments.positive("eeta", eeta)
        arguments.flag("nesterov", nesterov)
        arguments.flag("classic_momentum", classic_momentum)
        decay_exclusions = _patterns("exclude_from_weight_decay", exclude_from_weight_decay)
        adaptation_exclusions = _patterns("exclude_from_layer_adaptation", exclude_from_layer_adaptation)
        arguments.string("name", name)
        settings, base_settings = self._check_settings(kwargs)
        if "lr" in settings:
            warnings.warn("`lr` is deprecated: use `learning_rate`.", DeprecationWarning, stacklevel=2)
            learning_rate = settings["lr"]
        super().__init__(learning_rate=learning_rate, name=name, weight_decay=None, **base_settings)
        self.momentum = momentum
        self.weight_decay_rate = weight_decay_rate
        self.eeta = eeta
        self.nesterov = nesterov
        self.classic_momentum = classic_momentum
        # Not under the arguments' names, which Keras uses for methods.
        self._decay_exclusions = decay_exclusions
        self._adaptation_exclusions = adaptation_exclusions
        for setting in ("clipnorm", "clipvalue", "global_clipnorm", "decay"):
            setattr(self, setting, settings.get(setting))
        self._momentums: list[Any] = []

    @classmethod
    def _check_settings(cls, given):
        """The keyword arguments, checked: those of LARS, and those for the base class. None: not given."""
        given = {setting: value for setting, value in given.items() if value is not None}
        if given.pop("weight_decay", 0) != 0:
            raise ValueError(
                "`weight_decay` cannot be given: the weight decay of LARS, which is part of its "
                "trust ratio, is `weight_decay_rate`."
            )
        known = {**cls._settings, **cls._base_settings}
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise TypeError(
                f"{cls.__name__}() has no argument `{unknown[0]}`; beside its own it takes "
                + ", ".join(f"`{setting}`" for setting in known)
                + "."
            )
        checked = {setting: known[setting](setting, value) for setting, value in given.items()}
        if "clipnorm" in checked and "global_clipnorm" in checked:
            raise ValueError("Only one of `clipnorm` and `global_clipnorm` can be given, not both.")
        base = {setting: checked.pop(setting) for setting in set(cls._base_settings) & set(checked)}
        return checked, base

    @property
    def learning_rate(self) -> Any:
        """The learning rate (before `decay` and trust ratios); of a schedule, its rate now."""
        return super().learning_rate  # type: ignore[misc]

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        learning_rate = arguments.rate(learning_rate)
        if callable(self._learning_rate) and not callable(learning_rate):
            raise TypeError(
                "`learning_rate` cannot be set to a number: this optimizer was made with a "
                "schedule or a function. Make it with a number to set others later."
            )
        super(LARS, type(self)).learning_rate.fset(self, learning_rate)  # type: ignore[misc]

    lr = learning_rate

    @property
    def variables(self) -> VariableList:
        """All variables: the count of updates, the learning rate, momentum for each weight."""
        return VariableList(super().variables)

    def own_slots(self) -> dict[str, Any]:
        return {"momentum": self._momentums}

    def position(self, variable: Any) -> int | None:
        try:
            return (self.built_for() or {}).get(self.key(variable))
        except AttributeError:
            return None  # no variable at all

    # The update.

    def _prepare(self, variables):
        """Create the momentum of each variable, and look up what it is excluded from.

        Both now: in the update, variables no longer have their paths.
        """
        for variable in variables:
            dtype = self.backend.dtype(variable)
            dtype = "float32" if dtype in ("float16", "bfloat16") else dtype
            name = self._momentum_name(variable)
            momentum = self.new_variable(name, variable.shape, dtype, "zeros", variable)
            self._momentums.append(momentum)
        decays, adapts = self._decay_exclusions, self._adaptation_exclusions
        adapts = decays if adapts is None else adapts
        self._decays = tuple(not _found(decays, variable) for variable in variables)
        self._adapts = tuple(not _found(adapts, variable) for variable in variables)

    def _use_weight_decay(self, variable):
        # Also asks what was excluded by Keras's own method, exclude_from_weight_decay().
        return self._decays[self.require_position(variable)] and super()._use_weight_decay(variable)

    def _clip_gradients(self, grads):
        # Keras 3's own clipping fails on sparse gradients.
        return gradients.clip(grads, self.backend.xp, self.clipnorm, self.clipvalue, self.global_clipnorm)

    def _decayed(self, learning_rate, dtype):
        rate = self.backend.xp.cast(learning_rate, dtype)
        if self.decay:
            rate = rate / (1.0 + self.decay * self.backend.xp.cast(self.iterations, dtype))
        return rate

    def _weight_decay_of(self, variable):
        used = self.weight_decay_rate and self._use_weight_decay(variable)
        return self.weight_decay_rate if used else 0.0

    def _moved(self, variable, gradient, momentum, learning_rate):
        """New values of a variable and its momentum, in the momentum's dtype."""
        cast, dtype = self.backend.xp.cast, momentum.dtype
        weights, gradient = cast(variable, dtype), cast(dense(gradient, variable), dtype)
        momentum, rate = cast(momentum, dtype), self._decayed(learning_rate, dtype)
        weight_decay = self._weight_decay_of(variable)
        if weight_decay:
            gradient = gradient + weight_decay * weights

        def scaled(direction):
            if not self._adapts[self.require_position(variable)]:
                return rate * direction
            size, length = _norm(weights, self.backend.xp), _norm(direction, self.backend.xp)
            return rate * trust_ratio(size, length, self.eeta, self.backend.xp) * direction

        push = scaled(gradient) if self.classic_momentum else gradient
        momentum = self.momentum * momentum + push
        step = self.momentum * momentum + push if self.nesterov else momentum
        return weights - (step if self.classic_momentum else scaled(step)), momentum

    # Saving.

    def load_own_variables(self, store: Any) -> None:
        """Set the variables that a file holds for this optimizer.

        Args:
            store: dict of arrays or HDF5 group, as `save_own_variables()` fills it.

        Raises:
            TypeError, ValueError: if it holds other arrays. No variable is changed then.
        """
        if not hasattr(store, "keys"):
            arguments.refuse("store", "a dict of arrays or an HDF5 group", store)
        if len(store.keys()) == len(self.variables):
            arguments.check_store(store, self.variables)
        super().load_own_variables(store)

    # Configuration.

    def get_config(self) -> dict[str, Any]:
        """Settings from which `from_config()` makes the same optimizer, without its state."""
        decays, adapts = self._decay_exclusions, self._adaptation_exclusions
        return {
            **super().get_config(),
            "decay": self.decay,
            "momentum": self.momentum,
            "weight_decay_rate": self.weight_decay_rate,
            "eeta": self.eeta,
            "nesterov": self.nesterov,
            "classic_momentum": self.classic_momentum,
            "exclude_from_weight_decay": None if decays is None else list(decays),
            "exclude_from_layer_adaptation": None if adapts is None else list(adapts),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "LARS":
        """Make an optimizer from the result of `get_config()`.

        Args:
            config: dict, as `get_config()` returns it.
            custom_objects: dict of names and classes or functions that a schedule or function
                given as `learning_rate` needs.
        """
        config = arguments.config(config)
        if isinstance(config.get("learning_rate"), dict):
            config["learning_rate"] = arguments.part(
                "learning_rate", config["learning_rate"], cls._deserialize, custom_objects
            )
        return super().from_config(config, custom_objects=custom_objects)


def trust_ratio(size, length, eeta, xp):
    """eeta * size / length, norms of weights and direction, or 1 where one of them is zero."""
    # No division by zero, even if its result would not be used: tools that look for NaN would report it.
    ratio = eeta * size / xp.where(length > 0, length, 1.0)
    return xp.where((size > 0) & (length > 0), ratio, 1.0)


def _norm(values, xp):
    return xp.sqrt(xp.sum(xp.square(values)))


def move_with_torch(optimizer, weights, grads, momentums, decays, adapts, rate):
    """What `LARS._moved()` computes, for many tensors of PyTorch at once and in place.

    Nothing waits for the device: the rates of the layers stay there. But for the sum that
    Nesterov momentum of gradients needs, no copy of all weights is made.

    Args:
        optimizer: the optimizer with the settings.
        weights, grads, momentums: lists of tensors, all of one dtype and on one device.
        decays: list of float, the weight decay of each.
        adapts: list of bool, whether each has a trust ratio.
        rate: tensor, the learning rate.
    """
    import torch

    decayed = [i for i, decay in enumerate(decays) if decay]
    adapted = [i for i, adapt in enumerate(adapts) if adapt]

    def rates(norms):
        """The rate of each tensor times its trust ratio, from the norms of the adapted ones."""
        found = [rate] * len(weights)
        if adapted:
            sizes = torch.stack(torch._foreach_norm([weights[i] for i in adapted]))
            ratios = trust_ratio(sizes, torch.stack(norms), optimizer.eeta, torch)
            for i, scaled in zip(adapted, (rate * ratios).unbind(), strict=True):
                found[i] = scaled
        return found

    def norms_of_gradients():
        """Norms of the adapted gradients, each with its weight decay."""
        # Sums are made one after the other in one place, not in memory for all of them.
        room = grads[0].new_empty(max((grads[i].numel() for i in decayed), default=0))
        undecayed = [grads[i] for i in adapted if not decays[i]]
        plain = iter(torch._foreach_norm(undecayed) if undecayed else ())

        def norm(i):
            if not decays[i]:
                return next(plain)
            place = room[: grads[i].numel()].view(grads[i].shape)
            return torch.linalg.vector_norm(torch.add(grads[i], weights[i], alpha=decays[i], out=place))

        return [norm(i) for i in adapted]

    def add_gradients(sums):
        torch._foreach_add_(sums, grads)
        for i in decayed:
            sums[i].add_(weights[i], alpha=decays[i])

    def add_steps(sums, rates):
        # The decay first: where the sums are the weights themselves, it must see them unchanged.
        for i in decayed:
            sums[i].addcmul_(weights[i], decays[i] * rates[i])
        torch._foreach_addcmul_(sums, grads, rates)

    if optimizer.classic_momentum:
        scaled = rates(norms_of_gradients())
        torch._foreach_mul_(momentums, optimizer.momentum)
        add_steps(momentums, scaled)
        if optimizer.nesterov:
            add_steps(weights, [-rate for rate in scaled])
            torch._foreach_sub_(weights, momentums, alpha=optimizer.momentum)
        else:
            torch._foreach_sub_(weights, momentums)
        return
    torch._foreach_mul_(momentums, optimizer.momentum)
    add_gradients(momentums)
    steps = momentums
    if optimizer.nesterov:
        steps = torch._foreach_mul(momentums, optimizer.momentum)
        add_gradients(steps)
    scaled = rates(torch._foreach_norm([steps[i] for i in adapted]) if adapted else ())
    torch._foreach_addcmul_(weights, steps, [-rate for rate in scaled])


def dense(gradient, variable):
    """The gradient as a tensor of the variable's shape; repeated rows of a sparse one add up."""
    if type(gradient).__name__ != "IndexedSlices":
        return gradient
    import tensorflow as tf

    return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, variable.shape[0])


def _rate(value, schedule):
    """A learning rate: a number, a schedule of this Keras generation, or a function."""
    allowed = "a number >= 0, a Keras learning-rate schedule or a function"
    if not callable(value):
        return arguments.real("learning_rate", value, allowed, lambda x: x >= 0)
    foreign = not isinstance(value, schedule) and any(
        base.__name__ == "LearningRateSchedule" for base in type(value).__mro__
    )
    if foreign:
        here, there = schedule.__module__.split(".")[0], type(value).__module__.split(".")[0]
        raise TypeError(f"`learning_rate` must be a schedule of {here}, as this optimizer is, not of {there}.")
    if isinstance(value, type):
        arguments.refuse("learning_rate", allowed, value)
    return value


def _patterns(name, value):
    """Regular expressions as a tuple of strings, or None."""
    if value is None:
        return None
    patterns = (value,) if isinstance(value, str) else value
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(p, str) for p in patterns):
        arguments.refuse(name, "a regular expression or a list of them", value)
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(
                f"`{name}` must be a regular expression or a list of them, not {pattern!r}: {error.msg}."
            ) from None
    return tuple(patterns)


def _found(patterns, variable):
    # With and without the ":0" of TensorFlow, so that patterns of old scripts match what they did.
    path = (getattr(variable, "path", None) or variable.name).split(":")[0]
    names = (path, f"{path}:0", variable.name)
    return any(re.search(pattern, name) for pattern in patterns or () for name in names)
