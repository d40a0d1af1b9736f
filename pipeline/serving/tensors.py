"""NumPy arrays to `TensorProto` and back, without TensorFlow's runtime.

Strings are object arrays of `bytes`, as TensorFlow has them. Writing uses the typed fields (`float_val`, ...), as
TensorFlow Serving's default does, so that clients in languages that read only these are served too; reading takes both
forms, and like TensorFlow's `Tensor::FromProto` repeats the last value where some are missing and ignores those beyond
the shape.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from pipeline.serving.messages import tensor_pb2, types_pb2

MAX_ELEMENTS = 1 << 28
"""Largest tensor that is read."""
MAX_REPEATED_ELEMENTS = 1 << 24
"""Largest tensor that is read if not all its values were sent: a few bytes can declare a huge one."""

_STRING = np.dtype(object)
_COPYING_PAYS = 32
"""Numbers from which on reading the serialized field beats converting the values one by one."""


@dataclasses.dataclass(frozen=True)
class _Type:
    """How values of a type travel.

    Attributes:
      number: of the type in `types.proto`.
      numpy: the type of an array.
      field: of `TensorProto` that lists the values.
      packed_tag: the field's tag on the wire if its packed values are the array's bytes, else empty.
    """

    number: int
    numpy: np.dtype
    field: str
    packed_tag: bytes = b""


def _type(number: int, numpy: Any, field: str, field_number: int = 0) -> _Type:
    raw = field_number and sys.byteorder == "little"
    return _Type(number, np.dtype(numpy), field, bytes([field_number << 3 | 2]) if raw else b"")


_TYPES = (
    _type(types_pb2.DT_FLOAT, np.float32, "float_val", 5),
    _type(types_pb2.DT_DOUBLE, np.float64, "double_val", 6),
    _type(types_pb2.DT_HALF, np.float16, "half_val"),
    _type(types_pb2.DT_BFLOAT16, ml_dtypes.bfloat16, "half_val"),
    _type(types_pb2.DT_INT8, np.int8, "int_val"),
    _type(types_pb2.DT_INT16, np.int16, "int_val"),
    _type(types_pb2.DT_INT32, np.int32, "int_val"),
    _type(types_pb2.DT_INT64, np.int64, "int64_val"),
    _type(types_pb2.DT_UINT8, np.uint8, "int_val"),
    _type(types_pb2.DT_UINT16, np.uint16, "int_val"),
    _type(types_pb2.DT_UINT32, np.uint32, "uint32_val"),
    _type(types_pb2.DT_UINT64, np.uint64, "uint64_val"),
    _type(types_pb2.DT_BOOL, np.bool_, "bool_val", 11),
    _type(types_pb2.DT_COMPLEX64, np.complex64, "scomplex_val", 9),
    _type(types_pb2.DT_COMPLEX128, np.complex128, "dcomplex_val", 12),
    _type(types_pb2.DT_STRING, object, "string_val"),
)
_BY_NUMBER = {entry.number: entry for entry in _TYPES}
_BY_NUMPY = {entry.numpy: entry for entry in _TYPES}


def string_array(values: Any) -> np.ndarray:
    """Returns (nested sequences of) `str` and `bytes` as an object array of `bytes`; text is encoded as UTF-8."""
    array = np.array(values, dtype=object)
    encoded = np.empty(array.size, dtype=object)
    encoded[:] = [value.encode("utf-8") if isinstance(value, str) else value for value in array.flat]
    return encoded.reshape(array.shape)


def type_name(array: np.ndarray) -> str:
    """Returns TensorFlow's name of an array's type, e.g. `DT_FLOAT`.

    Raises:
      ValueError: if TensorFlow has no such type.
    """
    return types_pb2.DataType.Name(_type_of(array).number)


def read_tensor(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """Returns the tensor's value. It may share memory with the message and be read-only.

    Raises:
      ValueError: if the message is no dense tensor of a known type, or its content does not fit its shape.
    """
    entry = _BY_NUMBER.get(proto.dtype)
    if entry is None:
        raise ValueError(f"cannot read a tensor of type number {proto.dtype}")
    shape = tuple([dimension.size for dimension in proto.tensor_shape.dim])
    if shape and min(shape) < 0:
        raise ValueError(f"a tensor's shape must be fully known; received {list(shape)}")
    size = math.prod(shape)
    if size > MAX_ELEMENTS:
        raise ValueError(f"a tensor may have at most {MAX_ELEMENTS} elements; received the shape {list(shape)}")
    content = proto.tensor_content
    if content and size:
        if entry.numpy is _STRING:
            return _string_content(content, size).reshape(shape)
        if len(content) != size * entry.numpy.itemsize:
            raise ValueError(
                f"a tensor of shape {list(shape)} has {size * entry.numpy.itemsize} bytes of content; "
                f"received {len(content)}"
            )
        return np.frombuffer(content, dtype=entry.numpy).reshape(shape)
    flat = _read_values(proto, entry)
    if flat.size > size:
        flat = flat[:size]
    if flat.size == size:
        return flat.reshape(shape)
    if size > MAX_REPEATED_ELEMENTS:
        raise ValueError(
            f"a tensor of which {flat.size} values are given may have at most {MAX_REPEATED_ELEMENTS} elements; "
            f"received the shape {list(shape)}"
        )
    # The last value stands for all that follow; without any value, it is the type's zero.
    padded = np.empty(size, dtype=entry.numpy)
    padded[: flat.size] = flat
    zero = b"" if entry.numpy is _STRING else entry.numpy.type(0)
    padded[flat.size :] = flat[-1] if flat.size else zero
    return padded.reshape(shape)


def write_tensor(array: np.ndarray, proto: tensor_pb2.TensorProto) -> None:
    """Writes an array into an empty message.

    Raises:
      ValueError: if TensorFlow has no such type.
    """
    entry = _type_of(array)
    header = _header(entry.number, array.shape)
    if not array.size:
        proto.MergeFromString(header)
    elif entry.packed_tag:
        # The bytes of the message, rather than its values one by one: a hundredth of the time.
        proto.MergeFromString(b"".join((header, entry.packed_tag, _varint(array.nbytes), array.tobytes())))
    else:
        proto.MergeFromString(header)
        flat = array.reshape(-1)
        if entry.field == "half_val":  # The bits of each value, as an integer.
            flat = flat.view(np.uint16)
        getattr(proto, entry.field).extend(flat.tolist())


def make_tensor(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Returns the array as a new message; see `write_tensor`."""
    proto = tensor_pb2.TensorProto()
    write_tensor(array, proto)
    return proto


def _type_of(array: np.ndarray) -> _Type:
    entry = _BY_NUMPY.get(array.dtype)
    if entry is None:
        raise ValueError(f"cannot write an array of type {array.dtype}")
    return entry


@functools.lru_cache(maxsize=1024)
def _header(number: int, shape: tuple[int, ...]) -> bytes:
    """Returns the bytes of a message that has a type and a shape only."""
    proto = tensor_pb2.TensorProto(dtype=number)
    proto.tensor_shape.SetInParent()
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto.SerializeToString()


def _read_values(proto: tensor_pb2.TensorProto, entry: _Type) -> np.ndarray:
    """Returns the values of the typed field, flat."""
    values = getattr(proto, entry.field)
    if entry.numpy is _STRING:
        return np.array(values[:], dtype=object)
    if entry.packed_tag and len(values) >= _COPYING_PAYS:
        packed = _packed_values(proto, entry, len(values))
        if packed is not None:
            return packed
    if entry.field == "half_val":
        return np.array(values, dtype=np.int32).astype(np.uint16).view(entry.numpy)
    if entry.field == "int_val":  # What is out of range wraps around, as in TensorFlow.
        return np.array(values, dtype=np.int32).astype(entry.numpy)
    if entry.field in ("scomplex_val", "dcomplex_val"):  # Real and imaginary parts take turns.
        parts = np.float32 if entry.field == "scomplex_val" else np.float64
        return np.array(values[: len(values) // 2 * 2], dtype=parts).view(entry.numpy)
    return np.array(values, dtype=entry.numpy)


def _packed_values(proto: tensor_pb2.TensorProto, entry: _Type, count: int) -> np.ndarray | None:
    """Returns the values from the serialized message, or nothing if they are not the last thing in it."""
    itemsize = entry.numpy.itemsize // 2 if entry.numpy.kind == "c" else entry.numpy.itemsize
    length = count * itemsize
    if length % entry.numpy.itemsize:
        return None
    serialized = proto.SerializeToString()
    start = len(serialized) - length
    if not serialized.endswith(entry.packed_tag + _varint(length), 0, start):
        return None
    return np.frombuffer(serialized, dtype=entry.numpy, offset=start)


def _string_content(content: bytes, count: int) -> np.ndarray:
    """Reads TensorFlow's packed form of strings: all their lengths, then all their bytes."""
    reader = _varints(content)
    lengths: list[int] = []
    start = 0
    for _ in range(count):
        try:
            length, start = next(reader)
        except StopIteration:
            raise ValueError(f"the content of a tensor of {count} strings ends after {len(lengths)} lengths") from None
        lengths.append(length)
    if start + sum(lengths) != len(content):
        raise ValueError(f"a tensor's strings take {sum(lengths)} bytes; received {len(content) - start}")
    strings = np.empty(count, dtype=object)
    for index, length in enumerate(lengths):
        strings[index] = content[start : start + length]
        start += length
    return strings


def _varints(content: bytes) -> Iterator[tuple[int, int]]:
    """Yields the variable-length integers at the beginning of `content`, each with the place after it."""
    value = shift = 0
    for place, byte in enumerate(content, start=1):
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield value, place
            value = shift = 0
        elif shift > 28:
            return


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
