"""tf.Examples for requests, built from plain Python values and checked against the schema before they are sent."""

from __future__ import annotations

import dataclasses
import math
import numbers
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2

from modules.features import HISTORY_ITEM_IDS, HISTORY_TIMESTAMPS, SEEN_ITEM_IDS, TIMESTAMP, Column, ColumnTable, Role
from pipeline.serving.errors import RequestError
from pipeline.serving.messages import example_pb2

_LISTS = {schema_pb2.BYTES: "bytes_list", schema_pb2.INT: "int64_list", schema_pb2.FLOAT: "float_list"}
_EXPECTED = {schema_pb2.BYTES: "a string", schema_pb2.INT: "a 64-bit integer", schema_pb2.FLOAT: "a number"}


@dataclasses.dataclass(frozen=True)
class HistoryEvent:
    """One past interaction of a user.

    Attributes:
      item_id: what it was with.
      timestamp: when it was, in seconds since 1970 (UTC).
      feedback: what came of it, e.g. a rating; None if that is not known.
    """

    item_id: str
    timestamp: int
    feedback: float | None = None


@dataclasses.dataclass(frozen=True)
class RequestFormat:
    """What the examples of a request may hold.

    Attributes:
      columns: the query's columns by name; None if no schema is known, which allows any.
      history_length: most recent events that are written to the history; None for all.
      feedback: name of the history feature that holds the feedback, if there is one.
    """

    columns: Mapping[str, Column] | None = None
    history_length: int | None = None
    feedback: str | None = None

    @classmethod
    def from_schema(cls, schema: schema_pb2.Schema) -> RequestFormat:
        """Reads the format from a tagged schema.

        Raises:
          SchemaError: if its tags contradict each other.
        """
        table = ColumnTable.from_schema(schema)
        feedback = table.history_of(Role.LABEL)
        lengths = {feature.name: feature.value_count.max for feature in schema.feature}
        return cls(
            columns={column.name: column for column in table.query_columns},
            history_length=lengths.get(HISTORY_ITEM_IDS) or None,
            feedback=feedback.name if feedback else None,
        )

    def knows(self, name: str) -> bool:
        """Whether examples may have this feature."""
        return self.columns is None or name in self.columns


def build_example(
    user: Mapping[str, Any],
    history: Sequence[HistoryEvent] = (),
    *,
    seen: Sequence[str] = (),
    context: Mapping[str, Any] | None = None,
    timestamp: int | None = None,
    request_format: RequestFormat = RequestFormat(),
) -> example_pb2.Example:
    """Builds the example of one request, with what the pipeline writes into the examples that models learn from.

    The history holds the most recent events, oldest first and by item id within a second; `seen_item_ids` the distinct
    titles of the whole history, by first occurrence, followed by those of `seen`.

    Args:
      user: `user_id` and the user's columns; a value of None is left out, as a missing one.
      history: the user's past events, in any order.
      seen: further titles that must not be recommended.
      context: context columns.
      timestamp: time of the request in seconds since 1970 (UTC); None for now.
      request_format: what the examples may hold.

    Returns:
      The example.

    Raises:
      RequestError: naming the field, the value received and what was expected.
    """
    example = example_pb2.Example()
    writer = _FeatureWriter(example, request_format)
    writer.write_columns("user", user, (Role.USER_ID, Role.USER))
    writer.write_columns("context", context or {}, (Role.CONTEXT,))
    if request_format.knows(TIMESTAMP):
        writer.write(TIMESTAMP, "timestamp", [int(time.time()) if timestamp is None else timestamp], schema_pb2.INT)
    _write_history(writer, request_format, history, seen)
    return example


def _write_history(
    writer: _FeatureWriter, request_format: RequestFormat, history: Sequence[HistoryEvent], seen: Sequence[str]
) -> None:
    for position, event in enumerate(history):
        field = f"history[{position}]"
        _check(f"{field}.item_id", event.item_id, schema_pb2.BYTES)
        _check(f"{field}.timestamp", event.timestamp, schema_pb2.INT)
        if event.feedback is not None:
            _check(f"{field}.feedback", event.feedback, schema_pb2.FLOAT)
            if request_format.feedback is None:
                expected = "none, as no schema is given" if request_format.columns is None else "none, by the schema"
                raise RequestError(f"{field}.feedback: received {event.feedback!r}; expected {expected}")
    events = sorted(history, key=lambda event: (event.timestamp, _encode(event.item_id)))
    recent = events if request_format.history_length is None else events[-request_format.history_length :]
    if recent:
        writer.write(HISTORY_ITEM_IDS, "history", [event.item_id for event in recent], schema_pb2.BYTES)
    if recent and request_format.knows(HISTORY_TIMESTAMPS):
        writer.write(HISTORY_TIMESTAMPS, "history", [event.timestamp for event in recent], schema_pb2.INT)
    if request_format.feedback is not None and any(event.feedback is not None for event in recent):
        values = [math.nan if event.feedback is None else event.feedback for event in recent]
        writer.write(request_format.feedback, "history", values, schema_pb2.FLOAT)
    titles = dict.fromkeys([event.item_id for event in events] + list(seen))
    writer.write(SEEN_ITEM_IDS, "seen", list(titles), schema_pb2.BYTES)


class _FeatureWriter:
    """Writes checked values into an example."""

    def __init__(self, example: example_pb2.Example, request_format: RequestFormat):
        self._example = example
        self._columns = request_format.columns

    def write_columns(self, argument: str, values: Mapping[str, Any], roles: tuple[Role, ...]) -> None:
        """Writes the columns of one argument, which may have these roles only."""
        for name, value in values.items():
            field = f"{argument}[{name!r}]"
            if self._columns is None:
                several = isinstance(value, (list, tuple))
                column_type = _guess_type(value if several else [value])
            else:
                allowed = sorted(column.name for column in self._columns.values() if column.role in roles)
                if name not in allowed:
                    raise RequestError(f"{field}: received {value!r}; expected no such field, only {allowed}")
                column = self._columns[name]
                several, column_type = column.multivalent and isinstance(value, (list, tuple)), column.type
            if value is not None:
                self.write(name, field, list(value) if several else [value], column_type)

    def write(self, name: str, field: str, values: Sequence[Any], column_type: int) -> None:
        """Writes a feature; one without values is left out."""
        for value in values:
            _check(field, value, column_type)
        if values:
            getattr(self._example.features.feature[name], _LISTS[column_type]).value.extend(map(_encode, values))


def _encode(value: Any) -> Any:
    return value.encode("utf-8") if isinstance(value, str) else value


def _guess_type(values: Sequence[Any]) -> int:
    if all(isinstance(value, numbers.Real) for value in values):
        integral = all(isinstance(value, numbers.Integral) for value in values)
        return schema_pb2.INT if integral else schema_pb2.FLOAT
    return schema_pb2.BYTES


def _check(field: str, value: Any, column_type: int) -> None:
    if column_type == schema_pb2.BYTES:
        fits = isinstance(value, (str, bytes))
    elif column_type == schema_pb2.INT:
        fits = isinstance(value, numbers.Integral) and not isinstance(value, bool) and -(2**63) <= int(value) < 2**63
    else:
        fits = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not fits:
        raise RequestError(f"{field}: received {value!r}; expected {_EXPECTED[column_type]}")
