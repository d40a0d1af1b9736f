"""Multiplies an interaction log by randomised fractal expansion, a block of users at a time.

The expanded log is the Kronecker product of a small matrix of rates, a shrunken image of the log itself, with the log:
entry (i, j) of the rates says which share of the log is copied for the i-th copy of all users and the j-th copy of all
items. So activity, popularity and their heavy tails have the shape of the original at every size. Method: Belletti et
al., "Scalable Realistic Recommendation Datasets through Fractal Expansions" (2019), https://arxiv.org/abs/1901.08910.

Differently from there, items are not permuted within a block, so that their columns keep their meaning, and users are
permuted in all blocks but the strongest of their row, for the same reason. Events move by whole days, all of one user's
in a block together, so that sessions, hours and sequences stay.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

_SECONDS_PER_DAY = 86_400
_LARGEST_SHIFT_DAYS = 7
_SINGULAR_VALUES = 8
_NEGLIGIBLE = 1e-9
_LEAST_RATE = 1e-3
"""Before scaling, of the largest rate: no block is left out for sure."""


class EventBlock(NamedTuple):
    """Events of one copy of the users.

    Attributes:
      rows: int64, shape [events], numbers of the original events that were copied.
      users: int64, shape [events], the original users whose copies have the events.
      item_copies: int64, shape [events], which copy of the event's item it is.
      timestamps: int64, shape [events], seconds.
    """

    rows: np.ndarray
    users: np.ndarray
    item_copies: np.ndarray
    timestamps: np.ndarray


class FractalExpansion:
    """The plan of an expansion. The same arguments give the same events.

    Args:
      users: int64, shape [events], each event's user, from 0.
      items: int64, shape [events], each event's item, from 0.
      timestamps: int64, shape [events], seconds.
      interactions: about how many events to make; the number follows from independent draws, with a standard
        deviation of at most its root.
      item_copies: how many copies each item gets.
      seed: of the draws.

    Attributes:
      rates: float64, shape [copies of users, copies of items]: the probability that an event of the log is in a block.

    Raises:
      ValueError: if the log is too small to have a shape, or fewer events are asked for than it has.
    """

    def __init__(
        self,
        users: np.ndarray,
        items: np.ndarray,
        timestamps: np.ndarray,
        interactions: int,
        item_copies: int,
        seed: int,
    ) -> None:
        if interactions < len(users) or item_copies < 1:
            raise ValueError(
                f"expected at least the log's {len(users):,} interactions and 1 copy of the items; "
                f"received {interactions:,} and {item_copies}"
            )
        self._users, self._timestamps = users, timestamps
        self._seed = seed
        self._num_users = int(users.max()) + 1
        self._first_day_shift, self._last_day_shift = _day_shifts(users, timestamps)
        user_copies = math.ceil(interactions / len(users))
        if user_copies == item_copies == 1:
            self.rates = np.ones((1, 1))
            return
        image = shrink(scipy.sparse.csr_matrix((np.ones(len(users)), (users, items))), user_copies, item_copies)
        self.rates = scale_to_sum(np.maximum(image, _LEAST_RATE), interactions / len(users))

    def block(self, number: int) -> EventBlock:
        """Returns the events of the `number`-th copy of the users; by copy of the items, then as in the log."""
        rng = np.random.default_rng([self._seed, number])
        rates = self.rates[number]
        parts = []
        for copy, rate in enumerate(rates):
            rows = np.flatnonzero(rng.random(len(self._users)) < rate)
            originals = self._users[rows]
            names = np.arange(self._num_users) if copy == np.argmax(rates) else rng.permutation(self._num_users)
            days = rng.integers(self._first_day_shift, self._last_day_shift, endpoint=True)
            parts.append(
                EventBlock(
                    rows,
                    names[originals],
                    np.full(len(rows), copy),
                    self._timestamps[rows] + _SECONDS_PER_DAY * days[originals],
                )
            )
        return EventBlock(*map(np.concatenate, zip(*parts, strict=True)))


def shrink(matrix: scipy.sparse.csr_matrix, rows: int, columns: int) -> np.ndarray:
    """Returns an image of a matrix in another size that keeps its spectrum, with entries from 0 to 1.

    The leading singular vectors, rows and columns in order of their sums, are resampled to the size wanted.

    Args:
      matrix: shape [m, n], at least 2 x 2.
      rows: rows of the image, at least 1; may be more than m.
      columns: columns of the image, at least 1.

    Returns:
      float64, shape [rows, columns], with the largest entry 1.

    Raises:
      ValueError: if the matrix is smaller than 2 x 2.
    """
    if min(matrix.shape) < 2:
        raise ValueError(f"expected at least 2 users and 2 items; received {matrix.shape[0]} and {matrix.shape[1]}")
    count = min(_SINGULAR_VALUES, min(matrix.shape) - 1)
    start = np.ones(min(matrix.shape))  # The iteration would start from a random vector.
    left, values, right = scipy.sparse.linalg.svds(matrix.astype(float), k=count, v0=start)
    left = left[np.argsort(-np.asarray(matrix.sum(axis=1)).ravel(), kind="stable")]
    right = right[:, np.argsort(-np.asarray(matrix.sum(axis=0)).ravel(), kind="stable")]
    image = np.abs(_resample(left, rows) @ np.diag(values) @ _resample(right.T, columns).T)
    if image.max() < _NEGLIGIBLE:  # Singular vectors of mean zero, as of a matrix without a larger and a smaller part.
        return np.ones((rows, columns))
    return image / image.max()


def scale_to_sum(image: np.ndarray, total: float) -> np.ndarray:
    """Scales entries from 0 to 1, which stay at most 1, such that they add up to a total.

    Raises:
      ValueError: if even ones everywhere would not add up to it, or too few entries are above 0.
    """
    if total > np.count_nonzero(image):
        raise ValueError(f"{np.count_nonzero(image)} shares cannot add up to {total:g}")
    low, high = 0.0, 1.0 / image[image > 0].min()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(middle * image, 1).sum() < total else (low, middle)
    return np.minimum(high * image, 1)


def _resample(vectors: np.ndarray, count: int) -> np.ndarray:
    """Returns `count` rows in place of those of a matrix: means of equal parts, or interpolated if it has fewer."""
    edges = np.linspace(0, len(vectors), count + 1)
    sums = np.concatenate([np.zeros((1, vectors.shape[1])), np.cumsum(vectors, axis=0)])
    at = np.stack([np.interp(edges, np.arange(len(sums)), column) for column in sums.T], axis=1)
    return np.diff(at, axis=0) / np.diff(edges)[:, None]


def _day_shifts(users: np.ndarray, timestamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns by how many days each user's events can move at least and at most, without leaving the log's times."""
    first = np.full(int(users.max()) + 1, timestamps.max())
    last = np.full(len(first), timestamps.min())
    np.minimum.at(first, users, timestamps)
    np.maximum.at(last, users, timestamps)
    earliest = -np.minimum((first - timestamps.min()) // _SECONDS_PER_DAY, _LARGEST_SHIFT_DAYS)
    latest = np.minimum((timestamps.max() - last) // _SECONDS_PER_DAY, _LARGEST_SHIFT_DAYS)
    return earliest, latest
