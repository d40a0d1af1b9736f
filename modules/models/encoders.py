"""Layers that turn model inputs and histories into vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from modules.model_inputs import Form, ModelInput

_EMBEDDING_STDDEV = 0.05
_LONGEST_LOG_GAP = 23  # log1p of 300 years in seconds


def embedding(size: int, dimension: int, name: str) -> tf.keras.layers.Embedding:
    """Returns an embedding table with small initial values."""
    initializer = tf.keras.initializers.RandomNormal(stddev=_EMBEDDING_STDDEV)
    return tf.keras.layers.Embedding(size, dimension, embeddings_initializer=initializer, name=name)


class FeatureEncoder(tf.keras.layers.Layer):
    """Sums the vectors of heterogeneous features.

    x = sum_ids E_f[id] + sum_bags (1 / sqrt(n)) sum_i E_f[id_i] + W [numbers]

    Args:
      inputs: the features.
      dimension: length of the vectors.
    """

    def __init__(self, inputs: Sequence[ModelInput], dimension: int, name: str):
        super().__init__(name=name)
        self._inputs = tuple(inputs)
        self._tables = {
            feature.name: embedding(feature.size, dimension, f"{name}_{feature.name}")
            for feature in inputs
            if feature.form in (Form.ID, Form.ID_BAG)
        }
        self._numbers = [feature.name for feature in inputs if feature.form is Form.NUMBER]
        self._dense = tf.keras.layers.Dense(dimension, use_bias=False, name=f"{name}_numbers")
        self._bias = self.add_weight(name=f"{name}_bias", shape=(dimension,), initializer="zeros")

    def call(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns float32 `[batch, dimension]` (the bias alone, `[1, dimension]`, without features)."""
        total = self._bias[tf.newaxis]
        for feature in self._inputs:
            if feature.form is Form.ID:
                total += self._tables[feature.name](features[feature.name])
            elif feature.form is Form.ID_BAG:
                ids = features[feature.name]
                present = tf.cast(ids > 0, tf.float32)[..., tf.newaxis]
                summed = tf.reduce_sum(self._tables[feature.name](ids) * present, axis=-2)
                total += summed / tf.sqrt(tf.maximum(tf.reduce_sum(present, axis=-2), 1.0))
        if self._numbers:
            total += self._dense(tf.stack([features[name] for name in self._numbers], axis=-1))
        return total


class HistoryAttention(tf.keras.layers.Layer):
    """Summarises a history by what the query asks of it.

    Multi-head attention of one query q over the events e_j, whose logits fall with the age of an event: by a learned
    multiple of log(1 + distance) in events and, when gaps are given, of log(1 + seconds).

        a_j = softmax_j( (K q) . e_j / sqrt(d) - p log(1 + distance_j) - t log(1 + gap_j) ),   p, t >= 0
        summary = V sum_j a_j e_j

    As there is one query only, K and V are applied to it and to the sum instead of to each event, which gives the same
    and takes a fiftieth of the work. Beside the attention's summary go the last event and an exponentially decayed
    mean: they carry the sequential effect, which attention alone is slow to learn.

    Args:
      dimension: length of the vectors.
      heads: attention heads.
      feedback_size: number of feedback buckets, 0 for none.
      use_gaps: whether events carry the time that passed since.
      dropout: rate on the summary.
    """

    def __init__(self, dimension: int, heads: int, feedback_size: int, use_gaps: bool, dropout: float, name: str):
        super().__init__(name=name)
        self._dimension, self._heads = dimension, heads
        self._feedback = embedding(feedback_size, dimension, f"{name}_feedback") if feedback_size else None
        self._gaps = embedding(_LONGEST_LOG_GAP + 1, dimension, f"{name}_gaps") if use_gaps else None
        self._event_norm = tf.keras.layers.LayerNormalization(name=f"{name}_event_norm")
        self._query_norm = tf.keras.layers.LayerNormalization(name=f"{name}_query_norm")
        self._dropout = tf.keras.layers.Dropout(dropout)
        self._query = tf.keras.layers.Dense(heads * dimension, name=f"{name}_query")
        self._value = tf.keras.layers.Dense(dimension, name=f"{name}_value")
        self._recent = tf.keras.layers.Dense(dimension, name=f"{name}_recent")
        self._distance_decay = self.add_weight(name=f"{name}_distance_decay", shape=(heads,), initializer="zeros")
        self._gap_decay = (
            self.add_weight(name=f"{name}_gap_decay", shape=(heads,), initializer="zeros") if use_gaps else None
        )
        self._mean_decay = self.add_weight(
            name=f"{name}_mean_decay", shape=(), initializer=tf.keras.initializers.Constant(-2.0)
        )

    def call(
        self,
        query: tf.Tensor,
        items: tf.Tensor,
        present: tf.Tensor,
        feedback: tf.Tensor | None,
        log_gaps: tf.Tensor | None,
        training: bool,
    ) -> tf.Tensor:
        """Returns the summary, float32 `[batch, dimension]`; an empty history gives a constant.

        Args:
          query: float32 `[batch, dimension]`.
          items: vectors of the events' titles, float32 `[batch, length, dimension]`.
          present: bool `[batch, length]`; events are left-aligned, oldest first.
          feedback: feedback buckets, int64 `[batch, length]`, or None.
          log_gaps: log(1 + seconds since), float32 `[batch, length]`, or None.
          training: whether dropout applies.
        """
        events = items
        if self._feedback is not None and feedback is not None:
            events += self._feedback(feedback)
        if self._gaps is not None and log_gaps is not None:
            events += self._gaps(tf.cast(tf.clip_by_value(log_gaps, 0.0, float(_LONGEST_LOG_GAP)), tf.int64))
        events = self._event_norm(events)

        mask = tf.cast(present, tf.float32)
        count = tf.reduce_sum(mask, axis=1)
        positions = tf.range(tf.shape(items)[1], dtype=tf.float32)
        distance = tf.maximum(count[:, tf.newaxis] - 1.0 - positions[tf.newaxis], 0.0)

        asked = tf.reshape(self._query(self._query_norm(query)), [-1, self._heads, self._dimension])
        logits = tf.matmul(asked, events, transpose_b=True) / self._dimension**0.5
        logits -= tf.nn.softplus(self._distance_decay)[:, tf.newaxis] * tf.math.log1p(distance)[:, tf.newaxis]
        if self._gap_decay is not None and log_gaps is not None:
            logits -= 0.3 * tf.nn.softplus(self._gap_decay)[:, tf.newaxis] * log_gaps[:, tf.newaxis]
        weights = tf.nn.softmax(tf.where(present[:, tf.newaxis], logits, -1e9)) * mask[:, tf.newaxis]
        attended = tf.reshape(tf.matmul(weights, events), [-1, self._heads * self._dimension])

        last = tf.cast(tf.equal(distance, 0.0), tf.float32) * mask
        decayed = tf.exp(-tf.nn.softplus(self._mean_decay) * distance) * mask
        decayed = tf.math.divide_no_nan(decayed, tf.reduce_sum(decayed, axis=1, keepdims=True))
        recent = tf.reshape(tf.matmul(tf.stack([last, decayed], axis=1), items), [-1, 2 * self._dimension])
        attended, recent = self._dropout(attended, training=training), self._dropout(recent, training=training)
        return self._value(attended) + self._recent(recent)
