"""Writes serialized examples as shards of a split, shuffled the same way each time.

Models must be reproducible from their data, so the order of the examples must not depend on how Beam happened to
bundle them. Each example comes with an order key, such as a hash; a shard is sorted by it.
"""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Iterable
from types import TracebackType

import apache_beam as beam
import tensorflow as tf
from tfx.dsl.io import fileio

from pipeline.components.external_shuffle import Spilled

EXAMPLES_PER_SHARD = 50_000
"""A shard is sorted in memory; at some kilobytes per example this takes hundreds of megabytes at most."""

_COMPRESSION_LEVEL = 1  # Six times as fast as the default, for files that are an eighth larger.

OrderedExample = tuple[bytes, bytes]
"""`(order key, serialized tf.Example)`"""

ExampleBatch = tuple[tuple[int, int], list[OrderedExample] | Spilled]
"""`((shard, number of shards), examples)`, the examples themselves or where they were written."""


def shard_count(num_examples: int) -> int:
    """Returns the number of shards of a split."""
    return max(1, -(-num_examples // EXAMPLES_PER_SHARD))


class WriteShards(beam.PTransform):
    """Writes `ExampleBatch`es to `data_tfrecord-XXXXX-of-XXXXX.gz` below a folder."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self._directory = directory

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        """Groups the batches by shard; emits the paths written."""
        return batches | "Group" >> beam.GroupByKey() | "Write" >> beam.Map(_write_shard, self._directory)


class ShardFile:
    """A gzipped file of serialized examples that readers of a split do not see yet, as a context manager.

    It lies beside the split's folder, since readers take every file in it, also what an interrupted attempt left.

    Args:
      directory: the split's folder, which is made if there is none.

    Attributes:
      path: where it is.
    """

    def __init__(self, directory: str) -> None:
        fileio.makedirs(directory)
        self.path = os.path.join(os.path.dirname(directory.rstrip("/")), f".{uuid.uuid4().hex}.tmp")
        options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=_COMPRESSION_LEVEL)
        self._writer = tf.io.TFRecordWriter(self.path, options)

    def __enter__(self) -> ShardFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def write(self, serialized: bytes) -> None:
        """Adds an example."""
        self._writer.write(serialized)

    def close(self) -> None:
        """Completes the file."""
        self._writer.close()


def publish_shard(path: str, prefix: str, shard: int, count: int) -> str:
    """Gives a complete file its place as a shard; returns its new path.

    Args:
      path: of a `ShardFile`.
      prefix: folder of the split and beginning of the name.
      shard: number of the shard, from 0.
      count: number of shards.
    """
    published = f"{prefix}-{shard:05d}-of-{count:05d}.gz"
    fileio.rename(path, published, overwrite=True)
    return published


def _write_shard(group: tuple[tuple[int, int], Iterable[list[OrderedExample] | Spilled]], directory: str) -> str:
    (shard, count), batches = group
    with ShardFile(directory) as file:
        lists = (batch.read() if isinstance(batch, Spilled) else batch for batch in batches)
        for _, serialized in sorted(itertools.chain.from_iterable(lists)):
            file.write(serialized)
    return publish_shard(file.path, os.path.join(directory, "data_tfrecord"), shard, count)
