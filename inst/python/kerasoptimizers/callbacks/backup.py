"""The folder in which an SWA callback keeps its average as training goes.

One file for each of the last two epochs: a process may end between the callback's write and that
of the model, and whichever came first, the average that belongs to the model is there. A file holds
numbers only (NumPy's .npz), and is complete or absent.
"""

import collections
import contextlib
import os
import re
import tempfile
from typing import Any

import numpy as np

_NAME = "swa-after-epoch-{}.npz"
_PATTERN = re.compile(r"swa-after-epoch-(\d+)\.npz")


class Backup:
    """The states of an average after epochs of training.

    A state is a dict: `weights` (list of arrays), `finished` (list of arrays, empty but after an
    epoch that recalibrated batch norm), further lists of arrays, and numbers by name.

    Args:
        folder: str, path; it is made when the first state is written.
    """

    def __init__(self, folder: str):
        self.folder = folder

    @property
    def exists(self) -> bool:
        """Whether there is any state."""
        return bool(self._epochs())

    def _path(self, epochs):
        return os.path.join(self.folder, _NAME.format(epochs))

    def _epochs(self):
        return sorted(int(match[1]) for match in map(_PATTERN.fullmatch, self._names()) if match)

    def _names(self):
        return os.listdir(self.folder) if os.path.isdir(self.folder) else []

    def write(self, epochs: int, state: dict[str, Any]) -> None:
        """Keep the state after so many epochs, and of the others the one before."""
        os.makedirs(self.folder, exist_ok=True)
        arrays = {name: value for name, value in state.items() if not isinstance(value, list)}
        for name in (name for name, value in state.items() if isinstance(value, list)):
            arrays.update({f"{name}-{i}": _plain(value) for i, value in enumerate(state[name])})
        handle, path = tempfile.mkstemp(prefix="swa-", suffix=".tmp", dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(path, self._path(epochs))
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            raise
        self._remove(kept=(epochs - 1, epochs))

    def read(self, epochs: int) -> tuple[int, dict[str, Any]] | None:
        """The state with which training goes on after so many epochs.

        Returns:
            (number of epochs, state): the state after `epochs`, or, where the process ended before
            that was written, after one less. None where training only begins.

        Raises:
            ValueError: in one line, if there are states, but none of these.
        """
        known = self._epochs()
        found = next((n for n in (epochs, epochs - 1) if n in known), None)
        if found is not None:
            return found, self._load(self._path(found))
        if not known or (epochs == 0 and known == [1]):
            return None
        after = " and ".join(str(n) for n in known)
        raise ValueError(
            f"`backup_dir` must hold the average after epoch {epochs}, where fit() goes on, and "
            f"'{self.folder}' holds that after epoch {after}: give fit() that as `initial_epoch`, "
            "or take an empty folder."
        )

    def _load(self, path):
        state: dict = collections.defaultdict(list, weights=[], finished=[])
        try:
            with np.load(path, allow_pickle=False) as file:
                for name in file.files:
                    kind, _, number = name.partition("-")
                    if number:
                        state[kind].append(file[name])
                    else:
                        state[kind] = file[name].item()
        except Exception as error:
            raise ValueError(
                f"`backup_dir` must hold files that the callback wrote: '{path}' can't be read "
                f"({type(error).__name__})."
            ) from error
        return state

    def clear(self) -> None:
        """Delete the states, and the folder if nothing else is in it."""
        self._remove(kept=())
        for name in self._names():
            # Of a process that ended while it wrote.
            if re.fullmatch(r"swa-\w+\.tmp", name):
                os.unlink(os.path.join(self.folder, name))
        with contextlib.suppress(OSError):
            os.rmdir(self.folder)

    def _remove(self, kept):
        for epochs in self._epochs():
            if epochs not in kept:
                os.unlink(self._path(epochs))


def _plain(array):
    """An array of a type that NumPy knows itself: not bfloat16, whose values float32 holds exactly."""
    return array.astype("float32") if array.dtype.kind == "V" else array
