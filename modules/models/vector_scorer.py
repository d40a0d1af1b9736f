"""Scorers whose titles are vectors and biases, computed once: score(x, i) = scale * q(x) . v(i) + b(i)."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import ClassVar, Protocol

import tensorflow as tf

from modules.catalogue import Catalogue
from modules.model_inputs import ModelInputs
from modules.models.base import Scorer
from modules.models.item_side import cosines, inverse_lengths
from modules.models.row_lookup import gather_rows

_TITLES_AT_ONCE = 65_536


class VectorModel(Protocol):
    """What a model says of titles."""

    def items(self, ids: tf.Tensor, features: Mapping[str, tf.Tensor], training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the vectors, float32 `[batch, dimension]`, and biases, float32 `[batch]`, of titles by id."""

    def history_vectors(self) -> tf.Tensor:
        """Returns what a history's titles enter as, by their id: float32 `[item_vocabulary_size, dimension]`."""


class VectorScorer(Scorer):
    """A fitted model with the item side computed once; subclasses turn queries into vectors.

    Args:
      model: the fitted model.
      catalogue: the titles to score.
      inputs: the model's features.

    Attributes:
      model: the fitted model.
      item_vectors: variable, float32 `[num_items, dimension]`.
      item_biases: variable, float32 `[num_items]`.
      inverse_lengths: variable, 1 / |v(i)|, float32 `[num_items]`.
    """

    scores_are_logits: ClassVar[bool] = True

    def __init__(self, model: VectorModel, catalogue: Catalogue, inputs: ModelInputs):
        super().__init__()
        self.model, self._inputs = model, inputs
        self._catalogue_ids = tf.constant(catalogue.vocabulary_ids, tf.int64)
        self._catalogue_features = {
            feature.name: tf.constant(catalogue.features[feature.name]) for feature in inputs.item
        }
        vectors, biases = self._catalogue_side()
        self.item_vectors = tf.Variable(vectors, trainable=False, name="item_vectors")
        self.item_biases = tf.Variable(biases, trainable=False, name="item_biases")
        self.inverse_lengths = tf.Variable(inverse_lengths(vectors), trainable=False, name="inverse_lengths")
        self._history_vectors = tf.Variable(model.history_vectors(), trainable=False, name="history_vectors")

    def refresh(self) -> None:
        """Recomputes the item side after the model's weights changed."""
        vectors, biases = self._catalogue_side()
        self.item_vectors.assign(vectors)
        self.item_biases.assign(biases)
        self.inverse_lengths.assign(inverse_lengths(vectors))
        self._history_vectors.assign(self.model.history_vectors())

    @abc.abstractmethod
    def query_vectors(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns q(x) of transformed queries: float32 `[batch, dimension]`."""

    @property
    def scale(self) -> float:
        """The factor of the products: 2 / sqrt(dimension)."""
        return float(2.0 / self.item_vectors.shape[1] ** 0.5)

    def score_catalogue(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns scale * q(x) . v(i) + b(i): float32 `[batch, num_items]`."""
        products = tf.matmul(self.query_vectors(query), self.item_vectors, transpose_b=True)
        return products * self.scale + self.item_biases

    def score_candidates(self, query: Mapping[str, tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
        """Returns the same for given rows only: float32 `[batch, candidates]`."""
        return self.score_rows(self.query_vectors(query), rows)

    def score_rows(self, query_vectors: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Returns the scores of given rows, float32 `[batch, candidates]`, for float32 `[batch, dimension]`."""
        vectors = gather_rows(self.item_vectors, rows)
        products = tf.matmul(query_vectors[:, tf.newaxis], vectors, transpose_b=True)[:, 0]
        return products * self.scale + gather_rows(self.item_biases, rows)

    def augmented_item_vectors(self) -> tf.Tensor:
        """Returns (v(i), b(i)), float32 `[num_items, dimension + 1]`: scores as plain inner products."""
        return tf.concat([self.item_vectors, self.item_biases[:, tf.newaxis]], axis=1)

    def augmented_query_vectors(self, query_vectors: tf.Tensor) -> tf.Tensor:
        """Returns (scale * q, 1), float32 `[batch, dimension + 1]`: what `augmented_item_vectors` are multiplied by."""
        return tf.concat([query_vectors * self.scale, tf.ones_like(query_vectors[:, :1])], axis=1)

    def score_similar(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the cosine of the titles' vectors: float32 `[batch, num_items]`."""
        return cosines(rows, self.item_vectors, self.inverse_lengths)

    def _catalogue_side(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the titles' vectors and biases, some titles at a time: of a large one, not all features fit."""
        parts = []
        for start in range(0, self._catalogue_ids.shape[0], _TITLES_AT_ONCE):
            some = slice(start, start + _TITLES_AT_ONCE)
            features = {name: values[some] for name, values in self._catalogue_features.items()}
            parts.append(self.model.items(self._catalogue_ids[some], features, training=False))
        vectors, biases = zip(*parts, strict=True)
        return tf.concat(vectors, axis=0), tf.concat(biases, axis=0)
