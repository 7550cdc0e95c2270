"""Models with weights drawn from a posterior: one draw for a while, and the predictions of many."""

import contextlib
import functools
import logging
import os
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

from . import arguments
from .batch_norm import batches, recalibrate_with
from .batch_norm.data import is_batched, leaves, map_leaves, refuse_misfit, without_others
from .files import load_arrays, plain, save_arrays
from .posterior import Posterior
from .values import Held, Undoing, surely, variables_of


def generator(seed: int | None) -> np.random.Generator:
    """Random numbers for a seed; without one, as `keras.utils.set_random_seed()` and `np.random.seed()` say."""
    return np.random.default_rng(np.random.randint(2**31 - 1) if seed is None else seed)


def check_scale(scale: Any) -> float:
    return arguments.not_negative("scale", scale)


def check_seed(seed: Any) -> int | None:
    return arguments.optional(lambda name, value: arguments.whole(name, value, 0), "seed", seed)


def random_weights(model: Any) -> list[Any]:
    """The weights of a model that a posterior is of: those that it trains."""
    return [v for v in model.trainable_variables if not getattr(v, "overwrite_with_gradient", False)]


class OwnValues(Undoing):
    """The values of all variables of a model, to be given back.

    Args:
        model: Keras model.
        kit: what has `backend` and `private` of the model's Keras.
    """

    def __init__(self, model: Any, kit: Any):
        # Not the weights only: batch-norm statistics, and on JAX a predict() that breaks off loses seeds, too.
        held = Held(variables_of(model), kit.backend)
        forget = functools.partial(kit.private.forget_values, weakref.ref(model))

        def undo() -> None:
            held.undo()
            forget()

        super().__init__(undo)


class Sample(contextlib.ExitStack):
    """A model that holds one draw from a posterior while a `with` lasts; then it has its own values again.

    Args:
        model: a built Keras model.
        weights: list of arrays, for its `random_weights()`.
        kit: as for `OwnValues`.
    """

    def __init__(self, model: Any, weights: list[np.ndarray], kit: Any):
        super().__init__()
        self._model, self._weights, self._kit = model, weights, kit

    def __enter__(self):
        own = OwnValues(self._model, self._kit)
        for _ in range(2):  # as for values.Undoing
            self.push(lambda *error: own.undo())
        try:
            put(self._model, self._weights, self._kit)
            return self._model
        except BaseException:
            # A `with` that did not begin does not end.
            surely(own.undo)
            raise

    # Python's own, so that an interrupt can't come before its first line. R calls it without arguments.
    __exit__ = functools.partialmethod(contextlib.ExitStack.__exit__, None, None, None)


def put(model: Any, weights: list[np.ndarray], kit: Any) -> None:
    """Set the random weights of a model."""
    backend = kit.backend
    for variable, value in zip(random_weights(model), weights):
        backend.write(variable, backend.cast(value, backend.dtype(variable)))


def require_model(model: Any, kit: Any) -> None:
    """Raise unless it is a built model of this Keras with weights to train."""
    if not isinstance(model, kit.keras.Model):
        arguments.refuse("model", f"a {kit.generation} model", model)
    if not model.built:
        raise ValueError(
            f"`model` must be built, and '{model.name}' is not: it has no weights yet. Train it, or call it on data."
        )


class Sampled:
    """The part of a `SWAG` callback that needs no training: a snapshot by hand, draws, predictions and files.

    Attributes of the class:
        keras, generation, backend, private, pass_type: of the callback's Keras.
    """

    keras: Any
    generation: str
    backend: Any
    private: Any
    pass_type: Any

    posterior: Posterior

    @property
    def snapshots(self) -> int:
        return self.posterior.state.snapshots

    @property
    def mean(self) -> list[np.ndarray]:
        return [mean.copy() for mean in self.posterior.state.mean]

    @property
    def variance(self) -> list[np.ndarray]:
        return self.posterior.variance

    @property
    def deviations(self) -> list[np.ndarray]:
        return self.posterior.deviations

    def collect(self, model: Any) -> None:
        """Take one snapshot of the weights that a model holds now.

        Args:
            model: a built Keras model. From the second snapshot on its weights have the names and shapes of the first.

        Raises:
            TypeError, ValueError: in one line, if it is not, or if a weight is not finite. Nothing is taken then.
        """
        self.require_fit(model)
        variables = random_weights(model)
        weights = [self.backend.numpy(variable) for variable in variables]
        for variable, w in zip(variables, weights):
            if not np.isfinite(w.astype("float64")).all():
                raise ValueError(
                    f"`model` must have finite weights: {arguments.variable_name(variable)} is not finite."
                )
        self.posterior.add(weights, [arguments.variable_name(variable) for variable in variables])

    def require_fit(self, model: Any) -> None:
        """Raise unless the snapshots are of weights like those of this model."""
        require_model(model, self)
        variables = random_weights(model)
        if not variables:
            raise ValueError(f"`model` must have trainable weights, and '{model.name}' has none.")
        if not self.snapshots:
            return
        names, shapes = self.posterior.state.names, self.posterior.shapes
        if len(names) != len(variables):
            raise ValueError(
                f"`model` must have the weights that the snapshots were taken of: '{model.name}' has {len(variables)} "
                f"trainable ones, and they have {len(names)}."
            )
        for name, shape, variable in zip(names, shapes, variables):
            other = arguments.variable_name(variable)
            if _kind(other) != _kind(name) or tuple(variable.shape) != shape:
                raise ValueError(
                    f"`model` must have the weights that the snapshots were taken of: where they have {name} of shape "
                    f"{shape}, '{model.name}' has {other} of shape {tuple(variable.shape)}."
                )

    def require_draws(self, scale: float) -> None:
        """Raise where there are too few snapshots to draw from."""
        if self.snapshots < (2 if scale > 0 else 1):
            needed = "2 snapshots" if scale > 0 else "1 snapshot"
            raise ValueError(
                f"SWAG needs {needed} or more to draw weights from, and it has {self.snapshots}: "
                "train beyond `start_epoch`, or call collect(model) (in R collect_snapshot())."
            )

    def sample(self, model: Any, scale: float = 0.5, seed: int | None = None) -> Sample:
        """Put one draw into a model for a while.

            with swag.sample(model, seed=1):
                model.evaluate(x, y)

        At the end of the `with` the model has its own weights and statistics again, bit for bit, whatever happens. The
        statistics of batch norm belong to weights: in a model with batch norm call `update_batch_norm(model, data)`
        first inside of the `with`. Constraints of weights are not applied to draws.

        Args:
            model: a Keras model with the weights that the snapshots were taken of.
            scale: float >= 0, what multiplies the covariance: 0.5, as in the paper; 1 suits `rank=0`; 0 gives
                the mean, which is SWA's average.
            seed: int >= 0. None draws one from NumPy, so that `keras.utils.set_random_seed()` counts.

        Returns:
            A context manager, which gives the model.

        Raises:
            TypeError, ValueError: in one line, for an argument that is not as described, for another model, and for
                fewer than two snapshots.
        """
        scale, seed = check_scale(scale), check_seed(seed)
        self.require_fit(model)
        self.require_draws(scale)
        return Sample(model, self.posterior.sample(scale, generator(seed)), self)

    def predict_samples(
        self,
        model: Any,
        x: Any,
        samples: int = 30,
        scale: float = 0.5,
        data: Any = None,
        batch_size: int = 32,
        seed: int | None = None,
        verbose: str | int = "auto",
    ) -> Any:
        """Predict with weights that are drawn from this posterior.

        `predict_samples(model, posterior, x, ...)` of the package, for this one: see there.
        """
        return predict(type(self), model, self, x, samples, scale, data, batch_size, seed, verbose)

    # In a file.

    def settings(self) -> dict[str, Any]:
        """The arguments that it was made with."""
        raise NotImplementedError

    def save(self, path: Any) -> None:
        """Write snapshots and settings into one file; an older one is replaced only once the new one is complete.

        Args:
            path: str or path, of a file in a folder that exists; ".npz" is its usual ending.

        Raises:
            ValueError: if there are no snapshots.
            OSError: if it can't be written.
        """
        path = arguments.path("path", path)
        if not self.snapshots:
            raise ValueError("There is nothing to save: SWAG has no snapshots yet.")
        settings = {f"setting {name}": value for name, value in self.settings().items() if value is not None}
        save_arrays(os.path.realpath(path), {**self.posterior.entries(), **settings})

    @classmethod
    def load(cls, path: Any, model: Any = None) -> Any:
        """A posterior from a file that `save()` wrote.

        Args:
            path: str or path.
            model: None, or the Keras model that it is for, to be checked at once. It is checked in any case when
                weights are drawn for a model.

        Returns:
            A new `SWAG`, which can also go on collecting.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: in one line, if it is not such a file, or the snapshots are of another model's weights.
        """
        path = arguments.path("path", path)
        try:
            entries = load_arrays(path)
            settings = {n.removeprefix("setting "): v for n, v in entries.items() if n.startswith("setting ")}
            posterior = Posterior(0)
            posterior.take_entries(entries)
            make: Any = cls
            swag = make(settings.pop("start_epoch", None), posterior.rank, **settings)
        except FileNotFoundError:
            raise
        except Exception as error:
            raise ValueError(
                f"`path` must be a file that save() wrote: '{path}' can't be read ({type(error).__name__})."
            ) from error
        swag.posterior = posterior
        if model is not None:
            swag.require_fit(model)
        return swag


def _kind(name):
    """The part of a weight's name that is the same in the next session: its layer's and its own, without numbers.

    Keras numbers layers ("dense_3") as they come, and Keras 2 adds ":0".
    """
    parts = name.split(":")[0].split("/")[-2:]
    return [part.rstrip("0123456789").rstrip("_") for part in parts]


def _pairs(kit, models, posteriors):
    """(model, posterior or None) for each part of an ensemble; whether each is right is checked."""
    many, several = isinstance(models, (list, tuple)), isinstance(posteriors, (list, tuple))
    if many and not models:
        raise ValueError("`model` must be a Keras model or a list of them, not an empty list.")
    if several and not posteriors:
        raise ValueError("`posterior` must be a SWAG, a list of them or None, not an empty list.")
    if many and several and len(models) != len(posteriors):
        raise ValueError(f"`posterior` must hold one SWAG for each of {len(models)} models, not {len(posteriors)}.")
    if many and not several and posteriors is not None:
        raise ValueError("`posterior` must be a list with one SWAG for each model, or None for a deep ensemble.")
    count = len(models) if many else len(posteriors) if several else 1
    pairs = list(zip(models if many else [models] * count, posteriors if several else [posteriors] * count))
    for model, posterior in pairs:
        require_model(model, kit)
        if isinstance(posterior, Sampled):
            posterior.require_fit(model)
        elif posterior is not None or several:
            arguments.refuse("posterior", f"a SWAG of {kit.generation}, a list of them or None", posterior)
    return pairs


def predict(
    kit: Any,
    models: Any,
    posteriors: Any,
    x: Any,
    samples: Any,
    scale: Any,
    data: Any,
    batch_size: Any,
    seed: Any,
    verbose: Any,
) -> Any:
    """`predict_samples()`; `kit` is the class `SWAG` of the models' Keras."""
    pairs = _pairs(kit, models, posteriors)
    samples, scale = arguments.whole("samples", samples, 1), check_scale(scale)
    batch_size, seed = arguments.whole("batch_size", batch_size, 1), check_seed(seed)
    if not isinstance(verbose, (str, int)) or verbose not in ("auto", 0, 1, 2):
        arguments.refuse("verbose", "'auto', 0, 1 or 2", verbose)
    for name, value in (("x", x), ("data", data)):
        if hasattr(value, "__next__"):
            arguments.refuse(name, "data that can be drawn more than once", value)
        if value is not None or name == "x":
            batches(value, batch_size, None, name=name)
    normalized = {}
    for model, posterior in pairs:
        if posterior is None:
            continue
        posterior.require_draws(scale)
        normalized[id(model)] = bool(kit.pass_type().layers_of(model))
        if normalized[id(model)] and data is None:
            raise ValueError(
                f"`data` must be given: '{model.name}' has batch norm, whose statistics must be recomputed for each "
                "sample. Give training inputs."
            )
    random, sizes = generator(seed), {} if is_batched(x) else {"batch_size": batch_size}
    total = sum(samples if posterior is not None else 1 for _, posterior in pairs)
    verbose = 1 if verbose == "auto" else int(verbose)
    bar = kit.keras.utils.Progbar(total, verbose=verbose, unit_name="sample") if verbose else None
    done, result = 0, None
    for model, posterior in pairs:
        with OwnValues(model, kit) as own, own:
            for _ in range(samples if posterior is not None else 1):
                if posterior is not None:
                    put(model, posterior.posterior.sample(scale, random), kit)
                    if normalized[id(model)]:
                        recalibrate_with(kit.pass_type(), model, data, batch_size)
                predicted = map_leaves(plain, _predictions(model, x, sizes))
                if result is None:
                    result = map_leaves(lambda array: np.empty((total, *array.shape), array.dtype), predicted)
                for found, array in zip(leaves(result), leaves(predicted)):
                    if found.shape[1:] != array.shape:
                        raise ValueError(
                            f"All models must give outputs of one shape, not {found.shape[1:]} and {array.shape}."
                        )
                    found[done] = array
                done += 1
                if bar is not None:
                    bar.update(done, finalize=done == total)
    return result


def _predictions(model, x, sizes):
    """`model.predict()`, which Keras compiles once for a model; values are not part of it."""
    logger = logging.getLogger("tensorflow")

    def is_news(record):
        # TensorFlow takes the functions of several models for one, and warns that it is traced again and again.
        return "triggered tf.function retracing" not in record.getMessage()

    logger.addFilter(is_news)
    try:
        return model.predict(without_others(model, x), verbose=0, **sizes)
    except Exception:
        if not is_batched(x):
            refuse_misfit(model, x, "x")
        raise
    finally:
        logger.removeFilter(is_news)


def predictor(kit: Any) -> Callable[..., Any]:
    """The public function `predict_samples()` of one Keras; `kit` is its class `SWAG`."""

    def predict_samples(
        model: Any,
        posterior: Any,
        x: Any,
        samples: int = 30,
        scale: float = 0.5,
        data: Any = None,
        batch_size: int = 32,
        seed: int | None = None,
        verbose: str | int = "auto",
    ) -> Any:
        """Predict with weights that are drawn from posteriors.

        For each sample the weights are drawn anew, batch-norm statistics are recomputed from `data`, and the model
        predicts `x`. For probabilities average the samples, not the weights. Afterwards each model has its own weights
        and statistics again, bit for bit, even after an error or an interrupt.

        Args:
            model: a built Keras model, or a list of them.
            posterior: a `SWAG` that holds snapshots of the model; a list of them for Multi-SWAG, which draws from each
                (with several models there must be one for each of them); None for a deep ensemble, whose members
                predict with the weights that they hold, once each.
            x: inputs, as for `predict()`: arrays, or a data set that gives the same examples in the same order each
                time. Not a generator.
            samples: int >= 1, draws from each posterior.
            scale: float >= 0, what multiplies the covariance: 0.5, as in the paper; 1 suits `rank=0`; 0 gives the
                mean, which is SWA's average.
            data: training inputs, as for `update_batch_norm()`; needed for models with batch norm only.
            batch_size: int >= 1, examples in a batch of arrays.
            seed: int >= 0. None draws one from NumPy, so that `keras.utils.set_random_seed()` counts.
            verbose: "auto" or 1 for a progress bar, 2 for one line, 0 for nothing.

        Returns:
            Array of shape (samples, examples, ...), the samples of all posteriors one after the other; for a model
            with several outputs, a list or dict of such arrays.

        Raises:
            TypeError, ValueError: in one line, for an argument that is not as described, fewer than two snapshots,
                and a model with batch norm without `data`. Nothing is changed then.

        References:
            Maddox et al. 2019, A Simple Baseline for Bayesian Uncertainty in Deep Learning, arXiv 1902.02476.
            Wilson and Izmailov 2020, Bayesian Deep Learning and a Probabilistic Perspective of Generalization, arXiv
            2002.08791 (Multi-SWAG). Lakshminarayanan et al. 2017, Simple and Scalable Predictive Uncertainty
            Estimation using Deep Ensembles, arXiv 1612.01474.
        """
        return predict(kit, model, posterior, x, samples, scale, data, batch_size, seed, verbose)

    predict_samples.__module__ = kit.__module__
    predict_samples.__qualname__ = "predict_samples"
    return predict_samples
