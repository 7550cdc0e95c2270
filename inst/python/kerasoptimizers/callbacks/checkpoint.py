"""Checkpoints that hold the averages, and files that are there whole or not at all."""

import contextlib
import functools
import os
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

from .. import arguments
from ..notices import KerasOptimizersWarning
from ..values import Held, Replaced
from .watch import averages_beside


class AverageModelCheckpoint:
    """Checkpoints that hold the averages.

    Saves as Keras's `ModelCheckpoint` does, with the averages in place of the weights. A file (`.keras` or `.h5`)
    replaces an older one only once it is written, so a killed process leaves none that is torn (perhaps one
    whose name begins with `.part-`). While there is no average yet nothing is saved, and a warning says so once.
    Batch-norm statistics in the file belong to the weights: recompute them after loading.

    Args:
        update_weights: bool; True leaves the averages in the model each time it was saved, so that training goes
            on from them; False puts the weights back, and training ends as without this callback.
        filepath: str or path, where to save; may hold `{epoch}` and names of metrics.
        monitor: str, metric that `save_best_only` watches. It is one of the averages if `SwapAverages` is among
            the callbacks, otherwise one of the weights.
        verbose: int, 0 or 1.
        save_best_only: bool, whether to save only where `monitor` is best so far.
        save_weights_only: bool, whether to leave the optimizer and the model's configuration out.
        mode: "auto", "min" or "max", what is best.
        save_freq: "epoch", or an int, the number of batches from one save to the next.
        **kwargs: further arguments of Keras's `ModelCheckpoint`.

    Raises:
        ValueError: if the model is not compiled with an averaging optimizer.

    References:
        Arguments are those of TensorFlow Addons' `AverageModelCheckpoint`.
    """

    __module__ = "kerasoptimizers"

    model: Any
    #: Its Keras's class of callback lists.
    callback_list: type

    def __init__(
        self,
        update_weights: bool,
        filepath: Any,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: Any = "epoch",
        **kwargs: Any,
    ):
        self.update_weights = arguments.flag("update_weights", update_weights)
        if not isinstance(filepath, os.PathLike):
            arguments.string("filepath", filepath)
        arguments.string("monitor", monitor)
        arguments.switch("verbose", verbose)
        arguments.flag("save_best_only", save_best_only)
        arguments.flag("save_weights_only", save_weights_only)
        arguments.choice("mode", mode, ("auto", "min", "max"))
        count = isinstance(save_freq, int) and not isinstance(save_freq, bool) and save_freq >= 1
        if not count and not (isinstance(save_freq, str) and save_freq == "epoch"):
            arguments.refuse("save_freq", "'epoch' or a whole number >= 1", save_freq)
        threshold = kwargs.get("initial_value_threshold")
        if threshold is not None:
            arguments.real("initial_value_threshold", threshold, "a number", lambda x: True)
        settings = {"save_best_only": save_best_only, "save_weights_only": save_weights_only, **kwargs}
        super().__init__(  # type: ignore[call-arg]
            filepath, monitor=monitor, verbose=verbose, mode=mode, save_freq=save_freq, **settings
        )
        self._warned = False

    def set_model(self, model: Any) -> None:
        averages_beside(self.callback_list, model)
        super().set_model(model)  # type: ignore[misc]

    def _save_model(self, *args, **kwargs):
        averages = averages_beside(self.callback_list, self.model)
        if not averages.has_average:
            if not self._warned:
                warnings.warn(
                    "AverageModelCheckpoint saves nothing yet: there is no average.",
                    KerasOptimizersWarning,
                    stacklevel=2,
                )
                self._warned = True
            return
        # With non-trainable weights, where these are averaged too.
        variables = [v for v in self.model.variables if averages.position(v) is not None]
        # Twice: an interrupt may keep one of them from its work.
        with Held(variables, averages.backend) as held, held:
            averages.assign(variables, leave_others=False)
            if self.update_weights:
                held.keep()
            with whole_files(self.model):
                super()._save_model(*args, **kwargs)  # type: ignore[misc]


_ENDINGS = (".weights.h5", ".keras", ".h5", ".hdf5")


@contextlib.contextmanager
def whole_files(model: Any) -> Iterator[None]:
    """While it lasts, what the model saves replaces an older file only once it is written.

    Keras writes in place: a process that is killed meanwhile leaves a torn file, and has lost the one before.
    Folders, TensorFlow's checkpoints and remote paths are written as Keras does.

    Args:
        model: Keras model of either generation.
    """
    with Replaced() as replaced, replaced:
        for name in ("save", "save_weights"):
            replaced.put(model, name, _whole)
        yield


def _whole(save):
    @functools.wraps(save)
    def save_whole(filepath, *args, **kwargs):
        path = os.path.realpath(filepath)
        folder, name = os.path.split(path)
        # Keras decides by the ending.
        ending = next((ending for ending in _ENDINGS if name.endswith(ending)), None)
        if ending is None or not os.path.isdir(folder):
            return save(filepath, *args, **kwargs)
        handle, partial = tempfile.mkstemp(prefix=".part-", suffix=ending, dir=folder)
        try:
            os.close(handle)
            # Keras asks before it overwrites a file.
            os.unlink(partial)
            save(partial, *args, **kwargs)
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.remove(partial)
            raise

    return save_whole
