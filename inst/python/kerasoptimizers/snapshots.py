"""A folder of snapshots: averages as they were after updates of a training, one file for each of these moments.

A file holds arrays only (NumPy's .npz) and is complete or absent. Its header says after how many updates it was
written, which averages it holds, of which weights, and which snapshots were there before: so a file that is torn, is of
another model or is missing is found before anything is done with the others.
"""

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import arguments
from .files import save_arrays

_PATTERN = re.compile(r"averages-(\d+)\.npz")
#: The ending of snapshots that later ones have replaced.
_OLD = ".old"

DTYPES = ("float32", "float16", "bfloat16", "float64")


class Anatomy:
    """The identity of a model: its weights, in an order that does not depend on which layers are frozen.

    Names that Keras numbers (`dense_3`) differ from one session to the next, so they don't count.

    Args:
        model: Keras model, built.
        private: the module of that name of its Keras.

    Attributes:
        variables: list of its weights.
        parts: list of [class of the layer, name of the weight, shape], for each weight.
        layers: list of the classes of its layers.
    """

    def __init__(self, model: Any, private: Any):
        layers = list(private.layers_of(model))
        found: dict[int, tuple[Any, list]] = {}
        # Containers come before what they hold: from the end, each weight is met in its own layer first.
        for layer in reversed(layers):
            for variable in layer.weights:
                if not arguments.is_table(variable):
                    name = re.split("[/:]", variable.name.removesuffix(":0"))[-1]
                    part = [type(layer).__name__, re.sub(r"_\d+$", "", name), list(map(int, variable.shape))]
                    found.setdefault(id(variable), (variable, part))
        entries = list(found.values())[::-1]
        self.variables = [variable for variable, _ in entries]
        self.parts = [part for _, part in entries]
        holders = ("InputLayer", "Sequential", "Functional", "Model")
        self.layers = [type(layer).__name__ for layer in layers[1:] if type(layer).__name__ not in holders]

    @property
    def fingerprint(self) -> str:
        """A short text that other architectures don't have."""
        text = json.dumps([self.parts, self.layers])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def positions(self, variables: list[Any]) -> list[int]:
        """The positions of variables among the weights."""
        places = {id(variable): i for i, variable in enumerate(self.variables)}
        return [places[id(variable)] for variable in variables]

    def difference(self, header: dict[str, Any]) -> str:
        """In a few words, how a snapshot's model is another one."""
        if len(header["parts"]) != len(self.parts):
            return f"it is of a model with {len(header['parts'])} weights, and this one has {len(self.parts)}"
        for number, (theirs, own) in enumerate(zip(header["parts"], self.parts)):
            if theirs != own:
                words = [f"a {layer}'s {name} of shape {tuple(shape)}" for layer, name, shape in (theirs, own)]
                return f"weight {number} is {words[0]} there, and {words[1]} in the model"
        return "its layers are others"


class Folder:
    """The snapshots in a folder.

    Args:
        path: str.
        name: str, how messages call the argument.
    """

    def __init__(self, path: str, name: str = "directory"):
        self.path, self._name = path, name

    def updates(self) -> list[int]:
        """After how many updates there are snapshots."""
        names = os.listdir(self.path) if os.path.isdir(self.path) else []
        return sorted(int(match[1]) for match in map(_PATTERN.fullmatch, names) if match)

    def file(self, updates: int) -> str:
        return os.path.join(self.path, f"averages-{updates:09d}.npz")

    def write(self, updates: int, header: dict[str, Any], averages: list[list[np.ndarray]], dtype: str) -> None:
        """Store a snapshot.

        Args:
            updates: int, after how many it is.
            header: dict of plain values.
            averages: for each width the list of its arrays.
            dtype: str, one of `DTYPES`. Arrays that do not fit into float16 are stored as float32.
        """
        os.makedirs(self.path, exist_ok=True)
        before = [t for t in self.updates() if t < updates]
        header = {"format": 1, **header, "updates": updates, "before": before, "bfloat16": dtype == "bfloat16"}
        arrays = {"header": np.frombuffer(json.dumps(header).encode(), "uint8")}
        for i, own in enumerate(averages):
            arrays.update({f"average-{i}-{j}": _narrowed(array, dtype) for j, array in enumerate(own)})
        save_arrays(self.file(updates), arrays, prefix="averages-")

    def set_aside(self, after: int) -> None:
        """Rename the snapshots after an update, so that they are not taken for those of the training that goes on."""
        for t in self.updates():
            if t > after:
                # Another process that trains on, too, may have done it.
                with contextlib.suppress(FileNotFoundError):
                    os.replace(self.file(t), self.file(t) + _OLD)

    def headers(self, anatomy: Anatomy) -> list[dict[str, Any]]:
        """The headers of all snapshots, in order of their updates; all of them are of this model.

        Raises:
            ValueError: in one line that names the file, for a file that is not whole, is of another model, was not
                written by the callback, or is missing. Also for a folder without snapshots.
        """
        if not os.path.isdir(self.path):
            raise ValueError(f"`{self._name}` must be a folder of snapshots: there is no folder '{self.path}'.")
        found = []
        for name in sorted(name for name in os.listdir(self.path) if name.endswith(".npz")):
            path = os.path.join(self.path, name)
            with self._opened(path) as file:
                known = "header" in file.files and _PATTERN.fullmatch(name)
                header = json.loads(file["header"].tobytes()) if known else {}
            if header.get("format") != 1:
                raise ValueError(
                    f"`{self._name}` must hold files that AverageSnapshots wrote: '{path}' is none. Other files belong "
                    "elsewhere."
                )
            if header["fingerprint"] != anatomy.fingerprint:
                raise ValueError(
                    f"`{self._name}` must hold averages of this model, and '{path}' does not: "
                    f"{anatomy.difference(header)}."
                )
            found.append(header)
        if not found:
            raise ValueError(
                f"`{self._name}` must hold snapshots, as AverageSnapshots writes them: '{self.path}' has none."
            )
        found.sort(key=lambda header: header["updates"])
        there = {header["updates"] for header in found}
        missing = sorted({t for header in found for t in header["before"]} - there)
        if missing:
            raise ValueError(
                f"`{self._name}` must hold all snapshots of the training: '{self.file(missing[0])}' is missing."
            )
        return found

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[Any]:
        try:
            with np.load(path, allow_pickle=False) as file:
                yield file
        except Exception as error:
            raise ValueError(
                f"`{self._name}` must hold whole files: '{path}' can't be read ({type(error).__name__})."
            ) from error

    def combined(self, headers: list[dict[str, Any]], shares: list[np.ndarray]) -> Iterator[np.ndarray]:
        """The sum of averages, each times its share, weight by weight; in float64, from one stored array at a time.

        Args:
            headers: of the snapshots.
            shares: for each of them an array of a share for each width.
        """
        first = headers[0]
        shapes = [first["parts"][position][2] for position in first["positions"]]
        for group in _groups([math.prod(shape) for shape in shapes]):
            totals = [np.zeros(shapes[j]) for j in group]
            for header, own in zip(headers, shares):
                if np.any(own):
                    self._add(header, own, group, totals)
            yield from totals

    def _add(self, header, shares, group, totals):
        with self._opened(self.file(header["updates"])) as file:
            for i, share in enumerate(shares):
                for j, total in zip(group, totals if share else ()):
                    array = file[f"average-{i}-{j}"]
                    array = _from_bfloat16(array) if header["bfloat16"] else array
                    total += np.multiply(array, share, dtype="float64")


def _groups(sizes):
    """Positions of weights that are read together: of up to 8 million elements, to open few files and hold little."""
    group: list[int] = []
    held = 0
    for j, size in enumerate(sizes):
        if group and held + size > 2**23:
            yield group
            group, held = [], 0
        group.append(j)
        held += size
    yield group


def _narrowed(array, dtype):
    """An array as it is stored."""
    array = np.asarray(array)
    if dtype == "bfloat16":
        return _to_bfloat16(array)
    with np.errstate(over="ignore"):
        narrow = array.astype(dtype)
    fits = np.isfinite(narrow).all() or not np.isfinite(array.astype("float64")).all()
    return narrow if fits else array.astype("float32")


def _to_bfloat16(array):
    """The bits of an array in bfloat16, which NumPy doesn't know, rounded to the nearest, ties to even."""
    bits = np.asarray(array, "float32", order="C").view("uint32")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(array), 0x7FC0, rounded).astype("uint16")


def _from_bfloat16(bits):
    return np.left_shift(bits, 16, dtype="uint32").view("float32")
