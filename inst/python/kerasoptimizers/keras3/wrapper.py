"""The averaging wrapper for Keras 3."""

import keras

from .. import arguments, gradients, moving
from ..averaging import Averaging
from ..surface import VariableList
from .base import Base

_MOVERS = {
    "tensorflow": moving.with_tensorflow,
    "jax": moving.with_jax,
    "torch": moving.with_torch,
}


class AveragingOptimizer(Averaging, Base):
    """A Keras 3 optimizer that wraps another and averages the weights by a rule."""

    def __init__(self, optimizer, rule, name, **settings):
        _require_known_backend()
        optimizer = _get_optimizer(optimizer)
        settings = self._check_settings(optimizer, name, settings)
        super().__init__(learning_rate=0.0, name=name)
        self._adopt(optimizer, rule, settings)

    # Primitives for the shared part.

    @staticmethod
    def _is_variable(value):
        return isinstance(value, keras.Variable)

    @staticmethod
    def _read(variable):
        return keras.ops.copy(variable)

    @staticmethod
    def _cast(value, dtype):
        return keras.ops.cast(value, dtype)

    @staticmethod
    def _number(variable):
        return int(keras.ops.convert_to_numpy(variable))

    def _keras_slot(self, variable, slot_name):
        # Keras 3 keeps no slots; it names such a variable after the weight it belongs to.
        path = getattr(variable, "path", variable.name).replace("/", "_").replace(":", "_")
        name = f"{path}_{slot_name}"
        return next((v for v in self.optimizer.variables if v.name.split(":")[0] == name), None)

    @staticmethod
    def _require_live_non_trainable_weights():
        if keras.backend.backend() == "jax":
            raise ValueError(
                "`trainable_weights_only` must be True on JAX, not False: its compiled step does not "
                "show non-trainable weights to an optimizer. Recompute batch-norm statistics with "
                "update_batch_norm() instead."
            )

    # What Keras asks of an optimizer.

    @property
    def _counting(self):
        """The optimizer with the count; Keras 3.8's LossScaleOptimizer does not pass it through."""
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            return self.optimizer.inner_optimizer
        return self.optimizer

    @property
    def iterations(self):
        """How many updates the inner optimizer has made."""
        return self._counting.iterations

    @iterations.setter
    def iterations(self, value):
        optimizer = self._counting
        if isinstance(optimizer, Averaging):
            optimizer.iterations = value
        else:
            steps = optimizer.gradient_accumulation_steps or 1
            optimizer._iterations.assign(keras.ops.convert_to_tensor(value) * steps)

    @property
    def loss_scale_factor(self):
        optimizer = self.__dict__.get("optimizer")
        return None if optimizer is None else optimizer.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor):
        # The base class sets it before there is an inner optimizer.
        if "optimizer" in self.__dict__:
            self.optimizer.loss_scale_factor = factor

    def scale_loss(self, loss):
        return self.optimizer.scale_loss(loss)

    @property
    def _own_variables(self):
        # The first two are the base class's count and rate. The inner optimizer's are used instead.
        return self._variables[2:]

    @property
    def variables(self):
        """All variables: the inner optimizer's (its count first), then the averages."""
        return VariableList(list(self.optimizer.variables) + list(self._own_variables))

    def build(self, variables):
        """Create the averages, as copies of the variables.

        Args:
            variables: list of the model's trainable variables.

        Raises:
            ValueError: if the inner optimizer was built for other variables.
        """
        variables = list(variables)
        if self.built or not variables:
            return
        if self.optimizer.built:
            self._require_same_variables(self.optimizer._trainable_variables_indices, variables)
        else:
            self.optimizer.build(variables)
        super().build(variables)
        self._create_averages(variables)

    def _add_counter(self, name):
        return self.add_variable(
            shape=(), dtype="int", initializer="zeros", aggregation="only_first_replica", name=name
        )

    def _add_average(self, variable):
        path = getattr(variable, "path", variable.name).replace("/", "_").replace(":", "_")
        return self._add(
            f"{path}_{self._rule.slot}",
            variable.shape,
            self._average_dtype(variable),
            lambda shape, dtype: self._cast(self._read(variable), dtype),
            beside=variable,
        )

    def apply(self, grads, trainable_variables=None):
        """Let the inner optimizer apply the gradients, then move the averages if that is due.

        Args:
            grads: list of gradients; None where a variable has none.
            trainable_variables: list of the variables they belong to; not
                needed once the optimizer is built.
        """
        grads = list(grads)
        if not grads:
            return
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            if not self.built:
                with self._outside_of_graphs(trainable_variables):
                    with keras.name_scope(self.name, caller=self):
                        self.build(trainable_variables)
        self._require_ready()
        always = _counts_every_call(self.optimizer)
        before = None if always else self._read(self.iterations)
        with self._decayed_learning_rate():
            clipped = self._clip_over_replicas(grads, trainable_variables)
            self.optimizer.apply(clipped, trainable_variables)
        after = self._read(self.iterations)
        if always:
            self._move_averages(after - 1)
        else:
            self._move_averages(before, counted=after > before)

    def _clip_over_replicas(self, grads, variables):
        replicas = self._replicas()
        if replicas == 1 or not (self.clipnorm or self.clipvalue or self.global_clipnorm):
            return self._clip(grads)
        # What is limited is the gradient of all replicas. Keras 3 will sum over them again.
        variables = self._trainable_variables if variables is None else variables
        summed = self._all_reduce_sum_gradients(zip(grads, variables))
        return gradients.scaled(self._clip([gradient for gradient, _ in summed]), 1.0 / replicas)

    def _move_averages(self, update, counted=None):
        _MOVERS[keras.backend.backend()](self, update, counted)

    @property
    def _model_variables_moving_average(self):
        # Where Keras's SwapEMAWeights looks for averages, in the order of the trainable variables.
        return list(self._averages[: len(self._trainable_variables)])

    def finalize_variable_values(self, var_list):
        # An inner `use_ema` ends training here; averages of ours are put in only when asked.
        self.optimizer.finalize_variable_values(var_list)


def _require_known_backend():
    if keras.backend.backend() not in _MOVERS:
        raise RuntimeError(
            f"Averaging optimizers need the Keras backend {', '.join(_MOVERS)}, "
            f"not {keras.backend.backend()}: set KERAS_BACKEND before Keras is imported."
        )


def _get_optimizer(optimizer):
    allowed = "a Keras 3 optimizer or the name of one"
    if isinstance(optimizer, str):
        try:
            return keras.optimizers.get(optimizer)
        except ValueError:
            arguments.refuse("optimizer", allowed, optimizer)
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        if type(optimizer).__module__.partition(".")[0] == "tf_keras":
            raise TypeError(
                "`optimizer` must be a Keras 3 optimizer, not one of Keras 2 (tf_keras): for that, "
                "import from kerasoptimizers.tf_keras."
            )
        arguments.refuse("optimizer", allowed, optimizer)
    on_jax = keras.backend.backend() == "jax"
    if on_jax and isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "`optimizer` must not be a LossScaleOptimizer on JAX, where it can only stand outermost: "
            "give its inner optimizer, and put the LossScaleOptimizer around the result."
        )
    return optimizer


def _counts_every_call(optimizer):
    """Whether each call of the optimizer's `apply()` is an update.

    It isn't when gradients are accumulated, or when a loss scale skips those
    that are not finite.
    """
    if isinstance(optimizer, Averaging):
        return _counts_every_call(optimizer.optimizer)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return False
    return not optimizer.gradient_accumulation_steps
