"""A query as a weighted bag of past titles: what the families that know titles by id alone look at.

weight(i) = older_weight + (1 - older_weight) * recency_decay ** #{instants of the history after that of i}

for titles of the history, and older_weight for those that are only in `seen_item_ids`: requests may send either list
or both. Events of one instant weigh the same. With `recency_decay = older_weight = 1` this is the set of past titles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import tensorflow as tf
from pydantic import Field

from modules.catalogue import Catalogue
from modules.derived_names import HISTORY_LOG_STEPS
from modules.features import HISTORY_ITEM_IDS, SEEN_ITEM_IDS
from modules.interaction_log import InteractionLog
from modules.models.base import FitContext, RecommenderConfig, Scorer
from modules.models.row_lookup import gather_rows
from modules.models.search_space import Dimension, FloatRange


class ItemBagConfig(RecommenderConfig):
    """Settings shared by the families that read a query as a bag of titles."""

    recency_decay: float = Field(default=0.7, gt=0, le=1)
    """Factor on the weight of a title for each later instant of the history. 1: order does not matter."""
    older_weight: float = Field(default=0.03, ge=0, le=1)
    """Weight of titles seen before the history begins; the latest title has weight 1."""
    popularity_prior: float = Field(default=1e-3, ge=0)
    """Added to the score of the most popular title, and proportionally to the others. It decides for users without a
    history, and between titles with equal scores."""

    search_space: ClassVar[Mapping[str, Dimension]] = {
        "recency_decay": FloatRange(0.4, 1.0),
        "older_weight": FloatRange(0.0, 0.2),
    }


class ItemBag(tf.Module):
    """Turns queries into bags.

    Args:
      config: how titles are weighed.
      context: sizes of the vocabulary, and whether the model may use the times of the history: without them every
        event is taken for an instant of its own.

    Raises:
      ValueError: if the feature group `ids` is switched off: nothing would be left.
    """

    def __init__(self, config: ItemBagConfig, context: FitContext):
        super().__init__()
        if not context.inputs.use_item_ids:
            raise ValueError(
                "features.groups: received groups without 'ids'; expected it among them: "
                "this family (model.family) tells titles apart by their id and uses no other feature"
            )
        self._size = context.inputs.item_vocabulary_size
        self._use_gaps = context.inputs.use_gaps
        self._recency_decay = config.recency_decay
        self._older_weight = config.older_weight

    def __call__(self, query: Mapping[str, tf.Tensor]) -> tf.SparseTensor:
        """Returns the weights by vocabulary id: float32, sparse `[batch, item_vocabulary_size]`, in order, all > 0.

        Padding and unknown titles are in no bag. A title that occurs more than once has its largest weight.

        Args:
          query: transformed query features; `history_item_ids`, `history_log_steps` and `seen_item_ids` are read.
        """
        history = query[HISTORY_ITEM_IDS]
        batch_size = tf.shape(history, out_type=tf.int64)[0]
        ages = tf.cast(self._instants_after(query), tf.float32)
        recent = self._older_weight + (1.0 - self._older_weight) * tf.pow(self._recency_decay, ages)
        rows = tf.broadcast_to(tf.range(batch_size)[:, tf.newaxis], tf.shape(history))
        lists = [(tf.reshape(rows, [-1]), tf.reshape(history, [-1]), tf.reshape(recent, [-1]))]
        if SEEN_ITEM_IDS in query and self._older_weight > 0:
            seen = query[SEEN_ITEM_IDS]
            older = tf.fill(tf.shape(seen.values), tf.constant(self._older_weight, tf.float32))
            lists.append((seen.indices[:, 0], seen.values, older))
        rows, ids, weights = (tf.concat(parts, axis=0) for parts in zip(*lists, strict=True))
        known = (ids > 0) & (ids < self._size - 1) & (weights > 0)
        cells = tf.boolean_mask(rows * self._size + ids, known)
        distinct, position = tf.unique(cells, out_idx=tf.int64)
        largest = tf.math.unsorted_segment_max(tf.boolean_mask(weights, known), position, tf.size(distinct))
        order = tf.argsort(distinct)
        distinct, largest = tf.gather(distinct, order), tf.gather(largest, order)
        indices = tf.stack([distinct // self._size, distinct % self._size], axis=1)
        return tf.SparseTensor(indices, largest, tf.stack([batch_size, tf.constant(self._size, tf.int64)]))

    def _instants_after(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Returns how many instants of the history are later than each of its events: int64 `[batch, length]`."""
        present = query[HISTORY_ITEM_IDS] > 0
        begins = present
        if self._use_gaps:
            steps = query[HISTORY_LOG_STEPS]
            # A step of 0 leads to an event of the same instant, unless no time is known at all.
            begins = present & ((steps != 0.0) | (steps[:, :1] == 0.0))
        number = tf.cumsum(tf.cast(begins, tf.int64), axis=1)
        return number[:, -1:] - number


class CatalogueColumns(tf.Module):
    """Puts what is known by vocabulary id into the catalogue's order, and popularity and new titles in their place.

    Args:
      catalogue: the titles to rank.
      log: the interactions that popularity is counted on.
      config: weight of popularity.
      vocabulary_size: number of item ids.
    """

    def __init__(self, catalogue: Catalogue, log: InteractionLog, config: ItemBagConfig, vocabulary_size: int):
        super().__init__()
        self._ids = catalogue.vocabulary_ids
        new = self._ids == vocabulary_size - 1
        self._new = tf.constant(new)
        counts = np.bincount(log.item_ids, log.weights, minlength=vocabulary_size)[self._ids] * ~new
        self._prior = tf.constant(config.popularity_prior * counts / max(counts.max(), 1), tf.float32)
        self._rows = tf.constant(self._ids)

    def take(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Returns what an array over vocabulary ids holds for each title of the catalogue, along the same axis."""
        return np.take(values, self._ids, axis=axis)

    def ids_of(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the vocabulary ids of catalogue rows, int64."""
        return tf.gather(self._rows, rows)

    def finish(self, scores: tf.Tensor) -> tf.Tensor:
        """Adds the popularity prior and puts titles without an id of their own below all others.

        Args:
          scores: float32 `[batch, num_items]`.
        """
        scores += self._prior
        return tf.where(self._new, tf.reduce_min(scores, axis=1, keepdims=True) - 1.0, scores)


class ItemToItemScorer(Scorer):
    """score(i) = sum over titles j of the bag: weight(j) * matrix[j, i], plus the popularity prior.

    Args:
      matrix: what title j says of title i, `[item_vocabulary_size, item_vocabulary_size]` by vocabulary id.
      bag: turns queries into bags.
      columns: the catalogue's order.
    """

    def __init__(self, matrix: np.ndarray, bag: ItemBag, columns: CatalogueColumns):
        super().__init__()
        self._bag = bag
        self._columns = columns
        # A variable, since constants are part of the graph, which protobuf limits to 2 GB.
        self._matrix = tf.Variable(columns.take(matrix, axis=1).astype(np.float32), trainable=False)

    def score_catalogue(self, query: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Sums the rows of the titles in the bag: float32 `[batch, num_items]`."""
        return self._columns.finish(tf.sparse.sparse_dense_matmul(self._bag(query), self._matrix))

    def score_similar(self, rows: tf.Tensor) -> tf.Tensor:
        """Returns the row of each title, or popularity for new ones: float32 `[batch, num_items]`."""
        return self._columns.finish(gather_rows(self._matrix, self._columns.ids_of(rows)))
