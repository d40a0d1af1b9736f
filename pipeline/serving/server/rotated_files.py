"""`RotatedFiles`: TFRecord files that are hidden while they are written, and completed when they are full or old.

A file that is written is held by a lock, which the system lets go when its process ends: so what a killed process has
left behind can be told from what another one is writing.
"""

from __future__ import annotations

import collections
import contextlib
import datetime
import fcntl
import itertools
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from absl import logging

from pipeline.serving.prediction_logs import OPEN_SUFFIX, SUFFIX, complete_path, log_files
from pipeline.serving.record_files import TornFileError, frame, read_records


class RotatedFiles:
    """The files of one prefix. Used by one thread."""

    def __init__(self, prefix: Path, max_bytes: int, max_seconds: float, max_kept_bytes: int | None):
        """Opens nothing yet.

        Args:
          prefix: folder, and beginning of the files' names.
          max_bytes: a file is completed before it would exceed this; a longer record gets a file of its own.
          max_seconds: a file is to be completed at this age.
          max_kept_bytes: bound of all files together; None: all are kept.
        """
        self._folder, self._base = prefix.parent, prefix.name
        self._max_bytes, self._max_seconds, self._max_kept_bytes = max_bytes, max_seconds, max_kept_bytes
        self._name = re.compile(rf"{re.escape(prefix.name)}-\d{{8}}T\d{{6}}Z-\d+{re.escape(SUFFIX)}")
        self._file: int | None = None
        self._path = Path()
        self._stamp, self._numbers = "", itertools.count()
        self._bytes = 0
        self._opened = 0.0

    def seconds_left(self) -> float | None:
        """Returns when the open file is to be completed, 0 if now; None without one."""
        if self._file is None:
            return None
        return max(0.0, self._opened + self._max_seconds - time.monotonic())

    def write(self, records: list[bytes]) -> Iterator[int]:
        """Writes records, as many at once as fit into a file; yields how many are written after each time.

        Raises:
          OSError: if a file cannot be written; of those records nothing is left in it.
        """
        frames = collections.deque(map(frame, records))
        done = 0
        while frames:
            if self._file is not None and (self._bytes + len(frames[0]) > self._max_bytes or not self.seconds_left()):
                self.complete()
            if self._file is None:
                self._open()
            chunk = [frames.popleft()]
            size = self._bytes + len(chunk[0])
            while frames and size + len(frames[0]) <= self._max_bytes:
                size += len(frames[0])
                chunk.append(frames.popleft())
            self._append(b"".join(chunk))
            done += len(chunk)
            yield done

    def complete(self) -> None:
        """Gives the open file its name; does nothing without one."""
        if self._file is not None:
            descriptor, self._file = self._file, None
            try:
                os.rename(self._path, complete_path(self._path))
            finally:
                os.close(descriptor)

    def adopt_leftovers(self) -> None:
        """Completes the files that loggers have left behind which are no more, up to their last whole record."""
        for path in self._folder.glob(f".*{SUFFIX}{OPEN_SUFFIX}"):
            if not self._name.fullmatch(complete_path(path).name):
                continue
            with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:  # Its logger lives.
                    continue
                try:
                    for _ in read_records(path):
                        pass
                except TornFileError as error:
                    logging.warning("%s; the rest is cut off", error)
                    file.truncate(error.whole_bytes)
                os.rename(path, complete_path(path))

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._remove_oldest()
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        if stamp != self._stamp:
            self._stamp, self._numbers = stamp, itertools.count()
        for number in self._numbers:
            path = self._folder / f".{self._base}-{stamp}-{number}{SUFFIX}{OPEN_SUFFIX}"
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                continue
            if not complete_path(path).exists():
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._file, self._path, self._bytes, self._opened = descriptor, path, 0, time.monotonic()
                return
            os.unlink(path)
            os.close(descriptor)

    def _append(self, data: bytes) -> None:
        """Writes at the end of the open file, at once if the disk lets it: all or nothing."""
        assert self._file is not None
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:
            try:
                os.ftruncate(self._file, self._bytes)
            except OSError:  # Nothing may follow half a record.
                os.close(self._file)
                self._file = None
            raise
        self._bytes += len(data)

    def _remove_oldest(self) -> None:
        """Makes room for another whole file."""
        if self._max_kept_bytes is None:
            return
        sizes = {
            path: path.stat().st_size for path in log_files(f"{self._folder}/*") if self._name.fullmatch(path.name)
        }
        excess = sum(sizes.values()) + self._max_bytes - self._max_kept_bytes
        for path, size in sizes.items():
            if excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size
