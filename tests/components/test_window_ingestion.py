"""A rolling window of spans: each is ingested once, its histories reach back, and they make one artifact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tfx import v1 as tfx
from tfx.orchestration import metadata

from pipeline.components.interaction_example_gen import InteractionExampleGen
from tests.components.example_gen_runs import make_data, read_split, to_dict, write_tables

START = 1_000_000_000
WEEK = 7 * 86_400
USERS = [["u1", 20], ["u2", 30]]


def _write_span(root: Path, number: int, items: int = 6) -> list[list]:
    """Writes a week of 20 interactions; returns them."""
    rows = [[f"u{1 + n % 2}", f"i{n % items}", START + number * WEEK + n * 100, float(1 + n % 5)] for n in range(20)]
    catalogue = [[f"i{n}", 1990 + n, "Drama"] for n in range(items)]
    write_tables(root / f"span-{number}", rows, catalogue, USERS)
    return rows


class _Ingestion:
    """Runs a pipeline of the one component in a workspace."""

    def __init__(self, root: Path, **window: int) -> None:
        self.root = root
        self._window = window
        self._database = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(root / "metadata.sqlite"))

    def run(self) -> tfx.types.standard_artifacts.Examples:
        data = make_data(self.root / "source" / "span-{SPAN}", window=self._window)
        example_gen = InteractionExampleGen(
            data,
            str(self.root / "rejected"),
            span_store=str(self.root / "spans"),
            newest_span=self._window.get("newest"),
        )
        tfx.orchestration.LocalDagRunner().run(
            tfx.dsl.Pipeline(
                pipeline_name="ingestion",
                pipeline_root=str(self.root / "artifacts"),
                components=[example_gen],
                enable_cache=True,
                metadata_connection_config=self._database,
            )
        )
        with metadata.Metadata(self._database) as handle:
            (*_, latest) = sorted(handle.store.get_artifacts_by_type("Examples"), key=lambda artifact: artifact.id)
        artifact = tfx.types.standard_artifacts.Examples()
        artifact.set_mlmd_artifact(latest)
        return artifact


def read_all(artifact: tfx.types.standard_artifacts.Examples) -> dict[str, list[dict]]:
    splits = ("train", "eval", "test")
    return {split: [to_dict(example) for example in read_split(artifact.uri, split)] for split in splits}


def _times(examples: dict) -> dict[str, list[int]]:
    return {split: sorted(example["timestamp"][0] for example in rows) for split, rows in examples.items()}


def test_a_window_rolls_on_and_each_span_is_ingested_once(tmp_path):
    source = tmp_path / "source"
    spans = {number: _write_span(source, number) for number in (1, 2)}
    ingestion = _Ingestion(tmp_path, spans=2)
    first = ingestion.run()
    assert first.get_string_custom_property("window") == "1 to 2"
    assert (first.get_int_custom_property("spans_ingested"), first.get_int_custom_property("spans_kept")) == (2, 0)
    times = {number: [row[2] for row in rows] for number, rows in spans.items()}
    # All of the older span is for training, the newest one is cut 80 : 10 : 10.
    assert _times(read_all(first)) == {
        "train": sorted(times[1] + times[2][:16]),
        "eval": times[2][16:18],
        "test": times[2][18:],
    }

    spans[3] = _write_span(source, 3, items=4)
    times[3] = [row[2] for row in spans[3]]
    second = ingestion.run()
    assert second.get_int_custom_property("span") == 3
    assert second.get_string_custom_property("window") == "2 to 3"
    assert (second.get_int_custom_property("spans_ingested"), second.get_int_custom_property("spans_kept")) == (1, 1)
    examples = read_all(second)
    assert _times(examples) == {
        "train": sorted(times[2] + times[3][:16]),
        "eval": times[3][16:18],
        "test": times[3][18:],
    }
    report = json.loads(Path(second.uri, "ingestion_report.json").read_text())
    assert report["interactions_accepted"] == 40
    assert [report[f"num_examples_{split}"] for split in ("train", "eval", "test")] == [36, 2, 2]
    assert report["test_start_timestamp"] == times[3][18]
    assert report["interactions_duplicates"] == report["interactions_rejected"] == report["unknown_users"] == 0

    # Histories reach back one span, strictly before the interaction, also for titles that are gone since.
    rows = [row for number in (2, 3) for row in spans[number] if row[0] == "u1"]
    (last,) = [example for example in examples["test"] if example["user_id"] == [b"u1"]]
    assert last["history_timestamps"] == [row[2] for row in rows[:-1]]
    assert last["history_item_ids"] == [row[1].encode() for row in rows[:-1]]
    # Examples of span 2 are those of the first run, though span 1 has left the window.
    kept = {example["timestamp"][0]: example for example in read_all(first)["train"]}
    again = {example["timestamp"][0]: example for example in examples["train"]}
    assert all(again[time] == kept[time] for time in times[2][:16])
    assert len(again[times[2][0]]["history_timestamps"]) == 10


def test_nothing_new_is_found_in_the_cache_and_a_corrected_old_span_is_not(tmp_path):
    source = tmp_path / "source"
    for number in (1, 2):
        _write_span(source, number)
    ingestion = _Ingestion(tmp_path, spans=2, history_spans=0)
    first = ingestion.run()
    assert ingestion.run().uri == first.uri
    _write_span(source, 1, items=5)
    corrected = ingestion.run()
    assert corrected.uri != first.uri
    assert corrected.get_int_custom_property("spans_ingested") == 1
    assert {
        example["item_id"][0] for example in read_all(corrected)["train"] if example["timestamp"][0] < START + 2 * WEEK
    } == {f"i{n}".encode() for n in range(5)}


def test_an_earlier_run_can_be_repeated(tmp_path):
    for number in (1, 2, 3):
        _write_span(tmp_path / "source", number)
    latest = _Ingestion(tmp_path, spans=2).run()
    earlier = _Ingestion(tmp_path, spans=2, newest=2).run()
    assert latest.get_string_custom_property("window") == "2 to 3"
    assert earlier.get_string_custom_property("window") == "1 to 2"
    assert earlier.get_int_custom_property("spans_kept") == 1


def test_a_span_that_fails_keeps_nothing_and_names_its_rejected_rows(tmp_path):
    _write_span(tmp_path / "source", 1)
    _write_span(tmp_path / "source", 2)
    with (tmp_path / "source" / "span-2" / "interactions.tsv").open("a", encoding="utf-8") as file:
        file.write("u1\tunknown\t1000000000\t3\n")
    with pytest.raises(Exception, match=r"(?s)interactions: 1 of 21 rows .*rejected/span-2/interactions\.jsonl"):
        _Ingestion(tmp_path, spans=2).run()
    kept = [path.name.rsplit("-", 1)[0] for path in (tmp_path / "spans").iterdir()]
    assert kept == ["span-00000001"]


def test_windows_need_spans(tmp_path):
    with pytest.raises(ValueError, match=r"window needs a directory of spans, such as .*; received '.*/fixed'"):
        make_data(tmp_path / "fixed", window={"spans": 2})
