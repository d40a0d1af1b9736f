"""Full-catalogue ranking in the graph: masks of seen titles, the best K, and ranks in which ties share their mean."""

from __future__ import annotations

import tensorflow as tf

_GROUP_SIZE = 64
# Below, reading the scores once more costs more than `top_k` saves.
_SMALLEST_GROUPED = 16_384


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


def hide_rows(scores: tf.Tensor, rows: tf.RaggedTensor) -> tf.Tensor:
    """Gives catalogue rows the score minus infinity; unlike a mask, it touches these rows only.

    Args:
      scores: float32 `[batch, num_items]`.
      rows: rows per query, int64 `[batch, (any)]`; those outside `[0, num_items)` are ignored.
    """
    values, queries = rows.values, rows.value_rowids()
    inside = (values >= 0) & (values < tf.shape(scores, out_type=tf.int64)[1])
    indices = tf.stack([tf.boolean_mask(queries, inside), tf.boolean_mask(values, inside)], axis=1)
    return tf.tensor_scatter_nd_update(scores, indices, tf.fill(tf.shape(indices)[:1], -float("inf")))


def top_k(scores: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns what `tf.math.top_k` does, ties included, without pushing a large catalogue through its heap.

    The k best are all in the k groups with the best maxima, and among equal maxima in the first such groups: at most
    k - 1 groups hold anything better than the k-th best score, and each of the others chosen holds one that equals it.

    Args:
      scores: `[batch, num_items]`, without NaN.
      k: how many; at most `num_items`, which must be known when the graph is made.

    Returns:
      The k best scores, `[batch, k]`, best first and in the catalogue's order where they are equal, and their rows,
      int32 `[batch, k]`.
    """
    num_items = scores.shape[1]
    groups = num_items // _GROUP_SIZE
    if num_items < _SMALLEST_GROUPED or groups < 2 * k:
        return tf.math.top_k(scores, k)
    grouped = tf.reshape(scores[:, : groups * _GROUP_SIZE], [-1, groups, _GROUP_SIZE])
    _, chosen = tf.math.top_k(tf.reduce_max(grouped, axis=2), k, sorted=False)
    chosen = tf.sort(chosen, axis=1)
    # What does not fill a group stands behind all groups, as in the catalogue.
    rest = tf.range(groups * _GROUP_SIZE, num_items)
    rows = tf.reshape(chosen[:, :, tf.newaxis] * _GROUP_SIZE + tf.range(_GROUP_SIZE), [-1, k * _GROUP_SIZE])
    rows = tf.concat([rows, tf.repeat(rest[tf.newaxis], tf.shape(scores)[0], axis=0)], axis=1)
    candidates = tf.concat(
        [
            tf.reshape(tf.gather(grouped, chosen, batch_dims=1), [-1, k * _GROUP_SIZE]),
            scores[:, groups * _GROUP_SIZE :],
        ],
        axis=1,
    )
    best, positions = tf.math.top_k(candidates, k)
    return best, tf.gather(rows, positions, batch_dims=1)


def contains(rows: tf.RaggedTensor, wanted: tf.Tensor) -> tf.Tensor:
    """Returns whether each row of `wanted`, int64 `[batch, candidates]`, is among those of its query: bool, alike.

    Args:
      rows: rows per query, int64 `[batch, (any)]`.
      wanted: rows to look for, of the same queries.
    """
    # Padded by what no row is, so that each query has one more than it needs, and a position to point at.
    last = tf.int64.max
    known = tf.concat([tf.sort(rows.to_tensor(last), axis=1), tf.fill([rows.nrows(), 1], last)], axis=1)
    positions = tf.searchsorted(known, wanted)
    return tf.equal(tf.gather(known, positions, batch_dims=1), wanted)


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
