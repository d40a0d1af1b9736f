"""The log of a world: lists shown, clicks, and the probabilities with which everything was shown."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.config_files import ConfigError
from pipeline.datasets.folder import Table
from pipeline.simulation.config import LoggingConfig
from pipeline.simulation.logging_policy import LoggingPolicy, blurred_views
from pipeline.simulation.world import START, Floats, Ints, World


@dataclasses.dataclass(frozen=True)
class Log:
    """Lists in order of time, each at an instant of its own.

    Attributes:
      users: `[lists]`, indices.
      progress: `[lists]`, time as a share of the log.
      timestamps: `[lists]`, seconds since 1970; all differ.
      items: `[lists, positions]`, what was shown.
      clicks: `[lists, positions]`.
      propensities: `[lists, positions, positions]`: of the title shown at the second index, at the third.
    """

    users: Ints
    progress: Floats
    timestamps: Ints
    items: Ints
    clicks: NDArray[np.bool_]
    propensities: Floats

    def __len__(self) -> int:
        return len(self.users)

    def histories(self) -> Sequence[Sequence[tuple[int, int]]]:
        """Returns each user's clicks as pairs of title and timestamp, the earliest first."""
        histories: list[list[tuple[int, int]]] = [[] for _ in range(int(self.users.max()) + 1)]
        for row, position in zip(*np.nonzero(self.clicks), strict=True):
            histories[self.users[row]].append((int(self.items[row, position]), int(self.timestamps[row])))
        return histories


@functools.lru_cache(maxsize=4)
def simulate_log(world: World, config: LoggingConfig) -> Log:
    """Shows lists and draws clicks. The same arguments give the same log, and within a process the same object.

    Raises:
      ConfigError: if lists are so many that somebody has taken nearly everything.
    """
    generator = world.generator("log")
    sizes, positions = world.config, len(world.config.examination)
    count = config.lists
    offsets = np.sort(generator.choice(world.seconds, size=count, replace=False))
    progress = offsets / world.seconds
    users = generator.choice(sizes.users, size=count, p=world.activity)
    draws, looks = generator.random((2, count, positions))
    items = np.zeros((count, positions), dtype=np.int64)
    clicks = np.zeros((count, positions), dtype=bool)
    propensities = np.zeros((count, positions, positions))
    clicks_so_far = config.initial_clicks * world.campaign
    noise = blurred_views(world, config)
    taken = np.zeros((sizes.users, sizes.items), dtype=bool)
    refits = set(np.linspace(0, count, config.refits, endpoint=False, dtype=int).tolist())
    for row, (user, time) in enumerate(zip(users, progress, strict=True)):
        if row in refits:
            policy = LoggingPolicy.fit(config, clicks_so_far)
        at = np.array([user]), np.array([time])
        available = ~taken[user] & (world.releases <= time)
        if available.sum() < positions:
            raise ConfigError(
                f"logging.lists: received {count}; a user has taken all but {available.sum()} of {sizes.items} titles "
                f"before the log ends, and lists have {positions}: expected fewer lists, or more users or items"
            )
        shown = policy.probabilities(world.affinity(*at)[0] + noise[user], available)
        # The inverse of each position's distribution function; the last title catches what rounding leaves.
        chosen = (np.cumsum(shown, axis=1) <= draws[row][:, np.newaxis] * shown.sum(axis=1, keepdims=True)).sum(axis=1)
        items[row] = np.minimum(chosen, sizes.items - 1)
        propensities[row] = shown[:, items[row]].T
        clicks[row] = looks[row] < world.examination * world.relevance(*at)[0, items[row]]
        clicked = items[row, clicks[row]]
        np.add.at(clicks_so_far, clicked, 1)
        taken[user, clicked] = True
    return Log(users, progress, START + offsets, items, clicks, propensities)


def tables(world: World, log: Log) -> Mapping[str, Table]:
    """Returns the tables `interactions` (a row per title shown, in order of time) and `items`."""
    rows, positions = log.items.shape
    propensities = log.propensities.reshape(rows * positions, positions)
    genres = world.grounding.genres
    return {
        "interactions": {
            "user_id": [world.user_ids[user] for user in np.repeat(log.users, positions)],
            "item_id": [world.item_ids[item] for item in log.items.ravel()],
            "timestamp": np.repeat(log.timestamps, positions).tolist(),
            "click": ["1" if click else "" for click in log.clicks.ravel()],
            "propensity": ["|".join(f"{value:.9g}" for value in row) for row in propensities],
            "position": np.tile(np.arange(1, positions + 1), rows).tolist(),
        },
        "items": {
            "item_id": world.item_ids,
            "release_day": np.floor(world.releases * world.config.days).astype(int).tolist(),
            "genres": ["|".join(np.take(genres, np.flatnonzero(row))) for row in world.genres],
        },
    }
