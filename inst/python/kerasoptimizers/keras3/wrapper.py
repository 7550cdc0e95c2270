"""The averaging wrapper for Keras 3."""

import keras

from .. import arguments, moving
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
        object.__setattr__(self, "_host_count", moving.HostCount())

    # Primitives for the shared part.

    @staticmethod
    def _read(variable):
        return keras.ops.copy(variable)

    @staticmethod
    def _cast(value, dtype):
        return keras.ops.cast(value, dtype)

    @staticmethod
    def _number(variable):
        return keras.ops.convert_to_numpy(variable)

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
    def iterations(self):
        """How many updates the inner optimizer has made."""
        return _counting(self.optimizer).iterations

    @iterations.setter
    def iterations(self, value):
        for part in _parts(self.optimizer):
            steps = _calls_per_update(part)
            part._iterations.assign(keras.ops.convert_to_tensor(value) * steps)

    @property
    def loss_scale_factor(self):
        optimizer = self.__dict__.get("optimizer")
        return None if optimizer is None else optimizer.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, factor):
        # The base class sets it before there is an inner optimizer.
        if "optimizer" not in self.__dict__:
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
        else:
            super().__setattr__(name, value)

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
        variables = arguments.variables("variables", variables)
        if self.built or not variables:
            return
        if self.optimizer.built:
            self._require_same_variables(self.optimizer._trainable_variables_indices, variables)
        else:
            self.optimizer.build(variables)
        super().build(variables)
        self._create_averages(variables)

    def _add_counter(self, name, shape=()):
        return self.add_variable(
            shape=shape,
            dtype="int",
            initializer="zeros",
            aggregation="only_first_replica",
            name=name,
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
        before = self._read_count()
        with self._decayed_learning_rate(), self._naming_unknown(trainable_variables):
            variables = trainable_variables or self._trainable_variables
            clipped = self._clip_over_replicas(self._clip, grads, variables)
            self.optimizer.apply(clipped, trainable_variables)
        if _counts_every_call(self.optimizer):
            self._note_count(before + 1)
            self._move_averages(before)
        else:
            self._move_averages(before, counted=self._read_count() > before)

    def _read_count(self):
        if keras.backend.backend() == "torch":
            return self._host_count.read(self._native(self.iterations))
        return self._read(self.iterations)

    def _note_count(self, count):
        if keras.backend.backend() == "torch":
            self._host_count.note(self._native(self.iterations), count)

    def _move_averages(self, update, counted=None):
        _MOVERS[keras.backend.backend()](self, update, counted)

    @property
    def _model_variables_moving_average(self):
        # Where Keras's SwapEMAWeights looks for averages, in the order of the trainable variables.
        return list(self._averages[: len(self._trainable_variables)])

    def finalize_variable_values(self, var_list):
        # An inner `use_ema` ends training here; averages of ours are put in only when asked.
        self.warn_of_refusals()
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
        except Exception:  # also of a class that can't be made from its name alone
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


# Keras's optimizer made of others, each for some of the variables; Keras 3.8 has none.
_MULTI_OPTIMIZER = getattr(keras.optimizers, "MultiOptimizer", ())


def _parts(optimizer):
    """The optimizers that take the steps: one, beneath any wrappers, or those of a MultiOptimizer."""
    if isinstance(optimizer, Averaging):
        return _parts(optimizer.optimizer)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return _parts(optimizer.inner_optimizer)
    if isinstance(optimizer, _MULTI_OPTIMIZER):
        return [part for inner in optimizer.optimizers for part in _parts(inner)]
    return [optimizer]


def _calls_per_update(optimizer):
    return optimizer.gradient_accumulation_steps or 1


def _counting(optimizer):
    """The part whose count is the number of updates: the one that updates most often."""
    # A part without variables is never built. One that a function gives is not known before.
    return min(
        _parts(optimizer),
        key=lambda part: (not part.built, _calls_per_update(part)),
        default=optimizer,
    )


def _counts_every_call(optimizer):
    """Whether each call of the optimizer's `apply()` is an update.

    It isn't when gradients are accumulated, or when a loss scale skips those
    that are not finite.
    """
    if isinstance(optimizer, Averaging):
        return _counts_every_call(optimizer.optimizer)
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return False
    return _calls_per_update(_counting(optimizer)) == 1
