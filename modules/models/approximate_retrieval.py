"""Approximate maximum inner product search by ScaNN, for catalogues too large to be scored for every request.

ScaNN clusters the titles' vectors, looks into the clusters nearest to the query only, and there compares quantised
vectors. After Guo et al., "Accelerating Large-Scale Inference with Anisotropic Vector Quantization" (ICML 2020).

Its SavedModels hold an operation that stock TensorFlow Serving does not have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import tensorflow as tf
import tensorflow_recommenders as tfrs

from modules.models.base import Scorer
from modules.models.vector_scorer import VectorScorer

_OTHER_CANDIDATES = 400
"""Candidates looked for beyond the list's length, since titles already seen are taken out afterwards."""
_MORE_REORDERED = 4
_SHARE_OF_CLUSTERS = 0.15
_LEAST_CLUSTERS = 10
_TRAINING_ITERATIONS = 8


class ApproximateRetrievalError(ValueError):
    """A model that cannot be searched approximately. The message says why, and what to do instead."""


class ScannRetrieval(tf.Module):
    """Finds candidates for queries, and scores them exactly.

    Args:
      scorer: a fitted model whose scores are inner products; its item side is read once, here.
      top_k: length of the lists that are made of the candidates.

    Raises:
      ApproximateRetrievalError: if the scores are no inner products, or ScaNN is not installed.
    """

    def __init__(self, scorer: Scorer, top_k: int):
        super().__init__()
        if not isinstance(scorer, VectorScorer):
            raise ApproximateRetrievalError(
                f"serving.retrieval: received 'scann' for {type(scorer).__name__}, whose scores are no inner products "
                f"of a query's and a title's vector; expected 'exact', or the family two_tower, gru or transformer"
            )
        self._scorer = scorer
        vectors = scorer.augmented_item_vectors()
        num_items = vectors.shape[0]
        self._num_candidates = min(num_items, top_k + _OTHER_CANDIDATES)
        leaves = max(1, round(math.sqrt(num_items)))
        try:
            self._index = tfrs.layers.factorized_top_k.ScaNN(
                k=self._num_candidates,
                num_leaves=leaves,
                num_leaves_to_search=min(leaves, max(_LEAST_CLUSTERS, round(_SHARE_OF_CLUSTERS * leaves))),
                num_reordering_candidates=min(num_items, _MORE_REORDERED * self._num_candidates),
                training_iterations=_TRAINING_ITERATIONS,
            )
        except ImportError as error:
            raise ApproximateRetrievalError(
                "serving.retrieval: received 'scann', and the package scann is not installed; its wheels fit "
                "TensorFlow 2.16: pip install 'marquee[scann]'"
            ) from error
        self._index.index(vectors, tf.range(num_items))

    def candidates(self, query: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the candidates of transformed queries.

        Returns:
          Their catalogue rows, int64 `[batch, candidates]`, -1 where fewer were found, and their exact scores, float32
          of the same shape, minus infinity there. In the order of the catalogue, so that equal scores are listed as
          exact retrieval lists them.
        """
        vectors = self._scorer.query_vectors(query)
        products, found = self._index(self._scorer.augmented_query_vectors(vectors))
        # Where it found fewer, ScaNN fills up with the first row, and with products that are no numbers.
        rows = tf.sort(tf.where(tf.math.is_nan(products), tf.constant(-1, tf.int64), tf.cast(found, tf.int64)), axis=1)
        scores = self._scorer.score_rows(vectors, tf.maximum(rows, 0))
        return rows, tf.where(rows >= 0, scores, -float("inf"))
