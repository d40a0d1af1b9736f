"""The transform graph against plain Python and NumPy, on whole splits and on requests made by hand."""

import collections
import datetime
import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.modules.small_world import HISTORY_LENGTH, QUANTILE_BUCKETS, TEXT_TOKENS, UNICODE_TITLE

DAY = 86_400
ITEM_COLUMNS = ("item_id", "title", "release_year", "genres")
NOW = 1_709_251_199  # Thursday 29 February 2024, 23:59:59 UTC.


def _words(title):
    """Runs of letters, their marks and digits, in small letters."""
    return re.sub(r"[^\w\u0900-\u097f]|_", " ", title.lower()).split()[:TEXT_TOKENS]


def _values(row, name):
    if name == "title":
        return _words(row["title"][0])
    return [str(value) for value in row.get(name, [])]


def _ids_by_value(world, name):
    """Ids by falling frequency in the training split, as found in the transformed examples; and the frequencies."""
    ids: dict[str, int] = {}
    counts: collections.Counter[str] = collections.Counter()
    for row, transformed in zip(world.rows["train"], np.asarray(world.transformed["train"][name]), strict=True):
        for value, id_ in zip(_values(row, name), np.atleast_1d(transformed), strict=False):
            assert ids.setdefault(value, id_) == id_
            counts[value] += 1
    return ids, counts


def _dense(value):
    return (tf.sparse.to_dense(value) if isinstance(value, tf.SparseTensor) else value).numpy()


@pytest.mark.parametrize("name", ["user_id", "item_id", "device", "gender", "occupation", "channel", "genres", "title"])
def test_ids_follow_frequency_and_leave_0_to_missing_and_the_last_to_unknown_values(world, name):
    ids, counts = _ids_by_value(world, name)
    size = world.transform.vocabulary_size_by_name(name)
    assert len(set(ids.values())) == len(ids) and set(ids.values()) <= set(range(1, size + 1))
    if name != "title":  # Words past the first few have ids and frequencies, too.
        frequencies = [counts[value] for value in sorted(ids, key=ids.__getitem__)]
        assert len(ids) == size and frequencies == sorted(frequencies, reverse=True)
    for split in ("train", "eval"):
        for row, transformed in zip(world.rows[split], np.asarray(world.transformed[split][name]), strict=True):
            expected = [ids.get(value, size + 1) for value in _values(row, name)]
            actual = np.atleast_1d(transformed)
            assert actual.tolist() == expected + [0] * (len(actual) - len(expected))
    assert {"genres": 3, "title": TEXT_TOKENS}.get(name, 1) == world.transformed["train"][name].shape[1:].num_elements()


def test_text_is_split_at_whatever_is_no_letter_mark_or_digit(world):
    vocabulary = {token.decode() for token in world.transform.vocabulary_by_name("title")}
    assert {"l", "été", "हिन्दी", "5", "東京"} <= vocabulary
    assert not any(re.search(r"[\W_A-Z]", token) for token in vocabulary - {"हिन्दी"})
    shouted = {"title": [UNICODE_TITLE.upper().replace(":", "?!—")]}
    plain = {"title": ["l été हिन्दी"]}
    layer_input = ["item_id", "title"]
    titles = world.transform_rows([shouted, plain, {"title": ["…!"]}], layer_input)["title"].numpy()
    assert (titles[0] == titles[1]).all() and (titles[0] > 0).all() and (titles[2] == 0).all()


@pytest.mark.parametrize("split", ["train", "eval"])
def test_histories_and_seen_titles_share_the_targets_vocabulary(world, split):
    ids, _ = _ids_by_value(world, "item_id")
    transformed = world.transformed[split]
    seen = _dense(transformed["seen_item_ids"])
    cut = 0
    for number, row in enumerate(world.rows[split]):
        past = [ids.get(item_id, len(ids) + 1) for item_id in row.get("history_item_ids", [])]
        cut += len(past) > HISTORY_LENGTH
        last = past[-HISTORY_LENGTH:]
        expected = last + [0] * (HISTORY_LENGTH - len(last))
        assert transformed["history_item_ids"][number].numpy().tolist() == expected
        all_seen = [ids.get(item_id, len(ids) + 1) for item_id in row.get("seen_item_ids", [])]
        assert seen[number].tolist() == all_seen + [0] * (seen.shape[1] - len(all_seen))
    assert cut > 10


def test_gaps_of_the_history_are_logarithms_of_seconds(world):
    for number, row in enumerate(world.rows["eval"]):
        past = row.get("history_timestamps", [])[-HISTORY_LENGTH:]
        expected = np.zeros(HISTORY_LENGTH)
        expected[: len(past)] = np.log1p(row["timestamp"][0] - np.array(past))
        np.testing.assert_allclose(world.transformed["eval"]["history_log_gaps"][number], expected, rtol=1e-6)


def _raw_numbers(rows):
    """Values of the continuous features by name, NaN where there is no number."""
    numbers: dict[str, list[float]] = {
        name: [] for name in ("age", "minutes", "release_year", "log_gap", "log_seen_count")
    }
    for row in rows:
        for name in ("age", "minutes", "release_year"):
            numbers[name].append(row.get(name, [np.nan])[0])
        past = row.get("history_timestamps")
        numbers["log_gap"].append(np.log1p(row["timestamp"][0] - max(past)) if past else np.nan)
        numbers["log_seen_count"].append(np.log1p(len(row.get("seen_item_ids", []))))
    return {name: np.where(np.isfinite(values), values, np.nan) for name, values in numbers.items()}


def test_continuous_features_become_z_scores_flags_and_buckets(world):
    training, evaluation = _raw_numbers(world.rows["train"]), _raw_numbers(world.rows["eval"])
    for name, fitted in training.items():
        for split, raw in (("train", fitted), ("eval", evaluation[name])):
            missing = np.isnan(raw)
            transformed = world.transformed[split]
            expected = np.where(missing, 0, (raw - np.nanmean(fitted)) / np.nanstd(fitted))
            np.testing.assert_allclose(transformed[name], expected, atol=2e-3 if name == "release_year" else 1e-4)
            np.testing.assert_array_equal(transformed[f"{name}_missing"], missing)
            buckets = transformed[f"{name}_bucket"].numpy()
            assert ((buckets == 0) == missing).all() and buckets.max() <= QUANTILE_BUCKETS
            ordered = buckets[~missing][np.argsort(raw[~missing], kind="stable")]
            assert (np.diff(ordered) >= 0).all()
            for bucket in range(1, QUANTILE_BUCKETS):  # Equal values fall into the same bucket.
                below, above = raw[buckets == bucket], raw[buckets == bucket + 1]
                assert below.size and above.size and below.max() < above.min()
    shares = np.bincount(world.transformed["train"]["minutes_bucket"].numpy(), minlength=QUANTILE_BUCKETS + 1)[1:]
    np.testing.assert_allclose(shares / shares.sum(), 1 / QUANTILE_BUCKETS, atol=0.03)


def test_feedback_of_the_history_becomes_buckets(world):
    found: dict[float, int] = {}
    all_buckets = world.transformed["train"]["history_rating_bucket"].numpy()
    for row, buckets in zip(world.rows["train"], all_buckets, strict=True):
        past = row.get("history_rating", [])[-HISTORY_LENGTH:]
        assert (buckets[len(past) :] == 0).all()
        for rating, bucket in zip(past, buckets, strict=False):
            assert found.setdefault(rating, bucket) == bucket
    in_order = [found[rating] for rating in sorted(found)]
    assert in_order == sorted(in_order) and in_order[0] >= 1 and len(set(in_order)) >= 3


def test_label_and_time_are_passed_on(world):
    for name in ("rating", "timestamp"):
        np.testing.assert_array_equal(world.transformed["eval"][name], [row[name][0] for row in world.rows["eval"]])


@settings(max_examples=25)
@given(st.lists(st.integers(0, 4_000_000_000), min_size=3, max_size=3))
def test_the_calendar_equals_datetimes(world, seconds):
    seconds = [0, NOW, NOW + 1, *seconds]
    transformed = world.transform_rows([{"timestamp": [time]} for time in seconds])
    moments = [datetime.datetime.fromtimestamp(time, datetime.timezone.utc) for time in seconds]
    hours, weekdays = [moment.hour for moment in moments], [moment.weekday() for moment in moments]
    assert (hours[:3], weekdays[:3]) == ([0, 23, 0], [3, 3, 4])
    for name, values, period in (("hour", hours, 24), ("weekday", weekdays, 7)):
        np.testing.assert_array_equal(transformed[name], values)
        np.testing.assert_allclose(transformed[f"{name}_sin"], np.sin(2 * np.pi * np.array(values) / period), atol=1e-6)
        np.testing.assert_allclose(transformed[f"{name}_cos"], np.cos(2 * np.pi * np.array(values) / period), atol=1e-6)
    days = [row["timestamp"][0] // DAY for row in world.rows["train"]]
    expected = (np.array(seconds) // DAY - min(days)) / (max(days) - min(days))
    np.testing.assert_allclose(transformed["day"], np.clip(expected, 0, 1), atol=1e-4)


def test_requests_that_miss_everything_get_finite_features(world):
    transformed = world.transform_rows([{}, {"user_id": ["nobody"]}])
    for name, value in transformed.items():
        assert np.isfinite(_dense(value)).all(), name
    for name in ("device", "gender", "occupation", "channel", "age_bucket", "minutes_bucket", "log_gap_bucket"):
        assert transformed[name].numpy().tolist() == [0, 0]
    for name in ("age", "minutes", "log_gap"):
        assert transformed[name].numpy().tolist() == [0, 0]
        assert transformed[f"{name}_missing"].numpy().tolist() == [1, 1]
    for name in ("history_item_ids", "history_log_gaps", "history_rating_bucket"):
        assert transformed[name].shape == (2, HISTORY_LENGTH) and not transformed[name].numpy().any()
    users = {row["user_id"][0] for row in world.rows["train"]}
    assert transformed["user_id"].numpy().tolist() == [0, len(users) + 1]
    assert isinstance(transformed["seen_item_ids"], tf.SparseTensor)
    assert transformed["seen_item_ids"].values.shape == (0,)


def test_numbers_that_are_none_count_as_missing(world):
    finite = world.transform_rows([{"history_item_ids": ["i0001"], "timestamp": [NOW]}])
    for value in (float("nan"), float("inf"), float("-inf")):
        transformed = world.transform_rows(
            [{"minutes": [value], "history_item_ids": ["i0001"], "history_rating": [value], "timestamp": [NOW]}]
        )
        for name, tensor in transformed.items():
            assert np.isfinite(_dense(tensor)).all(), (name, value)
        for name in ("minutes", "minutes_missing", "minutes_bucket"):
            assert transformed[name].numpy() == finite[name].numpy(), (name, value)


def test_serving_transforms_as_training_did(world):
    """The layer that models carry gives what was written to disk, on all columns and on those of the titles alone."""
    rows = world.rows["eval"][:64]
    stored = {name: _dense(value)[:64] for name, value in world.transformed["eval"].items()}
    queries, items = world.transform_rows(rows), world.transform_rows(rows, ITEM_COLUMNS)
    assert set(queries) | set(items) | {"rating", "rating_bucket"} == set(stored)
    assert "item_id" not in queries and not {"user_id", "history_item_ids", "timestamp"} & set(items)
    for name, value in [*queries.items(), *items.items()]:
        width = _dense(value).shape[1:]
        expected = stored[name][tuple(map(slice, (64, *width)))]
        np.testing.assert_allclose(_dense(value), expected, rtol=1e-6, atol=1e-6, err_msg=name)


def test_rows_do_not_depend_on_their_batch(world):
    rows = [*world.rows["test"][:6], {}]
    together = world.transform_rows(rows)
    for number, row in enumerate(rows):
        for name, value in world.transform_rows([row]).items():
            alone, among = _dense(value)[0], _dense(together[name])[number]
            among = among[: len(alone)] if alone.ndim else among
            np.testing.assert_allclose(alone, among, rtol=1e-6, atol=1e-6, err_msg=name)
