"""Both Keras generations behind one set of names, for tests that hold for either."""

import importlib

import keras
import numpy as np
import pytest

from kerasoptimizers import methods

GENERATIONS = ["keras3", "tf_keras"]
#: The names of all averaging optimizers.
METHODS = list(methods.__all__)


def average_slot(optimizer):
    """The name of the slot that holds the averages."""
    return optimizer.averages.rule.slot


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

    def averaging(self, inner, rule, **settings):
        """An optimizer for a rule that has no class."""
        module = importlib.import_module(f"kerasoptimizers.{self.name}.optimizer")
        return module.AveragingOptimizer(inner, rule, type(rule).__name__, settings, {})

    def variables(self, values, dtype="float32"):
        """Trainable variables that belong to no model."""
        if self.name == "keras3":
            return [keras.Variable(np.array(value), dtype=dtype) for value in values]
        tf = importlib.import_module("tensorflow")
        return [tf.Variable(tf.cast(np.array(value), dtype)) for value in values]

    def apply(self, optimizer, gradients, variables):
        """One update."""
        if self.name == "keras3":
            optimizer.apply([keras.ops.convert_to_tensor(g, v.dtype) for g, v in zip(gradients, variables)], variables)
        else:
            tf = importlib.import_module("tensorflow")
            optimizer.apply_gradients([(tf.cast(g, v.dtype), v) for g, v in zip(gradients, variables)])

    def model_of_texts(self, *last):
        """A model whose first layer looks words up in a table, with these layers at its end; that layer, and texts."""
        layers = self.keras.layers
        words = layers.TextVectorization(output_sequence_length=3)
        texts = np.array([["a b"], ["b c a"], ["c"], ["a d"]])
        words.adapt(texts)
        inputs = self.keras.Input((1,), dtype="string")
        return self.keras.Sequential([inputs, words, layers.Rescaling(1.0), *last]), words, texts

    def model_with_gradients(self, initial):
        """A model with these weights whose gradients are the rows of its input, and its function for the loss."""

        ops = keras.ops if self.name == "keras3" else self.keras.backend
        constant = self.keras.initializers.Constant

        class Weights(self.keras.layers.Layer):
            def build(self, input_shape):
                self.parts = [
                    self.add_weight(name=f"w{i}", shape=np.shape(value), initializer=constant(np.array(value)))
                    for i, value in enumerate(initial)
                ]

            def call(self, rows):
                flat = ops.concatenate([ops.reshape(w, (-1,)) for w in self.parts], axis=0)
                return ops.sum(rows * flat, axis=-1, keepdims=True)

        size = sum(np.size(value) for value in initial)
        return self.keras.Sequential([self.keras.Input((size,)), Weights()]), lambda y, out: out


def value(variable):
    """The value of a variable of either generation, as a NumPy array."""
    is_keras3 = isinstance(variable, keras.Variable)
    return np.array(keras.ops.convert_to_numpy(variable) if is_keras3 else variable)


def values(variables):
    return [value(variable) for variable in variables]


def assert_same(actual, expected):
    """Two lists of arrays are equal, bit for bit."""
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, b)
