"""Which Keras a model is of: functions that take a model of either ask here."""

import importlib
import sys
from types import FrameType
from typing import Any

from . import arguments


def module_for(model: Any, name: str = "model") -> Any:
    """Our module for a model's Keras: `keras3` or `tf_keras`.

    Args:
        model: Keras model of either generation.
        name: str, the argument that it was given as.
    """
    roots = {kind.__module__.partition(".")[0] for kind in type(model).__mro__ if kind.__name__ == "Model"}
    for root, ours in (("tf_keras", ".tf_keras"), ("keras", ".keras3")):
        if root in roots:
            return importlib.import_module(ours, __package__)
    arguments.refuse(name, "a Keras model", model)


def built_model(model: Any) -> Any:
    """Our module for a model's Keras; an error for a model without weights."""
    ours = module_for(model)
    if not model.built:
        raise ValueError(f"`model` must be built, and '{model.name}' is not: it has no weights yet.")
    return ours


def steps_of_fit() -> int | None:
    """How many batches an epoch has in the `fit()` that is running.

    Returns:
        0 if Keras doesn't know it, or if `train_on_batch()` trains; None where nothing is being trained.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "train_on_batch":
            return 0
        if frame.f_code.co_name == "fit":
            # Keras's list of callbacks has it; while the model is built there is none yet.
            found = getattr(frame.f_locals.get("callbacks"), "params", None)
            data = frame.f_locals.get("epoch_iterator")
            if isinstance(found, dict) or data is not None:
                return (found or {}).get("steps") or getattr(data, "num_batches", None) or 0
        frame = frame.f_back
    return None
