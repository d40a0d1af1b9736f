"""The recommender that was live while the log was written.

Position k of a list shows title i, independently of the other positions, with probability

    (1 - exploration) * softmax_i(score(u, i) / temperature[k]) + exploration / titles,

over the titles that are out and that the user has not taken. So the propensity of every title at every position is
known exactly. The score is its popularity among the clicks so far, whether they came from relevance or from exposure,
plus a blurred view of the user's taste.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from pipeline.simulation.config import LoggingConfig
from pipeline.simulation.world import Floats, World


@dataclasses.dataclass(frozen=True)
class LoggingPolicy:
    """The recommender as fitted at one time.

    Attributes:
      config: weights and temperatures.
      popularity: `[items]`, logarithm of the clicks so far.
    """

    config: LoggingConfig
    popularity: Floats

    @classmethod
    def fit(cls, config: LoggingConfig, clicks: Floats) -> LoggingPolicy:
        """Fits it on clicks by title, `[items]`, all above 0."""
        return cls(config, np.log(clicks))

    def probabilities(self, view: Floats, available: NDArray[np.bool_]) -> Floats:
        """Returns the probability of every title at every position, `[positions, items]`; rows sum to 1.

        Args:
          view: `[items]`, what the recommender believes of the user's taste.
          available: `[items]`, what may be shown; at least one title.
        """
        config = self.config
        scores = config.popularity_weight * self.popularity + config.taste_weight * view
        logits = np.where(available, scores, -np.inf) / np.array(config.temperatures)[:, np.newaxis]
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        softmax = weights / weights.sum(axis=1, keepdims=True)
        return (1 - config.exploration) * softmax + config.exploration * available / available.sum()


def blurred_views(world: World, config: LoggingConfig) -> Floats:
    """Returns what is wrong about the recommender's view of every user's taste, `[users, items]`."""
    return config.taste_noise * world.generator("view").normal(size=(world.config.users, world.config.items))
