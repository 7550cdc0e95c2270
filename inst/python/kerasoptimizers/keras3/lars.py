"""LARS for Keras 3."""

import keras

from .. import arguments, lars
from .base import Base


@keras.saving.register_keras_serializable(package="kerasoptimizers")
class LARS(lars.LARS, Base):
    __doc__ = lars.LARS.__doc__

    _schedule = keras.optimizers.schedules.LearningRateSchedule
    _base_settings = {
        **lars.LARS._base_settings,
        "loss_scale_factor": arguments.positive,
        "gradient_accumulation_steps": lambda name, value: arguments.whole(name, value, 2),
    }

    def build(self, variables):
        """Create the momentum of each variable, zero.

        Args:
            variables: list of the model's trainable variables.
        """
        variables = list(variables)
        if self.built or not variables:
            return
        super().build(variables)
        self._prepare(variables)

    @staticmethod
    def _momentum_name(variable):
        path = getattr(variable, "path", variable.name).replace("/", "_").replace(":", "_")
        return f"{path}_momentum"

    def apply(self, grads, trainable_variables=None):
        """Update variables by their gradients.

        Args:
            grads: list of gradients; None where a variable has none.
            trainable_variables: list of the variables they belong to; not needed once the
                optimizer is built.
        """
        grads = list(grads)
        if self.loss_scale_factor is not None or self.gradient_accumulation_steps:
            # Keras divides and adds up gradients as if all were dense.
            variables = self._trainable_variables
            if trainable_variables is not None:
                variables = trainable_variables = list(trainable_variables)
            grads = [lars.dense(g, v) for g, v in zip(grads, variables, strict=True)]
        super().apply(grads, trainable_variables)

    def update_step(self, gradient, variable, learning_rate):
        momentum = self._momentums[self._position(variable)]
        weights, new = self._moved(variable, gradient, momentum, learning_rate)
        self.assign(variable, weights)
        self.assign(momentum, new)
