"""The pass on backends where a forward step can leave the model's variables alone: what it writes goes to a scope."""

import contextlib
from typing import Any

import keras

from .passes import Pass


class StatelessPass(Pass):
    __doc__ = Pass.__doc__

    def __init__(self, model, weights=None):
        super().__init__(model, weights)
        # Handed from one step to the next: seeds, metrics, and the state of other layers.
        self.state = [*model.trainable_variables, *model.non_trainable_variables]
        statistics = {id(variable) for layer in self.layers for variable in layer.non_trainable_variables}
        self._dropped = {i for i, variable in enumerate(self.state) if id(variable) in statistics}
        self.first_metric = len(self.state)
        if self.with_loss:
            self.state += model.metrics_variables

    def is_tensor(self, value):
        return keras.ops.is_tensor(value)

    def run_from(self, values: list[tuple[Any, Any]], data: tuple) -> tuple[Any, Any, dict[int, Any]]:
        """A step from given values of variables.

        Args:
            values: list of (variable, value), in place of the variables' own values.
            data: as for `run_step()`.

        Returns:
            (report, logs, dict of the new values of variables that changed, by the position in `state`)
        """
        # Twice, as for values.Undoing: Keras would stay in the scope.
        with contextlib.ExitStack() as scopes, scopes:
            scope = scopes.enter_context(keras.StatelessScope(state_mapping=values, collect_losses=len(data) > 1))
            before = [scope.get_current_value(variable) for variable in self.state]
            with self.watching():
                report, logs = self.forward_and_report(data)
            after = [scope.get_current_value(variable) for variable in self.state]
        new = {i: value for i, value in enumerate(after) if value is not before[i] and i not in self._dropped}
        return report, logs, new
