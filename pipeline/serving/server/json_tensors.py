"""JSON to the tensors of a Predict request, exactly as TensorFlow Serving's REST API reads it.

A request is either in rows (`instances`, one element per example) or in columns (`inputs`, one tensor per name).
Well-formed tensors are converted level by level in bulk; what deviates is walked element by element, which finds
TensorFlow Serving's words for the first thing that is wrong.

Source: `util/json_tensor.cc` of TensorFlow Serving.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from pipeline.serving.errors import StatusError, invalid_argument
from pipeline.serving.messages import meta_graph_pb2, predict_pb2, tensor_pb2, types_pb2
from pipeline.serving.server.json_parsing import parse_object
from pipeline.serving.server.json_writing import as_bytes, debug_text

BASE64_KEY = "b64"
"""Only member of a JSON object that stands for bytes."""

TensorInfos = Mapping[str, meta_graph_pb2.TensorInfo]

_FLOATS = {types_pb2.DT_FLOAT: "float_val", types_pb2.DT_DOUBLE: "double_val"}
_INT32_RANGE = (-(2**31), 2**31 - 1)
_INTEGERS = {
    types_pb2.DT_INT32: ("int_val", *_INT32_RANGE),
    types_pb2.DT_INT16: ("int_val", *_INT32_RANGE),  # What does not fit the smaller types wraps around later.
    types_pb2.DT_INT8: ("int_val", *_INT32_RANGE),
    types_pb2.DT_UINT8: ("int_val", *_INT32_RANGE),
    types_pb2.DT_INT64: ("int64_val", -(2**63), 2**63 - 1),
    types_pb2.DT_UINT32: ("uint32_val", 0, 2**32 - 1),
    types_pb2.DT_UINT64: ("uint64_val", 0, 2**64 - 1),
}
_FIELDS = {
    **_FLOATS,
    **{data_type: field for data_type, (field, _, _) in _INTEGERS.items()},
    types_pb2.DT_STRING: "string_val",
    types_pb2.DT_BOOL: "bool_val",
}
_TYPE_NAMES = {type(None): "Null", dict: "Object", list: "Array", str: "String", int: "Number", float: "Number"}
_BASE64 = re.compile(r"(?P<letters>[A-Za-z0-9+/]*)(?P<padding>[=.]*)")


def read_predict_request(
    body: bytes, request: predict_pb2.PredictRequest, get_inputs: Callable[[str], TensorInfos]
) -> bool:
    """Fills a request from its JSON form.

    Args:
      body: the JSON text.
      request: the message to fill; of its model spec, the signature's name is set.
      get_inputs: returns the inputs of a signature by name; the empty name means the default signature.

    Returns:
      Whether the request is in rows; the answer has the same form.

    Raises:
      StatusError: INVALID_ARGUMENT if the text is no such request, UNIMPLEMENTED for types that JSON has no form for.
    """
    document = parse_object(body)
    read_signature_name(document, request)
    signature = request.model_spec.signature_name
    inputs = get_inputs(signature)
    if not inputs:
        raise invalid_argument(f"Failed to get input map for signature: {signature or 'DEFAULT'}")
    in_rows = "instances" in document
    if in_rows and "inputs" in document:
        reason = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        raise format_error(document, reason)
    try:
        if in_rows:
            instances = document["instances"]
            if not isinstance(instances, list):
                raise format_error(document, "Expecting 'instances' to be an list/array")
            if not instances:
                raise format_error(document, "No values in 'instances' array")
            _read_rows(instances, inputs, request)
        elif "inputs" in document:
            _read_columns(document["inputs"], inputs, request)
        else:
            raise invalid_argument("Missing 'inputs' or 'instances' key")
    except RecursionError:
        raise invalid_argument("JSON Parse error: The document is nested too deeply.") from None
    return in_rows


def read_signature_name(document: dict[str, Any], request: Any) -> None:
    """Copies the signature's name into a request of any kind.

    Raises:
      StatusError: INVALID_ARGUMENT if it is no string.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise format_error(document, "not formatted correctly. 'signature_name' key must be a string value.")
    # A name that is no UTF-8 names nothing; the message could not hold it.
    request.model_spec.signature_name = as_bytes(name).decode("utf-8", "replace")


def format_error(value: Any, reason: str) -> StatusError:
    """Returns the error for a JSON value that is not what was expected."""
    return invalid_argument(f"JSON Value: {debug_text(value)} {reason}")


def json_type_name(value: Any) -> str:
    """Returns what error messages call the type of a JSON value, e.g. `Number`."""
    return str(value) if isinstance(value, bool) else _TYPE_NAMES[type(value)]


def data_type_name(data_type: int) -> str:
    """Returns what TensorFlow calls the type with a number, e.g. `float`."""
    return types_pb2.DataType.Name(data_type).removeprefix("DT_").lower()


def is_base64_object(value: Any) -> bool:
    """Returns whether a JSON value is `{"b64": "<base64>"}`, which stands for bytes."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(BASE64_KEY), str)


def decode_base64_object(value: Any) -> bytes:
    """Returns the bytes that `{"b64": "<base64>"}` stands for; the padding may be missing, white space is skipped.

    Raises:
      StatusError: INVALID_ARGUMENT if the value has another form or is no base64.
    """
    if not is_base64_object(value):
        raise format_error(value, "not formatted correctly for base64 data")
    match = _BASE64.fullmatch("".join(value[BASE64_KEY].split()))
    if match is not None:
        missing = -len(match["letters"]) % 4
        if missing < 3 and len(match["padding"]) in (0, missing):
            return base64.b64decode(match["letters"] + "=" * missing)
    raise invalid_argument("Unable to base64 decode")


def _read_rows(instances: list[Any], inputs: TensorInfos, request: predict_pb2.PredictRequest) -> None:
    """Stacks the rows' values to one tensor per input."""
    first = instances[0]
    if not isinstance(first, dict) and len(inputs) > 1:
        raise invalid_argument(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
            "tensorinfo_map"
        )
    names = sorted(inputs)
    if not _is_row_object(first):
        columns = {names[0]: instances}
    elif all(type(row) is dict and row.keys() == inputs.keys() for row in instances):
        columns = {name: [row[name] for row in instances] for name in names}
    else:
        columns = {}
    bulk = {name: _convert_in_bulk(values, inputs[name].dtype) for name, values in columns.items()}
    if not columns or None in bulk.values():
        bulk = _convert_rows(instances, inputs)
    for name, converted in bulk.items():
        assert converted is not None
        _write(*converted, inputs[name].dtype, request.inputs[name])


def _read_columns(value: Any, inputs: TensorInfos, request: predict_pb2.PredictRequest) -> None:
    """Reads one tensor per input; the value of a single input may stand alone."""
    if not _is_row_object(value):
        if len(inputs) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                "tensorinfo_map"
            )
        value = {next(iter(inputs)): value}
    for name in sorted(inputs):
        if name not in value:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
        data_type = inputs[name].dtype
        converted = _convert_in_bulk(value[name], data_type) or _convert(value[name], data_type)
        _write(*converted, data_type, request.inputs[name])


def _is_row_object(value: Any) -> bool:
    return isinstance(value, dict) and not is_base64_object(value)


def _write(shape: list[int], values: list[Any], data_type: int, tensor: tensor_pb2.TensorProto) -> None:
    tensor.dtype = data_type
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    if values:
        getattr(tensor, _FIELDS[data_type]).extend(values)


def _convert_in_bulk(value: Any, data_type: int) -> tuple[list[int], list[Any]] | None:
    """Returns shape and values of a tensor, or nothing if it needs a closer look."""
    shape: list[int] = []
    values = [value]
    while values and type(values[0]) is list:
        size = len(values[0])
        if set(map(type, values)) != {list} or set(map(len, values)) != {size}:
            return None
        shape.append(size)
        values = list(itertools.chain.from_iterable(values))
    kinds = set(map(type, values))
    if data_type in _FLOATS:
        if not kinds <= {float, int}:
            return None
        values = list(map(float, values))  # The parser takes no number that is too large.
    elif data_type in _INTEGERS:
        _, lowest, highest = _INTEGERS[data_type]
        if not kinds <= {int} or (values and not (lowest <= min(values) and max(values) <= highest)):
            return None
    elif data_type == types_pb2.DT_STRING and kinds <= {str}:
        values = list(map(as_bytes, values))
    elif not (data_type == types_pb2.DT_BOOL and kinds <= {bool}):
        return None
    return shape, values


def _convert_rows(instances: list[Any], inputs: TensorInfos) -> dict[str, Any]:
    """Returns shape and values of each input, row by row."""
    in_objects = _is_row_object(instances[0])
    names = sorted(inputs)
    rows: dict[str, tuple[list[int], int]] = {}  # Shape and size of each input's first row.
    values: dict[str, list[Any]] = {name: [] for name in names}
    for position, row in enumerate(instances):
        if in_objects and not _is_row_object(row):
            raise invalid_argument(f"Expecting object but got list at item {position} of input list")
        if not in_objects and _is_row_object(row):
            raise invalid_argument(f"Expecting value/list but got object at item {position} of input list")
        for name, value in row.items() if in_objects else ((names[0], row),):
            try:
                if name not in inputs:
                    raise invalid_argument(f"JSON object: does not have named input: {name}")
                shape, converted = _convert(value, inputs[name].dtype)
                _check_same(shape, len(converted), *rows.setdefault(name, (shape, len(converted))))
            except StatusError as error:
                key = f" key: {name}" if in_objects else ""
                raise invalid_argument(
                    f"Failed to process element: {position}{key} of 'instances' list. "
                    f"Error: {error.code.name}: {error.message}"
                ) from None
            values[name] += converted
        if in_objects and row.keys() != inputs.keys():
            raise invalid_argument(
                f"Failed to process element: {position} of 'instances' list. JSON object: {debug_text(row)} "
                f"keys must be equal to: {','.join(names)}"
            )
    return {name: ([len(instances), *shape], values[name]) for name, (shape, _) in rows.items()}


def _check_same(shape: list[int], size: int, expected_shape: list[int], expected_size: int) -> None:
    if size != expected_size:
        raise invalid_argument(f"Expecting tensor size: {expected_size} but got: {size}")
    if shape != expected_shape:
        expected, received = (",".join(map(str, sizes)) for sizes in (expected_shape, shape))
        raise invalid_argument(f"Expecting shape [{expected}] but got: [{received}]")


def _convert(value: Any, data_type: int) -> tuple[list[int], list[Any]]:
    """Returns shape and values of a tensor, element by element; the first elements decide about the shape."""
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    values: list[Any] = []

    def fill(element: Any, level: int) -> None:
        if not isinstance(element, list):
            if level != len(shape):
                raise format_error(
                    element, f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {len(shape)}"
                )
            values.append(_convert_scalar(element, data_type))
            return
        if level >= len(shape):
            raise invalid_argument(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
        if len(element) != shape[level]:
            raise invalid_argument(
                f"Encountered list at unexpected size: {len(element)} at level: {level} expected size: {shape[level]}"
            )
        for child in element:
            fill(child, level + 1)

    fill(value, 0)
    return shape, values


def _convert_scalar(value: Any, data_type: int) -> Any:
    if isinstance(value, dict) and data_type == types_pb2.DT_STRING:
        return decode_base64_object(value)
    if data_type not in _FIELDS and not isinstance(value, dict):
        raise StatusError(
            grpc.StatusCode.UNIMPLEMENTED,
            f"Conversion of JSON Value: {debug_text(value)} to type: {data_type_name(data_type)}",
        )
    if data_type in _FLOATS and type(value) in (int, float):
        return float(value)
    if data_type in _INTEGERS and type(value) is int:
        _, lowest, highest = _INTEGERS[data_type]
        if lowest <= value <= highest:
            return value
    if data_type == types_pb2.DT_STRING and isinstance(value, str):
        return as_bytes(value)
    if data_type == types_pb2.DT_BOOL and isinstance(value, bool):
        return value
    raise format_error(value, f"Type: {json_type_name(value)} is not of expected type: {data_type_name(data_type)}")
