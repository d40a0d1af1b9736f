"""Reading whole files gives what reading record by record gives."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow
import pytest
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.util import tfxio_utils
from tfx.proto import example_gen_pb2
from tfx_bsl.tfxio.tf_example_record import TFExampleRecord

from pipeline.components.example_shards import ShardFile, publish_shard
from pipeline.components.whole_file_examples import WholeFileExamples, read_whole_files

SCHEMA = text_format.Parse(
    'feature { name: "words" type: BYTES } feature { name: "number" type: INT } feature { name: "weight" type: FLOAT }',
    schema_pb2.Schema(),
)
Row = tuple[list[bytes], int | None, float]
ROWS = st.tuples(
    st.lists(st.binary(max_size=5), max_size=4),
    st.none() | st.integers(-(2**63), 2**63 - 1),
    st.floats(width=32, allow_nan=False),
)


def _encode(row: Row) -> bytes:
    words, number, weight = row
    example = tf.train.Example()
    if words:
        example.features.feature["words"].bytes_list.value.extend(words)
    if number is not None:
        example.features.feature["number"].int64_list.value.append(number)
    example.features.feature["weight"].float_list.value.append(weight)
    return example.SerializeToString()


def _write(directory: Path, files: list[list[Row]]) -> str:
    for number, rows in enumerate(files):
        with ShardFile(str(directory)) as file:
            for row in rows:
                file.write(_encode(row))
        publish_shard(file.path, f"{directory}/data_tfrecord", number, len(files))
    return f"{directory}/*"


_BATCHES: list[pyarrow.RecordBatch] = []


def _collect(batch: pyarrow.RecordBatch) -> None:
    _BATCHES.append(batch)


def _read(tfxio: TFExampleRecord, batch_size: int | None = None) -> list[pyarrow.RecordBatch]:
    _BATCHES.clear()
    with beam.Pipeline(options=PipelineOptions(["--direct_running_mode=in_memory"])) as pipeline:
        _ = pipeline | tfxio.BeamSource(batch_size) | beam.Map(_collect)
    return list(_BATCHES)


def _rows(batches: list[pyarrow.RecordBatch]) -> list[str]:
    return sorted(str(sorted(row.items())) for batch in batches for row in batch.to_pylist())


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(st.lists(ROWS, max_size=7), min_size=1, max_size=3))
def test_rows_are_those_that_beam_reads(tmp_path_factory: pytest.TempPathFactory, files: list[list[Row]]):
    pattern = _write(tmp_path_factory.mktemp("files") / "Split-train", files)
    ours, theirs = WholeFileExamples(pattern, schema=SCHEMA), TFExampleRecord(pattern, schema=SCHEMA)

    assert ours.ArrowSchema() == theirs.ArrowSchema()
    batches = _read(ours, batch_size=3)
    assert all(batch.schema == ours.ArrowSchema() for batch in batches)
    assert _rows(batches) == _rows(_read(theirs))
    sizes = [[min(3, len(rows) - start) for start in range(0, len(rows), 3)] for rows in files]
    assert sorted(batch.num_rows for batch in batches) == sorted(itertools.chain.from_iterable(sizes))


def test_columns_are_chosen_and_raw_records_attached_as_beam_does(tmp_path: Path):
    pattern = _write(tmp_path / "Split-train", [[([b"a", b"b"], 1, 0.5), ([], None, 1.5)]])
    ours, theirs = (
        kind(pattern, schema=SCHEMA, raw_record_column_name="raw") for kind in (WholeFileExamples, TFExampleRecord)
    )
    assert _rows(_read(ours)) == _rows(_read(theirs))
    assert ours.ArrowSchema() == theirs.ArrowSchema()
    assert _rows(_read(ours.Project(["words"]))) == _rows(_read(theirs.Project(["words"])))
    assert ours.Project(["words"]).ArrowSchema() == theirs.Project(["words"]).ArrowSchema()


def test_without_a_schema_types_are_inferred_as_beam_does(tmp_path: Path):
    pattern = _write(tmp_path / "Split-train", [[([b"a"], 1, 0.5), ([], None, 1.5)]])
    # By batch, which are others there: a column is only in those in which it has values.
    ours, theirs = (
        sorted(
            str(sorted((name, values) for name, values in row.items() if values is not None))
            for batch in _read(kind(pattern))
            for row in batch.to_pylist()
        )
        for kind in (WholeFileExamples, TFExampleRecord)
    )
    assert ours == theirs
    assert len(ours) == 2


def test_rows_know_the_file_that_they_are_from(tmp_path: Path):
    pattern = _write(tmp_path / "Split-train", [[([], place, 0.0)] * 5 for place in range(12)])
    numbered = WholeFileExamples(pattern, schema=SCHEMA).numbered("file").Project(["number"])

    batches = _read(numbered, batch_size=2)
    assert all(batch.schema == numbered.ArrowSchema() for batch in batches)
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert len(rows) == 60
    assert all(row["file"] == row["number"] for row in rows)


def test_a_broken_file_fails_and_is_named(tmp_path: Path):
    _write(tmp_path / "Split-train", [[([], 1, 0.0)] * 50])
    (path,) = (tmp_path / "Split-train").iterdir()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(Exception, match=path.name):
        _read(WholeFileExamples(str(path), schema=SCHEMA))


def test_no_file_gives_no_row(tmp_path: Path):
    assert _read(WholeFileExamples(f"{tmp_path}/*", schema=SCHEMA)) == []


def test_tfx_reads_whole_files_where_it_is_told_to_and_nowhere_else(tmp_path: Path):
    def make() -> Any:
        return tfxio_utils.make_tfxio(
            [f"{tmp_path}/*"], ["test"], example_gen_pb2.PayloadFormat.FORMAT_TF_EXAMPLE, schema=SCHEMA
        )

    with read_whole_files():
        assert type(make()) is WholeFileExamples
    assert type(make()) is TFExampleRecord
