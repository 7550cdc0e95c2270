"""Methods that the optimizers of TensorFlow Addons, the Model Garden and Keras 2 had: for old scripts only.

Nothing else in the package needs them. Where Keras 3 can't do what they did, one line says what to use.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from . import arguments, gradients
from .slots import SlottedOptimizer


class VariableList(list):
    """Variables, read as a property (Keras 3) or called as a method (TensorFlow Addons and the Model Garden)."""

    def __call__(self) -> "VariableList":
        return self


class LegacyMethods(SlottedOptimizer):
    """Mixin for our optimizers.

    The class beside it has `keras` (its Keras), `backend` (one of `backends`), `variables`, `apply_gradients()` and
    `new_variable(name, shape, dtype, initializer, beside)`.
    """

    keras: ClassVar[Any]
    backend: ClassVar[Any]
    variables: Any
    optimizer: Any
    apply_gradients: Callable
    new_variable: Callable

    def __dir__(self):
        # TensorFlow's checkpoints take whatever lists this name for an optimizer of the old kind.
        return [name for name in super().__dir__() if name != "get_slot_names"]

    @property
    def _optimizer(self):
        # TensorFlow Addons' name of the inner optimizer, which scripts have used.
        return self.optimizer

    # Weights.

    @property
    def weights(self) -> list[Any]:
        """All variables, the count of updates first."""
        return list(self.variables)

    def get_weights(self) -> list[np.ndarray]:
        """The values of `weights`, as a list of NumPy arrays."""
        return [self.backend.numpy(variable) for variable in self.weights]

    def set_weights(self, weights: Any) -> None:
        """Set all variables.

        Args:
            weights: list of arrays, as `get_weights()` returns it.

        Raises:
            ValueError: if number or shapes differ. Nothing is changed then.
        """
        shapes = [tuple(variable.shape) for variable in self.weights]
        try:
            weights = list(weights)
        except TypeError:
            arguments.refuse("weights", "a list of arrays", weights)
        weights = [arguments.array("weights", weight) for weight in weights]
        given = [tuple(weight.shape) for weight in weights]
        if given != shapes:
            raise ValueError(f"`weights` must be arrays of the shapes {shapes}, not of the shapes {given}.")
        for variable, weight in zip(self.weights, weights):
            variable.assign(weight)

    def add_weight(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: str | None = None,
        initializer: Any = "zeros",
        trainable: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Add a variable to the optimizer.

        Args:
            name: str.
            shape: tuple of ints.
            dtype: name of a type; None: Keras's default, float32.
            initializer: Keras initializer or the name of one.
            trainable, **kwargs: accepted for old scripts; such a variable is not trained.

        Returns:
            The variable.
        """
        arguments.string("name", name)
        shape = arguments.shape("shape", shape)
        try:
            dtype = self.backend.dtype(SimpleNamespace(dtype="float32" if dtype is None else dtype))
        except (TypeError, ValueError):
            arguments.refuse("dtype", "the name of a type of numbers", dtype)
        return self.new_variable(name, shape, dtype, self._initializer(initializer), None)

    def _initializer(self, initializer):
        try:
            found = self.keras.initializers.get(initializer)
        except Exception:  # whatever Keras makes of it
            found = None
        if found is None:
            arguments.refuse("initializer", "a Keras initializer or the name of one", initializer)
        return found

    # Slots.

    def get_slot_names(self) -> list[str]:
        return [*super().get_slot_names(), *self._added_slots()]

    def add_slot(self, var: Any, slot_name: str, initializer: Any = "zeros", shape: Any = None) -> Any:
        """Add a variable that belongs to a model variable, or return the one there is.

        Args:
            var: a variable the optimizer was built for.
            slot_name: str.
            initializer: Keras initializer, the name of one, or an array of the slot's shape.
            shape: tuple of ints; `var`'s where None.

        Returns:
            The slot variable, of `var`'s type.

        Raises:
            ValueError: if `var` is not one of the optimizer's variables.
        """
        position = self.require_position(var)
        arguments.string("slot_name", slot_name)
        if slot_name in self.own_slots():
            return self.own_slots()[slot_name][position]
        added = self._added_slots().get(slot_name, {})
        if position not in added:
            value = None
            shape = arguments.shape("shape", var.shape if shape is None else shape)
            if isinstance(initializer, (str, dict)) or callable(initializer):
                initializer = self._initializer(initializer)
            else:
                value, initializer = arguments.array("initializer", initializer), "zeros"
                if tuple(value.shape) != shape:
                    allowed = f"a Keras initializer, the name of one, or an array of shape {shape}"
                    arguments.refuse("initializer", allowed, initializer)
            name = arguments.variable_name(var).replace("/", "_").replace(":", "_")
            slot = self.new_variable(f"{name}_{slot_name}", shape, var.dtype, initializer, var)
            if value is not None:
                slot.assign(value)
            added = vars(self).setdefault("_legacy_slots", {}).setdefault(slot_name, {})
            added[position] = slot
        return added[position]

    def find_slot(self, position: int | None, var: Any, slot_name: str) -> Any:
        added = self._added_slots().get(slot_name, {})
        return added[position] if position in added else super().find_slot(position, var, slot_name)

    def _added_slots(self):
        return vars(self).get("_legacy_slots", {})

    # Gradients.

    def minimize(
        self, loss: Any, var_list: Any, grad_loss: Any = None, name: str | None = None, tape: Any = None
    ) -> Any:
        """Take one step that makes a loss smaller.

        Args:
            loss: function without arguments that returns the loss; on TensorFlow also a tensor together with
                its `tape`, on PyTorch also a tensor.
            var_list: list of variables, or a function that returns them once the loss was computed.
            grad_loss: tensor of the loss's shape that weights its elements.
            name: str, name of the operations; the optimizer's when None.
            tape: `tf.GradientTape` that computed `loss`; TensorFlow only.

        Returns:
            The number of updates made.

        Raises:
            ValueError: if `loss` is a tensor without `tape`, or depends on none of the variables.
        """
        factor = getattr(self, "loss_scale_factor", None)
        grads, variables = self.gradients_of(loss, var_list, grad_loss, tape)
        if variables and all(gradient is None for gradient in grads):
            raise ValueError("`loss` must depend on at least one variable of `var_list`.")
        if factor is not None:
            # apply_gradients() divides by it.
            grads = gradients.scaled(grads, factor)
        return self.apply_gradients(list(zip(grads, variables)), name=name)

    def gradients_of(self, loss: Any, var_list: Any, weight: Any, tape: Any) -> tuple[list[Any], list[Any]]:
        """(gradients, variables) of a loss. `weight` is the derivative of the minimized value by the loss."""
        return _GRADIENTS[self.backend.name](loss, var_list, self.backend.native, weight, tape)

    def get_gradients(self, loss: Any, params: Any) -> list[Any]:
        """Gradients of a loss in a TensorFlow graph (or of a PyTorch tensor).

        Args:
            loss: scalar tensor.
            params: list of variables.

        Returns:
            List of gradients.

        Raises:
            RuntimeError: where Keras has no graph: use `minimize()` there.
            ValueError: if the loss does not depend on one of `params`.
        """
        params = arguments.variables("params", params)
        kind = self.backend.name
        if kind not in ("tensorflow", "torch"):
            raise RuntimeError(
                "get_gradients() and get_updates() need the graph of a tensor, which JAX doesn't keep; "
                "use minimize() with a function that returns the loss."
            )
        if kind == "torch":
            grads = self.gradients_of(loss, params, None, None)[0]
        else:
            grads = _graph_gradients(loss, [self.backend.native(variable) for variable in params])
        for gradient, variable in zip(grads, params):
            if gradient is None:
                raise ValueError(
                    "`params` must be variables that `loss` depends on: "
                    f"{arguments.variable_name(variable)} has no gradient."
                )
        return grads

    def get_updates(self, loss: Any, params: Any) -> list[Any]:
        """One step on `loss`, as `get_gradients()` computes its gradients.

        Args:
            loss: scalar tensor.
            params: list of variables.

        Returns:
            List with the number of updates made.
        """
        return [self.apply_gradients(list(zip(self.get_gradients(loss, params), params)))]


def require_replica_context() -> None:
    """Raise where TensorFlow's replicas are left: an update has to be taken in each."""
    import tensorflow as tf

    if tf.distribute.in_cross_replica_context():
        raise RuntimeError("apply_gradients() must be called in a replica context: inside strategy.run().")


def _graph_gradients(loss, variables):
    import tensorflow as tf

    if tf.executing_eagerly():
        raise RuntimeError(
            "get_gradients() and get_updates() need a graph, as inside tf.function; in eager code use "
            "tf.GradientTape() or minimize()."
        )
    return tf.gradients(loss, variables)


def _require_loss(found, loss):
    if not found:
        arguments.refuse("loss", "a function without arguments that returns a tensor, or a tensor", loss)


def _listed(variables):
    # They may be a function, where they come into being with the loss.
    return arguments.variables("var_list", variables() if callable(variables) else variables)


def _with_tensorflow(loss, variables, native, weight, tape):
    import tensorflow as tf

    def are_tensors(value):
        parts = tf.nest.flatten(value)
        return bool(parts) and all(tf.is_tensor(part) for part in parts)

    if callable(loss):
        with tape or tf.GradientTape() as tape:
            loss = loss()
    elif are_tensors(loss) and tape is None:
        raise ValueError("`tape` must be the GradientTape that computed `loss`, not None.")
    _require_loss(are_tensors(loss), loss)
    variables = _listed(variables)
    return tape.gradient(loss, [native(v) for v in variables], weight), variables


def _with_torch(loss, variables, native, weight, tape):
    import torch

    loss = loss() if callable(loss) else loss
    _require_loss(torch.is_tensor(loss), loss)
    variables = _listed(variables)
    inputs = [native(variable) for variable in variables]
    return list(torch.autograd.grad(loss, inputs, weight, allow_unused=True)), variables


def _with_jax(loss, variables, native, weight, tape):
    import jax
    import keras

    if not callable(loss):
        raise TypeError("`loss` must be a function without arguments on JAX, not its value.")
    variables = _listed(variables)

    def of_values(values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values))):
            value = loss()
            _require_loss(hasattr(value, "dtype"), value)
            return value

    value, pull_back = jax.vjp(of_values, [native(variable) for variable in variables])
    weight = jax.numpy.ones_like(value) if weight is None else jax.numpy.asarray(weight, value.dtype)
    return list(pull_back(weight)[0]), variables


_GRADIENTS = {"tensorflow": _with_tensorflow, "jax": _with_jax, "torch": _with_torch}
