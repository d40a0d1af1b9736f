"""Transformer: causal self-attention over a user's events, with time.

Pre-norm blocks. Queries and events share all weights, but keys and values are events only, and only those strictly
before: simultaneous events do not see each other. The attention of head h from position x to event j is

    a_j = softmax_j( (Q x) . (K e_j) / sqrt(d_h) - p_h log(1 + distance_j) - t_h log(1 + seconds since_j) ),  p, t >= 0

so that recency is known both in events and, when the continuous time features are on, in seconds.

After Vaswani et al., "Attention Is All You Need" (NeurIPS 2017); Kang & McAuley, "Self-Attentive Sequential
Recommendation" (ICDM 2018); the linear bias on attention after Press et al., "Train Short, Test Long" (ICLR 2022).
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from pydantic import Field

from modules.catalogue import Catalogue
from modules.model_inputs import ModelInputs
from modules.models.layer_norm import LayerNorm
from modules.models.sequence_model import (
    SequenceModel,
    SequenceModelConfig,
    SequenceRecommender,
    SequenceTokens,
    visible,
)

_MASKED = 1e9


class TransformerConfig(SequenceModelConfig):
    """Settings of `Transformer`."""

    layers: int = Field(default=2, ge=1)
    """Number of blocks."""
    heads: int = Field(default=2, ge=1)
    """Attention heads; must divide `dimension`."""
    hidden_units: int = Field(default=128, ge=1)
    """Width of the feed-forward layers."""


class AttentionBlock(tf.keras.layers.Layer):
    """A pre-norm block: attention to events, then a feed-forward layer.

    Args:
      config: the model's settings.
      use_gaps: whether attention falls with the time since.
    """

    def __init__(self, config: TransformerConfig, use_gaps: bool, name: str):
        super().__init__(name=name)
        self._heads, self._size = config.heads, config.dimension // config.heads
        self._norm = LayerNorm(name=f"{name}_norm")
        self._query = tf.keras.layers.Dense(config.dimension, name=f"{name}_query")
        self._key_value = tf.keras.layers.Dense(2 * config.dimension, name=f"{name}_key_value")
        self._output = tf.keras.layers.Dense(config.dimension, name=f"{name}_output")
        self._hidden_norm = LayerNorm(name=f"{name}_hidden_norm")
        self._hidden = tf.keras.layers.Dense(config.hidden_units, activation=_gelu, name=f"{name}_hidden")
        self._hidden_output = tf.keras.layers.Dense(config.dimension, name=f"{name}_hidden_output")
        self._dropout = tf.keras.layers.Dropout(config.dropout)
        self._distance_decay = self.add_weight(
            name=f"{name}_distance_decay", shape=(config.heads, 1, 1), initializer=_decay(1.0)
        )
        self._gap_decay = (
            self.add_weight(name=f"{name}_gap_decay", shape=(config.heads, 1, 1), initializer=_decay(0.1))
            if use_gaps
            else None
        )

    def keys_and_values(self, events: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns what events offer: twice float32 `[rows, heads, E, d / heads]`."""
        offered = self._key_value(self._norm(events))
        shape = tf.shape(events)
        offered = tf.transpose(tf.reshape(offered, [shape[0], shape[1], 2, self._heads, self._size]), [2, 0, 3, 1, 4])
        # Not sliced where it is used: the gradient of a slice is as large as what it was cut from.
        keys, values = tf.unstack(offered)
        return keys, values

    def call(
        self,
        vectors: tf.Tensor,
        offered: tuple[tf.Tensor, tf.Tensor],
        view: tf.Tensor,
        sees_any: tf.Tensor,
        training: bool,
    ) -> tf.Tensor:
        """Returns the vectors after the block: float32 `[rows, P, d]`.

        Args:
          vectors: float32 `[rows, P, d]`.
          offered: see `keys_and_values`.
          view: what lowers the logits of events, float32 `[rows, kinds, P * E]`: 1e9 where one is masked, log(1 +
            distance) and, if the gaps are used, log(1 + seconds).
          sees_any: 1 where a position sees any event, else 0, float32 `[rows, P, 1]`.
          training: whether dropout applies.
        """
        shape = tf.shape(vectors)
        asked = tf.reshape(self._query(self._norm(vectors)), [shape[0], shape[1], self._heads, self._size])
        asked = tf.transpose(asked, [0, 2, 1, 3]) * self._size**-0.5
        keys, values = offered
        # All kinds at once and once for all heads: element by element this would take longer than the attention.
        lowered = tf.reshape(tf.matmul(self._decays(), view), [shape[0], self._heads, shape[1], tf.shape(keys)[2]])
        weights = tf.nn.softmax(tf.matmul(asked, keys, transpose_b=True) - lowered)
        attended = tf.reshape(tf.transpose(tf.matmul(weights, values), [0, 2, 1, 3]), shape)
        # Who sees nothing gets nothing, instead of the mean of what is masked.
        attended *= sees_any
        vectors += self._dropout(self._output(attended), training=training)
        hidden = self._hidden(self._hidden_norm(vectors))
        return vectors + self._dropout(self._hidden_output(hidden), training=training)

    def _decays(self) -> tf.Tensor:
        """Returns how much each kind of a view counts for each head: float32 `[heads, kinds]`."""
        learned = [self._distance_decay, *([] if self._gap_decay is None else [self._gap_decay])]
        rates = [tf.nn.softplus(weight[:, :, 0]) for weight in learned]
        return tf.concat([tf.ones([self._heads, 1]), *rates], axis=1)


def _gelu(values: tf.Tensor) -> tf.Tensor:
    # The tanh form costs a third of the exact one.
    return tf.nn.gelu(values, approximate=True)


def _decay(rate: float) -> tf.keras.initializers.Initializer:
    """Starts softplus(w) at a rate."""
    return tf.keras.initializers.Constant(float(np.log(np.expm1(rate))))


class TransformerModel(SequenceModel):
    """The encoder."""

    family = "transformer"

    def __init__(
        self, config: TransformerConfig, inputs: ModelInputs, catalogue: Catalogue, counts: np.ndarray, window: int
    ):
        """See `SequenceModel`."""
        super().__init__(config, inputs, catalogue, counts, window)
        self._blocks = [
            AttentionBlock(config, inputs.use_continuous_time, name=f"block_{number}")
            for number in range(config.layers)
        ]
        self._final_norm = LayerNorm(name="final_norm")

    def encode(self, tokens: SequenceTokens, training: bool) -> tf.Tensor:
        """Returns a vector for each query: float32 `[rows, Q, d]`."""
        events, queries = tokens.events, tokens.queries
        count = tf.shape(events)[1]
        event_view = self._view(tokens.event_starts, tokens.event_log_gaps, count, itself=True)
        query_view = self._view(tokens.query_starts, tokens.query_log_gaps, count, itself=False)
        for block in self._blocks:
            offered = block.keys_and_values(events)
            queries = block(queries, offered, *query_view, training=training)
            if block is not self._blocks[-1]:  # Nobody looks at what events become after the last block.
                events = block(events, offered, *event_view, training=training)
        return self._final_norm(queries)

    def _view(
        self, starts: tf.Tensor, log_gaps: tf.Tensor | None, count: tf.Tensor, itself: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `view` and `sees_any` of `AttentionBlock.call`."""
        mask = visible(starts, count, self._window)
        if itself:
            mask |= tf.eye(count, dtype=tf.bool)[tf.newaxis]
        distances = tf.maximum(starts[..., tf.newaxis] - 1 - tf.range(count), 0)
        kinds = [tf.where(mask, 0.0, _MASKED), tf.math.log1p(tf.cast(distances, tf.float32))]
        if self._inputs.use_continuous_time and log_gaps is not None:
            kinds.append(log_gaps)
        shape = tf.shape(mask)
        view = tf.reshape(tf.stack(kinds, axis=1), [shape[0], len(kinds), shape[1] * shape[2]])
        return view, tf.cast(tf.reduce_any(mask, axis=2, keepdims=True), tf.float32)


class Transformer(SequenceRecommender):
    """Fits a Transformer on whole user sequences."""

    config_class = TransformerConfig
    config: TransformerConfig
    model_class = TransformerModel
