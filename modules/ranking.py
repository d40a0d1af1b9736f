"""Full-catalogue ranking in the graph: masks of seen titles and ranks in which ties share their mean."""

from __future__ import annotations

import tensorflow as tf


def rows_mask(rows: tf.RaggedTensor, num_items: int) -> tf.Tensor:
    """Marks catalogue rows.

    Args:
      rows: rows per query, int64 `[batch, (any)]`; rows outside `[0, num_items)` are ignored.
      num_items: size of the catalogue.

    Returns:
      bool `[batch, num_items]`, true at the rows given.
    """
    values, queries = rows.values, rows.value_rowids()
    inside = (values >= 0) & (values < num_items)
    indices = tf.stack([tf.boolean_mask(queries, inside), tf.boolean_mask(values, inside)], axis=1)
    shape = tf.stack([rows.nrows(), tf.constant(num_items, tf.int64)])
    return tf.scatter_nd(indices, tf.ones_like(indices[:, 0], tf.int32), shape) > 0


def row_values(values: tf.Tensor, rows: tf.Tensor, default: bool | float) -> tf.Tensor:
    """Picks one catalogue row of each query.

    Args:
      values: `[batch, num_items]`.
      rows: int64 `[batch]`, -1 where there is none.
      default: what to return there.

    Returns:
      `[batch]`, of the type of `values`.
    """
    picked = tf.gather(values, tf.maximum(rows, 0), batch_dims=1)
    return tf.where(rows >= 0, picked, tf.constant(default, values.dtype))


def seen_rows_mask(ids: tf.RaggedTensor, rows_by_id: tf.Tensor, num_items: int) -> tf.Tensor:
    """Marks the catalogue rows of vocabulary ids: bool `[batch, num_items]`.

    Args:
      ids: vocabulary ids per query, int64 `[batch, (any)]`; those without a row of their own are ignored.
      rows_by_id: row of each vocabulary id, int64 `[vocabulary_size]`; -1 where no single row has it.
      num_items: size of the catalogue.
    """
    return rows_mask(ids.with_values(tf.gather(rows_by_id, ids.values)), num_items)


def ids_mask(ids: tf.SparseTensor, vocabulary_size: int | tf.Tensor) -> tf.Tensor:
    """Marks vocabulary ids: bool `[batch, vocabulary_size]`, for int64 sparse `[batch, any]`."""
    indices = tf.stack([ids.indices[:, 0], ids.values], axis=1)
    shape = tf.stack([ids.dense_shape[0], tf.cast(vocabulary_size, tf.int64)])
    return tf.scatter_nd(indices, tf.ones_like(ids.values, tf.int32), shape) > 0


def mean_rank(scores: tf.Tensor, excluded: tf.Tensor, target_rows: tf.Tensor) -> tf.Tensor:
    """Ranks the target among the candidates; equal scores share the mean of the ranks they span.

    rank = 1 + #{better} + #{other candidates with an equal score} / 2

    Args:
      scores: float32 `[batch, num_items]`.
      excluded: bool `[batch, num_items]`, true for items that are no candidates.
      target_rows: int64 `[batch]`, -1 when the target is not in the catalogue.

    Returns:
      float32 `[batch]`, from 1; infinite when the target is not a candidate or its score is no number.
    """
    rows = tf.maximum(target_rows, 0)
    own = tf.gather(scores, rows, batch_dims=1)[:, tf.newaxis]
    candidate = tf.logical_not(excluded)
    better = tf.reduce_sum(tf.cast(candidate & (scores > own), tf.float32), axis=1)
    equal = tf.reduce_sum(tf.cast(candidate & tf.equal(scores, own), tf.float32), axis=1)
    possible = (target_rows >= 0) & tf.logical_not(tf.gather(excluded, rows, batch_dims=1))
    possible &= tf.logical_not(tf.math.is_nan(own[:, 0]))
    return tf.where(possible, 1.0 + better + (equal - 1.0) / 2.0, float("inf"))


def ndcg_at(ranks: tf.Tensor, k: int) -> tf.Tensor:
    """Returns NDCG@k of each query with one relevant item: 1 / log2(1 + rank) within the first k, else 0."""
    gains = tf.math.log(2.0) / tf.math.log1p(tf.minimum(ranks, float(k)))
    return tf.where(ranks <= k, gains, 0.0)
