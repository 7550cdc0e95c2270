"""`update_batch_norm()`."""

import operator
import warnings
from collections.abc import Callable
from typing import Any

from .. import arguments
from ..notices import KerasOptimizersWarning
from .data import batches, refuse_misfit, without_others
from .passes import Pass


def recalibrate(
    pass_type: type[Pass], model: Any, x: Any, batch_size: int, steps: int | None, verbose: Any, name: str = "x"
) -> None:
    """`update_batch_norm()` with the pass of a Keras and a backend; messages call the data `name`."""
    keras = pass_type.keras
    if not isinstance(model, keras.Model):
        arguments.refuse("model", f"a {pass_type.generation} model", model)
    batch_size = arguments.whole("batch_size", batch_size, 1)
    steps = arguments.optional(lambda name, value: arguments.whole(name, value, 1), "steps", steps)
    if not isinstance(verbose, (str, int)) or verbose not in ("auto", 0, 1, 2):
        arguments.refuse("verbose", "'auto', 0, 1 or 2", verbose)
    if not model.built:
        raise ValueError(
            f"`model` must be built, and '{model.name}' is not: it has no weights yet. Train it, or call it on data."
        )
    if not pass_type.layers_of(model):
        return
    count, inputs = batches(x, batch_size, steps, name)
    run = _cached(pass_type, model)
    verbose = 1 if verbose == "auto" else int(verbose)
    bar = keras.utils.Progbar(count, verbose=verbose, unit_name="batch") if verbose else None
    done = 0
    run.start()
    with run.running():
        for batch in inputs:
            try:
                run.step(without_others(model, batch))
            except Exception:
                refuse_misfit(model, batch, name)
                raise
            done += 1
            if bar is not None:
                bar.update(done, finalize=False)
    if not done:
        raise ValueError(f"`{name}` must hold at least one example.")
    if bar is not None:
        bar.update(done, finalize=True)
    if steps is not None and done < steps:
        warnings.warn(
            f"`steps` is {steps}, but `{name}` held {done} batches only: the statistics are of those.",
            KerasOptimizersWarning,
            stacklevel=3,
        )
    layer = run.not_finite()
    if layer is not None and run.has_finite_weights():
        raise ValueError(
            f"`{name}` must give finite numbers, and the inputs of layer '{layer.name}' were not all finite: look for "
            f"missing values in `{name}` (NaN; NA in R) and for infinite ones. The statistics are as before."
        )
    run.write()


def recalibrate_with(pass_type: type[Pass], model: Any, data: Any, batch_size: int) -> None:
    """`update_batch_norm()` with what was given as the argument `data` of another function."""
    recalibrate(pass_type, model, data, batch_size, None, 0, name="data")


def _cached(pass_type, model):
    """A pass over the model: one made before, if it still fits, so that nothing is traced again."""
    key = [*pass_type.layers_of(model), *model.trainable_variables, *model.non_trainable_variables]
    # After compile(), settings of layers may have changed.
    key += [*pass_type.compiled(model), pass_type, bool(model.run_eagerly)]
    # In the model's dictionary: Keras would keep track of an attribute, and save it.
    known, run = vars(model).get("_recalibration", ([], None))
    if len(known) != len(key) or not all(map(operator.is_, known, key)):
        run = pass_type(model)
        vars(model)["_recalibration"] = key, run
    return run


def updater(pass_type_of: Callable[[], Any]) -> Callable[..., None]:
    """The public function `update_batch_norm()` of one Keras.

    Args:
        pass_type_of: function that gives the class of passes for the backend in use.
    """

    def update_batch_norm(
        model: Any, x: Any, batch_size: int = 32, steps: int | None = None, verbose: str | int = "auto"
    ) -> None:
        """Recompute the batch-norm statistics of a model for the weights it holds now.

        Averaged weights need it: the statistics that training collected belong to other weights. The model runs in
        training mode over `x`, and each batch-norm layer sees inputs that the layers before it normalized by their
        batch. The moving statistics become the exact mean and (biased) variance of the layer's inputs over all
        examples. Nothing else changes: no trainable weight, no momentum, no seed, no training flag. A pass that fails
        or is interrupted leaves the old statistics.

        All of Keras's batch-norm layers count, in nested models too. Frozen ones (`trainable = False`) run in
        inference mode and keep their statistics. Masked elements do not count. Batch renormalization is off during
        the pass, and its own statistics are set as well. A model without batch norm returns at once; `x` is not
        touched.

        The first call for a model compiles the forward step, the next ones use it again. If you change a setting of a
        layer between them, call `compile()`, as for `fit()`.

        Args:
            model: Keras model, built. It need not be compiled.
            x: the inputs: an array, batch first; a list or dict of arrays for several inputs; or batches of inputs, of
                (inputs, targets) or of (inputs, targets, sample weights): a tf.data.Dataset, a Keras PyDataset or
                Sequence, a PyTorch DataLoader, or a generator. Targets and weights are not used.
            batch_size: int >= 1, examples in a batch of arrays.
            steps: int >= 1, batches to draw; None for all. Generators need it.
            verbose: "auto" or 1 for a progress bar, 2 for one line, 0 for nothing.

        Raises:
            TypeError, ValueError: in one line, for an argument that is not as described, an unbuilt model or empty
                data. Nothing is changed then.

        References:
            Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization, arXiv 1803.05407,
            section 3.2.
        """
        recalibrate(pass_type_of(), model, x, batch_size, steps, verbose)

    update_batch_norm.__module__ = pass_type_of.__module__
    update_batch_norm.__qualname__ = "update_batch_norm"
    return update_batch_norm
