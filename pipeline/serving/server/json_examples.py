"""JSON to the tf.Examples of Classify and Regress requests, exactly as TensorFlow Serving's REST API reads it.

`{"examples": [{"age": 20, "names": ["a", "b"]}, …]}`, and optionally a `context` that all examples share. The first
value of a feature decides about its type: a number with a decimal point is a float.

Source: `FillClassifyRegressRequestFromJson` in `util/json_tensor.cc` of TensorFlow Serving.
"""

from __future__ import annotations

from typing import Any

from pipeline.serving.errors import invalid_argument
from pipeline.serving.messages import classification_pb2, example_pb2, feature_pb2, regression_pb2
from pipeline.serving.server.json_parsing import parse_object
from pipeline.serving.server.json_tensors import (
    decode_base64_object,
    format_error,
    is_base64_object,
    json_type_name,
    read_signature_name,
)
from pipeline.serving.server.json_writing import as_bytes

_KIND_NAMES = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


def read_examples_request(
    body: bytes, request: classification_pb2.ClassificationRequest | regression_pb2.RegressionRequest
) -> None:
    """Fills a request from its JSON form.

    Args:
      body: the JSON text.
      request: the message to fill; of its model spec, the signature's name is set.

    Raises:
      StatusError: INVALID_ARGUMENT if the text is no such request.
    """
    document = parse_object(body)
    read_signature_name(document, request)
    examples_list = request.input.example_list
    if "context" in document:
        examples_list = request.input.example_list_with_context
        examples_list.context.SetInParent()
        _read_example(document["context"], examples_list.context)
    if "examples" not in document:
        raise format_error(document, "When method is classify, key 'examples' is expected and was not found")
    examples = document["examples"]
    if not isinstance(examples, list):
        raise format_error(document, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise format_error(document, "'examples' value is an empty array")
    for example in examples:
        _read_example(example, examples_list.examples.add())


def _read_example(value: Any, example: example_pb2.Example) -> None:
    if not isinstance(value, dict):
        raise invalid_argument(f"Example must be JSON object but got JSON {json_type_name(value)}")
    for name, content in value.items():
        feature = example.features.feature[as_bytes(name).decode("utf-8", "replace")]
        for element in content if isinstance(content, list) else (content,):
            _add_value(element, name, feature)


def _add_value(value: Any, name: str, feature: feature_pb2.Feature) -> None:
    kind, converted = _convert(value, name)
    present = feature.WhichOneof("kind")
    if present not in (None, kind):
        raise invalid_argument(f"Unexpected element type in feature: {name} expecting type: {_KIND_NAMES[present]}")
    if kind == "int64_list" and converted >= 2**63:
        raise invalid_argument(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    if isinstance(converted, dict):
        converted = decode_base64_object(converted)
    getattr(feature, kind).value.append(converted)


def _convert(value: Any, name: str) -> tuple[str, Any]:
    """Returns the field of a feature that takes a JSON value, and what it takes."""
    if isinstance(value, bool):
        return "int64_list", int(value)
    if isinstance(value, int) and -(2**63) <= value < 2**64:
        return "int64_list", value
    if isinstance(value, int | float):
        return "float_list", float(value)  # The parser takes no number that is too large.
    if isinstance(value, str):
        return "bytes_list", as_bytes(value)
    if is_base64_object(value):
        return "bytes_list", value
    raise invalid_argument(f"Feature: {name} has element with unexpected JSON type: {json_type_name(value)}")
