"""The averaging wrapper for Keras 2."""

import contextlib

import tensorflow as tf
import tf_keras

from .. import arguments, moving
from ..averaging import Averaging
from ..surface import VariableList
from .base import Base

_OPTIMIZERS = (tf_keras.optimizers.Optimizer, tf_keras.optimizers.legacy.Optimizer)
_LOSS_SCALE_OPTIMIZERS = (tf_keras.mixed_precision.LossScaleOptimizer,)


class AveragingOptimizer(Averaging, Base):
    """A Keras 2 optimizer that wraps another, legacy or not, and averages the weights by a rule."""

    def __init__(self, optimizer, rule, name, **settings):
        optimizer = _get_optimizer(optimizer)
        settings = self._check_settings(optimizer, name, settings)
        super().__init__(name=name)
        self._updates = None
        self._adopt(optimizer, rule, settings)

    def _create_iteration_variable(self):
        """The count is the inner optimizer's."""

    # Primitives for the shared part.

    @staticmethod
    def _read(variable):
        return tf.identity(variable)

    @staticmethod
    def _cast(value, dtype):
        return tf.cast(value, dtype)

    @staticmethod
    def _number(variable):
        return variable.numpy()

    def _keras_slot(self, variable, slot_name):
        if isinstance(self.optimizer, tf_keras.optimizers.legacy.Optimizer):
            known = slot_name in self.optimizer.get_slot_names()
            return self.optimizer.get_slot(variable, slot_name) if known else None
        name = f"{slot_name}/{variable._shared_name}"
        return next((v for v in self.optimizer.variables if v.name.split(":")[0] == name), None)

    @staticmethod
    def _require_live_non_trainable_weights():
        """TensorFlow shows them."""

    # What Keras asks of an optimizer.

    @property
    def iterations(self):
        return super().iterations

    @iterations.setter
    def iterations(self, value):
        self.optimizer.iterations.assign(value)
        if self._updates is not None:
            self._updates.assign(value)

    # Under a loss scale Keras 2 also counts the updates that it skips. A rule must not: there we have
    # a count of our own.

    @property
    def _loss_scale(self):
        """The LossScaleOptimizer inside, if there is one."""
        optimizer = self.optimizer
        while isinstance(optimizer, Averaging):
            optimizer = optimizer.optimizer
        return optimizer if isinstance(optimizer, _LOSS_SCALE_OPTIMIZERS) else None

    @property
    def _is_wrapped_by_loss_scale_optimizer(self):
        return vars(self).get("_wrapped", False)

    @_is_wrapped_by_loss_scale_optimizer.setter
    def _is_wrapped_by_loss_scale_optimizer(self, wrapped):
        # A LossScaleOptimizer around this one says so here.
        object.__setattr__(self, "_wrapped", wrapped)
        if isinstance(self.optimizer, Averaging):
            self.optimizer._is_wrapped_by_loss_scale_optimizer = wrapped  # type: ignore[attr-defined]

    def _count_updates(self):
        skips = self._is_wrapped_by_loss_scale_optimizer or self._loss_scale is not None
        if skips and self._updates is None:
            self._updates = tf.Variable(
                self.iterations,
                name=self._distinct_name("updates"),
                trainable=False,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )

    def _count(self):
        return self._read(self.iterations if self._updates is None else self._updates)

    def _gradients(self, loss, variables, weight, tape):
        scaling = self._loss_scale
        if scaling is None:
            return super()._gradients(loss, variables, weight, tape)
        with tape or contextlib.nullcontext():
            loss = scaling.get_scaled_loss(loss)
        grads, variables = super()._gradients(loss, variables, weight, tape)
        return scaling.get_unscaled_gradients(grads), variables

    @property
    def variables(self):
        """All variables: the inner optimizer's (its count first), then the averages."""
        return VariableList(list(self.optimizer.variables()) + self._added_variables)

    @property
    def _added_variables(self):
        # The count last, whenever it was made: files go by the order.
        return list(self._variables) + ([] if self._updates is None else [self._updates])

    @property
    def _own_variables(self):
        """What a file holds for this optimizer itself."""
        # Keras 2 leaves legacy optimizers out of `.keras` files: ours takes its own along.
        legacy = isinstance(self.optimizer, tf_keras.optimizers.legacy.Optimizer)
        return self.variables if legacy else self._added_variables

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        children = super()._trackable_children(save_type, **kwargs)
        if save_type == "savedmodel":
            # Keras 2 looks for the count where its own optimizers have it.
            return {**children, "_iterations": self.optimizer.iterations}
        return children

    def build(self, var_list):
        """Create the averages, as copies of the variables.

        Args:
            var_list: list of the model's trainable variables.
        """
        if self.built:
            return
        var_list = arguments.variables("var_list", var_list)
        if isinstance(self.optimizer, tf_keras.optimizers.legacy.Optimizer):
            self.optimizer._create_all_weights(var_list)
        elif getattr(self.optimizer, "_built", False):
            self._require_same_variables(self.optimizer._index_dict, var_list)
        else:
            self.optimizer.build(var_list)
        super().build(var_list)
        self._create_averages(var_list)
        self._count_updates()
        self._built = True

    def _distinct_name(self, name):
        # An HDF5 file goes by names, so those of one method around another must differ.
        optimizer = self.optimizer
        while optimizer is not None:
            if isinstance(optimizer, Averaging):
                name = f"outer_{name}"
            inner = getattr(optimizer, "inner_optimizer", None)  # of a loss scale
            optimizer = inner or getattr(optimizer, "optimizer", None)
        return name

    def _add_counter(self, name, shape=()):
        counter = tf.Variable(tf.zeros(shape, tf.int64), name=self._distinct_name(name), trainable=False)
        self._variables.append(counter)
        return counter

    def _add_average(self, variable):
        return self._add(
            self._distinct_name(f"{self._rule.slot}/{variable._shared_name}"),
            variable.shape,
            self._average_dtype(variable),
            lambda shape, dtype: self._cast(self._read(variable), dtype),
            beside=variable,
        )

    def _apply_pairs(self, pairs, name, skip_gradients_aggregation):
        # The inner optimizer takes its step, then the averages move if that is due.
        with self._outside_of_graphs():
            self.build([variable for _, variable in pairs])
            # A model that is compiled after the averages were made may have put a loss scale around.
            self._count_updates()
        self._require_ready()
        clips = self.clipnorm or self.clipvalue or self.global_clipnorm
        if clips and not skip_gradients_aggregation:
            # What is limited is the gradient of all replicas.
            pairs = self.aggregate_gradients(pairs)
            skip_gradients_aggregation = True
        grads, variables = zip(*pairs)
        before, counted = self._count(), None
        scaling = self._loss_scale
        scales = scaling is not None and scaling.dynamic
        if scales:
            scale = self._read(scaling.loss_scale)
        with self._decayed_learning_rate():
            self.optimizer.apply_gradients(
                list(zip(self._clip(grads), variables)),
                name=name,
                experimental_aggregate_gradients=not skip_gradients_aggregation,
            )
        if scales:
            # A skip sets the counter to zero and lowers the scale, or leaves it at 1.
            counted = (scaling.dynamic_counter > 0) | (scaling.loss_scale > scale)
        if self._updates is not None:
            made = 1 if counted is None else self._cast(counted, self._updates.dtype)
            self._updates.assign_add(made)
        self._move_averages(before, counted)
        return self.iterations

    def _move_averages(self, update, counted=None):
        moving.with_tensorflow(self, update, counted)

    def finalize_variable_values(self, var_list):
        # An inner `use_ema` ends training here; averages of ours are put in only when asked.
        self.warn_of_refusals()
        if hasattr(self.optimizer, "finalize_variable_values"):
            self.optimizer.finalize_variable_values(var_list)


def _get_optimizer(optimizer):
    allowed = "a Keras 2 optimizer or the name of one"
    if isinstance(optimizer, str):
        try:
            return tf_keras.optimizers.get(optimizer)
        except Exception:  # also of a class that can't be made from its name alone
            arguments.refuse("optimizer", allowed, optimizer)
    if not isinstance(optimizer, _OPTIMIZERS):
        if type(optimizer).__module__.partition(".")[0] == "keras":
            raise TypeError(
                "`optimizer` must be a Keras 2 optimizer, not one of Keras 3: for that, import from "
                "kerasoptimizers."
            )
        arguments.refuse("optimizer", allowed, optimizer)
    return optimizer
