"""Responses to JSON, exactly as TensorFlow Serving's REST API writes it.

Rows stand on one line and columns over several. Outputs are listed in the order of their names, where TensorFlow
Serving has none. Source: `util/json_tensor.cc` of TensorFlow Serving.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping

import numpy as np

from pipeline.serving.errors import invalid_argument
from pipeline.serving.messages import classification_pb2, regression_pb2, tensor_pb2, types_pb2
from pipeline.serving.server.json_tensors import BASE64_KEY, data_type_name
from pipeline.serving.server.json_writing import INDENTATION, as_bytes, as_text, decimals, quote
from pipeline.serving.tensors import read_tensor

BYTES_SUFFIX = "_bytes"
"""Ending of the names of string tensors that are written as base64."""

_FLOATS = frozenset({types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE})
_INTEGERS = frozenset(
    {
        types_pb2.DT_INT32,
        types_pb2.DT_INT16,
        types_pb2.DT_INT8,
        types_pb2.DT_UINT8,
        types_pb2.DT_INT64,
        types_pb2.DT_UINT32,
        types_pb2.DT_UINT64,
    }
)


def write_predict_response(outputs: Mapping[str, tensor_pb2.TensorProto], in_rows: bool) -> bytes:
    """Returns the JSON form of a Predict response's outputs.

    Args:
      outputs: tensors by name.
      in_rows: whether to write `predictions`, one element per row, or else `outputs`, one tensor per name.

    Raises:
      StatusError: INVALID_ARGUMENT if JSON, or this form of it, cannot hold them.
    """
    if not outputs:
        raise invalid_argument("Cannot convert empty tensor map to JSON")
    return as_bytes(_write_rows(outputs) if in_rows else _write_columns(outputs))


def write_classifications(result: classification_pb2.ClassificationResult) -> bytes:
    """Returns the JSON form of a Classify result: for each example, pairs of label and score.

    Raises:
      StatusError: INVALID_ARGUMENT if there is no result.
    """
    if not result.classifications:
        raise invalid_argument("Cannot convert empty ClassificationResults to JSON")
    rows = []
    for example in result.classifications:
        scores = decimals(np.array([entry.score for entry in example.classes], np.float32))
        pairs = (f"[{quote(entry.label)}, {score}]" for entry, score in zip(example.classes, scores, strict=True))
        rows.append(f"[{', '.join(pairs)}]")
    return as_bytes(_results(rows, f"\n{INDENTATION}]"))


def write_regressions(result: regression_pb2.RegressionResult) -> bytes:
    """Returns the JSON form of a Regress result: one value per example.

    Raises:
      StatusError: INVALID_ARGUMENT if there is no result.
    """
    if not result.regressions:
        raise invalid_argument("Cannot convert empty RegressionResults to JSON")
    return as_bytes(_results(decimals(np.array([entry.value for entry in result.regressions], np.float32)), "]"))


def _results(rows: list[str], end: str) -> str:
    # Which of the two ends on a line of its own is an accident of when the format is switched, and part of the wire.
    return f'{{\n{INDENTATION}"results": [{", ".join(rows)}{end}\n}}'


def _write_rows(outputs: Mapping[str, tensor_pb2.TensorProto]) -> str:
    batch_size = -1
    names = sorted(outputs)
    for name in names:
        dimensions = outputs[name].tensor_shape.dim
        if not dimensions:
            raise invalid_argument(f"Tensor name: {name} has no shape information ")
        if batch_size not in (-1, dimensions[0].size):
            raise invalid_argument(
                f"Tensor name: {name} has inconsistent batch size: {dimensions[0].size} expecting: {batch_size}"
            )
        batch_size = dimensions[0].size
    in_objects = len(outputs) > 1
    columns = []
    for name in names:
        shape = [dimension.size for dimension in outputs[name].tensor_shape.dim]
        texts = _element_texts(name, outputs[name], level=2 + in_objects + len(shape) - 1)
        size = math.prod(shape[1:])
        columns.append([_one_line(texts[row * size : (row + 1) * size], shape[1:]) for row in range(batch_size)])
    if not batch_size:
        body = "[]"
    elif in_objects:
        outer, inner = INDENTATION * 2, INDENTATION * 3
        keys = [f"{inner}{quote(name)}: " for name in names]
        rows = (
            f"\n{outer}{{\n" + ",\n".join(key + value for key, value in zip(keys, row, strict=True)) + f"\n{outer}}}"
            for row in zip(*columns, strict=True)
        )
        body = f"[{','.join(rows)}\n{INDENTATION}]"
    else:
        body = f"[{', '.join(columns[0])}\n{INDENTATION}]"
    return f'{{\n{INDENTATION}"predictions": {body}\n}}'


def _write_columns(outputs: Mapping[str, tensor_pb2.TensorProto]) -> str:
    in_object = len(outputs) > 1
    level = 2 if in_object else 1
    members = []
    for name in sorted(outputs):
        shape = [dimension.size for dimension in outputs[name].tensor_shape.dim]
        texts = _element_texts(name, outputs[name], level + len(shape))
        value = _several_lines(texts, shape, level + 1)
        members.append(f"\n{INDENTATION * 2}{quote(name)}: {value}" if in_object else value)
    body = f"{{{','.join(members)}\n{INDENTATION}}}" if in_object else members[0]
    return f'{{\n{INDENTATION}"outputs": {body}\n}}'


def _element_texts(name: str, tensor: tensor_pb2.TensorProto, level: int) -> list[str]:
    """Returns a tensor's elements as JSON.

    Args:
      name: the tensor's; it decides how strings are written.
      tensor: the tensor.
      level: how many containers are open around an element.
    """
    if not math.prod(dimension.size for dimension in tensor.tensor_shape.dim):
        return []
    if tensor.dtype in _FLOATS:
        return decimals(read_tensor(tensor).reshape(-1))
    if tensor.dtype in _INTEGERS:
        return list(map(str, read_tensor(tensor).reshape(-1).tolist()))
    if tensor.dtype == types_pb2.DT_BOOL:
        return ["true" if value else "false" for value in read_tensor(tensor).reshape(-1).tolist()]
    if tensor.dtype == types_pb2.DT_STRING:
        values = read_tensor(tensor).reshape(-1).tolist()
        if not name.endswith(BYTES_SUFFIX):
            return [quote(as_text(value)) for value in values]
        start = f'{{\n{INDENTATION * (level + 1)}"{BASE64_KEY}": "'
        end = f'"\n{INDENTATION * level}}}'
        return [f"{start}{base64.b64encode(value).decode()}{end}" for value in values]
    raise invalid_argument(f"Failed to write JSON value for tensor type: {data_type_name(tensor.dtype)}")


def _one_line(texts: list[str], shape: list[int]) -> str:
    if not shape:
        return texts[0]
    for size in reversed(shape[1:]):
        if not size:
            return _empty(shape)
        texts = [f"[{', '.join(texts[start : start + size])}]" for start in range(0, len(texts), size)]
    return f"[{', '.join(texts)}]"


def _empty(shape: list[int]) -> str:
    return f"[{', '.join(_empty(shape[1:]) for _ in range(shape[0]))}]" if shape else ""


def _several_lines(texts: list[str], shape: list[int], level: int) -> str:
    """Writes an array with each element on a line of its own; its elements have `level` containers around them."""
    if not shape:
        return texts[0]
    if not shape[0]:
        return "[]"
    size = math.prod(shape[1:])
    children = (
        _several_lines(texts[position * size : (position + 1) * size], shape[1:], level + 1)
        for position in range(shape[0])
    )
    indentation = f"\n{INDENTATION * level}"
    return f"[{','.join(indentation + child for child in children)}\n{INDENTATION * (level - 1)}]"
