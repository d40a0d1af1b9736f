"""`Servable`: one loaded version of a SavedModel, and the answers it gives.

The model runs in a TensorFlow session, as it does in TensorFlow Serving: signatures are those of the file, errors are
those of the C++ runtime, loading takes a fraction of `tf.saved_model.load`'s time because no Python objects are
rebuilt, and a request costs half of what calling a restored function does.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping

import grpc
import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import prediction_log_pb2

from pipeline.serving.errors import StatusError, invalid_argument, status_code
from pipeline.serving.messages import meta_graph_pb2, predict_pb2, tensor_pb2
from pipeline.serving.tensors import read_tensor, write_tensor

DEFAULT_SIGNATURE = "serving_default"
WARMUP_FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
MAX_WARMUP_REQUESTS = 1000
"""Warm-up requests that TensorFlow Serving accepts; with more, it refuses the model."""

_SERVED_METHODS = tuple(f"tensorflow/serving/{name}" for name in ("predict", "classify", "regress"))


@dataclasses.dataclass(frozen=True)
class _Runner:
    """A prepared run of some outputs of a signature.

    Attributes:
      run: takes the inputs, in the signature's sorted order; returns the values of `tensors`.
      positions: output alias to its place in the result.
    """

    run: Callable[..., list[np.ndarray]]
    positions: Mapping[str, int]


class Servable:
    """One version of a model, in memory. Thread-safe."""

    def __init__(self, path: str, warm_up: bool = True):
        """Loads the model and runs its warm-up requests.

        Args:
          path: folder of a SavedModel.
          warm_up: whether to run them; who asks but once need not.

        Raises:
          StatusError: if the model cannot be loaded, or fails one of its own warm-up requests.
        """
        self._graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=self._graph)
        self._runners: dict[tuple[str, tuple[str, ...]], _Runner] = {}
        try:
            meta_graph = tf.compat.v1.saved_model.load(self._session, [tf.saved_model.SERVING], path)
            self._signatures = dict(meta_graph.signature_def)
            if warm_up:
                self._warm_up(path)
        except Exception as error:
            self.close()
            raise _load_error(error) from error

    @property
    def signatures(self) -> Mapping[str, meta_graph_pb2.SignatureDef]:
        """The signatures by name."""
        return self._signatures

    def predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Answers a request. The response's `model_spec` names the signature only.

        Raises:
          StatusError: with TensorFlow Serving's code and text.
        """
        signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        signature = self._signatures.get(signature_name)
        if signature is None:
            raise StatusError(
                grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{signature_name}" not found.'
            )
        _check_method(signature)
        inputs = _read_inputs(signature, request)
        aliases = _requested_outputs(signature, request.output_filter)
        runner = self._runner(signature_name, aliases)
        try:
            values = runner.run(*inputs)
        except tf.errors.OpError as error:
            raise StatusError(status_code(error.error_code), error.message) from error
        except UnicodeDecodeError as error:
            # TensorFlow's Python layer fails on messages that quote binary input, which is what bad input gives.
            raise invalid_argument(error.object.decode("utf-8", "replace")) from error
        response = predict_pb2.PredictResponse()
        response.model_spec.signature_name = signature_name
        for alias in aliases:
            write_tensor(values[runner.positions[alias]], response.outputs[alias])
        return response

    def close(self) -> None:
        """Frees the model's memory. No request may be under way or come later."""
        self._runners.clear()
        self._session.close()

    def _runner(self, signature_name: str, aliases: tuple[str, ...]) -> _Runner:
        key = (signature_name, aliases)
        runner = self._runners.get(key)
        if runner is None:
            runner = self._make_runner(self._signatures[signature_name], aliases)
            self._runners[key] = runner
        return runner

    def _make_runner(self, signature: meta_graph_pb2.SignatureDef, aliases: tuple[str, ...]) -> _Runner:
        options = config_pb2.CallableOptions()
        options.feed.extend(signature.inputs[alias].name for alias in sorted(signature.inputs))
        tensors = list(dict.fromkeys(signature.outputs[alias].name for alias in aliases))
        options.fetch.extend(tensors)
        # The public `make_callable` goes through `Session.run` when there are feeds, at twice the cost for a request.
        run = self._session._make_callable_from_options(options)
        return _Runner(run, {alias: tensors.index(signature.outputs[alias].name) for alias in aliases})

    def _warm_up(self, path: str) -> None:
        file = os.path.join(path, WARMUP_FILE)
        if not tf.io.gfile.exists(file):
            return
        for count, record in enumerate(tf.data.TFRecordDataset(file).as_numpy_iterator(), start=1):
            if count > MAX_WARMUP_REQUESTS:
                raise invalid_argument(
                    f"Number of warmup records exceeds the maximum ({MAX_WARMUP_REQUESTS}) at {file}"
                )
            try:
                log = prediction_log_pb2.PredictionLog.FromString(record)
            except DecodeError as error:
                raise invalid_argument(f"Failed to parse warmup record {count} from {file}") from error
            if log.HasField("predict_log"):
                self.predict(log.predict_log.request)
            else:
                logging.warning("%s: record %d is no Predict request and was not run", file, count)


def _check_method(signature: meta_graph_pb2.SignatureDef) -> None:
    if signature.method_name not in _SERVED_METHODS:
        raise StatusError(
            grpc.StatusCode.INTERNAL,
            f"Expected prediction signature method_name to be one of {{{', '.join(_SERVED_METHODS)}}}. "
            f"Was: {signature.method_name}",
        )


def _read_inputs(signature: meta_graph_pb2.SignatureDef, request: predict_pb2.PredictRequest) -> list[np.ndarray]:
    """Returns the values of the signature's inputs, in sorted order of their names."""
    sent, expected, defaults = set(request.inputs), set(signature.inputs), signature.defaults
    if len(sent) > len(expected) or (len(sent) < len(expected) and not defaults):
        raise invalid_argument(
            f"input size does not match signature: {len(sent)}!={len(expected)} len({_set(sent)}) != "
            f"len({_set(expected)}). Sent extra: {_set(sent - expected)}. "
            f"Missing but required: {_set(expected - sent)}."
        )
    values = []
    for alias in sorted(expected):
        if alias in sent:
            proto = request.inputs[alias]
        elif alias in defaults:
            proto = defaults[alias]
        else:
            raise invalid_argument(
                f"Signature input alias: {alias}(feed name: {signature.inputs[alias].name}) not found in request and "
                f"no default value provided. Inputs expected to be in the request {_set(sent)}, or default input "
                f"alias set: {','.join(sorted(defaults))}"
            )
        values.append(_read_input(alias, proto))
    if not sent <= expected:
        raise invalid_argument(
            f"Inputs contains invalid name. Used request inputs: {','.join(sorted(sent & expected))}, "
            f"request input: {','.join(sorted(sent))}"
        )
    return values


def _read_input(alias: str, proto: tensor_pb2.TensorProto) -> np.ndarray:
    try:
        return read_tensor(proto)
    except ValueError as error:
        raise invalid_argument(f"tensor parsing error: {alias}") from error


def _requested_outputs(signature: meta_graph_pb2.SignatureDef, output_filter: Iterable[str]) -> tuple[str, ...]:
    """Returns the aliases of the outputs to compute, sorted."""
    aliases: set[str] = set()
    for alias in output_filter:
        if alias not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{_set(signature.outputs)}."
            )
        if alias in aliases:
            raise invalid_argument(f"duplicate output tensor alias: {alias}")
        aliases.add(alias)
    return tuple(sorted(aliases or signature.outputs))


def _load_error(error: Exception) -> StatusError:
    if isinstance(error, StatusError):
        return error
    if isinstance(error, tf.errors.OpError):
        return StatusError(status_code(error.error_code), error.message)
    if isinstance(error, OSError):
        return StatusError(grpc.StatusCode.NOT_FOUND, str(error))
    return StatusError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")


def _set(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"
