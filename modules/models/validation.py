"""NDCG@10 over the full catalogue on the validation split: what settings and early stopping are decided on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import tensorflow as tf

from modules import ranking
from modules.catalogue import Catalogue
from modules.features import ITEM_ID, SEEN_ITEM_IDS
from modules.training_data import VALIDATION, TrainingData

_BATCH_SIZE = 1024
_K = 10


class CatalogueScorer(Protocol):
    """Anything that scores the catalogue; see `modules.models.base.Scorer`."""

    def score_catalogue(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns float32 `[batch, num_items]`."""


class Validator:
    """Computes the validation metric of a scorer, as often as its weights change.

    Titles are told apart by vocabulary id here, so an event on a title that training never saw counts as a miss.

    Args:
      scorer: the scorer.
      data: the transformed splits.
      catalogue: the titles to rank.
      vocabulary_size: number of item ids.
    """

    def __init__(self, scorer: CatalogueScorer, data: TrainingData, catalogue: Catalogue, vocabulary_size: int):
        self._batches = data.batches(VALIDATION, _BATCH_SIZE)
        rows = tf.constant(catalogue.row_of_vocabulary_id(vocabulary_size))

        @tf.function(input_signature=[self._batches.element_spec], autograph=False)
        def gains(batch: dict[str, tf.Tensor]) -> tf.Tensor:
            seen = tf.RaggedTensor.from_sparse(batch[SEEN_ITEM_IDS])
            excluded = ranking.seen_rows_mask(seen, rows, catalogue.size)
            ranks = ranking.mean_rank(scorer.score_catalogue(batch), excluded, tf.gather(rows, batch[ITEM_ID]))
            return ranking.ndcg_at(ranks, _K)

        self._gains = gains

    def ndcg(self) -> float:
        """Returns the mean NDCG@10 over all events of the validation split."""
        return float(np.concatenate([self._gains(batch).numpy() for batch in self._batches]).mean())
