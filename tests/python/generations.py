"""Both Keras generations behind one set of names, for tests that hold for either."""

import importlib

import keras
import pytest

GENERATIONS = ["keras3", "tf_keras"]


class Generation:
    """`keras` (the module), `name`, and the public names of our module as attributes."""

    def __init__(self, name):
        self.name = name
        if name == "keras3":
            self.keras, self._ours = keras, importlib.import_module("kerasoptimizers")
        else:
            if keras.backend.backend() != "tensorflow":
                pytest.skip("Keras 2 runs with TensorFlow: nothing new with another backend.")
            self.keras = importlib.import_module("tf_keras")
            self._ours = importlib.import_module("kerasoptimizers.tf_keras")

    def __getattr__(self, name):
        return getattr(self._ours, name)
