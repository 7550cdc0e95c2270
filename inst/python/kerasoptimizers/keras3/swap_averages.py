"""The callbacks that show the averages, for Keras 3."""

import keras

from .. import swap_averages


class SwapAverages(swap_averages.SwapAverages, keras.callbacks.Callback):
    __doc__ = swap_averages.SwapAverages.__doc__

    def _return_values(self, args):
        if keras.backend.backend() != "jax":
            return
        # While a JAX step runs, its state is the only place that holds the variables' values.
        if args and isinstance(args[0], (list, tuple)) and not self.model._jax_state:
            self.model._jax_state = {
                "trainable_variables": args[0][0],
                "non_trainable_variables": args[0][1],
            }
        if self.model._jax_state:
            self.model._jax_state_synced = False
            self.model.jax_state_sync()


class AverageModelCheckpoint(
    swap_averages.AverageModelCheckpoint, keras.callbacks.ModelCheckpoint
):
    __doc__ = swap_averages.AverageModelCheckpoint.__doc__
