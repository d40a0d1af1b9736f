r"""Rankings of titles with known feedback: exact AUC, and NDCG with graded gains. Ties never depend on order or chance.

AUC is the probability that a liked title scores above one that is not, a tie counting one half. With $U$ the number of
such pairs in the right order, $P$ liked titles and $N$ others, $AUC = U / (P N)$.

NDCG of one query: titles with equal scores share the mean discount of the places that they span, which is the expected
value over all orders of them.

$$ DCG@K = \sum_i g_i\, \bar d_i, \qquad d(place) = \frac{[place \le K]}{\log_2(1 + place)},
   \qquad NDCG@K = DCG@K / \max DCG@K $$

References:
  Hanley & McNeil, The meaning and use of the area under a ROC curve, Radiology 143(1), 1982.
  Järvelin & Kekäläinen, Cumulated gain-based evaluation of IR techniques, ACM TOIS 20(4), 2002.
  McSherry & Najork, Computing information retrieval performance measures efficiently in the presence of tied scores,
  ECIR 2008.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of a liked title and another within each of G groups.

    Attributes:
      ordered: those in the right order, ties counting one half, float64 `[G]`.
      liked: liked titles, float64 `[G]`.
      others: other titles, float64 `[G]`.
    """

    ordered: NDArray[np.float64]
    liked: NDArray[np.float64]
    others: NDArray[np.float64]


def pairs_within_groups(
    groups: NDArray[np.int64], scores: NDArray[np.floating], liked: NDArray[np.bool_], size: int
) -> Pairs:
    """Counts the pairs within each group.

    Args:
      groups: group of each title, `[n]`, from 0 to `size` - 1.
      scores: `[n]`, no NaN.
      liked: `[n]`.
      size: number of groups G.
    """
    order = np.lexsort((scores, groups))
    groups, scores, liked = groups[order], scores[order], liked[order]
    starts = _starts(groups)
    places = np.arange(len(groups)) - np.repeat(starts, np.diff(np.append(starts, len(groups))))
    runs = _starts(groups, scores)
    lengths = np.diff(np.append(runs, len(groups)))
    mean_places = np.repeat(places[runs] + (lengths - 1) / 2, lengths)
    num_liked = np.bincount(groups, weights=liked, minlength=size).astype(np.float64)
    # Mann-Whitney: places among all, less the places among one another.
    ordered = (
        np.bincount(groups, weights=mean_places * liked, minlength=size).astype(np.float64)
        - num_liked * (num_liked - 1) / 2
    )
    return Pairs(ordered, num_liked, np.bincount(groups, minlength=size) - num_liked)


def ordered_pairs(scores: NDArray[np.floating], liked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Returns, for each title, how many titles of the other kind it is in the right order with; ties count one half.

    Args:
      scores: `[n]`, no NaN.
      liked: `[n]`.

    Returns:
      float64 `[n]`: for a liked title the others below it, for another one the liked titles above it.
    """
    above, below = np.sort(scores[liked]), np.sort(scores[~liked])

    def mean_position(sorted_scores: NDArray[np.floating]) -> NDArray[np.float64]:
        sides = (np.searchsorted(sorted_scores, scores, "left"), np.searchsorted(sorted_scores, scores, "right"))
        return (sides[0] + sides[1]) / 2

    return np.where(liked, mean_position(below), len(above) - mean_position(above))


def query_ndcg(
    queries: NDArray[np.int64], scores: NDArray[np.floating], gains: NDArray[np.floating], k: int, size: int
) -> NDArray[np.float64]:
    """Returns NDCG@k of each query.

    Args:
      queries: query of each title, `[n]`, from 0 to `size` - 1.
      scores: `[n]`, no NaN.
      gains: `[n]`, at least 0.
      k: cut-off.
      size: number of queries Q.

    Returns:
      float64 `[Q]`; NaN for queries with fewer than two titles, which cannot be ranked, or without any gain.
    """
    # Sum of the first j discounts, for j from 0 to k.
    discounts = np.concatenate([[0.0], np.cumsum(1 / np.log2(2 + np.arange(k)))])

    def cumulated_gain(keys: NDArray[np.floating]) -> NDArray[np.float64]:
        order = np.lexsort((-keys, queries))
        sorted_queries = queries[order]
        starts = _starts(sorted_queries)
        places = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
        runs = _starts(sorted_queries, keys[order])
        lengths = np.diff(np.append(runs, len(order)))
        first = places[runs]
        mean_discounts = (discounts[np.minimum(first + lengths, k)] - discounts[np.minimum(first, k)]) / lengths
        weights = gains[order] * np.repeat(mean_discounts, lengths)
        return np.bincount(sorted_queries, weights=weights, minlength=size).astype(np.float64)

    best = cumulated_gain(gains)
    possible = (best > 0) & (np.bincount(queries, minlength=size) > 1)
    return np.divide(cumulated_gain(scores), best, out=np.full(size, np.nan), where=possible)


def _starts(*keys: NDArray[np.generic]) -> NDArray[np.int64]:
    """Returns where the runs of rows with equal keys begin, in sorted keys."""
    changes = np.zeros(len(keys[0]), bool)
    changes[:1] = True
    for key in keys:
        changes[1:] |= key[1:] != key[:-1]
    return np.flatnonzero(changes)
