"""NumPy arrays to `TensorProto` and back, without TensorFlow's runtime.

Strings are object arrays of `bytes`, as TensorFlow has them. Writing uses the typed fields (`float_val`, ...), as
TensorFlow Serving's default does, so that clients in languages that read only these are served too; reading takes both
forms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from pipeline.serving.messages import tensor_pb2, types_pb2

MAX_ELEMENTS = 1 << 28
"""Largest tensor that is read: a few bytes can declare a huge one, as a single value stands for all."""

_STRING = np.dtype(object)
_NUMPY_TYPES: dict[int, tuple[np.dtype, str]] = {
    types_pb2.DT_FLOAT: (np.dtype(np.float32), "float_val"),
    types_pb2.DT_DOUBLE: (np.dtype(np.float64), "double_val"),
    types_pb2.DT_HALF: (np.dtype(np.float16), "half_val"),
    types_pb2.DT_BFLOAT16: (np.dtype(ml_dtypes.bfloat16), "half_val"),
    types_pb2.DT_INT8: (np.dtype(np.int8), "int_val"),
    types_pb2.DT_INT16: (np.dtype(np.int16), "int_val"),
    types_pb2.DT_INT32: (np.dtype(np.int32), "int_val"),
    types_pb2.DT_INT64: (np.dtype(np.int64), "int64_val"),
    types_pb2.DT_UINT8: (np.dtype(np.uint8), "int_val"),
    types_pb2.DT_UINT16: (np.dtype(np.uint16), "int_val"),
    types_pb2.DT_UINT32: (np.dtype(np.uint32), "uint32_val"),
    types_pb2.DT_UINT64: (np.dtype(np.uint64), "uint64_val"),
    types_pb2.DT_BOOL: (np.dtype(np.bool_), "bool_val"),
    types_pb2.DT_STRING: (_STRING, "string_val"),
}
_TENSOR_TYPES = {numpy_type: (number, field) for number, (numpy_type, field) in _NUMPY_TYPES.items()}


def string_array(values: Any) -> np.ndarray:
    """Returns (nested sequences of) `str` and `bytes` as an object array of `bytes`; text is encoded as UTF-8."""
    array = np.array(values, dtype=object)
    encoded = np.empty(array.size, dtype=object)
    encoded[:] = [value.encode("utf-8") if isinstance(value, str) else value for value in array.flat]
    return encoded.reshape(array.shape)


def read_tensor(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """Returns the tensor's value. It may share memory with the message and be read-only.

    Raises:
      ValueError: if the message is no dense tensor of a known type, or its values do not fit its shape.
    """
    if proto.dtype not in _NUMPY_TYPES:
        raise ValueError(f"cannot read a tensor of type number {proto.dtype}")
    numpy_type, field = _NUMPY_TYPES[proto.dtype]
    shape = tuple(dimension.size for dimension in proto.tensor_shape.dim)
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in shape):
        raise ValueError("a tensor's shape must be fully known")
    size = math.prod(shape)
    if size > MAX_ELEMENTS:
        raise ValueError(f"a tensor may have at most {MAX_ELEMENTS} elements; received the shape {list(shape)}")
    if proto.tensor_content and numpy_type is not _STRING:
        return np.frombuffer(proto.tensor_content, dtype=numpy_type).reshape(shape)
    flat = _read_values(getattr(proto, field), field, numpy_type)
    if flat.size == size:
        return flat.reshape(shape)
    if flat.size > size:
        raise ValueError(f"{flat.size} values do not fit the shape {list(shape)}")
    # The last value stands for all that follow; without any value, it is the type's zero.
    padded = np.empty(size, dtype=numpy_type)
    padded[: flat.size] = flat
    zero = b"" if numpy_type is _STRING else numpy_type.type(0)
    padded[flat.size :] = flat[-1] if flat.size else zero
    return padded.reshape(shape)


def _read_values(values: Sequence[Any], field: str, numpy_type: np.dtype) -> np.ndarray:
    if numpy_type is _STRING:
        strings = np.empty(len(values), dtype=object)
        strings[:] = values
        return strings
    if field == "half_val":  # The bits of each value, as an integer.
        return np.array(values, dtype=np.int32).astype(np.uint16).view(numpy_type)
    if field == "int_val":  # What is out of range wraps around, as in TensorFlow.
        return np.array(values, dtype=np.int32).astype(numpy_type)
    return np.array(values, dtype=numpy_type)


def write_tensor(array: np.ndarray, proto: tensor_pb2.TensorProto) -> None:
    """Writes an array into an empty message.

    Raises:
      ValueError: if TensorFlow has no such type.
    """
    if array.dtype not in _TENSOR_TYPES:
        raise ValueError(f"cannot write an array of type {array.dtype}")
    proto.dtype, field = _TENSOR_TYPES[array.dtype]
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    flat = array.reshape(-1)
    if field == "half_val":
        flat = flat.view(np.uint16)
    getattr(proto, field).extend(flat.tolist())


def make_tensor(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Returns the array as a new message; see `write_tensor`."""
    proto = tensor_pb2.TensorProto()
    write_tensor(array, proto)
    return proto
