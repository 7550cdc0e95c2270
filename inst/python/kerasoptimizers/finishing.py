"""The ends of a training, in one line each: averages in the model for good or for a while, and their batch norm."""

import contextlib
import functools
import warnings
import weakref
from collections.abc import Iterable
from typing import Any

from . import arguments, batch_norm
from .generation import built_model, module_for
from .notices import KerasOptimizersWarning
from .optimizer import averaging_optimizer
from .values import Held, others_of


def put(model: Any, variables: list[Any], values: Iterable[Any], data: Any = None, batch_size: int = 32) -> None:
    """Set variables of a model to values, and with data recompute its batch-norm statistics: all of it, or nothing.

    Args:
        model: Keras model of either generation.
        variables: list of variables.
        values: for each its value; they may be made as they are asked for.
        data, batch_size: as for `update_batch_norm()`, or None.
    """
    ours = module_for(model)
    backend = ours.AveragingOptimizer.backend
    statistics = [] if data is None else others_of(model, variables)
    with Held([*variables, *statistics], backend) as held, held:
        for variable, value in zip(variables, values):
            backend.write(variable, backend.cast(value, backend.dtype(variable)))
        _recalibrate(model, data, batch_size)
        held.keep()


def _recalibrate(model, data, batch_size):
    if data is not None:
        batch_norm.recalibrate_with(_pass_type(model), model, data, batch_size)


def _pass_type(model):
    return module_for(model).batch_norm.pass_type()


def warn_of_statistics(model: Any, action: str) -> None:
    """Say that a model's batch-norm statistics do not belong to its weights, if it has any that are not frozen."""
    if _pass_type(model).layers_of(model):
        warnings.warn(
            f"{action}: the batch-norm statistics of '{model.name}' belong to other weights. Give `data`, or call "
            "update_batch_norm(model, x).",
            KerasOptimizersWarning,
            stacklevel=3,
        )


def assign_average_vars(model: Any, data: Any = None, batch_size: int = 32) -> None:
    """Put the averages into a model, and recompute its batch-norm statistics: what ends a training.

    As `model.optimizer.assign_average_vars(model.variables)`, also in mixed precision, and then `update_batch_norm()`.

    Args:
        model: Keras model of either generation, compiled with an averaging optimizer.
        data: inputs to recompute batch-norm statistics with, as `update_batch_norm()` takes them, but no generator.
            None leaves the statistics as they are: those of the weights before.
        batch_size: int >= 1, examples in a batch of `data`.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described, if there is no average yet, or if
            weights and averages are swapped. The model then stays as it was, even if the pass over `data` fails.

    References:
        Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization, arXiv 1803.05407.
    """
    ours, batch_size = module_for(model), arguments.whole("batch_size", batch_size, 1)
    optimizer = averaging_optimizer(model)
    batch_norm.require_data(data, batch_size)
    averages = optimizer.averages
    averages.require("assign_average_vars")
    own = [variable for variable in model.variables if averages.position(variable) is not None]
    with Held([*own, *others_of(model, own)], ours.AveragingOptimizer.backend) as held, held:
        optimizer.assign_average_vars(model.variables)
        _recalibrate(model, data, batch_size)
        held.keep()


def leaves_statistics(model: Any) -> bool:
    """Whether a model has batch-norm statistics, not frozen, that its averages do not cover."""
    own = averaging_optimizer(model).averages
    return any(own.position(layer.moving_mean) is None for layer in _pass_type(model).layers_of(model))


class averages(contextlib.ExitStack):  # noqa: N801  `with averages(model):` reads like a function
    """Show a model's averages for a while; the weights are back after the `with`, bit for bit, whatever happens.

        with averages(model):
            model.save("averages.keras")
            model.evaluate(x, y)

    In it the model can't be trained. Within another one, or with `SwapAverages` at work, it changes nothing.

    Args:
        model: Keras model of either generation, compiled with an averaging optimizer.
        data: inputs to recompute batch-norm statistics with, as `update_batch_norm()` takes them, but no generator; the
            old statistics are back after the `with`, too. None leaves those of the weights.
        batch_size: int >= 1, examples in a batch of `data`.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described, or if there is no average yet.

    References:
        Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization, arXiv 1803.05407.
    """

    def __init__(self, model: Any, data: Any = None, batch_size: int = 32):
        super().__init__()
        self._ours, self._batch_size = module_for(model), arguments.whole("batch_size", batch_size, 1)
        averaging_optimizer(model)
        batch_norm.require_data(data, self._batch_size)
        self._model, self._data = model, data

    def __enter__(self):
        model = self._model
        own = averaging_optimizer(model).averages
        own.require("averages")
        built_model(model)
        others = others_of(model, own.variables)
        held = Held(others if self._data is not None else [], own.backend)

        def undo(*error):
            own.let_go(self)
            held.undo()

        for _ in range(2):  # as for values.Undoing
            self.push(undo)
        try:
            then = functools.partial(self._ours.private.forget_values, weakref.ref(model))
            own.hold(self, others, then)
            _recalibrate(model, self._data, self._batch_size)
        except BaseException:
            self.close()
            raise
        return self

    # Python's own, so that an interrupt can't come before its first line. R calls it without arguments.
    __exit__ = functools.partialmethod(contextlib.ExitStack.__exit__, None, None, None)
