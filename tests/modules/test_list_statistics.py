"""What is said of whole lists, against plain Python."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from modules.models.list_statistics import LIST_LENGTH, ListStatistics

TITLES = 16
GENRES = 4
title = st.lists(st.integers(0, GENRES), min_size=3, max_size=3)
places = st.permutations(range(TITLES)).flatmap(
    lambda order: st.integers(0, 13).map(lambda size: [*order[:size], *[TITLES] * (13 - size)])
)
users = st.lists(st.tuples(places, st.sets(st.integers(0, TITLES - 1))), min_size=1, max_size=4)


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values) if values else math.nan


def _distribution(titles, genres) -> list[float]:
    """Share of each genre, from 1; each title has one unit to share."""
    weights = [0.0] * GENRES
    for own in (genres[title] for title in titles):
        for genre in own:
            weights[genre - 1] += 1 / len(own)
    return [weight / sum(weights) for weight in weights] if sum(weights) else [math.nan] * GENRES


def _reference(order, seen, counts, genres) -> dict[str, float]:
    chosen = [row for row in order[:LIST_LENGTH] if row < TITLES]
    total = sum(counts)
    pairs = itertools.combinations([genres[row] for row in chosen if genres[row]], 2)
    wanted, given_ = _distribution(seen, genres), _distribution(chosen, genres)
    divergence = sum(
        p * math.log(p / (0.99 * q + 0.01 * p)) for p, q in zip(wanted, given_, strict=True) if p or math.isnan(q)
    )
    return {
        "list_novelty": _mean(-math.log2((counts[row] + 1) / (total + TITLES)) for row in chosen),
        "list_popularity": _mean(counts[row] / max(total, 1) for row in chosen),
        "history_popularity": _mean(counts[row] / max(total, 1) for row in seen),
        "list_genre_diversity": _mean(1 - len(one & other) / len(one | other) for one, other in pairs),
        "genre_divergence": divergence,
    }


def _compute(cases, counts, genre_ids):
    statistics = ListStatistics(np.array(counts), None if genre_ids is None else np.array(genre_ids))
    seen = np.array([[row in own for row in range(TITLES)] for _, own in cases])
    computed = statistics.compute(tf.constant([order for order, _ in cases], tf.int32), tf.constant(seen))
    return {name: value.numpy() for name, value in computed.items()}


@given(
    users,
    st.lists(st.integers(0, 50), min_size=TITLES, max_size=TITLES),
    st.lists(title, min_size=TITLES, max_size=TITLES),
)
def test_equals_plain_python(cases, counts, genre_ids):
    genres = [{genre for genre in own if genre} for own in genre_ids]
    computed = _compute(cases, counts, genre_ids)
    rows = computed.pop("list_rows")
    assert rows.dtype == np.int64 and rows.shape == (len(cases), LIST_LENGTH)
    for number, (order, seen) in enumerate(cases):
        assert rows[number].tolist() == [row if row < TITLES else -1 for row in order[:LIST_LENGTH]]
        expected = _reference(order, seen, counts, genres)
        assert set(computed) == set(expected)
        for name, value in expected.items():
            assert computed[name].shape == (len(cases), 1) and computed[name].dtype == np.float32
            assert computed[name][number, 0] == pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True), name


def test_a_list_with_the_genres_of_the_history_is_calibrated_and_one_of_others_is_not():
    genre_ids = [[1, 0], [2, 0], [1, 2], [3, 0], *[[0, 0]] * 12]
    end = [TITLES] * 8
    computed = _compute([([0, 1, *end], {2}), ([3, 0, *end], {3}), ([3, 3, *end], {0})], [1] * TITLES, genre_ids)
    # Half of the list is of the history's only genre: ln(1 / (.99 / 2 + .01)); nothing of it: ln(1 / .01).
    np.testing.assert_allclose(computed["genre_divergence"][:, 0], [0, math.log(1 / 0.505), math.log(100)], atol=1e-5)


def test_without_genres_nothing_is_said_of_them():
    computed = _compute([([0, *[TITLES] * 9], {1})], [7, 1, *[0] * 14], None)
    assert set(computed) == {"list_rows", "list_novelty", "list_popularity", "history_popularity"}
    assert computed["list_novelty"][0, 0] == pytest.approx(-math.log2(8 / 24))
    assert computed["list_popularity"][0, 0] == pytest.approx(7 / 8)
