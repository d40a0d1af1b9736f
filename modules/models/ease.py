"""EASE: the linear model that best rebuilds each user's titles from the user's other titles, in closed form.

    min over B with zero diagonal: |X - X B|^2 + regularisation * |B|^2
    P = (X^T X + regularisation * I)^-1,  B[j, i] = -P[j, i] / P[i, i] for j != i
    score(i) = sum over past titles j: weight(j) * B[j, i]

Where interactions are weighed, what is rebuilt is not X but Y, the weights in the place of X's ones:

    B = P (X^T Y - diag(g)),  g_i = (P X^T Y)[i, i] / P[i, i]

All with the weights of `modules.models.item_bag` instead of the paper's ones. X is the binary user-title matrix, of
which only X^T X is made: memory and time depend on the number of titles (its square and its cube).

Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019.
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
from modules.models.search_space import Dimension, FloatRange
from modules.training_data import TRAIN, TrainingData


class EaseConfig(ItemBagConfig):
    """Settings of `Ease`."""

    regularisation: float = Field(default=1000.0, gt=0)
    """Weight of the squared norm of B, in units of users."""

    search_space: ClassVar[Mapping[str, Dimension]] = {
        **ItemBagConfig.search_space,
        "regularisation": FloatRange(30.0, 10_000.0, logarithmic=True),
    }


class Ease(Recommender):
    """Solves a ridge regression for all titles at once."""

    config_class = EaseConfig
    config: EaseConfig

    def fit(self, data: TrainingData, catalogue: Catalogue, context: FitContext) -> tuple[Scorer, FitReport]:
        """Computes the weights from the training split.

        Raises:
          ValueError: if the feature group `ids` is switched off.
        """
        bag, size = ItemBag(self.config, context), context.inputs.item_vocabulary_size
        log = read_interaction_log(data, [TRAIN])
        gram = gram_matrix(log.blocks(USERS_PER_BLOCK), size)
        targets = None if log.weights is None else target_matrix(log.blocks(USERS_PER_BLOCK), size)
        weights = ease_weights(gram, self.config.regularisation, targets)
        return ItemToItemScorer(weights, bag, CatalogueColumns(catalogue, log, self.config, size)), FitReport()


def ease_weights(gram: np.ndarray, regularisation: float, targets: np.ndarray | None = None) -> np.ndarray:
    """Returns B, float64 `[size, size]`: from a title taken (row) to the title scored (column).

    Args:
      gram: X^T X, `[size, size]`.
      regularisation: added to its diagonal.
      targets: X^T Y, if it is not X that is to be rebuilt.
    """
    inverse = np.linalg.inv(gram.astype(np.float64) + regularisation * np.eye(len(gram)))
    if targets is None:
        weights = inverse / -np.diag(inverse)
    else:
        free = inverse @ targets
        weights = free - inverse * (np.diag(free) / np.diag(inverse))
    np.fill_diagonal(weights, 0.0)
    return weights
