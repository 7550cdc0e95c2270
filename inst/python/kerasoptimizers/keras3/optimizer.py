"""The averaging optimizer for Keras 3."""

from typing import Any

import keras

from .. import arguments, gradients, optimizer
from ..legacy import VariableList
from . import private
from .base import Base


class AveragingOptimizer(optimizer.AveragingOptimizer, Base):
    """A Keras 3 optimizer that wraps another and averages the weights by a rule."""

    version, optimizer_types = "Keras 3", (keras.optimizers.Optimizer,)
    other_version = ("tf_keras", "Keras 2 (tf_keras)", "kerasoptimizers.tf_keras")
    loss_scale_types = (keras.optimizers.LossScaleOptimizer,)
    inner_settings = ("use_ema", "gradient_accumulation_steps", "weight_decay")

    def start_keras(self, name: str) -> None:
        keras.optimizers.Optimizer.__init__(self, learning_rate=0.0, name=name)

    def inner_optimizer_from(self, optimizer: Any) -> Any:
        optimizer = super().inner_optimizer_from(optimizer)
        if self.backend.name == "jax" and isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            raise ValueError(
                "`optimizer` must not be a LossScaleOptimizer on JAX, where it can only stand outermost: "
                "give its inner optimizer, and put the LossScaleOptimizer around the result."
            )
        return optimizer

    # Methods that the averages call.

    def new_slot(self, variable: Any, name: str, shape: tuple[int, ...], dtype: str, initializer: Any) -> Any:
        path = getattr(variable, "path", variable.name).replace("/", "_").replace(":", "_")
        return self.new_variable(f"{path}_{name}", shape, dtype, initializer, variable)

    def new_scalar(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        with self.outside_of_traces():
            return self.add_variable(
                shape=shape, dtype=dtype, initializer="zeros", aggregation="only_first_replica", name=name
            )

    def count(self) -> Any:
        return self.backend.count(self.iterations)

    def keras_slot(self, variable: Any, slot_name: str) -> Any:
        # Keras 3 keeps no slots; it names such a variable after the weight it belongs to.
        def name_for(weight):
            return f"{getattr(weight, 'path', weight.name).replace('/', '_').replace(':', '_')}_{slot_name}"

        return self.slot_by_name(variable, name_for)

    def rate_of_step(self) -> Any:
        return self.backend.read(self.optimizer.learning_rate)

    # Methods that Keras requires of an optimizer.

    @property
    def iterations(self) -> Any:
        """How many updates the inner optimizer has made."""
        return _counting(self.optimizer).iterations

    @iterations.setter
    def iterations(self, value: Any) -> None:
        for part in _parts(self.optimizer):
            private.set_iterations(part, keras.ops.convert_to_tensor(value) * _calls_per_update(part))

    @property
    def loss_scale_factor(self) -> Any:
        inner = vars(self).get("optimizer")
        return None if inner is None else inner.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor: Any) -> None:
        # Keras's class sets it before there is an inner optimizer.
        if "optimizer" not in vars(self):
            return
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            # A second one, around this optimizer, takes the factor away from the one inside of it.
            raise ValueError(
                "`optimizer` must not hold a LossScaleOptimizer where another stands around it (under "
                "mixed_float16 Keras puts one there): give the optimizer that is in it."
            )
        self.optimizer.loss_scale_factor = factor

    def __setattr__(self, name, value):
        if name == "loss_scale_factor":
            # On TensorFlow Keras would not ask the property where the value is the same.
            object.__setattr__(self, name, value)
            return
        super().__setattr__(name, value)

    def scale_loss(self, loss: Any) -> Any:
        return self.optimizer.scale_loss(loss)

    def loss_scale(self) -> Any:
        scaling = self.inner_loss_scale()
        return self.loss_scale_factor if scaling is None else keras.ops.convert_to_tensor(scaling.dynamic_scale)

    def saved_variables(self) -> list[Any]:
        # The first two are the count and the rate of Keras's class. The inner optimizer's are used instead.
        return private.own_variables(self)[2:]

    @property
    def variables(self) -> VariableList:
        """All variables: the inner optimizer's (its count first), then the averages."""
        self.refuse_other_model()
        return VariableList([*self.optimizer.variables, *self.saved_variables()])

    def build(self, variables: Any) -> None:
        """Create the averages, as copies of the variables.

        Args:
            variables: list of the model's trainable variables.

        Raises:
            ValueError: if the inner optimizer was built for other variables.
        """
        variables = arguments.variables("variables", variables)
        if self.built and (private.trained_variables(self) or not variables):
            return
        if not variables:
            keras.optimizers.Optimizer.build(self, variables)
            return
        with self.outside_of_traces():
            if self.optimizer.built:
                gradients.require_same_variables(self, private.built_for(self.optimizer), variables)
            else:
                self.optimizer.build(variables)
            keras.optimizers.Optimizer.build(self, variables)
        self.create_averages(variables)
        if self.set_weights_from_file():
            with self.outside_of_traces():
                self.averages.forget_refusals()

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Let the inner optimizer apply the gradients, then move the averages if that is due.

        Args:
            grads: list of gradients; None where a variable has none.
            trainable_variables: list of the variables they belong to; not needed once the optimizer is built.
        """
        grads = list(grads)
        if not grads:
            return
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            if not self.built:
                with keras.name_scope(self.name, caller=self):
                    self.build(trainable_variables)
        self.require_ready()
        variables = trainable_variables or private.trained_variables(self)
        before = self.count()
        with self.rate_of_update() as rate, gradients.naming_unknown(self, trainable_variables):
            clipped = self.clip_over_replicas(lambda g: self.clip(g, variables), grads, variables)
            with self.averages.stepping(rate):
                self.optimizer.apply(clipped, trainable_variables)
        counted = None
        if _counts_every_call(self.optimizer):
            self.backend.noted(self.iterations, before + 1)
        else:
            counted = self.count() > before
        self.move_averages(before, counted, rate)

    @property
    def _model_variables_moving_average(self):
        # Where Keras's SwapEMAWeights looks for what to show.
        return self.averages.to_show(private.trained_variables(self))

    def finalize_variable_values(self, var_list: Any) -> None:
        # On JAX variables have no values after a step that failed: show the step's error, not one from here.
        if all(self.backend.has_value(variable) for variable in self.variables):
            self.finish_fit()
            # An inner `use_ema` ends training here; our averages are put in only when asked.
            self.optimizer.finalize_variable_values(var_list)


# Keras's optimizer made of others, each for some of the variables; Keras 3.8 has none.
_MULTI_OPTIMIZER = getattr(keras.optimizers, "MultiOptimizer", ())


def _parts(inner):
    """The optimizers that take the steps: one, beneath any wrappers, or those of a MultiOptimizer."""
    if isinstance(inner, AveragingOptimizer):
        return _parts(inner.optimizer)
    if isinstance(inner, keras.optimizers.LossScaleOptimizer):
        return _parts(inner.inner_optimizer)
    if isinstance(inner, _MULTI_OPTIMIZER):
        return [part for one in inner.optimizers for part in _parts(one)]
    return [inner]


def _calls_per_update(inner):
    return inner.gradient_accumulation_steps or 1


def _counting(inner):
    """The part whose count is the number of updates: the one that updates most often."""
    # A part without variables is never built. One that a function gives is not known before.
    return min(_parts(inner), key=lambda part: (not part.built, _calls_per_update(part)), default=inner)


def _counts_every_call(inner):
    """Whether each call of the optimizer's `apply()` is an update.

    It isn't when gradients are accumulated, or when a loss scale skips those that are not finite.
    """
    if isinstance(inner, AveragingOptimizer):
        return _counts_every_call(inner.optimizer)
    if isinstance(inner, keras.optimizers.LossScaleOptimizer):
        return False
    return _calls_per_update(_counting(inner)) == 1
