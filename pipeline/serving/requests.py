"""tf.Examples for requests, built from plain Python values and checked against the schema before they are sent."""

from __future__ import annotations

import dataclasses
import math
import numbers
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2

from modules.features import (
    HISTORY_ITEM_IDS,
    HISTORY_TIMESTAMPS,
    SEEN_ITEM_IDS,
    TIMESTAMP,
    USER_ID,
    Column,
    ColumnTable,
    Role,
)
from pipeline.serving.errors import RequestError
from pipeline.serving.field_checks import check_id, check_item_ids, check_value, is_encodable
from pipeline.serving.messages import example_pb2

CLOCK_TOLERANCE_SECONDS = 60
"""How far a request without a time of its own lets the clock that wrote its history run ahead of this machine's."""

_LISTS = {schema_pb2.BYTES: "bytes_list", schema_pb2.INT: "int64_list", schema_pb2.FLOAT: "float_list"}


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
class Query:
    """One user's question in a batch; the fields are the arguments of `RecommenderClient.recommend`.

    Attributes:
      user: `user_id` and the user's columns, as far as known.
      history: the user's past events, in any order.
      seen: further items that must not be recommended.
      context: context columns.
      timestamp: time of the request in seconds since 1970 (UTC); None for now.
    """

    user: Mapping[str, Any]
    history: Sequence[HistoryEvent] = ()
    seen: Sequence[str] = ()
    context: Mapping[str, Any] | None = None
    timestamp: int | None = None


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

    Models learn from histories that end strictly before the request, so an event at or after a given `timestamp` is
    refused. Without one, the request is made now, or just after its latest event if that is of this very second or of
    a clock that runs up to `CLOCK_TOLERANCE_SECONDS` ahead; what lies further in the future is refused.

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
    writer.write_columns("context", {} if context is None else context, (Role.CONTEXT,))
    _check_history(history, request_format)
    now = _time_of_request(timestamp, history)
    if request_format.knows(TIMESTAMP):
        writer.write(TIMESTAMP, "timestamp", [now], schema_pb2.INT)
    check_item_ids("seen", seen)
    _write_history(writer, request_format, history, seen)
    return example


def _check_history(history: Sequence[HistoryEvent], request_format: RequestFormat) -> None:
    for position, event in enumerate(history):
        field = f"history[{position}]"
        if not isinstance(event, HistoryEvent):
            raise RequestError(f"{field}: received {event!r}; expected a HistoryEvent")
        check_id(f"{field}.item_id", event.item_id)
        check_value(f"{field}.timestamp", event.timestamp, schema_pb2.INT)
        if event.feedback is not None:
            check_value(f"{field}.feedback", event.feedback, schema_pb2.FLOAT)
            if request_format.feedback is None:
                expected = "none, as no schema is given" if request_format.columns is None else "none, by the schema"
                raise RequestError(f"{field}.feedback: received {event.feedback!r}; expected {expected}")


def _time_of_request(timestamp: int | None, history: Sequence[HistoryEvent]) -> int:
    if timestamp is None:
        now = int(time.time())
        limit, expected = now + CLOCK_TOLERANCE_SECONDS, f"seconds since 1970, not later than now, {now}"
        moment = max([now, *(int(event.timestamp) + 1 for event in history)])
    else:
        check_value("timestamp", timestamp, schema_pb2.INT)
        limit, expected = timestamp - 1, f"a time before the request's, {timestamp}"
        moment = timestamp
    for position, event in enumerate(history):
        if event.timestamp > limit:
            raise RequestError(f"history[{position}].timestamp: received {event.timestamp!r}; expected {expected}")
    return moment


def _write_history(
    writer: _FeatureWriter, request_format: RequestFormat, history: Sequence[HistoryEvent], seen: Sequence[str]
) -> None:
    events = sorted(history, key=lambda event: (event.timestamp, event.item_id.encode("utf-8")))
    recent = events if request_format.history_length is None else events[-request_format.history_length :]
    if recent:
        writer.write(HISTORY_ITEM_IDS, "history", [event.item_id for event in recent], schema_pb2.BYTES)
    if recent and request_format.knows(HISTORY_TIMESTAMPS):
        writer.write(HISTORY_TIMESTAMPS, "history", [event.timestamp for event in recent], schema_pb2.INT)
    if request_format.feedback is not None and any(event.feedback is not None for event in recent):
        values = [math.nan if event.feedback is None else event.feedback for event in recent]
        writer.put(request_format.feedback, values, schema_pb2.FLOAT)
    titles = dict.fromkeys([event.item_id for event in events] + list(seen))
    writer.write(SEEN_ITEM_IDS, "seen", list(titles), schema_pb2.BYTES)


class _FeatureWriter:
    """Writes checked values into an example."""

    def __init__(self, example: example_pb2.Example, request_format: RequestFormat):
        self._example = example
        self._columns = request_format.columns

    def write_columns(self, argument: str, values: Mapping[str, Any], roles: tuple[Role, ...]) -> None:
        """Writes the columns of one argument, which may have these roles only."""
        if not isinstance(values, Mapping):
            raise RequestError(f"{argument}: received {values!r}; expected a mapping of columns to values")
        for name, value in values.items():
            field = f"{argument}[{name!r}]"
            if not isinstance(name, str) or not is_encodable(name):
                raise RequestError(f"{field}: received {value!r}; expected the name of a column, not {name!r}")
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
                values_of_column = list(value) if several else [value]
                if name == USER_ID:
                    for user_id in values_of_column:
                        check_id(field, user_id)
                self.write(name, field, values_of_column, column_type)

    def write(self, name: str, field: str, values: Sequence[Any], column_type: int) -> None:
        """Checks and writes a feature; one without values is left out."""
        for value in values:
            check_value(field, value, column_type)
        if name in self._example.features.feature:
            raise RequestError(f"{field}: the feature {name!r} is given twice")
        self.put(name, values, column_type)

    def put(self, name: str, values: Sequence[Any], column_type: int) -> None:
        """Writes values that are known to be right."""
        if values:
            encoded = [_encode(value, column_type) for value in values]
            getattr(self._example.features.feature[name], _LISTS[column_type]).value.extend(encoded)


def _encode(value: Any, column_type: int) -> Any:
    """Returns a checked value as protocol buffers take it."""
    if column_type == schema_pb2.BYTES:
        return value.encode("utf-8") if isinstance(value, str) else value
    return int(value) if column_type == schema_pb2.INT else float(value)


def _guess_type(values: Sequence[Any]) -> int:
    if all(isinstance(value, numbers.Real) for value in values):
        integral = all(isinstance(value, numbers.Integral) for value in values)
        return schema_pb2.INT if integral else schema_pb2.FLOAT
    return schema_pb2.BYTES
