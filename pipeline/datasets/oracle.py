"""How well the best possible ranking of a synthetic log does, beside simpler ones: the yardstick for models.

The protocol is the pipeline's own: the history of an event is what its user did strictly before, the candidates are
the whole catalogue minus the history, and ties share their mean rank. An event that resumes a title of the history has
the history for candidates instead, and is counted apart.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.synthetic import NEVER, SyntheticWorld
from pipeline.datasets.synthetic_entities import Events

Scorer = Callable[[int, NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]], NDArray[np.float64]]
"""Scores of all titles at `n` instants of one user, with the arguments of `SyntheticWorld.log_probabilities`."""


ResumeScorer = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]
"""Scores of all titles at `n` instants, with the arguments of `SyntheticWorld.resume_log_probabilities`."""


@dataclasses.dataclass(frozen=True)
class RankingQuality:
    """Means over the events ranked; NaN if there are none.

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
    """Ranks the titles not yet seen for the events of a world's log from one position on that take a new title.

    Args:
      world: whose log to rank.
      scorer: what to rank by.
      first_event: position in `world.events` of the first event to rank; the ones before are history only.
      k: cut-off of both metrics.

    Raises:
      ValueError: if no event is left.
    """

    def ranks(user: int, past: _Past) -> NDArray[np.float64]:
        fresh = ~past.resumed
        seen, latest = past.seen[fresh], past.latest[fresh]
        scores = scorer(user, past.timestamps[fresh], seen, latest)
        return _mean_ranks(np.where(seen, -np.inf, scores), past.targets[fresh])

    return _measure(world, ranks, first_event, k)


def measure_resumes(world: SyntheticWorld, scorer: ResumeScorer, first_event: int, k: int = 10) -> RankingQuality:
    """Ranks the titles seen for the events of a world's log from one position on that resume one of them.

    Args:
      world: whose log to rank.
      scorer: what to rank by.
      first_event: as for `measure_ranking`.
      k: cut-off of both metrics.

    Raises:
      ValueError: if no event is left.
    """

    def ranks(user: int, past: _Past) -> NDArray[np.float64]:
        seen, last_taken = past.seen[past.resumed], past.last_taken[past.resumed]
        scores = scorer(past.timestamps[past.resumed], last_taken)
        return _mean_ranks(np.where(seen, scores, -np.inf), past.targets[past.resumed])

    return _measure(world, ranks, first_event, k)


@dataclasses.dataclass(frozen=True)
class _Past:
    """What one user had done before each of `n` events.

    Attributes:
      timestamps: `[n]`, of the events.
      targets: `[n]`, their titles.
      last_taken: `[n, items]`, when each title was last taken strictly before; `NEVER` if never.
    """

    timestamps: NDArray[np.int64]
    targets: NDArray[np.int64]
    last_taken: NDArray[np.int64]

    @property
    def seen(self) -> NDArray[np.bool_]:
        """The titles taken before, `[n, items]`."""
        return self.last_taken != NEVER

    @property
    def latest(self) -> NDArray[np.bool_]:
        """Those of them taken at the last instant before, `[n, items]`."""
        return self.seen & (self.last_taken == self.last_taken.max(axis=1, keepdims=True))

    @property
    def resumed(self) -> NDArray[np.bool_]:
        """Whether the event's title is one of them, `[n]`."""
        return np.take_along_axis(self.seen, self.targets[:, None], axis=1)[:, 0]


def _measure(
    world: SyntheticWorld, ranks_of: Callable[[int, _Past], NDArray[np.float64]], first_event: int, k: int
) -> RankingQuality:
    events = world.events
    if not 0 <= first_event < len(events):
        raise ValueError(f"first_event must lie in [0, {len(events)}); received {first_event}")
    by_user = np.argsort(events.users, kind="stable")
    positions_of = np.split(by_user, np.searchsorted(events.users[by_user], np.arange(1, world.users)))
    ranks = np.concatenate(
        [
            ranks_of(user, _past_of_one_user(world, positions_of[user], first_event))
            for user in np.unique(events.users[first_event:])
        ]
    )
    if not len(ranks):
        return RankingQuality(float("nan"), float("nan"))
    hits = ranks <= k
    return RankingQuality(ndcg=float((hits / np.log2(1 + ranks)).mean()), recall=float(hits.mean()))


def _past_of_one_user(world: SyntheticWorld, positions: NDArray[np.int64], first_event: int) -> _Past:
    """What one user had done before each of his events from `first_event` on."""
    own = world.events.take(positions)
    ranked = positions >= first_event
    times = own.timestamps[ranked]
    last_taken = np.full((len(times), world.items), NEVER)
    # In order of time, so that the latest of several events with one title stays.
    for time, item in zip(own.timestamps, own.items, strict=True):
        last_taken[time < times, item] = time
    return _Past(times, own.items[ranked], last_taken)


def _mean_ranks(scores: NDArray[np.float64], targets: NDArray[np.int64]) -> NDArray[np.float64]:
    target_scores = np.take_along_axis(scores, targets[:, None], axis=1)
    better = (scores > target_scores).sum(axis=1)
    equal = (scores == target_scores).sum(axis=1)
    return 1 + better + (equal - 1) / 2
