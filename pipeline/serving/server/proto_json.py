"""Messages to JSON as C++ prints them for TensorFlow Serving's REST API.

The Python library's printer puts fields with default values after the others and names the option to print them
differently from release to release; this one keeps to the order of the field numbers. Unset fields without presence
are printed. Source: `ToJsonString` in `model_servers/http_rest_api_util.cc`.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from google.protobuf import wrappers_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_WIDE_INTEGERS = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
    }
)


def message_to_json(message: Message) -> str:
    """Returns a message as JSON of several lines, the last of which ends too. Fields keep their names in the schema."""
    text = json.dumps(_value_of(message), indent=1, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e") + "\n"


def _value_of(message: Message) -> Any:
    if isinstance(message, wrappers_pb2.Int64Value):
        return str(message.value)
    result: dict[str, Any] = {}
    fields: list[Any] = sorted(message.DESCRIPTOR.fields, key=lambda field: field.number)
    for field in fields:
        value = getattr(message, field.name)
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            element = entry.fields_by_name["value"]
            result[field.name] = {str(key): _scalar(value[key], element) for key in sorted(value)}
        elif _is_repeated(field):
            result[field.name] = [_scalar(element, field) for element in value]
        elif (entry is None and field.containing_oneof is None) or message.HasField(field.name):
            result[field.name] = _scalar(value, field)
    return result


def _is_repeated(field: Any) -> bool:
    if hasattr(field, "is_repeated"):
        return field.is_repeated
    return field.label == FieldDescriptor.LABEL_REPEATED  # Before protobuf 6.


def _scalar(value: Any, field: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _value_of(value)
    if field.type == FieldDescriptor.TYPE_ENUM:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    if field.type in _WIDE_INTEGERS:
        return str(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
