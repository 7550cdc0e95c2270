"""The callback that stores averages as training goes."""

from typing import Any

from .. import arguments
from ..methods import PowerAverage
from ..optimizer import with_inner
from ..snapshots import DTYPES, Anatomy, Folder
from . import moments


class AverageSnapshots:
    """Store the averages of a `PowerAverage` as training goes, for `posthoc_average()`.

    A file for each moment, with all widths: NumPy's .npz, which is complete or absent even if the process is killed
    while it writes (what it wrote is then a file that ends in `.tmp`). The end of training is stored, too.

    A training that goes on, in the same `fit()` or in another process, goes on in the same folder. If it goes on from
    an earlier update than the last one stored, as after a crash, the snapshots after that update get names that end in
    `.old` when the next one is stored: they are of a training that broke off. A training that begins needs a folder
    without snapshots.

    Args:
        directory: str or path, a folder for this training alone; it is made when the first file is.
        every: "epoch", or an int >= 1, the number of batches from one snapshot to the next. 20 to 100 moments in
            a training are enough; the memory is that of the averaged weights for each width and moment.
        dtype: "float32", "float16", "bfloat16" or "float64"; how the averages are stored. The narrow ones take half
            the space, and averages made of them are off by about 1e-3 (float16) or 1e-2 (bfloat16) of the weights.
            Values too large for float16 are stored as float32.
        verbose: int, 0 for silence or 1 for a line for each file.

    Raises:
        TypeError, ValueError: in one line, for an argument that is not as described; before training, if the model
            is not compiled with `PowerAverage`, if training begins in a folder that has snapshots, or if these are of
            another model.

    References:
        Karras et al. 2024, Analyzing and Improving the Training Dynamics of Diffusion Models, arXiv 2312.02696.
    """

    __module__ = "kerasoptimizers"

    #: The module `private` of the callback's Keras.
    private: Any
    # Set by Keras.
    model: Any

    def __init__(self, directory: Any, every: Any = "epoch", dtype: str = "float32", verbose: int = 0):
        super().__init__()
        self.directory = arguments.path("directory", directory)
        self.every = moments.every(every)
        self.dtype = arguments.choice("dtype", dtype, DTYPES)
        self.verbose = arguments.switch("verbose", verbose)
        # Keras 3 need not wait for it where it looks at nothing between the ends of epochs.
        self._supports_tf_logs, self.async_safe = True, self.every == "epoch"
        self._folder = Folder(self.directory)
        self._moments = moments.Moments(self.every)
        self._started_at: int | None = None
        self._stored: int | None = None

    def set_model(self, model: Any) -> None:
        _power_average(model)
        super().set_model(model)  # type: ignore[misc]

    def on_train_begin(self, logs: Any = None) -> None:
        self._started_at = self._stored = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._moments.begin_epoch()
        if self._started_at is None:
            # Not earlier: other callbacks load a model and its count when training begins.
            self._check_folder()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self._moments.batch_is_due(batch):
            self._store()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.every == "epoch":
            self._store()

    def on_train_end(self, logs: Any = None) -> None:
        if self._started_at is not None:
            self._store()

    def _check_folder(self):
        started = _updates(_power_average(self.model))
        known = self._folder.updates()
        if known and not started:
            raise ValueError(
                f"`directory` must be a folder without snapshots for a training that begins, and '{self.directory}' "
                f"has {len(known)}, up to update {known[-1]}."
            )
        if known:
            # All are of this model.
            self._folder.headers(Anatomy(self.model, self.private))
        self._started_at = started

    def _store(self):
        optimizer = _power_average(self.model)
        averages, updates = optimizer.averages, _updates(optimizer)
        if updates in (self._stored, self._started_at if self._stored is None else None) or not averages.has_average:
            return
        if averages.shown:
            raise ValueError(
                "AverageSnapshots can't store averages that are swapped into the model: call swap_weights() first."
            )
        anatomy = Anatomy(self.model, self.private)
        header = {
            "fingerprint": anatomy.fingerprint,
            "parts": anatomy.parts,
            "layers": anatomy.layers,
            "positions": anatomy.positions(averages.variables),
            "names": [arguments.variable_name(variable) for variable in averages.variables],
            "sigma_rel": optimizer.sigma_rel,
            "gamma": list(averages.rule.gammas),
        }
        arrays = [[averages.backend.numpy(slot) for slot in averages.slots[name]] for name in averages.rule.slots]
        if self._stored is None and self._started_at is not None:
            self._folder.set_aside(self._started_at)
        self._folder.write(updates, header, arrays, self.dtype)
        self._stored = updates
        if self.verbose:
            print(f"\nAverages after {updates} updates: stored in {self._folder.file(updates)}")


def _updates(optimizer):
    return int(optimizer.backend.numpy(optimizer.averages.count()))


def _power_average(model):
    """The PowerAverage that a model is compiled with, inside of other optimizers, too."""
    compiled = getattr(model, "optimizer", None)
    for optimizer in with_inner(compiled):
        if isinstance(optimizer, PowerAverage):
            return optimizer
    found = "but is not compiled" if compiled is None else f"not with {type(compiled).__name__}"
    raise ValueError(f"`model` must be compiled with PowerAverage for AverageSnapshots, {found}.")
