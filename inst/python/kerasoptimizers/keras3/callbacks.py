"""The SWA callback for Keras 3."""

import keras

from .. import swa_callback
from . import batch_norm


class SWACallback(swa_callback.SWACallback, keras.callbacks.Callback):
    __doc__ = swa_callback.SWACallback.__doc__

    _pass_type = staticmethod(batch_norm.pass_type)
    _update_batch_norm = staticmethod(batch_norm.update_batch_norm)

    @staticmethod
    def _number(variable):
        return float(keras.ops.convert_to_numpy(variable))

    @staticmethod
    def _reattach(model, args):
        """Give the variables their values back, where a failed JAX step has them as its state."""
        if keras.backend.backend() == "jax":
            names = ("trainable", "non_trainable", "optimizer", "metrics")
            model._jax_state = {f"{name}_variables": state for name, state in zip(names, args[0])}
            model._jax_state_synced = False
            model.jax_state_sync()
