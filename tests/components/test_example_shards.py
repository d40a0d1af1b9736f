"""Shards: their order, and what an interrupted attempt leaves behind."""

from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.components.example_shards import WriteShards
from tests.components.example_gen_runs import read_records

EXAMPLES = [(b"%d" % (7 * number % 10), b"example %d" % number) for number in range(10)]


def write(batches: list[tuple[tuple[int, int], Any]], directory: Path) -> None:
    with beam.Pipeline(options=PipelineOptions(["--direct_running_mode=in_memory"])) as pipeline:
        _ = pipeline | beam.Create(batches) | WriteShards(str(directory))


def test_a_shard_is_sorted_however_it_was_batched(tmp_path: Path):
    write([((0, 2), EXAMPLES[:3]), ((1, 2), EXAMPLES[8:]), ((0, 2), EXAMPLES[3:8])], tmp_path / "Split-train")

    expected = [serialized for part in (EXAMPLES[:8], EXAMPLES[8:]) for _, serialized in sorted(part)]
    assert read_records(tmp_path, "train") == expected


def test_readers_of_a_split_find_nothing_of_an_interrupted_attempt(tmp_path: Path):
    directory = tmp_path / "Split-train"
    with pytest.raises(Exception, match="incompatible function arguments"):
        write([((0, 1), [*EXAMPLES, (b"x", None)])], directory)
    assert list(tmp_path.glob(".*.tmp")), "the attempt had begun to write"
    assert list(directory.iterdir()) == []

    write([((0, 1), EXAMPLES)], directory)
    assert [path.name for path in directory.iterdir()] == ["data_tfrecord-00000-of-00001.gz"]
