"""What the averaging wrappers of both Keras generations share.

A wrapper is an optimizer that lets another one, the inner optimizer, take its
step and then moves averages of the weights as its rule says. This file holds
the part that does not depend on the generation: arguments, what reads and sets
through to the inner optimizer, and moving averages in and out of a model.
"""

import contextlib
import warnings

import numpy as np

from . import arguments, gradients
from .surface import Surface, describe


class Averaging(Surface):
    """Mixin for an optimizer class of either generation.

    The class beside it supplies the primitives: `_read` (an independent copy of
    a variable's value), `_cast`, `_dtype`, `_number` (a variable's value as a
    NumPy array), `_native` (the backend's own variable), `_keras_slot`,
    `_add_average`, `_add_counter`, `_own_variables` (those that a file holds for
    this optimizer itself), `_move_averages`, what `Surface` asks for,
    `_keras` (the generation's module) and `_xp`: the functions on tensors,
    `keras.ops` or their like.
    """

    _settings = (
        "sequential_update",
        "clipnorm",
        "clipvalue",
        "global_clipnorm",
        "decay",
        "lr",
        "check_finite",
    )

    @classmethod
    def _check_settings(cls, optimizer, name, settings):
        """The keyword arguments every averaging optimizer takes, checked, with their defaults.

        Nothing is changed here, so that a wrong argument leaves the inner
        optimizer as it was.
        """
        unknown = sorted(set(settings) - set(cls._settings))
        if unknown:
            raise TypeError(
                f"{cls.__name__}() has no argument `{unknown[0]}`; beside its own it takes "
                + ", ".join(f"`{setting}`" for setting in cls._settings)
                + ". Set others on the inner optimizer."
            )
        arguments.string("name", name)
        arguments.flag("sequential_update", settings.get("sequential_update", True))
        checked = {
            setting: arguments.optional(arguments.positive, setting, settings.get(setting))
            for setting in ("clipnorm", "clipvalue", "global_clipnorm")
        }
        for setting in ("decay", "lr"):
            checked[setting] = arguments.optional(
                arguments.not_negative, setting, settings.get(setting)
            )
            if checked[setting] is not None and has_schedule(optimizer):
                raise ValueError(
                    f"`{setting}` cannot be given: the learning rate of the inner optimizer is a "
                    "schedule, a function or several, not a number."
                )
        checked["check_finite"] = arguments.flag("check_finite", settings.get("check_finite", True))
        if checked["clipnorm"] is not None and checked["global_clipnorm"] is not None:
            raise ValueError("Only one of `clipnorm` and `global_clipnorm` can be given, not both.")
        return checked

    def _adopt(self, optimizer, rule, settings):
        """Take the checked arguments over, once the base class is initialized."""
        self.optimizer = optimizer
        self._rule = rule
        self.clipnorm = settings["clipnorm"]
        self.clipvalue = settings["clipvalue"]
        self.global_clipnorm = settings["global_clipnorm"]
        self.decay = settings["decay"]
        self.check_finite = settings["check_finite"]
        self._averages = []
        self._snapshots = self._refused = None
        # Past the tracking of attributes: these variables are the model's, not the optimizer's.
        vars(self).update(_averaged=[], _positions={}, _rounding={}, _swapped=False)
        vars(self).update(_reported=0)
        if settings["lr"] is not None:
            warnings.warn(
                "`lr` is deprecated: set `learning_rate` of the inner optimizer.",
                DeprecationWarning,
                stacklevel=4,
            )
            self.learning_rate = settings["lr"]

    # Reading and setting through to the inner optimizer.

    @property
    def iterations(self):
        """How many updates the inner optimizer has made."""
        return self.optimizer.iterations

    def _count(self):
        """The count of updates that the rule goes by."""
        return self._read(self.iterations)

    @property
    def learning_rate(self):
        """The learning rate of the inner optimizer (before `decay`)."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.optimizer.learning_rate = arguments.rate(learning_rate)

    lr = learning_rate

    @contextlib.contextmanager
    def _decayed_learning_rate(self):
        """Run the inner step at learning_rate / (1 + decay * updates).

        The rate itself is put back, so that reading and setting it (as Keras's
        learning-rate callbacks do) means the rate before decay.
        """
        if not self.decay:
            yield
            return
        variable = self.optimizer.learning_rate
        rate = self._read(variable)
        updates = self._cast(self._read(self.iterations), "float32")
        self._write(variable, self._cast(rate / (1.0 + self.decay * updates), rate.dtype))
        try:
            yield
        finally:
            self._write(variable, rate)

    def _clip(self, grads):
        # Gradients reach an optimizer multiplied by its loss scale; the limits follow.
        scale = getattr(self.optimizer, "loss_scale_factor", None) or 1.0
        limits = {
            limit: None if getattr(self, limit) is None else getattr(self, limit) * scale
            for limit in ("clipnorm", "clipvalue", "global_clipnorm")
        }
        return gradients.clip(grads, self._xp, **limits)

    # The averages.

    @staticmethod
    def _write(variable, value):
        variable.assign(value)

    def _moved(self, average, weights, fraction):
        """The new value of an average that moves by `fraction` towards `weights`."""
        weights = self._cast(weights, average.dtype)
        if isinstance(fraction, float):
            return weights if fraction == 1.0 else average + fraction * (weights - average)
        fraction = self._cast(fraction, average.dtype)
        moved = average + fraction * (weights - average)
        # a + 1 * (w - a) is w up to rounding only; a first snapshot is w.
        return self._xp.where(fraction == 1.0, weights, moved) if self._rule.replaces else moved

    def _create_averages(self, variables):
        """Create the averages, as copies of the variables."""
        if self._rule.starts_empty:
            self._snapshots = self._add_counter("snapshots")
        # Updates whose weights were not finite: how many; of the first, which weight and update.
        self._refused = self._add_counter("refused", (3,))
        self._average_too(variables)

    def _require_same_variables(self, known, variables):
        """Raise where a built inner optimizer knows other variables, by key, than these."""
        if {self._var_key(variable) for variable in variables} != set(known):
            raise ValueError(
                "`optimizer` was built for other variables than this model's: give each model an "
                "inner optimizer of its own."
            )

    def _average_too(self, variables):
        for variable in variables:
            self._averages.append(self._add_average(variable))
            self._positions[self._var_key(variable)] = len(self._averaged)
            self._averaged.append(variable)

    def _average_dtype(self, variable):
        """Averages are at least float32: a decay of 0.999 would not move a bfloat16 number."""
        dtype = self._dtype(variable)
        return "float32" if dtype in ("float16", "bfloat16") else dtype

    def _position(self, variable):
        try:
            return self._positions.get(self._var_key(variable))
        except AttributeError:
            return None  # no variable at all

    def _require_ready(self):
        """Raise where an update could not move every average."""
        # AutoGraph, in a training loop of one's own, can't transform a docstring alone.
        return

    def shadow_copy(self, model):
        """Create the averages now rather than at the first update.

        Only needed where non-trainable weights are averaged too.

        Args:
            model: a built model, or a list of its weights.
        """
        allowed = "a built model or a list of its weights"
        try:
            weights = getattr(model, "trainable_variables", model)
        except ValueError:  # Keras 2, of a model that is not built
            weights = []
        if weights is not model and isinstance(weights, list) and not weights:
            raise ValueError("`model` must be built before its weights can be copied.")
        variables = arguments.variables("model", model if callable(weights) else weights, allowed)
        if not variables:
            arguments.refuse("model", allowed, model)
        trained = [variable for variable in variables if variable.trainable]
        for variable in trained if self.has_shadow_copy else ():
            if self._position(variable) is None:
                raise ValueError(
                    "`model` must be the one this optimizer was built for: "
                    f"{describe(variable)} has no average."
                )
        self.build(trained)

    @property
    def refused(self):
        """After how many updates the averages did not move because a weight was not finite."""
        return 0 if self._refused is None else int(self._number(self._refused)[0])

    def warn_of_refusals(self):
        """Warn, once, if a weight was not finite after an update at which the averages are due.

        Called wherever a user comes by: a compiled training step can't warn. Does nothing else.
        """
        if self._reported is None or self.refused <= self._reported:
            return
        _, position, update = (int(number) for number in self._number(self._refused))
        vars(self)["_reported"] = None
        warnings.warn(
            f"{self.name} has not taken weights into its averages that are not finite: "
            f"{describe(self._averaged[position])} was not after update number {update}. The averages "
            "are those of the updates before and after. (`check_finite` turns this check off.)",
            stacklevel=3,
        )

    @property
    def has_shadow_copy(self):
        """Whether the averages exist, that is, whether the optimizer is built."""
        return bool(self._averages)

    @property
    def has_average(self):
        """Whether the averages hold an average: for SWA, from the first snapshot on."""
        self.warn_of_refusals()
        return self.has_shadow_copy and (
            self._snapshots is None or self._number(self._snapshots) > 0
        )

    def _own_slots(self):
        return {self._rule.slot: self._averages}

    def _inner_slot(self, var, slot_name):
        if isinstance(self.optimizer, Surface):
            return self.optimizer._find_slot(self.optimizer._position(var), var, slot_name)
        return self._keras_slot(var, slot_name)

    def assign_average_vars(self, var_list):
        """Set variables to their averages.

        The averages stay as they are. Use it when training is done; while it
        goes on, `swap_weights()` keeps the weights. Batch-norm statistics do
        not fit the averages: recompute them afterwards.

        Args:
            var_list: variables of the model, such as `model.trainable_variables`
                or `model.variables`. Non-trainable variables without an average
                are left alone.

        Raises:
            ValueError: if there is no average yet (no snapshot was taken), if
                weights and averages are swapped, or if a trainable variable has
                no average. No variable is changed then.
        """
        self._require_average("assign_average_vars")
        if self._swapped:
            raise ValueError(
                "assign_average_vars() needs the averages in their place, and they are in the model "
                "now: call swap_weights() first, or keep the model as it is."
            )
        pairs = []
        for variable in arguments.variables("var_list", var_list):
            position = self._position(variable)
            if position is not None:
                pairs.append((variable, self._averages[position]))
            elif variable.trainable:
                raise ValueError(
                    f"`var_list` must hold variables this optimizer was built for: {describe(variable)} "
                    "has no average."
                )
        if not pairs:
            raise ValueError("`var_list` must hold at least one variable that has an average.")
        for variable, average in pairs:
            self._write(variable, self._cast(self._read(average), self._dtype(variable)))

    def swap_weights(self):
        """Exchange weights and averages; a second call restores both bit for bit.

        Between the two calls the model predicts with the averages. A `.keras` or Keras 3
        `.weights.h5` file written then says so: the model loaded from it predicts with the
        averages too, and swaps back. Other formats don't say it: swap back before you save to
        them, if training is to go on from there.

        Raises:
            ValueError: if there is no average yet. Nothing is changed then.
        """
        self._require_average("swap_weights")
        done = 0
        try:
            for done in range(len(self._averaged)):
                self._exchange(done)
        except BaseException:
            # An interrupt leaves no model with some weights and some averages.
            for position in range(done):
                self._exchange(position)
            raise
        vars(self)["_swapped"] = not self._swapped

    def _exchange(self, position):
        variable, average = self._averaged[position], self._averages[position]
        weights, averages = self._read(variable), self._read(average)
        narrowed = self._cast(averages, self._dtype(variable))
        widened = self._cast(weights, self._dtype(average))
        rounding = self._rounding.get(position)
        if rounding is not None:
            widened = widened + rounding
        try:
            self._write(variable, narrowed)
            self._write(average, widened)
        except BaseException:
            self._write(variable, weights)
            self._write(average, averages)
            raise
        if rounding is not None:
            del self._rounding[position]
        elif self._dtype(variable) != self._dtype(average):
            # bfloat16 weights can't hold a float32 average: what rounding took off is kept for the
            # swap back.
            self._rounding[position] = averages - self._cast(narrowed, self._dtype(average))

    def _require_average(self, action):
        if not self.has_shadow_copy:
            raise ValueError(
                f"{action}() needs an average, and this optimizer has none: it was not built. "
                "Train first."
            )
        if not self.has_average:
            raise ValueError(
                f"{action}() needs an average, and there is none yet: no snapshot was taken in "
                f"{self._number(self.iterations)} updates, the first comes after update number "
                f"{self._rule.start}."
            )

    # Saving. The inner optimizer is saved as a part of its own: here only what is ours, so that a file
    # holds each variable once.

    def save_own_variables(self, store):
        for i, variable in enumerate(self._own_variables):
            store[str(i)] = variable.numpy()
        if self._swapped:
            # With what rounding took off, so that the loaded model can be swapped back bit for bit.
            store["swapped"] = np.array(sorted(self._rounding), "int64")
            for position, rounding in self._rounding.items():
                store[f"rounding{position}"] = np.array(rounding)

    def load_own_variables(self, store):
        """Set the variables that a file holds for this optimizer itself.

        Args:
            store: dict of arrays or HDF5 group, as `save_own_variables()` fills it.

        Raises:
            TypeError, ValueError: if it holds other arrays. No variable is changed then.
        """
        if not hasattr(store, "keys"):
            arguments.refuse("store", "a dict of arrays or an HDF5 group", store)
        variables = self._own_variables
        known = [key for key in store.keys() if not key.startswith(("swapped", "rounding"))]
        if len(known) != len(variables):
            warnings.warn(
                f"The averages of '{self.name}' were not loaded: it has {len(variables)} variables, "
                f"the file {len(known)}. Build the optimizer for the saved model's variables "
                "first.",
                stacklevel=2,
            )
            return
        self._check_store(store, variables)
        for i, variable in enumerate(variables):
            variable.assign(store[str(i)])
        swapped = "swapped" in store.keys()
        positions = [int(position) for position in store["swapped"]] if swapped else []
        rounding = {p: self._cast(np.array(store[f"rounding{p}"]), "float32") for p in positions}
        vars(self).update(_swapped=swapped, _rounding=rounding, _reported=self.refused)

    # Configuration.

    def get_config(self):
        """Settings from which `from_config()` makes the same optimizer, without its state."""
        return {
            "name": self.name,
            "optimizer": self._keras.optimizers.serialize(self.optimizer),
            "clipnorm": self.clipnorm,
            "clipvalue": self.clipvalue,
            "global_clipnorm": self.global_clipnorm,
            "decay": self.decay,
            "check_finite": self.check_finite,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Make an optimizer from the result of `get_config()`.

        Args:
            config: dict, as `get_config()` returns it.
            custom_objects: dict of names and classes that the inner optimizer needs.
        """
        config = arguments.config(config, "optimizer")
        deserialize = cls._keras.optimizers.deserialize
        optimizer = arguments.part(
            "optimizer", config.pop("optimizer"), deserialize, custom_objects
        )
        return cls(optimizer, **config)


def has_schedule(optimizer):
    """Whether the innermost optimizer has a learning rate that can't be set."""
    for attribute in ("inner_optimizer", "optimizer"):
        if getattr(optimizer, attribute, None) is not None:
            return has_schedule(getattr(optimizer, attribute))
    # Keras's MultiOptimizer has several rates, and none of its own.
    shown = getattr(optimizer, "learning_rate", None)
    # A legacy optimizer of Keras 2 shows its schedule.
    rate = getattr(optimizer, "_learning_rate", shown)
    return shown is None or (callable(rate) and not hasattr(rate, "assign"))


def averaging_optimizer(model):
    """The averaging optimizer a model was compiled with.

    Looks through the `LossScaleOptimizer` that Keras puts around an optimizer
    under mixed precision.

    Args:
        model: Keras model of either generation.

    Returns:
        The optimizer, one of this package.

    Raises:
        ValueError: if the model was not compiled with an averaging optimizer.
    """
    optimizer = compiled = getattr(model, "optimizer", None)
    while optimizer is not None and not isinstance(optimizer, Averaging):
        optimizer = getattr(optimizer, "inner_optimizer", None)
    if optimizer is None:
        found = "but is not compiled" if compiled is None else f"not with {type(compiled).__name__}"
        raise ValueError(
            f"`model` must be compiled with an averaging optimizer such as SWA, {found}."
        )
    return optimizer
