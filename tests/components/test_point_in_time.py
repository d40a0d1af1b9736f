"""Histories, against looking at all of a user's events for each one."""

import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from pipeline.components.example_encoding import join_features
from pipeline.components.point_in_time import HistoryEncoder, order_events
from tests.components.example_gen_runs import to_dict

EVENTS = st.lists(
    st.tuples(st.integers(0, 6), st.sampled_from([b"a", b"b", b"c", b"d"]), st.integers(0, 1), st.integers(1, 99)),
    unique_by=lambda event: event[2:],
    max_size=20,
).map(lambda events: [(*event, float(event[3] % 5), ()) for event in events])


@given(EVENTS, st.integers(1, 4), st.sampled_from(["rating", None]))
def test_histories_hold_the_strict_past(events, history_length, feedback):
    ordered, dropped = order_events(events)
    assert dropped == len(events) - len({event[:2] for event in events})
    assert ordered == sorted(event for event in events if all(event <= x for x in events if x[:2] == event[:2]))
    histories = HistoryEncoder(ordered, history_length, feedback)
    for timestamp in range(8):
        past = [event for event in ordered if event[0] < timestamp]
        expected = {}
        if past:
            recent = past[-history_length:]
            expected = {
                "history_item_ids": [event[1] for event in recent],
                "history_timestamps": [event[0] for event in recent],
                "seen_item_ids": list(dict.fromkeys(event[1] for event in past)),
            }
            if feedback:
                expected["history_rating"] = [event[4] for event in recent]
        assert to_dict(tf.train.Example.FromString(join_features([histories.before(timestamp)]))) == expected
