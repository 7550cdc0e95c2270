"""The weights of a soup's models, wherever they are: in memory or in a file. They are read block by block."""

import contextlib
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from .arithmetic import blocks

#: Other contents of such a file, by the first part of their path.
_NOT_WEIGHTS = ("optimizer", "metrics", "optimizer_weights", "loss")
#: The file of weights inside a `.keras` file.
_WEIGHTS = "model.weights.h5"


class Tensor(NamedTuple):
    """One array of a model.

    Attributes:
        name: str, the same in models that were built alike.
        shape: tuple of int.
        dtype: str.
        layer: str, the name of its layer without a number, where `name` doesn't hold it; "" if it is not known.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    layer: str = ""

    @property
    def floating(self) -> bool:
        """Whether it is averaged: seeds and counters are not."""
        return "float" in self.dtype


class Source:
    """The arrays of one model.

    Attributes:
        label: str, what a message calls it.
        tensors: list of `Tensor`, those that are averaged.
        others: dict of (name, how many of that name came before) and `Tensor`: seeds, counters and the like.
    """

    label: str
    layout: str

    def _note(self, found: list[tuple[Tensor, Any]]) -> None:
        """Take note of all arrays and of where they are."""
        self.tensors = [tensor for tensor, _ in found if tensor.floating]
        self._places = [place for tensor, place in found if tensor.floating]
        self.others: dict[tuple[str, int], Tensor] = {}
        self._other_places: dict[tuple[str, int], Any] = {}
        for tensor, place in found:
            if not tensor.floating:
                key = tensor.name, sum(name == tensor.name for name, _ in self.others)
                self.others[key], self._other_places[key] = tensor, place

    def _read(self, place: Any, part: Any) -> np.ndarray:
        raise NotImplementedError

    def read(self, position: int, part: Any = ...) -> np.ndarray:
        """A part of the array at this position of `tensors`, as NumPy knows it: bfloat16 may be float32."""
        return self._read(self._places[position], part)

    def read_other(self, key: tuple[str, int]) -> np.ndarray:
        """One of `others`."""
        return self._read(self._other_places[key], ...)


class ModelSource(Source):
    """A model in memory.

    Args:
        label: str.
        model: built Keras model.
        variables: list of its variables, in an order that is the same in models built alike.
        backend: how they are read and written, as in `backends`.
    """

    layout = "model"

    def __init__(self, label: str, model: Any, variables: list[Any], backend: Any):
        self.label, self.model, self._backend = label, model, backend
        names = anonymous([_path(variable, model) for variable in variables])
        tensors = [Tensor(name, tuple(v.shape), backend.dtype(v)) for name, v in zip(names, variables)]
        self._note(list(zip(tensors, variables)))

    def _read(self, place, part):
        return self._backend.numpy(place if part is ... else place[part])

    def write(self, value: Callable[[int, Any], Any], other: Callable[[Any], Any]) -> None:
        """Set the model to other values; arguments as for `FileSource.overwrite()`."""
        for position, (tensor, variable) in enumerate(zip(self.tensors, self._places)):
            parts = [value(position, part) for part in blocks(tensor.shape)]
            whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
            self._backend.write(variable, self._backend.cast(whole, tensor.dtype))
        for key, variable in self._other_places.items():
            found = other(key)
            if found is not None:
                self._backend.write(variable, found)

    def structure(self) -> list[Any] | None:
        """What its layers compute, as in `FileSource`."""
        try:
            return structure(json.loads(self.model.to_json()))
        except Exception:
            return None  # a model of the user's own class that has no configuration


class FileSource(Source):
    """A file of Keras's, open for reading.

    Args:
        label: str, what a message calls it.
        path: str.
        stack: `contextlib.ExitStack` that closes it.

    Attributes:
        layout: str, "keras" for the layout that `.keras` and `.weights.h5` have, "legacy" for that of older files.
        config: dict, the model's configuration; None where the file has none.
        generation: int, the Keras that wrote it, 2 or 3; None where it is not known.
        tensors: list of `Tensor`.

    Raises:
        ValueError: in one line, if it is not such a file, or torn.
    """

    def __init__(self, label: str, path: str, stack: contextlib.ExitStack):
        import h5py

        self.label, self.path = label, path
        self.config: Any = None
        self.generation: int | None = None
        self._members: list[str] = []
        if not os.path.exists(path):
            raise ValueError(f"{label} does not exist.")
        if os.path.isdir(path):
            raise ValueError(f"{label} must be a file of weights or of a model, and is a folder.")
        try:
            zipped = zipfile.is_zipfile(path)
            opened = stack.enter_context(self._member(path, stack) if zipped else open(path, "rb"))
            self.file: Any = stack.enter_context(h5py.File(opened, "r"))
            if not zipped:
                self._read_attributes(self.file.attrs)
            self.layout = "legacy" if "layer_names" in self.file.attrs or "model_weights" in self.file else "keras"
            places = self._legacy_places() if self.layout == "legacy" else self._keras_places()
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{label} can't be read: it is torn, or no file of Keras's ({reason}).") from error
        self._note([(Tensor(name, *_type(self.file[p]), layer=layer), p) for name, p, layer in places])
        if not self.tensors:
            raise ValueError(f"{label} holds no weights.")
        self._positions = {place: position for position, place in enumerate(self._places)}

    def _member(self, path, stack):
        """The weights inside of a `.keras` file."""
        archive = stack.enter_context(zipfile.ZipFile(path))
        self._members = archive.namelist()
        self.config = json.loads(archive.read("config.json"))
        self.generation = _generation(json.loads(archive.read("metadata.json")).get("keras_version"))
        info = archive.getinfo(_WEIGHTS)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError("its weights are compressed, which Keras doesn't do")
        return _Member(path, info)

    def _read_attributes(self, attributes):
        """What older files say of themselves."""
        if "model_config" in attributes:
            self.config = json.loads(_text(attributes["model_config"]))
        self.generation = _generation(_text(attributes.get("keras_version", "")))

    def _keras_places(self):
        found: list[Any] = []

        def visit(place, item):
            parts = place.split("/")
            if hasattr(item, "shape") and parts[0] not in _NOT_WEIGHTS:
                # Keras numbers the layers of a class itself, and notes the name a layer has.
                found.append((place, _text(item.parent.attrs.get("name", ""))))

        self.file.visititems(visit)
        found.sort(key=lambda entry: [(len(part), part) for part in entry[0].split("/")])
        layers = anonymous([layer for _, layer in found])
        return [(place, place, layer) for (place, _), layer in zip(found, layers)]

    def _legacy_places(self):
        root = "model_weights/" if "model_weights" in self.file else ""
        places: list[str] = []
        for layer in [*_listed(self.file[root or "/"].attrs, "layer_names"), "top_level_model_weights"]:
            if root + layer in self.file:
                group = self.file[root + layer]
                places += [f"{root}{layer}/{name}" for name in _listed(group.attrs, "weight_names")]
        return [(name, place, "") for name, place in zip(anonymous([p.removeprefix(root) for p in places]), places)]

    def _read(self, place, part):
        values = self.file[place][part]
        if values.dtype.kind != "V" or values.dtype.itemsize != 2:
            return values
        # The upper half of a float32: HDF5 has no such type.
        return (values.view("uint16").astype("uint32") << 16).view("float32")

    def structure(self) -> list[Any] | None:
        """What its layers compute; None where the file doesn't say."""
        return None if self.config is None else structure(self.config)

    def write_like(self, path: str, value: Callable[[int, Any], Any] | None) -> None:
        """Write a file of weights with the same layout, without the optimizer's.

        Args:
            value: function of a position and a part of that tensor that gives what to write; None writes the arrays'
                shapes alone, which takes no space.
        """
        import h5py

        def visit(place, item):
            if place.split("/")[0] in _NOT_WEIGHTS:
                return
            position = self._positions.get(place)
            if not hasattr(item, "shape"):
                _copy_attributes(item.attrs, file.require_group(place).attrs)
            elif position is None:
                self.file.copy(place, file, name=place)
            else:
                tensor = self.tensors[position]
                # float32 holds bfloat16 exactly, and any Keras reads it.
                dtype = "float32" if tensor.dtype == "bfloat16" else item.dtype
                dataset = file.create_dataset(place, shape=item.shape, dtype=dtype)
                if tensor.dtype != "bfloat16":
                    _copy_attributes(item.attrs, dataset.attrs)
                for part in blocks(item.shape) if item.size else ():
                    if value is not None:
                        dataset[part] = value(position, part)

        with h5py.File(path, "w") as file:
            _copy_attributes(self.file.attrs, file.attrs)
            self.file.visititems(visit)

    def overwrite(self, value: Callable[[int, Any], Any], other: Callable[[Any], Any]) -> None:
        """Write other values into the file itself. It is closed then.

        Args:
            value: as for `write_like()`.
            other: function of a key of `others` that gives an array, or None for no other value.
        """
        import h5py

        self.file.close()
        with h5py.File(self.path, "r+") as file:
            for position, (tensor, place) in enumerate(zip(self.tensors, self._places)):
                if tensor.dtype == "bfloat16":
                    del file[place]
                    file.create_dataset(place, shape=tensor.shape, dtype="float32")
                for part in blocks(tensor.shape) if np.prod(tensor.shape) else ():
                    file[place][part] = value(position, part)
            for key, place in self._other_places.items():
                found = other(key)
                if found is not None:
                    file[place][...] = found

    def hollow(self, folder: str) -> str:
        """The path of a copy of a model's file, without its values."""
        if not self._members:
            path = os.path.join(folder, "hollow.h5")
            self.write_like(path, None)
            return path
        weights = os.path.join(folder, _WEIGHTS)
        self.write_like(weights, None)
        path = os.path.join(folder, "hollow.keras")
        with zipfile.ZipFile(self.path) as whole, zipfile.ZipFile(path, "w") as archive:
            for member in self._members:
                if member != _WEIGHTS:
                    with whole.open(member) as read, archive.open(member, "w", force_zip64=True) as write:
                        shutil.copyfileobj(read, write)
            archive.write(weights, _WEIGHTS)
        os.unlink(weights)
        return path


class _Member(io.RawIOBase):
    """An uncompressed member of a zip file. Python's own would be read again from its beginning at every step back."""

    def __init__(self, path: str, info: zipfile.ZipInfo):
        super().__init__()
        self._file = open(path, "rb")
        self._file.seek(info.header_offset + 26)
        lengths = self._file.read(4)
        self._start = info.header_offset + 30 + sum(int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
        self._size, self._at = info.file_size, 0

    def readable(self):
        return True

    def seekable(self):
        return True

    def seek(self, offset, whence=os.SEEK_SET):
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self):
        return self._at

    def readinto(self, buffer):
        self._file.seek(self._start + self._at)
        count = self._file.readinto(memoryview(buffer)[: max(0, self._size - self._at)])
        self._at += count
        return count

    def close(self):
        self._file.close()
        super().close()


def anonymous(names: list[str]) -> list[str]:
    """Names without the numbers that tell models of one process apart: "dense_7/kernel:0" is "dense/kernel"."""
    return ["/".join(re.sub(r"_\d+$", "", part) for part in name.split(":")[0].split("/")) for name in names]


def _path(variable, model):
    """The path of a model's variable, without the model's own name."""
    name = getattr(variable, "path", None) or variable.name
    return name.removeprefix(f"{model.name}/")


def _type(dataset) -> tuple[tuple[int, ...], str]:
    name = dataset.dtype.name
    if dataset.dtype.kind == "V":
        name = _text(dataset.attrs.get("dtype", "")) or ("bfloat16" if dataset.dtype.itemsize == 2 else "unknown")
    return tuple(dataset.shape), name if name == "bfloat16" or dataset.dtype.kind != "V" else "unknown"


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def _generation(version):
    return int(version[0]) if version and version[0] in "23" else None


def _listed(attributes, name) -> list[str]:
    """A list of names; Keras cuts long ones into several attributes."""
    if name in attributes:
        return [_text(entry) for entry in attributes[name]]
    parts: list[str] = []
    for key in _numbered(attributes, name):
        parts += [_text(entry) for entry in attributes[key]]
    return parts


def _numbered(attributes, name) -> Iterator[str]:
    number = 0
    while f"{name}{number}" in attributes:
        yield f"{name}{number}"
        number += 1


def _copy_attributes(source, target):
    import h5py

    for name, value in source.items():
        if isinstance(value, np.ndarray) and value.dtype == object:
            target.create(name, [_text(entry) for entry in value], dtype=h5py.string_dtype())
        else:
            target[name] = value


# The settings that decide what layers compute. Layers that do nothing once a model is trained don't count, nor does
# how it was trained: soups are made of models that were trained with different settings.
_SETTINGS = ("activation", "recurrent_activation", "padding", "strides", "dilation_rate", "pool_size", "num_heads")
_ONLY_IN_TRAINING = re.compile(r"Dropout|Noise|^Random|ActivityRegularization|InputLayer")


def structure(config: Any, outermost: bool = True) -> list[Any]:
    """Class, name and settings of every layer in a model's configuration; the model's own name may be any."""
    found: list[Any] = []
    if isinstance(config, list):
        for value in config:
            found += structure(value, False)
    if isinstance(config, dict):
        settings: Any = config.get("config")
        layer = isinstance(settings, dict) and "class_name" in config
        if layer and ("layers" in settings or "trainable" in settings):
            kind = str(config["class_name"]).split(">")[-1]
            if _ONLY_IN_TRAINING.search(kind):
                return found
            name = "" if outermost else anonymous([str(settings.get("name"))])[0]
            found.append((kind, name, [(key, _setting(settings[key])) for key in _SETTINGS if key in settings]))
        for key, value in (settings if layer else config).items():
            if key not in ("compile_config", "build_config", "inbound_nodes"):
                found += structure(value, False)
    return found


def _setting(value):
    """A setting as it compares: Keras writes an activation as its name or as a dictionary."""
    if isinstance(value, dict):
        return str(value.get("config", value.get("class_name")))
    return tuple(value) if isinstance(value, list) else value


def check_alike(sources: list[Any]) -> None:
    """Refuse models that are not built alike.

    Args:
        sources: list of sources of one layout; the others are held against the first.
    """
    first = sources[0]
    for other in sources[1:]:
        difference = _difference(first, other)
        if difference is not None:
            raise ValueError(f"{other.label} must be built like {first.label}, and {difference}.")


def _difference(first, other):
    for here, there in zip(first.tensors, other.tensors):
        # Loaded models of Keras 2 have short names.
        if here.name != there.name and not f"/{here.name}".endswith(f"/{there.name}"):
            return f"has '{there.name}' in place of '{here.name}'"
        if here.layer and there.layer and here.layer != there.layer:
            return f"has a layer '{there.layer}' in place of '{here.layer}'"
        if here.shape != there.shape:
            return f"has '{there.name}' of shape {there.shape}, not {here.shape}"
    if len(first.tensors) != len(other.tensors):
        return f"has {len(other.tensors)} weights, not {len(first.tensors)}"
    here, there = first.structure(), other.structure()
    if here is not None and there is not None and here != there:
        one, two = next(((a, b) for a, b in zip(here, there) if a != b), (f"{len(here)}", f"{len(there)} layers"))
        return f"has {_layer(two)}, not {_layer(one)}"
    return None


def _layer(found):
    if not isinstance(found, tuple):
        return str(found)
    kind, name, settings = found
    return f"{kind}({', '.join(f'{key}={value!r}' for key, value in [('name', name), *settings])})"


def label(number: int, value: Any) -> str:
    """What a message calls a model of a list."""
    return f"`models` number {number}" + (f" ('{os.fspath(value)}')" if isinstance(value, (str, os.PathLike)) else "")


def is_tensorflow_checkpoint(path: str) -> bool:
    """Whether it is a checkpoint or a saved model in TensorFlow's format."""
    return os.path.exists(path + ".index") or os.path.exists(os.path.join(path, "saved_model.pb"))
