"""The pass on JAX: a pure, compiled function of the variables' values."""

import contextlib
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import keras
from jax.experimental import io_callback

from .stateless import StatelessPass


class JaxPass(StatelessPass):
    __doc__ = StatelessPass.__doc__

    xp: Any = SimpleNamespace(
        broadcast_to=keras.ops.broadcast_to,
        cast=keras.ops.cast,
        concatenate=keras.ops.concatenate,
        # Those of older versions of Keras are less precise.
        moments=lambda x, axes: (jnp.mean(x, tuple(axes)), jnp.var(x, tuple(axes))),
        ones_like=keras.ops.ones_like,
        reshape=keras.ops.reshape,
        size=lambda x: x.size,
        sum=keras.ops.sum,
        where=keras.ops.where,
        zeros=keras.ops.zeros,
        zeros_like=keras.ops.zeros_like,
    )

    def __init__(self, model, weights=None):
        super().__init__(model, weights)
        self._compiled = self._pure_step if model.run_eagerly else jax.jit(self._pure_step)
        self._traced = self._calls_back = False
        self._heard: list[Any] = []
        self._values: list[Any] = []

    def start(self):
        super().start()
        given = {id(variable): value for variable, value in self.weights}
        # Now: while a train function of Keras's runs, the variables have no values.
        self._values = [variable.value for variable in self.state]
        for i, variable in enumerate(self.state):
            if id(variable) in given:
                self._values[i] = jax.device_put(given[id(variable)], variable.value.sharding)

    @contextlib.contextmanager
    def running(self):
        try:
            yield
        finally:
            if not self.in_fit:
                self._values = []

    def _pure_step(self, values, data):
        return self.run_from(list(zip(self.state, values)), data)

    def run_step(self, data):
        result = self._run(data)
        if not self._traced and len(self._seen) < len(self.layers):
            # A function in the model that JAX has traced before is not run again, unless JAX forgets it.
            jax.clear_caches()
            result = self._run(data)
        self._traced = True
        for report in self._heard:
            self.statistics.add(report)
        report, self._logs, changed = result
        for i, value in changed.items():
            self._values[i] = value
        return report

    def _run(self, data):
        self._heard.clear()
        if not self._calls_back:
            try:
                return self._compiled(self._values, data)
            except jax.errors.UnexpectedTracerError:
                # Layers inside of jax.checkpoint(), or of a loop: from there values only get out by calls of Python.
                self._calls_back = True
                jax.clear_caches()
        result = self._compiled(self._values, data)
        jax.effects_barrier()
        return result

    def record(self, i, count, mean, variance):
        if self._calls_back:
            io_callback(self._heard.append, None, self.report([(i, count, mean, variance)]))
        else:
            super().record(i, count, mean, variance)

    def train_function(self, state, iterator):
        # The state of fit() comes back as it was, except for the metrics.
        *state, metrics = state
        with self.running():
            if self.with_loss:
                self._values[self.first_metric :] = metrics
            for data in self.draw(iterator, self.steps_per_execution()):
                self.statistics.add(self.run_step(data))
            if self.with_loss:
                metrics = self._values[self.first_metric :]
        return self._logs, (*state, metrics)
