"""Example users: who is chosen, and what is told of them, with a real SavedModel."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.example_users import ExampleUser, choose_users, example_users
from tests.report.simulated import COLUMNS, HOSTILE

activities = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.integers(0, 1_000), min_size=1)


@given(activities, st.integers(1, 12))
def test_the_choice_is_of_different_users_from_the_least_to_the_most_active(found: dict[str, int], count: int):
    chosen = choose_users(found, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(found))
    assert [found[user] for user in chosen] == sorted(found[user] for user in chosen)
    assert found[chosen[0]] == min(found.values())
    assert count == 1 or len(found) < count or found[chosen[-1]] == max(found.values())


@given(activities, st.integers(1, 12), st.randoms())
def test_the_choice_does_not_depend_on_the_order(found: dict[str, int], count: int, random):
    items = list(found.items())
    random.shuffle(items)
    assert choose_users(dict(items), count) == choose_users(found, count)


def test_the_choice_is_even_on_a_logarithmic_scale():
    chosen = choose_users({f"u{number:04}": number for number in range(1_000)}, 4)
    assert [int(user[1:]) for user in chosen] == [0, 9, 99, 999]
    assert choose_users({}, 3) == []


class _Fixed(tf.Module):
    """Recommends the same titles to everybody; the list ends after four of them."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def serve(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.shape(examples)[0]
        return {
            "item_ids": tf.tile([["i3", "i1", "i2", "i9", ""]], [rows, 1]),
            "scores": tf.tile([[4.0, 3.0, 2.0, 1.0, -math.inf]], [rows, 1]),
        }


def write_records(folder: Path, rows: list[dict[str, list]]) -> None:
    folder.mkdir()
    with tf.io.TFRecordWriter(str(folder / "data_tfrecord-00000-of-00001.gz"), "GZIP") as writer:
        for row in rows:
            example = tf.train.Example()
            for name, values in row.items():
                feature = example.features.feature[name]
                if isinstance(values[0], int):
                    feature.int64_list.value.extend(values)
                else:
                    feature.bytes_list.value.extend(value.encode() for value in values)
            writer.write(example.SerializeToString())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[ExampleUser]:
    folder = tmp_path_factory.mktemp("examples")
    history = [f"h{number}" for number in range(7)]
    heavy: dict[str, list] = {
        "user_id": ["heavy"],
        "history_item_ids": history,
        "seen_item_ids": history,
        "gender": ["F"],
        "age": [30],
    }
    write_records(
        folder / "test",
        [
            {**heavy, "item_id": ["i2"], "timestamp": [200]},
            {**heavy, "item_id": ["i1"], "timestamp": [100]},
            {**heavy, "item_id": ["i5"], "timestamp": [100]},
            {"user_id": ["new"], "item_id": ["i7"], "timestamp": [86_400 * 365]},
        ],
    )
    write_records(
        folder / "catalogue",
        [
            {"item_id": ["i1"], "title": [HOSTILE], "release_year": [1995], "genres": ["Action", "Drama"]},
            {"item_id": ["i3"]},
            {"item_id": ["h6"], "title": ["Six"]},
        ],
    )
    module = _Fixed()
    tf.saved_model.save(module, str(folder / "model"), signatures={"serving_default": module.serve})
    return example_users(folder / "test", folder / "catalogue", folder / "model", COLUMNS)


def test_users_are_told_of_at_their_first_event(found: list[ExampleUser]):
    new, heavy = found
    assert (new.user_id, new.activity, new.day, new.last_titles, new.profile) == ("new", 0, "1971-01-01", (), "")
    assert (heavy.user_id, heavy.activity, heavy.day) == ("heavy", 7, "1970-01-01")
    assert heavy.profile == "age 30, gender F"
    assert [title.name for title in heavy.last_titles] == ["Six", "h5", "h4", "h3", "h2"], "the latest first"


def test_what_was_taken_is_marked(found: list[ExampleUser]):
    new, heavy = found
    assert [(one.title.item_id, one.score, one.taken) for one in heavy.recommendations] == [
        ("i3", 4.0, ""),
        ("i1", 3.0, "next"),
        ("i2", 2.0, "later"),
        ("i9", 1.0, ""),
    ]
    assert [(title.item_id, place) for title, place in heavy.taken_next] == [("i1", 2), ("i5", None)]
    assert heavy.taken_later == 1
    assert [place for _, place in new.taken_next] == [None]


def test_titles_have_names_and_details_where_the_catalogue_has_them(found: list[ExampleUser]):
    first, second = found[1].recommendations[:2]
    assert (first.title.name, first.title.details) == ("i3", "")
    assert (second.title.name, second.title.details) == (HOSTILE, "1995 · Action, Drama")
