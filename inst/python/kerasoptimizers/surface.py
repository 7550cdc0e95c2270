"""The methods that the originals' optimizers have and Keras's own have lost, once for all of ours.

The class beside it supplies `_position(variable)`, `_own_slots()` (a name and a
list of variables by position for each), `_add(name, shape, dtype, initializer,
beside)`, `_generation` (the Keras it is for, and whose compile() takes it),
`_gradients(loss, variables, weight, tape)` and `_graph_gradients(loss,
variables)`.
"""

import contextlib
from types import SimpleNamespace

import numpy as np

from . import arguments, gradients


class VariableList(list):
    """Variables, as Keras 3's property `variables` and as the originals' method `variables()`."""

    def __call__(self):
        return self


class Surface:
    """Mixin for an optimizer class of either Keras generation."""

    def __repr__(self):
        # What Keras's compile() prints of an optimizer that belongs to the other generation.
        return f"<{type(self).__name__} for {self._generation}>"

    def __dir__(self):
        # TensorFlow's checkpoints take whatever lists this name for an optimizer of the old kind.
        return [name for name in super().__dir__() if name != "get_slot_names"]

    # Weights.

    @property
    def weights(self):
        """All variables, the count of updates first."""
        return list(self.variables)

    def get_weights(self):
        """The values of `weights`, as a list of NumPy arrays."""
        return [np.array(variable.numpy()) for variable in self.weights]

    def set_weights(self, weights):
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
            raise ValueError(
                f"`weights` must be arrays of the shapes {shapes}, not of the shapes {given}."
            )
        for variable, weight in zip(self.weights, weights):
            variable.assign(weight)

    def add_weight(self, name, shape, dtype=None, initializer="zeros", trainable=None, **kwargs):
        """Add a variable of the optimizer's own.

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
            dtype = self._dtype(SimpleNamespace(dtype="float32" if dtype is None else dtype))
        except (TypeError, ValueError):
            arguments.refuse("dtype", "the name of a type of numbers", dtype)
        return self._add(name, shape, dtype, self._initializer(initializer), None)

    def _initializer(self, initializer):
        try:
            found = self._keras.initializers.get(initializer)
        except Exception:  # whatever Keras makes of it
            found = None
        if found is None:
            arguments.refuse("initializer", "a Keras initializer or the name of one", initializer)
        return found

    def _check_store(self, store, variables):
        """Raise where a file's arrays don't fit the variables, as many of them as there are."""
        keys, held = [str(i) for i in range(len(variables))], list(store.keys())
        missing = [key for key in keys if key not in held]
        if missing:
            raise ValueError(f"`store` must hold an array named '{missing[0]}', and it has none.")
        shapes = [tuple(variable.shape) for variable in variables]
        given = [tuple(np.shape(store[key])) for key in keys]
        if given != shapes:
            raise ValueError(
                f"`store` must hold arrays of the shapes {shapes}, not of the shapes {given}."
            )

    # Slots.

    def get_slot_names(self):
        """Names of the slots of this optimizer itself; those of an inner optimizer are its own."""
        return list(self._slots())

    def add_slot(self, var, slot_name, initializer="zeros", shape=None):
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
        position = self._require_position(var)
        arguments.string("slot_name", slot_name)
        if slot_name in self._own_slots():
            return self._own_slots()[slot_name][position]
        added = vars(self).get("_added_slots", {}).get(slot_name, {})
        if position not in added:
            value = None
            shape = arguments.shape("shape", var.shape if shape is None else shape)
            if isinstance(initializer, (str, dict)) or callable(initializer):
                initializer = self._initializer(initializer)
            else:
                value, initializer = arguments.array("initializer", initializer), "zeros"
                if tuple(value.shape) != shape:
                    arguments.refuse(
                        "initializer",
                        f"a Keras initializer, the name of one, or an array of shape {shape}",
                        initializer,
                    )
            name = getattr(var, "path", var.name).replace("/", "_").replace(":", "_")
            added = vars(self).setdefault("_added_slots", {}).setdefault(slot_name, {})
            added[position] = self._add(f"{name}_{slot_name}", shape, var.dtype, initializer, var)
            if value is not None:
                added[position].assign(value)
        return added[position]

    def get_slot(self, var, slot_name):
        """The variable named `slot_name` that belongs to the model variable `var`.

        Args:
            var: a variable the optimizer was built for.
            slot_name: the optimizer's own slot ("average"; "slow" for Lookahead,
                "momentum" for LARS), one that `add_slot()` made, or the name of
                a variable of the inner optimizer, such as "momentum".

        Returns:
            A variable of `var`'s shape; averages are float32 or wider.

        Raises:
            ValueError: if `var` is not one of the optimizer's variables, or
                there is no such slot.
        """
        position = self._require_position(var)
        slot = self._find_slot(position, var, slot_name) if isinstance(slot_name, str) else None
        if slot is None:
            names = " or ".join(f"'{name}'" for name in self._slots())
            if hasattr(self, "optimizer"):
                names += " or a slot of the inner optimizer"
            raise ValueError(f"`slot_name` must be {names}, not {slot_name!r}.")
        return slot

    def _find_slot(self, position, var, slot_name):
        slots = self._slots().get(slot_name)
        if slots is None:
            return self._inner_slot(var, slot_name)
        return slots.get(position) if isinstance(slots, dict) else slots[position]

    def _slots(self):
        return {**self._own_slots(), **vars(self).get("_added_slots", {})}

    def _inner_slot(self, var, slot_name):
        """A slot of the inner optimizer, where there is one."""

    @contextlib.contextmanager
    def _naming_unknown(self, variables):
        """Say in one line which variable it is, where Keras meets one that it does not know."""
        try:
            yield
        except Exception:  # in a graph Keras 3.8 fails to write its message
            for variable in variables or ():
                if self.built and self._position(variable) is None:
                    raise ValueError(
                        f"`optimizer` was built for other variables, and not for "
                        f"{describe(variable)}: give each model an optimizer of its own."
                    ) from None
            raise

    def _require_position(self, var):
        position = self._position(var)
        if position is None:
            raise ValueError(
                f"`var` must be a variable this optimizer was built for, not {describe(var)}."
            )
        return position

    # Gradients.

    def minimize(self, loss, var_list, grad_loss=None, name=None, tape=None):
        """Take one step that makes a loss smaller.

        Args:
            loss: function without arguments that returns the loss; on TensorFlow
                also a tensor together with its `tape`, on PyTorch also a tensor.
            var_list: list of variables, or a function that returns them once the
                loss was computed.
            grad_loss: tensor of the loss's shape that weights its elements.
            name: str, name of the operations; the optimizer's when None.
            tape: `tf.GradientTape` that computed `loss`; TensorFlow only.

        Returns:
            The number of updates made.

        Raises:
            ValueError: if `loss` is a tensor without `tape`, or depends on none
                of the variables.
        """
        factor = getattr(self, "loss_scale_factor", None)
        grads, variables = self._gradients(loss, var_list, grad_loss, tape)
        if all(gradient is None for gradient in grads):
            raise ValueError("`loss` must depend on at least one variable of `var_list`.")
        if factor is not None:
            # apply_gradients() divides by it.
            grads = gradients.scaled(grads, factor)
        return self.apply_gradients(list(zip(grads, variables)), name=name)

    def get_gradients(self, loss, params):
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
        grads = self._graph_gradients(loss, params)
        for gradient, variable in zip(grads, params):
            if gradient is None:
                raise ValueError(
                    f"`params` must be variables that `loss` depends on: {describe(variable)} has "
                    "no gradient."
                )
        return grads

    def get_updates(self, loss, params):
        """One step on `loss`, as `get_gradients()` computes its gradients.

        Args:
            loss: scalar tensor.
            params: list of variables.

        Returns:
            List with the number of updates made.
        """
        return [self.apply_gradients(list(zip(self.get_gradients(loss, params), params)))]


def require_replica_context():
    """Raise where TensorFlow's replicas are left: an update has to be taken in each."""
    import tensorflow as tf

    if tf.distribute.in_cross_replica_context():
        raise RuntimeError(
            "apply_gradients() must be called in a replica context: inside strategy.run()."
        )


def graph_gradients(loss, variables):
    """Gradients in a TensorFlow graph."""
    import tensorflow as tf

    if tf.executing_eagerly():
        raise RuntimeError(
            "get_gradients() and get_updates() need a graph, as inside tf.function; in eager code use "
            "tf.GradientTape() or minimize()."
        )
    return tf.gradients(loss, variables)


def describe(variable):
    name = getattr(variable, "path", None) or getattr(variable, "name", None)
    return name if isinstance(name, str) else arguments.describe(variable)
