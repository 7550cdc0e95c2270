"""Callbacks that show the averages to validation, prediction and checkpoints.

Mixins: the folders `keras3` and `tf_keras` join them to their callback classes.
"""

import warnings

from . import arguments
from .averaging import averaging_optimizer


class SwapAverages:
    """Validate and predict with the averages, train on with the weights.

    During `fit()`, `evaluate()` and `predict()` the averages stand in the model
    while it is evaluated or predicts, and the weights before and after: training
    ends in the same weights, bit for bit, as without this callback. While there
    is no average yet (SWA before its first snapshot) the weights are used.

    The weights also come back when validation fails or is interrupted.

    Raises:
        ValueError: if the model is not compiled with an averaging optimizer.
    """

    def set_model(self, model):
        averaging_optimizer(model)
        super().set_model(model)

    def on_train_begin(self, logs=None):
        # Whatever stops the validation inside of fit(), also between its batches.
        self._guard("evaluate")

    def on_train_end(self, logs=None):
        vars(self.model).pop("evaluate", None)

    def on_test_begin(self, logs=None):
        self._swap_in("test_function")

    def on_test_end(self, logs=None):
        self._swap_out()

    def on_predict_begin(self, logs=None):
        self._swap_in("predict_function")

    def on_predict_end(self, logs=None):
        self._swap_out()

    # Also true of an object that Keras made without calling __init__ of this mixin.
    _swapped = False

    def _swap_in(self, function):
        optimizer = averaging_optimizer(self.model)
        if self._swapped or not optimizer.has_average:
            return
        optimizer.swap_weights()
        self._swapped = True
        self._unguarded = function, getattr(self.model, function)
        self._guard(function)

    def _swap_out(self):
        if not self._swapped:
            return
        self._swapped = False
        setattr(self.model, *self._unguarded)
        averaging_optimizer(self.model).swap_weights()

    def _return_values(self, args):
        """Give the model's variables their values back, where a failed call has taken them."""

    def _guard(self, name):
        """Have the model's function `name` put the weights back when it fails."""
        function = getattr(self.model, name)

        def guarded(*args, **kwargs):
            try:
                return function(*args, **kwargs)
            except BaseException:
                self._return_values(args)
                self._swap_out()
                raise

        setattr(self.model, name, guarded)


class AverageModelCheckpoint:
    """Checkpoints that hold the averages.

    Saves as Keras's `ModelCheckpoint` does, with the averages in place of the
    weights. While there is no average yet nothing is saved, and a warning says so
    once. Batch-norm statistics in the file belong to the weights: recompute them
    after loading.

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
            super()._save_model(*args, **kwargs)
        finally:
            for variable, weight in zip(variables, weights):
                optimizer._write(variable, weight)
