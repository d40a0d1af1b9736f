"""Layer normalisation against NumPy, and against the Keras layer in whose place it stands."""

import numpy as np
import pytest
import tensorflow as tf

from modules.models.layer_norm import LayerNorm


@pytest.fixture(scope="module")
def layer():
    made = LayerNorm()
    made.build((None, 6))
    random = np.random.default_rng(1)
    made.set_weights([random.normal(size=6), random.normal(size=6)])
    return made


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6), (0, 6)])
def test_normalises_the_last_axis(layer, shape):
    values = np.random.default_rng(2).normal(3.0, 10.0, shape).astype(np.float32)
    scale, shift = layer.get_weights()
    expected = (values - values.mean(-1, keepdims=True)) / np.sqrt(values.var(-1, keepdims=True) + 1e-3) * scale + shift
    np.testing.assert_allclose(layer(values), expected, rtol=1e-4, atol=1e-4)


def test_values_and_gradients_are_those_of_the_keras_layer(layer):
    keras = tf.keras.layers.LayerNormalization()
    keras.build((None, 6))
    keras.set_weights(layer.get_weights())
    values = tf.Variable(np.random.default_rng(3).normal(size=(4, 6)).astype(np.float32))
    wanted = tf.constant(np.random.default_rng(4).normal(size=(4, 6)).astype(np.float32))
    outcomes = []
    for one in (layer, keras):
        with tf.GradientTape() as tape:
            normalised = one(values)
            loss = tf.reduce_sum(normalised * wanted)
        outcomes.append([normalised, *tape.gradient(loss, [values, *one.trainable_variables])])
    for mine, theirs in zip(*outcomes, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_constant_becomes_the_shift(layer):
    np.testing.assert_allclose(layer(np.full((1, 6), 7.0, np.float32))[0], layer.get_weights()[1], atol=1e-6)
