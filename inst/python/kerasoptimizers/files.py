"""Files that are there whole or not at all."""

import contextlib
import os
import tempfile
from typing import Any

import numpy as np


def write_arrays(path: str, arrays: dict[str, Any]) -> None:
    """Write arrays to a file (NumPy's .npz), which replaces an older one once it is written.

    Args:
        path: str; its folder must exist. A process that is killed leaves a file there that ends in `.tmp`.
        arrays: dict of arrays and numbers.
    """
    folder, name = os.path.split(path)
    handle, partial = tempfile.mkstemp(prefix=f"{name.split('-')[0]}-", suffix=".tmp", dir=folder)
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
