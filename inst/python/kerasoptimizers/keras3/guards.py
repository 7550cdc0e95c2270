"""Guards for Keras 3."""

import keras

from .. import guards

# The state that Keras's functions take on JAX. While one runs, it is the only place that holds the
# values of the model's variables.
_STATES = {
    "train_function": ("trainable", "non_trainable", "optimizer", "metrics"),
    "test_function": ("trainable", "non_trainable", "metrics"),
    "predict_function": ("trainable", "non_trainable"),
}


class Guards(guards.Guards):
    __doc__ = guards.Guards.__doc__

    def _return_values(self, name, args):
        if keras.backend.backend() != "jax":
            return
        # Not `self.model`: that has Keras give the variables the values of the step before.
        model = self._model
        if name in _STATES:
            names = (f"{kind}_variables" for kind in _STATES[name])
            model._jax_state = dict(zip(names, args[0]))
            model._jax_state_synced = False
        model.jax_state_sync()
