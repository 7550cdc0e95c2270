"""The averaging optimizer for Keras 2."""

import contextlib
from typing import Any

import tensorflow as tf
import tf_keras

from .. import arguments, gradients, optimizer
from ..legacy import VariableList
from . import private
from .base import Base, require_eager

_LEGACY = tf_keras.optimizers.legacy.Optimizer


class AveragingOptimizer(optimizer.AveragingOptimizer, Base):
    """A Keras 2 optimizer that wraps another, of the new kind or the old, and averages the weights by a rule."""

    version, optimizer_types = "Keras 2", (tf_keras.optimizers.Optimizer, _LEGACY)
    other_version = ("keras", "Keras 3", "kerasoptimizers")
    loss_scale_types = (tf_keras.mixed_precision.LossScaleOptimizer,)
    inner_settings = ("use_ema", "weight_decay")

    # A second count, if there is one.
    _updates: Any

    # A frozen layer's variables still say that they are trainable.
    leaves_trainable_variables = True
    more_optimizers = {
        name: getattr(tf_keras.optimizers, name) for name in ("Adafactor", "Lion") if hasattr(tf_keras.optimizers, name)
    }

    def start_keras(self, name: str) -> None:
        require_eager()
        tf_keras.optimizers.Optimizer.__init__(self, name=name)
        self._updates = None

    def _create_iteration_variable(self):
        """The count is the inner optimizer's."""

    # Methods that the averages call.

    def new_slot(self, variable: Any, name: str, shape: tuple[int, ...], dtype: str, initializer: Any) -> Any:
        name = self._distinct_name(f"{name}/{private.shared_name(variable)}")
        return self.new_variable(name, shape, dtype, initializer, variable)

    def new_scalar(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        with self.outside_of_traces():
            zeros = tf.zeros(shape, tf.int64 if dtype == "int" else dtype)
            scalar = tf.Variable(zeros, name=self._distinct_name(name), trainable=False)
        private.own_variables(self).append(scalar)
        return scalar

    def _distinct_name(self, name):
        # HDF5 files find variables by name, so the names must differ if one method wraps another.
        for inner in optimizer.with_inner(self.optimizer):
            if isinstance(inner, AveragingOptimizer) or getattr(inner, "use_ema", False):
                name = f"outer_{name}"
        return name

    def count(self) -> Any:
        return self.backend.count(self.iterations if self._updates is None else self._updates)

    def keras_slot(self, variable: Any, slot_name: str) -> Any:
        if isinstance(self.optimizer, _LEGACY):
            known = slot_name in self.optimizer.get_slot_names()
            return self.optimizer.get_slot(variable, slot_name) if known else None
        return self.slot_by_name(variable, lambda weight: f"{slot_name}/{private.shared_name(weight)}")

    def rate_of_step(self) -> Any:
        return self.backend.read(private.rate_of_step(optimizer.innermost(self.optimizer)))

    # Methods that Keras requires of an optimizer.

    @property
    def iterations(self) -> Any:
        """How many updates the inner optimizer has made."""
        return self.optimizer.iterations

    @iterations.setter
    def iterations(self, value: Any) -> None:
        self.optimizer.iterations.assign(value)
        if self._updates is not None:
            self._updates.assign(value)

    # Under a loss scale Keras 2 also counts the updates that it skips. A rule must not: then there is a second
    # count.

    def loss_scale(self) -> Any:
        return None  # gradients come here without it

    @property
    def _is_wrapped_by_loss_scale_optimizer(self):
        return vars(self).get("_wrapped", False)

    @_is_wrapped_by_loss_scale_optimizer.setter
    def _is_wrapped_by_loss_scale_optimizer(self, wrapped):
        # A LossScaleOptimizer around this one says so here.
        object.__setattr__(self, "_wrapped", wrapped)
        if isinstance(self.optimizer, AveragingOptimizer):
            self.optimizer._is_wrapped_by_loss_scale_optimizer = wrapped

    def _count_updates(self):
        skips = self._is_wrapped_by_loss_scale_optimizer or self.inner_loss_scale() is not None
        if skips and self._updates is None:
            self._updates = tf.Variable(
                self.iterations,
                name=self._distinct_name("updates"),
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )

    def gradients_of(self, loss: Any, var_list: Any, weight: Any, tape: Any) -> tuple[list[Any], list[Any]]:
        scaling = self.inner_loss_scale()
        if scaling is None:
            return super().gradients_of(loss, var_list, weight, tape)
        with tape or contextlib.nullcontext():
            loss = scaling.get_scaled_loss(loss)
        grads, variables = super().gradients_of(loss, var_list, weight, tape)
        return scaling.get_unscaled_gradients(grads), variables

    @property
    def variables(self) -> VariableList:
        """All variables: the inner optimizer's (its count first), then the averages."""
        return VariableList([*self.optimizer.variables(), *self._added_variables()])

    def _added_variables(self):
        # The count comes last, whenever it was made: files depend on the order.
        return [*private.own_variables(self), *([] if self._updates is None else [self._updates])]

    def saved_variables(self) -> list[Any]:
        # Keras 2 leaves optimizers of the old kind out of `.keras` files: this one brings its inner optimizer along.
        return self.variables if isinstance(self.optimizer, _LEGACY) else self._added_variables()

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        children = super()._trackable_children(save_type, **kwargs)
        if save_type == "savedmodel":
            # Keras 2 looks for the count where its own optimizers have it.
            return {**children, "_iterations": self.optimizer.iterations}
        return children

    def build(self, var_list: Any) -> None:
        """Create the averages, as copies of the variables.

        Args:
            var_list: list of the model's trainable variables.
        """
        if self.built:
            return
        var_list = arguments.variables("var_list", var_list)
        inner = self.optimizer
        with self.outside_of_traces():
            if isinstance(inner, _LEGACY):
                private.build_legacy(inner, var_list)
            elif private.built_for(inner) is not None:
                gradients.require_same_variables(self, private.built_for(inner), var_list)
            else:
                inner.build(var_list)
            tf_keras.optimizers.Optimizer.build(self, var_list)
            self.create_averages(var_list)
            self._count_updates()
        self._built = True

    def apply_pairs(self, pairs: list, name: str | None, skip_gradients_aggregation: bool) -> Any:
        """Let the inner optimizer take its step, then move the averages if that is due."""
        with self.outside_of_traces():
            self.build([variable for _, variable in pairs])
            # A model that is compiled after the averages were made may have put a loss scale around.
            self._count_updates()
        self.require_ready()
        if (self.clipnorm or self.clipvalue or self.global_clipnorm) and not skip_gradients_aggregation:
            # The limit holds for the gradient of all replicas together.
            pairs = self.aggregate_gradients(pairs)
            skip_gradients_aggregation = True
        grads, variables = zip(*pairs)
        before, scaling = self.count(), self.inner_loss_scale()
        scale = self.backend.read(scaling.loss_scale) if scaling is not None and scaling.dynamic else None
        with self.rate_of_update() as rate:
            clipped = self.clip(list(grads), variables)
            with self.averages.stepping(rate):
                self.optimizer.apply_gradients(
                    list(zip(clipped, variables)),
                    name=name,
                    experimental_aggregate_gradients=not skip_gradients_aggregation,
                )
        counted = None
        if scale is not None:
            # A skip sets the counter to zero and lowers the scale, or leaves it at 1.
            counted = (scaling.dynamic_counter > 0) | (scaling.loss_scale > scale)
        if self._updates is not None:
            self._updates.assign_add(1 if counted is None else tf.cast(counted, self._updates.dtype))
        self.move_averages(before, counted, rate)
        return self.iterations

    def finalize_variable_values(self, var_list: Any) -> None:
        self.finish_fit()
        # An inner `use_ema` ends training here; our averages are put in only when asked.
        if hasattr(self.optimizer, "finalize_variable_values"):
            self.optimizer.finalize_variable_values(var_list)
