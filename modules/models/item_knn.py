"""Item-kNN: titles that were taken by the same users as those of the history.

    similarity(j, i) = n_ji / (n_j ** (1 - a) * n_i ** a + shrinkage)
    score(i)         = sum over past titles j among the `neighbours` most similar to i: weight(j) * similarity(j, i)

where n_ji users took both titles and n_i took i; a = 1/2 gives the cosine. Where interactions are weighed, a user
counts for the weight with which i was taken. The weights of past titles are those of `modules.models.item_bag`.

Sarwar, Karypis, Konstan and Riedl, "Item-Based Collaborative Filtering Recommendation Algorithms", WWW 2001;
Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms", TOIS 2004; for other exponents than 1/2, Aiolli,
"Efficient Top-N Recommendation for Very Large Scale Binary Rated Datasets", RecSys 2013.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field

from modules.catalogue import Catalogue
from modules.interaction_log import USERS_PER_BLOCK, read_interaction_log
from modules.models.base import FitContext, FitReport, Recommender, Scorer
from modules.models.co_occurrence import gram_matrix, target_matrix
from modules.models.item_bag import CatalogueColumns, ItemBag, ItemBagConfig, ItemToItemScorer
from modules.models.search_space import Dimension, FloatRange, IntRange
from modules.training_data import TRAIN, TrainingData


class ItemKnnConfig(ItemBagConfig):
    """Settings of `ItemKnn`."""

    neighbours: int = Field(default=500, ge=1)
    """Most similar titles that may speak for a title."""
    shrinkage: float = Field(default=10.0, ge=0)
    """Pulls similarities that rest on few users towards 0."""
    popularity_exponent: float = Field(default=0.6, ge=0, le=1)
    """The exponent a: from 0 (popular titles are favoured) over 0.5 (cosine) to 1 (they are held back)."""
    recency_decay: float = Field(default=0.6, gt=0, le=1)
    """Factor on the weight of a title for each later instant of the history."""
    older_weight: float = Field(default=0.0, ge=0, le=1)
    """Weight of titles seen before the history begins; the latest title has weight 1."""

    search_space: ClassVar[Mapping[str, Dimension]] = {
        **ItemBagConfig.search_space,
        "neighbours": IntRange(10, 2000, logarithmic=True),
        "shrinkage": FloatRange(0.1, 200.0, logarithmic=True),
        "popularity_exponent": FloatRange(0.2, 0.8),
    }


class ItemKnn(Recommender):
    """Counts which titles share users."""

    config_class = ItemKnnConfig
    config: ItemKnnConfig

    def fit(self, data: TrainingData, catalogue: Catalogue, context: FitContext) -> tuple[Scorer, FitReport]:
        """Computes the similarities on the training split.

        Raises:
          ValueError: if the feature group `ids` is switched off.
        """
        bag, size = ItemBag(self.config, context), context.inputs.item_vocabulary_size
        log = read_interaction_log(data, [TRAIN])
        count = gram_matrix if log.weights is None else target_matrix
        similarities = nearest_neighbours(
            count(log.blocks(USERS_PER_BLOCK), size),
            self.config.neighbours,
            self.config.shrinkage,
            self.config.popularity_exponent,
        )
        return ItemToItemScorer(similarities, bag, CatalogueColumns(catalogue, log, self.config, size)), FitReport()


def nearest_neighbours(gram: np.ndarray, neighbours: int, shrinkage: float, popularity_exponent: float) -> np.ndarray:
    """Returns the similarities between titles, of each title's nearest neighbours only.

    Args:
      gram: users that titles have in common, float32 `[size, size]`.
      neighbours: similarities kept in each column; those equal to the smallest of them are kept, too.
      shrinkage: added to the denominator.
      popularity_exponent: the exponent a.

    Returns:
      float32 `[size, size]`: from a neighbour (row) to the title that it speaks for (column); 0 on the diagonal.
    """
    users = np.maximum(np.diag(gram), 1.0)  # Titles without users have no co-occurrence to divide either.
    denominators = np.outer(users ** (1.0 - popularity_exponent), users**popularity_exponent) + shrinkage
    similarities = (gram / denominators).astype(np.float32)
    np.fill_diagonal(similarities, 0.0)
    if neighbours < len(similarities):
        smallest = np.partition(similarities, -neighbours, axis=0)[-neighbours]
        similarities[similarities < smallest] = 0.0
    return similarities
