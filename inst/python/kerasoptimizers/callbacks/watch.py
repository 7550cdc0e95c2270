"""Puts things back when the `fit()`, `evaluate()` or `predict()` that called a callback fails."""

import contextlib
import sys
import weakref
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from ..averages import Averages
from ..optimizer import averaging_optimizer
from ..values import Replaced, surely

#: Functions in which StopIteration says that the data have ended: nothing failed.
_DRAW_DATA = ("train_function", "test_function", "predict_function")


@contextlib.contextmanager
def undone(undo: Callable[[], None]):
    """Call `undo()` if the body of the `with` fails; it may be called more than once."""
    try:
        yield
    except BaseException:
        surely(undo)
        raise


class Watching:
    """Mixin for callbacks."""

    #: The module `private` of the callback's Keras, and its class of callback lists.
    private: Any
    callback_list: type

    # Set by Keras.
    model: Any
    params: dict[str, Any]

    def watch(self, replaced: Replaced, names: Iterable[str], put_back: Any, hooks: Iterable[str] = ()) -> None:
        """Call `put_back()` when one of these functions fails or is interrupted.

        Args:
            replaced: what takes the watch away.
            names: functions of the callback's model, such as "evaluate" and "test_function".
            put_back: function that may be called more than once.
            hooks: methods of the list that holds the running callbacks, such as "on_epoch_end": an error of any
                callback comes out there.
        """
        put_back = weakref.WeakMethod(put_back)
        for name in names:
            replaced.put(self.model, name, self._watching(name, put_back))
        running = _caller(self.callback_list) if hooks else None
        for hook in hooks if running is not None else ():
            replaced.put(running, hook, self._watching(None, put_back))

    def _watching(self, name, put_back):
        # A function that is set on a model must not keep the callback alive: see `Replaced`.
        callback = weakref.ref(self)

        def around(function):
            def watched(*args, **kwargs):
                try:
                    return function(*args, **kwargs)
                except BaseException as error:
                    if not (isinstance(error, StopIteration) and name in _DRAW_DATA):
                        surely(lambda: _put_back(callback(), name, args, put_back()))
                    raise

            return watched

        return around

    def after(self, replaced: Replaced, hook: str, then: Callable[[], None]) -> bool:
        """Call `then()` when all callbacks are through with a hook; False if the list of them is not known."""

        def around(function):
            def followed(*args, **kwargs):
                function(*args, **kwargs)
                then()

            return followed

        running = _caller(self.callback_list)
        if running is not None:
            replaced.put(running, hook, around)
        return running is not None


def averages_beside(callback_list: type, model: Any) -> Averages:
    """The averages that callbacks show and save: those of a callback in the list that is running, or the optimizer's.

    Args:
        callback_list: Keras's class of callback lists.
        model: the callback's model.
    """
    running = _caller(callback_list)
    for callback in getattr(running, "callbacks", ()):
        if isinstance(own := getattr(callback, "averages", None), Averages):
            return own
    return averaging_optimizer(model).averages


def _put_back(callback, name, args, put_back):
    if put_back is not None:
        # The error that is being handled is the one to be seen.
        with contextlib.suppress(Exception):
            callback.private.return_values(callback, name, args)
        put_back()


def _caller(kind):
    """The object of this type whose method is running. Keras doesn't tell callbacks which list they are in."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, kind):
            return owner
        frame = frame.f_back
    return None
