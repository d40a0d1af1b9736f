"""The network that judges pairs of a query and a title: what the ranker is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import tensorflow as tf
import tensorflow_recommenders as tfrs

from modules import preprocessing
from modules.features import HISTORY_ITEM_IDS
from modules.model_inputs import ModelInputs
from modules.models.base_model import RowsOfWeight, item_rows
from modules.models.encoders import FeatureEncoder, HistoryAttention, embedding
from modules.models.item_side import hide_some_ids
from modules.models.layer_norm import LayerNorm

_SMOOTHING = 5.0


class QueryState(NamedTuple):
    """What does not depend on the candidate, and is computed once for each query.

    Attributes:
      vector: who asks, when, and a summary of the history, `[batch, dimension]`.
      opinions: sums of the history's titles, weighted by feedback in several ways, `[batch, opinions, dimension]`.
      feedback_shares: smoothed shares of each feedback bucket in the history, `[batch, buckets]`.
      history: vectors of the history's titles, `[batch, length, dimension]`.
      present: where `history` holds a title, bool `[batch, length]`.
      buckets: feedback buckets of the history, one-hot, `[batch, length, buckets]`.
    """

    vector: tf.Tensor
    opinions: tf.Tensor
    feedback_shares: tf.Tensor
    history: tf.Tensor
    present: tf.Tensor
    buckets: tf.Tensor


class QueryReader(tf.keras.layers.Layer):
    """Reads a query: its features, and the history with the feedback that was given.

    Args:
      inputs: the model's features.
      dimension: length of the vectors.
      opinions: ways to weigh a title by the feedback it got; they start as multiples of "liked more than usual".
      dropout: rate on the features and on the summary.
    """

    def __init__(self, inputs: ModelInputs, dimension: int, opinions: int, dropout: float):
        super().__init__(name="query_reader")
        self._inputs = inputs
        # Without feedback all events are of one kind.
        self._buckets = inputs.history_feedback_size if inputs.history_feedback else 1
        self._features = FeatureEncoder(inputs.query, dimension, name="query_features")
        self._history = HistoryAttention(
            dimension,
            heads=1,
            feedback_size=self._buckets if inputs.history_feedback else 0,
            use_gap_buckets=inputs.use_time_buckets,
            use_gap_decay=inputs.use_continuous_time,
            dropout=dropout,
            name="history",
        )
        self._dropout = tf.keras.layers.Dropout(dropout)
        self._norm = LayerNorm(name="query_norm")
        self._weights = self.add_weight(
            name="feedback_weights",
            shape=(self._buckets, opinions),
            initializer=tf.keras.initializers.RandomNormal(stddev=0.5),
        )

    def call(self, query: Mapping[str, tf.Tensor], history: tf.Tensor, training: bool) -> QueryState:
        """Reads transformed queries; `history` holds the vectors of their titles, `[batch, length, dimension]`."""
        present = query[HISTORY_ITEM_IDS] > 0
        mask = tf.cast(present, tf.float32)
        name = self._inputs.history_feedback
        feedback = query[name] if name else tf.zeros_like(query[HISTORY_ITEM_IDS])
        buckets = tf.one_hot(feedback, self._buckets) * mask[..., tf.newaxis]
        asked = self._dropout(self._features(query), training=training)
        asked = tf.broadcast_to(asked, [tf.shape(history)[0], tf.shape(history)[2]])
        gaps = query[preprocessing.HISTORY_LOG_GAPS] if self._inputs.use_gaps else None
        watched = self._history(asked, history, present, feedback if name else None, gaps, training=training)
        count = tf.reduce_sum(mask, axis=1)[:, tf.newaxis]
        weighted = tf.matmul(buckets, self._weights)
        opinions = tf.matmul(weighted, history, transpose_a=True) / tf.sqrt(count + _SMOOTHING)[..., tf.newaxis]
        shares = tf.reduce_sum(buckets, axis=1) / (count + _SMOOTHING)
        return QueryState(self._norm(asked + watched), opinions, shares, history, present, buckets)

    def rows_of_weights(self) -> list[RowsOfWeight]:
        """Returns the weights with rows for features of the query."""
        return self._features.rows_of_weights()


class TitleReader(tf.keras.layers.Layer):
    """Vector of a title: its features and, where ids may be used, one of its own.

    Args:
      inputs: the model's features.
      dimension: length of the vectors.
      id_dropout: share of titles whose id is hidden in a training step.
    """

    def __init__(self, inputs: ModelInputs, dimension: int, id_dropout: float):
        super().__init__(name="title_reader")
        self._inputs, self._id_dropout = inputs, id_dropout
        self._features = FeatureEncoder(inputs.item, dimension, name="title_features")
        self._norm = LayerNorm(name="title_norm")
        if inputs.use_item_ids:
            self._ids = embedding(inputs.item_vocabulary_size, dimension, "title_ids")

    def call(self, ids: tf.Tensor, features: Mapping[str, tf.Tensor], training: bool) -> tf.Tensor:
        """Returns float32 `[titles, dimension]` of titles by vocabulary id, int64 `[titles]`."""
        vectors = self._features(features)
        vectors = tf.broadcast_to(vectors, [tf.shape(ids)[0], tf.shape(vectors)[1]])
        if self._inputs.use_item_ids:
            if training and self._id_dropout:
                ids = hide_some_ids(ids, self._id_dropout, self._inputs.item_vocabulary_size)
            vectors += self._ids(ids)
        return self._norm(vectors)

    def rows_of_weights(self) -> list[RowsOfWeight]:
        """Returns the weights with rows for titles and their features."""
        rows = self._features.rows_of_weights()
        if self._inputs.use_item_ids:
            rows.append((self._ids.embeddings, item_rows(self._inputs.item_vocabulary_size, self._id_dropout)))
        return rows


class PairNetwork(tf.keras.layers.Layer):
    """Deep & cross network over a query and a candidate (Wang et al., "DCN V2", WWW 2021, stacked structure).

    x_0 holds the query's vector u, the title's vector c, u * c, the title's statistics, the dot products of c with the
    opinions, the shares of feedback buckets in the history and, by attention of c over the history, those among titles
    like c: what the user made of similar titles. Cross layers of low rank, x_{l+1} = x_0 * (U V x_l + b) + x_l, form
    products of these features; a hidden layer and one linear head for each task follow.

    Args:
      cross_layers: number of cross layers.
      cross_rank: rank of U V.
      hidden_units: width of the hidden layer.
      dropout: rate on the hidden layer.
      tasks: number of heads.
    """

    def __init__(self, cross_layers: int, cross_rank: int, hidden_units: int, dropout: float, tasks: int):
        super().__init__(name="pair_network")
        self._crosses = [
            tfrs.layers.dcn.Cross(projection_dim=cross_rank, kernel_initializer="glorot_uniform", name=f"cross_{layer}")
            for layer in range(cross_layers)
        ]
        self._hidden = tf.keras.layers.Dense(hidden_units, activation="gelu", name="pair_hidden")
        self._dropout = tf.keras.layers.Dropout(dropout)
        self._heads = tf.keras.layers.Dense(tasks, name="pair_heads")
        self._likeness_scale = self.add_weight(name="likeness_scale", shape=(), initializer="ones")
        self._nothing_alike = self.add_weight(name="nothing_alike", shape=(), initializer="ones")

    def call(self, state: QueryState, titles: tf.Tensor, statistics: tf.Tensor, training: bool) -> tf.Tensor:
        """Judges candidates: float32 `[batch, candidates, tasks]`.

        Args:
          state: the queries.
          titles: vectors of the candidates, float32 `[batch, candidates, dimension]`.
          statistics: of the candidates, float32 `[batch, candidates, statistics]`.
          training: whether dropout applies.
        """
        scale = float(titles.shape[-1]) ** -0.5
        query = tf.broadcast_to(state.vector[:, tf.newaxis], tf.shape(titles))
        shares = tf.repeat(state.feedback_shares[:, tf.newaxis], tf.shape(titles)[1], axis=1)
        opinions = tf.matmul(titles, state.opinions, transpose_b=True) * scale
        product = query * titles
        agreement = tf.reduce_sum(product, axis=-1, keepdims=True) * scale
        features = [query, titles, product, agreement, statistics, opinions, shares, self._made_of_alike(state, titles)]
        first = crossed = tf.concat(features, axis=-1)
        for cross in self._crosses:
            crossed = cross(first, crossed)
        hidden = self._dropout(self._hidden(crossed), training=training)
        return self._heads(tf.concat([hidden, crossed], axis=-1))

    def _made_of_alike(self, state: QueryState, titles: tf.Tensor) -> tf.Tensor:
        """Returns the shares of feedback buckets among titles like each candidate: `[batch, candidates, buckets]`."""
        alike = tf.matmul(titles, state.history, transpose_b=True) * (float(titles.shape[-1]) ** -0.5)
        alike = tf.where(state.present[:, tf.newaxis], alike * self._likeness_scale, -1e9)
        nothing = self._nothing_alike * tf.ones_like(alike[..., :1])
        weights = tf.nn.softmax(tf.concat([alike, nothing], axis=-1))[..., :-1]
        return tf.matmul(weights, state.buckets)
