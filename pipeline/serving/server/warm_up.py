"""Warm-up: the requests that come with a SavedModel, run before it serves, so that no client pays for first uses.

Sources: TensorFlow Serving's `saved_model_warmup.cc` and `saved_model_warmup_util.cc`.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import grpc
import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError

from pipeline.serving.errors import StatusError, invalid_argument, status_code
from pipeline.serving.messages import prediction_log_pb2
from pipeline.serving.server.calls import Call, Model
from pipeline.serving.server.examples import ClassifyCall, MultiInferenceCall, RegressCall
from pipeline.serving.server.predict import PredictCall

if TYPE_CHECKING:
    from pipeline.serving.server.metrics import ServerMetrics

WARM_UP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
MAX_RECORDS = 1000
"""Warm-up requests that TensorFlow Serving accepts; with more, it refuses the model."""

_UNSUPPORTED = ("predict_streamed_log", "session_run_log")
_DATASET_NOISE = re.compile(r"^\{\{function_node [^}]*\}\} ?| ?\[Op:\w+\].*$", re.DOTALL)


def warm_up(
    model: Model, path: str, run: Callable[[Call], None], iterations: int = 1, metrics: ServerMetrics | None = None
) -> int:
    """Runs the requests of a SavedModel's warm-up file, if it has one.

    Args:
      model: the model that is asked.
      path: the SavedModel's folder.
      run: runs a request.
      iterations: how often each is run.
      metrics: told of the outcome.

    Returns:
      Number of requests in the file.

    Raises:
      StatusError: if the file cannot be read, has too many records, or the model fails one of them.
    """
    file = os.path.join(path, WARM_UP_FILE)
    if not tf.io.gfile.exists(file):
        return 0
    started, code, count = time.monotonic(), grpc.StatusCode.OK, 0
    try:
        for count, record in enumerate(_records(file), start=1):
            if count > MAX_RECORDS:
                raise invalid_argument(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}")
            call = _call(model, record, file)
            if call is not None:
                for _ in range(iterations):
                    run(call)
    except StatusError as error:
        code = error.code
        raise
    finally:
        if metrics is not None:
            metrics.warmed_up(path, code, time.monotonic() - started)
    logging.info("%s: %d warm-up requests run in %.2f s", path, count, time.monotonic() - started)
    return count


def _records(file: str) -> Iterator[bytes]:
    try:
        yield from tf.data.TFRecordDataset(file).as_numpy_iterator()
    except tf.errors.OpError as error:
        message = _DATASET_NOISE.sub("", error.message)
        if isinstance(error, tf.errors.DataLossError):
            message += ". Please verify your warmup data is in TFRecord format."
        raise StatusError(status_code(error.error_code), message) from error


def _call(model: Model, record: bytes, file: str) -> Call | None:
    """Returns the request of a record; nothing for an empty one."""
    try:
        log = prediction_log_pb2.PredictionLog.FromString(record)
    except DecodeError as error:
        text = record.decode("utf-8", "replace")
        raise invalid_argument(f"Failed to parse warmup record: {text} from {file}") from error
    kind = log.WhichOneof("log_type")
    if kind in _UNSUPPORTED:
        number = log.DESCRIPTOR.fields_by_name[kind].number
        raise StatusError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {number}")
    if kind == "predict_log":
        return PredictCall(model, log.predict_log.request)
    if kind == "classify_log":
        return ClassifyCall(model, log.classify_log.request)
    if kind == "regress_log":
        return RegressCall(model, log.regress_log.request)
    if kind == "multi_inference_log":
        return MultiInferenceCall(model, log.multi_inference_log.request)
    return None
