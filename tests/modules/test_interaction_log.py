"""The interaction log and the Gram matrix made of it, against dense NumPy."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modules.interaction_log import InteractionLog, read_interaction_log
from modules.models.co_occurrence import gram_matrix

SIZE = 7  # Padding, five known titles, unknown ones.
EVENTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, SIZE - 1)), max_size=40)


def make_log(events):
    columns = np.array(sorted(events), np.int64).reshape(-1, 3)
    return InteractionLog(columns[:, 0], columns[:, 2], columns[:, 1])


def test_the_log_holds_the_splits_in_order(world):
    log = read_interaction_log(world.data, ["train", "eval"])
    names = world.transform.vocabulary_by_name("item_id")
    ids = {name.decode(): number + 1 for number, name in enumerate(names)}
    rows = [*world.rows["train"], *world.rows["eval"]]
    received = sorted(zip(log.timestamps.tolist(), log.item_ids.tolist(), strict=True))
    expected = sorted((row["timestamp"][0], ids.get(row["item_id"][0], len(ids) + 1)) for row in rows)
    assert received == expected and len(log) == len(rows)
    order = np.lexsort((log.item_ids, log.timestamps, log.user_keys))
    np.testing.assert_array_equal(order, np.arange(len(log)))
    assert len(log.user_bounds()) - 1 == len({row["user_id"][0] for row in rows})


@given(events=EVENTS)
def test_bounds_are_those_of_users_and_instants(events):
    log = make_log(events)
    for bounds, groups in (
        (log.user_bounds(), log.user_keys.tolist()),
        (log.instant_bounds(), list(zip(log.user_keys.tolist(), log.timestamps.tolist(), strict=True))),
    ):
        parts = [groups[start:end] for start, end in itertools.pairwise(bounds)]
        assert [part[0] for part in parts] == sorted(set(groups))
        assert all(len(set(part)) == 1 for part in parts) and sum(map(len, parts)) == len(groups)


@given(events=EVENTS, users_per_block=st.integers(1, 8))
def test_the_gram_matrix_in_blocks_equals_the_dense_one(events, users_per_block):
    log = make_log(events)
    blocks = list(log.blocks(users_per_block))
    for name in ("user_keys", "item_ids", "timestamps"):
        joined = np.concatenate([getattr(block, name) for block in blocks] or [[]])
        np.testing.assert_array_equal(joined, getattr(log, name))
    users = [set(block.user_keys.tolist()) for block in blocks]
    assert all(1 <= len(own) <= users_per_block for own in users) and sum(map(len, users)) == len(set(log.user_keys))
    dense = np.zeros((6, SIZE))
    dense[log.user_keys, log.item_ids] = 1
    dense[:, [0, -1]] = 0
    np.testing.assert_array_equal(gram_matrix(blocks, SIZE), dense.T @ dense)
