"""Number, mean and variance of examples, merged exactly."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def merge(groups: np.ndarray) -> np.ndarray:
    """Number, mean and variance of several groups of examples together, by the law of total variance.

    Args:
        groups: array of shape (groups, 3, channels): number, mean and (biased) variance of each group.

    Returns:
        Array of shape (3, channels), float64.
    """
    # In place: access to memory is what costs time here.
    count, mean, variance = (np.array(part, "float64") for part in np.moveaxis(groups, 1, 0))
    # A group without examples has no mean: 0 / 0.
    if not np.all(count > 0):
        mean[count == 0] = variance[count == 0] = 0
    total = count.sum(axis=0)
    count /= np.where(total > 0, total, 1)
    with np.errstate(invalid="ignore", over="ignore"):
        # Infinite ones are refused later.
        center = np.einsum("gc,gc->c", count, mean)
        mean -= center
        mean *= mean
        variance += mean
        return np.stack([total, center, np.einsum("gc,gc->c", count, variance)])


def masked(x: Any, mask: Any, axes: Sequence[int], xp: Any) -> tuple[Any, Any, Any]:
    """Number, mean and variance over `axes` of the elements of `x` that a mask keeps.

    Args:
        x: tensor of floats.
        mask: tensor of the shape of `x` without its last axis; elements where it is 0 do not count.
        xp: functions on tensors.
    """
    keep = xp.cast(mask, "bool")[..., None]
    zeros = xp.zeros_like(x)
    count = xp.sum(xp.where(keep, zeros + 1, zeros), axes, keepdims=True)
    some = xp.where(count > 0, count, xp.ones_like(count))
    mean = xp.sum(xp.where(keep, x, zeros), axes, keepdims=True) / some
    variance = xp.sum(xp.where(keep, (x - mean) ** 2, zeros), axes, keepdims=True) / some
    return count, mean, variance


class Statistics:
    """The moments of what has gone into each layer so far.

    Args:
        widths: list of int, the number of channels of each layer.
        numpy: function that gives the array of a tensor.
    """

    # This many reports wait on the device before they are fetched together.
    _patience = 16

    def __init__(self, widths: list[int], numpy: Callable[[Any], np.ndarray]):
        self._widths, self._numpy = widths, numpy
        self._waiting: list[Any] = []
        # By the layers that a step has called, in this order: the moments of all their channels.
        self._totals: dict[tuple[int, ...], np.ndarray] = {}

    def add(self, report: Any) -> None:
        """Take in what a step reports.

        Args:
            report: vector of floats on any device: the number of calls of layers; the position of each layer called;
                for each channel of each of them the number of examples; then their means; then their variances.
                Several such vectors may be joined.
        """
        self._waiting.append(report)
        if len(self._waiting) >= self._patience:
            self._fetch()

    def _fetch(self):
        found = {layers: [total] for layers, total in self._totals.items()}
        for report in map(self._numpy, self._waiting):
            while len(report):
                start = 1 + int(report[0])
                layers = tuple(map(int, report[1:start]))
                end = start + 3 * sum(self._widths[layer] for layer in layers)
                found.setdefault(layers, []).append(report[start:end].reshape(3, -1))
                report = report[end:]
        self._totals = {layers: merge(np.stack(groups)) for layers, groups in found.items()}
        self._waiting = []

    def totals(self) -> list[np.ndarray]:
        """For each layer an array of shape (3, channels): number, mean and variance."""
        self._fetch()
        groups = [[np.zeros((3, width))] for width in self._widths]
        for layers, total in self._totals.items():
            ends = np.cumsum([self._widths[layer] for layer in layers])
            for layer, part in zip(layers, np.split(total, ends[:-1], axis=1)):
                groups[layer].append(part)
        return [merge(np.stack(group)) for group in groups]
