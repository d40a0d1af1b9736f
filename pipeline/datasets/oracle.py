"""How well the best possible ranking of a synthetic log does, beside simpler ones: the yardstick for models.

The protocol is the pipeline's own: the history of an event is what its user did strictly before, the candidates are
the whole catalogue minus the history, and ties share their mean rank.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.synthetic import SyntheticWorld
from pipeline.datasets.synthetic_entities import Events

Scorer = Callable[[int, NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]], NDArray[np.float64]]
"""Scores of all titles at `n` instants of one user, with the arguments of `SyntheticWorld.log_probabilities`."""


@dataclasses.dataclass(frozen=True)
class RankingQuality:
    """Means over the events ranked.

    Attributes:
      ndcg: normalised discounted cumulative gain at k; with one relevant title, 1 / log2(1 + rank) up to rank k.
      recall: share of the events whose title is among the first k.
    """

    ndcg: float
    recall: float


def popularity_scorer(events: Events, items: int) -> Scorer:
    """Returns a scorer that counts how often each title was taken in these events."""
    counts = np.bincount(events.items, minlength=items).astype(float)
    return lambda user, timestamps, seen, latest: np.tile(counts, (len(timestamps), 1))


def measure_ranking(world: SyntheticWorld, scorer: Scorer, first_event: int, k: int = 10) -> RankingQuality:
    """Ranks the catalogue for the events of a world's log from one position on.

    Args:
      world: whose log to rank.
      scorer: what to rank by.
      first_event: position in `world.events` of the first event to rank; the ones before are history only.
      k: cut-off of both metrics.

    Raises:
      ValueError: if no event is left.
    """
    events = world.events
    if not 0 <= first_event < len(events):
        raise ValueError(f"first_event must lie in [0, {len(events)}); received {first_event}")
    by_user = np.argsort(events.users, kind="stable")
    positions_of = np.split(by_user, np.searchsorted(events.users[by_user], np.arange(1, world.users)))
    ranks = np.concatenate(
        [
            _ranks_of_one_user(world, scorer, user, positions_of[user], first_event)
            for user in np.unique(events.users[first_event:])
        ]
    )
    hits = ranks <= k
    return RankingQuality(ndcg=float((hits / np.log2(1 + ranks)).mean()), recall=float(hits.mean()))


def _ranks_of_one_user(
    world: SyntheticWorld, scorer: Scorer, user: int, positions: NDArray[np.int64], first_event: int
) -> NDArray[np.float64]:
    """Ranks of the titles that one user took in the events from `first_event` on."""
    own = world.events.take(positions)
    ranked = positions >= first_event
    times, targets = own.timestamps[ranked], own.items[ranked]
    before = own.timestamps[None, :] < times[:, None]
    last = np.where(before, own.timestamps, -1).max(axis=1, keepdims=True)
    seen, latest = np.zeros((2, len(times), world.items), dtype=bool)
    seen[:, own.items] = before
    latest[:, own.items] = own.timestamps == last
    scores = np.where(seen, -np.inf, scorer(user, times, seen, latest))
    target_scores = np.take_along_axis(scores, targets[:, None], axis=1)
    better = (scores > target_scores).sum(axis=1)
    equal = (scores == target_scores).sum(axis=1)
    return 1 + better + (equal - 1) / 2
