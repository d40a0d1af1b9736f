"""Reads the requests that a server has logged: TFRecord files of PredictionLog.

While a server writes a file it is hidden, as `.<name>.open`; see `pipeline.serving.server.request_log`.
"""

from __future__ import annotations

import fnmatch
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import logging
from google.protobuf.message import DecodeError

from pipeline.serving.messages import predict_pb2, prediction_log_pb2
from pipeline.serving.record_files import TornFileError, read_records

SUFFIX = ".tfrecord"
OPEN_SUFFIX = ".open"
SIGNATURE = "serving_default"
"""The signature that recommends."""
EXAMPLES = "examples"
"""Its input."""


def complete_path(path: Path) -> Path:
    """Returns the name that an open file gets when it is complete."""
    return path.with_name(path.name.removeprefix(".").removesuffix(OPEN_SUFFIX))


def log_files(pattern: str) -> list[Path]:
    """Returns the files of a pattern in order of time, the oldest first; files still open are among them.

    Args:
      pattern: path whose last part may hold wildcards, e.g. `logs/requests-*.tfrecord`; it is that of the complete
        files.
    """
    folder, pattern_name = Path(pattern).parent, Path(pattern).name
    if not folder.is_dir():
        return []
    found = []
    for path in folder.iterdir():
        is_open = path.name.startswith(".") and path.name.endswith(f"{SUFFIX}{OPEN_SUFFIX}")
        name = complete_path(path).name if is_open else path.name
        if (is_open or not name.startswith(".")) and fnmatch.fnmatchcase(name, pattern_name) and path.is_file():
            found.append(path)
    return sorted(found, key=_order)


def read_prediction_logs(
    pattern: str, *, latest_first: bool = False, torn: Callable[[TornFileError], None] | None = None
) -> Iterator[prediction_log_pb2.PredictionLog]:
    """Reads logs, those of files still open included.

    Args:
      pattern: see `log_files`.
      latest_first: begin with the latest; only one file is held in memory at a time.
      torn: is told of each file that ends in the middle of a record, as that of a killed server may and one that is
        being written may, or that is damaged; its whole records before are read. None: a warning is logged.

    Yields:
      The oldest log first, or the latest.

    Raises:
      OSError: if a file cannot be read.
      ValueError: naming the file and the record that is no PredictionLog.
    """
    files = log_files(pattern)
    for path in reversed(files) if latest_first else files:
        logs = _read_file(path, torn or (lambda error: logging.warning("%s", error)))
        yield from reversed(list(logs)) if latest_first else logs


def logged_requests(pattern: str, model_name: str, most: int | None = None) -> list[predict_pb2.PredictRequest]:
    """Returns the latest logged requests for recommendations, the latest first.

    A request that was sent again, as by an earlier comparison, counts once.

    Args:
      pattern: of the log files; see `log_files`.
      model_name: the model that they were for.
      most: how many at most; None: all.

    Raises:
      OSError: if a file cannot be read.
      ValueError: naming the file and the record that is no PredictionLog.
    """
    return list(itertools.islice(_distinct_requests(pattern, model_name), most))


def _read_file(path: Path, torn: Callable[[TornFileError], None]) -> Iterator[prediction_log_pb2.PredictionLog]:
    whole_path = path
    if not path.exists():  # It was completed since the folder was listed.
        whole_path = complete_path(path)
    try:
        for number, record in enumerate(read_records(whole_path), start=1):
            try:
                log = prediction_log_pb2.PredictionLog.FromString(record)
            except DecodeError as error:
                raise ValueError(f"{whole_path}: record {number} is no PredictionLog: {error}") from error
            yield log
    except TornFileError as error:
        torn(error)


def _order(path: Path) -> tuple[str, int, str]:
    """Orders by time, then number."""
    match = re.search(r"-(\d{8}T\d{6}Z)-(\d+)\.", path.name)
    return (match[1], int(match[2]), path.name) if match else ("", 0, path.name)


def _distinct_requests(pattern: str, model_name: str) -> Iterator[predict_pb2.PredictRequest]:
    known: set[bytes] = set()
    for log in read_prediction_logs(pattern, latest_first=True):
        request = log.predict_log.request
        spec = request.model_spec
        if spec.name != model_name or spec.signature_name not in ("", SIGNATURE) or EXAMPLES not in request.inputs:
            continue
        key = request.inputs[EXAMPLES].SerializeToString(deterministic=True)
        if key not in known:
            known.add(key)
            yield request
