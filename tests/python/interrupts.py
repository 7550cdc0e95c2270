"""Interrupts at every line of our code, one after the other."""

import contextlib
import os
import sys

import kerasoptimizers

PACKAGE = os.path.dirname(kerasoptimizers.__file__)


def lines_of(work, files=("",)):
    """The lines of our code that `work()` runs: for each the numbers of the first and the last event there.

    Args:
        work: function without arguments.
        files: beginnings of the paths of files, within the package.
    """
    found = {}

    def note(number, frame, event):
        place = frame.f_code, frame.f_lineno, event
        found[place] = found.get(place, (number,))[0], number

    _traced(work, note, files)
    return sorted({number for numbers in found.values() for number in numbers})


def interrupt(work, at, files=("",)):
    """Run `work()`, with a KeyboardInterrupt at one event; which line that was."""
    place = None

    def stop(number, frame, event):
        nonlocal place
        if number == at:
            place = f"{frame.f_code.co_filename}:{frame.f_lineno} ({event})"
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        _traced(work, stop, files)
    return place


def _traced(work, see, files):
    paths = tuple(os.path.join(PACKAGE, file) for file in files)
    number = 0

    def trace(frame, event, arg):
        nonlocal number
        if not frame.f_code.co_filename.startswith(paths):
            return None
        if event in ("call", "line"):
            number += 1
            see(number, frame, event)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
