"""Bags of past titles against plain Python, and what they mean to the families that score by them."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from modules.models.item_bag import ItemBag, ItemBagConfig
from modules.models.registry import create_recommender
from tests.modules.small_world import NEW_TITLES, query_of

SIZE = 9  # Padding, seven known titles, unknown ones.
FAMILIES = ("ease", "item_knn", "markov", "matrix_factorization")


def expected_bag(row, vocabulary, decay, older, use_times, length):
    """Weights by vocabulary id, from the raw row of a request."""
    events = list(zip(row.get("history_item_ids", []), row.get("history_timestamps", []), strict=True))[-length:]
    bag = {}
    for item_id in row.get("seen_item_ids", []):
        bag[item_id] = older
    for position, (item_id, time) in enumerate(events):
        later = events[position + 1 :]
        age = len({other for _, other in later if other > time}) if use_times else len(later)
        bag[item_id] = max(bag.get(item_id, 0.0), older + (1 - older) * decay**age)
    return {vocabulary[item_id]: weight for item_id, weight in bag.items() if item_id in vocabulary and weight > 0}


def read_bags(bags):
    """Sparse bags as a dictionary for each query."""
    read: list[dict[int, float]] = [{} for _ in range(bags.dense_shape[0])]
    for (row, item), weight in zip(bags.indices.numpy().tolist(), bags.values.numpy().tolist(), strict=True):
        assert item not in read[row]
        read[row][item] = weight
    assert (np.diff(bags.indices.numpy() @ [int(bags.dense_shape[1]), 1]) > 0).all()
    return read


@pytest.fixture(scope="module")
def vocabulary(world):
    names = world.transform.vocabulary_by_name("item_id")
    return {name.decode(): number + 1 for number, name in enumerate(names)}


@pytest.mark.parametrize("groups", [("ids", "continuous_time"), ("ids", "time_buckets"), ("ids",)])
@pytest.mark.parametrize(("decay", "older"), [(0.7, 0.05), (0.5, 0.0), (1.0, 1.0)])
def test_bags_equal_plain_python(world, vocabulary, groups, decay, older):
    rows = [*world.rows["test"][:80], {}]
    rows.append(
        {"history_item_ids": ["i0001", "i0002"], "history_timestamps": [5, 5], "timestamp": [99]}
    )  # And nothing seen.
    rows.append({"seen_item_ids": ["i0003", "i0003", "unknown"]})  # And no history.
    items = ["i0004", "unknown", "i0005", "i0004"]
    rows.append({"history_item_ids": items, "history_timestamps": [5, 6, 7, 8], "timestamp": [99]})
    bag = ItemBag(ItemBagConfig(recency_decay=decay, older_weight=older), world.fit_context(groups))
    received = read_bags(bag(world.transform_rows([query_of(row) for row in rows])))
    for row, own in zip(rows, received, strict=True):
        expected = expected_bag(row, vocabulary, decay, older, len(groups) > 1, length=5)
        assert own == pytest.approx(expected, rel=1e-5)
    histories = [row.get("history_timestamps", []) for row in rows]
    assert sum(len(set(times)) < len(times) for times in histories) > 3


def make_bag(world, groups=("ids", "continuous_time"), **config):
    context = world.fit_context(groups)
    inputs = dataclasses.replace(context.inputs, item_vocabulary_size=SIZE)
    return ItemBag(ItemBagConfig(**config), dataclasses.replace(context, inputs=inputs))


@settings(max_examples=40, deadline=None)
@given(
    histories=st.lists(st.lists(st.integers(0, SIZE - 1), min_size=4, max_size=4), min_size=1, max_size=5),
    seen=st.lists(st.tuples(st.integers(0, 4), st.integers(0, SIZE - 1)), max_size=12),
)
def test_bags_without_decay_are_the_union_of_history_and_seen(world, histories, seen):
    cells = sorted({(row, column) for row, column in seen if row < len(histories)})
    values = [column for _, column in cells]
    query = {
        "history_item_ids": tf.constant(histories, tf.int64),
        "history_log_steps": tf.zeros([len(histories), 4]),
        "seen_item_ids": tf.SparseTensor(
            np.array(cells, np.int64).reshape(-1, 2), tf.constant(values, tf.int64), [len(histories), SIZE]
        ),
    }
    received = read_bags(make_bag(world, recency_decay=1.0, older_weight=1.0)(query))
    for row, history in enumerate(histories):
        union = {*history, *(column for own, column in cells if own == row)} - {0, SIZE - 1}
        assert received[row] == dict.fromkeys(union, 1.0)


def test_events_without_a_time_are_instants_of_their_own(world):
    query = {"history_item_ids": tf.constant([[3, 2, 1, 0]], tf.int64), "history_log_steps": tf.zeros([1, 4])}
    received = read_bags(make_bag(world, recency_decay=0.5, older_weight=0.0)(query))
    assert received == [{1: 1.0, 2: 0.5, 3: 0.25}]


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_history_popularity_decides_and_new_titles_come_last(world, family):
    scorer, _ = create_recommender(family, {}).fit(world.data, world.catalogue, world.fit_context())
    popular, _ = create_recommender("popularity", {}).fit(world.data, world.catalogue, world.fit_context())
    queries = world.transform_rows([{}, query_of(world.rows["test"][0])])
    scores, counts = scorer.score_catalogue(queries).numpy(), popular.score_catalogue(queries).numpy()
    new = np.isin(world.catalogue.item_ids, [title.encode() for title in NEW_TITLES])
    assert new.sum() == 2
    np.testing.assert_allclose(scores[0, ~new], 1e-3 * counts[0, ~new] / counts.max(), rtol=1e-5)
    assert np.isfinite(scores).all() and (scores[:, new].max(axis=1) < scores[:, ~new].min(axis=1)).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_without_ids_nothing_can_be_fitted(world, family):
    with pytest.raises(ValueError, match=r"features\.groups: received groups without 'ids'"):
        create_recommender(family, {}).fit(world.data, world.catalogue, world.fit_context(("user", "item")))
