"""Markov against transitions counted event by event."""

import collections
import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from modules.interaction_log import InteractionLog
from modules.models.markov import count_transitions
from modules.models.registry import create_recommender
from tests.modules.small_world import query_of
from tests.modules.test_item_bag import expected_bag


@pytest.mark.parametrize(("steps", "step_decay", "smoothing"), [(1, 1.0, 1.0), (3, 0.5, 0.2)])
def test_scores_equal_those_counted_in_plain_python(world, steps, step_decay, smoothing):
    settings = {
        "steps": steps,
        "step_decay": step_decay,
        "smoothing": smoothing,
        "recency_decay": 0.6,
        "older_weight": 0.1,
        "popularity_prior": 0.0,
    }
    scorer, _ = create_recommender("markov", settings).fit(world.data, world.catalogue, world.fit_context())
    visits: dict[str, dict[int, set[str]]] = collections.defaultdict(lambda: collections.defaultdict(set))
    for row in world.rows["train"]:
        visits[row["user_id"][0]][row["timestamp"][0]].add(row["item_id"][0])
    counts: collections.Counter = collections.Counter()
    for own in visits.values():
        times = sorted(own)
        for first, second in itertools.combinations(range(len(times)), 2):
            if second - first <= steps:
                for pair in itertools.product(own[times[first]], own[times[second]]):
                    counts[pair] += step_decay ** (second - first - 1)
    known = {row["item_id"][0] for row in world.rows["train"]}
    titles = [item_id.decode() for item_id in world.catalogue.item_ids if item_id.decode() in known]
    rows = [query_of(row) for row in world.rows["test"][:60]]
    bags = [expected_bag(row, dict(zip(titles, titles, strict=True)), 0.6, 0.1, True, length=5) for row in rows]

    def score(bag, title):
        return sum(weight * math.log(1 + counts[past, title] / smoothing) for past, weight in bag.items())

    columns = [world.catalogue.item_ids.tolist().index(title.encode()) for title in titles]
    received = scorer.score_catalogue(world.transform_rows(rows)).numpy()[:, columns]
    expected = [[score(bag, title) for title in titles] for bag in bags]
    assert np.max(expected) > 1
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    similar = scorer.score_similar(tf.constant(columns[:3], tf.int64)).numpy()[:, columns]
    expected = [[score({past: 1.0}, title) for title in titles] for past in titles[:3]]
    np.testing.assert_allclose(similar, expected, rtol=1e-5, atol=1e-6)


def test_events_of_one_instant_are_no_transitions_of_each_other():
    """User 1 takes 1 and 2 at once, then 3, then an unknown title; user 2 begins anew."""
    log = InteractionLog(np.array([1, 1, 1, 1, 2]), np.array([1, 2, 3, 5, 4]), np.array([7, 7, 8, 9, 9]))
    counts = count_transitions(log, vocabulary_size=6, steps=4, step_decay=0.5)
    expected = np.zeros((6, 6))
    expected[[1, 2], 3] = 1
    np.testing.assert_array_equal(counts, expected)
