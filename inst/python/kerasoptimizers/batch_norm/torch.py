"""The pass on PyTorch, where nothing is compiled."""

import contextlib
from types import SimpleNamespace
from typing import Any

import keras
import torch

from ..values import Undoing
from .stateless import StatelessPass


def moments(x: torch.Tensor, axes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance: on CPUs several times as fast as torch.var_mean()."""
    mean = torch.mean(x, axes, keepdim=True)
    variance = torch.mean((x - mean).square_(), axes)
    return torch.reshape(mean, variance.shape), variance


def cast(x: Any, dtype: str) -> torch.Tensor:
    return x.to(getattr(torch, dtype)) if torch.is_tensor(x) else keras.ops.cast(x, dtype)


class TorchPass(StatelessPass):
    __doc__ = StatelessPass.__doc__

    # PyTorch's functions where calls through Keras cost more than the work itself.
    xp: Any = SimpleNamespace(
        broadcast_to=keras.ops.broadcast_to,
        cast=cast,
        concatenate=torch.cat,
        moments=moments,
        ones_like=torch.ones_like,
        reshape=torch.reshape,
        size=torch.numel,
        sum=keras.ops.sum,
        where=torch.where,
        zeros=keras.ops.zeros,
        zeros_like=torch.zeros_like,
    )

    def __init__(self, model, weights=None):
        super().__init__(model, weights)
        self._heads: dict[tuple[int, ...], torch.Tensor] = {}
        self._counts: dict[tuple[int, int], torch.Tensor] = {}

    def start(self):
        super().start()
        positions = {id(variable): i for i, variable in enumerate(self.state)}
        self._values = {positions[id(v)]: value for v, value in self.weights if id(v) in positions}
        self._buffers: list[torch.Tensor] = []

    @contextlib.contextmanager
    def running(self):
        model = self.model
        modes = [(module, module.training) for module in model.modules()]
        buffers = list(model.buffers())
        own = [buffer.clone() for buffer in buffers]

        def undo():
            for module, training in modes:
                module.training = training
            _fill(buffers, own)

        with Undoing(undo) as undoing, undoing:
            # PyTorch's own layers in the model look at its flag, and keep their state in buffers.
            model.train()
            _fill(buffers, self._buffers)
            yield
            self._buffers = [buffer.clone() for buffer in buffers] if self.in_fit else []

    def to_tensor(self, leaf):
        leaf = super().to_tensor(leaf)
        return leaf if leaf is None else keras.ops.convert_to_tensor(leaf)

    # These are the same in each step, mostly.

    def head(self, layers):
        if layers not in self._heads:
            self._heads[layers] = super().head(layers)
        return self._heads[layers]

    def vector(self, i, part):
        if not isinstance(part, int):
            return super().vector(i, part)
        if (i, part) not in self._counts:
            self._counts[i, part] = super().vector(i, part)
        return self._counts[i, part]

    @torch.no_grad()
    def run_step(self, data):
        report, _, changed = self.run_from([(self.state[i], value) for i, value in self._values.items()], data)
        for i, value in changed.items():
            if i < self.first_metric:
                self._values[i] = value
            else:
                self.state[i].assign(value)
        return report

    def train_function(self, batches):
        with self.running():
            for data in self.draw(batches, len(batches)):
                self.statistics.add(self.run_step(data))
        return self.model.get_metrics_result() if self.with_loss else {}


@torch.no_grad()
def _fill(buffers, values):
    for buffer, value in zip(buffers, values):
        buffer.copy_(value)
