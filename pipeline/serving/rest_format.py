"""Calls as requests of TensorFlow Serving's REST API, and its answers back.

Source: https://www.tensorflow.org/tfx/serving/api_rest. Inputs go in columnar format, strings as base64.
"""

from __future__ import annotations

import base64
import binascii
import json
import urllib.parse
from typing import Any

import grpc
import numpy as np
from google.protobuf import json_format

from pipeline.serving.calls import Answer, Call, Method, ModelSelection
from pipeline.serving.messages import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
from pipeline.serving.results import Outputs
from pipeline.serving.tensors import read_tensor

UNNAMED_OUTPUT = "outputs"
"""What the only output of a signature is called where its name is not known: REST does not send it."""

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,  # Also FAILED_PRECONDITION and OUT_OF_RANGE: REST does not tell them apart.
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
_MOST_CHARACTERS = 200


def request_path(method: Method, model: ModelSelection) -> str:
    """Returns the path of a call's URL."""
    path = f"/v1/models/{urllib.parse.quote(model.name, safe='')}"
    if model.version is not None:
        path += f"/versions/{model.version}"
    elif model.label is not None:
        path += f"/labels/{urllib.parse.quote(model.label, safe='')}"
    return path + {Method.PREDICT: ":predict", Method.METADATA: "/metadata", Method.STATUS: ""}[method]


def request_body(request: predict_pb2.PredictRequest) -> bytes:
    """Returns the body of a `:predict` request."""
    inputs = {name: _to_json(read_tensor(tensor)) for name, tensor in request.inputs.items()}
    return json.dumps({"signature_name": request.model_spec.signature_name, "inputs": inputs}).encode()


def read_answer(call: Call[Answer], body: bytes, model: ModelSelection) -> Answer:
    """Makes the result of an answer with status 200.

    Raises:
      ValueError: if it is not what was asked for.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{_shorten(body)} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected a JSON object; received {_shorten(body)}")
    if call.method is Method.PREDICT:
        return call.read(_read_outputs(content, call.only_output or UNNAMED_OUTPUT, model))
    try:
        message = _read_metadata(content) if call.method is Method.METADATA else _read_status(content)
    except json_format.ParseError as error:
        raise ValueError(str(error)) from error
    return call.read(call.method.read(message))


def read_error(status: int, body: bytes) -> tuple[grpc.StatusCode, str]:
    """Returns gRPC's code and the message of an answer with another status."""
    try:
        message = json.loads(body)["error"]
    except (ValueError, RecursionError, TypeError, KeyError, IndexError):
        message = None
    if not isinstance(message, str):
        message = f"HTTP status {status}: {_shorten(body)}"
    return _CODES.get(status, grpc.StatusCode.UNKNOWN), message


def _to_json(array: np.ndarray) -> Any:
    if array.dtype != object:
        return array.tolist()
    encoded = np.empty(array.shape, dtype=object)
    encoded.reshape(-1)[:] = [{"b64": base64.b64encode(value).decode("ascii")} for value in array.flat]
    return encoded.tolist()


def _read_outputs(content: dict[str, Any], only_output: str, model: ModelSelection) -> Outputs:
    if "outputs" not in content:
        raise ValueError(f"'outputs' is missing; received {sorted(content)}")
    outputs = content["outputs"]
    if not isinstance(outputs, dict) or outputs.keys() == {"b64"}:
        outputs = {only_output: outputs}
    return Outputs({name: _from_json(name, values) for name, values in outputs.items()}, model.version)


def _from_json(name: str, values: Any) -> np.ndarray:
    """Returns an output: text as bytes, whole numbers as int64, others as float32, as JSON does not say how wide."""
    array = np.array(_unwrap(name, values), dtype=object)
    flat = list(array.flat)
    if any(isinstance(value, (list, dict)) or value is None for value in flat):
        raise ValueError(f"{name!r} is no tensor: its lists differ in length, or hold other things than values")
    kinds = {bool if isinstance(value, bool) else type(value) for value in flat}
    if kinds <= {bytes}:
        return array
    if kinds == {bool}:
        return array.astype(np.bool_)
    try:
        if kinds == {int}:
            return array.astype(np.int64)
        if kinds <= {int, float}:
            return array.astype(np.float32)
    except OverflowError as error:
        raise ValueError(f"{name!r} holds a number out of range: {error}") from error
    raise ValueError(f"{name!r} mixes {sorted(kind.__name__ for kind in kinds)}")


def _unwrap(name: str, values: Any) -> Any:
    """Replaces text by bytes, at any depth."""
    if isinstance(values, list):
        return [_unwrap(name, value) for value in values]
    if isinstance(values, str):
        return values.encode("utf-8")
    if isinstance(values, dict) and values.keys() == {"b64"}:
        try:
            return base64.b64decode(values["b64"], validate=True)
        except (binascii.Error, TypeError, ValueError) as error:
            raise ValueError(f"{name!r} holds invalid base64: {error}") from error
    return values


def _read_status(content: dict[str, Any]) -> get_model_status_pb2.GetModelStatusResponse:
    return json_format.ParseDict(content, get_model_status_pb2.GetModelStatusResponse(), ignore_unknown_fields=True)


def _read_metadata(content: dict[str, Any]) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Reads the one kind of metadata there is, which the server writes without the type that `Any` would have."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    metadata = content.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("signature_def"), dict):
        signatures = get_model_metadata_pb2.SignatureDefMap()
        json_format.ParseDict(metadata["signature_def"], signatures, ignore_unknown_fields=True)
        response.metadata["signature_def"].Pack(signatures)
    return response


def _shorten(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    return repr(text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…")
