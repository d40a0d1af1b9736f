"""A synthetic world that interactions are drawn from, with effects planted for models and tests to find.

Someone who comes back at time t takes title i with probability softmax over the titles not yet seen of

    popularity[i] + group[user, i] + hour[t, i] + trend[t, i] + sequence[i, titles of the visit before t]

Where there are resumes, someone with a past first decides, with probability `resume_share`, to go back to a title
already taken: to title i with probability softmax over those titles of

    -log(1 + hours since i was last taken),

the shorter ago, the likelier: one of an hour ago is 1.5 times as likely as one of two hours ago. So the world knows the
true probabilities, and with them the best ranking that any model can reach.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.datasets.folder import Table
from pipeline.datasets.synthetic_entities import (
    EVENING_GENRES,
    GENRES,
    GROUPS,
    MORNING_GENRES,
    SECONDS_PER_DAY,
    Catalogue,
    Events,
    People,
    draw_catalogue,
    draw_people,
    draw_timestamps,
    make_ids,
)

EFFECTS = frozenset({"group", "hour", "trend", "sequence"})
"""`group`: genre preferences by gender and age band. `hour`: genres have their time of day. `trend`: titles rise and
fall over the calendar. `sequence`: whoever has just seen a title wants its sequel."""

START = 1_704_067_200
"""First instant of every world: 1 January 2024, UTC, in seconds."""

NEVER = -1
"""Stands for the time at which a title was last taken, if it never was."""

DEVICES = ("desktop", "phone", "tablet", "tv")

_PEAK_HOUR = 21.0
_GROUP_SCALE, _HOUR_SCALE, _TREND_SCALE, _SEQUENCE_BOOST = 1.1, 1.6, 1.2, 4.5
_STREAMS = ("catalogue", "people", "schedule", "preferences", "choices", "feedback", "resumes")
_SECONDS_PER_HOUR = 3_600


@dataclasses.dataclass(frozen=True)
class SyntheticWorld:
    """A world made from its sizes and a seed; the same arguments make the same world.

    Raises:
      ValueError: on creation, naming the field, the value received and what was expected.
    """

    users: int = 400
    """People; each has at least one interaction."""
    items: int = 300
    """Titles of the catalogue."""
    interactions: int = 20_000
    """Events. Nobody takes a title twice, unless there are resumes."""
    seed: int = 7
    """Seed of everything that is drawn."""
    days: int = 180
    """Length of the log. People arrive until two days before its end."""
    effects: frozenset[str] = EFFECTS
    """Effects in force. A world with fewer is otherwise the same: same titles, people, times and preferences."""
    resume_share: float = 0.0
    """Probability that an event of someone with a past resumes a title already taken, in [0, 1)."""

    def __post_init__(self) -> None:
        """Refuses sizes that no log can have."""
        for name, lowest in (("users", 1), ("items", 2), ("days", 3), ("seed", 0)):
            if getattr(self, name) < lowest:
                raise ValueError(f"{name} must be at least {lowest}; received {getattr(self, name)}")
        if not self.users <= self.interactions <= self.users * self.items:
            raise ValueError(
                f"interactions must lie between users ({self.users}) and users x items "
                f"({self.users * self.items}), since nobody takes a title twice; received {self.interactions}"
            )
        if not 0 <= self.resume_share < 1:
            raise ValueError(f"resume_share must lie in [0, 1); received {self.resume_share}")
        if unknown := sorted(self.effects - EFFECTS):
            raise ValueError(f"effects must be some of {sorted(EFFECTS)}; received {unknown}")

    def without(self, effect: str) -> SyntheticWorld:
        """Returns the same world with one effect less: what a model that is blind to it can know at best."""
        return dataclasses.replace(self, effects=self.effects - {effect})

    @functools.cached_property
    def user_ids(self) -> list[str]:
        """Identifiers, by index."""
        return make_ids("u", self.users)

    @functools.cached_property
    def item_ids(self) -> list[str]:
        """Identifiers, by index."""
        return make_ids("i", self.items)

    @functools.cached_property
    def catalogue(self) -> Catalogue:
        """The titles."""
        return draw_catalogue(self._generator("catalogue"), self.items)

    @functools.cached_property
    def people(self) -> People:
        """The users."""
        return draw_people(self._generator("people"), self.users)

    @functools.cached_property
    def group_preferences(self) -> NDArray[np.float64]:
        """What each group makes of each genre: `[len(GROUPS), len(GENRES)]`, standard normal."""
        return self._generator("preferences").normal(size=(len(GROUPS), len(GENRES)))

    @functools.cached_property
    def events(self) -> Events:
        """The log, in order of time."""
        schedule = draw_timestamps(self._generator("schedule"), self.users, self.items, self.interactions, self.days)
        timestamps = [START + seconds for seconds in schedule]
        chosen = [self._choose(user, times) for user, times in enumerate(timestamps)]
        users = np.repeat(np.arange(self.users), [len(times) for times in timestamps])
        events = Events(users, np.concatenate(chosen), np.concatenate(timestamps))
        return events.take(np.lexsort((events.items, events.users, events.timestamps)))

    def generate(self) -> dict[str, Table]:
        """Returns the tables `interactions` (in order of time), `items` and `users`."""
        events, catalogue, people = self.events, self.catalogue, self.people
        generator = self._generator("feedback")
        tastes = self.group_preferences[people.groups[events.users]]
        affinity = (tastes * catalogue.genre_shares[events.items]).sum(axis=1)
        ratings = np.clip(np.rint(3.4 + 0.7 * affinity + generator.normal(0, 0.7, len(events))), 1, 5)
        # Television in the evening, telephones by day: a context that tells of the hour and of nothing else.
        evening = (1 + self._hour_waves(events.timestamps)) / 2
        shares = np.stack([0.3 * (1 - evening), 0.5 * (1 - evening), np.full(len(events), 0.2), 0.8 * evening], axis=1)
        devices = (generator.random((len(events), 1)) > np.cumsum(shares, axis=1)).sum(axis=1)
        return {
            "interactions": {
                "user_id": [self.user_ids[user] for user in events.users],
                "item_id": [self.item_ids[item] for item in events.items],
                "timestamp": events.timestamps.tolist(),
                "rating": ratings.astype(int).tolist(),
                "device": [DEVICES[min(device, len(DEVICES) - 1)] for device in devices],
            },
            "items": {
                "item_id": self.item_ids,
                "title": catalogue.titles,
                "release_year": catalogue.release_years.tolist(),
                "genres": ["|".join(np.take(GENRES, np.flatnonzero(row))) for row in catalogue.genres],
            },
            "users": {
                "user_id": self.user_ids,
                "age": people.ages.tolist(),
                "gender": people.genders,
                "occupation": people.occupations,
            },
        }

    def log_probabilities(
        self,
        user: int,
        timestamps: NDArray[np.int64],
        seen: NDArray[np.bool_],
        latest: NDArray[np.bool_],
    ) -> NDArray[np.float64]:
        """Returns the true log-probability of every title at `n` instants of one user, given that it is none seen.

        Of several titles taken at one instant these are the probabilities of the first; their order, and so the best
        ranking, holds for each of them.

        Args:
          user: index of the user.
          timestamps: `[n]`, seconds.
          seen: `[n, items]`, the titles taken strictly before.
          latest: `[n, items]`, those of them taken at the last instant before.

        Returns:
          `[n, items]`; minus infinity for titles seen.
        """
        logits = self._static_logits(user, timestamps) + self._sequence_logits(latest)
        return _log_softmax(np.where(seen, -np.inf, logits))

    def resume_log_probabilities(
        self, timestamps: NDArray[np.int64], last_taken: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Returns the true log-probability of every title at `n` instants of one user, given that one is resumed.

        Of several titles resumed at one instant these are the probabilities of the first.

        Args:
          timestamps: `[n]`, seconds.
          last_taken: `[n, items]`, when each title was last taken strictly before, in seconds; `NEVER` if never. Each
            row must hold a title taken.

        Returns:
          `[n, items]`; minus infinity for titles not taken.
        """
        return _log_softmax(_resume_logits(timestamps, last_taken))

    def event_log_probabilities(
        self, user_id: str, timestamp: int, history: Sequence[tuple[str, int]]
    ) -> Mapping[str, float]:
        """Returns the true log-probability of every title not yet seen.

        Args:
          user_id: who comes back.
          timestamp: when, in seconds.
          history: earlier events as pairs of item_id and timestamp; those not strictly before are left out.
        """
        past = [(self.item_ids.index(item_id), time) for item_id, time in history if time < timestamp]
        last = max((time for _, time in past), default=None)
        seen, latest = np.zeros((2, 1, self.items), dtype=bool)
        seen[0, [item for item, _ in past]] = True
        latest[0, [item for item, time in past if time == last]] = True
        values = self.log_probabilities(self.user_ids.index(user_id), np.array([timestamp]), seen, latest)[0]
        return {self.item_ids[item]: float(values[item]) for item in np.flatnonzero(~seen[0])}

    def _choose(self, user: int, timestamps: NDArray[np.int64]) -> NDArray[np.int64]:
        """Draws the titles of one user, whose timestamps are sorted.

        The m titles of one instant are the m largest logits after adding Gumbel noise, which is sampling from the
        softmax without replacement (Kool, van Hoof and Welling, "Stochastic Beams and Where to Find Them", 2019).
        """
        instants, counts = np.unique(timestamps, return_counts=True)
        generator = np.random.default_rng([self.seed, _STREAMS.index("choices"), user])
        noisy = self._static_logits(user, instants) + generator.gumbel(size=(len(instants), self.items))
        boost = _SEQUENCE_BOOST * ("sequence" in self.effects)
        resumes = np.random.default_rng([self.seed, _STREAMS.index("resumes"), user])
        chosen: list[NDArray[np.int64]] = []
        last_taken = np.full(self.items, NEVER)
        for instant, row, count in zip(instants, noisy, counts, strict=True):
            if chosen:
                successors = self.catalogue.successors[chosen[-1]]
                row[successors[successors >= 0]] += boost
            seen = last_taken != NEVER
            row[seen] = -np.inf
            resumed = self._resume(resumes, instant, count, last_taken)
            fresh = count - len(resumed)
            taken = np.concatenate([resumed, np.argpartition(-row, max(fresh - 1, 0))[:fresh]])
            last_taken[taken] = instant
            chosen.append(taken)
        return np.concatenate(chosen)

    def _resume(
        self, generator: np.random.Generator, instant: int, count: int, last_taken: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Draws which titles are resumed at an instant of `count` events; none where nothing was taken before."""
        past = int((last_taken != NEVER).sum())
        if not (past and self.resume_share):
            return np.zeros(0, np.int64)
        resumed = min(int(generator.binomial(count, self.resume_share)), past)
        logits = _resume_logits(np.array([instant]), last_taken[np.newaxis])[0] + generator.gumbel(size=self.items)
        return np.argsort(-logits)[:resumed]

    def _static_logits(self, user: int, timestamps: NDArray[np.int64]) -> NDArray[np.float64]:
        """Everything that does not depend on the history, `[n, items]`."""
        catalogue = self.catalogue
        logits = np.tile(catalogue.popularity, (len(timestamps), 1))
        if "group" in self.effects:
            logits += _GROUP_SCALE * catalogue.genre_shares @ self.group_preferences[self.people.groups[user]]
        if "hour" in self.effects:
            sides: NDArray[np.float64] = np.isin(GENRES, EVENING_GENRES).astype(float) - np.isin(GENRES, MORNING_GENRES)
            logits += _HOUR_SCALE * np.outer(self._hour_waves(timestamps), catalogue.genre_shares @ sides)
        if "trend" in self.effects:
            progress = 2 * (timestamps - START) / (self.days * SECONDS_PER_DAY) - 1
            logits += _TREND_SCALE * np.outer(progress, catalogue.slopes)
        return logits

    def _sequence_logits(self, latest: NDArray[np.bool_]) -> NDArray[np.float64]:
        logits = np.zeros(latest.shape)
        if "sequence" in self.effects:
            rows, items = np.nonzero(latest)
            successors = self.catalogue.successors[items]
            logits[rows[successors >= 0], successors[successors >= 0]] = _SEQUENCE_BOOST
        return logits

    @staticmethod
    def _hour_waves(timestamps: NDArray[np.int64]) -> NDArray[np.float64]:
        """1 at nine in the evening, -1 at nine in the morning, `[n]`."""
        return np.cos(2 * np.pi * (timestamps % SECONDS_PER_DAY / 3600 - _PEAK_HOUR) / 24)

    def _generator(self, stream: str) -> np.random.Generator:
        """A generator of its own for each purpose, so that switching an effect off leaves the rest as it is."""
        return np.random.default_rng([self.seed, _STREAMS.index(stream)])


def _resume_logits(timestamps: NDArray[np.int64], last_taken: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns how titles compare that may be resumed, `[n, items]`; minus infinity for those never taken."""
    elapsed = np.maximum(timestamps[:, np.newaxis] - last_taken, 0) / _SECONDS_PER_HOUR
    return np.where(last_taken == NEVER, -np.inf, -np.log1p(elapsed))


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = logits.max(axis=1, keepdims=True)
    return logits - largest - np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))
