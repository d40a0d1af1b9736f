"""Who and what a synthetic world consists of: titles, people and the instants at which people come."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

GENRES = (
    "Action", "Animation", "Comedy", "Crime", "Documentary", "Drama", "Horror", "Musical", "Romance", "Sci-Fi",
    "Thriller", "Western",
)  # fmt: skip
EVENING_GENRES = ("Crime", "Horror", "Romance", "Thriller")
MORNING_GENRES = ("Animation", "Comedy", "Documentary", "Musical")

GENDERS = ("F", "M")
AGE_BANDS = ((15, 24), (25, 44), (45, 75))
"""First and last age of each band."""
GROUPS = tuple((gender, band) for gender in GENDERS for band in AGE_BANDS)
"""Whose members share their taste."""
OCCUPATIONS = ("educator", "engineer", "healthcare", "homemaker", "other", "retired", "student", "writer")

SECONDS_PER_DAY = 86_400

_ADJECTIVES = (
    "Amber", "Broken", "Crimson", "Distant", "Electric", "Forgotten", "Golden", "Hidden", "Invisible", "Jade", "Last",
    "Midnight", "Northern", "Paper", "Quiet", "Restless", "Silver", "Sleeping", "Stolen", "Velvet", "Wandering", "Wild",
)  # fmt: skip
_NOUNS = (
    "Atlas", "Bridge", "Carnival", "Daughter", "Empire", "Forest", "Garden", "Harbour", "Island", "Journey", "Kingdom",
    "Lantern", "Mirror", "Night", "Orchard", "Promise", "River", "Season", "Tower", "Valley", "Winter", "Witness",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """The titles, by index.

    Attributes:
      titles: names; those of a franchise are numbered.
      release_years: `[items]`.
      genres: `[items, len(GENRES)]`, whether a title is of a genre; one to three are true.
      successors: `[items]`, index of the sequel, or -1.
      popularity: `[items]`, logit that holds for everyone at any time.
      slopes: `[items]`, how a title's logit rises (or falls) over the calendar.
    """

    titles: list[str]
    release_years: NDArray[np.int64]
    genres: NDArray[np.bool_]
    successors: NDArray[np.int64]
    popularity: NDArray[np.float64]
    slopes: NDArray[np.float64]

    @functools.cached_property
    def genre_shares(self) -> NDArray[np.float64]:
        """`[items, len(GENRES)]`, of unit length, so that titles of many genres have no stronger effects."""
        return self.genres / np.sqrt(self.genres.sum(axis=1, keepdims=True))


@dataclasses.dataclass(frozen=True)
class People:
    """The users, by index.

    Attributes:
      ages: `[users]`, years.
      genders: of `GENDERS`.
      occupations: of `OCCUPATIONS`.
      groups: `[users]`, index into `GROUPS`.
    """

    ages: NDArray[np.int64]
    genders: list[str]
    occupations: list[str]
    groups: NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Events:
    """A log: user index, item index and timestamp in seconds, each `[n]`."""

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    timestamps: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of events."""
        return len(self.timestamps)

    def take(self, positions: NDArray[np.int64]) -> Events:
        """Returns the events at these positions."""
        return Events(self.users[positions], self.items[positions], self.timestamps[positions])

    def first(self, count: int) -> Events:
        """Returns the first `count` events."""
        return Events(self.users[:count], self.items[:count], self.timestamps[:count])


def make_ids(prefix: str, count: int) -> list[str]:
    """Returns `count` identifiers of equal length, such as u0001."""
    width = max(4, len(str(count)))
    return [f"{prefix}{number:0{width}d}" for number in range(1, count + 1)]


def draw_catalogue(generator: np.random.Generator, items: int) -> Catalogue:
    """Draws titles, about two thirds of which belong to a franchise of two to four.

    Position in the catalogue says nothing: the members of a franchise are scattered over it.
    """
    sizes: list[int] = []
    while sum(sizes) < items:
        sizes.append(min(int(generator.choice([1, 2, 3, 4], p=[0.55, 0.15, 0.15, 0.15])), items - sum(sizes)))
    franchises = np.repeat(np.arange(len(sizes)), sizes)
    parts = np.concatenate([np.arange(size) for size in sizes])
    genres = np.zeros((len(sizes), len(GENRES)), dtype=bool)
    for row in genres:
        row[generator.choice(len(GENRES), size=generator.integers(1, 4), replace=False)] = True
    popularity = generator.normal(0, 0.8, len(sizes))[franchises] + generator.normal(0, 0.4, items)
    slopes = generator.normal(size=items)
    release_years = generator.integers(1970, 2012, len(sizes))[franchises] + 3 * parts
    names = [_franchise_name(number) for number in generator.permutation(len(sizes))]
    titles = [
        names[franchise] + (f" {part + 1}" if part else "") for franchise, part in zip(franchises, parts, strict=True)
    ]

    has_sequel = np.append(franchises[1:] == franchises[:-1], False)
    order = generator.permutation(items)  # order[k] is the title, in franchise order, that comes k-th.
    position = np.argsort(order)
    successors = np.where(has_sequel, np.roll(position, -1), -1)
    return Catalogue(
        titles=[titles[title] for title in order],
        release_years=release_years[order],
        genres=genres[franchises[order]],
        successors=successors[order],
        popularity=popularity[order],
        slopes=slopes[order],
    )


def draw_people(generator: np.random.Generator, users: int) -> People:
    """Draws people; age bands and genders are equally likely."""
    groups = generator.integers(len(GROUPS), size=users)
    first, last = np.array([band for _, band in GROUPS])[groups].T
    occupations = generator.integers(len(OCCUPATIONS), size=users)
    return People(
        ages=generator.integers(first, last + 1),
        genders=[GROUPS[group][0] for group in groups],
        occupations=[OCCUPATIONS[number] for number in occupations],
        groups=groups,
    )


def draw_timestamps(
    generator: np.random.Generator, users: int, items: int, interactions: int, days: int
) -> list[NDArray[np.int64]]:
    """Draws when each user comes.

    A quarter of the users are there from the first day, the others arrive evenly until two days before the end, and
    whoever arrives late has fewer events. They come in sessions of about four events, mostly in the evening; a fifth of
    the events within a session happen at the same instant as the one before.

    Args:
      generator: source of randomness.
      users: number of users.
      items: titles there are. Where the sum allows it, nobody takes more than half of them.
      interactions: sum over all users; each has at least one.
      days: length of the log.

    Returns:
      Per user a sorted array of seconds since the start.
    """
    arrivals = np.where(generator.random(users) < 0.25, 0.0, generator.uniform(0, days - 2, users))
    activity = generator.lognormal(0, 0.6, users) * (days - arrivals)
    counts = _share_out(generator, interactions, activity, most=max(items // 2, -(-interactions // users)))
    timestamps = []
    for count, arrival in zip(counts, arrivals, strict=True):
        sessions = -(-count // 4)
        day = np.floor(generator.uniform(arrival, days, sessions))
        evening = generator.random(sessions) < 0.6
        hour = np.where(evening, generator.normal(20.5, 1.5, sessions), generator.uniform(6, 24, sessions)) % 24
        session = np.sort(generator.integers(sessions, size=count))
        gaps = generator.exponential(1800, count) * (generator.random(count) >= 0.2)
        elapsed = np.cumsum(gaps)
        since_session_began = elapsed - elapsed[np.searchsorted(session, session)]
        instants = day[session] * SECONDS_PER_DAY + hour[session] * 3600 + since_session_began
        timestamps.append(np.sort(np.minimum(instants.astype(np.int64), days * SECONDS_PER_DAY - 1)))
    return timestamps


def _share_out(
    generator: np.random.Generator, total: int, weights: NDArray[np.float64], most: int
) -> NDArray[np.int64]:
    """Shares `total` out in these proportions, at least 1 and at most `most` to each."""
    counts = np.ones(len(weights), dtype=np.int64)
    while (remaining := total - counts.sum()) > 0:
        open_weights = weights * (counts < most)
        counts = np.minimum(counts + generator.multinomial(remaining, open_weights / open_weights.sum()), most)
    return counts


def _franchise_name(number: int) -> str:
    """Writes a number in words: a noun, an adjective before it, and more nouns in between where these run out."""
    number, adjective = divmod(number, len(_ADJECTIVES))
    number, noun = divmod(number, len(_NOUNS))
    words = [_ADJECTIVES[adjective], _NOUNS[noun]]
    while number:
        number, noun = divmod(number - 1, len(_NOUNS))
        words.append(_NOUNS[noun])
    return " ".join(words)
