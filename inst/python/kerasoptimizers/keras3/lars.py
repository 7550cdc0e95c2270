"""LARS for Keras 3."""

from typing import Any

import keras

from .. import arguments, gradients, lars
from . import private
from .base import Base


@keras.saving.register_keras_serializable(package="kerasoptimizers")
class LARS(lars.LARS, Base):
    __doc__ = lars.LARS.__doc__
    __module__ = "kerasoptimizers"

    _schedule = keras.optimizers.schedules.LearningRateSchedule
    # A schedule or, unlike in Keras 2, a function.
    _deserialize = staticmethod(keras.saving.deserialize_keras_object)
    _base_settings = {
        **lars.LARS._base_settings,
        "loss_scale_factor": arguments.positive,
        "gradient_accumulation_steps": lambda name, value: arguments.whole(name, value, 2),
    }

    def built_for(self):
        return private.built_for(self)

    def build(self, variables: Any) -> None:
        """Create the momentum of each variable, zero.

        Args:
            variables: list of the model's trainable variables.
        """
        variables = arguments.variables("variables", variables)
        if self.built and (private.trained_variables(self) or not variables):
            return
        super().build(variables)
        if variables:
            self._prepare(variables)
            self.set_weights_from_file()

    @property
    def variables(self) -> Any:
        """All variables: the count and the learning rate, then the momentums."""
        self.refuse_other_model()
        return super().variables

    @staticmethod
    def _momentum_name(variable):
        path = getattr(variable, "path", variable.name).replace("/", "_").replace(":", "_")
        return f"{path}_momentum"

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Update variables by their gradients.

        Args:
            grads: list of gradients; None where a variable has none.
            trainable_variables: list of the variables they belong to; not needed once the
                optimizer is built.
        """
        grads = list(grads)
        if self.loss_scale_factor is not None or self.gradient_accumulation_steps:
            # Keras divides and adds up gradients as if all were dense.
            variables = private.trained_variables(self)
            if trainable_variables is not None:
                variables = trainable_variables = list(trainable_variables)
            grads = [lars.dense(g, v) for g, v in zip(grads, variables, strict=True)]
        with gradients.naming_unknown(self, trainable_variables):
            super().apply(grads, trainable_variables)

    def _clip_gradients(self, grads):
        # Variables are asked for only where there is no gradient, and Keras has left those out.
        return self.clip_over_replicas(super()._clip_gradients, grads, grads)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        # In Keras's stateless form the variables themselves must stay as they are.
        if keras.backend.backend() == "torch" and not private.in_stateless_scope():
            grads, trainable_variables = self._update_in_place(grads, trainable_variables, learning_rate)
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def _update_in_place(self, grads, variables, learning_rate):
        """On PyTorch, update all at once; return gradients and variables for which that can't be.

        What `_moved()` computes, without whole variables copied, in one call for all of them, and
        without a wait for the device.
        """
        import torch

        positions = [self.require_position(variable) for variable in variables]
        momentums = [self._momentums[i].value for i in positions]
        kind = (momentums[0].dtype, momentums[0].device) if momentums else None

        def fits(gradient, variable, momentum):
            parts = (gradient, variable.value, momentum)
            return all((part.dtype, part.device) == kind for part in parts)

        fit = [fits(*parts) for parts in zip(grads, variables, momentums, strict=True)]
        left = [i for i, fitting in enumerate(fit) if not fitting]
        fit = [i for i, fitting in enumerate(fit) if fitting]
        if fit and kind:
            with torch.no_grad():
                lars.move_with_torch(
                    self,
                    [variables[i].value for i in fit],
                    [grads[i] for i in fit],
                    [momentums[i] for i in fit],
                    [self._weight_decay_of(variables[i]) for i in fit],
                    [self._adapts[positions[i]] for i in fit],
                    self._decayed(learning_rate, keras.backend.standardize_dtype(kind[0])),
                )
        return [grads[i] for i in left], [variables[i] for i in left]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        momentum = self._momentums[self.require_position(variable)]
        weights, new = self._moved(variable, gradient, momentum, learning_rate)
        self.assign(variable, weights)
        self.assign(momentum, new)
