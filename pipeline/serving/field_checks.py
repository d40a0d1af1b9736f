"""What a field of a request may hold. Each check raises `RequestError`, naming field, value and what was expected."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow_metadata.proto.v0 import schema_pb2

from pipeline.serving.errors import RequestError

_EXPECTED = {
    schema_pb2.BYTES: "a string",
    schema_pb2.INT: "a 64-bit integer",
    schema_pb2.FLOAT: "a finite 32-bit number",
}
_LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


def check_value(field: str, value: Any, column_type: int) -> None:
    """Checks one value of a column.

    Args:
      field: its place in the request, for messages.
      value: the value.
      column_type: TFMD type (`schema_pb2.BYTES`, `INT` or `FLOAT`).

    Raises:
      RequestError: if the value is of another type, out of the type's range, not finite, or text that UTF-8 lacks.
    """
    if column_type == schema_pb2.BYTES:
        fits = isinstance(value, (str, bytes))
    elif column_type == schema_pb2.INT:
        fits = isinstance(value, numbers.Integral) and not isinstance(value, bool) and -(2**63) <= int(value) < 2**63
    else:
        fits = isinstance(value, numbers.Real) and not isinstance(value, bool) and _fits_float32(value)
    if not fits:
        raise RequestError(f"{field}: received {value!r}; expected {_EXPECTED[column_type]}")
    if isinstance(value, str) and not is_encodable(value):
        raise RequestError(f"{field}: received {value!r}; expected text without lone surrogates")


def check_id(field: str, value: Any) -> None:
    """Checks a user's or an item's id.

    Raises:
      RequestError: if it is no text, or empty.
    """
    if not isinstance(value, str):
        raise RequestError(f"{field}: received {value!r}; expected a string")
    if not value:
        raise RequestError(f"{field}: received ''; expected an id")
    check_value(field, value, schema_pb2.BYTES)


def _fits_float32(value: numbers.Real) -> bool:
    try:
        return abs(float(value)) <= _LARGEST_FLOAT32  # False for NaN
    except OverflowError:
        return False


def is_encodable(text: str) -> bool:
    """Whether UTF-8 has the text: it has no lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def check_item_ids(argument: str, item_ids: Sequence[str]) -> None:
    """Checks a list of item ids.

    Args:
      argument: its name, for messages.
      item_ids: the list.

    Raises:
      RequestError: if it is one string, or holds anything but non-empty text.
    """
    if isinstance(item_ids, (str, bytes)):
        raise RequestError(f"{argument}: received {item_ids!r}; expected a list of item ids")
    for item_id in item_ids:
        check_id(argument, item_id)
