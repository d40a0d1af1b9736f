"""Transform file by file: what is read of a file is transformed and written to a file of its own.

TFX's Transform writes through Beam, whose files depend on how the runner happened to bundle: all examples in a single
one where there is one worker, and in another order each time where there are several. Models are to be the same for the
same data, and fits shuffle large splits file by file, so here the files of a transformed split are those of the split
that it was made from, one by one and in the same order, on every runner.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import apache_beam as beam
import pyarrow
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import types
from tfx.components.transform import executor as transform_executor
from tfx.components.transform.component import Transform
from tfx.dsl.components.base import executor_spec
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from pipeline.components.example_shards import ShardFile, publish_shard
from pipeline.components.whole_file_examples import WholeFileExamples, read_whole_files

_FILE_NUMBER = transform_executor._TRANSFORM_INTERNAL_FEATURE_FOR_KEY
"""The column that passes the number of the file through; of this name, since TFX leaves it out of statistics."""

TransformedBatch = tuple[pyarrow.RecordBatch, Mapping[str, pyarrow.Array]]
"""What tf.Transform returns: the transformed columns, with those passed through; and of the latter those that have one
value for the whole batch."""


class FileByFileProcessor(transform_executor.TransformProcessor):
    """Reads whole files, and writes what was transformed of each to a file of its own."""

    def _RunBeamImpl(self, analyze_data_list: Any, transform_data_list: Any, *further: Any, **named: Any) -> Any:
        """Analyses, transforms and writes; see the base class."""
        for dataset in transform_data_list:
            if isinstance(dataset.tfxio, WholeFileExamples):
                dataset.tfxio = dataset.tfxio.numbered(_FILE_NUMBER)
        return super()._RunBeamImpl(analyze_data_list, transform_data_list, *further, **named)

    @staticmethod
    def _GetTFXIOPassthroughKeys() -> set[str]:
        return {_FILE_NUMBER}

    @staticmethod
    @beam.ptransform_fn
    def _EncodeAndWrite(
        batches: beam.PCollection, schema: schema_pb2.Schema, file_format: str, output_path: str
    ) -> beam.PCollection:
        """Writes the files; see the base class."""
        del file_format  # What is ingested is of one format.
        return (
            batches
            | "Write" >> beam.ParDo(_WriteFiles(schema, output_path))
            | "Gather" >> beam.combiners.ToList()
            | "Publish" >> beam.Map(_publish, output_path)
        )


class RecommenderTransformExecutor(transform_executor.Executor):
    """Transform's executor, file by file."""

    PROCESSOR: ClassVar[type[FileByFileProcessor]] = FileByFileProcessor

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Analyses and transforms."""
        with _processor(self.PROCESSOR) as made, read_whole_files():
            super().Do(input_dict, output_dict, exec_properties)
        for processor in made:
            self.Finish(processor, output_dict)

    def Finish(self, processor: FileByFileProcessor, output_dict: Mapping[str, list[types.Artifact]]) -> None:
        """Does what is left to do once all is written; here nothing."""


class RecommenderTransform(Transform):
    """Computes the same as TFX's Transform; see the module."""

    EXECUTOR_SPEC: ClassVar = executor_spec.BeamExecutorSpec(RecommenderTransformExecutor)


class _WriteFiles(beam.DoFn):
    """From `TransformedBatch`es to `(number of the file, where its examples were written)`.

    A file's batches come one after the other, since one worker reads it, and what reads, transforms and writes is one
    stage.
    """

    def __init__(self, schema: schema_pb2.Schema, output_path: str) -> None:
        self._schema, self._directory = schema, os.path.dirname(output_path)

    def setup(self) -> None:
        """Makes the encoder."""
        self._encoder = RecordBatchToExamplesEncoder(self._schema)

    def start_bundle(self) -> None:
        """Starts without a file."""
        self._file: ShardFile | None = None
        self._number = -1

    def process(self, batch: TransformedBatch) -> Iterator[tuple[int, str]]:
        """Writes one batch."""
        columns, passed = batch
        numbers = passed.get(_FILE_NUMBER)
        if numbers is None:
            numbers = columns.column(columns.schema.get_field_index(_FILE_NUMBER))
        number = numbers[0].as_py()[0]
        if self._file is None or number != self._number:
            yield from self._complete()
            self._file, self._number = ShardFile(self._directory), number
        for serialized in self._encoder.encode(_without_number(columns)):
            self._file.write(serialized)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Completes the last file."""
        for written in self._complete():
            yield WindowedValue(written, MIN_TIMESTAMP, (GlobalWindow(),))

    def _complete(self) -> list[tuple[int, str]]:
        if self._file is None:
            return []
        self._file.close()
        return [(self._number, self._file.path)]


def _without_number(columns: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    at = columns.schema.get_field_index(_FILE_NUMBER)
    if at < 0:
        return columns
    kept = [column for position, column in enumerate(columns.columns) if position != at]
    return pyarrow.RecordBatch.from_arrays(kept, schema=columns.schema.remove(at))


def _publish(written: Iterable[tuple[int, str]], prefix: str) -> None:
    """Gives the files their places, in the order of what they were made from; an empty one, if there are none."""
    paths = [path for _, path in sorted(written)]
    if not paths:
        with ShardFile(os.path.dirname(prefix)) as empty:
            paths = [empty.path]
    for shard, path in enumerate(paths):
        publish_shard(path, prefix, shard, len(paths))


@contextlib.contextmanager
def _processor(kind: type[FileByFileProcessor]) -> Iterator[list[FileByFileProcessor]]:
    """Has TFX's executor use our processor, which it makes by itself and cannot be given; yields those it makes."""
    made: list[FileByFileProcessor] = []

    class Noted(kind):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    original = transform_executor.TransformProcessor
    transform_executor.TransformProcessor = Noted
    try:
        yield made
    finally:
        transform_executor.TransformProcessor = original
