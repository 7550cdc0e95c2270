"""The warnings of this package, and who gets them."""

import functools
import threading
import warnings
from collections.abc import Callable


class KerasOptimizersWarning(UserWarning):
    """The category of all warnings of this package (but for the DeprecationWarning of old arguments).

    `warnings.filterwarnings("ignore", category=KerasOptimizersWarning)` turns them off.
    """

    __module__ = "kerasoptimizers"


def hand_over(listener: Callable[[str], None]) -> None:
    """Give the texts of these warnings to a function, and don't print them. The R package makes R warnings of them.

    Each is given each time, unless a filter says otherwise. Warnings of other threads than the main one, in which R
    can't be called, are printed.

    Args:
        listener: function of a text.
    """
    show_others = warnings.showwarning
    warnings.filterwarnings("always", category=KerasOptimizersWarning, append=True)

    @functools.wraps(show_others)
    def show(message, category, *args, **kwargs):
        here = threading.current_thread() is threading.main_thread()
        if here and issubclass(category, KerasOptimizersWarning):
            listener(str(message))
        else:
            show_others(message, category, *args, **kwargs)

    warnings.showwarning = show
