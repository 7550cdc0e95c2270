"""The folder in which an SWA callback keeps its average as training goes.

One file for each of the last two epochs: a process may end between the callback's write and that
of the model, and whichever came first, the average that belongs to the model is there. A file holds
numbers only (NumPy's .npz), and is complete or absent.
"""

import contextlib
import os
import re
from typing import Any

import numpy as np

from ..files import write_arrays


class Backup:
    """The states of an average after epochs of training.

    A state is a dict: lists of arrays, and numbers, by name. SWA has `weights` and `finished` (empty but after
    an epoch that recalibrated batch norm).

    Args:
        folder: str, path; it is made when the first state is written.
        name: str, what the names of its files begin with.
    """

    def __init__(self, folder: str, name: str = "swa"):
        self.folder, self._name = folder, name
        self._pattern = re.compile(rf"{name}-after-epoch-(\d+)\.npz")

    @property
    def exists(self) -> bool:
        """Whether there is any state."""
        return bool(self._epochs())

    def _path(self, epochs):
        return os.path.join(self.folder, f"{self._name}-after-epoch-{epochs}.npz")

    def _epochs(self):
        return sorted(int(match[1]) for match in map(self._pattern.fullmatch, self._names()) if match)

    def _names(self):
        return os.listdir(self.folder) if os.path.isdir(self.folder) else []

    def write(self, epochs: int, state: dict[str, Any]) -> None:
        """Keep the state after so many epochs, and of the others the one before."""
        os.makedirs(self.folder, exist_ok=True)
        arrays: dict[str, Any] = {}
        for name, value in state.items():
            listed = isinstance(value, list)
            arrays.update({f"{name}-{i}": _plain(one) for i, one in enumerate(value)} if listed else {name: value})
        write_arrays(self._path(epochs), arrays)
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
        state: dict = {"weights": [], "finished": []}
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
            if re.fullmatch(rf"{self._name}-\w+\.tmp", name):
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
