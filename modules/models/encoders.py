"""Layers that turn model inputs and histories into vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from modules.model_inputs import Form, ModelInput
from modules.models.base_model import RowsOfWeight, category_rows, number_rows
from modules.models.layer_norm import LayerNorm

_EMBEDDING_STDDEV = 0.05
# Logarithms of gaps in seconds are several times those of distances; the decays start out alike.
_GAP_SCALE = 0.3
_GAP_BUCKETS = 24  # the last one begins at log1p of 300 years in seconds


def embedding(size: int, dimension: int, name: str) -> tf.keras.layers.Embedding:
    """Returns an embedding table with small initial values."""
    return tf.keras.layers.Embedding(size, dimension, embeddings_initializer=_small_values(), name=name)


def _small_values() -> tf.keras.initializers.Initializer:
    return tf.keras.initializers.RandomNormal(stddev=_EMBEDDING_STDDEV)


class FeatureEncoder(tf.keras.layers.Layer):
    """Sums the vectors of heterogeneous features.

    x = sum_ids E_f[id] + sum_bags (1 / sqrt(n)) sum_i E_f[id_i] + W [numbers] + b

    The tables E_f are kept as one, and all ids of an example are looked up at once.

    Args:
      inputs: the features.
      dimension: length of the vectors.
    """

    def __init__(self, inputs: Sequence[ModelInput], dimension: int, name: str):
        super().__init__(name=name)
        self._categories = [feature for feature in inputs if feature.form is not Form.NUMBER]
        self._numbers = [feature.name for feature in inputs if feature.form is Form.NUMBER]
        sizes = [feature.size for feature in self._categories]
        self._offsets = [sum(sizes[:position]) for position in range(len(sizes))]
        if self._categories:
            self._table = embedding(sum(sizes), dimension, f"{name}_categories")
        self._dense = tf.keras.layers.Dense(dimension, use_bias=False, name=f"{name}_numbers")
        self._bias = self.add_weight(name=f"{name}_bias", shape=(dimension,), initializer="zeros")

    def call(self, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns float32 `[batch, dimension]` (the bias alone, `[1, dimension]`, without features)."""
        total = self._bias[tf.newaxis]
        if self._categories:
            ids, weights = self._weighted_ids(features)
            total += tf.matmul(weights[:, tf.newaxis], self._table(ids))[:, 0]
        if self._numbers:
            total += self._dense(tf.stack([features[name] for name in self._numbers], axis=-1))
        return total

    def rows_of_weights(self) -> list[RowsOfWeight]:
        """Returns the weights with rows for ids and for numbers, and what these rows stand for."""
        rows: list[RowsOfWeight] = []
        if self._categories:
            rows.append((self._table.embeddings, category_rows(self._categories)))
        if self._numbers:
            rows.append((self._dense.kernel, number_rows(self._numbers)))
        return rows

    def _weighted_ids(self, features: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns rows of the common table and what each counts, int64 and float32 `[batch, ids per example]`."""
        ids, weights = [], []
        for feature, offset in zip(self._categories, self._offsets, strict=True):
            values = features[feature.name]
            if feature.form is Form.ID:
                values = values[:, tf.newaxis]
                weight = tf.ones_like(values, tf.float32)
            else:
                present = tf.cast(values > 0, tf.float32)
                weight = present / tf.sqrt(tf.maximum(tf.reduce_sum(present, axis=1, keepdims=True), 1.0))
            ids.append(values + offset)
            weights.append(weight)
        return tf.concat(ids, axis=1), tf.concat(weights, axis=1)


class HistoryAttention(tf.keras.layers.Layer):
    """Summarises a history by what the query asks of it.

    An event is its title's vector plus those of its feedback and of the time since: e_j = x_j + f_j + g_j. Multi-head
    attention of one query q over the events, whose logits fall with the age of an event: by a learned multiple of
    log(1 + distance) in events and, when gaps are given, of log(1 + seconds).

        a_j = softmax_j( (K q) . e_j / sqrt(d) - p log(1 + distance_j) - t log(1 + gap_j) ),   p, t >= 0
        summary = V sum_j a_j e_j

    All of it is linear in the events, so K and V are applied to the query and to the sum, and f and g enter through
    their few buckets: no vector of an event is ever formed, which makes up most of the speed. Beside the attention's
    summary go the last event and an exponentially decayed mean: they carry the sequential effect, which attention
    alone is slow to learn.

    Args:
      dimension: length of the vectors.
      heads: attention heads.
      feedback_size: number of feedback buckets, 0 for none.
      use_gap_buckets: whether events carry the bucket of the time that passed since.
      use_gap_decay: whether attention falls with that time.
      dropout: rate on the summary.
    """

    def __init__(
        self,
        dimension: int,
        heads: int,
        feedback_size: int,
        use_gap_buckets: bool,
        use_gap_decay: bool,
        dropout: float,
        name: str,
    ):
        super().__init__(name=name)
        self._dimension, self._heads = dimension, heads
        self._feedback_size, self._use_gap_buckets = feedback_size, use_gap_buckets
        if buckets := feedback_size + (_GAP_BUCKETS if use_gap_buckets else 0):
            self._marks = self.add_weight(name=f"{name}_marks", shape=(buckets, dimension), initializer=_small_values())
        self._query_norm = LayerNorm(name=f"{name}_query_norm")
        self._dropout = tf.keras.layers.Dropout(dropout)
        self._query = tf.keras.layers.Dense(heads * dimension, name=f"{name}_query")
        self._value = tf.keras.layers.Dense(dimension, name=f"{name}_value")
        self._recent = tf.keras.layers.Dense(dimension, name=f"{name}_recent")
        self._distance_decay = self.add_weight(name=f"{name}_distance_decay", shape=(heads,), initializer="zeros")
        self._gap_decay = (
            self.add_weight(name=f"{name}_gap_decay", shape=(heads,), initializer="zeros") if use_gap_decay else None
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
        mask = tf.cast(present, tf.float32)
        count = tf.reduce_sum(mask, axis=1)
        positions = tf.range(tf.shape(items)[1], dtype=tf.float32)
        distance = tf.maximum(count[:, tf.newaxis] - 1.0 - positions[tf.newaxis], 0.0)
        marks = self._mark_events(feedback, log_gaps)

        asked = tf.reshape(self._query(self._query_norm(query)), [-1, self._heads, self._dimension])
        logits = tf.matmul(asked, items, transpose_b=True)
        if marks is not None:
            logits += tf.matmul(tf.matmul(asked, self._marks, transpose_b=True), marks, transpose_b=True)
        logits /= self._dimension**0.5
        logits -= tf.nn.softplus(self._distance_decay)[:, tf.newaxis] * tf.math.log1p(distance)[:, tf.newaxis]
        if self._gap_decay is not None and log_gaps is not None:
            logits -= _GAP_SCALE * tf.nn.softplus(self._gap_decay)[:, tf.newaxis] * log_gaps[:, tf.newaxis]
        weights = tf.nn.softmax(tf.where(present[:, tf.newaxis], logits, -1e9)) * mask[:, tf.newaxis]

        last = tf.cast(tf.equal(distance, 0.0), tf.float32) * mask
        decayed = tf.exp(-tf.nn.softplus(self._mean_decay) * distance) * mask
        decayed = tf.math.divide_no_nan(decayed, tf.reduce_sum(decayed, axis=1, keepdims=True))
        sums = tf.matmul(tf.concat([weights, tf.stack([last, decayed], axis=1)], axis=1), items)
        attended, recent = tf.split(sums, [self._heads, 2], axis=1)
        if marks is not None:
            attended += tf.matmul(tf.matmul(weights, marks), self._marks)
        attended = self._dropout(tf.reshape(attended, [-1, self._heads * self._dimension]), training=training)
        recent = self._dropout(tf.reshape(recent, [-1, 2 * self._dimension]), training=training)
        return self._value(attended) + self._recent(recent)

    def _mark_events(self, feedback: tf.Tensor | None, log_gaps: tf.Tensor | None) -> tf.Tensor | None:
        """Returns which buckets each event falls into, float32 `[batch, length, buckets]`, one-hot by kind."""
        marks = []
        if self._feedback_size and feedback is not None:
            marks.append(tf.one_hot(feedback, self._feedback_size))
        if self._use_gap_buckets and log_gaps is not None:
            last_bucket = float(_GAP_BUCKETS - 1)
            marks.append(tf.one_hot(tf.cast(tf.clip_by_value(log_gaps, 0.0, last_bucket), tf.int64), _GAP_BUCKETS))
        return tf.concat(marks, axis=-1) if marks else None
