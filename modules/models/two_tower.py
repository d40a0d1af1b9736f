"""Two towers: a query tower over profile, context, time and recent titles; an item tower over id and side features.

score(x, i) = 2 u(x) . v(i) / sqrt(d) + b(i)

so that candidate generation is a maximum inner product search. Users have no vector of their own: the query tower
reads their history, and new users need no retraining. Trained by the sampled softmax of
`modules.models.retrieval_loss`. After Covington et al., "Deep Neural Networks for YouTube Recommendations" (RecSys
2016), and Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations" (RecSys 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
from pydantic import Field

from modules import preprocessing
from modules.catalogue import Catalogue
from modules.features import HISTORY_ITEM_IDS, ITEM_ID, SEEN_ITEM_IDS
from modules.model_inputs import ModelInputs
from modules.models.base import FitContext, FitReport, Recommender, Scorer
from modules.models.base_model import RowsOfWeight, TrainedModel, item_rows
from modules.models.encoders import FeatureEncoder, HistoryAttention, embedding
from modules.models.gradient_descent import GradientDescentConfig, fit_with_early_stopping
from modules.models.item_side import (
    features_by_vocabulary_id,
    hide_some_ids,
    log_sampling_probability,
    standardised_log,
    windowed_counts,
)
from modules.models.layer_norm import LayerNorm
from modules.models.retrieval_loss import RetrievalLossConfig, in_batch_softmax_loss
from modules.models.row_lookup import gather_rows
from modules.models.search_space import Choice, Dimension, FloatRange
from modules.models.vector_scorer import VectorScorer
from modules.training_data import EVENT_WEIGHT, TRAIN, TrainingData


class TwoTowerConfig(GradientDescentConfig, RetrievalLossConfig):
    """Settings of `TwoTower`. The batch size is also the number of in-batch candidates."""

    search_space: ClassVar[Mapping[str, Dimension]] = {
        "learning_rate": FloatRange(1e-3, 1e-2, logarithmic=True),
        "weight_decay": FloatRange(0.01, 1.0, logarithmic=True),
        "dropout": FloatRange(0.0, 0.6),
        "item_id_dropout": FloatRange(0.0, 0.3),
        "dimension": Choice((32, 64, 128)),
        "batch_size": Choice((256, 512, 1024)),
    }

    dimension: int = Field(default=64, ge=2)
    """Length d of the towers' vectors."""
    heads: int = Field(default=2, ge=1)
    """Attention heads of the history."""
    hidden_units: int = Field(default=128, ge=1)
    """Width of the query tower's feed-forward layer."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Dropout rate in the query tower."""
    item_id_dropout: float = Field(default=0.05, ge=0, lt=1)
    """Share of titles whose id is hidden in a training step, which teaches the model what to make of new titles."""
    popularity_windows_days: tuple[float, ...] = (3, 14, 60)
    """Besides all-time popularity, the title's bias may depend on its popularity in the last so many days."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature T of the softmax."""


class ItemTower(tf.keras.layers.Layer):
    """Vector and bias of a title.

    Args:
      config: the model's settings.
      inputs: the model's features.
      popularity: standardised log popularity per vocabulary id, float32 `[item_vocabulary_size, windows]`.
    """

    def __init__(self, config: TwoTowerConfig, inputs: ModelInputs, popularity: np.ndarray):
        super().__init__(name="item_tower")
        self._inputs = inputs
        self._id_dropout = config.item_id_dropout
        self._features = FeatureEncoder(inputs.item, config.dimension, name="item_features")
        self._popularity = tf.constant(popularity, tf.float32)
        self._popularity_weights = tf.keras.layers.Dense(1, use_bias=False, name="popularity_bias")
        if inputs.use_item_ids:
            self._ids = embedding(inputs.item_vocabulary_size, config.dimension, "item_ids")
            self._biases = embedding(inputs.item_vocabulary_size, 1, "item_biases")

    def call(self, ids: tf.Tensor, features: Mapping[str, tf.Tensor], training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the vectors, float32 `[batch, dimension]`, and biases, float32 `[batch]`, of titles by id."""
        vectors = self._features(features)
        vectors = tf.broadcast_to(vectors, [tf.shape(ids)[0], tf.shape(vectors)[1]])
        if not self._inputs.use_item_ids:
            return vectors, tf.zeros_like(vectors[:, 0])
        known_ids = ids
        if training and self._id_dropout:
            known_ids = hide_some_ids(ids, self._id_dropout, self._inputs.item_vocabulary_size)
        biases = self._popularity_weights(tf.gather(self._popularity, ids)) + self._biases(known_ids)
        return vectors + self._ids(known_ids), biases[:, 0]

    def rows_of_weights(self) -> list[RowsOfWeight]:
        """Returns the weights with rows for titles and their features."""
        rows = self._features.rows_of_weights()
        if self._inputs.use_item_ids:
            titles = item_rows(self._inputs.item_vocabulary_size, self._id_dropout)
            rows += [(self._ids.embeddings, titles), (self._biases.embeddings, titles)]
        return rows


class QueryTower(tf.keras.layers.Layer):
    """Vector of a request: who asks, when, and what they watched.

    Args:
      config: the model's settings.
      inputs: the model's features.
    """

    def __init__(self, config: TwoTowerConfig, inputs: ModelInputs):
        super().__init__(name="query_tower")
        self._inputs = inputs
        self._features = FeatureEncoder(inputs.query, config.dimension, name="query_features")
        self._history = HistoryAttention(
            config.dimension,
            config.heads,
            inputs.history_feedback_size if inputs.history_feedback else 0,
            inputs.use_time_buckets,
            inputs.use_continuous_time,
            config.dropout,
            name="history",
        )
        self._dropout = tf.keras.layers.Dropout(config.dropout)
        self._norm = LayerNorm(name="query_norm")
        self._output_norm = LayerNorm(name="query_output_norm")
        self._hidden = tf.keras.layers.Dense(config.hidden_units, activation="gelu", name="query_hidden")
        self._output = tf.keras.layers.Dense(config.dimension, name="query_output")

    def call(self, query: Mapping[str, tf.Tensor], history_items: tf.Tensor, training: bool) -> tf.Tensor:
        """Returns the vectors, float32 `[batch, dimension]`.

        Args:
          query: transformed query features.
          history_items: vectors of the history's titles, float32 `[batch, length, dimension]`.
          training: whether dropout applies.
        """
        asked = self._dropout(self._features(query), training=training)
        asked = tf.broadcast_to(asked, [tf.shape(history_items)[0], tf.shape(history_items)[2]])
        watched = self._history(
            asked,
            history_items,
            query[HISTORY_ITEM_IDS] > 0,
            query[self._inputs.history_feedback] if self._inputs.history_feedback else None,
            query[preprocessing.HISTORY_LOG_GAPS] if self._inputs.use_gaps else None,
            training=training,
        )
        vector = asked + watched
        vector += self._output(self._dropout(self._hidden(self._norm(vector)), training=training))
        return self._output_norm(vector)

    def rows_of_weights(self) -> list[RowsOfWeight]:
        """Returns the weights with rows for features of the query."""
        return self._features.rows_of_weights()


class TwoTowerModel(tfrs.Model):
    """The towers and their loss.

    Args:
      config: the model's settings.
      inputs: the model's features.
      catalogue: the titles.
      log_sampling_probability: log Q per vocabulary id, float32 `[item_vocabulary_size]`.
      popularity: see `ItemTower`.
    """

    def __init__(
        self,
        config: TwoTowerConfig,
        inputs: ModelInputs,
        catalogue: Catalogue,
        log_sampling_probability: np.ndarray,
        popularity: np.ndarray,
    ):
        super().__init__()
        self._config, self._inputs = config, inputs
        self._log_sampling_probability = tf.constant(log_sampling_probability, tf.float32)
        self._item_features = features_by_vocabulary_id(catalogue, inputs)
        self.item_tower = ItemTower(config, inputs, popularity)
        self.query_tower = QueryTower(config, inputs)
        # A title is recommended by its vector, but watched by the normalised one.
        self._history_norm = LayerNorm(name="history_norm")

    def compute_loss(self, features: Mapping[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns the in-batch softmax loss of a batch of transformed examples."""
        targets, history = features[ITEM_ID], features[HISTORY_ITEM_IDS]
        # Each title of the batch goes through the item tower once, however often it occurs.
        ids, positions = tf.unique(tf.concat([targets, tf.reshape(history, [-1])], axis=0))
        vectors, biases = self.item_tower(ids, self._features_of(ids), training=training)
        target_positions, history_positions = tf.split(positions, [tf.size(targets), tf.size(history)])
        history_vectors = tf.gather(self._history_norm(vectors), tf.reshape(history_positions, tf.shape(history)))
        queries = self.query_tower(features, history_vectors, training=training)
        candidates = tf.gather(vectors, target_positions)
        logits = self._scores(queries, candidates) + tf.gather(biases, target_positions)
        return in_batch_softmax_loss(
            logits,
            targets,
            tf.gather(self._log_sampling_probability, targets),
            features[SEEN_ITEM_IDS],
            self._inputs.item_vocabulary_size,
            self._config.temperature,
            self._config.popularity_correction,
            features.get(EVENT_WEIGHT),
        )

    def rows_of_weights(self) -> list[RowsOfWeight]:
        """See `TrainedModel`."""
        return [*self.item_tower.rows_of_weights(), *self.query_tower.rows_of_weights()]

    def items(self, ids: tf.Tensor, features: Mapping[str, tf.Tensor], training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the item tower's answer."""
        return self.item_tower(ids, features, training=training)

    def history_vectors(self) -> tf.Tensor:
        """Returns what a history's titles enter as, by their id: float32 `[item_vocabulary_size, dimension]`."""
        ids = tf.range(self._inputs.item_vocabulary_size, dtype=tf.int64)
        return self._history_norm(self.item_tower(ids, self._features_of(ids), training=False)[0])

    def _features_of(self, ids: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: tf.gather(values, ids) for name, values in self._item_features.items()}

    def _scores(self, queries: tf.Tensor, items: tf.Tensor) -> tf.Tensor:
        return tf.matmul(queries, items, transpose_b=True) * (2.0 / self._config.dimension**0.5)


class TwoTowerScorer(VectorScorer):
    """A fitted model; see `VectorScorer`."""

    model: TwoTowerModel

    def trained_models(self) -> dict[str, tuple[str, TrainedModel]]:
        """Returns the towers."""
        return {"model": ("two_tower", self.model)}

    def query_vectors(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns u(x): float32 `[batch, dimension]`."""
        history = gather_rows(self._history_vectors, query[HISTORY_ITEM_IDS])
        return self.model.query_tower(query, history, training=False)


class TwoTower(Recommender):
    """Fits the two towers by gradient descent."""

    config_class = TwoTowerConfig
    config: TwoTowerConfig

    def fit(self, data: TrainingData, catalogue: Catalogue, context: FitContext) -> tuple[Scorer, FitReport]:
        """Trains until NDCG@10 over the full catalogue stops to rise on the validation split."""
        tf.keras.utils.set_random_seed(context.seed)
        counts = windowed_counts(data, context.inputs.item_vocabulary_size, self.config.popularity_windows_days)
        model = TwoTowerModel(
            self.config,
            context.inputs,
            catalogue,
            log_sampling_probability(counts[:, 0]),
            standardised_log(counts),
        )
        # One forward pass creates the variables, which the scorer copies.
        for batch in data.batches(TRAIN, 2).take(1):
            model.compute_loss(batch)
        scorer = TwoTowerScorer(model, catalogue, context.inputs)
        report = fit_with_early_stopping(model, scorer, self.config, data, catalogue, context, int(counts[:, 0].sum()))
        return scorer, report
