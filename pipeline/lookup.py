"""What the source tables know of one user and of titles: for the convenience of the command line.

A service has these at hand; `RecommenderClient` takes them explicitly.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2

from modules.features import ITEM_ID, TIMESTAMP, USER_ID
from pipeline.components.column_values import (
    ColumnType,
    TimestampParser,
    convert,
    parse_feedback,
    parse_key,
    split_cell,
)
from pipeline.components.source_files import find_files, read_records
from pipeline.components.source_storage import find_latest_span
from pipeline.config import DataConfig, TableConfig
from pipeline.serving.requests import HistoryEvent

_COLUMN_TYPES = {
    schema_pb2.INT: ColumnType.INT,
    schema_pb2.FLOAT: ColumnType.FLOAT,
    schema_pb2.BYTES: ColumnType.STRING,
}


class UnknownUserError(LookupError):
    """Neither the users nor the interactions know a user."""


@dataclasses.dataclass(frozen=True)
class User:
    """What the tables know of a user.

    Attributes:
      columns: `user_id` and the user's columns, as far as they have values.
      history: all interactions, the earliest first.
    """

    columns: Mapping[str, Any]
    history: Sequence[HistoryEvent]


def find_user(data: DataConfig, schema: schema_pb2.Schema, user_id: str) -> User:
    """Looks a user up.

    Args:
      data: the source tables.
      schema: types of the columns.
      user_id: the user.

    Raises:
      UnknownUserError: if no table has a row of the user.
      DataQualityError: if a table cannot be read.
    """
    columns: dict[str, Any] = {USER_ID: user_id}
    if data.users is not None:
        for row in _rows(data, "users", data.users, USER_ID, {user_id}):
            columns.update({name: values[0] for name, values in _typed(data.users, row, schema).items()})
            break
    parse_time = TimestampParser(data.timestamp_unit, data.earliest, data.latest)
    events = []
    for row in _rows(data, "interactions", data.interactions, USER_ID, {user_id}):
        try:
            feedback = parse_feedback(row[data.feedback]) if data.feedback else None
            events.append(HistoryEvent(parse_key(row[ITEM_ID]).decode(), parse_time(row[TIMESTAMP]), feedback))
        except ValueError:
            continue  # A malformed row, which ingestion rejects and reports.
    if len(columns) == 1 and not events:
        raise UnknownUserError(
            f"no row of user {user_id!r} in {data.directory}; "
            f"expected one in {data.users.pattern + ' or ' if data.users else ''}{data.interactions.pattern}"
        )
    return User(columns, sorted(events, key=lambda event: event.timestamp))


def find_titles(data: DataConfig, schema: schema_pb2.Schema, item_ids: Collection[str]) -> dict[str, dict[str, str]]:
    """Looks titles up: their columns as text, by item id."""
    titles = {}
    for row in _rows(data, "items", data.items, ITEM_ID, set(item_ids)):
        typed = _typed(data.items, row, schema)
        titles[parse_key(row[ITEM_ID]).decode()] = {
            name: ", ".join(str(value) for value in values) for name, values in typed.items()
        }
    return titles


def _rows(
    data: DataConfig, name: str, table: TableConfig, key: str, wanted: Collection[str]
) -> Iterator[dict[str, Any]]:
    """Yields the well-formed rows whose key is wanted, as cells by column."""
    position = list(table.columns).index(key)
    for file in find_files(find_latest_span(data.directory), name, table):
        for record in read_records(file.path, name, table):
            if record.reason is None and str(record.cells[position]) in wanted:
                yield dict(zip(table.columns, record.cells, strict=True))


def _typed(table: TableConfig, row: Mapping[str, Any], schema: schema_pb2.Schema) -> dict[str, list[Any]]:
    types = {feature.name: _COLUMN_TYPES.get(feature.type, ColumnType.STRING) for feature in schema.feature}
    typed = {}
    for name, spec in table.columns.items():
        values = split_cell(row[name], spec.separator)
        if name not in (USER_ID, ITEM_ID) and values:
            typed[name] = [convert(value, types.get(name, ColumnType.STRING)) for value in values]
    return typed
