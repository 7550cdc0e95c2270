"""Files of arrays that are there whole or not at all."""

import contextlib
import os
import tempfile
from typing import Any

import numpy as np


def save_arrays(path: str, arrays: dict[str, Any], prefix: str = ".part-") -> None:
    """Write arrays and numbers into one .npz file; it replaces an older one only once it is written.

    Args:
        path: str, in a folder that exists.
        arrays: dict of arrays, numbers and strings.
        prefix: str, how the name of the file begins while it is written.
    """
    handle, partial = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=os.path.dirname(path) or ".")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise


def load_arrays(path: str) -> dict[str, Any]:
    """The contents of such a file: arrays, and numbers and strings as Python has them."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return {name: value if value.ndim else value.item() for name, value in arrays.items()}


def numbered(name: str, values: Any) -> dict[str, np.ndarray]:
    """A list of arrays as entries of a file."""
    return {f"{name}-{i}": plain(value) for i, value in enumerate(values)}


def listed(name: str, entries: dict[str, Any]) -> list[np.ndarray]:
    """The list that `numbered()` made entries of."""
    count = sum(entry.startswith(f"{name}-") for entry in entries)
    return [np.asarray(entries[f"{name}-{i}"]) for i in range(count)]


def plain(array: np.ndarray) -> np.ndarray:
    """An array of a type that NumPy knows itself: not bfloat16, whose values float32 holds exactly."""
    return array.astype("float32") if array.dtype.kind == "V" else array
