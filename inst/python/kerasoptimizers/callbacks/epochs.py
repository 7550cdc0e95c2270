"""The base of callbacks that collect weights by epochs: learning rates, which epochs are due, and the backup."""

import warnings
from typing import Any

from .. import arguments
from ..notices import KerasOptimizersWarning
from ..optimizer import has_schedule
from ..values import Replaced
from .backup import Backup
from .watch import Watching

_SCHEDULES = ("manual", "constant", "cyclic")
_MOMENTS = ("first", "last")


class ByEpochs(Watching):
    """A callback that takes the weights at the ends of epochs, sets learning rates for it and can go on later.

    Its settings are `start_epoch` (counted from 1), `period` (in epochs), `snapshot_epoch`, `lr_schedule`, `swa_lr` and
    `swa_lr2`. It keeps `snapshots`, `lr_record`, `epoch_record` and `history_by_epoch`: see `SWACallback`.
    """

    start_epoch: int
    period: int
    #: "first" or "last": after which epoch of a period a snapshot is taken.
    snapshot_epoch: str
    verbose: int

    #: The name of `period` in messages, the start of file names in `backup_dir`, and a word for their contents.
    period_name: str
    backup_name: str
    content: str

    #: Of one fit(): the last rate of each epoch, and the batches that ended in this epoch.
    _epoch_rates: list[float]
    _ends: list[int]

    def _set_schedule(self, lr_schedule: Any, period: Any, swa_lr: Any, swa_lr2: Any, snapshot_epoch: Any) -> None:
        # They don't read the logs of batches: Keras 2 need not fetch them, and Keras 3 need not wait.
        self._supports_tf_logs = self.async_safe = True
        self.lr_schedule = arguments.choice("lr_schedule", lr_schedule, _SCHEDULES)
        self.period = arguments.whole(self.period_name, period, 1)
        if lr_schedule == "cyclic" and self.period < 2:
            arguments.refuse(self.period_name, "a whole number >= 2 with a cyclic schedule", period)
        self.snapshot_epoch = arguments.choice("snapshot_epoch", snapshot_epoch, _MOMENTS)
        self.swa_lr, self.swa_lr2 = swa_lr, swa_lr2
        if not automatic(swa_lr):
            self.swa_lr = _rate("swa_lr", swa_lr)
        if swa_lr2 is None:
            self.swa_lr2 = "auto" if automatic(swa_lr) else 10 * self.swa_lr
        elif not automatic(swa_lr2):
            self.swa_lr2 = _rate("swa_lr2", swa_lr2)
            if automatic(swa_lr):
                raise ValueError("`swa_lr2` can only be given together with `swa_lr`.")
            if lr_schedule == "cyclic" and self.swa_lr > self.swa_lr2:
                arguments.refuse("swa_lr", f"at most `swa_lr2` ({self.swa_lr2})", swa_lr)
        self.lr_record: list[float] = []
        self.epoch_record: list[tuple[int, int, int]] = []
        self.history_by_epoch = False
        self._owner: Any = None
        self._rates: Any = None
        self._last_rate: float | None = None
        self._steps: int | None = None
        # The replaced functions in fit().
        self._fit = Replaced()
        self._clears_backup = False

    def _set_backup(self, backup_dir: Any) -> None:
        self.backup_dir = arguments.optional(arguments.path, "backup_dir", backup_dir)
        self._backup: Any = None
        if backup_dir is not None:
            self._backup = Backup(self.backup_dir, self.backup_name, self.content)

    # The tasks of a subclass.

    @property
    def snapshots(self) -> int:
        """How many it has taken."""
        raise NotImplementedError

    def forget(self) -> None:
        """Begin anew, with no snapshots."""
        raise NotImplementedError

    def take(self, model: Any) -> None:
        """Take a snapshot."""
        raise NotImplementedError

    def entries(self) -> dict[str, Any]:
        """The collected values, for the backup."""
        raise NotImplementedError

    def take_entries(self, entries: dict[str, Any], model: Any) -> None:
        """Go on with what a backup holds."""
        raise NotImplementedError

    def require_fit(self, model: Any) -> None:
        """Raise where what was collected is not of this model."""
        raise NotImplementedError

    def trains(self, epoch: int) -> bool:
        """Whether an epoch trains."""
        return True

    @property
    def first_epoch(self) -> int:
        """The first epoch (counted from 1) that has a snapshot; 0 where that is not known before."""
        return self.start_epoch + self._offset

    @property
    def _offset(self):
        """How many epochs of a period come before the one with the snapshot."""
        return 0 if self.snapshot_epoch == "first" else self.period - 1

    def end_epoch(self, epoch: int, logs: Any) -> None:
        """Called at the end of an epoch that trained."""
        if self._is_due(epoch):
            self.take(self.model)

    # During fit().

    def on_train_begin(self, logs: Any = None) -> None:
        model = self.model
        self._epochs = self.params["epochs"]
        if self.first_epoch >= self._epochs:
            later = f" less the {self._offset} until the first snapshot" if self._offset else ""
            arguments.refuse("start_epoch", f"lower than `epochs` ({self._epochs}){later}", self.start_epoch)
        if self._owner not in (None, model):
            self.forget()
            self._rates = None
        self._owner = model
        if not self._goes_on():
            self._rates = self._settled_rates(model)
        self.lr_record, self._epoch_rates, self.epoch_record = [], [], []
        self._first = True
        self._epoch = self._epochs - 1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        model = self.model
        self._epoch = epoch
        self._steps = self.params.get("steps") or self._steps
        self._begun, self._ends = 0, []
        if self._first:
            if self._goes_on():
                # Not earlier: other callbacks load a model and its epoch when training begins.
                self._restore(model, epoch)
                self._rates = self._settled_rates(model)
            self._go_on_or_start(model, epoch)
        if self.lr_schedule == "constant":
            trains = self.trains(epoch)
            self._set_rate(self._constant(epoch) if trains else 0.0, not trains)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.lr_schedule == "cyclic":
            trains = self.trains(self._epoch)
            self._set_rate(self._cyclic(self._epoch, batch) if trains else 0.0, not trains)
        self._begun += 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # Keras 3 may call this from several threads.
        self._ends.append(batch + 1)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._steps = max(self._ends, default=None)
        if self.lr_schedule == "cyclic" and self._begun > len(self._ends):
            # Where the number of batches isn't known, Keras begins one more than there are.
            self.lr_record.pop()
        self._epoch_rates += self.lr_record[-1:]
        self.epoch_record.append((epoch + 1, len(self.lr_record), self.snapshots))
        if self.trains(epoch):
            self.end_epoch(epoch, logs)
        if self._backup is not None:
            self._backup.write(epoch + 1, self._state())

    def on_train_end(self, logs: Any = None) -> None:
        if self._first and self._goes_on():
            # There was no epoch left to train.
            self._restore(self.model, self._epochs)

    def _train_is_over(self) -> None:
        if self.lr_record:
            rates = self._epoch_rates if self.history_by_epoch else self.lr_record
            self.model.history.history.setdefault("lr", []).extend(rates)
        self._fit.undo()
        if self._backup is not None and not self._clears_backup:
            self._backup.clear()

    def _clear_backup_later(self) -> None:
        # Not before all other callbacks are done with the training: until then it could be resumed.
        clear = self._backup.clear if self._backup is not None else None
        self._clears_backup = clear is not None and self.after(self._fit, "on_train_end", clear)

    # Which epochs are due, and the rest of an earlier training.

    def _is_due(self, epoch):
        since = epoch - (self.start_epoch - 1) - self._offset
        return since >= 0 and since % self.period == 0

    def _go_on_or_start(self, model, epoch):
        self._first = False
        if epoch < max(self.first_epoch, 1):
            self.forget()
        elif self.snapshots:
            self.require_fit(model)
        elif self.first_epoch:
            warnings.warn(
                f"Training goes on with epoch {epoch + 1}, and the callback has no {self.content} of the "
                f"epochs from {self.start_epoch} on: it starts now.",
                KerasOptimizersWarning,
                stacklevel=2,
            )

    def _state(self):
        numbers: dict[str, Any] = {"snapshots": self.snapshots, "steps": self._steps or 0}
        if self._rates is not None:
            numbers.update(zip(("rate", "swa_lr", "swa_lr2"), self._rates))
        if self._last_rate is not None:
            numbers["last_rate"] = self._last_rate
        return {**numbers, **self.entries()}

    def _goes_on(self):
        return self._backup is not None and self._backup.exists

    def _restore(self, model, epochs):
        """Load the state that belongs to a model after `epochs` epochs of training."""
        found = self._backup.read(epochs)
        if found is None:
            return
        after, state = found
        self.take_entries(state, model)
        self._steps = state["steps"] or None
        self._last_rate = state.get("last_rate")
        self._rates = None
        if "rate" in state:
            self._rates = state["rate"], state["swa_lr"], state["swa_lr2"]
        if after < epochs:
            # The process ended before the callback had seen what the model holds now.
            if self._rates is not None:
                self._last_rate = self._rate_of(model)
            if self.trains(epochs - 1) and self._is_due(epochs - 1):
                self.take(model)

    # The learning rate.

    def _settled_rates(self, model):
        """(the optimizer's own rate, swa_lr, swa_lr2), all of them numbers."""
        if has_schedule(model.optimizer, self.private):
            if self.lr_schedule == "manual":
                return None
            raise ValueError(
                f"`lr_schedule` must be 'manual', not '{self.lr_schedule}', for an optimizer whose "
                "learning rate is a schedule."
            )
        rate = self._rate_of(model)
        if self._rates and rate == self._last_rate:
            # Set by an earlier fit(): not the optimizer's own.
            rate = self._rates[0]
        swa_lr = 0.1 * rate if automatic(self.swa_lr) else self.swa_lr
        if rate < swa_lr:
            arguments.refuse("swa_lr", f"at most the optimizer's learning rate ({rate:g})", swa_lr)
        swa_lr2 = swa_lr + 0.25 * (rate - swa_lr) if automatic(self.swa_lr2) else self.swa_lr2
        return rate, swa_lr, swa_lr2

    @staticmethod
    def _rate_of(model):
        rate = model.optimizer.learning_rate
        return float(rate.numpy() if hasattr(rate, "numpy") else rate)

    def _set_rate(self, rate, only_record):
        self.lr_record.append(rate)
        if not only_record:
            self.model.optimizer.learning_rate = rate
            self._last_rate = self._rate_of(self.model)

    def _constant(self, epoch):
        rate, swa_lr, _ = self._rates
        part = epoch / (self.start_epoch - 1)
        down = min(max((part - 0.5) / 0.4, 0.0), 1.0)
        return rate - down * (rate - swa_lr)

    def _cyclic(self, epoch, batch):
        since = epoch - (self.start_epoch - 1)
        if since < 0:
            return self._constant(epoch)
        if self._steps is None:
            raise ValueError(
                "`lr_schedule` 'cyclic' needs to know how many batches an epoch has: give `steps_per_epoch` to fit()."
            )
        _, swa_lr, swa_lr2 = self._rates
        done = (since % self.period) * self._steps + batch + 1
        part = min(done / (self.period * self._steps), 1.0)
        return swa_lr2 - part * (swa_lr2 - swa_lr)

    def _say_rate(self):
        """Say that the optimizer keeps the rate that was set last."""
        if self.lr_record and self.lr_schedule != "manual":
            rate, before = self._rate_of(self.model), self._rates[0]
            self._say(self._epoch, f"the optimizer's learning rate stays at {rate:g} (it was {before:g} at first)")

    def _say(self, epoch, text):
        if self.verbose:
            print(f"\nEpoch {epoch + 1:05d}: {text}")


def automatic(value: Any) -> bool:
    """Whether the value of an argument is "auto"."""
    return isinstance(value, str) and value == "auto"


def _rate(name, value):
    return arguments.real(name, value, "'auto' or a number >= 0", lambda rate: rate >= 0)
