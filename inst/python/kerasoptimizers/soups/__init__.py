"""Averages of finished models and of files.

`arithmetic.py` is the arithmetic in NumPy alone, `sources.py` reads models and files block by block, `checkpoints.py`
chooses files of a folder, and `functions.py` has the public functions.
"""

from .functions import Soups

__all__ = ["Soups"]
