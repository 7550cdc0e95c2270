"""The folder in which a callback keeps what it has collected as training goes.

One file for each of the last two epochs: a process may end between the callback's write and that
of the model, and whichever came first, the state that belongs to the model is there. A file holds
numbers only (NumPy's .npz), and is complete or absent.
"""

import contextlib
import os
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..files import load_arrays, save_arrays


def same_shapes(arrays: Iterable[Any], variables: list[Any]) -> bool:
    """Whether arrays have the shapes of variables."""
    return [np.shape(array) for array in arrays] == [tuple(variable.shape) for variable in variables]


class Backup:
    """The states of a callback after epochs of training.

    A state is a dict of arrays, numbers and strings, as `files.save_arrays()` takes it.

    Args:
        folder: str, path; it is made when the first state is written.
        name: str, how the names of the files begin.
        content: str, what messages call the state.
    """

    def __init__(self, folder: str, name: str, content: str):
        self.folder, self.name, self.content = folder, name, content

    @property
    def exists(self) -> bool:
        """Whether there is any state."""
        return bool(self._epochs())

    def _path(self, epochs):
        return os.path.join(self.folder, f"{self.name}-after-epoch-{epochs}.npz")

    def _epochs(self):
        pattern = re.compile(rf"{self.name}-after-epoch-(\d+)\.npz")
        return sorted(int(match[1]) for match in map(pattern.fullmatch, self._names()) if match)

    def _names(self):
        return os.listdir(self.folder) if os.path.isdir(self.folder) else []

    def write(self, epochs: int, state: dict[str, Any]) -> None:
        """Keep the state after this many epochs, and of the older ones only the one before."""
        os.makedirs(self.folder, exist_ok=True)
        save_arrays(self._path(epochs), state, prefix=f"{self.name}-")
        self._remove(kept=(epochs - 1, epochs))

    def read(self, epochs: int) -> tuple[int, dict[str, Any]] | None:
        """The state with which training goes on after this many epochs.

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
            f"`backup_dir` must hold the {self.content} after epoch {epochs}, where fit() goes on, and "
            f"'{self.folder}' holds that after epoch {after}: give fit() that as `initial_epoch`, "
            "or take an empty folder."
        )

    def _load(self, path):
        try:
            return load_arrays(path)
        except Exception as error:
            raise ValueError(
                f"`backup_dir` must hold files that the callback wrote: '{path}' can't be read "
                f"({type(error).__name__})."
            ) from error

    def require_shapes(self, snapshots: Iterable[Any], variables: list[Any]) -> None:
        """Raise unless each snapshot, a list of arrays, has the shapes of these variables."""
        if not all(same_shapes(snapshot, variables) for snapshot in snapshots):
            raise ValueError(
                f"`backup_dir` must hold the {self.content} of this model: in '{self.folder}' shapes differ from those "
                "of the model's weights."
            )

    def clear(self) -> None:
        """Delete the states, and the folder if nothing else is in it."""
        self._remove(kept=())
        for name in self._names():
            # Of a process that ended while it wrote.
            if re.fullmatch(rf"{self.name}-\w+\.tmp", name):
                os.unlink(os.path.join(self.folder, name))
        with contextlib.suppress(OSError):
            os.rmdir(self.folder)

    def _remove(self, kept):
        for epochs in self._epochs():
            if epochs not in kept:
                os.unlink(self._path(epochs))
