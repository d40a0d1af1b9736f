"""Losses of retrieval models, corrected for popularity.

Two corrections must not be confused. The one for *sampling* makes a softmax over a sample an estimate of that over the
whole catalogue, and is always there. The one for *popularity* is a choice (`popularity_correction`, tau): the loss is
taken of logits to which tau log p(i) was added, with p(i) the title's share of the interactions,

    L = -log softmax(s(x, .) + tau log p)[y]

and what is served are the scores s without it. The larger tau, the less is left for s to learn of mere popularity: with
1 it ranks as if all titles had been taken equally often (Menon et al., "Long-tail learning via logit adjustment", ICLR
2021).
"""

from __future__ import annotations

import tensorflow as tf
from pydantic import Field

from modules import ranking
from modules.models.base import RecommenderConfig

_EXCLUDED_LOGIT = -1e9


class RetrievalLossConfig(RecommenderConfig):
    """Settings of the loss."""

    popularity_correction: float = Field(default=0.0, ge=0, le=1)
    """Strength tau of the correction for popularity. 0: none; 1: all titles as if taken equally often."""


def in_batch_softmax_loss(
    logits: tf.Tensor,
    target_ids: tf.Tensor,
    log_sampling_probability: tf.Tensor,
    seen_ids: tf.SparseTensor,
    vocabulary_size: int,
    temperature: float = 1.0,
    popularity_correction: float = 0.0,
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
      popularity_correction: tau; p is Q here.
      weights: what each query's loss is multiplied by, float32 `[batch]`; None for 1.

    Returns:
      The mean loss, a float32 scalar.
    """
    # Minus log Q for the sampling, plus tau log Q for the popularity.
    corrected = logits / temperature - (1.0 - popularity_correction) * log_sampling_probability[tf.newaxis, :]
    own_column = tf.eye(tf.shape(target_ids)[0], dtype=tf.bool)
    accidental_hit = tf.equal(target_ids[:, tf.newaxis], target_ids[tf.newaxis, :])
    seen = ranking.ids_mask(seen_ids, vocabulary_size)
    excluded = (accidental_hit | tf.gather(seen, target_ids, axis=1)) & ~own_column
    masked = tf.where(excluded, _EXCLUDED_LOGIT, corrected)
    labels = tf.range(tf.shape(target_ids)[0])
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, masked)
    return tf.reduce_mean(losses if weights is None else losses * weights)
