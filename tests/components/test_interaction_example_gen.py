"""InteractionExampleGen, run on Beam: examples, outcomes of rows, formats, spans and caching."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tfx import v1 as tfx
from tfx.orchestration import metadata

from pipeline.components.interaction_example_gen import InteractionExampleGen
from pipeline.components.source_storage import DataQualityError
from pipeline.data_config import TableConfig
from tests.components.example_gen_runs import (
    Table,
    make_data,
    read_records,
    read_rejected,
    read_split,
    run_example_gen,
    to_dict,
    write_table,
    write_tables,
    write_tsv,
)

START = 900_000_000
ITEMS = [[f"i{number}", 1990 + number, "Drama|War"] for number in range(6)]
SPLITS = ("train", "eval", "test")
LOGS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 60), st.integers(1, 5)), min_size=12, max_size=60
)


def run(data, folder):
    return run_example_gen(InteractionExampleGen(data, str(folder / "rejected")), folder / "out")


def read_all(artifact):
    return {split: [to_dict(example) for example in read_split(artifact.uri, split)] for split in SPLITS}


def sorted_examples(examples):
    return {
        split: sorted(rows, key=lambda row: (row["timestamp"], row["user_id"], row["item_id"]))
        for split, rows in examples.items()
    }


def reference(log, history_length):
    """The examples of a log, from the definitions: no grouping, no encoding, no Beam."""
    events: list[tuple[int, int, int, int]] = []
    for user, item, time, rating in log:
        if not any((user, item, time) == event[:3] for event in events):
            events.append((user, item, time, rating))
    ordered = sorted(event[2] for event in events)
    cuts = ordered[len(events) * 8 // 10], ordered[len(events) * 9 // 10]
    examples: dict[str, list[dict]] = {split: [] for split in SPLITS}
    for user, item, time, rating in events:
        example = {
            "user_id": [f"u{user}".encode()],
            "item_id": [f"i{item}".encode()],
            "timestamp": [START + 86_000 * time],
            "rating": [float(rating)],
            "year": [1990 + item],
            "genres": [b"Drama", b"War"],
        }
        if user:
            example["age"] = [20 + user]
        past = sorted((e for e in events if e[0] == user and e[2] < time), key=lambda e: (e[2], e[1]))
        if past:
            recent = past[-history_length:]
            example["history_item_ids"] = [f"i{e[1]}".encode() for e in recent]
            example["history_timestamps"] = [START + 86_000 * e[2] for e in recent]
            example["history_rating"] = [float(e[3]) for e in recent]
            example["seen_item_ids"] = [f"i{i}".encode() for i in dict.fromkeys(e[1] for e in past)]
        examples["train" if time < cuts[0] else "eval" if time < cuts[1] else "test"].append(example)
    return events, examples


@settings(max_examples=3, deadline=None, phases=[Phase.generate])
@given(LOGS)
def test_examples_equal_the_reference(tmp_path_factory, log):
    folder = tmp_path_factory.mktemp("log")
    rows = [[f"u{user}", f"i{item}", START + 86_000 * time, rating] for user, item, time, rating in log]
    write_tables(folder, rows, ITEMS, [[f"u{user}", 20 + user] for user in range(1, 6)])
    events, expected = reference(log, history_length=3)
    data = make_data(folder, history_length=3)
    if not all(expected.values()):
        with pytest.raises(DataQualityError, match="no events fall into the splits"):
            run(data, folder)
        return
    artifact = run(data, folder)
    assert sorted_examples(read_all(artifact)) == sorted_examples(expected)
    assert artifact.get_int_custom_property("interactions_rows") == len(log)
    assert artifact.get_int_custom_property("interactions_duplicates") == len(log) - len(events)
    assert artifact.get_int_custom_property("unknown_users") == any(user == 0 for user, *_ in log)
    for split in SPLITS:
        assert artifact.get_int_custom_property(f"num_examples_{split}") == len(expected[split])


def plain_log(count=20):
    return [["u1", f"i{number % 6}", START + number, 1 + number % 5] for number in range(count)]


JOINS = pytest.mark.parametrize("broadcast_mebibytes", [256, 0], ids=["broadcast", "shuffle"])


@JOINS
def test_outcomes_of_rows(tmp_path, broadcast_mebibytes):
    log = plain_log()
    log += [
        ["u1", "i0", START, 5],  # Repeats the first row.
        ["u9", "i1", START + 3, 2],  # Has no profile.
        ["u1", "i99", START, 1],
        ["", "i1", START, 1],
        ["u1", "", START, 1],
        ["u1", "i1", "", 1],
        ["u1", "i1", "soon", 1],
        ["u1", "i1", START * 1000, 1],
        ["u1", "i1", START, "good"],
        ["u1", "i1", START, None],
        ["u1", "i1", START],
    ]
    write_tables(tmp_path, log, ITEMS, [["u1", 20], ["u2", "twenty"], ["u1", 30]])
    with (tmp_path / "interactions.tsv").open("ab") as file:
        file.write(b"u1\ti\xff\t900000000\t1\n")
    data = make_data(tmp_path, max_rejected_share=0.5, broadcast_mebibytes=broadcast_mebibytes)
    artifact = run(data, tmp_path)
    assert not Path(artifact.uri, ".shuffle").exists()
    reasons = {line: reason for line, reason, _ in read_rejected(tmp_path / "rejected" / "interactions.jsonl")}
    assert list(reasons) == list(range(24, 34))
    for line, reason in (
        (24, "item_id: unknown item 'i99'"),
        (25, "user_id: is empty"),
        (26, "item_id: is empty"),
        (27, "timestamp: is empty"),
        (28, "timestamp: 'soon' is not a number of seconds"),
        (29, "looks like milliseconds"),
        (30, "rating: 'good' is not a finite number"),
        (31, "rating: is empty"),
        (32, "has 3 fields; the header has 4"),
        (33, "not valid UTF-8"),
    ):
        assert reason in reasons[line]
    assert read_rejected(tmp_path / "rejected" / "users.jsonl") == [
        (4, f"user_id: second row of 'u1'; the first is {tmp_path}/users.tsv:2", "u1\t30")
    ]
    counts = {
        "interactions_rows": 32,
        "interactions_rejected": 10,
        "interactions_duplicates": 1,
        "interactions_accepted": 21,
        "unknown_users": 1,
        "users_rows": 3,
        "users_rejected": 1,
        "items_rejected": 0,
        "eval_start_timestamp": START + 15,
        "test_start_timestamp": START + 17,
        "num_examples_train": 16,
    }
    assert {name: artifact.get_int_custom_property(name) for name in counts} == counts
    examples = [example for rows in read_all(artifact).values() for example in rows]
    first = min(examples, key=lambda example: example["timestamp"])
    assert first["rating"] == [1.0] and "history_item_ids" not in first  # The first of the repeated rows.
    # One age that is no number makes a column of strings, for the schema to refuse.
    assert {tuple(example.get("age", ())) for example in examples} == {(b"20",), ()}
    assert [example["item_id"] for example in examples if "age" not in example] == [[b"i1"]]


def test_too_many_rejected_rows_fail(tmp_path):
    log = [*plain_log(), ["u1", "i1", "soon", 1], ["u1", "i7", START, 1]]
    write_tables(tmp_path, log, ITEMS, [["u1", 20]])
    rejected = tmp_path / "rejected" / "interactions.jsonl"
    rejected.parent.mkdir()
    rejected.write_text("of the run before\n")
    with pytest.raises(DataQualityError) as error:
        run(make_data(tmp_path, max_rejected_share=0.05), tmp_path)
    lines = str(error.value).splitlines()
    assert lines[0] == (
        "interactions: 2 of 22 rows (9.09%) were rejected; at most 5.00% may be (data.max_rejected_share). The first:"
    )
    assert lines[1] == f"  {tmp_path}/interactions.tsv:22: timestamp: 'soon' is not a number of seconds"
    assert "interactions.tsv:23: item_id: unknown item 'i7'" in lines[2]
    assert lines[3] == f"All of them: {rejected}"
    assert [line for line, _, _ in read_rejected(rejected)] == [22, 23]
    assert [path.name for path in rejected.parent.iterdir() if path.name.endswith(".tmp")] == []


def test_unusable_files_fail(tmp_path):
    write_tables(tmp_path, [], ITEMS, [["u1", 20]])
    with pytest.raises(DataQualityError, match="there is no interaction to learn from"):
        run(make_data(tmp_path), tmp_path)
    write_tsv(tmp_path / "interactions.tsv", ["user,item,time,rating"], [])
    with pytest.raises(DataQualityError, match=r"It has \['user,item,time,rating'\]; is the delimiter '\\t' right\?"):
        run(make_data(tmp_path), tmp_path)
    (tmp_path / "interactions.tsv.gz").write_bytes(gzip.compress(b"user\titem\ttime\trating\n" * 99)[:-9])
    cut_off = make_data(tmp_path).model_copy(
        update={"interactions": with_suffix(make_data(tmp_path).interactions, ".tsv.gz")}
    )
    with pytest.raises(DataQualityError, match=r"/interactions\.tsv\.gz: cannot be read to its end: "):
        run(cut_off, tmp_path)
    (tmp_path / "interactions.tsv").unlink()
    with pytest.raises(DataQualityError, match=r"interactions.pattern: no file matches '.*/interactions.tsv'"):
        run(make_data(tmp_path), tmp_path)


def test_all_formats_give_the_same_examples_in_the_same_order(tmp_path):
    count = 40
    log: Table = {
        "user": [f"u{number % 3}" for number in range(count)],
        "item": [f"i{number * number % 5}" for number in range(count)],
        "time": [START + number // 2 * 7 for number in range(count)],
        "rating": [1.5 + number % 4 for number in range(count)],
        "device": ["tv", "web"] * (count // 2),
    }
    items: Table = {
        "item": [f"i{number}" for number in range(5)],
        "year": [1990, None, 1992, 1993, 1994],
        "genres": [["Drama", "War"], ["Film-Noir"], [], ["Sci-Fi"], ["War"]],
    }
    users: Table = {"user": ["u0", "u1"], "age": [20, 31]}
    outputs = []
    for suffix in (".csv", ".tsv.gz", ".parquet", ".tfrecord.gz"):
        folder = tmp_path / suffix
        folder.mkdir()
        for name, table in (("interactions", log), ("items", items), ("users", users)):
            write_table(folder / f"{name}{suffix}", table, separator="|")
        data = make_data(folder)
        data = data.model_copy(
            update={name: with_suffix(getattr(data, name), suffix) for name in ("interactions", "items", "users")}
        )
        outputs.append(read_all(run(data, folder)))
    assert outputs[0]["train"][0].keys() >= {"device", "genres", "history_rating"}
    assert sum(map(len, outputs[0].values())) == len({*zip(log["user"], log["item"], log["time"], strict=True)})
    assert all(output == outputs[0] for output in outputs)
    shuffled = run(data.model_copy(update={"broadcast_mebibytes": 0}), folder / "shuffled")
    for split in SPLITS:
        assert read_records(shuffled.uri, split) == read_records(folder / "out", split)
    times = [example["timestamp"][0] for example in outputs[0]["train"]]
    assert times != sorted(times), "examples are shuffled"


def with_suffix(table, suffix):
    columns = dict(table.columns)
    if "rating" in columns:
        columns["device"] = columns["rating"].model_copy(update={"source": "device"})
    pattern = table.pattern.replace(".tsv", suffix)
    return TableConfig(pattern=pattern, format=suffix.split(".")[1], columns=columns)


def test_without_users_or_feedback_and_with_several_files_that_differ_in_column_order(tmp_path):
    log = plain_log()
    write_tsv(tmp_path / "interactions-1.tsv", ["user", "item", "time"], [row[:3] for row in log[:10]])
    write_tsv(tmp_path / "interactions-2.tsv", ["time", "x", "item", "user"], [[r[2], 0, r[1], r[0]] for r in log[10:]])
    write_tsv(tmp_path / "items.tsv", ["item", "year", "genres"], ITEMS)
    columns = {"user_id": "user", "item_id": "item", "timestamp": "time"}
    data = make_data(
        tmp_path,
        interactions={"pattern": "interactions-*.tsv", "format": "tsv", "columns": columns},
        users=None,
        feedback=None,
    )
    artifact = run(data, tmp_path)
    examples = sorted_examples(read_all(artifact))
    assert [len(examples[split]) for split in SPLITS] == [16, 2, 2]
    assert examples["test"][-1] == {
        "user_id": [b"u1"],
        "item_id": [b"i1"],
        "timestamp": [START + 19],
        "year": [1991],
        "genres": [b"Drama", b"War"],
        "history_item_ids": [row[1].encode() for row in log[:19]],
        "history_timestamps": [row[2] for row in log[:19]],
        "seen_item_ids": [f"i{number}".encode() for number in range(6)],
    }
    assert not (tmp_path / "rejected" / "users.jsonl").exists()


def test_spans_and_caching_in_a_pipeline(tmp_path):
    source = tmp_path / "source"
    database = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))

    def ingest(**changes):
        """Runs a pipeline of the one component; returns the span and number of rows of every artifact so far."""
        example_gen = InteractionExampleGen(make_data(source / "span-{SPAN}", **changes), str(tmp_path / "rejected"))
        tfx.orchestration.LocalDagRunner().run(
            tfx.dsl.Pipeline(
                pipeline_name="ingestion",
                pipeline_root=str(tmp_path / "artifacts"),
                components=[example_gen],
                enable_cache=True,
                metadata_connection_config=database,
            )
        )
        with metadata.Metadata(database) as handle:
            artifacts = handle.store.get_artifacts_by_type("Examples")
        assert all(Path(artifact.uri, "ingestion_report.json").exists() for artifact in artifacts)
        return [
            (artifact.custom_properties["span"].int_value, artifact.custom_properties["interactions_rows"].int_value)
            for artifact in sorted(artifacts, key=lambda artifact: artifact.id)
        ]

    write_tables(source / "span-9", plain_log(30), ITEMS, [["u1", 20]])
    write_tables(source / "span-10", plain_log(20), ITEMS, [["u1", 20]])
    assert ingest() == [(10, 20)]
    assert ingest() == [(10, 20)]  # Cached.
    write_tsv(source / "span-10" / "users.tsv", ["user", "age"], [["u1", 2000]])
    assert ingest() == [(10, 20), (10, 20)]
    assert ingest(history_length=5) == [(10, 20), (10, 20), (10, 20)]
    report = json.loads(next(tmp_path.glob("artifacts/*/examples/*/ingestion_report.json")).read_text())
    assert report["items_rows"] == 6
