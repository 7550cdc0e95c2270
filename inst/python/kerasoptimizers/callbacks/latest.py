"""The mean of the latest snapshots of the weights."""

import collections
import warnings
from typing import Any

from .. import arguments, batch_norm
from ..averages import Averages
from ..files import listed, numbered
from ..finishing import put, warn_of_statistics
from ..notices import KerasOptimizersWarning
from ..rules import EqualAverage
from . import moments
from .backup import Backup
from .swa import floating_weights, mean_with
from .swap_averages import SwapAverages


class LatestAverage(SwapAverages):
    """The equal average of the latest `k` snapshots of the weights (LAWA), with any optimizer.

    The callback takes a snapshot at the end of each epoch, or every few batches (`every`), and keeps the latest `k`.
    The mean is computed anew from them each time, so no error adds up. With `k` snapshots or fewer it is that of
    `SWACallback`, bit for bit. All floating-point weights are averaged, batch-norm statistics too.

    `fit()` validates with the average, and trains on with the weights. `AverageModelCheckpoint` and `SwapAverages`,
    after this callback in the list, save and show the same average, even if the model's optimizer keeps averages,
    too. When training is done the average is put into the model. Callbacks that set the weights then, such as
    `EarlyStopping(restore_best_weights=True)`, belong before this one in the list: whichever comes last wins.

    An error or interrupt leaves the model with its own weights. The snapshots stay in the callback: when the same
    object is given to another `fit()` of the model whose `initial_epoch` is `start_epoch` or more, averaging goes on.

    Args:
        k: int >= 1, the number of snapshots. They are kept in main memory: k copies of the weights.
        every: "epoch", or an int >= 1, the number of batches from one snapshot to the next.
        start_epoch: int >= 1, the first epoch (counted from 1) whose snapshots count.
        verbose: int, 0 for silence or 1 for messages.
        assign: bool; whether the model gets the average when training is done. False leaves the weights:
            `assign_average_vars()` and `swap_weights()` of the callback put the average in.
        weights_too: bool; True makes `fit()` validate twice, as with `SwapAverages`.
        data: inputs to recompute batch-norm statistics with when training is done, anything that can be drawn more
            than once and that `update_batch_norm()` takes. None leaves the mean of the snapshots' statistics, and
            warns.
        batch_size: int >= 1, examples in a batch of `data`.
        backup_dir: str or path, a folder for this training alone; the snapshots are kept there after each epoch, of
            the last two, and go when training is done. A `fit()` of another process that goes on with the training, as
            with Keras's `BackupAndRestore`, goes on with them. None keeps nothing.

    Attributes:
        snapshots: int, how many are in the average.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described, or a folder with the
            snapshots of another model.

    References:
        Kaddour 2022, Stop Wasting My Time! Saving Days of ImageNet and BERT Training with LAtest Weight Averaging,
        arXiv 2209.14981.
    """

    __module__ = "kerasoptimizers"

    #: How variables of the callback's Keras are read and written, and one is made.
    backend: Any
    new_variable: Any

    def __init__(
        self,
        k: int = 10,
        every: Any = "epoch",
        start_epoch: int = 1,
        verbose: int = 0,
        *,
        assign: bool = True,
        weights_too: bool = False,
        data: Any = None,
        batch_size: int = 32,
        backup_dir: Any = None,
    ):
        super().__init__(weights_too)
        self.k = arguments.whole("k", k, 1)
        self.every = moments.every(every)
        self.start_epoch = arguments.whole("start_epoch", start_epoch, 1)
        self.verbose = arguments.switch("verbose", verbose)
        self.assign = arguments.flag("assign", assign)
        self.batch_size = arguments.whole("batch_size", batch_size, 1)
        batch_norm.require_data(data, self.batch_size)
        self.data = data
        self.backup_dir = arguments.optional(arguments.path, "backup_dir", backup_dir)
        self._backup: Any = None if backup_dir is None else Backup(self.backup_dir, "latest", "snapshots")
        self._supports_tf_logs, self.async_safe = True, self.every == "epoch"
        # For each snapshot the list of its arrays.
        self._latest: collections.deque[list[Any]] = collections.deque(maxlen=self.k)
        self.averages = self._no_averages()
        self._moments = moments.Moments(self.every)
        self._owner: Any = None
        self._training = self._first = self._clears_backup = False
        self._epoch = 0
        self._taken: int | None = None

    # Methods that `Averages` calls.

    name = "LatestAverage"
    built = True

    def key(self, variable: Any) -> Any:
        return id(variable)

    def new_slot(self, variable: Any, name: str, shape: tuple[int, ...], dtype: str, initializer: Any) -> Any:
        return self.new_variable(shape, dtype)

    def new_scalar(self, name: str, shape: tuple[int, ...], dtype: str) -> Any:
        return self.new_variable(shape, "int32" if dtype == "int" else dtype)

    def count(self) -> Any:
        return self.model.optimizer.iterations

    def _no_averages(self):
        return Averages(EqualAverage(), self.backend, self, check_finite=False, warns=False)

    # Methods that Keras calls.

    def on_train_begin(self, logs: Any = None) -> None:
        batch_norm.refuse_other_names(self.model, self.data, "data")
        if self._owner not in (None, self.model):
            self._forget()
        self._owner = self.model
        super().on_train_begin(logs)
        self._training = self._first = True
        self._taken = None
        if self._backup is not None:
            self._clears_backup = self.after(self._fit, "on_train_end", self._backup.clear)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self._moments.begin_epoch()
        if self._first:
            # Not earlier: other callbacks load a model and its epoch when training begins.
            self._go_on_or_start(epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._epoch >= self.start_epoch - 1 and self._moments.batch_is_due(batch):
            self._take()

    def on_test_begin(self, logs: Any = None) -> None:
        if self._training:
            # Validation sees this epoch's snapshot.
            self._end_epoch()
        super().on_test_begin(logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._end_epoch()
        if self._backup is not None:
            self._backup.write(epoch + 1, self._state())

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        self._training = False
        if not self._latest:
            warnings.warn(
                f"There is no average: training ended before the first snapshot (`start_epoch` is {self.start_epoch}, "
                f"`every` {self.every!r}), and the model keeps its weights.",
                KerasOptimizersWarning,
                stacklevel=2,
            )
        elif self.assign:
            self._finish()
        if self._backup is not None and not self._clears_backup:
            self._backup.clear()

    def _end_fit(self):
        self._training = False
        super()._end_fit()

    # The average.

    @property
    def snapshots(self) -> int:
        return len(self._latest)

    def assign_average_vars(self, var_list: Any) -> None:
        """Set variables of the model to their averages, as an averaging optimizer's method does.

        Args:
            var_list: list of variables.
        """
        self.averages.assign(arguments.weights("var_list", var_list), leave_others=True)

    def swap_weights(self) -> None:
        """Exchange weights and averages; a second call restores both bit for bit."""
        self.averages.swap()

    def _end_epoch(self):
        if self.every == "epoch" and self._epoch >= self.start_epoch - 1 and self._taken != self._epoch:
            self._taken = self._epoch
            self._take()

    def _variables(self):
        return [v for v in floating_weights(self.model) if not getattr(v, "overwrite_with_gradient", False)]

    def _take(self):
        variables = self._variables()
        self._latest.append([self.backend.numpy(variable) for variable in variables])
        self._show_mean(variables)
        if self.verbose:
            print(f"\nEpoch {self._epoch + 1:05d}: the average is of {self.snapshots} snapshots")

    def _show_mean(self, variables):
        """Put the mean of the snapshots where it is shown from."""
        if not self.averages.built:
            self.averages.create(variables)
        backend = self.backend
        for i, slot in enumerate(self.averages.average):
            mean = None
            for count, arrays in enumerate(self._latest):
                mean = mean_with(mean, arrays[i], count)
            backend.write(slot, backend.cast(mean, backend.dtype(slot)))
        self.averages.scalars["snapshots"].assign(self.snapshots)

    def _forget(self):
        self._latest.clear()
        self._moments = moments.Moments(self.every)
        if self.averages.built:
            self.averages.let_go(self)
        self.averages = self._no_averages()

    def _finish(self):
        averages, model = self.averages, self.model
        if averages.shown:
            return  # by hand
        put(model, averages.variables, map(self.backend.read, averages.average), self.data, self.batch_size)
        if self.data is None:
            warn_of_statistics(model, "LatestAverage")
        if self.verbose:
            print(f"\nEpoch {self._epoch + 1:05d}: the model's weights are the average now")

    # Training that goes on.

    def _go_on_or_start(self, epoch):
        self._first = False
        if self._backup is not None and self._backup.exists:
            self._restore(epoch)
        if epoch < self.start_epoch:
            self._forget()
        elif not self._latest:
            warnings.warn(
                f"Training goes on with epoch {epoch + 1}, and the callback has no snapshots of the epochs before: "
                "averaging starts now.",
                KerasOptimizersWarning,
                stacklevel=2,
            )

    def _state(self):
        weights = numbered("weights", [array for arrays in self._latest for array in arrays])
        return {"snapshots": self.snapshots, "batches": self._moments.done, **weights}

    def _restore(self, epochs):
        """Load the snapshots that belong to a model after `epochs` epochs of training."""
        found = self._backup.read(epochs)
        if found is None:
            return
        after, state = found
        variables, count = self._variables(), state["snapshots"]
        arrays, size = listed("weights", state), len(variables)
        latest = [arrays[i * size : (i + 1) * size] for i in range(count)]
        rest = arrays[count * size :]
        self._backup.require_shapes([*latest, rest] if rest else latest, variables)
        self._forget()
        self._latest.extend(latest)
        self._moments.done = state["batches"]
        if latest:
            self._show_mean(variables)
        if after < epochs and self.every == "epoch" and epochs >= self.start_epoch:
            # The process ended before the callback had seen what the model holds now.
            self._take()
