"""Exact batch-norm statistics, for both Kerases.

A pass runs the model in training mode over the data and watches what goes into its batch-norm layers: for each batch
the number, mean and variance of the examples (`moments.py`). Merged, these are exact over all examples, however unequal
the batches. The momentum of the layers plays no part, and nothing in the model changes before the end.

`data.py` makes batches of whatever `fit()` takes. `passes.py` is the pass, `tensorflow.py`, `jax.py` and `torch.py` run
its steps. `update.py` is `update_batch_norm()`.
"""

from .data import batches, refuse_other_names, require_data
from .update import recalibrate_with, updater

__all__ = ["batches", "recalibrate_with", "refuse_other_names", "require_data", "updater"]
