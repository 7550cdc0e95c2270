"""The pass on TensorFlow, where a forward step changes the model's variables."""

import contextlib
import functools
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from ..values import Held, Undoing, variables_of
from .data import leaves, map_leaves
from .passes import Pass


class TensorFlowPass(Pass):
    __doc__ = Pass.__doc__

    xp: Any = SimpleNamespace(
        broadcast_to=tf.broadcast_to,
        cast=tf.cast,
        concatenate=lambda parts: tf.concat(parts, 0),
        moments=tf.nn.moments,
        ones_like=tf.ones_like,
        reshape=tf.reshape,
        size=lambda x: tf.size(x, tf.int64),
        sum=tf.reduce_sum,
        where=tf.where,
        zeros=tf.zeros,
        zeros_like=tf.zeros_like,
    )

    #: Whether Python conditions and loops in a model become TensorFlow's, as in its fit().
    autograph = False

    def __init__(self, model, weights=None):
        super().__init__(model, weights)
        self._eager = bool(model.run_eagerly)
        # One for each rank of the inputs: for several, TensorFlow would make one for any rank, of which layers know
        # too little.
        self._compiled: dict[tuple, Any] = {}
        self._graph: Any = None
        self._hidden = False
        self._values = self.weights

    def is_tensor(self, value):
        return tf.is_tensor(value)

    @contextlib.contextmanager
    def running(self):
        variables = self.variables()
        with Held(variables, self.backend) as held, held:
            for variable, value in self._values:
                self.backend.write(variable, value)
            yield
            if self.in_fit:
                self._values = [(variable, self.backend.read(variable)) for variable in variables]

    def variables(self) -> list[Any]:
        """All variables that a step may change, except for the metrics of fit()."""
        metrics = [variable for metric in self.model.metrics for variable in metric.variables]
        kept = {id(variable) for variable in metrics} if self.with_loss else ()
        found = [v for v in [*variables_of(self.model), *metrics] if id(v) not in kept]
        return list({id(variable): variable for variable in found}.values())

    @property
    def strategy(self) -> Any:
        """How the steps are spread over devices."""
        return self.model.distribute_strategy if self.in_fit else tf.distribute.get_strategy()

    def record(self, i, count, mean, variance):
        if not tf.executing_eagerly() and tf.compat.v1.get_default_graph() is not self._graph:
            # In a loop, a condition or a tf.function of the model's: no value gets out of there.
            self._hidden = True
        else:
            super().record(i, count, mean, variance)

    def run_step(self, data):
        if self._eager:
            return self._run_eagerly(data)
        ranks = tuple(tf.TensorShape(leaf.shape).rank for leaf in leaves(data) if hasattr(leaf, "shape"))
        first = ranks not in self._compiled
        if first:
            # A new function object: TensorFlow counts traces for each, and warns of many.
            step = functools.partial(self._run)
            self._compiled[ranks] = tf.function(step, reduce_retracing=True, autograph=self.autograph)
        self._hidden = False
        report = self._compiled[ranks](*data)
        if not self._hidden and not (first and len(self._seen) < len(self.layers)):
            return report
        # Layers were not seen, or not where their values can be fetched. Eagerly all are. If the model doesn't use
        # the others at all, its steps stay compiled.
        seen = len(self._seen)
        report = self._run_eagerly(data[:1])
        self._eager = self._hidden or len(self._seen) > seen
        return report

    def _run(self, *data):
        if not tf.executing_eagerly():
            self._graph = tf.compat.v1.get_default_graph()
        strategy = self.strategy
        with self.watching():
            report = strategy.run(self._report, args=(data,))
        return report if strategy.num_replicas_in_sync == 1 else strategy.gather(report, axis=0)

    def _report(self, data):
        return self.forward_and_report(data)[0]

    def _run_eagerly(self, data):
        if self.strategy.num_replicas_in_sync > 1:
            raise RuntimeError(
                "Batch-norm layers in a loop, a condition or a tf.function of their own can't be recalibrated on "
                "several replicas: give `data`, or call update_batch_norm()."
            )
        before = tf.config.functions_run_eagerly()
        with Undoing(lambda: tf.config.run_functions_eagerly(before)) as undoing, undoing:
            tf.config.run_functions_eagerly(True)
            return self._run(*data)

    def train_function(self, iterator):
        batches = self.draw(iterator, self.steps_per_execution())
        with self.running():
            for data in batches:
                self.statistics.add(self.run_step(data))
        return self.model.get_metrics_result() if self.with_loss else {}

    def draw(self, iterator, steps):
        # Keras 3 passes an absent part of the data as an Optional.
        def present(leaf):
            return None if isinstance(leaf, tf.experimental.Optional) else leaf

        return [tuple(map_leaves(present, part) for part in batch) for batch in super().draw(iterator, steps)]
