"""Python in a process of its own, which finds the modules that this one finds."""

import os
import subprocess
import sys


def environment(**settings):
    """The variables for such a process: strings, by name."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **settings}


def run_python(*arguments, timeout=None, **settings):
    """Run `python ARGUMENT...`: the ended process, with what it printed."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(**settings), timeout=timeout)
