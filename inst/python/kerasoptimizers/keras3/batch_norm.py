"""Exact batch-norm statistics for Keras 3: the passes of its three backends."""

import inspect
from types import SimpleNamespace

import keras
import numpy as np

from .. import batch_norm


class Keras3Pass:
    """What the passes of all backends share."""

    _keras = keras
    _generation = "Keras 3"
    _layer_type = keras.layers.BatchNormalization

    def __init__(self, model):
        super().__init__(model)
        takes_training = "training" in inspect.signature(model.call).parameters
        self._arguments = {"training": True} if takes_training else {}

    _inner: tuple[str, ...] = ("_moments",)

    def _watched(self, i, layer):
        watched = super()._watched(i, layer)
        # Moments of several replicas come out of less precise sums.
        if not hasattr(layer, "_moments") or getattr(layer, "synchronized", False):
            return watched
        moments, xp = layer._moments, self._xp

        def watched_moments(inputs, mask):
            if mask is None:
                # Keras's own, but on PyTorch (and in older versions on JAX) less precise.
                mean, variance = xp.moments(inputs, layer._reduction_axes)
                count = None
            else:
                mean, variance = moments(inputs, mask)
                weights = xp.cast(self._spread(mask, inputs), self._dtype)
                count = xp.sum(weights, layer._reduction_axes)
            self._record(i, inputs, mean, variance, count)
            return mean, variance

        return {**watched, "_moments": watched_moments}

    @staticmethod
    def _native(leaf):
        return keras.ops.is_tensor(leaf)

    def _forward(self, x):
        return self.model(x, **self._arguments)

    def _update_metrics(self, x, y, y_pred, sample_weight):
        model = self.model
        loss = model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
        for metric in model.metrics:
            if metric.name == "loss":
                examples = keras.ops.shape(batch_norm.leaves(x)[0])[0]
                metric.update_state(loss, sample_weight=examples)
        return model.compute_metrics(x, y, y_pred, sample_weight)

    @staticmethod
    def _read(variable):
        return keras.ops.convert_to_numpy(variable).copy()

    @staticmethod
    def _write(variable, value):
        variable.assign(value)


def _functions(**native):
    """Functions on tensors: a backend's own where a call of Keras's costs more than it does."""
    ops = keras.ops
    functions = {
        "broadcast_to": ops.broadcast_to,
        "cast": ops.cast,
        "concatenate": ops.concatenate,
        "expand_dims": ops.expand_dims,
        "ones_like": ops.ones_like,
        "reshape": ops.reshape,
        "shape": ops.shape,
        "sum": lambda x, axes: ops.sum(x, axes, keepdims=True),
        "where": ops.where,
        "zeros_like": ops.zeros_like,
    }
    return SimpleNamespace(**{**functions, **native})


def _tensorflow():
    import tensorflow as tf

    class TensorFlowPass(Keras3Pass, batch_norm.TensorFlowPass):
        _xp = _functions(moments=tf.nn.moments, size=lambda x: tf.size(x, tf.int64))

        def _variables(self):
            model = self.model
            variables = model.trainable_variables + model.non_trainable_variables
            if not self._with_loss:
                variables += model.metrics_variables
            return [v.value for v in variables]

        def _steps_per_execution(self):
            return self.model.steps_per_execution

        def _next(self, iterator, steps):
            # Keras passes an absent part of the data as an Optional.
            def present(leaf):
                return None if isinstance(leaf, tf.experimental.Optional) else leaf

            return [
                tuple(batch_norm.map_leaves(present, part) for part in batch)
                for batch in super()._next(iterator, steps)
            ]

    return TensorFlowPass


class StatelessPass(Keras3Pass, batch_norm.Pass):
    """A pass whose forward steps leave the model's variables alone: writes go to a scope."""

    def _run(self, values, data, with_loss):
        """A step from given values of variables.

        Args:
            values: list of (variable, value), in place of the variables' own values.
            data: (x,), or (x, y, sample_weight) for the loss.
            with_loss: bool, whether to update the metrics.

        Returns:
            (rows, logs, dict of the values that have changed, by the variable's number in `_state`)
        """
        x, *targets = data
        logs = {}
        with keras.StatelessScope(state_mapping=values, collect_losses=with_loss) as scope:
            before = [scope.get_current_value(v) for v in self._state]
            with self._watching():
                self._start()
                y_pred = self._forward(x)
            rows = self._rows()
            if with_loss:
                y, sample_weight = targets
                logs = self._update_metrics(x, y, y_pred, sample_weight)
        after = [scope.get_current_value(v) for v in self._state]
        changed = {
            i: new
            for i, (old, new) in enumerate(zip(before, after))
            if new is not old and i not in self._statistics
        }
        return rows, logs, changed

    def __enter__(self):
        # What a step hands to the next: seeds, metrics, and state of other layers.
        model = self.model
        self._state = model.trainable_variables + model.non_trainable_variables
        statistics = {id(v) for layer in self.layers for v in layer.non_trainable_variables}
        self._statistics = {i for i, v in enumerate(self._state) if id(v) in statistics}
        self._metrics = len(self._state)
        if self._with_loss:
            self._state += model.metrics_variables
        return super().__enter__()


def _jax():
    import jax
    import jax.numpy as jnp

    class JaxPass(StatelessPass):
        _xp = _functions(
            moments=lambda x, axes: (jnp.mean(x, tuple(axes)), jnp.var(x, tuple(axes))),
            size=lambda x: x.size,
        )
        _to_numpy = staticmethod(np.asarray)

        def __init__(self, model):
            super().__init__(model)
            self._compiled = self._pure_step
            if not model.run_eagerly:
                self._compiled = jax.jit(self._pure_step, static_argnums=2)

        def _pure_step(self, values, data, with_loss):
            return self._run(list(zip(self._state, values)), data, with_loss)

        def __enter__(self):
            super().__enter__()
            weights = {id(v): weight for v, weight in self._weights}

            def start(variable):
                if id(variable) not in weights:
                    return variable.value
                weight = jnp.asarray(weights[id(variable)], variable.value.dtype)
                return jax.device_put(weight, variable.value.sharding)

            self._values = [start(v) for v in self._state]
            return self

        def __exit__(self, *error):
            self._values = None
            return super().__exit__(*error)

        def _step(self, data, with_loss):
            rows, self._logs, changed = self._compiled(self._values, data, with_loss)
            for i, value in changed.items():
                self._values[i] = value
            return rows

        def train_function(self, state, iterator):
            # The state of fit() comes back as it was, but for the metrics.
            *state, metrics = state
            if self._with_loss:
                self._values[self._metrics :] = metrics
            self._logs = {}
            for data in self._next(iterator, self.model.steps_per_execution):
                self._keep(self._step(data, self._with_loss))
            if self._with_loss:
                metrics = self._values[self._metrics :]
            return self._logs, (*state, metrics)

    return JaxPass


def _torch():
    import torch

    def moments(x, axes):
        # torch.var_mean() takes several times as long on CPUs.
        mean = torch.mean(x, axes, keepdim=True)
        variance = torch.mean(torch.square(x - mean), axes)
        return torch.reshape(mean, variance.shape), variance

    class TorchPass(StatelessPass):
        _xp = _functions(
            cast=lambda x, dtype: x.to(getattr(torch, dtype)),
            concatenate=torch.cat,
            moments=moments,
            reshape=torch.reshape,
            size=torch.numel,
        )

        def _full(self, i, value):
            # Mostly the same in each step.
            if (i, value) not in self._filled:
                device = self.layers[i].moving_mean.value.device
                dtype = getattr(torch, self._dtype)
                filled = torch.full((self._widths[i],), value, dtype=dtype, device=device)
                self._filled[i, value] = filled
            return self._filled[i, value]

        @staticmethod
        def _to_numpy(rows):
            return rows.cpu().numpy()

        def __enter__(self):
            model = self.model
            self._filled = {}
            self._modes = [(module, module.training) for module in model.modules()]
            self._buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
            self._held = [value for _, value in self._buffers]
            # What is not Keras's in the model goes by PyTorch's flag, as in fit().
            model.train()
            super().__enter__()
            numbers = {id(v): i for i, v in enumerate(self._state)}
            self._values = {
                numbers[id(v)]: keras.ops.convert_to_tensor(weight, v.dtype)
                for v, weight in self._weights
                if id(v) in numbers
            }
            return self

        def __exit__(self, *error):
            for module, training in self._modes:
                module.training = training
            self._fill(value for _, value in self._buffers)
            self._modes = self._buffers = self._held = self._values = ()
            return super().__exit__(*error)

        def _fill(self, values):
            with torch.no_grad():
                for (buffer, _), value in zip(self._buffers, values):
                    buffer.copy_(value)

        def _to_tensor(self, leaf):
            leaf = super()._to_tensor(leaf)
            return leaf if leaf is None else keras.ops.convert_to_tensor(leaf)

        def _step(self, data, with_loss):
            with torch.no_grad():
                values = [(self._state[i], value) for i, value in self._values.items()]
                rows, _, changed = self._run(values, data, with_loss)
                for i, value in changed.items():
                    if i < self._metrics:
                        self._values[i] = value
                    else:
                        self._state[i].assign(value)
            return rows

        def train_function(self, batches):
            # Buffers are PyTorch's own state, such as statistics of its batch-norm modules.
            try:
                self._fill(self._held)
                for data in self._next(batches, len(batches)):
                    self._keep(self._step(data, self._with_loss))
                self._held = [buffer.clone() for buffer, _ in self._buffers]
            finally:
                self._fill(value for _, value in self._buffers)
            return self.model.get_metrics_result() if self._with_loss else {}

    return TorchPass


_PASSES = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}
_made: dict[str, type] = {}


def pass_type():
    """The class of passes for the backend in use."""
    backend = keras.backend.backend()
    if backend not in _PASSES:
        raise RuntimeError(
            f"Batch-norm statistics need the Keras backend {', '.join(_PASSES)}, not {backend}: "
            "set KERAS_BACKEND before Keras is imported."
        )
    if backend not in _made:
        _made[backend] = _PASSES[backend]()
    return _made[backend]


update_batch_norm = batch_norm.updater(pass_type)
