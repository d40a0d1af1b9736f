"""What the source tables know of one user and of titles: for the convenience of the command line.

A service has these at hand; `RecommenderClient` takes them explicitly. What counts is what ingestion accepts: see the
outcomes of rows in `pipeline.components.source_tables`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tensorflow_metadata.proto.v0 import schema_pb2

from modules.features import ITEM_ID, TIMESTAMP, USER_ID
from pipeline.components.column_values import (
    DECLARED_TYPES,
    ColumnType,
    TimestampParser,
    convert,
    parse_feedback,
    parse_key,
    split_cell,
)
from pipeline.components.source_files import find_files, read_records
from pipeline.components.spans import source_directory
from pipeline.data_config import DataConfig, TableConfig
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
      columns: `user_id` and the user's columns, as far as they have values; a list where there are several.
      history: all interactions, the earliest first and by item id within a second.
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
    profiles = _first_rows(data, "users", data.users, USER_ID, {user_id}, schema) if data.users is not None else {}
    events = _find_events(data, schema, user_id)
    if user_id not in profiles and not events:
        raise UnknownUserError(
            f"no row of user {user_id!r} in {data.directory}; "
            f"expected one in {data.users.pattern + ' or ' if data.users else ''}{data.interactions.pattern}"
        )
    columns = {name: values[0] if len(values) == 1 else values for name, values in profiles.get(user_id, {}).items()}
    return User({USER_ID: user_id, **columns}, events)


def find_titles(data: DataConfig, schema: schema_pb2.Schema, item_ids: Collection[str]) -> dict[str, dict[str, str]]:
    """Looks titles up: their columns as text, by item id.

    Raises:
      DataQualityError: if a table cannot be read.
    """
    rows = _first_rows(data, "items", data.items, ITEM_ID, item_ids, schema)
    return {
        item_id: {name: ", ".join(map(str, values)) for name, values in row.items()} for item_id, row in rows.items()
    }


def _find_events(data: DataConfig, schema: schema_pb2.Schema, user_id: str) -> list[HistoryEvent]:
    """Returns the interactions that ingestion accepts, in its order: of equal time and item, the first."""
    parse_time = TimestampParser(data.timestamp_unit, data.earliest, data.latest)
    table = data.interactions
    context = [name for name in table.columns if name not in (USER_ID, ITEM_ID, TIMESTAMP, data.feedback)]
    found: dict[tuple[int, str], HistoryEvent] = {}
    for _, row in _rows(data, "interactions", table, USER_ID, {user_id}):
        try:
            feedback = parse_feedback(row[data.feedback]) if data.feedback else None
            event = HistoryEvent(parse_key(row[ITEM_ID]).decode(), parse_time(row[TIMESTAMP]), feedback)
            _typed(table, context, row, schema)
        except ValueError:
            continue
        found.setdefault((event.timestamp, event.item_id), event)
    titles = _first_rows(data, "items", data.items, ITEM_ID, {item_id for _, item_id in found}, schema)
    return [found[key] for key in sorted(found) if key[1] in titles]


def _first_rows(
    data: DataConfig, name: str, table: TableConfig, key: str, wanted: Collection[str], schema: schema_pb2.Schema
) -> dict[str, dict[str, list[Any]]]:
    """Returns the first well-formed row of each wanted key, without the key."""
    names = [column for column in table.columns if column != key]
    found: dict[str, dict[str, list[Any]]] = {}
    for value, row in _rows(data, name, table, key, set(wanted)):
        if value not in found:
            with contextlib.suppress(ValueError):
                found[value] = _typed(table, names, row, schema)
    return found


def _rows(
    data: DataConfig, name: str, table: TableConfig, key: str, wanted: Collection[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields key and cells by column of the rows whose key is wanted; malformed rows are left out."""
    position = list(table.columns).index(key)
    for file in find_files(source_directory(data), name, table):
        for record in read_records(file.path, name, table):
            if record.reason is not None:
                continue
            try:
                value = parse_key(record.cells[position]).decode()
            except ValueError:
                continue
            if value in wanted:
                yield value, dict(zip(table.columns, record.cells, strict=True))


def _typed(
    table: TableConfig, names: Iterable[str], row: Mapping[str, Any], schema: schema_pb2.Schema
) -> dict[str, list[Any]]:
    """Returns the values of columns, as far as there are any.

    Raises:
      ValueError: if a value is of another type than the schema or the configuration says.
    """
    types = {feature.name: _COLUMN_TYPES.get(feature.type, ColumnType.STRING) for feature in schema.feature}
    typed = {}
    for name in names:
        spec = table.columns[name]
        values = split_cell(row[name], spec.separator)
        if spec.type is not None:
            values = tuple(convert(value, DECLARED_TYPES[spec.type]) for value in values)
        if values:
            typed[name] = [convert(value, types.get(name, ColumnType.STRING)) for value in values]
    return typed
