"""The SWA callback for Keras 3."""

import keras

from .. import swa_callback
from . import batch_norm
from .guards import Guards


class SWACallback(swa_callback.SWACallback, Guards, keras.callbacks.Callback):
    __doc__ = swa_callback.SWACallback.__doc__

    _pass_type = staticmethod(batch_norm.pass_type)
    _update_batch_norm = staticmethod(batch_norm.update_batch_norm)

    @staticmethod
    def _number(variable):
        return float(keras.ops.convert_to_numpy(variable))
