"""Derived slice keys against NumPy and plain Python."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from modules import slices
from modules.features import ColumnTable, parse_schema
from modules.slices import SliceKeys

COLUMNS = ColumnTable.from_schema(
    parse_schema(
        """
        feature { name: "user" type: BYTES annotation { tag: "user_id" } }
        feature { name: "title" type: BYTES annotation { tag: "item_id" } }
        feature { name: "time" type: INT annotation { tag: "timestamp" } }
        feature { name: "age" type: INT annotation { tag: "user" tag: "continuous" } }
        feature { name: "speed" type: FLOAT annotation { tag: "context" tag: "continuous" } }
        feature { name: "history_item_ids" type: BYTES annotation { tag: "history" tag: "item_id" } }
        feature { name: "seen_item_ids" type: BYTES annotation { tag: "seen" } }
        """
    )
)
TYPES = {"user": tf.string, "title": tf.string, "time": tf.int64, "age": tf.int64, "speed": tf.float32}


def _compute(rows, bands=None, user_counts=None, item_counts=None, training_end=0):
    """Slice keys of rows, dictionaries of lists, by name."""
    keys = SliceKeys(COLUMNS, bands or {}, user_counts or {b"a": 1}, item_counts or {b"hit": 1}, training_end)
    raw = {}
    for name, dtype in TYPES.items():
        raw[name] = tf.ragged.constant([row.get(name, []) for row in rows], dtype=dtype, ragged_rank=1).to_sparse()
    computed = keys.compute(raw)
    assert all(value.shape == (len(rows), 1) for value in computed.values())
    return {name: [label.decode() for label in value.numpy()[:, 0]] for name, value in computed.items()}


@pytest.mark.parametrize(
    ("boundaries", "labels"),
    [
        ([18, 25, 56], ("<18", "18-24", "25-55", "56+")),
        ([0.5], ("<0.5", "0.5+")),
        ([0.5, 1.0, 2.25], ("<0.5", "0.5-<1", "1-<2.25", "2.25+")),
        ([-10, 0], ("<-10", "-10--1", "0+")),
    ],
)
def test_bands_are_named_by_their_boundaries(boundaries, labels):
    assert slices.band_labels(boundaries) == labels


ages = st.one_of(st.none(), st.integers(-5, 130))


@given(st.lists(ages, min_size=1, max_size=20), st.lists(st.integers(1, 99), min_size=1, max_size=5, unique=True))
def test_bands_hold_their_lower_boundary(values, boundaries):
    boundaries = sorted(boundaries)
    labels = slices.band_labels(boundaries)
    rows = [{} if value is None else {"age": [value]} for value in values]
    expected = ["missing" if value is None else labels[np.digitize(value, boundaries)] for value in values]
    assert _compute(rows, {"age": boundaries})["age_band"] == expected


def test_fractions_and_numbers_that_are_none():
    rows = [{"speed": [value]} for value in (0.4999, 0.5, 7.0, float("nan"))]
    assert _compute(rows, {"speed": [0.5]})["speed_band"] == ["<0.5", "0.5+", "0.5+", "missing"]


def test_users_are_grouped_by_their_training_events():
    counts = {b"a": 1, b"b": 19, b"c": 20, b"d": 99, b"e": 100, b"f": 7000}
    rows = [{"user": [user]} for user in ("a", "b", "c", "d", "e", "f", "nobody")] + [{}]
    expected = ["1-19", "1-19", "20-99", "20-99", "100+", "100+", "new", "new"]
    assert _compute(rows, user_counts=counts)["user_activity"] == expected


@given(st.lists(st.integers(0, 30), max_size=25))
def test_popularity_boundaries_are_the_counts_at_which_half_and_four_fifths_are_reached(counts):
    middle, head = slices.popularity_boundaries(np.array(counts, np.int64))
    assert 1 <= middle <= head
    if not sum(counts):
        assert (middle, head) == (1, 1)
        return
    for boundary, tenths in ((head, 5), (middle, 8)):
        at_least = sum(count for count in counts if count >= boundary)
        above = sum(count for count in counts if count > boundary)
        # The titles of the band and above make up the share; without the least popular of them they do not.
        assert 10 * at_least >= tenths * sum(counts) > 10 * above


def test_titles_are_grouped_by_their_share_of_the_training_events():
    counts = {b"hit": 50, b"known": 20, b"middling": 10, b"rare": 9, b"rarer": 1, b"never": 0}
    rows = [{"title": [title]} for title in ("hit", "known", "middling", "rare", "rarer", "never", "unheard of")] + [{}]
    expected = ["head", "middle", "middle", "tail", "tail", "new", "new", "new"]
    # 90 events: the first title makes 55 %, the first three 89 %, the first two 78 %.
    assert _compute(rows, item_counts=counts)["title_popularity"] == expected


@given(st.lists(st.integers(0, 4_000_000_000), min_size=1, max_size=20))
def test_hours_are_quarters_of_the_day(times):
    expected = [("00-05", "06-11", "12-17", "18-23")[time // 3600 % 24 // 6] for time in times]
    assert _compute([{"time": [time]} for time in times])["hour"] == expected


@given(st.integers(0, 2_000_000_000), st.lists(st.integers(-(10**7), 10**8), min_size=1, max_size=20))
def test_weeks_are_counted_from_the_last_interaction_of_training(end, offsets):
    expected = ["12+" if offset >= 12 * 604_800 else str(max(offset, 0) // 604_800) for offset in offsets]
    rows = [{"time": [end + offset]} for offset in offsets]
    assert _compute(rows, training_end=end)["weeks_since_training"] == expected


def test_a_week_ends_to_the_second():
    rows = [{"time": [time]} for time in (1000, 1000 + 604_799, 1000 + 604_800, 1000 + 12 * 604_800 - 1, 999)] + [{}]
    assert _compute(rows, training_end=1000)["weeks_since_training"] == ["0", "0", "1", "11", "0", "0"]


def test_a_band_over_an_unknown_column_is_refused_by_name():
    with pytest.raises(ValueError, match=r"bands.*\['age', 'speed'\]; received \['rating'\]"):
        SliceKeys(COLUMNS, {"rating": [3], "age": [18]}, {b"a": 1}, {b"hit": 1}, 0)
