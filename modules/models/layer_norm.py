"""Layer normalisation that can be served: it does not go through `FusedBatchNormV3`, as Keras 2's layer does.

With oneDNN, which is on by default on x86 processors, two concurrent runs of that kernel with several rows each write
beyond their memory (seen on TensorFlow 2.16): a model server that joins requests dies, or answers wrongly before.
"""

from __future__ import annotations

import tensorflow as tf

_EPSILON = 1e-3


class LayerNorm(tf.keras.layers.Layer):
    """Normalises the last axis to mean 0 and variance 1, then scales and shifts (Ba et al., 2016).

    Weights, their initial values and epsilon are those of `tf.keras.layers.LayerNormalization`.
    """

    def build(self, input_shape: tf.TensorShape) -> None:
        """Makes scale and shift, `[dimension]`."""
        dimension = int(input_shape[-1])
        self._scale = self.add_weight(name="gamma", shape=(dimension,), initializer="ones")
        self._shift = self.add_weight(name="beta", shape=(dimension,), initializer="zeros")
        super().build(input_shape)

    def call(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the normalised values, float32 `[..., dimension]`, as given."""
        centred = values - tf.reduce_mean(values, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        return centred * (tf.math.rsqrt(variance + _EPSILON) * self._scale) + self._shift
