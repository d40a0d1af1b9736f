"""A model put online in a world whose truth is known.

The model answers visits that come after the end of the log, each with what its user had clicked by then. Histories do
not grow with what the model's own lists earn: every visit is the user's next one, so that all models answer the same
requests and what they earn differs by their lists alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.serving.requests import HistoryEvent, RequestFormat, build_example
from pipeline.simulation.config import DeploymentConfig
from pipeline.simulation.log import Log
from pipeline.simulation.world import Floats, Ints, World

Recommend = Callable[[Sequence[bytes]], NDArray[np.object_]]
"""From serialized tf.Examples to the item ids recommended, bytes `[batch, K]`, best first."""

EARNINGS_FILE = "earnings.json"
"""Beside the OnlineEarnings: `users`, `expected` and `sampled` by visit."""

_BATCH_SIZE = 512
NOTHING = -1
"""Stands for a position that shows no title."""


@dataclasses.dataclass(frozen=True)
class Visits:
    """Requests after the end of the log.

    Attributes:
      users: `[visits]`, indices.
      progress: `[visits]`, time as a share of the log, above 1.
    """

    users: Ints
    progress: Floats


@dataclasses.dataclass(frozen=True)
class Earnings:
    """What a model's lists earn.

    Attributes:
      expected: `[visits]`, expected clicks on the list, exactly.
      sampled: `[visits]`, clicks drawn with the same random numbers for all models.
    """

    expected: Floats
    sampled: Ints


def draw_visits(world: World, config: DeploymentConfig) -> Visits:
    """Draws who comes, and when; the same for all models."""
    generator = world.generator("visits")
    users = generator.choice(world.config.users, size=config.visits, p=world.activity)
    return Visits(users, 1 + np.sort(generator.random(config.visits)) * config.days / world.config.days)


def build_requests(world: World, log: Log, visits: Visits, request_format: RequestFormat) -> list[bytes]:
    """Returns a serialized tf.Example per visit, as a client would send it."""
    histories = [
        [HistoryEvent(world.item_ids[item], time, 1.0) for item, time in history] for history in log.histories()
    ]
    return [
        build_example(
            {"user_id": world.user_ids[user]},
            histories[user] if user < len(histories) else (),
            timestamp=int(timestamp),
            request_format=request_format,
        ).SerializeToString()
        for user, timestamp in zip(visits.users, world.timestamps(visits.progress), strict=True)
    ]


def ask(recommend: Recommend, requests: Sequence[bytes], world: World) -> Ints:
    """Returns the titles that fill the positions of each list, `[visits, positions]`; `NOTHING` where a list ends.

    Raises:
      ValueError: if the model recommends something that is not in the catalogue, or lists shorter than the positions.
    """
    positions = len(world.examination)
    index = {item.encode(): row for row, item in enumerate(world.item_ids)} | {b"": NOTHING}
    batches = [
        recommend(requests[start : start + _BATCH_SIZE])[:, :positions]
        for start in range(0, len(requests), _BATCH_SIZE)
    ]
    lists = np.concatenate(batches)
    if lists.shape[1] < positions:
        raise ValueError(f"the model's lists have {lists.shape[1]} titles; expected {positions} or more")
    if unknown := set(lists.ravel().tolist()) - set(index):
        raise ValueError(f"the model recommends {sorted(unknown)[:3]}, which are not in the catalogue")
    return np.array([[index[item] for item in row] for row in lists.tolist()], dtype=np.int64)


def earn(world: World, visits: Visits, lists: Ints) -> Earnings:
    """Returns what lists earn.

    Args:
      world: where they are shown.
      visits: to whom, and when.
      lists: titles, `[visits, positions]`, or `NOTHING`.
    """
    relevance = world.relevance(visits.users, visits.progress)
    shown = np.take_along_axis(relevance, np.maximum(lists, 0), axis=1) * (lists != NOTHING)
    chances = world.examination * shown
    draws = world.generator("clicks").random(lists.shape)
    return Earnings(chances.sum(axis=1), (draws < chances).sum(axis=1))


def best_lists(world: World, log: Log, visits: Visits) -> Ints:
    """Returns the lists of whoever knows the world: the most relevant titles that a user has not clicked."""
    relevance = world.relevance(visits.users, visits.progress)
    histories = log.histories()
    for row, user in enumerate(visits.users):
        taken = [item for item, _ in histories[user]] if user < len(histories) else []
        relevance[row, taken] = -np.inf
    return np.argsort(-relevance, axis=1, kind="stable")[:, : len(world.examination)]
