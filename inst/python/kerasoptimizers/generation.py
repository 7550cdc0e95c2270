"""Which Keras a model is of: functions that take a model of either ask here."""

import importlib
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
