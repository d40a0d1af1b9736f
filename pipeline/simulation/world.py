r"""A world in which the value of every recommendation is known.

User u finds title i relevant at time t, as a share p of the log, with probability

    relevance(u, i, p) = sigmoid(base + taste * z_u(p) . a_i + quality * q_i + trend * s_i * (2 p - 1)),

where z_u turns slowly from one direction to another, and clicks on it at position k of a list with probability

    examination[k] * relevance(u, i, p):

the position-based model (Richardson, Dominowska and Ragno, "Predicting Clicks", WWW 2007; Craswell et al., "An
Experimental Comparison of Click Position-Bias Models", WSDM 2008).
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.synthetic_entities import SECONDS_PER_DAY, make_ids
from pipeline.simulation.config import WorldConfig
from pipeline.simulation.grounding import Grounding

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

START = 1_704_067_200
"""First instant of every world: 1 January 2024, UTC, in seconds."""

_STREAMS = ("titles", "users", "campaign", "view", "log", "visits", "clicks")
_LAST_RELEASE = 0.7
_MOST_ACTIVE = 3.0
_HIDDEN_SCALE = 0.2


@dataclasses.dataclass(frozen=True)
class World:
    """A world made from its sizes and a seed; the same arguments make the same world.

    Attributes:
      config: sizes and strengths.
      grounding: what it has in common with real data.
      seed: seed of everything that is drawn.
    """

    config: WorldConfig
    grounding: Grounding
    seed: int

    @functools.cached_property
    def user_ids(self) -> list[str]:
        """Identifiers, by index."""
        return make_ids("u", self.config.users)

    @functools.cached_property
    def item_ids(self) -> list[str]:
        """Identifiers, by index."""
        return make_ids("i", self.config.items)

    @property
    def examination(self) -> Floats:
        """`[positions]`, probability that each position is looked at."""
        return np.array(self.config.examination)

    @property
    def seconds(self) -> int:
        """Length of the log."""
        return self.config.days * SECONDS_PER_DAY

    @functools.cached_property
    def genres(self) -> NDArray[np.bool_]:
        """`[items, genres]`; one to three of each row are true."""
        generator = self.generator("titles")
        shares = np.array(self.grounding.genre_shares)
        genres = np.zeros((self.config.items, len(shares)), dtype=bool)
        for row in genres:
            count = min(int(generator.integers(1, 4)), len(shares))
            row[generator.choice(len(shares), size=count, replace=False, p=shares / shares.sum())] = True
        return genres

    @functools.cached_property
    def attributes(self) -> Floats:
        """`[items, genres]`: genres, of unit length, and something about each title that its genres do not tell."""
        shares = self.genres / np.sqrt(self.genres.sum(axis=1, keepdims=True))
        return shares + _HIDDEN_SCALE * self.generator("titles", 1).normal(size=shares.shape)

    @functools.cached_property
    def quality(self) -> Floats:
        """`[items]`, standard normal."""
        return self.generator("titles", 2).normal(size=self.config.items)

    @functools.cached_property
    def slopes(self) -> Floats:
        """`[items]`, standard normal: how a title's appeal rises over the log."""
        return self.generator("titles", 3).normal(size=self.config.items)

    @functools.cached_property
    def releases(self) -> Floats:
        """`[items]`, share of the log after which a title is out; 0 for those that were there before."""
        generator = self.generator("titles", 4)
        is_new = generator.random(self.config.items) < self.config.new_share
        return np.where(is_new, generator.uniform(0, _LAST_RELEASE, self.config.items), 0.0)

    @functools.cached_property
    def tastes(self) -> tuple[Floats, Floats]:
        """Two directions, each `[users, genres]`, that tastes turn between."""
        first, second = self.generator("users").normal(size=(2, self.config.users, len(self.grounding.genres)))
        return first, second

    @functools.cached_property
    def activity(self) -> Floats:
        """`[users]`, probability that a visit is of each user; nobody comes more than a few times the mean."""
        drawn = np.exp(self.grounding.activity_skew * self.generator("users", 1).normal(size=self.config.users))
        bounded = np.minimum(drawn, _MOST_ACTIVE * drawn.mean())
        return bounded / bounded.sum()

    @functools.cached_property
    def campaign(self) -> Floats:
        """`[items]`, mean 1: how often each title was clicked before the log, whatever it is worth."""
        drawn = np.exp(self.grounding.popularity_skew * self.generator("campaign").normal(size=self.config.items))
        return drawn / drawn.mean()

    def affinity(self, users: Ints, progress: Floats) -> Floats:
        """Returns how users' tastes meet titles, `[n, items]`, of standard deviation about 1.

        Args:
          users: `[n]`, indices.
          progress: `[n]`, time as a share of the log; above 1 after its end.
        """
        angle = (self.config.drift * progress)[:, np.newaxis]
        first, second = self.tastes
        return (np.cos(angle) * first[users] + np.sin(angle) * second[users]) @ self.attributes.T

    def relevance(self, users: Ints, progress: Floats) -> Floats:
        """Returns the probability of a click on every title once it is looked at, `[n, items]`; see `affinity`."""
        config = self.config
        logits = config.base_logit + config.taste_scale * self.affinity(users, progress)
        logits += config.quality_scale * self.quality
        logits += config.trend_scale * np.outer(2 * progress - 1, self.slopes)
        return 1 / (1 + np.exp(-logits))

    def timestamps(self, progress: Floats) -> Ints:
        """Returns shares of the log as seconds since 1970."""
        return START + np.floor(progress * self.seconds).astype(np.int64)

    def generator(self, stream: str, part: int = 0) -> np.random.Generator:
        """A generator of its own for each purpose, so that changing one thing leaves the rest as it is."""
        return np.random.default_rng([self.seed, _STREAMS.index(stream), part])
