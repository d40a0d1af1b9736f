"""Logs of impressions: what InteractionExampleGen makes of rows that were shown, taken or not."""

import math

import pydantic
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipeline.components.column_values import parse_position, parse_propensities
from pipeline.components.interaction_example_gen import InteractionExampleGen
from pipeline.components.source_storage import DataQualityError
from pipeline.components.temporal_split import IMPRESSION_SPLIT_NAMES, SPLIT_NAMES
from tests.components.example_gen_runs import (
    make_data,
    read_rejected,
    read_split,
    run_example_gen,
    to_dict,
    write_tsv,
)

START = 900_000_000
ITEMS = [[f"i{number}", 1990 + number, "Drama"] for number in range(6)]
HEADER = ["user", "item", "time", "rating", "propensity", "position"]
# User, title, time, feedback (0: shown and not taken), propensity in percent (0: not shown, then with feedback).
ROWS = st.tuples(
    st.integers(0, 4), st.integers(0, 5), st.integers(0, 30), st.integers(0, 5), st.integers(0, 100), st.integers(1, 3)
).map(lambda row: row if row[3] or row[4] else (*row[:4], 50, row[5]))
# Every split gets some of these, whatever is drawn.
ALWAYS = [(n % 5, n % 6, n, n % 2, 50, 1 + n % 3) for n in range(31)]
LOGS = st.lists(ROWS, max_size=60).map(lambda log: log + ALWAYS)


def impression_data(folder, separator=None, **changes):
    columns = {
        **{"user_id": "user", "item_id": "item", "timestamp": "time", "rating": "rating", "position": "position"},
        "propensity": {"source": "propensity", "separator": separator},
    }
    table = {"pattern": "interactions.tsv", "format": "tsv", "columns": columns}
    fields = {"interactions": table, "users": None, "propensity": "propensity", "position": "position"}
    return make_data(folder, **{**fields, **changes})


def write_log(folder, rows):
    write_tsv(folder / "interactions.tsv", HEADER, rows)
    write_tsv(folder / "items.tsv", ["item", "year", "genres"], ITEMS)


def run(data, folder):
    return run_example_gen(InteractionExampleGen(data, str(folder / "rejected")), folder / "out")


def read(artifact, names):
    return {name: [to_dict(example) for example in read_split(artifact.uri, name)] for name in names}


def to_rows(log):
    return [
        [f"u{user}", f"i{item}", START + 86_000 * time, rating or None, percent / 100 or None, position]
        for user, item, time, rating, percent, position in log
    ]


@settings(max_examples=3, deadline=None, phases=[Phase.generate])
@given(LOGS)
def test_interactions_do_not_know_of_what_was_not_taken(tmp_path_factory, log):
    rows = to_rows(log)
    folder, other = tmp_path_factory.mktemp("all"), tmp_path_factory.mktemp("taken")
    write_log(folder, rows)
    write_log(other, [row for row in rows if row[3] is not None])
    artifact = run(impression_data(folder, history_length=3), folder)
    taken = run(impression_data(other, history_length=3), other)
    for name in SPLIT_NAMES:
        assert read(artifact, [name]) == read(taken, [name])
    cuts = [artifact.get_int_custom_property(f"{name}_start_timestamp") for name in ("eval", "test")]
    interactions = [example for examples in read(artifact, SPLIT_NAMES).values() for example in examples]
    expected = sorted(
        (
            IMPRESSION_SPLIT_NAMES[sum(row[2] >= cut for cut in cuts)],
            *(row[0], row[1], row[2], row[3] or 0, round(row[4], 5), row[5]),
        )
        for row in rows
        if row[4] is not None
    )
    received = []
    for name, examples in read(artifact, IMPRESSION_SPLIT_NAMES).items():
        assert artifact.get_int_custom_property(f"num_examples_{name}") == len(examples)
        for example in examples:
            (user,), (item,), (time,) = (example[key] for key in ("user_id", "item_id", "timestamp"))
            assert example["impression"] == [1] and example["year"] == [1990 + int(item[1:])]
            past = {
                (other["timestamp"][0], other["item_id"][0])
                for other in interactions
                if other["user_id"] == [user] and other["timestamp"][0] < time
            }
            history = list(zip(example.get("history_timestamps", []), example.get("history_item_ids", []), strict=True))
            assert history == sorted(past)[-3:] and set(example.get("seen_item_ids", [])) == {item for _, item in past}
            (rating,) = example.get("rating", [0])
            (propensity,), (position,) = example["propensity"], example["position"]
            received.append((name, user.decode(), item.decode(), time, rating, round(propensity, 5), position))
    assert sorted(received) == expected
    assert artifact.get_int_custom_property("impressions") == len(expected)
    assert artifact.get_int_custom_property("impressions_not_taken") == sum(row[3] is None for row in rows)
    assert not any("impression" in example for example in interactions)


def even_log(count=60):
    """A log in which every fourth row is organic and every third of the others was not taken."""
    return [
        [f"u{n % 3}", f"i{n % 6}", START + n, None if n % 3 == 1 and n % 4 else 1 + n % 5, 0.5 if n % 4 else None, 1]
        for n in range(count)
    ]


def test_a_log_without_propensities_is_ingested_as_ever(tmp_path):
    rows = [row for row in even_log() if row[3] is not None]
    write_log(tmp_path, rows)
    table = impression_data(tmp_path).interactions
    plain = impression_data(tmp_path, propensity=None, position=None)
    artifact = run(plain, tmp_path)
    assert artifact.split_names == '["train", "eval", "test"]'
    assert not any("impressions" in name for name in artifact.mlmd_artifact.custom_properties)
    with_propensities = run(impression_data(tmp_path), tmp_path / "again")
    assert with_propensities.split_names.count("impressions_") == 3
    for name in SPLIT_NAMES:
        assert read(artifact, [name]) == read(with_propensities, [name])
    assert plain.interactions == table


def test_malformed_propensities_and_positions_are_rejected(tmp_path):
    bad = [
        ("0", 1, "propensity: '0' is not a probability in (0, 1]"),
        ("-0.5", 1, "propensity: '-0.5' is not a probability in (0, 1]"),
        ("1.01", 1, "propensity: '1.01' is not a probability in (0, 1]"),
        ("1e-60", 1, "propensity: '1e-60' is not a probability in (0, 1]"),
        ("nan", 1, "propensity: 'nan' is not a finite number of 32 bits"),
        ("0.5", 0, "position: 0 is no position; expected 1 or more"),
        ("0.5", "1.5", "position: '1.5' is not an integer of 64 bits"),
        ("0.5", None, "position: is empty, though the row has a propensity"),
    ]
    rows = even_log()
    rows += [["u1", "i1", START, 3, propensity, position] for propensity, position, _ in bad]
    rows += [["u1", "i1", START, None, None, 1]]
    write_log(tmp_path, rows)
    artifact = run(impression_data(tmp_path, max_rejected_share=0.5), tmp_path)
    assert artifact.get_int_custom_property("interactions_rejected") == len(bad) + 1
    reasons = [reason for _, reason, _ in read_rejected(tmp_path / "rejected" / "interactions.jsonl")]
    assert reasons == [*(reason for *_, reason in bad), "rating: is empty, and so is propensity"]


def test_propensities_at_several_positions(tmp_path):
    rows = [[*row[:4], "0.2|0|0.7" if row[4] else None, (1, 3)[n % 2]] for n, row in enumerate(even_log())]
    rows += [["u1", "i1", START, 1, "0.2|0|0.7", 2], ["u1", "i1", START, 1, "0.2|0.3", 3]]
    write_log(tmp_path, rows)
    artifact = run(impression_data(tmp_path, separator="|", max_rejected_share=0.5), tmp_path)
    example = to_dict(read_split(artifact.uri, "impressions_train")[0])
    assert example["propensity"] == pytest.approx([0.2, 0.0, 0.7])
    reasons = [reason for _, reason, _ in read_rejected(tmp_path / "rejected" / "interactions.jsonl")]
    assert reasons == [
        "propensity: '0.2|0|0.7' is not a probability in (0, 1]",
        "propensity: 2 probabilities do not reach to position 3; received [0.2, 0.3]",
    ]


def test_values_of_typed_files():
    assert parse_propensities([0.25, 0.0], ",", 1) == (0.25, 0.0) and parse_propensities(1, None, None) == (1.0,)
    assert parse_propensities(None, None, 1) == () and parse_position(None) is None and parse_position(2.0) == 2
    for cell, separator in (
        (math.nan, None),
        ([0.5, math.nan], ","),
        ([0.5, 0.5], None),
        (True, ","),
        (0.0, None),
        ("0.5,,0.2", ","),
        ([0.5, None, 0.2], ","),
    ):
        if cell is True:
            assert parse_propensities(cell, separator, 1) == (1.0,)
            continue
        with pytest.raises(ValueError, match=r"nan|one value|probability"):
            parse_propensities(cell, separator, 1)
    with pytest.raises(ValueError, match="one value"):
        parse_position([1, 2])


def test_a_split_without_impressions_fails(tmp_path):
    rows = [row if n < 40 else [*row[:3], row[3] or 1, None, 1] for n, row in enumerate(even_log())]
    write_log(tmp_path, rows)
    with pytest.raises(DataQualityError, match=r"no impressions fall into the splits \['impressions_eval', "):
        run(impression_data(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"propensity": "chance"}, "propensity must name one of interactions.columns"),
        ({"propensity": "rating"}, "propensity must name one of interactions.columns"),
        ({"propensity": None}, "position needs a propensity column; received 'position' and no propensity"),
        ({"feedback": None}, "propensity needs a feedback column; received 'propensity' and no feedback"),
        ({"position": "propensity"}, "position and propensity must be two columns"),
        ({"separator": "|", "position": None}, "expected a position column, too"),
        ({"interactions": {"propensity": {"source": "p", "type": "string"}}}, "type must be float or unset"),
        ({"interactions": {"position": {"source": "p", "separator": "|"}}}, "must hold one value"),
        ({"interactions": {"impression": "x"}}, r"received \['impression'\]"),
    ],
)
def test_configurations_that_fit_no_log_are_refused(tmp_path, changes, message):
    table = impression_data(tmp_path, changes.get("separator")).interactions.model_dump()
    changed = {name: value for name, value in changes.items() if name not in ("interactions", "separator")}
    table["columns"] |= changes.get("interactions", {})
    with pytest.raises(pydantic.ValidationError, match=message):
        impression_data(tmp_path, **{"interactions": table, **changed})
