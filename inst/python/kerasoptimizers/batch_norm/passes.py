"""One pass over data in training mode, watching the batch-norm layers: the part that all backends share."""

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..values import Replaced, assign_all
from .data import map_leaves
from .moments import Statistics, masked


class _Found(threading.local):
    """The results of a step, for each thread: TensorFlow runs replicas in threads."""

    def __init__(self):
        self.moments: list[tuple] = []
        self.calls = 0


class Pass:
    """Forward steps in training mode, and the exact statistics of what goes into the batch-norm layers.

        run = Pass(model)
        run.start()
        with run.running():
            for x in batches:
                run.step(x)
        run.write()

    Or, as an epoch of `fit()`: the model gets `run.train_function` as its train function, and `run.write()` follows.
    Between the steps of `fit()` the model holds its own values.

    Args:
        model: Keras model.
        weights: only for an epoch of `fit()`: list of (variable, array), the values to run with.
    """

    #: Of the model's Keras: its module, its name, the module `private`, and the class whose `call()` all batch-norm
    #: layers share.
    keras: Any
    generation: str
    private: Any
    norm: Any
    #: Of the backend: how variables are read and written, and functions on tensors.
    backend: Any
    xp: Any

    def __init__(self, model: Any, weights: list[tuple[Any, Any]] | None = None):
        self.model, self.in_fit = model, weights is not None
        self.weights = [(v, self.backend.cast(value, self.backend.dtype(v))) for v, value in weights or ()]
        # The user's own train_step may compute anything. Such a model only runs forward, and there are no logs.
        self.with_loss = self.in_fit and type(model).train_step is self.keras.Model.train_step
        self.layers = self.layers_of(model)
        self.positions = {id(layer): i for i, layer in enumerate(self.layers)}
        self.widths = [int(np.prod(layer.moving_mean.shape)) for layer in self.layers]
        wide = any(self.backend.dtype(layer.moving_mean) == "float64" for layer in self.layers)
        self._dtype = "float64" if wide else "float32"
        self._found = _Found()
        self._seen: set[int] = set()

    @classmethod
    def layers_of(cls, model: Any) -> list[Any]:
        """The batch-norm layers that training updates, at any depth: frozen ones run in inference mode."""
        layers = {id(layer): layer for layer in cls.private.layers_of(model)}.values()
        norms = [layer for layer in layers if isinstance(layer, cls.norm) and layer.trainable]
        return [layer for layer in norms if getattr(layer, "moving_mean", None) is not None]

    def start(self) -> None:
        """Begin anew: from the values that the model holds now, with nothing found yet."""
        self.statistics = Statistics(self.widths, self.backend.numpy)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Steps are only run inside of this: at its end the model holds its own values."""
        yield

    # Watching the layers.

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """While it lasts, calls of the layers are recorded."""
        with Replaced() as replaced, replaced:
            for target, name, around in self.replacements:
                replaced.put(target, name, around)
            yield

    @functools.cached_property
    def replacements(self) -> list[tuple[Any, str, Callable]]:
        """The methods to replace in the layers: (object, name, function that makes the new one from the old one)."""
        # The class's, so that a subclass may do something to the inputs before it calls this.
        found: list[tuple[Any, str, Callable]] = [(self.norm, "call", self._watched)]
        for layer in self.layers:
            if type(layer).call is not self.norm.call:
                found.append((layer, "call", functools.partial(self._watched_whole, layer)))
            # Batch renormalization would normalize by statistics of other weights.
            if getattr(layer, "renorm", False):
                found.append((layer, "renorm", lambda _: False))
        return found

    def _watched(self, call):
        @functools.wraps(call)
        def watched(layer, inputs, training=None, mask=None):
            outputs = call(layer, inputs, training=training, mask=mask)
            if id(layer) in self.positions:
                self._see(layer, inputs, training, mask)
            return outputs

        return watched

    def _watched_whole(self, layer, call):
        """Around the `call()` of a subclass that may normalize by itself."""

        @functools.wraps(call)
        def watched(inputs, *args, **kwargs):
            before = self._found.calls
            outputs = call(inputs, *args, **kwargs)
            if self._found.calls == before:
                training = kwargs.get("training", args[0] if args else None)
                self._see(layer, inputs, training, kwargs.get("mask"))
            return outputs

        return watched

    def _see(self, layer, inputs, training, mask):
        """Record a call of a layer; mean and variance if it is one in training mode."""
        i = self.positions[id(layer)]
        self._seen.add(i)
        self._found.calls += 1
        is_tensor = self.is_tensor(training)
        if not is_tensor and not training:
            return None
        count, mean, variance = self.moments(layer, inputs, mask)
        if is_tensor:
            count = self.xp.cast(count, self._dtype) * self.xp.cast(training, self._dtype)
        self.record(i, count, mean, variance)
        return mean, variance

    def moments(self, layer: Any, inputs: Any, mask: Any) -> tuple[Any, Any, Any]:
        """Number, mean and variance of the examples that go into a layer."""
        x = self.xp.cast(inputs, self._dtype)
        rank = len(x.shape)
        channels = {axis % rank for axis in self.channel_axes(layer)}
        axes = [axis for axis in range(rank) if axis not in channels]
        if mask is not None:
            return masked(x, mask, axes, self.xp)
        return self.xp.size(x) // self.widths[self.positions[id(layer)]], *self.xp.moments(x, axes)

    def channel_axes(self, layer: Any) -> list[int]:
        """The axes that a layer does not reduce."""
        return [layer.axis]

    def record(self, i: int, count: Any, mean: Any, variance: Any) -> None:
        """Take note of a call of layer number `i`."""
        self._found.moments.append((i, count, mean, variance))

    def report(self, found: list[tuple]) -> Any:
        """A vector of what was recorded, as `Statistics` takes it."""
        if not found:
            return self.xp.zeros((0,), self._dtype)
        layers, *moments = zip(*found)
        head = self.head(layers)
        vectors = [self.vector(i, part) for parts in moments for i, part in zip(layers, parts)]
        return self.xp.concatenate([head, *vectors])

    def head(self, layers: tuple[int, ...]) -> Any:
        """Which layers were called, as a vector."""
        return self.xp.cast(np.array([len(layers), *layers]), self._dtype)

    def vector(self, i: int, part: Any) -> Any:
        """Moments of a layer, or one number, as a vector of its channels."""
        width = self.widths[i]
        part = self.xp.cast(part, self._dtype)
        if len(part.shape) == 0:
            return self.xp.broadcast_to(part, (width,))
        return part if len(part.shape) == 1 else self.xp.reshape(part, (width,))

    # The steps.

    def step(self, x: Any) -> None:
        """Run a training-mode forward step on a batch.

        Args:
            x: the model's input, arrays or tensors, batch first.
        """
        self.statistics.add(self.run_step((map_leaves(self.to_tensor, x),)))

    def run_step(self, data: tuple) -> Any:
        """Run a step and return its report; `data` is (x,), or (x, y, sample_weight) for loss and metrics."""
        raise NotImplementedError

    def forward_and_report(self, data: tuple) -> tuple[Any, Any]:
        """Report and logs of a step; in its trace, where there is one."""
        self._found.moments = []
        x, *targets = data
        outputs = self.forward(x)
        logs = self.update_metrics(x, outputs, *targets) if targets else {}
        found, self._found.moments = self._found.moments, []
        return self.report(found), logs

    def forward(self, x: Any) -> Any:
        """The model's outputs, in training mode."""
        raise NotImplementedError

    def update_metrics(self, x: Any, outputs: Any, y: Any, sample_weight: Any) -> Any:
        """Update the loss and the metrics as `fit()` does."""
        raise NotImplementedError

    @staticmethod
    def compiled(model: Any) -> list[Any]:
        """The attributes of a model that `compile()` makes anew."""
        raise NotImplementedError

    def is_tensor(self, value: Any) -> bool:
        """Whether it is a tensor of the backend."""
        raise NotImplementedError

    def to_tensor(self, leaf: Any) -> Any:
        """An array that came in, as the model gets it."""
        if leaf is None or self.is_tensor(leaf):
            return leaf
        if hasattr(leaf, "detach"):
            leaf = leaf.detach().cpu()
        array = leaf.toarray() if hasattr(leaf, "toarray") else np.asarray(leaf)
        if array.dtype.kind == "f" and array.dtype.itemsize > 4:
            array = array.astype(self.keras.backend.floatx())
        return array

    # The pass as an epoch of fit().

    def train_function(self, *args: Any) -> Any:
        """The train function that `fit()` calls: forward steps and metrics only."""
        raise NotImplementedError

    def steps_per_execution(self) -> int:
        """The number of batches that `fit()` gives to one call of the train function."""
        return self.model.steps_per_execution

    def draw(self, iterator: Any, steps: int) -> list[tuple]:
        """Up to `steps` batches for `run_step()`; StopIteration if there is none left."""
        batches = list(itertools.islice(iterator, steps))
        if not batches:
            raise StopIteration
        batches = [self.keras.utils.unpack_x_y_sample_weight(batch) for batch in batches]
        return batches if self.with_loss else [batch[:1] for batch in batches]

    # The result.

    def not_finite(self) -> Any:
        """The first layer with inputs that were not finite, or None."""
        for layer, total in zip(self.layers, self.statistics.totals()):
            count, *moments = total.reshape(3, *layer.moving_mean.shape)
            if not all(np.isfinite(moment[count > 0]).all() for moment in moments):
                return layer
        return None

    def has_finite_weights(self) -> bool:
        """Whether what the model trains is finite."""
        values = (self.backend.numpy(variable) for variable in self.model.trainable_variables)
        return all(np.isfinite(np.asarray(value, "float64")).all() for value in values)

    def write(self) -> None:
        """Set the statistics of all layers that a step has used."""
        pairs = []
        for layer, total in zip(self.layers, self.statistics.totals()):
            count, mean, variance = total.reshape(3, *layer.moving_mean.shape)
            if not np.any(count > 0):
                continue
            deviation = np.sqrt(variance + layer.epsilon)
            found = {"moving_mean": mean, "moving_variance": variance}
            # Those of batch renormalization.
            found.update(moving_stddev=deviation, renorm_mean=mean, renorm_stddev=deviation)
            for name, value in found.items():
                variable = getattr(layer, name, None)
                if variable is not None:
                    # A mask can leave a channel without any example: that one keeps its statistics.
                    pairs.append((variable, np.where(count > 0, value, self.backend.numpy(variable))))
        assign_all(pairs, self.backend)
