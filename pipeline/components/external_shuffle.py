"""Groups by key through files: bounded memory on every Beam runner, also on those that hold what they group.

Pairs are written to files by bucket of their key, and only references to what was written are grouped by Beam. A bucket
is small enough to be read whole. The files lie below a folder that all workers see, and are removed with it.
"""

from __future__ import annotations

import collections
import os
import pickle
import uuid
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue
from tfx.dsl.io import fileio

from pipeline.components.stable_hash import stable_hash

_CODEC = "lz4_raw"
_SIZE_BYTES = 8
_HELD = 250_000
"""Values that a worker holds before it writes them."""
_SOURCE_BYTES_PER_BUCKET = 1 << 20
_FEWEST_BUCKETS, _MOST_BUCKETS = 16, 4096


class Spilled(NamedTuple):
    """Where a value was written."""

    path: str
    offset: int
    length: int

    def read(self) -> Any:
        """Returns the value."""
        with fileio.open(self.path, "rb") as file:
            file.seek(self.offset)
            content = file.read(self.length)
        size = int.from_bytes(content[:_SIZE_BYTES], "little")
        return pickle.loads(pyarrow.decompress(memoryview(content)[_SIZE_BYTES:], size, _CODEC))


class SpillFile:
    """A file of values, as a context manager.

    Args:
      folder: the folder, which must exist.
    """

    def __init__(self, folder: str) -> None:
        self._path = os.path.join(folder, uuid.uuid4().hex)
        self._file = fileio.open(self._path, "wb")
        self._offset = 0

    def __enter__(self) -> SpillFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, value: Any) -> Spilled:
        """Writes a value, which can be read once the file is closed."""
        content = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        content = len(content).to_bytes(_SIZE_BYTES, "little") + pyarrow.compress(content, _CODEC, asbytes=True)
        self._file.write(content)
        spilled = Spilled(self._path, self._offset, len(content))
        self._offset += len(content)
        return spilled


class SpillByKey(beam.DoFn):
    """From `(key, value)` to `(bucket, Spilled list of such pairs)`. Keys are bytes; lists count as several values.

    Args:
      folder: where the files go.
      buckets: number of buckets.
    """

    def __init__(self, folder: str, buckets: int) -> None:
        self._folder, self._buckets = folder, buckets

    def start_bundle(self) -> None:
        """Starts with nothing held."""
        self._held: dict[int, list[tuple[bytes, Any]]] = collections.defaultdict(list)
        self._count = 0

    def process(self, pair: tuple[bytes, Any]) -> Iterator[tuple[int, Spilled]]:
        """Holds a pair, and writes what is held once it is much."""
        key, value = pair
        self._held[int.from_bytes(stable_hash(key), "big") % self._buckets].append(pair)
        self._count += len(value) if isinstance(value, list) else 1
        if self._count >= _HELD:
            yield from self._write()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        """Writes the rest."""
        for spilled in self._write():
            yield WindowedValue(spilled, MIN_TIMESTAMP, (GlobalWindow(),))

    def _write(self) -> list[tuple[int, Spilled]]:
        if not self._held:
            return []
        with SpillFile(self._folder) as file:
            spilled = [(bucket, file.append(pairs)) for bucket, pairs in self._held.items()]
        self.start_bundle()
        return spilled


def read_pairs(spilled: Iterable[Spilled]) -> Iterator[tuple[bytes, Any]]:
    """Yields the pairs of a bucket."""
    for one in spilled:
        yield from one.read()


def bucket_count(source_bytes: int) -> int:
    """Returns how many buckets to make of source files of a size, such that each takes some tens of megabytes."""
    return min(max(source_bytes // _SOURCE_BYTES_PER_BUCKET, _FEWEST_BUCKETS), _MOST_BUCKETS)
