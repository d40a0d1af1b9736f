"""Files of partial analyses for TensorFlow Transform's cache: one file an entry, read and written in few steps.

Beam's own readers and writers of TFRecords take about ten steps each. A window has hundreds of entries, most of them of
one value, so those steps would take longer than the analysis that they save.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator

import apache_beam as beam
import tensorflow as tf
from tfx.dsl.io import fileio


class WriteEntry(beam.PTransform):
    """Writes an entry's values, in a fixed order.

    Args:
      path: start of the file's name.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def expand(self, values: beam.PCollection) -> beam.PCollection:
        """Takes values as bytes; emits the path written."""
        return (
            values | "Pair" >> beam.Map(_pair) | "Group" >> beam.GroupByKey() | "Write" >> beam.Map(_write, self._path)
        )


class ReadEntry(beam.PTransform):
    """Reads what `WriteEntry` wrote.

    Args:
      pattern: glob of the entry's files.
    """

    def __init__(self, pattern: str) -> None:
        super().__init__()
        self._pattern = pattern

    def expand(self, pipeline: beam.Pipeline) -> beam.PCollection:
        """Emits the values as bytes."""
        return pipeline | "Create" >> beam.Create([self._pattern]) | "Read" >> beam.FlatMap(_read)


def _pair(value: bytes) -> tuple[int, bytes]:
    return 0, value


def _write(group: tuple[int, Iterable[bytes]], path: str) -> str:
    file = f"{path}-00000-of-00001.gz"
    aside = os.path.join(os.path.dirname(path), f".{uuid.uuid4().hex}.tmp")
    fileio.makedirs(os.path.dirname(path))
    with tf.io.TFRecordWriter(aside, "GZIP") as writer:
        for value in sorted(group[1]):
            writer.write(value)
    fileio.rename(aside, file, overwrite=True)
    return file


def _read(pattern: str) -> Iterator[bytes]:
    files = sorted(tf.io.gfile.glob(pattern))
    yield from tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator()
