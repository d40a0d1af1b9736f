"""Examples read file by file in whole batches, in place of record by record through Beam.

Beam reads and hands on each record in Python, which takes a third as long as everything that statistics or Transform
do with it. Here `tf.data` reads a file, decompressing in threads of its own, and what enters Beam are batches that
`tfx_bsl` has decoded. A file is read by one worker; splits are read in parallel by having several files, of
`example_shards.EXAMPLES_PER_SHARD` examples at most.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import pyarrow
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.components.util import tfxio_utils
from tfx.dsl.io import fileio
from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder
from tfx_bsl.tfxio.record_based_tfxio import AppendRawRecordColumn
from tfx_bsl.tfxio.tensor_representation_util import ProjectTensorRepresentationsInSchema
from tfx_bsl.tfxio.tf_example_record import TFExampleRecord

from modules.training_data import without_autotune

_BATCH_SIZE = 1000
_READ_BYTES = 4 << 20
_READ_AHEAD = 2
"""Batches that are read while one is worked on."""


class WholeFileExamples(TFExampleRecord):
    """`TFExampleRecord` whose Beam source reads whole files.

    Args:
      file_pattern: as for `TFExampleRecord`.
      schema: likewise.
      raw_record_column_name: likewise.
      telemetry_descriptors: likewise.
      file_number_column: if given, batches have a column of that name, large_list<int64> with one value in each row:
        the number of the file among those of the patterns, in order of their paths.
    """

    def __init__(
        self,
        file_pattern: Sequence[str] | str,
        schema: schema_pb2.Schema | None = None,
        raw_record_column_name: str | None = None,
        telemetry_descriptors: list[str] | None = None,
        file_number_column: str | None = None,
    ) -> None:
        super().__init__(
            file_pattern if isinstance(file_pattern, str) else list(file_pattern),
            schema=schema,
            raw_record_column_name=raw_record_column_name,
            telemetry_descriptors=telemetry_descriptors,
        )
        self._file_number_column = file_number_column

    def BeamSource(self, batch_size: int | None = None) -> beam.PTransform:
        """Returns the source of `pyarrow.RecordBatch`es, of `batch_size` rows but for the last of each file."""
        schema = self._GetSchemaForDecoding()
        return _ReadFiles(
            sorted(path for pattern in self._file_pattern for path in fileio.glob(pattern)),
            _ReadBatches(
                schema.SerializeToString() if schema is not None else None,
                batch_size or _BATCH_SIZE,
                self.raw_record_column_name,
                self._file_number_column,
            ),
        )

    def ArrowSchema(self) -> pyarrow.Schema:
        """Returns the schema of the batches."""
        schema = super().ArrowSchema()
        if self._file_number_column is None:
            return schema
        return schema.append(pyarrow.field(self._file_number_column, _NUMBERS))

    def numbered(self, file_number_column: str) -> WholeFileExamples:
        """Returns the same examples with the number of the file that each is from; see the class."""
        return self._with(self._schema, file_number_column)

    def _ProjectImpl(self, tensor_names: list[str]) -> WholeFileExamples:
        return self._with(ProjectTensorRepresentationsInSchema(self._schema, tensor_names), self._file_number_column)

    def _with(self, schema: schema_pb2.Schema | None, file_number_column: str | None) -> WholeFileExamples:
        return WholeFileExamples(
            self._file_pattern, schema, self.raw_record_column_name, self.telemetry_descriptors, file_number_column
        )


@contextlib.contextmanager
def read_whole_files() -> Iterator[None]:
    """Has TFX's executors, which choose by themselves how to read, read whole files."""
    original = tfxio_utils.tf_example_record.TFExampleRecord
    tfxio_utils.tf_example_record.TFExampleRecord = WholeFileExamples
    try:
        yield
    finally:
        tfxio_utils.tf_example_record.TFExampleRecord = original


_NUMBERS = pyarrow.large_list(pyarrow.int64())


class _ReadFiles(beam.PTransform):
    """Reads files, distributed over the workers."""

    def __init__(self, paths: Sequence[str], read: _ReadBatches) -> None:
        super().__init__()
        self._paths, self._read = paths, read

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        return (
            pipeline
            | "Files" >> beam.Create(list(enumerate(self._paths)), reshuffle=False)
            | "Distribute" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(self._read).with_output_types(pyarrow.RecordBatch)
        )


class _ReadBatches(beam.DoFn):
    """From `(number of the file, path)` to decoded batches; see `WholeFileExamples`."""

    def __init__(
        self, schema: bytes | None, batch_size: int, raw_record_column: str | None, file_number_column: str | None
    ) -> None:
        self._schema, self._batch_size = schema, batch_size
        self._raw_record_column, self._file_number_column = raw_record_column, file_number_column

    def setup(self) -> None:
        """Makes the decoder."""
        self._decoder = ExamplesToRecordBatchDecoder(self._schema)

    def process(self, file: tuple[int, str]) -> Iterator[pyarrow.RecordBatch]:
        """Reads one file."""
        number, path = file
        for records in read_batches(path, self._batch_size):
            batch = self._decoder.DecodeBatch(records)
            if self._raw_record_column is not None:
                batch = AppendRawRecordColumn(batch, self._raw_record_column, records.tolist())
            if self._file_number_column is not None:
                numbers = pyarrow.array([[number]] * len(records), _NUMBERS)
                batch = pyarrow.RecordBatch.from_arrays(
                    [*batch.columns, numbers],
                    schema=batch.schema.append(pyarrow.field(self._file_number_column, _NUMBERS)),
                )
            yield batch


def read_batches(path: str, batch_size: int) -> Iterator[Any]:
    """Yields the records of a TFRecord file in order, arrays of bytes objects of shape [at most batch_size].

    Raises:
      OSError: naming the file, if it is cut off or damaged.
    """
    compression = "GZIP" if path.endswith(".gz") else ""
    records = tf.data.TFRecordDataset(path, compression, buffer_size=_READ_BYTES)
    try:
        yield from without_autotune(records.batch(batch_size).prefetch(_READ_AHEAD)).as_numpy_iterator()
    except tf.errors.DataLossError as error:
        raise OSError(f"{path}: cannot be read to its end: {error.message}") from error
