"""Whole user sequences: everything is learned from once, and nothing sees what happened at its own instant or later."""

import itertools

import numpy as np
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from modules import sequences
from modules.derived_names import HISTORY_LOG_GAPS, HISTORY_LOG_STEPS, USER_KEY
from modules.features import HISTORY_ITEM_IDS, ITEM_ID, TIMESTAMP
from modules.sequences import UserSequences, make_batch, read_sequences, sequence_batches

EVENTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 12)), min_size=1, max_size=60
)  # user, title, time


def _sequences(events):
    events = sorted(events, key=lambda event: (event[0], event[2], event[1]))
    users, items, times = (np.array(column, np.int64) for column in zip(*events, strict=True))
    instants = list(dict.fromkeys((user, time) for user, _, time in events))
    query_of_event = np.array([instants.index((user, time)) for user, _, time in events])
    first_event = np.array([list(query_of_event).index(query) for query in range(len(instants))])
    bounds = [index for index in range(len(events)) if index == 0 or users[index] != users[index - 1]]
    return events, UserSequences(
        item_ids=items,
        feedback=items % 3,
        timestamps=times + 10**9,
        query_of_event=query_of_event,
        first_event=first_event,
        query_features={"time": times[first_event]},
        user_bounds=np.array([*bounds, len(events)]),
    )


@given(EVENTS, st.integers(1, 8), st.integers(1, 10))
@settings(max_examples=150, deadline=None)
def test_batches_hold_every_interaction_once_with_what_was_known_before_it(events, window, length):
    events, log = _sequences(events)
    learned = []
    for chunk in log.chunks(window, length):
        batch = make_batch(log, [chunk], window)
        (user,) = {events[index][0] for index in range(chunk.events.start, chunk.events.stop)}
        own = [event for event in events if event[0] == user]
        for target, query in zip(batch["target_item_ids"], batch["target_queries"], strict=True):
            start, time = batch["query_starts"][0, batch["query_positions"][query]], batch["time"][query]
            learned.append((user, target, time))
            before = [event for event in own if event[2] < time]
            seen_here = batch["event_item_ids"][0, max(start - window, 0) : max(start, 0)].tolist()
            assert seen_here == [item for _, item, _ in before[-window:]]
            seconds = batch["event_seconds"][0, max(start - window, 0) : max(start, 0)]
            gaps = batch["query_seconds"][0, batch["query_positions"][query]] - seconds
            assert gaps.tolist() == [time - event[2] for event in before[-window:]]
            known = batch["seen_ids"][batch["seen_instants"] < batch["query_instants"][query]]
            assert set(known.tolist()) == {item for _, item, _ in before}
        for position in range(chunk.events.stop - chunk.events.start):
            _, _, time = events[chunk.events.start + position]
            first = min(index for index, event in enumerate(events) if event[0] == user and event[2] == time)
            assert batch["event_starts"][0, position] == max(first - chunk.events.start, 0)
    assert sorted(learned) == sorted(events)


@given(EVENTS, st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_padding_changes_nothing(events, window):
    _, log = _sequences(events)
    chunks = log.chunks(window, 7)
    together = make_batch(log, chunks, window)
    queries = targets = 0
    for row, chunk in enumerate(chunks):
        alone = make_batch(log, [chunk], window)
        size, count = alone["event_item_ids"].shape[1], len(alone["query_rows"])
        for name in ("event_item_ids", "event_feedback", "event_seconds", "event_starts", "event_log_steps"):
            np.testing.assert_array_equal(together[name][row, :size], alone[name][0])
            assert not together[name][row, size:].any()
        np.testing.assert_array_equal(together["query_starts"][row, :count], alone["query_starts"][0])
        assert (together["query_starts"][row, count:] == -1).all()
        np.testing.assert_array_equal(together["query_rows"][queries : queries + count], np.full(count, row))
        number = len(alone["target_queries"])
        np.testing.assert_array_equal(
            together["target_queries"][targets : targets + number], alone["target_queries"] + queries
        )
        queries, targets = queries + count, targets + number


def test_every_pass_has_all_interactions_in_an_order_of_its_own_given_by_the_seed():
    _, log = _sequences([(user, item, 3 * item + user) for user in range(4) for item in range(1, 10)])
    passes: dict[int, list] = {}
    for seed in (1, 1, 2):
        batches = sequence_batches(log, 3, 4, 6, seed)
        runs = [[batch["target_item_ids"].numpy().tolist() for batch in batches] for _ in range(2)]
        assert all(sorted(itertools.chain.from_iterable(run)) == sorted(log.item_ids.tolist()) for run in runs)
        assert runs[0] != runs[1]
        assert passes.setdefault(seed, runs) == runs
    assert passes[1] != passes[2]


def test_sequences_tell_what_the_examples_tell(world):
    """The training split as sequences holds, for each of its events, the history that Transform gave the example."""
    batch = world.transformed["train"]
    log = read_sequences(world.data, "train", ["hour"], "rating_bucket")
    window = batch[HISTORY_ITEM_IDS].shape[1]
    examples = {
        (int(user), int(time)): number
        for number, (user, time) in enumerate(zip(batch[USER_KEY].numpy(), batch[TIMESTAMP].numpy(), strict=True))
    }
    assert log.num_targets == len(batch[ITEM_ID])
    compared = 0
    users = np.unique(batch[USER_KEY].numpy())
    for begin, end, user in zip(log.user_bounds[:-1], log.user_bounds[1:], users, strict=True):
        for query in range(log.query_of_event[begin], log.query_of_event[end - 1] + 1):
            first = log.first_event[query]
            number = examples[int(user), int(log.timestamps[first])]
            assert batch["hour"][number] == log.query_features["hour"][query]
            past = slice(max(begin, first - window), first)
            count = first - past.start
            ids = batch[HISTORY_ITEM_IDS].numpy()[number]
            times = log.timestamps[past]
            # Histories name simultaneous events in another order.
            assert sorted(ids[:count]) == sorted(log.item_ids[past]) or first - begin > window
            assert not ids[count:].any()
            gaps = np.log1p(log.timestamps[first] - times)
            np.testing.assert_allclose(batch[HISTORY_LOG_GAPS].numpy()[number, :count], gaps, rtol=1e-5)
            steps = np.log1p(np.diff(times)) if count else np.zeros(0)
            stored = batch[HISTORY_LOG_STEPS].numpy()[number]
            np.testing.assert_allclose(stored[1 : max(count, 1)], steps, rtol=1e-5)
            assert stored[0] == (-1 if count else 0) and not stored[max(count, 1) :].any()
            compared += count > 1
    assert compared > 500
    names = [tf.dtypes.as_dtype(value.dtype) for value in (log.item_ids, log.feedback, log.timestamps)]
    assert names == [tf.int64] * 3
    assert log.feedback.min() >= 1


def test_chunks_end_between_instants():
    _, log = _sequences([(0, item, item // 3) for item in range(1, 10)])
    chunks = log.chunks(window=2, length=4)
    ends = [chunk.targets.stop for chunk in chunks]
    assert all(end == len(log.item_ids) or log.timestamps[end] != log.timestamps[end - 1] for end in ends)
    assert sequences.make_batch(log, chunks, 2)["query_starts"].max() >= 2
