"""`RequestLogger`: a sample of the requests with their answers, as TFRecord files of PredictionLog.

A model's `logging_config` asks for it. Files are named `<prefix>-<UTC time>-<number>.tfrecord`. While one is written
it is hidden, as `.<name>.open`; it gets its name when it is complete: when it is full or old, or the logger is closed.
What a killed server leaves behind is completed by the next logger of the same prefix, and can be read before that.
"""

from __future__ import annotations

import collections
import random
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
from absl import logging

from pipeline.serving.errors import StatusError, invalid_argument
from pipeline.serving.messages import logging_config_pb2, prediction_log_pb2
from pipeline.serving.server.rotated_files import RotatedFiles

COLLECTOR_TYPE = "tfrecord"
"""`log_collector_config.type` of these files; it may also be left empty."""

_JOIN_SECONDS = 10.0


class RequestLogger:
    """Writes logs in a thread of its own, so that no request waits for a disk. Thread-safe.

    Attributes:
      sampling_config: as configured; belongs into each log's metadata.
      written: logs written.
      dropped: logs that found the queue full, or the logger closed.
      failed: logs that could not be written.
    """

    def __init__(
        self,
        filename_prefix: str,
        sampling_config: logging_config_pb2.SamplingConfig,
        *,
        max_file_bytes: int = 64 << 20,
        max_file_seconds: float = 3600.0,
        max_kept_bytes: int | None = None,
        max_queued_logs: int = 1024,
        max_queued_bytes: int = 64 << 20,
        seed: int | None = None,
    ):
        """Creates no file yet; the first log does.

        Args:
          filename_prefix: folder, and beginning of the files' names.
          sampling_config: `sampling_rate` is the probability that a request is logged.
          max_file_bytes: a file is completed before it would exceed this; a longer log gets a file of its own.
          max_file_seconds: a file is completed at this age.
          max_kept_bytes: bound of all files of this prefix together; the oldest are removed to stay below it. None: all
            are kept.
          max_queued_logs: logs that may wait to be written.
          max_queued_bytes: bytes that may wait to be written.
          seed: of the sampling; None: unpredictable.

        Raises:
          ValueError: naming the argument, the value received and what was expected.
        """
        rate = sampling_config.sampling_rate
        if not 0 <= rate <= 1:
            raise ValueError(f"sampling_config.sampling_rate must lie in [0, 1]; received {rate}")
        if not Path(filename_prefix).name or filename_prefix.endswith("/"):
            raise ValueError(
                "log_collector_config.filename_prefix must be a path that ends in the beginning of a file name; "
                f"received {filename_prefix!r}"
            )
        if max_kept_bytes is not None and max_kept_bytes < max_file_bytes:
            raise ValueError(
                f"max_kept_bytes must be at least max_file_bytes, {max_file_bytes}; received {max_kept_bytes}"
            )
        self.sampling_config = sampling_config
        self.written = self.dropped = self.failed = 0
        self._random = random.Random(seed)
        self._files = RotatedFiles(Path(filename_prefix), max_file_bytes, max_file_seconds, max_kept_bytes)
        self._max_queued_logs = max_queued_logs
        self._max_queued_bytes = max_queued_bytes
        self._queue: collections.deque[bytes] = collections.deque()
        self._queued_bytes = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._last_failure = ""

    @classmethod
    def from_config(
        cls,
        logging_config: logging_config_pb2.LoggingConfig,
        *,
        max_file_bytes: int = 64 << 20,
        max_file_seconds: float = 3600.0,
        max_kept_bytes: int | None = None,
        seed: int | None = None,
    ) -> RequestLogger:
        """Makes the logger that a model's configuration asks for; the other arguments are those of the constructor.

        Raises:
          StatusError: NOT_FOUND for another type of collector, INVALID_ARGUMENT for a field out of its range.
        """
        collector = logging_config.log_collector_config
        if collector.type not in ("", COLLECTOR_TYPE):
            raise StatusError(
                grpc.StatusCode.NOT_FOUND, f"Cannot find LogCollector::Factory for type: {collector.type}"
            )
        try:
            return cls(
                collector.filename_prefix,
                logging_config.sampling_config,
                max_file_bytes=max_file_bytes,
                max_file_seconds=max_file_seconds,
                max_kept_bytes=max_kept_bytes,
                seed=seed,
            )
        except ValueError as error:
            raise invalid_argument(f"logging_config: {error}") from error

    def sample(self) -> bool:
        """Draws whether a request is to be logged."""
        return self._random.random() < self.sampling_config.sampling_rate

    def write(self, log: prediction_log_pb2.PredictionLog) -> bool:
        """Queues a log. Never waits and never raises: what does not fit is counted as dropped.

        Returns:
          Whether it will be written, if the disk takes it.
        """
        try:
            record = log.SerializeToString()
        except Exception as error:  # Too large for a message, say; the request has its answer already.
            with self._changed:
                self.failed += 1
            self._tell(f"a log cannot be serialised: {error}")
            return False
        with self._changed:
            full = (
                len(self._queue) >= self._max_queued_logs or self._queued_bytes + len(record) > self._max_queued_bytes
            )
            if self._closed or full:
                self.dropped += 1
                return False
            self._queue.append(record)
            self._queued_bytes += len(record)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="request-log", daemon=True)
                self._thread.start()
            self._changed.notify()
            return True

    def close(self) -> None:
        """Writes what is queued and completes the file. Logs that come later are dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)

    def _work(self) -> None:
        self._attempt(self._files.adopt_leftovers)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed, self._files.seconds_left())
                records = list(self._queue)
                self._queue.clear()
                self._queued_bytes = 0
                closed = self._closed
            done = 0
            try:
                for done in self._files.write(records):  # noqa: B007 (how far it came counts when it fails)
                    pass
            except OSError as error:
                self._tell(f"cannot write request logs: {error}")
            else:
                if records:
                    self._last_failure = ""
            with self._changed:
                self.written += done
                self.failed += len(records) - done
            if closed:
                self._attempt(self._files.complete)
                return
            if self._files.seconds_left() == 0:
                self._attempt(self._files.complete)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except OSError as error:
            self._tell(f"request logs: {error}")

    def _tell(self, failure: str) -> None:
        """Logs a failure, but not over and over."""
        if failure != self._last_failure:
            self._last_failure = failure
            logging.error("%s; further failures like this are counted only", failure)
