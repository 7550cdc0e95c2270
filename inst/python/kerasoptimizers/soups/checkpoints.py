"""Which of a folder's checkpoints are averaged: the newest, or the best."""

import math
import os
import re
import warnings
from collections.abc import Sequence
from typing import Any

from .. import arguments
from ..notices import KerasOptimizersWarning
from . import arithmetic
from .sources import is_tensorflow_checkpoint

_ENDINGS = (".keras", ".h5", ".hdf5")
_NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?inf|nan)"
_LOWER = re.compile(r"loss|error|(^|_)(mae|mse|rmse|msle|mape|nll)(_|$)|entropy|divergence|perplexity|deviance")
_HIGHER = re.compile(r"acc|auc|precision|recall|(^|_)f\d?(_|$)|f1|f_?beta|fmeasure|iou|dice|r2|similarity")


class Checkpoints:
    """The checkpoints in a folder.

    Args:
        directory, metric, mode, pattern: as for `average_checkpoints()`.
        tensorflow: bool, whether checkpoints in TensorFlow's format count.

    Attributes:
        directory: str.
        names: list of the files' names, newest first.
        paths: list of their paths.
    """

    def __init__(self, directory: Any, metric: Any, mode: str, pattern: str | None, tensorflow: bool):
        self.directory = directory = arguments.path("directory", directory)
        if not callable(metric):
            arguments.optional(_metric, "metric", metric)
        arguments.choice("mode", mode, ("auto", "min", "max"))
        arguments.optional(arguments.string, "pattern", pattern)
        self._metric = metric
        self._higher = None if metric is None else higher_is_better(metric, mode)
        if not os.path.isdir(directory):
            raise ValueError(f"`directory` must be a folder, and '{directory}' is none.")
        matches = re.compile(as_expression(pattern, metric) if pattern is not None else ".*", re.DOTALL)
        self._values: dict[str, float] = {}
        entries = [name for name in os.listdir(directory) if not name.startswith(".")]
        names = []
        for name in sorted({n for n in map(lambda n: self._checkpoint(n, tensorflow), entries) if n}, key=_naturally):
            match = matches.fullmatch(name)
            if match is None:
                continue
            names.append(name)
            if isinstance(metric, str):
                value = match["metric"] if pattern is not None else value_in_name(name, metric)
                if value is not None:
                    self._values[name] = float(value)
        if not names:
            fitting = "" if pattern is None else f" of the pattern '{pattern}'"
            raise ValueError(f"`directory` must hold checkpoints, and '{directory}' holds none{fitting}.")
        # Of those written in the same moment, the one that is last by name is the newest.
        self.names = sorted(reversed(names), key=self._time, reverse=True)
        self.paths = [os.path.join(directory, name) for name in self.names]

    def _checkpoint(self, name, tensorflow):
        """What a file of the folder is a checkpoint by the name of; None if it is none."""
        if name.endswith(_ENDINGS) and os.path.isfile(os.path.join(self.directory, name)):
            return name
        if tensorflow and name.endswith(".index"):
            return name.removesuffix(".index")
        if tensorflow and is_tensorflow_checkpoint(os.path.join(self.directory, name)):
            return name
        return None

    def _time(self, name):
        path = os.path.join(self.directory, name)
        return os.stat(path if os.path.exists(path) else f"{path}.index").st_mtime_ns

    def chosen(self, n: int, scores: Sequence[float] | None = None) -> tuple[list[str], list[float] | None]:
        """The files to average, and their values of the metric.

        Args:
            n: int >= 1, how many.
            scores: values of the metric in the order of `names`, where it is a function.
        """
        if self._metric is None:
            return self._first(self.names, n), None
        if scores is None:
            names = [name for name in self.names if name in self._values]
            if not names:
                raise ValueError(
                    f"`metric` must be in the names of the checkpoints, and '{self._metric}' with a number after it is "
                    f"not in '{self.names[0]}': give `pattern`, the `filepath` that they were written with."
                )
            if len(names) < len(self.names):
                missing = next(name for name in self.names if name not in self._values)
                raise ValueError(
                    f"`metric` must be in the names of all checkpoints, and '{self._metric}' with a number after it is "
                    f"not in '{missing}'."
                )
            scores = [self._values[name] for name in names]
        names = list(self.names)
        sign = 1.0 if self._higher else -1.0
        # Of equally good ones, the newest.
        order = [len(names) - 1 - i for i in arithmetic.ranked([sign * score for score in reversed(scores)])]
        if not order:
            raise ValueError("`metric` must be a number for at least one checkpoint, and is NaN for all.")
        order = self._first(order, n)
        return [names[i] for i in order], [float(scores[i]) for i in order]

    def _first(self, found, n):
        if len(found) < n:
            warnings.warn(
                f"`n` is {n}, and '{self.directory}' has {len(found)} checkpoints: the mean is of those.",
                KerasOptimizersWarning,
                stacklevel=4,
            )
        return found[:n]


def _metric(name, value):
    if not isinstance(value, str) or not value:
        arguments.refuse(name, "the name of a metric or a function of a model", value)
    return value


def _naturally(name):
    """A key that sorts "model-9" before "model-10"."""
    return [(int(part), "") if part.isdigit() else (math.inf, part) for part in re.split(r"(\d+)", name) if part]


def higher_is_better(metric: Any, mode: str) -> bool:
    """Whether a higher value of a metric is better.

    Raises:
        ValueError: in one line, where `mode` is "auto" and the metric's name doesn't say.
    """
    if mode != "auto":
        return mode == "max"
    if callable(metric):
        return True
    name = metric.lower()
    higher, lower = _HIGHER.search(name), _LOWER.search(name)
    if bool(higher) == bool(lower):
        raise ValueError(f"`mode` must be 'min' or 'max' for the metric '{metric}', whose name doesn't say which.")
    return bool(higher)


def as_expression(pattern: str, metric: Any) -> str:
    """A regular expression for the names of files that were written with a `filepath`.

    Raises:
        ValueError: in one line, if the metric is not in the pattern.
    """
    pattern = os.path.basename(pattern)
    found, expression, at = False, "", 0
    for field in re.finditer(r"\{(\w+)(?:![rsa])?(?::[^{}]*)?\}", pattern):
        expression += re.escape(pattern[at : field.start()])
        wanted = field[1] == metric and not found
        expression += f" *(?P<metric>{_NUMBER})" if wanted else f" *{_NUMBER}"
        found, at = found or wanted, field.end()
    if isinstance(metric, str) and not found:
        raise ValueError(f"`pattern` must hold the metric, as in '{{{metric}:.3f}}', and is '{pattern}'.")
    return expression + re.escape(pattern[at:])


def value_in_name(name: str, metric: str) -> str | None:
    """The number that follows a metric's name in the name of a file, after one of "=:_- " or none."""
    stem = re.sub(r"(\.weights)?\.(keras|h5|hdf5)$", "", name)
    match = re.search(rf"(?<![A-Za-z0-9_]){re.escape(metric)}[=:_\- ]?{_NUMBER}", stem)
    if match is None:
        match = re.search(rf"(?<![A-Za-z0-9]){re.escape(metric)}[=:_\- ]?{_NUMBER}", stem)
    return match[1] if match is not None else None
