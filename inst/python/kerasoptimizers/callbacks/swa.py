"""Stochastic weight averaging by epochs, as a callback."""

import warnings
from typing import Any

import numpy as np

from .. import arguments, batch_norm
from ..files import listed, numbered
from ..loss_valley import LossValley
from ..notices import KerasOptimizersWarning
from ..optimizer import AveragingOptimizer, with_inner
from ..values import Held, Replaced, assign_all
from .backup import same_shapes
from .epochs import ByEpochs, automatic


class SWACallback(ByEpochs):
    """Stochastic weight averaging by epochs: an equal-weight average of the weights.

    At the end of epoch `start_epoch` and every `swa_freq` epochs from there on the
    weights enter the average, and at the end of training the average is put into the
    model. The learning rate follows one of three schedules:

    - "manual": it is left to you;
    - "constant": the optimizer's rate for the first half of the epochs before
      `start_epoch`, then a straight line down to `swa_lr`, reached at nine tenths;
    - "cyclic": the same before `start_epoch`; from there on, batch by batch, a straight line
      from `swa_lr2` down to `swa_lr` over `swa_freq` epochs, again and again.

    Batch-norm statistics belong to weights, and those of training don't fit the average.
    In a model with batch norm that isn't frozen the last epoch therefore trains
    nothing: the average is put into the model first, the epoch is a forward pass over the
    training data, and the statistics become its exact mean and variance, as by
    `update_batch_norm()`. No trainable weight and no variable of the optimizer
    changes then; losses and metrics in the logs are those of the pass (none in a model with its
    own `train_step`). With `data` the last epoch trains, and a separate pass
    over `data` follows.

    With `start_epoch` "auto" the validation loss says when to start and when to stop, by the rule of SWAD
    (`LossValley`): averaging begins where the loss has not fallen for `n_converge` validations, and training stops
    when `n_tolerance` of them in a row were worse than there by more than the part `tolerance_ratio`. The average is
    that of the weights at the validations in between. Where batch norm needs a forward pass, that is one more epoch.
    `fit()` must be given validation data. Up to `n_tolerance` copies of the weights are kept on the host. If the loss
    falls to the end, there is no average: a warning says so, and the model keeps its weights.

    Don't use it with an averaging optimizer other than Lookahead: both would average, and a warning says so.

    An error or interrupt while training leaves the model with its own weights and statistics,
    also in that last epoch and its validation. Callbacks that look at the model at the ends of
    epochs, as `ModelCheckpoint` does, come after this one in the list: in the last epoch they see
    the average then.

    The average stays in the callback: when the same object is given to another `fit()` of the
    model whose `initial_epoch` is beyond `start_epoch`, averaging goes on where it stopped. For
    a training that may break off, give `backup_dir`, and have the model restored by Keras's
    `BackupAndRestore`, or load it and give `initial_epoch`: a new process then goes on as if
    there had been one, even if the old one was killed. (Without the folder, set `swa_weights`
    and `snapshots` before.)

    The learning rates that were set are added to the history as "lr": one for each epoch
    ("constant") or each batch ("cyclic"), 0 where the epoch is a forward pass.

    Args:
        start_epoch: int >= 2, the first epoch (counted from 1) that enters the average;
            lower than `epochs` of `fit()`. "auto" finds the first and the last one from the validation loss; it
            needs the schedule "manual" and a `swa_freq` of 1.
        lr_schedule: "manual", "constant" or "cyclic".
        swa_lr: float >= 0, learning rate while averaging, at most the optimizer's; "auto" for a
            tenth of that.
        swa_lr2: float >= 0, where the cycles of "cyclic" begin; "auto" for a quarter of the
            way from `swa_lr` to the optimizer's rate, None for ten times `swa_lr`. Needs
            `swa_lr`.
        swa_freq: int >= 1, in epochs, how often the weights enter the average; for "cyclic"
            the length of a cycle, at least 2.
        batch_size: int >= 1 or None, examples in a batch of `data` (32). Not needed
            otherwise: the examples are counted.
        verbose: int, 0 for silence or 1 for messages.
        data: inputs to recalibrate batch norm with, anything that can be drawn more
            than once and that `update_batch_norm()` takes; None for the last epoch.
        backup_dir: str or path, a folder for this training alone; the average and what belongs
            to it are kept there after each epoch, of the last two, and go when training is done.
            A `fit()` of another process that goes on with the training goes on with them.
            None keeps nothing.
        n_converge: int >= 1, only for "auto": averaging begins where this many validations bring no lower loss.
        n_tolerance: int >= 1, only for "auto": training stops after this many validations above the threshold.
        tolerance_ratio: float >= 0, only for "auto": the threshold is the mean loss of the `n_converge` validations
            times 1 + this.
        snapshot_epoch: "first" or "last", after which of `swa_freq` epochs the weights enter the average: the first, as
            in keras-swa, or the last, as in the paper, where the rate of a cycle is lowest.

    Attributes:
        swa_weights: list of arrays, float32 or wider, the average of the model's weights of
            floating type, in the order of `model.weights`; None before the first snapshot.
        snapshots: int, how many epochs the average holds.
        lr_record: list of float, the learning rates of the latest `fit()`.
        epoch_record: list of (epoch from 1, rates in `lr_record` when it ended, snapshots in the
            average before it ended), of the latest `fit()`.
        history_by_epoch: bool, False; True gives the history the last rate of each epoch only, for
            readers that want one value an epoch, as R's `plot()` does.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described; when
            training begins, for one that doesn't fit `epochs` or the optimizer's rate, and for
            a `backup_dir` that holds the average of another model or of other epochs.

    References:
        Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better
        Generalization, arXiv 1803.05407. Arguments and numbers are those of keras-swa. "auto": Cha et al. 2021, SWAD:
        Domain Generalization by Seeking Flat Minima, arXiv 2102.08604.
    """

    __module__ = "kerasoptimizers"

    period_name, backup_name, content = "swa_freq", "swa", "average"
    snapshots: int = 0

    def __init__(
        self,
        start_epoch: Any,
        lr_schedule: str = "manual",
        swa_lr: Any = "auto",
        swa_lr2: Any = "auto",
        swa_freq: int = 1,
        batch_size: int | None = None,
        verbose: int = 0,
        *,
        data: Any = None,
        backup_dir: Any = None,
        n_converge: int = 3,
        n_tolerance: int = 6,
        tolerance_ratio: float = 0.3,
        snapshot_epoch: str = "first",
    ):
        super().__init__()
        # The valley of the validation loss, which says where averaging begins and ends.
        self._valley: Any = LossValley(n_converge, n_tolerance, tolerance_ratio)
        self.n_converge, self.n_tolerance, self.tolerance_ratio = n_converge, n_tolerance, tolerance_ratio
        self.start_epoch: Any = start_epoch
        if not automatic(start_epoch):
            self._valley, self.start_epoch = None, arguments.whole("start_epoch", start_epoch, 2, word="auto")
        self._set_schedule(lr_schedule, swa_freq, swa_lr, swa_lr2, snapshot_epoch)
        self.swa_freq = self.period
        if self._valley is not None and lr_schedule != "manual":
            arguments.refuse("lr_schedule", "'manual' where `start_epoch` is 'auto'", lr_schedule)
        if self._valley is not None and self.period != 1:
            arguments.refuse("swa_freq", "1 where `start_epoch` is 'auto'", swa_freq)
        self._warned = False
        self.batch_size = arguments.optional(
            lambda name, value: arguments.whole(name, value, 1), "batch_size", batch_size
        )
        self.verbose = arguments.switch("verbose", verbose)
        batch_norm.require_data(data, self.batch_size or 32)
        self.data = data
        self._set_backup(backup_dir)
        self.swa_weights: Any = None
        # The pass in place of the last epoch, its replacements, and the values that it left; the model's own values,
        # while the average is in it before training is done.
        self._replaced = Replaced()
        self._pass: Any = None
        self._finished: list[Any] | None = None
        self._held: Held | None = None
        # The model's trainable weights when training was done.
        self._final: list[np.ndarray] | None = None

    #: How variables of the callback's Keras are read and written, and which class of passes is for it.
    backend: Any
    pass_type: Any

    def on_train_begin(self, logs: Any = None) -> None:
        model = self.model
        # First, because it refuses models that can't be trained.
        layers = self.pass_type().layers_of(model)
        batch_norm.refuse_other_names(model, self.data, "data")
        # Left by an earlier fit(); the model may have got other weights since.
        self._held = None
        self._failed()
        super().on_train_begin(logs)
        self._finished = self._final = None
        self._warned = False
        self._warn_of_other_averages(model)
        self._watch_fit()
        if self.verbose and self.data is None and layers:
            print("The model has batch normalization: the last epoch will be a forward pass that trains nothing.")

    def _warn_of_other_averages(self, model):
        for optimizer in with_inner(model.optimizer):
            # With Lookahead training goes on from the averages: they are no second result.
            if isinstance(optimizer, AveragingOptimizer) and optimizer.averages.rule.blend < 1:
                name = type(optimizer).__name__
                warnings.warn(
                    f"SWACallback and {name} both average the weights. At the end of training the model gets the "
                    f"average of SWACallback. Use only one of them: leave out the callback, or {name}.",
                    KerasOptimizersWarning,
                    stacklevel=3,
                )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        if self._valley is None and epoch == self.first_epoch - 1:
            self._say(epoch, "averaging of weights starts")
        if not self.trains(epoch):
            self._end_valley()
            self._start_pass(self.model)
            self._say(epoch, "forward pass with the averaged weights, to recalibrate batch norm")

    def on_test_begin(self, logs: Any = None) -> None:
        # Validation of the last epoch sees what the pass has found.
        if self._pass is not None:
            self._end_pass()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._pass is not None:
            self._end_pass()
        super().on_epoch_end(epoch, logs)
        if self._valley is not None and self._valley.dead:
            # If a pass is still to come, it is the next epoch.
            passes = self.data is None and bool(self.pass_type().layers_of(self.model))
            self.model.stop_training = self.model.stop_training or self._finished is not None or not passes

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        if self._finished is None:
            self._end_valley()
        if self.snapshots:
            self._finish(self.model)
            self._final = self._trainable_values(self.model)
        else:
            warnings.warn(
                f"There is no average: {self._why()}, and the model keeps its weights.",
                KerasOptimizersWarning,
                stacklevel=2,
            )
        self._say_rate()
        self._train_is_over()

    def _why(self):
        """Why there is no average."""
        if self._valley is None:
            return f"training ended before epoch {self.first_epoch} did"
        if not self._valley.validations:
            return "`start_epoch` 'auto' needs the loss of validation data, and there was none"
        return f"the validation loss fell to the end (`n_converge` is {self.n_converge})"

    # The valley of the validation loss.

    @property
    def first_epoch(self) -> int:
        return super().first_epoch if self._valley is None else 0

    def _is_due(self, epoch):
        return self._valley is None and super()._is_due(epoch)

    def _new_valley(self):
        return LossValley(self.n_converge, self.n_tolerance, self.tolerance_ratio)

    def end_epoch(self, epoch: int, logs: Any) -> None:
        if self._valley is None:
            super().end_epoch(epoch, logs)
            return
        loss = (logs or {}).get("val_loss")
        if loss is None:
            if not self._valley.validations and not self._warned:
                self._warned = True
                warnings.warn(
                    f"`start_epoch` 'auto' needs the loss of validation data, and epoch {epoch + 1} has none: give "
                    "fit() `validation_data` or `validation_split`.",
                    KerasOptimizersWarning,
                    stacklevel=2,
                )
            return
        began = self._valley.converged is not None
        self._valley.add(float(loss), self._values(self.model))
        self._show_valley(self._valley)
        if not began and self._valley.converged is not None:
            self._say(epoch, f"averaging of weights starts: the lowest loss was {self.n_converge - 1} validations ago")
        if self._valley.dead:
            self._say(epoch, "averaging of weights ends: the loss is above its threshold")

    def _end_valley(self):
        """The average is that of all snapshots in the valley."""
        if self._valley is not None:
            self._show_valley(self._valley.result())

    def _show_valley(self, valley):
        self.swa_weights = valley.average
        self.snapshots = 0 if valley.average is None else max(1, len(valley.averaged))

    # The average.

    def forget(self) -> None:
        self.swa_weights, self.snapshots = None, 0
        if self._valley is not None:
            self._valley = self._new_valley()

    def take(self, model: Any) -> None:
        if self._finished is not None:
            return
        weights = self._values(model)
        before = self.swa_weights if self.snapshots else [None] * len(weights)
        self.swa_weights = [mean_with(mean, w, self.snapshots) for mean, w in zip(before, weights)]
        self.snapshots += 1

    def entries(self) -> dict[str, Any]:
        # With a valley, the average is in it.
        weights = {} if self._valley is None else self._valley.entries()
        weights = weights or numbered("weights", self.swa_weights or ())
        return {**weights, **numbered("finished", self._finished or ())}

    def take_entries(self, entries: dict[str, Any], model: Any) -> None:
        if ("valley_dead" in entries) != (self._valley is not None):
            raise ValueError(
                f"`backup_dir` must hold the average of a callback with the same `start_epoch`: in '{self.backup_dir}' "
                f"it was {'auto' if self._valley is None else 'a number'}."
            )
        weights, finished = listed("weights", entries), listed("finished", entries)
        held, valley = [weights, finished], None
        if self._valley is not None:
            valley = self._new_valley()
            valley.take_entries(entries)
            held += [valley.average, *(snapshot.weights for snapshot in valley.latest)]
        self._backup.require_shapes(filter(None, held), floating_weights(model))
        self.snapshots, self.swa_weights, self._finished = entries["snapshots"], weights or None, finished or None
        if valley is not None:
            self._valley = valley
            self._show_valley(valley)

    def require_fit(self, model: Any) -> None:
        if not same_shapes(self.swa_weights, floating_weights(model)):
            raise ValueError("`swa_weights` must have the shapes of the model's weights.")

    def trains(self, epoch: int) -> bool:
        if self._pass is not None:
            return False
        last = epoch == self._epochs - 1 or (self._valley is not None and self._valley.dead)
        last = last and self.data is None and self.snapshots > 0
        return not (last and self.pass_type().layers_of(self._owner))

    def _values(self, model):
        return [self.backend.numpy(variable) for variable in floating_weights(model)]

    def _put(self, model, values):
        """Set the model to these values; its own come back if training fails."""
        if self._held is None:
            self._held = Held(floating_weights(model), self.backend)
        assign_all(zip(floating_weights(model), values), self.backend)

    def _finish(self, model):
        layers = self.pass_type().layers_of(model)
        # After a pass, too: an optimizer's own average may have replaced this one.
        self._put(model, self.swa_weights)
        if self._finished is not None:
            self._put(model, self._finished)
        elif layers and self.data is not None:
            self._say(self._epochs - 1, "pass over `data`, to recalibrate batch norm")
            batch_norm.recalibrate_with(self.pass_type(), model, self.data, self.batch_size or 32)
        self._held = None
        if layers and self._finished is None and self.data is None:
            warnings.warn(
                "Training stopped before its last epoch, in which batch norm is recalibrated: call "
                "update_batch_norm(model, x).",
                KerasOptimizersWarning,
                stacklevel=2,
            )
        self._say(self._epoch, "the model's weights are the average now")

    # Failures.

    def _watch_fit(self):
        hooks = ["train_batch_begin", "train_batch_end", "test_begin", "test_batch_begin", "test_batch_end", "test_end"]
        hooks += ["epoch_begin", "epoch_end", "train_end"]
        self.watch(self._fit, ["train_function", "evaluate"], self._failed, [f"on_{hook}" for hook in hooks])
        self._clear_backup_later()
        self.after(self._fit, "on_train_end", self._warn_of_other_weights)

    def _trainable_values(self, model):
        return [self.backend.numpy(variable) for variable in model.trainable_variables]

    def _warn_of_other_weights(self):
        """Say that a callback that came after this one has put others in the place of the average."""
        final, self._final = self._final, None
        now = self._trainable_values(self.model) if final is not None else []
        if any(not np.array_equal(one, other, equal_nan=True) for one, other in zip(final or [], now)):
            warnings.warn(
                "The model's weights are not the average: a callback after SWACallback has set others, as "
                "EarlyStopping with `restore_best_weights` does at the end of training. Put it before SWACallback.",
                KerasOptimizersWarning,
                stacklevel=2,
            )

    def _failed(self):
        """Give the model its own weights, statistics and functions back."""
        if self._held is not None:
            self._held.undo()
        self._pass = self._held = None
        self._replaced.undo()
        self._fit.undo()

    # The pass in place of the last epoch.

    def _start_pass(self, model):
        self._pass = run = self.pass_type()(model, list(zip(floating_weights(model), self.swa_weights)))
        run.start()

        def begin_anew(function):
            # A call from outside, after a fit() that was interrupted between its steps: there is no pass.
            def anew(*args, **kwargs):
                name = function.__name__
                self._failed()
                return getattr(model, name)(*args, **kwargs)

            return anew

        self._replaced.put(model, "train_function", lambda function: run.train_function)
        # `_watch_fit()` watches the function that this one replaces.
        self.watch(self._replaced, ["train_function"], self._failed)
        self._replaced.put(model, "fit", begin_anew)
        self._replaced.put(model, "train_on_batch", begin_anew)

    def _end_pass(self):
        run, model = self._pass, self.model
        self._pass = None
        self._replaced.undo()
        self._put(model, self.swa_weights)
        run.write()
        self._finished = self._values(model)


def mean_with(mean: Any, array: Any, count: int) -> Any:
    """The mean of `count` arrays, changed into that of one more; None for the mean of none."""
    if mean is None:
        return array.astype(np.result_type(array.dtype, "float32"))
    mean += (array.astype(mean.dtype) - mean) / (count + 1)
    return mean


def floating_weights(model: Any) -> list[Any]:
    """The weights that can be averaged: neither seeds nor lookup tables."""

    def floats(variable):
        return "float" in getattr(variable.dtype, "name", variable.dtype)

    return [v for v in model.weights if not arguments.is_table(v) and floats(v)]
