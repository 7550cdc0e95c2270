"""The SWA callback for Keras 2."""

import tensorflow as tf
import tf_keras

from .. import swa_callback
from ..guards import Guards
from . import batch_norm


class SWACallback(swa_callback.SWACallback, Guards, tf_keras.callbacks.Callback):
    __doc__ = swa_callback.SWACallback.__doc__

    _pass_type = staticmethod(batch_norm.pass_type)
    _update_batch_norm = staticmethod(batch_norm.update_batch_norm)

    @staticmethod
    def _number(rate):
        # A legacy optimizer's rate is a plain number until its variables are made.
        return float(rate.numpy() if isinstance(rate, tf.Variable) else rate)
