"""Autoencoder: a multinomial denoising or variational autoencoder over the bag of past titles.

    h = tanh(sum_i E[i] w(i) / |w| + features + b),    mu, log sigma^2 = linear(h)
    z = mu + sigma * noise (variational, in training) or mu,    logits = D tanh(C z + c) + popularity
    L = -sum_i x(i) log softmax(logits)[i] + beta(step) * KL(N(mu, sigma^2) || N(0, 1))

After Liang et al., "Variational Autoencoders for Collaborative Filtering" (WWW 2018: Mult-VAE^PR and Mult-DAE), with
three differences. The bag is that of a point in time, so that training asks what serving asks: x is the one title
taken next (`target: next`), or the bag itself as in the paper. What was seen is left out of the softmax, as serving
leaves it out, unless it is the target. And features of the user, the context and the time enter the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
from pydantic import Field

from modules import ranking
from modules.catalogue import Catalogue
from modules.features import ITEM_ID, SEEN_ITEM_IDS
from modules.interaction_log import read_interaction_log
from modules.models.base import FitContext, FitReport, Recommender, Scorer
from modules.models.base_model import RowsOfWeight, TrainedModel, item_rows
from modules.models.encoders import FeatureEncoder, embedding
from modules.models.gradient_descent import GradientDescentConfig, fit_with_early_stopping
from modules.models.item_bag import CatalogueColumns, ItemBag, ItemBagConfig
from modules.models.item_side import (
    cosines,
    inverse_lengths,
    log_sampling_probability,
    standardised_log,
    windowed_counts,
)
from modules.models.retrieval_loss import RetrievalLossConfig
from modules.models.row_lookup import gather_rows
from modules.models.search_space import Choice, Dimension, FloatRange
from modules.training_data import TRAIN, TrainingData, weighted_mean

_EXCLUDED_LOGIT = -1e9


class AutoencoderConfig(GradientDescentConfig, ItemBagConfig, RetrievalLossConfig):
    """Settings of `Autoencoder`."""

    search_space: ClassVar[Mapping[str, Dimension]] = {
        **ItemBagConfig.search_space,
        "variational": Choice((False, True)),
        "learning_rate": FloatRange(5e-4, 1e-2, logarithmic=True),
        "weight_decay": FloatRange(0.0, 0.3),
        "hidden_units": Choice((64, 128, 256)),
        "input_dropout": FloatRange(0.0, 0.7),
        "kl_weight": FloatRange(1e-3, 1.0, logarithmic=True),
    }

    variational: bool = False
    """Whether the code is a distribution (Mult-VAE) or a point (Mult-DAE)."""
    target: Literal["next", "bag"] = "next"
    """What is predicted from a bag: the title taken next, or the titles of the bag."""
    dimension: int = Field(default=64, ge=1)
    """Length of the code z."""
    hidden_units: int = Field(default=128, ge=1)
    """Width of the hidden layers of encoder and decoder."""
    input_dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of the bag's titles that are hidden in a training step."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Dropout rate on both hidden layers."""
    kl_weight: float = Field(default=0.05, ge=0)
    """Final weight beta of the KL divergence; used when variational."""
    kl_annealing_steps: int = Field(default=500, ge=1)
    """Steps over which beta rises from 0 to its final weight."""
    popularity_windows_days: tuple[float, ...] = (3, 14, 60)
    """Besides all-time popularity, a title's bias may depend on its popularity in the last so many days."""


class AutoencoderModel(tfrs.Model):
    """Encoder, decoder and loss.

    Args:
      config: the model's settings.
      context: the model's features.
      counts: interactions per vocabulary id, of all time and by window, `[item_vocabulary_size, 1 + windows]`.
    """

    def __init__(self, config: AutoencoderConfig, context: FitContext, counts: np.ndarray):
        super().__init__()
        self._config, self._size = config, context.inputs.item_vocabulary_size
        self._bag = ItemBag(config, context)
        self._popularity = tf.constant(standardised_log(counts), tf.float32)
        self._log_probability = tf.constant(log_sampling_probability(counts[:, 0]), tf.float32)
        self._bag_vectors = embedding(self._size, config.hidden_units, "bag_vectors")
        self._features = FeatureEncoder(context.inputs.query, config.hidden_units, name="query_features")
        self._dropout = tf.keras.layers.Dropout(config.dropout)
        self._code = tf.keras.layers.Dense(config.dimension * (2 if config.variational else 1), name="code")
        self._decoder_hidden = tf.keras.layers.Dense(config.hidden_units, activation="tanh", name="decoder_hidden")
        self.title_vectors = tf.Variable(
            tf.random.normal([self._size, config.hidden_units], stddev=config.hidden_units**-0.5), name="title_vectors"
        )
        self._biases = tf.Variable(tf.zeros(self._size), name="title_biases")
        self._popularity_weights = tf.keras.layers.Dense(1, use_bias=False, name="popularity_bias")
        self._step = tf.Variable(0, trainable=False, name="step", dtype=tf.int64)

    def compute_loss(self, features: Mapping[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Returns the mean loss of a batch of transformed examples, at most minus the evidence lower bound."""
        bag = self._bag(features)
        mean, log_variance = self.encode(features, bag, training)
        code = mean
        if log_variance is not None and training:
            code += tf.exp(0.5 * log_variance) * tf.random.normal(tf.shape(mean))
        logits = self.decode(code, training) + self._config.popularity_correction * self._log_probability
        if self._config.target == "next":
            targets = tf.one_hot(features[ITEM_ID], self._size)
            seen = features[SEEN_ITEM_IDS]
        else:
            targets = tf.sparse.to_dense(tf.sparse.map_values(tf.ones_like, bag))
            seen = None
        loss = weighted_mean(multinomial_loss(logits, targets, seen), features)
        if log_variance is None:
            return loss
        share = tf.minimum(tf.cast(self._step, tf.float32) / self._config.kl_annealing_steps, 1.0)
        if training:
            self._step.assign_add(1)
        return loss + self._config.kl_weight * share * tf.reduce_mean(kl_divergence(mean, log_variance))

    def rows_of_weights(self) -> list[RowsOfWeight]:
        """See `TrainedModel`."""
        titles = item_rows(self._size)
        by_title = (self._bag_vectors.embeddings, self.title_vectors, self._biases)
        return [*self._features.rows_of_weights(), *((weight, titles) for weight in by_title)]

    def encode(
        self, query: Mapping[str, tf.Tensor], bag: tf.SparseTensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Returns mean and log variance of the codes, float32 `[batch, dimension]`; no variance unless variational."""
        rows, batch_size = bag.indices[:, 0], bag.dense_shape[0]
        squares = tf.math.unsorted_segment_sum(tf.square(bag.values), rows, batch_size)
        values = bag.values * tf.gather(tf.math.rsqrt(squares), rows)  # No row of a value is empty.
        if training:
            values = tf.nn.dropout(values, self._config.input_dropout)
        # Summed row by row; ids of a batch are looked up, so the cost does not depend on the vocabulary.
        vectors = self._bag_vectors(bag.indices[:, 1]) * values[:, tf.newaxis]
        summed = tf.math.unsorted_segment_sum(vectors, rows, batch_size)
        hidden = self._dropout(tf.tanh(summed + self._features(query)), training=training)
        code = self._code(hidden)
        if not self._config.variational:
            return code, None
        mean, log_variance = tf.split(code, 2, axis=1)
        return mean, log_variance

    def decode(self, code: tf.Tensor, training: bool) -> tf.Tensor:
        """Returns the logits of titles by vocabulary id: float32 `[batch, item_vocabulary_size]`."""
        hidden = self._dropout(self._decoder_hidden(code), training=training)
        popularity = self._popularity_weights(self._popularity)[:, 0]
        return tf.matmul(hidden, self.title_vectors, transpose_b=True) + self._biases + popularity

    def score(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the logits of the most likely code: float32 `[batch, item_vocabulary_size]`."""
        return self.decode(self.encode(query, self._bag(query), training=False)[0], training=False)


def multinomial_loss(logits: tf.Tensor, targets: tf.Tensor, seen: tf.SparseTensor | None) -> tf.Tensor:
    """Returns minus the multinomial log-likelihood of each row: float32 `[batch]`.

    Args:
      logits: by vocabulary id, float32 `[batch, vocabulary_size]`. Padding, id 0, is no outcome.
      targets: how often each id was drawn, float32 of the same shape.
      seen: ids that are no outcomes of a row, int64 sparse `[batch, any]`, unless they are among its targets; or None.
    """
    size = tf.shape(logits, out_type=tf.int64)
    excluded = tf.equal(tf.range(size[1]), 0)[tf.newaxis]
    if seen is not None:
        excluded |= ranking.ids_mask(seen, size[1])
    masked = tf.where(excluded & tf.equal(targets, 0.0), _EXCLUDED_LOGIT, logits)
    return -tf.reduce_sum(targets * tf.nn.log_softmax(masked), axis=1)


def kl_divergence(mean: tf.Tensor, log_variance: tf.Tensor) -> tf.Tensor:
    """Returns KL(N(mean, variance) || N(0, 1)) summed over dimensions: float32 `[batch]`."""
    return 0.5 * tf.reduce_sum(tf.exp(log_variance) + tf.square(mean) - 1.0 - log_variance, axis=1)


class AutoencoderScorer(Scorer):
    """A fitted autoencoder.

    Args:
      model: the fitted model.
      columns: the catalogue's order.
    """

    def __init__(self, model: AutoencoderModel, columns: CatalogueColumns, catalogue: Catalogue):
        super().__init__()
        self._model, self._columns = model, columns
        self._ids = tf.constant(catalogue.vocabulary_ids, tf.int64)

    def trained_models(self) -> dict[str, tuple[str, TrainedModel]]:
        """Returns the autoencoder."""
        return {"_model": ("autoencoder", self._model)}

    def refresh(self) -> None:
        """Does nothing: everything is computed from the model's own weights."""

    def score_catalogue(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the decoder's logits, new titles below all others: float32 `[batch, num_items]`."""
        return self._columns.finish(tf.gather(self._model.score(query), self._ids, axis=1))

    def score_similar(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the cosine of the titles' vectors in the decoder: float32 `[batch, num_items]`."""
        vectors = gather_rows(self._model.title_vectors, self._ids)
        return self._columns.finish(cosines(rows, vectors, inverse_lengths(vectors)))


class Autoencoder(Recommender):
    """Fits the autoencoder by gradient descent."""

    config_class = AutoencoderConfig
    config: AutoencoderConfig

    def fit(self, data: TrainingData, catalogue: Catalogue, context: FitContext) -> tuple[Scorer, FitReport]:
        """Trains until NDCG@10 over the full catalogue stops to rise on the validation split.

        Raises:
          ValueError: if the feature group `ids` is switched off.
        """
        tf.keras.utils.set_random_seed(context.seed)
        size = context.inputs.item_vocabulary_size
        counts = windowed_counts(data, size, self.config.popularity_windows_days)
        model = AutoencoderModel(self.config, context, counts)
        # One forward pass creates the variables.
        for batch in data.batches(TRAIN, 2).take(1):
            model.compute_loss(batch)
        columns = CatalogueColumns(catalogue, read_interaction_log(data, [TRAIN]), self.config, size)
        scorer = AutoencoderScorer(model, columns, catalogue)
        num_examples = int(counts[:, 0].sum())
        return scorer, fit_with_early_stopping(model, scorer, self.config, data, catalogue, context, num_examples)
