"""The callback that shows the averages to validation and prediction."""

import functools
import weakref
from typing import Any

from .. import arguments
from ..averages import Averages
from ..values import Replaced
from .watch import Watching, averages_beside, undone


class SwapAverages(Watching):
    """Validate and predict with the averages, train on with the weights.

    During `fit()`, `evaluate()` and `predict()` the model holds the averages while it is evaluated or predicts,
    and the weights before and after: training ends in the same weights, bit for bit, as without this callback.
    While there is no average yet (SWA before its first snapshot) the weights are used. Averages that were put
    in by `swap_weights()` stay in.

    The weights also come back when the validation in `fit()` fails or is interrupted, and when a batch or a
    callback of `evaluate()` or `predict()` does. An `evaluate()` or `predict()` that is interrupted between
    these leaves the averages in the model: the optimizer's `swap_weights()` puts the weights back.

    Args:
        weights_too: bool; True makes `fit()` validate twice, with the averages and with the weights, whose
            metrics are in the history as "val_weights_loss" and so on. Data that can be drawn only once, as
            from a generator, differ the second time.

    Raises:
        TypeError, ValueError: if `weights_too` is no bool.
        ValueError: if the model is not compiled with an averaging optimizer.

    References:
        Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization, arXiv 1803.05407.
    """

    __module__ = "kerasoptimizers"

    _shows = True

    def __init__(self, weights_too: bool = False):
        self.weights_too = arguments.flag("weights_too", weights_too)
        super().__init__()
        # The replaced functions during fit(), and during one evaluate() or predict().
        self._fit, self._call = Replaced(), Replaced()
        self._shown: Averages | None = None

    def set_model(self, model: Any) -> None:
        averages_beside(self.callback_list, model)
        super().set_model(model)  # type: ignore[misc]

    def on_train_begin(self, logs: Any = None) -> None:
        # An evaluate() or predict() may have been interrupted between its batches.
        self._end_fit()
        with undone(self._end_fit):
            hooks = [f"on_{moment}_{end}" for moment in ("epoch", "train_batch") for end in ("begin", "end")]
            self.watch(self._fit, ["train_function", "evaluate"], self._end_fit, hooks)
            if self.weights_too:
                self._fit.put(self.model, "evaluate", _evaluating_twice(weakref.ref(self)))

    def on_train_end(self, logs: Any = None) -> None:
        self._end_fit()

    def on_test_begin(self, logs: Any = None) -> None:
        if self._shows:
            self._begin("test")

    def on_test_end(self, logs: Any = None) -> None:
        self._end()

    def on_predict_begin(self, logs: Any = None) -> None:
        self._begin("predict")

    def on_predict_end(self, logs: Any = None) -> None:
        self._end()

    def _begin(self, kind):
        model = self.model
        # Noted, so that it can be let go even if no list of callbacks is running.
        averages = self._shown = averages_beside(self.callback_list, model)
        hooks = [f"on_{kind}_{moment}" for moment in ("begin", "batch_begin", "batch_end", "end")]
        with undone(self._end):
            self.watch(self._call, [f"{kind}_function"], self._end, hooks)
            then = functools.partial(self.private.forget_values, weakref.ref(model))
            others = [v for v in model.non_trainable_variables if averages.position(v) is None]
            averages.hold(self, others, then)

    def _end(self):
        if self._shown is not None:
            self._shown.let_go(self)
        self._call.undo()

    def _end_fit(self):
        self._end()
        self._fit.undo()


def _evaluating_twice(callback):
    """A function that evaluates with the averages and with the weights, for a callback (a weak reference to it)."""

    def around(evaluate):
        def evaluate_both(*args, **kwargs):
            averages, this = evaluate(*args, **kwargs), callback()
            # Only fit() gives this argument.
            if this is None or not kwargs.get("_use_cached_eval_dataset"):
                return averages
            weights = averages
            if this._shown is not None and this._shown.has_average:
                this._shows = False
                try:
                    weights = evaluate(*args, **kwargs)
                finally:
                    this._shows = True
            return {**averages, **{f"weights_{name}": value for name, value in weights.items()}}

        return evaluate_both

    return around
