"""LARS for Keras 2."""

from typing import Any

import tensorflow as tf
import tf_keras

from .. import arguments, lars
from . import private
from .base import Base, require_eager

_LearningRateSchedule = tf_keras.optimizers.schedules.LearningRateSchedule


class _FromFunction(_LearningRateSchedule):  # type: ignore[misc, valid-type]
    """A rate that a function returns, asked at each update; Keras 2 itself would ask but once."""

    def __init__(self, function):
        self.function = function

    def __call__(self, step):
        return tf.convert_to_tensor(self.function(), dtype=tf_keras.backend.floatx())


class _Rated(Base):
    """An optimizer that holds its own learning rate, as Keras 3's base class does."""

    def __init__(self, learning_rate, name, **settings):
        require_eager()
        super().__init__(name=name, **settings)
        self._learning_rate = self._build_learning_rate(learning_rate)

    def _build_learning_rate(self, learning_rate):
        if callable(learning_rate) and not isinstance(learning_rate, _LearningRateSchedule):
            learning_rate = _FromFunction(learning_rate)
        return super()._build_learning_rate(learning_rate)

    @property
    def learning_rate(self) -> Any:
        return super().learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        if callable(learning_rate):
            self._learning_rate = self._build_learning_rate(learning_rate)
        else:
            self._learning_rate.assign(learning_rate)

    def get_config(self) -> dict[str, Any]:
        rate = self._learning_rate
        if not isinstance(rate, _LearningRateSchedule) or isinstance(rate, _FromFunction):
            rate = float(self.learning_rate.numpy())
        else:
            rate = tf_keras.optimizers.schedules.serialize(rate)
        return {**super().get_config(), "learning_rate": rate}


@tf_keras.saving.register_keras_serializable(package="kerasoptimizers")
class LARS(lars.LARS, _Rated):
    __doc__ = lars.LARS.__doc__
    __module__ = "kerasoptimizers.tf_keras"

    _schedule = _LearningRateSchedule
    # Not the deserialization of any object, which imports whatever module a file names.
    _deserialize = staticmethod(tf_keras.optimizers.schedules.deserialize)
    _base_settings = {
        **lars.LARS._base_settings,
        "jit_compile": arguments.flag,
        "is_legacy_optimizer": arguments.flag,
    }

    def built_for(self):
        return private.built_for(self)

    def build(self, var_list: Any) -> None:
        """Create the momentum of each variable, zero.

        Args:
            var_list: list of the model's trainable variables.
        """
        if self.built:
            return
        var_list = arguments.variables("var_list", var_list)
        with self.outside_of_traces():
            super().build(var_list)
            self._prepare(var_list)
        self._built = True

    @staticmethod
    def _momentum_name(variable):
        return f"momentum/{private.shared_name(variable)}"

    def update_step(self, gradient: Any, variable: Any) -> None:
        momentum = self._momentums[self.require_position(variable)]
        weights, new = self._moved(variable, gradient, momentum, self.learning_rate)
        variable.assign(tf.cast(weights, variable.dtype))
        momentum.assign(new)
