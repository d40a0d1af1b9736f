"""Masks, mean ranks and NDCG in the graph against NumPy."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from modules import ranking

sizes = st.tuples(st.integers(1, 4), st.integers(1, 7))


@st.composite
def rankings(draw):
    """Few distinct scores, so that most targets are tied; targets from -1 (unknown) on."""
    batch, items = draw(sizes)

    def table(values):
        row = st.lists(values, min_size=items, max_size=items)
        return np.array(draw(st.lists(row, min_size=batch, max_size=batch)))

    scores = table(st.sampled_from([-1e9, -1.5, 0.0, 0.25, 3.0])).astype(np.float32)
    targets = draw(st.lists(st.integers(-1, items - 1), min_size=batch, max_size=batch))
    return scores, table(st.booleans()), np.array(targets, np.int64)


def _mean_rank(scores, excluded, target):
    if target < 0 or excluded[target]:
        return math.inf
    candidates = np.delete(scores, np.flatnonzero(excluded))
    in_order = np.sort(candidates)[::-1]
    return 1 + np.flatnonzero(in_order == scores[target]).mean()


@given(rankings())
def test_mean_rank_is_the_mean_position_among_equals(case):
    scores, excluded, targets = case
    expected = [_mean_rank(*query) for query in zip(scores, excluded, targets, strict=True)]
    np.testing.assert_allclose(ranking.mean_rank(*map(tf.constant, (scores, excluded, targets))), expected)


def test_scores_of_minus_infinity_are_ranked_last_but_one_another():
    scores = tf.constant([[-math.inf, 1.0, -math.inf, 0.0]])
    nothing = tf.zeros([1, 4], tf.bool)
    assert ranking.mean_rank(scores, nothing, tf.constant([2], tf.int64)).numpy().tolist() == [3.5]


@given(st.lists(st.lists(st.integers(-3, 9), max_size=6), min_size=1, max_size=5), st.integers(1, 7))
def test_rows_mask_marks_the_rows_inside_the_catalogue(rows, num_items):
    expected = np.array([[item in row for item in range(num_items)] for row in rows])
    ragged = tf.ragged.constant(rows, dtype=tf.int64, ragged_rank=1)
    np.testing.assert_array_equal(ranking.rows_mask(ragged, num_items), expected)


@given(st.lists(st.one_of(st.integers(2, 60).map(lambda doubled: doubled / 2), st.just(math.inf)), min_size=1))
def test_ndcg_discounts_by_the_logarithm_of_the_rank(ranks):
    expected = [1 / math.log2(1 + rank) if rank <= 10 else 0.0 for rank in ranks]
    np.testing.assert_allclose(ranking.ndcg_at(tf.constant(ranks, tf.float32), 10), expected, rtol=1e-6)


@pytest.mark.parametrize(("rank", "gain"), [(1.0, 1.0), (3.0, 0.5), (10.5, 0.0), (math.inf, 0.0)])
def test_ndcg_of_known_ranks(rank, gain):
    assert ranking.ndcg_at(tf.constant([rank]), 10).numpy() == pytest.approx([gain], abs=1e-6)


@given(st.lists(st.lists(st.integers(-3, 9), max_size=6), min_size=1, max_size=5), st.integers(1, 7))
def test_hidden_rows_are_those_of_the_mask(rows, num_items):
    scores = np.arange(len(rows) * num_items, dtype=np.float32).reshape(len(rows), num_items)
    ragged = tf.ragged.constant(rows, dtype=tf.int64, ragged_rank=1)
    expected = np.where(ranking.rows_mask(ragged, num_items).numpy(), -np.inf, scores)
    np.testing.assert_array_equal(ranking.hide_rows(tf.constant(scores), ragged), expected)


@pytest.mark.parametrize("num_items", [7, 16_383, 16_384, 16_447, 20_000])
@pytest.mark.parametrize("distinct", [2, 40, 10**6])
def test_top_k_is_that_of_a_stable_sort(num_items, distinct):
    random = np.random.default_rng(num_items + distinct)
    scores = random.integers(0, distinct, (3, num_items)).astype(np.float32)
    scores[1, random.permutation(num_items)[: num_items - 3]] = -np.inf  # Three titles are left.
    best, rows = ranking.top_k(tf.constant(scores), 5)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, expected, axis=1))


@given(
    st.lists(st.lists(st.integers(-1, 9), max_size=6), min_size=1, max_size=5), st.lists(st.integers(-1, 9), min_size=1)
)
def test_contains_is_membership(rows, wanted):
    ragged = tf.ragged.constant(rows, dtype=tf.int64, ragged_rank=1)
    expected = [[row in known for row in wanted] for known in rows]
    np.testing.assert_array_equal(ranking.contains(ragged, tf.constant([wanted] * len(rows), tf.int64)), expected)
