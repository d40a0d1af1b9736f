"""A family of recommenders that scores in Python: fine where it was fitted, but no server can run it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from modules.catalogue import Catalogue
from modules.models.base import FitContext, FitReport, Recommender, RecommenderConfig, Scorer
from modules.training_data import TrainingData


class InPythonScorer(Scorer):
    """Falling scores in the catalogue's order, from a function that the SavedModel refers to but does not hold."""

    def __init__(self, size: int):
        super().__init__()
        self._scores = -np.arange(size, dtype=np.float32)

    def score_catalogue(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return self._score(tf.shape(next(iter(query.values())))[0])

    def score_similar(self, rows: tf.Tensor) -> tf.Tensor:
        return self._score(tf.shape(rows)[0])

    def _score(self, batch_size: tf.Tensor) -> tf.Tensor:
        scores = tf.numpy_function(lambda size: np.tile(self._scores, (size, 1)), [batch_size], tf.float32)
        return tf.ensure_shape(scores, [None, len(self._scores)])


class InPython(Recommender):
    """Learns nothing."""

    config_class = RecommenderConfig

    def fit(self, data: TrainingData, catalogue: Catalogue, context: FitContext) -> tuple[Scorer, FitReport]:
        return InPythonScorer(catalogue.size), FitReport()
