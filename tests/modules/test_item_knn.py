"""Item-kNN against similarities counted one by one."""

import collections

import numpy as np
import pytest
import tensorflow as tf

from modules.models.item_knn import nearest_neighbours
from modules.models.registry import create_recommender
from tests.modules.small_world import query_of
from tests.modules.test_item_bag import expected_bag


@pytest.mark.parametrize(("neighbours", "shrinkage", "exponent"), [(1000, 0.0, 0.5), (8, 4.0, 0.5), (5, 2.0, 0.8)])
def test_scores_equal_those_counted_in_plain_python(world, neighbours, shrinkage, exponent):
    settings = {
        "neighbours": neighbours,
        "shrinkage": shrinkage,
        "popularity_exponent": exponent,
        "recency_decay": 0.5,
        "older_weight": 0.1,
        "popularity_prior": 0.0,
    }
    scorer, _ = create_recommender("item_knn", settings).fit(world.data, world.catalogue, world.fit_context())
    users = collections.defaultdict(set)
    for row in world.rows["train"]:
        users[row["item_id"][0]].add(row["user_id"][0])
    titles = [item_id.decode() for item_id in world.catalogue.item_ids if item_id.decode() in users]

    def similarity(past, title):
        if past == title:
            return 0.0
        size = len(users[past]) ** (1 - exponent) * len(users[title]) ** exponent
        return len(users[past] & users[title]) / (size + shrinkage)

    table = {title: {past: similarity(past, title) for past in titles} for title in titles}
    for own in table.values():
        smallest = sorted(own.values())[-neighbours:][0]
        own.update({past: 0.0 for past, value in own.items() if value < smallest - 1e-7})
    rows = [query_of(row) for row in world.rows["test"][:40]]
    identity = dict(zip(titles, titles, strict=True))
    bags = [expected_bag(row, identity, 0.5, 0.1, True, length=5) for row in rows]
    expected = [[sum(weight * table[title][past] for past, weight in bag.items()) for title in titles] for bag in bags]
    columns = [world.catalogue.item_ids.tolist().index(title.encode()) for title in titles]
    received = scorer.score_catalogue(world.transform_rows(rows)).numpy()[:, columns]
    np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)
    similar = scorer.score_similar(tf.constant(columns[:3], tf.int64)).numpy()[:, columns]
    np.testing.assert_allclose(
        similar, [[table[title][past] for title in titles] for past in titles[:3]], rtol=1e-5, atol=1e-6
    )


def test_equally_similar_neighbours_are_kept_together():
    gram = np.array([[9, 4, 4, 1], [4, 9, 0, 0], [4, 0, 9, 0], [1, 0, 0, 9]], np.float32)
    kept = nearest_neighbours(gram, neighbours=1, shrinkage=0.0, popularity_exponent=0.5)
    np.testing.assert_allclose(kept[:, 0], [0, 4 / 9, 4 / 9, 0], rtol=1e-6)
    assert (np.diag(kept) == 0).all()
