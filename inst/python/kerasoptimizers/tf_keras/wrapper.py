"""The averaging wrapper for Keras 2."""

from types import SimpleNamespace

import tensorflow as tf
import tf_keras

from .. import arguments, moving
from ..averaging import Averaging, VariableList

_OPTIMIZERS = (tf_keras.optimizers.Optimizer, tf_keras.optimizers.legacy.Optimizer)
_LOSS_SCALE_OPTIMIZERS = (tf_keras.mixed_precision.LossScaleOptimizer,)


class AveragingOptimizer(Averaging, tf_keras.optimizers.Optimizer):
    """A Keras 2 optimizer that wraps another, legacy or not, and averages the weights by a rule."""

    _xp = SimpleNamespace(
        cast=tf.cast,
        clip=tf.clip_by_value,
        maximum=tf.maximum,
        minimum=tf.minimum,
        sqrt=tf.sqrt,
        square=tf.square,
        sum=tf.reduce_sum,
        where=tf.where,
    )

    def __init__(self, optimizer, rule, name, **settings):
        optimizer = _get_optimizer(optimizer)
        # Configurations of Keras 2 carry these two; they say nothing about a wrapper.
        settings = {k: v for k, v in settings.items() if k not in ("jit_compile", "is_legacy_optimizer")}
        settings = self._check_settings(optimizer, name, settings)
        super().__init__(name=name)
        self._adopt(optimizer, rule, settings)

    def _create_iteration_variable(self):
        """The count is the inner optimizer's."""

    # Primitives for the shared part.

    @staticmethod
    def _is_variable(value):
        # A legacy optimizer's rate is a plain number until its variables are made.
        return isinstance(value, (tf.Variable, int, float))

    @staticmethod
    def _native(variable):
        return variable

    @staticmethod
    def _read(variable):
        return tf.identity(variable)

    @staticmethod
    def _write(variable, value):
        variable.assign(value)

    @staticmethod
    def _cast(value, dtype):
        return tf.cast(value, dtype)

    @staticmethod
    def _dtype(variable):
        # Under mixed precision a variable shows the type it is cast to.
        return getattr(variable, "true_dtype", variable.dtype)

    @staticmethod
    def _number(variable):
        return int(variable.numpy())

    @staticmethod
    def _serialize(optimizer):
        return tf_keras.optimizers.serialize(optimizer)

    @staticmethod
    def _deserialize(config, custom_objects):
        return tf_keras.optimizers.deserialize(config, custom_objects)

    def _position(self, variable):
        try:
            return self._index_dict.get(self._var_key(variable))
        except AttributeError:
            return None

    def _inner_slot(self, variable, slot_name):
        if hasattr(self.optimizer, "get_slot"):
            names = getattr(self.optimizer, "get_slot_names", lambda: [slot_name])()
            return self.optimizer.get_slot(variable, slot_name) if slot_name in names else None
        name = f"{slot_name}/{variable._shared_name}"
        return next((v for v in self.optimizer.variables if v.name.split(":")[0] == name), None)

    # What Keras asks of an optimizer.

    @property
    def iterations(self):
        return super().iterations

    @iterations.setter
    def iterations(self, value):
        self.optimizer.iterations.assign(value)

    @property
    def variables(self):
        """All variables: the inner optimizer's (its count first), then the averages."""
        return VariableList(list(self.optimizer.variables()) + list(self._variables))

    @property
    def _saved_variables(self):
        # Keras 2 leaves legacy optimizers out of `.keras` files: ours takes its own along.
        legacy = isinstance(self.optimizer, tf_keras.optimizers.legacy.Optimizer)
        return self.variables if legacy else self._variables

    def build(self, var_list):
        """Create the averages, as copies of the variables.

        Args:
            var_list: list of the model's trainable variables.
        """
        if getattr(self, "_built", False):
            return
        var_list = list(var_list)
        super().build(var_list)
        if isinstance(self.optimizer, tf_keras.optimizers.legacy.Optimizer):
            self.optimizer._create_all_weights(var_list)
        else:
            self.optimizer.build(var_list)
        if self._rule.starts_empty:
            self._snapshots = tf.Variable(0, name="snapshots", dtype=tf.int64, trainable=False)
            self._variables.append(self._snapshots)
        self._averaged = self._no_dependency(var_list)
        self._averages = [self._add_average(variable) for variable in var_list]
        self._built = True

    def _add_average(self, variable):
        dtype = self._dtype(variable)
        if dtype in (tf.float16, tf.bfloat16):
            dtype = tf.float32
        with self._distribution_strategy.extended.colocate_vars_with(variable):
            average = tf.Variable(
                self._cast(self._read(variable), dtype),
                name=f"{self._rule.slot}/{variable._shared_name}",
                dtype=dtype,
                trainable=False,
            )
        self._variables.append(average)
        return average

    def apply_gradients(self, grads_and_vars, name=None, skip_gradients_aggregation=False, **kwargs):
        """Let the inner optimizer apply the gradients, then move the averages if that is due.

        Args:
            grads_and_vars: iterable of (gradient, variable) pairs.
            name: str, name of the operations; the optimizer's when None.
            skip_gradients_aggregation: bool, whether the gradients were summed
                over the replicas already.
            **kwargs: `experimental_aggregate_gradients`, the older opposite of
                `skip_gradients_aggregation`.

        Returns:
            The number of updates made.
        """
        grads_and_vars = list(grads_and_vars)
        if not grads_and_vars:
            return self.iterations
        aggregate = not skip_gradients_aggregation
        aggregate = kwargs.pop("experimental_aggregate_gradients", True) and aggregate
        if kwargs:
            raise TypeError(f"apply_gradients() has no argument `{next(iter(kwargs))}`.")
        with tf.init_scope():
            self.build([variable for _, variable in grads_and_vars])
        if aggregate and (self.clipnorm or self.clipvalue or self.global_clipnorm):
            # What is limited is the gradient of all replicas.
            grads_and_vars = self.aggregate_gradients(grads_and_vars)
            aggregate = False
        grads, variables = zip(*grads_and_vars)
        before = self._read(self.iterations)
        with self._decayed_learning_rate():
            self.optimizer.apply_gradients(
                list(zip(self._clip(grads), variables)),
                name=name,
                experimental_aggregate_gradients=aggregate,
            )
        skips = isinstance(self.optimizer, _LOSS_SCALE_OPTIMIZERS)
        counted = self._read(self.iterations) > before if skips else None
        moving.with_tensorflow(self, before, counted)
        return self.iterations

    def finalize_variable_values(self, var_list):
        # An inner `use_ema` ends training here; averages of ours are put in only when asked.
        if hasattr(self.optimizer, "finalize_variable_values"):
            self.optimizer.finalize_variable_values(var_list)


def _get_optimizer(optimizer):
    allowed = "a Keras 2 optimizer or the name of one"
    if isinstance(optimizer, str):
        try:
            return tf_keras.optimizers.get(optimizer)
        except ValueError:
            arguments.refuse("optimizer", allowed, optimizer)
    if not isinstance(optimizer, _OPTIMIZERS):
        if type(optimizer).__module__.partition(".")[0] == "keras":
            raise TypeError(
                "`optimizer` must be a Keras 2 optimizer, not one of Keras 3: for that, import from "
                "kerasoptimizers."
            )
        arguments.refuse("optimizer", allowed, optimizer)
    return optimizer
