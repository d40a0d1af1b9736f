r"""What a sample differs by on its own.

The requests of one user resemble each other, so many requests of few users say less than they seem to. The users are
what is drawn anew: a bootstrap over users gives samples like the one at hand, and the 99 % quantile of their distances
from it stands for the sample's own distance from what it was drawn from (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 8).

With it, a limit says that the populations differ by more than is tolerated. $L_\infty$ and the square root of the
Jensen-Shannon divergence are metrics (Endres and Schindelin, A new metric for probability distributions, IEEE
Transactions on Information Theory 49(7), 2003), so by the triangle inequality a distance of samples above tolerance
plus chance (of the roots, for Jensen-Shannon) means a distance of populations above tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

L_INFINITY = "L∞"
JENSEN_SHANNON = "Jensen-Shannon"

_REPLICATES = 500
_QUANTILE = 0.99
_MOST_CELLS = 20_000_000
"""Largest matrix of users by categories; of more categories the most frequent are taken."""


def chance_distance(
    users: NDArray[np.int64], categories: NDArray[np.int64], measure: str, generator: np.random.Generator
) -> float:
    """Returns the 99 % quantile of what a sample of these users is from what it was drawn from.

    Args:
      users: user of each value, `[n]`, from 0.
      categories: category of each value, `[n]`, from 0: a text, or a bucket of numbers.
      measure: `L∞` or `Jensen-Shannon`.
      generator: source of the bootstrap.
    """
    if not len(users):
        return 0.0
    _, users = np.unique(users, return_inverse=True)
    _, categories, sizes = np.unique(categories, return_inverse=True, return_counts=True)
    user_count = int(users.max()) + 1
    most = max(1, _MOST_CELLS // user_count)
    distance = _DISTANCES[measure]
    if len(sizes) == 1:  # Drawn anew it stays as it is; yet others may be this frequent and not have come.
        unseen = 1 - (1 - _QUANTILE) ** (1 / user_count)
        return float(distance(np.array([[1 - unseen, unseen]]), np.array([1.0, 0.0]))[0])
    kept = np.argsort(-sizes, kind="stable")[:most]
    position = np.full(len(sizes), len(kept))  # All others count as one more category.
    position[kept] = np.arange(len(kept))
    counts = np.zeros((user_count, len(kept) + 1))
    np.add.at(counts, (users, position[categories]), 1.0)
    weights = generator.multinomial(user_count, np.full(user_count, 1 / user_count), size=_REPLICATES)
    drawn = weights @ counts
    drawn /= drawn.sum(axis=1, keepdims=True)
    whole = counts.sum(axis=0) / counts.sum()
    if measure == L_INFINITY:  # The largest difference of one category; all the others together are none.
        drawn, whole = drawn[:, : len(kept)], whole[: len(kept)]
    return float(np.quantile(distance(drawn, whole), _QUANTILE))


def limit(tolerated: float, chance: float, measure: str) -> float:
    """Returns what a distance must exceed to tell of a skew beyond what is tolerated."""
    if measure == JENSEN_SHANNON:
        return min((math.sqrt(tolerated) + math.sqrt(chance)) ** 2, 1.0)
    return min(tolerated + chance, 1.0)


def _l_infinity(drawn: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.abs(drawn - whole).max(axis=1)


def _jensen_shannon(drawn: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the divergence of each row of `drawn` from `whole`, in bits."""
    middle = (drawn + whole) / 2
    total = np.zeros(len(drawn))
    for side in (drawn, np.broadcast_to(whole, drawn.shape)):
        ratio = np.divide(side, middle, out=np.ones_like(middle), where=side > 0)
        total += 0.5 * (side * np.log2(ratio)).sum(axis=1)
    return np.maximum(total, 0.0)


_DISTANCES: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    L_INFINITY: _l_infinity,
    JENSEN_SHANNON: _jensen_shannon,
}
