"""Callbacks that show the averages to validation, prediction and checkpoints.

Mixins: the folders `keras3` and `tf_keras` join them to their callback classes.
"""

import os
import warnings

from . import arguments
from .averaging import averaging_optimizer
from .whole_files import whole_files


class SwapAverages:
    """Validate and predict with the averages, train on with the weights.

    During `fit()`, `evaluate()` and `predict()` the averages stand in the model
    while it is evaluated or predicts, and the weights before and after: training
    ends in the same weights, bit for bit, as without this callback. While there
    is no average yet (SWA before its first snapshot) the weights are used.

    The weights also come back when the validation in `fit()` fails or is interrupted. An
    `evaluate()` or `predict()` of its own that is stopped between two batches, not in one, leaves
    the averages in the model: the optimizer's `swap_weights()` puts the weights back, and so does
    the next `fit()` with the same callback.

    Args:
        weights_too: bool; True has `fit()` validate twice, with the averages and with the
            weights, whose metrics are in the history as "val_weights_loss" and the like. Data
            that can be drawn only once, as from a generator, are others the second time.

    Raises:
        TypeError, ValueError: if `weights_too` is no bool.
        ValueError: if the model is not compiled with an averaging optimizer.
    """

    # Also true of an object that Keras made without calling __init__ of this mixin.
    weights_too = False
    _swaps = True
    _validation = None

    def __init__(self, weights_too=False):
        self.weights_too = arguments.flag("weights_too", weights_too)
        super().__init__()

    def set_model(self, model):
        averaging_optimizer(model)
        super().set_model(model)

    def on_train_begin(self, logs=None):
        # Whatever stops the validation inside of fit(), also between its batches.
        self._unguard_fit()
        # An evaluate() or predict() of its own may have been interrupted between its batches.
        self._swap_out()
        self._unguard_fit = self._guard("evaluate", self._swap_out)

    def on_train_end(self, logs=None):
        self._unguard_fit()

    def on_epoch_begin(self, epoch, logs=None):
        if self.weights_too:
            self._validate_twice()

    def on_epoch_end(self, epoch, logs=None):
        if self.weights_too:
            self._validate_once()

    def on_test_begin(self, logs=None):
        if self._swaps:
            self._swap_in("test_function")

    def on_test_end(self, logs=None):
        self._swap_out()

    def on_predict_begin(self, logs=None):
        self._swap_in("predict_function")

    def on_predict_end(self, logs=None):
        self._swap_out()

    _swapped = False

    @staticmethod
    def _unguard_fit():
        """Take the guard of fit() away: none yet."""

    def _validate_twice(self):
        model, epoch = self.model, object()
        evaluate = model.evaluate
        self._validation, self._evaluated = epoch, vars(model).get("evaluate")

        def evaluate_both(*args, **kwargs):
            averages = evaluate(*args, **kwargs)
            # Not for others who evaluate, nor where an epoch that failed has left this behind.
            if self._validation is not epoch or not kwargs.get("_use_cached_eval_dataset"):
                return averages
            weights = averages
            if averaging_optimizer(model).has_average:
                self._swaps = False
                try:
                    weights = evaluate(*args, **kwargs)
                finally:
                    self._swaps = True
            return {**averages, **{f"weights_{name}": value for name, value in weights.items()}}

        model.evaluate = evaluate_both

    def _validate_once(self):
        self._validation = None
        if self._evaluated is None:
            vars(self.model).pop("evaluate", None)
        else:
            self.model.evaluate = self._evaluated

    def _swap_in(self, function):
        optimizer = averaging_optimizer(self.model)
        if self._swapped or not optimizer.has_average:
            return
        optimizer.swap_weights()
        self._swapped = True
        self._unguard = self._guard(function, self._swap_out)

    def _swap_out(self):
        if not self._swapped:
            return
        self._swapped = False
        self._unguard()
        averaging_optimizer(self.model).swap_weights()


class AverageModelCheckpoint:
    """Checkpoints that hold the averages.

    Saves as Keras's `ModelCheckpoint` does, with the averages in place of the
    weights. A file (`.keras` or `.h5`) replaces an older one only once it is
    written, so that a killed process leaves none that is torn (perhaps one whose
    name begins with `.part-`). While there is no average yet nothing is saved,
    and a warning says so once. Batch-norm statistics in the file belong to the
    weights: recompute them after loading.

    Args:
        update_weights: bool; True leaves the averages in the model each time it
            was saved, so that training goes on from them; False puts the weights
            back, and training ends as without this callback.
        filepath: str or path, where to save; may hold `{epoch}` and names of metrics.
        monitor: str, metric that `save_best_only` watches. It is one of the averages
            if `SwapAverages` is among the callbacks, else one of the weights.
        verbose: int, 0 or 1.
        save_best_only: bool, whether to save only where `monitor` is best so far.
        save_weights_only: bool, whether to leave the optimizer and the model's
            configuration out.
        mode: "auto", "min" or "max", what is best.
        save_freq: "epoch", or an int: save after so many batches.
        **kwargs: further arguments of Keras's `ModelCheckpoint`.

    Raises:
        ValueError: if the model is not compiled with an averaging optimizer.

    References:
        Arguments are those of TensorFlow Addons' `AverageModelCheckpoint`.
    """

    def __init__(
        self,
        update_weights,
        filepath,
        monitor="val_loss",
        verbose=0,
        save_best_only=False,
        save_weights_only=False,
        mode="auto",
        save_freq="epoch",
        **kwargs,
    ):
        self.update_weights = arguments.flag("update_weights", update_weights)
        if not isinstance(filepath, os.PathLike):
            arguments.string("filepath", filepath)
        arguments.string("monitor", monitor)
        if not isinstance(verbose, int) or verbose not in (0, 1):
            arguments.refuse("verbose", "0 or 1", verbose)
        arguments.flag("save_best_only", save_best_only)
        arguments.flag("save_weights_only", save_weights_only)
        arguments.choice("mode", mode, ("auto", "min", "max"))
        count = isinstance(save_freq, int) and not isinstance(save_freq, bool) and save_freq >= 1
        if not count and not (isinstance(save_freq, str) and save_freq == "epoch"):
            arguments.refuse("save_freq", "'epoch' or a whole number >= 1", save_freq)
        threshold = kwargs.get("initial_value_threshold")
        if threshold is not None:
            arguments.real("initial_value_threshold", threshold, "a number", lambda x: True)
        super().__init__(
            filepath,
            monitor=monitor,
            verbose=verbose,
            save_best_only=save_best_only,
            save_weights_only=save_weights_only,
            mode=mode,
            save_freq=save_freq,
            **kwargs,
        )
        self._warned = False

    def set_model(self, model):
        averaging_optimizer(model)
        super().set_model(model)

    def _save_model(self, *args, **kwargs):
        optimizer = averaging_optimizer(self.model)
        if not optimizer.has_average:
            if not self._warned:
                warnings.warn(
                    "AverageModelCheckpoint saves nothing yet: there is no average.", stacklevel=2
                )
                self._warned = True
            return
        # With non-trainable weights, where these are averaged too.
        variables = [v for v in self.model.variables if optimizer._position(v) is not None]
        weights = [] if self.update_weights else [optimizer._read(v) for v in variables]
        optimizer.assign_average_vars(variables)
        try:
            with whole_files(self.model):
                super()._save_model(*args, **kwargs)
        finally:
            for variable, weight in zip(variables, weights):
                optimizer._write(variable, weight)
