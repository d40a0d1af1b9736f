"""A family of recommenders whose quality is set by hand: popularity, blurred for all and reversed for some users."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from modules.catalogue import Catalogue
from modules.models.base import FitContext, FitReport, Recommender, RecommenderConfig, Scorer
from modules.models.popularity import Popularity, PopularityConfig, PopularityScorer
from modules.training_data import TrainingData


class UnevenConfig(RecommenderConfig):
    """Settings of `Uneven`."""

    blur: float = 0.0
    """Standard deviation of what is added to the logarithm of a title's popularity."""
    shift: float = 0.0
    """The same for a second, much smaller blur of its own."""
    harmed_occupation: int = 0
    """Vocabulary id of the occupation whose people get the least popular titles first; 0 for none."""


class UnevenScorer(Scorer):
    """Blurred counts, with the opposite sign for users of one occupation."""

    def __init__(self, scores: tf.Tensor, harmed_occupation: int):
        super().__init__()
        self._scores = tf.constant(scores, tf.float32)
        self._harmed_occupation = harmed_occupation

    def score_catalogue(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        harmed = tf.equal(query["occupation"], self._harmed_occupation) & (self._harmed_occupation > 0)
        return tf.where(harmed, -1.0, 1.0)[:, tf.newaxis] * self._scores

    def score_similar(self, rows: tf.Tensor) -> tf.Tensor:
        return tf.repeat(self._scores[tf.newaxis], tf.shape(rows)[0], axis=0)


class Uneven(Recommender):
    """Counts interactions, then spoils the counts."""

    config_class = UnevenConfig
    config: UnevenConfig

    def fit(self, data: TrainingData, catalogue: Catalogue, context: FitContext) -> tuple[Scorer, FitReport]:
        popularity, report = Popularity(PopularityConfig()).fit(data, catalogue, context)
        assert isinstance(popularity, PopularityScorer)
        counts = popularity.score_similar(tf.constant([0], tf.int64))[0].numpy()
        blur, shift = np.random.default_rng(0).normal(size=(2, len(counts)))
        scores = np.log1p(counts) + self.config.blur * blur + self.config.shift * shift
        return UnevenScorer(scores, self.config.harmed_occupation), report
