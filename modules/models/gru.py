"""Gated recurrent unit: a state that is carried from event to event, read out when somebody comes back.

    h_j = GRU(h_{j-1}, e_j),    u(x) = LN(q + W [h, q] + FFN(...)),   h = state after the last event before x

The state that a query reads is the one before its own instant, so that simultaneous events do not see each other.

After Hidasi et al., "Session-based Recommendations with Recurrent Neural Networks" (ICLR 2016), trained at every
position on whole sequences; Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder" (EMNLP 2014).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from pydantic import Field

from modules.catalogue import Catalogue
from modules.model_inputs import ModelInputs
from modules.models.layer_norm import LayerNorm
from modules.models.sequence_model import SequenceModel, SequenceModelConfig, SequenceRecommender, SequenceTokens


class GruConfig(SequenceModelConfig):
    """Settings of `Gru`."""

    max_epochs: int = Field(default=12, ge=1)
    """Passes over the training split at most; also the length of the learning-rate schedule."""
    state_units: int = Field(default=96, ge=1)
    """Length of the recurrent state."""
    hidden_units: int = Field(default=128, ge=1)
    """Width of the feed-forward layer."""


class GruModel(SequenceModel):
    """The encoder."""

    family = "gru"

    def __init__(self, config: GruConfig, inputs: ModelInputs, catalogue: Catalogue, counts: np.ndarray, window: int):
        """See `SequenceModel`."""
        super().__init__(config, inputs, catalogue, counts, window)
        self._size = config.state_units
        # Everything that does not depend on the state is computed for all events at once.
        self._input_gates = tf.keras.layers.Dense(3 * config.state_units, name="input_gates")
        self._state_gates = self.add_weight(
            name="state_gates", shape=(config.state_units, 3 * config.state_units), initializer="orthogonal"
        )
        self._state_bias = self.add_weight(name="state_bias", shape=(3 * config.state_units,), initializer="zeros")
        self._state_norm = LayerNorm(name="state_norm")
        self._read = tf.keras.layers.Dense(config.dimension, name="read")
        self._hidden_norm = LayerNorm(name="hidden_norm")
        self._hidden = tf.keras.layers.Dense(config.hidden_units, activation="gelu", name="hidden")
        self._hidden_output = tf.keras.layers.Dense(config.dimension, name="hidden_output")
        self._final_norm = LayerNorm(name="final_norm")

    def encode(self, tokens: SequenceTokens, training: bool) -> tf.Tensor:
        """Returns a vector for each query: float32 `[rows, Q, d]`."""
        states = self._states(tokens.events)
        # Position 0 is the state before the first event; padding queries have a start of -1.
        states = tf.pad(states, [[0, 0], [1, 0], [0, 0]])
        read = tf.gather(states, tf.maximum(tokens.query_starts, 0), batch_dims=1)
        present = tf.cast(tokens.query_starts > 0, tf.float32)[..., tf.newaxis]
        read = self._dropout(self._state_norm(read) * present, training=training)
        vectors = tokens.queries + self._read(tf.concat([read, tokens.queries], axis=2))
        hidden = self._dropout(self._hidden(self._hidden_norm(vectors)), training=training)
        return self._final_norm(vectors + self._hidden_output(hidden))

    def _states(self, events: tf.Tensor) -> tf.Tensor:
        """Returns the state after each event: float32 `[rows, E, state_units]`."""
        gates = tf.transpose(self._input_gates(events), [1, 0, 2])

        def step(state: tf.Tensor, gate_inputs: tf.Tensor) -> tf.Tensor:
            from_state = tf.matmul(state, self._state_gates) + self._state_bias
            update_input, reset_input, new_input = tf.split(gate_inputs, 3, axis=1)
            update_state, reset_state, new_state = tf.split(from_state, 3, axis=1)
            update = tf.sigmoid(update_input + update_state)
            new = tf.tanh(new_input + tf.sigmoid(reset_input + reset_state) * new_state)
            return update * state + (1.0 - update) * new

        start = tf.zeros([tf.shape(events)[0], self._size])
        return tf.transpose(tf.scan(step, gates, initializer=start), [1, 0, 2])


class Gru(SequenceRecommender):
    """Fits a recurrent network on whole user sequences."""

    config_class = GruConfig
    config: GruConfig
    model_class = GruModel
