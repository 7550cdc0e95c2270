"""Early stopping that watches the averages, and restores the best ones."""

from typing import Any

from .. import arguments
from ..optimizer import averaging_optimizer
from ..values import assign_all, variables_of
from .swap_averages import SwapAverages

_MODES = ("auto", "min", "max")


class AverageEarlyStopping(SwapAverages):
    """Stop training when the averages get no better, and restore the best of them.

    For a model that is compiled with an averaging optimizer. Validation sees the averages; you don't need
    `SwapAverages` as well. When training ends, early or not, the model and the optimizer get the best averages and the
    batch-norm statistics of that epoch, so `assign_average_vars()` finds them too. Keras's own `EarlyStopping` with
    `restore_best_weights` restores the weights of that epoch, not the averages. While there is no average yet (SWA
    before its first snapshot) epochs don't count. If training is interrupted or fails, the model keeps its weights.

    Args:
        monitor: str, name of a metric in the logs of an epoch.
        min_delta: float >= 0, what counts as better.
        patience: int >= 0, after how many epochs without anything better training stops.
        verbose: int, 0 or 1.
        mode: "auto", "min" or "max", what is better.
        baseline: float or None; training stops if the metric does not get better than this.
        restore_best_average: bool; False leaves the weights in the model, and the latest averages in the optimizer.
        start_from_epoch: int >= 0, how many epochs to wait at first.

    Attributes:
        best: float, the best value of the metric; None before there is one.
        best_epoch: int, its epoch, counted from 0.
        stopped_epoch: int, the epoch after which training was stopped, counted from 0; 0 where it was not.

    Raises:
        TypeError, ValueError: for an argument that is not as described, and if the model is not compiled with an
            averaging optimizer.

    References:
        Arguments are those of Keras's `EarlyStopping`.
    """

    __module__ = "kerasoptimizers"

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_average: bool = True,
        start_from_epoch: int = 0,
    ):
        arguments.string("monitor", monitor)
        arguments.not_negative("min_delta", min_delta)
        arguments.whole("patience", patience, 0)
        arguments.switch("verbose", verbose)
        arguments.choice("mode", mode, _MODES)
        if baseline is not None:
            arguments.real("baseline", baseline, "a number", lambda x: True)
        self.restore_best_average = arguments.flag("restore_best_average", restore_best_average)
        arguments.whole("start_from_epoch", start_from_epoch, 0)
        super().__init__()
        self._stopping = self.early_stopping(
            monitor=monitor,
            min_delta=min_delta,
            patience=patience,
            verbose=0,
            mode=mode,
            baseline=baseline,
            start_from_epoch=start_from_epoch,
        )
        self.monitor, self.min_delta, self.patience, self.mode = monitor, min_delta, patience, mode
        self.baseline, self.start_from_epoch = baseline, start_from_epoch
        self.verbose = int(verbose)
        # The best averages, and the model's other values then: lists of (variable, value).
        self._kept: list[tuple[Any, Any]] = []

    #: Keras's class, which says when to stop.
    early_stopping: Any

    @property
    def best(self) -> float | None:
        return float(self._stopping.best) if self._kept_epoch is not None else None

    @property
    def best_epoch(self) -> int:
        return self._kept_epoch or 0

    @property
    def stopped_epoch(self) -> int:
        return self._stopping.stopped_epoch

    _kept_epoch: int | None = None

    def set_model(self, model: Any) -> None:
        super().set_model(model)
        self._stopping.set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self._kept, self._kept_epoch = [], None
        self._stopping.on_train_begin(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if not averaging_optimizer(self.model).averages.has_average:
            return
        before = self._stopping.best
        self._stopping.on_epoch_end(epoch, logs)
        if self._stopping.best != before:
            self._kept_epoch = epoch
            if self.restore_best_average:
                self._keep()

    def _keep(self):
        """Take note of the averages, and of what belongs to them."""
        averages = averaging_optimizer(self.model).averages
        backend = averages.backend
        others = [v for v in variables_of(self.model) if averages.position(v) is None]
        self._kept = [(v, backend.numpy(v)) for v in [*averages.average, *others]]

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        if self._stopping.stopped_epoch > 0 and self.verbose:
            print(f"\nEpoch {self._stopping.stopped_epoch + 1}: early stopping")
        kept, self._kept = self._kept, []
        if not kept:
            return
        averages = averaging_optimizer(self.model).averages
        backend = averages.backend
        narrowed = [(v, backend.cast(value, backend.dtype(v))) for v, (_, value) in zip(averages.variables, kept)]
        assign_all([*kept, *narrowed], backend)
        if self.verbose:
            print(f"The model holds the averages of epoch {self.best_epoch + 1} now, the best ones.")
