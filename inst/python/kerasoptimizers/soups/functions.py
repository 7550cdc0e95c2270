"""The public functions on models and files, once for both Kerases."""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from .. import arguments, batch_norm
from ..batch_norm.data import leaves
from ..notices import KerasOptimizersWarning
from ..values import Held, Replaced, variables_of
from . import arithmetic
from .checkpoints import Checkpoints
from .sources import FileSource, ModelSource, check_alike, is_tensorflow_checkpoint, label

_METHODS = ("linear", "slerp")
_MODES = ("max", "min")

#: A function of the sources and a tensor's position. It returns the coefficients of the sources for that tensor, and
#: their divisor.
Recipe = Callable[[Sequence[Any], int], tuple[Iterable[Any], float]]


class Soups:
    """Averages of finished models, for one Keras.

    Args:
        keras: the module.
        base: the class that our optimizers of this Keras build on.
        pass_type: function that gives the class of batch-norm passes.
        further: function of a model that gives the states which its Keras doesn't count among its variables.
    """

    def __init__(self, keras: Any, base: Any, pass_type: Any, further: Any = lambda model: []):
        self._keras, self._base, self._pass_type, self._further = keras, base, pass_type, further
        self._number = 2 if keras.__name__ == "tf_keras" else 3

    def average_models(
        self,
        models: Any,
        weights: Any = None,
        *,
        into: Any = None,
        data: Any = None,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """The mean of finished models: a uniform soup.

        The mean is taken in float64 and rounded once, to the type of the first model's weights. Values that are
        not floating-point (seeds, counters) and lookup tables are the first model's. One model alone is copied bit
        for bit. Files are read block by block: memory holds the new model and little else, however many there are.

        Batch-norm statistics belong to weights, and their mean fits no weights at all: give `data` to have them
        recomputed for the mean. Otherwise a warning says that they are not.

        Args:
            models: list of built models, or paths, or both. A path is that of a model (`.keras`, or `.h5` and
                `.hdf5` of `model.save()`), of weights (`.weights.h5`, or whatever `model.save_weights()` has
                written), or with Keras 2 of a checkpoint or a folder in TensorFlow's format. All must be of one
                Keras and of one architecture: weights of the same names and shapes, layers of the same classes,
                activations, strides and paddings. Numbers that Keras put at the end of names don't count, nor does
                what acts in training only, as Dropout.
            weights: list of numbers >= 0, one for each model, not all 0; they are divided by their sum. None for
                equal ones.
            into: built model that gets the result and is returned. None returns a new model, made like the first one
                in the list that is a model or a file with a configuration, and compiled with the same settings if that
                was; its optimizer starts afresh. Needed where all paths are of weights alone, or where the model can't
                be copied.
            data: inputs to recompute batch norm with, as for `update_batch_norm()`, with a length. None leaves the
                mean of the statistics.
            batch_size: int >= 1, examples in a batch of `data`.
            progress: function that is called with the number of arrays done, and of all.

        Returns:
            The new model, or `into`. The models of the list and the files stay as they are.

        Raises:
            TypeError, ValueError: in one line, for an argument that is not as described, a file that is torn or none
                of Keras's, models that are not alike, or weights that are not finite. Nothing is changed then.

        References:
            Wortsman et al. 2022, Model soups: averaging weights of multiple fine-tuned models improves accuracy
            without increasing inference time, arXiv 2203.05482.
        """
        models = self._listed(models)
        numbers = _weights(weights, len(models))
        used = sum(number > 0 for number in numbers)
        return self._cooked(models, lambda sources, i: (numbers, sum(numbers)), used, into, data, batch_size, progress)

    def interpolate_models(
        self,
        a: Any,
        b: Any,
        fraction: float,
        method: str = "linear",
        *,
        into: Any = None,
        data: Any = None,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """A model between two.

        Args:
            a, b: models or paths, as for `average_models()`.
            fraction: float from 0, for `a`, to 1, for `b`.
            method: "linear", along the straight line; or "slerp", for each array along the arc between the two as
                vectors (along the line where these are almost parallel: cosine beyond 0.9995).
            into, data, batch_size, progress: as for `average_models()`.

        Returns:
            The new model, or `into`. Values that are not floating-point are those of `a`.

        Raises:
            TypeError, ValueError: as `average_models()`.

        References:
            Wortsman et al. 2022, Robust fine-tuning of zero-shot models, arXiv 2109.01903 ("linear"); Shoemake 1985,
            Animating Rotation with Quaternion Curves ("slerp"). The limit of 0.9995 is mergekit's.
        """
        arguments.fraction("fraction", fraction)
        arguments.choice("method", method, _METHODS)
        fraction = float(fraction)

        def recipe(sources, i):
            if method == "linear" or fraction in (0.0, 1.0):
                return arithmetic.linear(fraction), 1.0
            parts = arithmetic.blocks(sources[0].tensors[i].shape)
            products = arithmetic.products([source.read(i, part) for source in sources] for part in parts)
            return arithmetic.spherical(products, fraction), 1.0

        used = 1 if fraction in (0.0, 1.0) else 2
        return self._cooked([a, b], recipe, used, into, data, batch_size, progress, names=("`a`", "`b`"))

    def model_stock(
        self,
        models: Any,
        base: Any,
        filter_wise: bool = False,
        *,
        into: Any = None,
        data: Any = None,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """Model Stock: between the mean of fine-tuned models and the model that all began from.

        For each array the angle between the models' offsets from the base says how far to go: a wide angle means that
        they differ by chance, and the result is near the base. With cosine c (the mean over all pairs) of N models it
        is t * mean + (1 - t) * base, with t = N c / (1 + (N - 1) c).

        Args:
            models: list of at least 2 models or paths, as for `average_models()`.
            base: the model or path that they began from.
            filter_wise: bool; True takes an angle for each output of a layer (the last axis) instead of one for a
                whole array.
            into, data, batch_size, progress: as for `average_models()`.

        Returns:
            The new model, or `into`. Values that are not floating-point are the first model's.

        Raises:
            TypeError, ValueError: as `average_models()`.

        References:
            Jang et al. 2024, Model Stock: All we need is just a few fine-tuned models, arXiv 2403.19522. Where the
            paper says nothing (offsets of length 0, a denominator of 0) numbers are those of mergekit.
        """
        models = self._listed(models)
        if len(models) < 2:
            raise ValueError(f"`models` must hold at least 2 models, not {len(models)}.")
        arguments.flag("filter_wise", filter_wise)

        def recipe(sources, i):
            *tuned, start = sources

            def offsets():
                for part in arithmetic.blocks(start.tensors[i].shape):
                    beginning = np.asarray(start.read(i, part), "float64")
                    yield [np.asarray(source.read(i, part), "float64") - beginning for source in tuned]

            return arithmetic.stock(arithmetic.products(offsets(), filter_wise)), 1.0

        names = [*_names(models), "`base`"]
        return self._cooked([*models, base], recipe, 2, into, data, batch_size, progress, names)

    def greedy_soup(
        self,
        models: Any,
        score: Any,
        mode: str = "max",
        *,
        into: Any = None,
        data: Any = None,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """A greedy soup: models are taken into the mean, best first, where that makes it better.

        Begins with the model of the best score and tries the others, best first. A model stays in the soup
        if the score of the mean is better than the best so far. The result therefore never scores below the best
        single model, on the data that `score` uses: hold these out from training, and don't report their score as that
        of the soup.

        Args:
            models: list of models or paths, as for `average_models()`.
            score: function of a model that returns a number. It is given one model again and again, with other
                weights, compiled like the first in the list. NaN means that a model failed: it is never taken.
            mode: "max" if higher scores are better, as accuracies; "min" for lower, as losses.
            into, batch_size: as for `average_models()`.
            data: inputs to recompute batch norm with, before each mean of several models is scored; anything that can
                be drawn more than once.
            progress: function that is called with the number of scores done, and of all.

        Returns:
            The soup: a new model, or `into`. Its attribute `soup` (not saved with it) is a dict: `chosen`, the
            positions of its models in the list (from 0) in the order in which they were taken; `scores` of the single
            models; `score` of the soup. A single chosen model is returned bit for bit. Values that are not
            floating-point are the best model's.

        Raises:
            TypeError, ValueError: as `average_models()`, and where `score` returns anything but a number, or only NaN.

        References:
            Wortsman et al. 2022, Model soups: averaging weights of multiple fine-tuned models improves accuracy
            without increasing inference time, arXiv 2203.05482, recipe 1.
        """
        models = self._listed(models)
        if not callable(score):
            arguments.refuse("score", "a function of a model that returns a number", score)
        arguments.choice("mode", mode, _MODES)
        data = _data(data, batch_size, again=True)
        sign = 1.0 if mode == "max" else -1.0
        count = 2 * len(models) - 1
        report = _counted(progress, count)
        with self._kitchen(models, into, _names(models)) as kitchen:

            def value(of: list[int], mean: bool) -> float:
                kitchen.serve([kitchen.sources[i] for i in of], _mean)
                if mean:
                    self._recalibrate(kitchen.model, data, batch_size)
                number = _number(score(kitchen.model), "score")
                report()
                return sign * number

            scores = [value([i], False) for i in range(len(models))]
            if np.isnan(scores).all():
                raise ValueError("`score` must return a number for at least one model, and is NaN for all.")
            chosen, best = arithmetic.greedy(scores, lambda of: value(of, True))
            kitchen.serve([kitchen.sources[i] for i in chosen], _mean)
            if len(chosen) > 1:
                self._recalibrate(kitchen.model, data, batch_size)
            model = kitchen.done()
        vars(model)["soup"] = {"chosen": chosen, "scores": [sign * s for s in scores], "score": sign * best}
        if len(chosen) > 1:
            self._warn_of_batch_norm(model, data)
        return model

    def average_checkpoints(
        self,
        directory: Any,
        n: int = 5,
        metric: Any = None,
        *,
        mode: str = "auto",
        pattern: str | None = None,
        into: Any = None,
        data: Any = None,
        batch_size: int = 32,
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """The mean of the newest or the best checkpoints in a folder.

        Args:
            directory: str or path, a folder. Its files that end in `.keras`, `.h5` or `.hdf5` count, and with Keras 2
                TensorFlow's checkpoints; subfolders and hidden files don't.
            n: int >= 1, how many to average. Where there are fewer, all are, with a warning.
            metric: None for the newest ones, by the time of writing. Or which are best: the name of a metric whose
                value is in the files' names, as "val_loss" in "model-03-val_loss=0.412.keras"; or a function of a model
                that returns a number.
            mode: "min" if lower is better, "max" if higher is; "auto" knows "val_loss", "val_accuracy" and their like,
                and takes a function's value as "max".
            pattern: str, the `filepath` that the checkpoints were written with, as
                "model-{epoch:02d}-{val_loss:.3f}.keras", without folders. Other files don't count then. Needed where
                the files' names hold the value of `metric` without its name.
            into, data, batch_size, progress: as for `average_models()`.

        Returns:
            The new model, or `into`. Its attribute `soup` (not saved with it) is a dict: `files`, the names of the
            averaged files, newest or best first; `scores`, their values of `metric` (None without).

        Raises:
            TypeError, ValueError: as `average_models()`, and where no file has a value of `metric`.

        References:
            Szegedy et al. 2016, Rethinking the Inception Architecture for Computer Vision, arXiv 1512.00567, averages
            weights over time. The choice of the best n is that of timm's `avg_checkpoints.py`.
        """
        n = arguments.whole("n", n, 1)
        found = Checkpoints(directory, metric, mode, pattern, self._number == 2)
        data = _data(data, batch_size)
        scores = None
        if callable(metric):
            scores = self._scores(found.paths, metric, into, progress)
            progress = None
        files, values = found.chosen(n, scores)
        model = self.average_models(
            [os.path.join(found.directory, name) for name in files],
            into=into,
            data=data,
            batch_size=batch_size,
            progress=progress,
        )
        vars(model)["soup"] = {"files": files, "scores": values}
        return model

    # Arguments.

    def _listed(self, models):
        if self._is_model(models) or isinstance(models, (str, os.PathLike)) or not isinstance(models, (list, tuple)):
            arguments.refuse("models", "a list of models or paths", models)
        if not models:
            raise ValueError("`models` must hold at least one model or path.")
        return list(models)

    def _is_model(self, value):
        return isinstance(value, self._keras.Model)

    # From models and paths to the result.

    def _cooked(self, models, recipe, used, into, data, batch_size, progress, names=None):
        """The common part of most functions: the result of a recipe, and how many models are part of it."""
        data = _data(data, batch_size)
        with self._kitchen(models, into, names or _names(models)) as kitchen:
            kitchen.serve(kitchen.sources, recipe, progress)
            if used > 1:
                self._recalibrate(kitchen.model, data, batch_size)
            model = kitchen.done()
        if used > 1:
            self._warn_of_batch_norm(model, data)
        return model

    def _scores(self, paths, score, into, progress):
        report = _counted(progress, len(paths))
        scores = []
        with self._kitchen(paths, into, _names(paths)) as kitchen:
            for source in kitchen.sources:
                kitchen.serve([source], _mean)
                scores.append(_number(score(kitchen.model), "metric"))
                report()
        return scores

    def _recalibrate(self, model, data, batch_size):
        if data is not None:
            batch_norm.recalibrate_with(self._pass_type(), model, data, batch_size)

    def _warn_of_batch_norm(self, model, data):
        if data is None and self._pass_type().layers_of(model):
            warnings.warn(
                "The batch-norm statistics are the mean of the models', which fits no weights: give `data`, or call "
                "update_batch_norm(model, x).",
                KerasOptimizersWarning,
                stacklevel=4,
            )

    @contextlib.contextmanager
    def _kitchen(self, models: Sequence[Any], into: Any, names: Sequence[str]) -> Iterator["_Kitchen"]:
        """The models, checked and opened, and the model that is to hold the result."""
        if into is not None and not self._is_model(into):
            arguments.refuse("into", f"a built {self._base.generation} model", into)
        if into is not None:
            self._require_built(into, "`into`")
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kerasoptimizers-"))
            yield _Kitchen(self, models, into, names, stack, folder)

    def _require_built(self, model, name):
        if not model.built or not model.weights:
            raise ValueError(
                f"{name} must be built, and '{model.name}' has no weights yet. Train it, or call it on data."
            )

    def _source(self, name: str, value: Any, stack: contextlib.ExitStack) -> Any:
        if self._is_model(value):
            self._require_built(value, name)
            return ModelSource(name, value, self._variables(value), self._base.backend)
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if not isinstance(value, str):
            kind = type(value).__mro__
            if any(c.__name__ == "Model" and c.__module__.split(".")[0] in ("keras", "tf_keras") for c in kind):
                raise ValueError(f"{name} must be of {self._base.generation}, and is a model of the other Keras.")
            raise TypeError(
                f"{name} must be a {self._base.generation} model or a path, not {arguments.in_short(value)}."
            )
        if self._number == 2 and is_tensorflow_checkpoint(value):
            return _Checkpoint(name, value)
        source = FileSource(name, value, stack)
        if source.generation not in (None, self._number):
            raise ValueError(
                f"{name} must be of {self._base.generation}, and was written by Keras {source.generation}."
            )
        return source

    def _variables(self, model):
        return [*variables_of(model), *self._further(model)]


class _Checkpoint:
    """A checkpoint in TensorFlow's format, which Keras 2 can load."""

    layout = "checkpoint"

    def __init__(self, label: str, path: str):
        self.label, self.path = label, path
        # A saved model, not weights alone.
        self.config: Any = {} if os.path.isdir(path) else None

    def hollow(self, folder: str) -> str:
        return self.path


class _Kitchen:
    """The models of a soup, opened, and the model that gets it.

    Attributes:
        sources: list of sources, all of one layout and alike.
        model: the model that gets the result.
    """

    def __init__(self, soups: Soups, models: Any, into: Any, names: Any, stack: contextlib.ExitStack, folder: str):
        self._soups, self._keras, self._folder, self._stack = soups, soups._keras, folder, stack
        self.sources = [soups._source(name, value, stack) for name, value in zip(names, models)]
        self._held: Held | None = None
        self._files = 0
        self._warnings: list[str] = []
        layouts = {source.layout for source in self.sources}
        if len(layouts) == 1 and "checkpoint" not in layouts:
            # Before anything is made.
            check_alike(self.sources)
        self.model = self._copy() if into is None else into
        if into is not None:
            held = Held(soups._variables(into), soups._base.backend)
            self._held = stack.enter_context(stack.enter_context(held))
        if len(layouts) > 1 or "checkpoint" in layouts:
            self.sources = [self._in_kerass_layout(source) for source in self.sources]
            check_alike(self.sources)
        self._check_fit()

    def _copy(self):
        """A new model, made like the first that can be."""
        first = next((s for s in self.sources if s.layout == "model" or s.config is not None), None)
        if first is None:
            raise ValueError("`into` must be given: the files hold weights alone, and no architecture.")
        saving, known, unsafe, settings = self._keras.saving, {}, {}, None
        optimizer = getattr(first.model, "optimizer", None) if first.layout == "model" else None
        try:
            with contextlib.ExitStack() as stack, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if first.layout == "model":
                    # What its file names is here, and nobody else has written it.
                    known, unsafe = self._known(first.model), {"safe_mode": False}
                    path = os.path.join(self._folder, "first.keras")
                    first.model.save(path)
                    first = FileSource(first.label, path, stack)
                path, settings = first.hollow(self._folder), (first.config or {}).get("compile_config")
                if settings and not settings.get("optimizer") and optimizer is not None:
                    # Keras 3 forgets it when it writes a model as .h5.
                    settings["optimizer"] = saving.serialize_keras_object(optimizer)
                with saving.custom_object_scope(known), _zeros_at_first(self._keras):
                    model = self._loaded(path, first.layout in ("legacy", "checkpoint"), unsafe)
        except Exception as error:
            raise ValueError(
                f"`into` must be given: no model can be made like {first.label} ({_one_line(error)})."
            ) from error
        if settings:
            try:
                with saving.custom_object_scope(known), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    # Not by Keras's compile_from_config(), which makes the optimizer's variables, too.
                    model.compile(**saving.deserialize_keras_object(settings))
            except Exception as error:
                self._not_compiled(error)
        return model

    def _loaded(self, path, compiled, unsafe):
        reason = None
        if compiled:
            try:
                return self._keras.models.load_model(path, compile=True)
            except Exception as error:
                reason = error
        model = self._keras.models.load_model(path, compile=False, **unsafe)
        if reason is not None:
            self._not_compiled(reason)
        return model

    def _not_compiled(self, error):
        self._warnings.append(f"The new model is not compiled: {_one_line(error)}.")

    def _known(self, model):
        """Classes and functions that a model's file names, and that nobody need have registered with Keras."""
        private = self._soups._base.private
        found = {type(layer).__name__: type(layer) for layer in private.layers_of(model)}
        for value in leaves(list(private.compile_arguments(model).values())):
            value = value if callable(value) and hasattr(value, "__name__") else type(value)
            found.setdefault(value.__name__, value)
        return {name: value for name, value in found.items() if value.__module__ != "builtins"}

    def _in_kerass_layout(self, source):
        """A source as a file of weights in the layout of `.keras`."""
        if source.layout == "keras":
            return source
        self._files += 1
        path = os.path.join(self._folder, f"{self._files}.weights.h5")
        if source.layout == "model":
            source.model.save_weights(path)
        else:
            self._load(source.path, source.label)
            self.model.save_weights(path)
        return FileSource(source.label, path, self._stack)

    def _load(self, path, name):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                status = self.model.load_weights(path)
            if hasattr(status, "expect_partial"):
                status.expect_partial()
                _check_shapes(path, self.model)
        except Exception as error:
            raise ValueError(f"{name} can't be loaded ({_one_line(error)}).") from error

    def _check_fit(self):
        """Refuse an `into` that is not built like the others."""
        first = self.sources[0]
        if first.layout == "model":
            check_alike([first, self._own()])
        elif first.layout == "keras" and self._held is not None:
            path = os.path.join(self._folder, "into.weights.h5")
            self.model.save_weights(path)
            with contextlib.ExitStack() as stack:
                check_alike([first, FileSource("`into`", path, stack)])
            os.unlink(path)
        # Keras checks what it loads of older files.

    def serve(self, sources: Sequence[Any], recipe: Recipe, progress: Any = None) -> None:
        """Set the model to the result of a recipe; values that are not averaged are the first source's."""
        first = sources[0]
        report = _counted(progress, len(first.tensors))
        last: list[Any] = [None, None]

        def value(position, part):
            if last[0] != position:
                last[:] = position, recipe(sources, position)
                report()
            coefficients, divisor = last[1]
            reads = [self._reader(source, position, part, len(sources) > 1) for source in sources]
            values = arithmetic.combination(coefficients, reads, divisor)
            values = arithmetic.narrowed(values, _numpy_type(first.tensors[position].dtype))
            # HDF5 does not know NumPy's extra types; float32 holds bfloat16 exactly.
            return values.astype("float32") if first.layout != "model" and values.dtype.kind == "V" else values

        def other(key):
            like = first.others.get(key)
            return first.read_other(key) if like is not None else None

        if first.layout == "model":
            self._own().write(value, other)
            return
        # In the model's own file, so that Keras finds there all that it wants to load, and the optimizer's state.
        path = os.path.join(self._folder, "served.weights.h5" if first.layout == "keras" else "served.h5")
        if first.layout == "keras":
            self.model.save_weights(path)
            with contextlib.ExitStack() as stack:
                FileSource("the average", path, stack).overwrite(value, other)
        else:
            first.write_like(path, value)
        self._load(path, "The average")
        os.unlink(path)

    def _own(self):
        """The model that gets the result, as a source."""
        return ModelSource("`into`", self.model, self._soups._variables(self.model), self._soups._base.backend)

    def _reader(self, source, position, part, checked):
        def read():
            values = source.read(position, part)
            if checked and not np.isfinite(np.asarray(values, "float64")).all():
                raise ValueError(f"{source.label} has weights that are not finite: {source.tensors[position].name}.")
            return values

        return read

    def done(self) -> Any:
        """The model, which now keeps what it holds."""
        if self._held is not None:
            self._held.keep()
        for text in self._warnings:
            warnings.warn(text, KerasOptimizersWarning, stacklevel=5)
        return self.model


@contextlib.contextmanager
def _zeros_at_first(keras: Any) -> Iterator[None]:
    """New weights are zeros meanwhile: random ones take time, and on TensorFlow two more copies of the model."""

    def around(initialize):
        return lambda self, shape, dtype=None, **kwargs: zeros(shape, dtype, **kwargs)

    zeros, kinds = keras.initializers.Zeros(), keras.initializers
    with Replaced() as replaced, replaced:
        for kind in (kinds.VarianceScaling, kinds.RandomNormal, kinds.RandomUniform, kinds.TruncatedNormal):
            replaced.put(kind, "__call__", around)
        replaced.put(kinds.Orthogonal, "__call__", around)
        yield


def _mean(sources, position):
    return [1.0] * len(sources), len(sources)


def _numpy_type(name):
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def _check_shapes(path, model):
    """Refuse a checkpoint in TensorFlow's format that is not of the model: Keras loads what it finds."""
    import tensorflow as tf

    folder = os.path.join(path, "variables", "variables")
    reader = tf.train.load_checkpoint(folder if os.path.isdir(path) else path)
    names = reader.get_variable_to_shape_map()
    found = [
        tuple(shape)
        for name, shape in names.items()
        if name.endswith("/.ATTRIBUTES/VARIABLE_VALUE") and "optimizer/" not in name and "keras_api/" not in name
    ]
    wanted = [tuple(weight.shape) for weight in model.weights if not arguments.is_table(weight)]
    missing = list(wanted)
    for shape in found:
        if shape in missing:
            missing.remove(shape)
    if missing:
        raise ValueError(f"it has no weight of shape {missing[0]}")


def _one_line(error):
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 300 else text[:297] + "..."


def _names(models):
    return [label(number, value) for number, value in enumerate(models, 1)]


def _weights(weights, count):
    if weights is None:
        return [1.0] * count
    if isinstance(weights, (str, dict)) or not hasattr(weights, "__len__"):
        arguments.refuse("weights", "a list of numbers >= 0, one for each model", weights)
    weights = list(weights)
    if len(weights) != count:
        raise ValueError(f"`weights` must hold one number for each of the {count} models, not {len(weights)}.")
    weights = [arguments.real("weights", weight, "numbers >= 0", lambda x: x >= 0) for weight in weights]
    if not sum(weights) > 0:
        raise ValueError("`weights` must not all be 0.")
    return weights


def _data(data, batch_size, again=False):
    batch_norm.require_data(data, arguments.whole("batch_size", batch_size, 1), again)
    return data


def _number(value, name):
    """The result of a function of a model, as a float."""
    if hasattr(value, "item") and np.size(value) == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"`{name}` must return a number, not {arguments.in_short(value)}.")
    return float(value)


def _counted(progress, count):
    """A function that reports one more of `count`."""
    done = 0

    def report():
        nonlocal done
        done += 1
        if progress is not None:
            progress(min(done, count), count)

    return report
