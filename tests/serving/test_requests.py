"""Examples of requests: what they hold, and what is refused before it is sent."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from modules.features import parse_schema
from pipeline.config import load_config
from pipeline.serving.errors import RequestError
from pipeline.serving.requests import CLOCK_TOLERANCE_SECONDS, HistoryEvent, RequestFormat, build_example

SCHEMA = parse_schema(load_config("movielens-100k").read_schema_text())
FORMAT = RequestFormat.from_schema(SCHEMA)
HISTORY_LENGTH = 50
WRONG: Any = [0.5]


def features_of(example: tf.train.Example) -> dict[str, list]:
    """Reads an example back through its wire format, with TensorFlow's own class."""
    parsed = tf.train.Example.FromString(example.SerializeToString())
    values = {}
    for name, feature in parsed.features.feature.items():
        kind = feature.WhichOneof("kind")
        values[name] = list(getattr(feature, kind).value)
    return values


def test_writes_what_the_schema_says():
    example = build_example(
        {"user_id": "u1", "age": np.int64(30), "gender": "F", "occupation": None},
        [HistoryEvent("b", 20, 4.0), HistoryEvent("a", 10, 3), HistoryEvent("b", 30)],
        seen=("c", "a"),
        timestamp=880_000_000,
        request_format=FORMAT,
    )
    values = features_of(example)

    assert math.isnan(values["history_rating"].pop())
    assert values == {
        "user_id": [b"u1"],
        "age": [30],
        "gender": [b"F"],
        "timestamp": [880_000_000],
        "history_item_ids": [b"a", b"b", b"b"],
        "history_timestamps": [10, 20, 30],
        "history_rating": [3.0, 4.0],
        "seen_item_ids": [b"a", b"b", b"c"],
    }


def test_columns_with_several_values_take_lists():
    schema = parse_schema(
        load_config("movielens-100k").read_schema_text()
        + 'feature { name: "languages" type: BYTES annotation { tag: "user" tag: "multi_hot" } }'
    )
    request_format = RequestFormat.from_schema(schema)
    for value, written in ((["fr", "de"], [b"fr", b"de"]), ("fr", [b"fr"])):
        example = build_example({"languages": value}, timestamp=1, request_format=request_format)
        assert features_of(example)["languages"] == written


def test_without_history_there_are_no_history_features():
    assert features_of(build_example({}, timestamp=1, request_format=FORMAT)) == {"timestamp": [1]}


def test_the_time_is_now_unless_given():
    before = int(time.time())
    (timestamp,) = features_of(build_example({}))["timestamp"]
    assert before <= timestamp <= time.time()


def test_a_request_of_now_lies_just_after_its_history():
    now = int(time.time())
    for latest in (now, now + 30):
        events = [HistoryEvent("a", latest), HistoryEvent("b", 5)]
        (timestamp,) = features_of(build_example({}, events))["timestamp"]
        assert timestamp == max(latest + 1, timestamp)
        assert timestamp <= latest + 5


def test_an_event_of_the_future_or_in_milliseconds_is_refused():
    now = int(time.time())
    for wrong in (now + 10 * CLOCK_TOLERANCE_SECONDS, now * 1000):
        message = rf"^history\[1\].timestamp: received {wrong}; expected seconds since 1970, not later than now, \d+$"
        with pytest.raises(RequestError, match=message):
            build_example({}, [HistoryEvent("a", 5), HistoryEvent("b", wrong)])


def test_a_feature_is_given_once():
    with pytest.raises(RequestError, match=r"context\['device'\]: the feature 'device' is given twice"):
        build_example({"device": "tv"}, context={"device": "phone"})
    with pytest.raises(RequestError, match="the feature 'timestamp' is given twice"):
        build_example({"timestamp": 5})
    for name in (3, "\ud800"):
        with pytest.raises(RequestError, match="expected the name of a column"):
            build_example({name: "x"})  # type: ignore[dict-item]


NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
WHOLE_NUMBERS = st.integers(-(2**63), 2**63 - 1)
MIXED_SCHEMA = parse_schema(
    load_config("movielens-100k").read_schema_text()
    + 'feature { name: "languages" type: BYTES annotation { tag: "user" tag: "multi_hot" } }'
    + 'feature { name: "income" type: FLOAT annotation { tag: "user" tag: "continuous" } }'
    + 'feature { name: "device" type: BYTES annotation { tag: "context" tag: "categorical" } }'
)


@given(
    user=st.fixed_dictionaries(
        {},
        optional={
            "user_id": TEXT.filter(bool),
            "age": WHOLE_NUMBERS,
            "gender": TEXT | st.binary(),
            "income": NUMBERS,
            "languages": st.lists(TEXT),
        },
    ),
    context=st.fixed_dictionaries({}, optional={"device": TEXT}),
)
def test_whatever_is_built_parses_back_to_the_same_values(user: dict[str, Any], context: dict[str, Any]):
    request_format = RequestFormat.from_schema(MIXED_SCHEMA)
    values = features_of(build_example(user, context=context, timestamp=9, request_format=request_format))
    expected: dict[str, list] = {"timestamp": [9]}
    for name, value in (user | context).items():
        listed = value if isinstance(value, list) else [value]
        if listed:
            expected[name] = [entry.encode() if isinstance(entry, str) else entry for entry in listed]
    assert values == expected


@given(
    user=st.dictionaries(
        st.sampled_from(["user_id", "age", "gender", "income", "languages", "title", "timestamp"]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(st.characters()),
            st.binary(),
            st.lists(st.one_of(st.integers(), st.floats(), st.text(st.characters()), st.none()), max_size=3),
            st.complex_numbers(),
        ),
        max_size=3,
    )
)
def test_a_request_is_built_or_refused_with_the_fields_name(user: dict[str, Any]):
    request_format = RequestFormat.from_schema(MIXED_SCHEMA)
    try:
        example = build_example(user, timestamp=9, request_format=request_format)
    except RequestError as error:
        # Of a list, the entry that does not fit is shown.
        assert any(str(error).startswith(f"user[{name!r}]: received ") for name in user)
    else:
        assert set(features_of(example)) <= {*user, "timestamp"}


def test_without_a_schema_types_are_taken_as_they_come():
    example = build_example(
        {"user_id": "é", "age": 3, "height": 1.5, "tags": ["x", b"\xff"], "sizes": [1, 2.5]},
        context={"device": "tv"},
        timestamp=5,
    )
    assert features_of(example) == {
        "user_id": ["é".encode()],
        "age": [3],
        "height": [1.5],
        "tags": [b"x", b"\xff"],
        "sizes": [1.0, 2.5],
        "device": [b"tv"],
        "timestamp": [5],
    }


EVENTS = st.lists(
    st.builds(
        HistoryEvent,
        item_id=st.integers(0, 40).map(str),
        timestamp=st.integers(-(2**63), 2**63 - 2) | st.integers(0, 5),
        feedback=st.none() | st.floats(1, 5, width=32),
    ),
    max_size=80,
)


@given(events=EVENTS, seen=st.lists(st.integers(30, 60).map(str), max_size=5))
def test_the_history_is_the_most_recent_and_everything_is_seen(events: list[HistoryEvent], seen: list[str]):
    values = features_of(build_example({}, events, seen=seen, timestamp=2**63 - 1, request_format=FORMAT))

    items = np.array([event.item_id for event in events], str)
    order = np.lexsort((items, np.array([event.timestamp for event in events], np.int64)))
    ordered = [events[position] for position in order]
    recent = ordered[-HISTORY_LENGTH:]
    assert values.get("history_item_ids", []) == [event.item_id.encode() for event in recent]
    assert values.get("history_timestamps", []) == [event.timestamp for event in recent]
    distinct = []
    for item_id in [event.item_id for event in ordered] + seen:
        if item_id.encode() not in distinct:
            distinct.append(item_id.encode())
    assert values.get("seen_item_ids", []) == distinct
    expected = [np.nan if event.feedback is None else event.feedback for event in recent]
    if all(event.feedback is None for event in recent):
        assert "history_rating" not in values
    else:
        np.testing.assert_array_equal(values["history_rating"], expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"user": {"user_id": 7}},
            "user['user_id']: received 7; expected a string",
        ),
        (
            {"user": {"age": "30"}},
            "user['age']: received '30'; expected a 64-bit integer",
        ),
        ({"user": {"age": True}}, "user['age']: received True; expected a 64-bit integer"),
        ({"user": {"age": 2**63}}, f"user['age']: received {2**63}; expected a 64-bit integer"),
        ({"user": {"gender": ["F", "M"]}}, "user['gender']: received ['F', 'M']; expected a string"),
        (
            {"user": {"title": "x"}},
            "user['title']: received 'x'; expected no such field, only ['age', 'gender', 'occupation', 'user_id', "
            "'zip_code']",
        ),
        (
            {"user": {}, "context": {"device": "tv"}},
            "context['device']: received 'tv'; expected no such field, only []",
        ),
        ({"user": {}, "timestamp": 1.5}, "timestamp: received 1.5; expected a 64-bit integer"),
        ({"user": {}, "seen": [3]}, "seen: received 3; expected a string"),
        ({"user": {}, "history": [HistoryEvent(WRONG, 1)]}, "history[0].item_id: received [0.5]; expected a string"),
        (
            {"user": {}, "history": [HistoryEvent("a", 1), HistoryEvent("a", WRONG)]},
            "history[1].timestamp: received [0.5]; expected a 64-bit integer",
        ),
        (
            {"user": {}, "history": [HistoryEvent("a", 1, WRONG)]},
            "history[0].feedback: received [0.5]; expected a finite 32-bit number",
        ),
        (
            {"user": {}, "history": [HistoryEvent("a", 1, math.nan)]},
            "history[0].feedback: received nan; expected a finite 32-bit number",
        ),
        (
            {"user": {}, "history": [HistoryEvent("a", 1, 10**400)]},
            f"history[0].feedback: received {10**400}; expected a finite 32-bit number",
        ),
        ({"user": {"user_id": ""}}, "user['user_id']: received ''; expected an id"),
        ({"user": {}, "history": [HistoryEvent("", 1)]}, "history[0].item_id: received ''; expected an id"),
        ({"user": {}, "seen": ["a", ""]}, "seen: received ''; expected an id"),
        ({"user": {}, "seen": "abc"}, "seen: received 'abc'; expected a list of item ids"),
        (
            {"user": {"gender": "\ud800"}},
            "user['gender']: received '\\ud800'; expected text without lone surrogates",
        ),
        (
            {"user": {}, "history": [HistoryEvent("\udfff", 1)]},
            "history[0].item_id: received '\\udfff'; expected text without lone surrogates",
        ),
        ({"user": {}, "history": [("a", 1)]}, "history[0]: received ('a', 1); expected a HistoryEvent"),
        ({"user": "u1"}, "user: received 'u1'; expected a mapping of columns to values"),
        ({"user": {}, "context": [1]}, "context: received [1]; expected a mapping of columns to values"),
        (
            {"user": {}, "history": [HistoryEvent("a", 4), HistoryEvent("b", 5)], "timestamp": 5},
            "history[1].timestamp: received 5; expected a time before the request's, 5",
        ),
    ],
)
def test_what_does_not_fit_the_schema_is_refused(arguments: dict, message: str):
    with pytest.raises(RequestError, match=f"^{re.escape(message)}$"):
        build_example(**arguments, request_format=FORMAT)


def test_feedback_needs_a_place_to_go():
    history = [HistoryEvent("a", 1, 2.0)]
    with pytest.raises(
        RequestError, match=r"history\[0\].feedback: received 2.0; expected none, as no schema is given"
    ):
        build_example({}, history)

    schema = parse_schema(load_config("movielens-100k").read_schema_text())
    kept = [feature for feature in schema.feature if feature.name != "history_rating"]
    del schema.feature[:]
    schema.feature.extend(kept)
    poorer = RequestFormat.from_schema(schema)
    with pytest.raises(RequestError, match="expected none, by the schema"):
        build_example({}, history, request_format=poorer)
    assert "history_rating" not in features_of(build_example({}, [HistoryEvent("a", 1)], request_format=poorer))
