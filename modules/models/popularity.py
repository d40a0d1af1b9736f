"""Popularity: everyone is shown the titles with the most interactions, of all time or of the last days.

score(i) = number of training interactions with title i (no older than `window_days` before the last one), or the sum of
their weights where interactions are weighed.

The baseline that each personalised model must beat; strong where users are new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import tensorflow as tf
from pydantic import Field

from modules.catalogue import Catalogue
from modules.features import ITEM_ID, TIMESTAMP
from modules.models.base import FitContext, FitReport, Recommender, RecommenderConfig, Scorer
from modules.models.search_space import Choice, Dimension
from modules.training_data import EVENT_WEIGHT, TRAIN, TrainingData

_BATCH_SIZE = 8192
_SECONDS_PER_DAY = 86_400


class PopularityConfig(RecommenderConfig):
    """Settings of `Popularity`."""

    search_space: ClassVar[Mapping[str, Dimension]] = {
        "window_days": Choice((1.0, 3.0, 7.0, 14.0, 30.0, 60.0, 90.0, 180.0, None)),
    }

    window_days: float | None = Field(default=None, gt=0)
    """Count only interactions of the last so many days of the training split. Unset: all of them."""


class PopularityScorer(Scorer):
    """The same scores for every query."""

    def __init__(self, counts: np.ndarray):
        super().__init__()
        self._counts = tf.constant(counts, tf.float32)

    def score_catalogue(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns the counts for each query: float32 `[batch, num_items]`."""
        batch_size = tf.shape(next(iter(query.values())))[0]
        return tf.repeat(self._counts[tf.newaxis], batch_size, axis=0)

    def score_similar(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the counts for each item: popularity knows no likeness between titles."""
        return tf.repeat(self._counts[tf.newaxis], tf.shape(rows)[0], axis=0)


class Popularity(Recommender):
    """Counts interactions."""

    config_class = PopularityConfig
    config: PopularityConfig

    def fit(self, data: TrainingData, catalogue: Catalogue, context: FitContext) -> tuple[Scorer, FitReport]:
        """Counts the interactions of the training split in one pass, or in two when there is a window."""
        size = context.inputs.item_vocabulary_size
        earliest = -np.inf
        if self.config.window_days is not None:
            last = max(int(batch[TIMESTAMP].numpy().max()) for batch in data.batches(TRAIN, _BATCH_SIZE))
            earliest = last - self.config.window_days * _SECONDS_PER_DAY
        counts = np.zeros(size)
        for batch in data.batches(TRAIN, _BATCH_SIZE):
            recent = batch[TIMESTAMP].numpy() >= earliest
            weights = batch[EVENT_WEIGHT].numpy()[recent] if EVENT_WEIGHT in batch else None
            counts += np.bincount(batch[ITEM_ID].numpy()[recent], weights, minlength=size)
        # New titles and those cut off the vocabulary share the last id; its events are of no title in particular.
        counts[-1] = 0
        return PopularityScorer(counts[catalogue.vocabulary_ids]), FitReport()
