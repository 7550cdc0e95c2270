"""Exact batch-norm statistics for Keras 2."""

from types import SimpleNamespace

import numpy as np
import tensorflow as tf
import tf_keras

from .. import batch_norm


class Pass(batch_norm.TensorFlowPass):
    _keras = tf_keras
    _generation = "Keras 2"
    # The base of all batch-norm layers of Keras 2: version 1 and the synchronized one too.
    _layer_type = tf_keras.layers.BatchNormalization.__base__
    _autograph = True
    _native = staticmethod(tf.is_tensor)
    _xp = SimpleNamespace(
        broadcast_to=tf.broadcast_to,
        cast=tf.cast,
        concatenate=lambda parts: tf.concat(parts, 0),
        expand_dims=tf.expand_dims,
        moments=tf.nn.moments,
        ones_like=tf.ones_like,
        reshape=tf.reshape,
        shape=tf.shape,
        size=lambda x: tf.size(x, tf.int64),
        sum=lambda x, axes: tf.reduce_sum(x, axes, keepdims=True),
        where=tf.where,
        zeros_like=tf.zeros_like,
    )

    _inner: tuple[str, ...] = ("_moments", "_fused_batch_norm")

    def _watched(self, i, layer):
        watched = super()._watched(i, layer)
        # Moments of virtual batches aren't those of the batch, and those of several replicas
        # come out of less precise sums.
        if layer.virtual_batch_size is not None or layer.synchronized:
            return watched
        moments = layer._moments

        def watched_moments(inputs, reduction_axes, keep_dims, mask=None):
            mean, variance = moments(inputs, reduction_axes, keep_dims, mask=mask)
            count = None
            if mask is not None:
                weights = tf.cast(self._spread(mask, inputs), self._dtype)
                count = tf.reduce_sum(weights, reduction_axes)
            self._record(i, inputs, mean, variance, count)
            return mean, variance

        def watched_fused_batch_norm(inputs, mask, training):
            if not training:
                return fused(inputs, mask, training)
            # As in Keras, but without moving averages. This kernel disregards masks.
            shape, dtype = layer._param_shape, layer._param_dtype
            outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                inputs,
                layer.gamma if layer.scale else tf.ones(shape, dtype),
                layer.beta if layer.center else tf.zeros(shape, dtype),
                epsilon=layer.epsilon,
                is_training=True,
                data_format=layer._data_format,
            )
            # It corrects the variance by n / (n - 1).
            count = tf.cast(tf.size(inputs, tf.int64) // self._widths[i], self._dtype)
            variance = tf.cast(variance, self._dtype) * (count - 1.0) / count
            self._record(i, inputs, mean, variance)
            return outputs

        fused = layer._fused_batch_norm
        return {
            **watched,
            "_moments": watched_moments,
            "_fused_batch_norm": watched_fused_batch_norm,
        }

    @staticmethod
    def _read(variable):
        return np.array(variable.numpy())

    @staticmethod
    def _write(variable, value):
        variable.assign(tf.cast(value, variable.dtype))

    def _variables(self):
        model = self.model
        variables = list(model.variables)
        if not self._with_loss:
            variables += [v for metric in model.metrics for v in metric.variables]
        for layer in model._flatten_layers():
            # Keras 2 does not count the state of dropout's generator among the variables.
            generator = getattr(getattr(layer, "_random_generator", None), "_generator", None)
            if generator is not None:
                variables.append(generator.state)
        return variables

    def _forward(self, x):
        return self.model(x, training=True)

    def _update_metrics(self, x, y, y_pred, sample_weight):
        self.model.compute_loss(x, y, y_pred, sample_weight)
        self.model.compute_metrics(x, y, y_pred, sample_weight)

    def _steps_per_execution(self):
        steps = self.model._steps_per_execution
        return 1 if steps is None else int(steps.numpy())


def pass_type():
    """The class of passes."""
    return Pass


update_batch_norm = batch_norm.updater(pass_type)
