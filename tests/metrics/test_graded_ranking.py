"""AUC pairs and NDCG with ties against looking at every pair and every order."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.metrics.graded_ranking import ordered_pairs, pairs_within_groups, query_ndcg

scores = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0])
titles = st.lists(st.tuples(st.integers(0, 3), scores, st.booleans()), max_size=30)


def _win(liked: float, other: float) -> float:
    return 1.0 if liked > other else 0.5 if liked == other else 0.0


@given(titles)
def test_pairs_within_groups_equal_a_count_of_every_pair(cases):
    groups, values, liked = (np.array([case[part] for case in cases], kind) for part, kind in enumerate("lf?"))
    pairs = pairs_within_groups(groups, values, liked, 4)
    for group in range(4):
        own = [(score, like) for other, score, like in cases if other == group]
        above, below = ([score for score, like in own if like is kind] for kind in (True, False))
        assert (pairs.liked[group], pairs.others[group]) == (len(above), len(below))
        assert pairs.ordered[group] == sum(_win(*pair) for pair in itertools.product(above, below))


@given(titles)
def test_ordered_pairs_equal_a_count_of_every_pair(cases):
    values, liked = np.array([case[1] for case in cases], float), np.array([case[2] for case in cases], bool)
    expected = [
        sum(
            _win(score, other) if like else _win(other, score)
            for _, other, other_like in cases
            if other_like is not like
        )
        for _, score, like in cases
    ]
    np.testing.assert_array_equal(ordered_pairs(values, liked), expected)


def _expected_ndcg(query: list[tuple[float, float]], k: int) -> float:
    """The mean over all orders that the scores allow."""

    def dcg(gains):
        return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains[:k]))

    best = dcg(sorted((gain for _, gain in query), reverse=True))
    if len(query) < 2 or best == 0:
        return math.nan
    orders = [
        order
        for order in itertools.permutations(query)
        if all(first[0] >= second[0] for first, second in itertools.pairwise(order))
    ]
    return float(np.mean([dcg([gain for _, gain in order]) for order in orders])) / best


@given(
    st.lists(st.lists(st.tuples(scores, st.sampled_from([0.0, 1.0, 3.5, 5.0])), max_size=5), min_size=1, max_size=4),
    st.integers(1, 4),
    st.randoms(use_true_random=False),
)
def test_ndcg_is_the_mean_over_all_orders_of_tied_titles(queries, k, random):
    rows = [(number, *title) for number, query in enumerate(queries) for title in query]
    random.shuffle(rows)
    numbers, values, gains = (np.array([row[part] for row in rows], kind) for part, kind in enumerate("lff"))
    expected = [_expected_ndcg(query, k) for query in queries]
    np.testing.assert_allclose(query_ndcg(numbers, values, gains, k, len(queries)), expected, rtol=1e-6)


def test_known_ndcg():
    ndcg = query_ndcg(np.zeros(3, int), np.array([3.0, 2.0, 1.0]), np.array([1.0, 5.0, 3.0]), 10, 1)
    ideal = 5 + 3 / math.log2(3) + 1 / 2
    assert ndcg[0] == pytest.approx((1 + 5 / math.log2(3) + 3 / 2) / ideal)
