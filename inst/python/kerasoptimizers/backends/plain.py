"""Any backend of Keras 3, by `keras.ops` alone."""

from typing import Any

import keras
import numpy as np

from ..rules import Step
from . import both, chosen, fast_after, model_between, move, refusal


class Plain:
    """How variables are read and written, and how a rule is run over all weights.

    The methods from `start_late()` on are given an `Averages` object. They read its `rule`, `variables`, `slots`,
    `scalars`, `refused`, `check_finite`, `plain` and `in_fast`, and set the values of these variables only.
    """

    #: Its name in Keras.
    name: str = keras.backend.backend()
    #: Functions on tensors.
    xp: Any = keras.ops
    #: Whether an interrupt in `evaluate()` or `predict()` can lose the values that the model holds.
    loses_values = False

    def native(self, variable):
        """The backend's own variable."""
        return variable.value if isinstance(variable, keras.Variable) else variable

    def read(self, variable):
        """A variable's value, which stays what it is when the variable changes."""
        return keras.ops.copy(variable)

    def write(self, variable, value) -> None:
        """Set a variable to a value, without sharing memory with it."""
        variable.assign(value)

    def cast(self, value, dtype: str):
        return keras.ops.cast(value, dtype)

    def numpy(self, variable) -> np.ndarray:
        """A copy of a variable's value, as an array."""
        return np.array(keras.ops.convert_to_numpy(variable))

    def dtype(self, variable) -> str:
        return keras.backend.standardize_dtype(variable.dtype)

    def count(self, variable):
        """The value of a whole number, as a rule gets it."""
        return self.read(variable)

    def noted(self, variable, number) -> None:
        """Take note that a whole number has this value now."""

    def has_value(self, variable) -> bool:
        """Whether a variable has a value: where they can be lost, it may have none."""
        return True

    def have_values(self, variables) -> bool:
        """Whether variables have values that can be copied now.

        On TensorFlow they may come to be in the very step that is being traced. XLA allows no variable that
        starts as a copy of these: its slots are made of zeros, and started late.
        """
        return True

    def start_late(self, averages) -> bool:
        """Copy weights into the slots that have yet to start; whether this need not be done again."""
        return True

    def step(self, averages, update, rate) -> Step:
        """The update just made, with the scalars as they were before it."""
        scalars = {name: self.read(scalar) for name, scalar in averages.scalars.items()}
        return Step(update, scalars, rate, self.xp, averages.dtype)

    def stand_ins(self, averages) -> list[tuple[Any, str, Any]]:
        """Lets the slots "fast" stand in for the model's variables while the inner optimizer takes its step.

        It saves a copy there and one back. The slots have the weights' types.

        Returns:
            A list as for `values.StandIns`; an empty one has `before()` copy instead.
        """
        return []

    def before(self, averages, update, rate) -> None:
        """Put the values into the model from which the inner optimizer steps; for rules with a slot "fast"."""
        step = self.step(averages, update, rate)
        for variable, slots, _ in self._each(averages):
            weights = averages.rule.before(self.cast(variable, slots["fast"].dtype), slots, step)
            variable.assign(self.cast(weights, self.dtype(variable)))

    def move(self, averages, update, counted, rate) -> bool:
        """Move the averages after an update, and the model where the rule says so.

        Args:
            update: the number of the update just made; the first is 0.
            counted: None, or a tensor that says whether the inner optimizer's call was an update at all; it
                may have skipped it, or only accumulated gradients.
            rate: the learning rate of the update, or None.

        Returns:
            Whether weights may have been refused, and that can be looked up now: not while a step is traced.
        """
        rule, xp, step = averages.rule, self.xp, self.step(averages, update, rate)
        go = due = both(rule.due(step), counted)
        # Functions get values, not variables: JAX would keep the values that these have while a step is traced.
        if averages.check_finite:
            finite = xp.stack([xp.all(xp.isfinite(self.read(variable))) for variable in averages.variables])
            go = both(due, xp.all(finite))
            refuses = both(due, xp.logical_not(xp.all(finite)))
            position = xp.argmin(xp.cast(finite, "int32"))
            refused = refusal(averages, step, position, xp)
            averages.refused.assign(xp.where(refuses, refused, self.read(averages.refused)))
        fraction, back = rule.fraction(step), both(go, rule.writes_back(step))
        for variable, slots, targets in self._each(averages):
            dtype = self.dtype(variable)
            weights, moved = self.cast(variable, slots[rule.slot].dtype), {}
            if "fast" in slots:
                weights = moved["fast"] = fast_after(rule, weights, dtype, slots, step, counted, xp)
            constraint = getattr(variable, "constraint", None)
            for name, value in move(rule, weights, slots, fraction, constraint, xp).items():
                moved[name] = chosen(go, value, slots[name], xp)
            for name, value in moved.items():
                targets[name].assign(value)
            if rule.blend:
                model = self.cast(model_between(rule, {**slots, **moved}), dtype)
                variable.assign(model if "fast" in slots else chosen(back, model, self.read(variable), xp))
        for name, value in rule.next_scalars(step).items():
            scalar = averages.scalars[name]
            value = self.cast(value, self.dtype(scalar))
            scalar.assign(chosen(go, value, self.read(scalar), xp))
        try:
            self.numpy(averages.refused)
        except Exception:  # whatever a backend raises of what it traces
            return False
        return True

    def _each(self, averages):
        """For each weight: its variable, the values of its slots by name, and the slots."""
        for i, variable in enumerate(averages.variables):
            targets = {name: slot[i] for name, slot in averages.slots.items()}
            yield variable, {name: self.read(slot) for name, slot in targets.items()}, targets
