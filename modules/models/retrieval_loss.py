"""The in-batch sampled softmax of retrieval models, corrected for how often a title is sampled."""

from __future__ import annotations

import tensorflow as tf

from modules import ranking

_EXCLUDED_LOGIT = -1e9


def in_batch_softmax_loss(
    logits: tf.Tensor,
    target_ids: tf.Tensor,
    log_sampling_probability: tf.Tensor,
    seen_ids: tf.SparseTensor,
    vocabulary_size: int,
    temperature: float = 1.0,
    weights: tf.Tensor | None = None,
) -> tf.Tensor:
    """Cross-entropy of each query's own target against the targets of the other queries in the batch.

    A title enters a batch as a negative in proportion to its popularity Q(i). The sampled softmax is a consistent
    estimate of the full one when log Q(i) is *subtracted* from the logits (Bengio & Senécal, 2008; Yi et al.,
    "Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations", RecSys 2019, eq. 3):

        l(x, i) = s(x, i) / T - log Q(i),    L = -l(x, y) + log sum_{j in batch} exp l(x, j)

    Two kinds of columns are no negatives of a query: those that hold the very title it is about (accidental hits),
    and titles that its user has seen already, which serving never offers either.

    Args:
      logits: scores s, float32 `[batch, batch]`; the target of row n is column n.
      target_ids: vocabulary ids of the columns' titles, int64 `[batch]`.
      log_sampling_probability: log Q of the columns' titles, float32 `[batch]`.
      seen_ids: vocabulary ids that each query's user has seen, int64 sparse `[batch, any]`.
      vocabulary_size: number of vocabulary ids.
      temperature: T.
      weights: what each query's loss is multiplied by, float32 `[batch]`; None for 1.

    Returns:
      The mean loss, a float32 scalar.
    """
    corrected = logits / temperature - log_sampling_probability[tf.newaxis, :]
    own_column = tf.eye(tf.shape(target_ids)[0], dtype=tf.bool)
    accidental_hit = tf.equal(target_ids[:, tf.newaxis], target_ids[tf.newaxis, :])
    seen = ranking.ids_mask(seen_ids, vocabulary_size)
    excluded = (accidental_hit | tf.gather(seen, target_ids, axis=1)) & ~own_column
    masked = tf.where(excluded, _EXCLUDED_LOGIT, corrected)
    labels = tf.range(tf.shape(target_ids)[0])
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, masked)
    return tf.reduce_mean(losses if weights is None else losses * weights)
