"""Scorers whose titles are vectors and biases, computed once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

import tensorflow as tf

from modules.catalogue import Catalogue
from modules.model_inputs import ModelInputs
from modules.models.base import Scorer
from modules.models.item_side import cosines


class VectorModel(Protocol):
    """What a model says of titles."""

    def items(self, ids: tf.Tensor, features: Mapping[str, tf.Tensor], training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the vectors, float32 `[batch, dimension]`, and biases, float32 `[batch]`, of titles by id."""

    def history_vectors(self) -> tf.Tensor:
        """Returns what a history's titles enter as, by their id: float32 `[item_vocabulary_size, dimension]`."""


class VectorScorer(Scorer):
    """A fitted model with the item side computed once; subclasses score queries with it.

    Args:
      model: the fitted model.
      catalogue: the titles to score.
      inputs: the model's features.
    """

    scores_are_logits: ClassVar[bool] = True

    def __init__(self, model: VectorModel, catalogue: Catalogue, inputs: ModelInputs):
        super().__init__()
        self._model, self._inputs = model, inputs
        self._catalogue_ids = tf.constant(catalogue.vocabulary_ids, tf.int64)
        self._catalogue_features = {
            feature.name: tf.constant(catalogue.features[feature.name]) for feature in inputs.item
        }
        vectors, biases = self._catalogue_side()
        self._item_vectors = tf.Variable(vectors, trainable=False, name="item_vectors")
        self._item_biases = tf.Variable(biases, trainable=False, name="item_biases")
        self._history_vectors = tf.Variable(model.history_vectors(), trainable=False, name="history_vectors")

    def refresh(self) -> None:
        """Recomputes the item side after the model's weights changed."""
        vectors, biases = self._catalogue_side()
        self._item_vectors.assign(vectors)
        self._item_biases.assign(biases)
        self._history_vectors.assign(self._model.history_vectors())

    def score_similar(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the cosine of the titles' vectors: float32 `[batch, num_items]`."""
        return cosines(rows, self._item_vectors)

    def _catalogue_side(self) -> tuple[tf.Tensor, tf.Tensor]:
        return self._model.items(self._catalogue_ids, self._catalogue_features, training=False)
