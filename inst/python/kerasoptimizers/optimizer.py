"""The averaging optimizer: the part that both Kerases share.

Such an optimizer lets another one, the inner optimizer, take its step, and then moves its averages. How Keras
calls it, and what Keras calls things, is in `keras3/optimizer.py` and `tf_keras/optimizer.py`.
"""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from . import arguments, gradients
from .averages import Averages
from .legacy import LegacyMethods
from .notices import KerasOptimizersWarning
from .rules import Rule
from .values import Held

#: The keyword arguments that every averaging optimizer takes.
SETTINGS = ("sequential_update", "clipnorm", "clipvalue", "global_clipnorm", "decay", "lr", "check_finite")


class AveragingOptimizer(LegacyMethods):
    """Base of the averaging optimizers, for a class that is one of Keras's optimizers, too.

    Attributes:
        optimizer: the inner optimizer.
        averages: the `Averages`.
        given: dict, the method's own arguments.
    """

    __module__ = "kerasoptimizers"

    #: The module of its Keras, and our module with the private parts of that Keras.
    keras: ClassVar[Any]
    private: ClassVar[Any]
    built: bool

    name: str
    optimizer: Any
    averages: Averages
    given: dict[str, Any]
    iterations: Any
    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    decay: float | None

    #: The name of its Keras in messages, and the classes that an inner optimizer may have.
    version: ClassVar[str]
    optimizer_types: ClassVar[tuple[type, ...]]
    #: Of the other Keras: its module, its name in messages, and our module for it.
    other_version: ClassVar[tuple[str, str, str]]
    loss_scale_types: ClassVar[tuple[type, ...]]
    #: Settings that all of Keras's optimizers have, and that would do nothing here.
    inner_settings: ClassVar[tuple[str, ...]]

    # Tasks of the class beside it: initialize Keras's class; the methods of `averages.Owner`; make the averages;
    # find a variable of one of Keras's own optimizers.
    start_keras: Callable[[str], None]
    key: Callable[[Any], Any]
    new_slot: Callable[[Any, str, tuple[int, ...], str, Any], Any]
    new_scalar: Callable[[str, tuple[int, ...], str], Any]
    count: Callable[[], Any]
    build: Callable[[list], None]
    keras_slot: Callable[[Any, str], Any]
    #: The learning rate that the inner optimizer's next step will have.
    rate_of_step: Callable[[], Any]
    #: The factor in gradients that come here; None for none.
    loss_scale: Callable[[], Any]
    #: The variables that a file holds for this optimizer itself.
    saved_variables: Callable[[], list]

    def __init__(self, optimizer: Any, rule: Rule, name: str, settings: dict[str, Any], given: dict[str, Any]):
        # Before anything is changed: a wrong argument leaves the inner optimizer as it was.
        optimizer = self.inner_optimizer_from(optimizer)
        checked = check_settings(self, optimizer, name, settings)
        if rule.blend:
            _require_weights_in_model(type(self).__name__, optimizer)
        self.start_keras(name)
        # Past the tracking of attributes.
        vars(self)["given"] = given
        self.optimizer = optimizer
        self.averages = Averages(rule, self.backend, self, checked["check_finite"])
        for setting in ("clipnorm", "clipvalue", "global_clipnorm", "decay"):
            setattr(self, setting, checked[setting])
        if checked["lr"] is not None:
            warnings.warn(
                "`lr` is deprecated: set `learning_rate` of the inner optimizer.", DeprecationWarning, stacklevel=3
            )
            self.learning_rate = checked["lr"]

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in self.given.items() if value is not None]
        return f"{super().__repr__()[:-1]}: {', '.join([type(self.optimizer).__name__, *given])}>"

    def __setattr__(self, name, value):
        if name in self.inner_settings and "optimizer" in vars(self) and value not in (None, False):
            example = f"{type(self).__name__}({self.keras.__name__}.optimizers.SGD({name}={value!r}))"
            raise ValueError(f"`{name}` must be set on the inner optimizer when that is made, as in {example}.")
        super().__setattr__(name, value)

    # The inner optimizer.

    def inner_optimizer_from(self, optimizer: Any) -> Any:
        """The inner optimizer: the one that was given, or that has the given name."""
        allowed = f"a {self.version} optimizer or the name of one"
        if isinstance(optimizer, str):
            try:
                return self.keras.optimizers.get(optimizer)
            except Exception:  # also of a class that can't be made from its name alone
                arguments.refuse("optimizer", allowed, optimizer)
        if not isinstance(optimizer, self.optimizer_types):
            module, other, ours = self.other_version
            if type(optimizer).__module__.partition(".")[0] == module:
                raise TypeError(
                    f"`optimizer` must be a {self.version} optimizer, not one of {other}: for that, import from {ours}."
                )
            arguments.refuse("optimizer", allowed, optimizer)
        return optimizer

    def inner_loss_scale(self) -> Any:
        """The LossScaleOptimizer inside; None if there is none."""
        inner = self.optimizer
        while isinstance(inner, AveragingOptimizer):
            inner = inner.optimizer
        return inner if isinstance(inner, self.loss_scale_types) else None

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the inner optimizer, before `decay` and warm-up."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.optimizer.learning_rate = arguments.rate(learning_rate)

    lr = learning_rate

    def exclude_from_weight_decay(self, var_list: Any = None, var_names: Any = None) -> None:
        """Exclude variables from the inner optimizer's weight decay; before it is built."""
        innermost(self.optimizer).exclude_from_weight_decay(var_list=var_list, var_names=var_names)

    @contextlib.contextmanager
    def rate_of_update(self) -> Iterator[Any]:
        """While it lasts, the inner learning rate is that of this update: after `decay` and warm-up.

        The rate itself is put back, so that reading and setting it, as Keras's callbacks do, means the rate
        before. Yields the rate of the update if the rule uses it, else None.
        """
        backend, rule, inner = self.backend, self.averages.rule, self.optimizer
        factors = []
        if self.decay:
            factors.append(1.0 / (1.0 + self.decay * backend.cast(self.count(), "float32")))
        if rule.uses_rate:
            factor = rule.rate_factor(backend.step(self.averages, self.count(), None))
            factors += [] if factor is None else [factor]
        if not factors:
            yield self.rate_of_step() if rule.uses_rate else None
            return
        scaled = backend.read(inner.learning_rate)
        for factor in factors:
            scaled = scaled * backend.cast(factor, scaled.dtype)
        with Held([inner.learning_rate], backend) as held, held:
            backend.write(inner.learning_rate, scaled)
            yield self.rate_of_step() if rule.uses_rate else None

    def clip(self, grads: list[Any], variables: Iterable[Any]) -> list[Any]:
        """Gradients within the limits that were set."""
        limits = {limit: getattr(self, limit) for limit in ("clipnorm", "clipvalue", "global_clipnorm")}
        if not any(limits.values()):
            return grads
        # Gradients come multiplied by the loss scale: so must the limits be.
        scale = self.loss_scale()
        limits = {name: limit if limit is None or scale is None else limit * scale for name, limit in limits.items()}
        # Values that Keras does not treat as gradients, as in float8 layers, are left alone.
        clips = [not getattr(variable, "overwrite_with_gradient", False) for variable in variables]
        keep_bad = self.inner_loss_scale() is not None
        own = [g for g, c in zip(grads, clips) if c]
        clipped = iter(gradients.clip(own, self.backend.xp, **limits, keep_bad=keep_bad))
        return [next(clipped) if c else g for g, c in zip(grads, clips)]

    # The averages.

    def create_averages(self, variables: list[Any]) -> None:
        """Make the slots, once the inner optimizer has its own."""
        self.averages.create(variables)

    def move_averages(self, update: Any, counted: Any, rate: Any) -> None:
        """Move the averages after an update; arguments as in the backends' `move()`."""
        self.averages.move(update, counted, rate)

    def shadow_copy(self, model: Any) -> None:
        """Create the averages now rather than at the first update.

        Only needed where non-trainable weights are averaged too, or before weights with averages are loaded.

        Args:
            model: a built model, or a list of its weights.

        Raises:
            TypeError, ValueError: if it is neither, or not the model this optimizer was built for.
        """
        trained, _ = self._weights_of(model)
        for variable in trained if self.averages.built else ():
            if self.averages.position(variable) is None:
                raise ValueError(
                    "`model` must be the one this optimizer was built for: "
                    f"{arguments.variable_name(variable)} has no average."
                )
        self.build(trained)

    def _weights_of(self, model):
        """(trainable, other) weights of a model, or of a list of weights."""
        allowed = "a built model or a list of its weights"
        if isinstance(model, self.keras.Model):
            try:
                trained, others = model.trainable_variables, model.non_trainable_variables
            except ValueError:  # Keras 2, of a model that is not built
                trained, others = [], []
            if not trained and not others:
                raise ValueError("`model` must be built before its weights can be copied.")
            return list(trained), list(others)
        variables = arguments.weights("model", model, allowed)
        if not variables:
            arguments.refuse("model", allowed, model)
        trained = [variable for variable in variables if variable.trainable]
        return trained, [variable for variable in variables if not variable.trainable]

    @property
    def has_shadow_copy(self) -> bool:
        """Whether the averages exist, that is, whether the optimizer is built."""
        return self.averages.built

    def meet(self, model: Any) -> None:
        """Do what needs the model. Every function that is given a model calls it, and so do callbacks."""

    @property
    def has_average(self) -> bool:
        """Whether the averages hold an average: for SWA, from the first snapshot on."""
        return self.averages.has_average

    @property
    def refused(self) -> int:
        """After how many updates the averages did not move because a weight was not finite."""
        return self.averages.refusals

    def warn_of_refusals(self) -> None:
        """Warn once if weights were not finite after an update. It is called wherever you meet the averages."""
        self.averages.warn_of_refusals()

    def assign_average_vars(self, var_list: Any) -> None:
        """Set variables to their averages.

        The averages stay as they are. Use it when training is done; while it goes on, `swap_weights()` keeps
        the weights. Batch-norm statistics do not fit the averages: recompute them afterwards.

        Args:
            var_list: variables of the model, such as `model.trainable_variables` or `model.variables`.
                Non-trainable variables without an average are left alone.

        Raises:
            ValueError: if there is no average yet, if weights and averages are swapped, or if a trainable
                variable has no average (on Keras 2, where a frozen layer's variables say that they are
                trainable: if none has one). No variable is changed then.
        """
        self.averages.assign(arguments.weights("var_list", var_list), self.leaves_trainable_variables)

    #: Optimizers that its Keras has, but does not find by their names when it loads a file.
    more_optimizers: ClassVar[dict[str, Any]] = {}

    #: Whether `assign_average_vars()` skips trainable variables that have no average.
    leaves_trainable_variables: ClassVar[bool] = False

    def swap_weights(self) -> None:
        """Exchange weights and averages; a second call restores both bit for bit.

        Between the two calls the model predicts with the averages, and can't be trained. A `.keras` or Keras 3
        `.weights.h5` file written then says so: the model loaded from it predicts with the averages too, and
        swaps back. Other formats don't say it: swap back before you save to them, if training is to go on
        from there.

        Raises:
            ValueError: if there is no average yet. Nothing is changed then.
        """
        self.averages.swap()

    def require_ready(self) -> None:
        """Raise where an update must not be made now."""
        if self.averages.shown:
            raise ValueError(
                f"{self.name} can't train while the averages are swapped into the model: call swap_weights() first."
            )

    def finish_fit(self) -> None:
        """Say at the end of `fit()` what a compiled step can't say."""
        self.averages.warn_of_refusals()
        # JAX calls this even if training was refused.
        if sys.exc_info()[0] is not None:
            return
        if self.averages.shown:
            warnings.warn(
                f"{self.name}: the model was trained while its averages were swapped in, so they moved towards "
                "themselves. Call swap_weights() before fit().",
                KerasOptimizersWarning,
                stacklevel=3,
            )
        else:
            self.averages.warn_of_blend()

    # Slots.

    def all_slots(self) -> list[Any]:
        """The variables of all slots."""
        return [slot for own in self.averages.slots.values() for slot in own]

    def own_slots(self) -> dict[str, Any]:
        return self.averages.slots

    def position(self, variable: Any) -> int | None:
        return self.averages.position(variable)

    def inner_slot(self, variable: Any, slot_name: str) -> Any:
        if isinstance(self.optimizer, LegacyMethods):
            return self.optimizer.find_slot(self.optimizer.position(variable), variable, slot_name)
        return self.keras_slot(variable, slot_name)

    def slot_by_name(self, variable: Any, name_for: Callable[[Any], str]) -> Any:
        """The inner optimizer's variable with the name that it has for a weight; None if there is none."""
        name = name_for(variable)
        named = [(slot.name.split(":")[0], slot) for slot in self.optimizer.variables]
        found = [slot for own, slot in named if own == name]
        # A variable that was built in a name scope has the scope in front of its name.
        found = found or [slot for own, slot in named if own.endswith(f"/{name}")]
        if len(found) < 2:
            return found[0] if found else None
        # Weights may share a name: their slots come in the same order.
        alike = [self.key(weight) for weight in self.averages.variables if name_for(weight) == name]
        return found[alike.index(self.key(variable))]

    # Saving. Keras saves the inner optimizer separately: here only the rest, so that a file
    # holds each variable once.

    def save_own_variables(self, store: Any) -> None:
        self.averages.save(store, self.saved_variables())

    def load_own_variables(self, store: Any) -> None:
        """Set the variables that a file holds for this optimizer itself.

        Args:
            store: dict of arrays or HDF5 group, as `save_own_variables()` fills it.

        Raises:
            TypeError, ValueError: if it holds other arrays. No variable is changed then.
        """
        self.averages.load(store, self.saved_variables())

    # Configuration.

    def get_config(self) -> dict[str, Any]:
        """Settings from which `from_config()` makes the same optimizer, without its state."""
        return {
            "name": self.name,
            "optimizer": self.keras.optimizers.serialize(self.optimizer),
            "clipnorm": self.clipnorm,
            "clipvalue": self.clipvalue,
            "global_clipnorm": self.global_clipnorm,
            "decay": self.decay,
            "check_finite": self.averages.check_finite,
            **self.given,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "AveragingOptimizer":
        """Make an optimizer from the result of `get_config()`.

        Args:
            config: dict, as `get_config()` returns it.
            custom_objects: dict of names and classes that the inner optimizer needs.
        """
        config = arguments.config(config, "optimizer")
        known = {**cls.more_optimizers, **(custom_objects or {})}
        deserialize = cls.keras.optimizers.deserialize
        optimizer = arguments.part("optimizer", config.pop("optimizer"), deserialize, known)
        return cls(optimizer, **config)


def check_settings(wrapper: AveragingOptimizer, optimizer: Any, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments that every averaging optimizer takes, checked, with their defaults."""
    method, unknown = type(wrapper).__name__, sorted(set(settings) - set(SETTINGS))
    if unknown:
        known = ", ".join(f"`{setting}`" for setting in SETTINGS)
        raise TypeError(
            f"{method}() has no argument `{unknown[0]}`; beside its own it takes {known}. Set others on the "
            "inner optimizer."
        )
    arguments.string("name", name)
    arguments.flag("sequential_update", settings.get("sequential_update", True))
    checked = {
        setting: arguments.optional(arguments.positive, setting, settings.get(setting))
        for setting in ("clipnorm", "clipvalue", "global_clipnorm")
    }
    for setting in ("decay", "lr"):
        checked[setting] = arguments.optional(arguments.not_negative, setting, settings.get(setting))
        if checked[setting] is not None and has_schedule(optimizer, wrapper.private):
            raise ValueError(
                f"`{setting}` cannot be given: the learning rate of the inner optimizer is a schedule, a "
                "function or several, not a number."
            )
    checked["check_finite"] = arguments.flag("check_finite", settings.get("check_finite", True))
    if checked["clipnorm"] is not None and checked["global_clipnorm"] is not None:
        raise ValueError("Only one of `clipnorm` and `global_clipnorm` can be given, not both.")
    return checked


def _require_weights_in_model(method, inner):
    """Raise where an inner optimizer would undo what a method does to the model."""
    for one in with_inner(inner):
        if isinstance(one, AveragingOptimizer) and "fast" in one.averages.slots:
            own = type(one).__name__
            raise ValueError(
                f"`optimizer` must not hold {own} inside {method}: {own} steps from its own weights, wherever "
                f"{method} puts the model. Put {method} inside {own}."
            )


def with_inner(optimizer: Any) -> Iterator[Any]:
    """An optimizer, the one that it wraps, and so on; nothing for None."""
    while optimizer is not None:
        yield optimizer
        inner = getattr(optimizer, "inner_optimizer", None)
        optimizer = getattr(optimizer, "optimizer", None) if inner is None else inner


def innermost(optimizer: Any) -> Any:
    """The optimizer beneath all that wrap it."""
    *_, last = with_inner(optimizer)
    return last


def has_schedule(optimizer: Any, private: Any) -> bool:
    """Whether the innermost optimizer has a learning rate that can't be set.

    Args:
        private: the module of that name of its Keras.
    """
    optimizer = innermost(optimizer)
    # Keras's MultiOptimizer has several rates, but none itself.
    if getattr(optimizer, "learning_rate", None) is None:
        return True
    rate = private.rate_source(optimizer)
    return callable(rate) and not hasattr(rate, "assign")


def averaging_optimizer(model: Any) -> AveragingOptimizer:
    """The averaging optimizer a model was compiled with.

    Looks through the `LossScaleOptimizer` that Keras puts around an optimizer under mixed precision. Averages from a
    file that wait for their model are set.

    Args:
        model: Keras model of either generation, or an optimizer: an averaging one, or one that scales its loss.

    Returns:
        The optimizer, one of this package.

    Raises:
        ValueError: if the model was not compiled with an averaging optimizer.
    """
    if isinstance(model, AveragingOptimizer):
        return model
    optimizer = compiled = model if hasattr(model, "inner_optimizer") else getattr(model, "optimizer", None)
    while optimizer is not None and not isinstance(optimizer, AveragingOptimizer):
        optimizer = getattr(optimizer, "inner_optimizer", None)
    if optimizer is not None and compiled is not model:
        optimizer.meet(model)
    if optimizer is None:
        found = "but is not compiled" if compiled is None else f"not with {type(compiled).__name__}"
        raise ValueError(f"`model` must be compiled with an averaging optimizer such as SWA, {found}.")
    return optimizer
