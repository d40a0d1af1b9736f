"""Markov: what follows what. First-order transitions, also over some steps, from every title of the recent history.

    C[j, i]  = sum over users and steps d = 1..steps: step_decay ** (d - 1) * #{i taken d instants after j}
    score(i) = sum over past titles j: weight(j) * log(1 + C[j, i] / smoothing)

with the weights of `modules.models.item_bag`. Events at the same instant are no transitions of each other: their order
is unknown. Where interactions are weighed, a transition counts for the weight of what it leads to. Transitions are
those of a first-order chain (Rendle, Freudenthaler and Schmidt-Thieme, "Factorizing Personalized Markov Chains for
Next-Basket Recommendation", WWW 2010, without the factorisation); mixing those of several steps follows Shani,
Heckerman and Brafman, "An MDP-Based Recommender System", JMLR 2005. The logarithm keeps popular pairs from drowning all
others.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from pydantic import Field

from modules.catalogue import Catalogue
from modules.interaction_log import InteractionLog, read_interaction_log
from modules.models.base import FitContext, FitReport, Recommender, Scorer
from modules.models.item_bag import CatalogueColumns, ItemBag, ItemBagConfig, ItemToItemScorer
from modules.models.search_space import Dimension, FloatRange, IntRange
from modules.training_data import TRAIN, TrainingData


class MarkovConfig(ItemBagConfig):
    """Settings of `Markov`."""

    steps: int = Field(default=3, ge=1)
    """Largest distance, in instants of a user, that counts as a transition."""
    step_decay: float = Field(default=0.7, gt=0, le=1)
    """Factor on a transition for each step more."""
    smoothing: float = Field(default=1.0, gt=0)
    """Count from which on the score of a pair grows slowly."""
    recency_decay: float = Field(default=0.6, gt=0, le=1)
    """Factor on the weight of a title for each later instant of the history."""
    older_weight: float = Field(default=0.0, ge=0, le=1)
    """Weight of titles seen before the history begins; the latest title has weight 1."""

    search_space: ClassVar[Mapping[str, Dimension]] = {
        **ItemBagConfig.search_space,
        "steps": IntRange(1, 6),
        "step_decay": FloatRange(0.4, 1.0),
        "smoothing": FloatRange(0.1, 10.0, logarithmic=True),
    }


class Markov(Recommender):
    """Counts transitions."""

    config_class = MarkovConfig
    config: MarkovConfig

    def fit(self, data: TrainingData, catalogue: Catalogue, context: FitContext) -> tuple[Scorer, FitReport]:
        """Counts the transitions of the training split.

        Raises:
          ValueError: if the feature group `ids` is switched off.
        """
        bag, size = ItemBag(self.config, context), context.inputs.item_vocabulary_size
        log = read_interaction_log(data, [TRAIN])
        counts = count_transitions(log, size, self.config.steps, self.config.step_decay)
        columns = CatalogueColumns(catalogue, log, self.config, size)
        return ItemToItemScorer(np.log1p(counts / self.config.smoothing), bag, columns), FitReport()


def count_transitions(log: InteractionLog, vocabulary_size: int, steps: int, step_decay: float) -> np.ndarray:
    """Counts what each user took up to `steps` instants after each title.

    Args:
      log: the interactions.
      vocabulary_size: number of item ids; padding and the out-of-vocabulary id take part in no transition.
      steps: largest distance in instants.
      step_decay: factor for each step beyond the first.

    Returns:
      float32 `[vocabulary_size, vocabulary_size]`: from (row) and to (column).
    """
    counts = np.zeros((vocabulary_size, vocabulary_size), np.float32)
    bounds = log.instant_bounds()
    instants = [log.item_ids[start:end] for start, end in itertools.pairwise(bounds)]
    weights = None if log.weights is None else [log.weights[start:end] for start, end in itertools.pairwise(bounds)]
    users = log.user_keys[bounds[:-1]]
    for step in range(1, steps + 1):
        for first in np.flatnonzero(users[:-step] == users[step:]):
            cells = np.ix_(instants[first], instants[first + step])
            counts[cells] += step_decay ** (step - 1) * (1.0 if weights is None else weights[first + step])
    unknown = [0, vocabulary_size - 1]
    counts[unknown], counts[:, unknown] = 0.0, 0.0
    return counts
