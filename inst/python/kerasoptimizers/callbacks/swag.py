"""SWAG as a callback: snapshots by epochs, and a Gaussian over the weights."""

import warnings
from typing import Any

from .. import arguments
from ..notices import KerasOptimizersWarning
from ..posterior import Posterior
from ..sampling import Sampled
from .epochs import ByEpochs


class SWAG(Sampled, ByEpochs):
    """SWAG: a Gaussian over the weights, from one training, for predictions with uncertainty.

    At the end of epoch `start_epoch` and every `freq` epochs from there on a snapshot of the trainable weights is taken
    on the host: into their mean and variance, and as a deviation from the mean, of which the last `rank` are kept.
    Weights drawn from the Gaussian with that mean and that covariance are put into the model by `sample()`, and their
    predictions made by `predict_samples()`. The training itself, and the weights that it ends with, stay as they are.
    `SWACallback` beside it is not needed: the mean is SWA's average, and `sample(model, scale=0)` puts it in.

    A high learning rate while snapshots are taken makes them differ; `lr_schedule` sets one as in `SWACallback`. Twenty
    snapshots or more are usual. Take at least two, or there is nothing to draw from.

    Mean and variance are computed in float64 by Welford's recursion, with the divisor `snapshots`, and the deviations
    are kept in float32 (float64 for such weights). That is `rank` + 4 times the memory of float32 weights, on the host,
    and 4 times more for a moment at each snapshot. Non-trainable weights, such as batch-norm statistics, are not part
    of it: they are recomputed for each draw. A snapshot with a weight that is not finite is left out, with a warning.

    The same object goes on where it stopped in another `fit()` of the model whose `initial_epoch` is at least
    `start_epoch`; a `fit()` that begins before that starts anew. For several trainings take several objects. For a
    training that may break off give `backup_dir`, as for `SWACallback`. In a loop of your own, call `collect(model)`
    and leave `fit()` out of it.

    Args:
        start_epoch: int >= 2, the first epoch (counted from 1) whose weights are taken; lower than `epochs` of
            `fit()`. None for snapshots by `collect()` only.
        rank: int >= 0, how many deviations are kept; 0 for a diagonal covariance.
        freq: int >= 1, in epochs, how often a snapshot is taken; for "cyclic" the length of a cycle, at least 2.
        lr_schedule, swa_lr, swa_lr2: the learning rates, as in `SWACallback`: "manual" leaves them alone; "constant"
            goes down to `swa_lr` before `start_epoch`; "cyclic" then goes from `swa_lr2` down to `swa_lr` in each
            cycle of `freq` epochs.
        verbose: int, 0 for silence or 1 for messages.
        backup_dir: str or path, a folder for this training alone, in which the snapshots are kept after each epoch
            (of the last two epochs, about `rank` + 4 times the size of the weights each) until training is done.
        snapshot_epoch: "first" or "last", after which of `freq` epochs a snapshot is taken; in a cycle the last one has
            the lowest rate.

    Attributes:
        snapshots: int, how many were taken.
        mean: list of float64 arrays, in the order of `model.trainable_variables`.
        variance: list of float64 arrays: of each weight over the snapshots, divided by their number.
        deviations: list of arrays of shape (columns, *shape of the weight): the last snapshots less the mean at
            that time, oldest first; min(snapshots, rank) of them.
        lr_record, epoch_record, history_by_epoch: as in `SWACallback`.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described; when training begins, for one
            that doesn't fit `epochs` or the optimizer's rate, and for a `backup_dir` that holds snapshots of another
            model or of other epochs.

    References:
        Maddox et al. 2019, A Simple Baseline for Bayesian Uncertainty in Deep Learning, arXiv 1902.02476.
    """

    __module__ = "kerasoptimizers"

    period_name, backup_name, content = "freq", "swag", "snapshots"

    def __init__(
        self,
        start_epoch: int | None,
        rank: int = 20,
        freq: int = 1,
        lr_schedule: str = "manual",
        swa_lr: Any = "auto",
        swa_lr2: Any = "auto",
        verbose: int = 0,
        *,
        backup_dir: Any = None,
        snapshot_epoch: str = "first",
    ):
        super().__init__()
        self.start_epoch: Any = arguments.optional(
            lambda name, value: arguments.whole(name, value, 2), "start_epoch", start_epoch
        )
        self.posterior = Posterior(arguments.whole("rank", rank, 0))
        self._set_schedule(lr_schedule, freq, swa_lr, swa_lr2, snapshot_epoch)
        self.freq = self.period
        self.verbose = arguments.switch("verbose", verbose)
        self._set_backup(backup_dir)

    @property
    def rank(self) -> int:
        """How many deviations are kept."""
        return self.posterior.rank

    def settings(self) -> dict[str, Any]:
        names = ("start_epoch", "freq", "lr_schedule", "swa_lr", "swa_lr2", "verbose", "snapshot_epoch")
        return {name: getattr(self, name) for name in names}

    def on_train_begin(self, logs: Any = None) -> None:
        if self.start_epoch is None:
            raise ValueError("`start_epoch` must be given for fit(): it is None, which is for collect(model) only.")
        self._fit.undo()
        super().on_train_begin(logs)
        self._clear_backup_later()

    def on_train_end(self, logs: Any = None) -> None:
        super().on_train_end(logs)
        if self.snapshots < 2:
            count = "one snapshot" if self.snapshots else "no snapshot"
            warnings.warn(
                f"SWAG has {count}, and needs two or more: training ended too soon after epoch {self.first_epoch}.",
                KerasOptimizersWarning,
                stacklevel=2,
            )
        self._say_rate()
        self._train_is_over()

    def forget(self) -> None:
        self.posterior.forget()

    def take(self, model: Any) -> None:
        try:
            self.collect(model)
        except ValueError as error:
            if "finite" not in str(error):
                raise
            warnings.warn(f"SWAG skipped epoch {self._epoch + 1}: {error}", KerasOptimizersWarning, stacklevel=2)
            return
        self._say(self._epoch, f"snapshot number {self.snapshots} of the weights")

    def entries(self) -> dict[str, Any]:
        return self.posterior.entries()

    def take_entries(self, entries: dict[str, Any], model: Any) -> None:
        before, found = self.posterior, Posterior(self.rank)
        try:
            found.take_entries(entries)
            self.posterior = found
            self.require_fit(model)
            fits = found.rank == before.rank
        except ValueError:
            fits = False
        if not fits:
            self.posterior = before
            raise ValueError(
                f"`backup_dir` must hold snapshots of this model, for this `rank` ({before.rank}): those in "
                f"'{self.backup_dir}' are not."
            )
