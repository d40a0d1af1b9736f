"""What the columns of source tables hold: the facts that a schema is proposed from.

Rows are read and parsed by the ingestion's own code, so types come out as they will in the examples, and rows that it
would reject do not count.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from modules.features import ITEM_ID, TIMESTAMP, USER_ID
from pipeline.components.column_values import (
    ColumnType,
    TimestampParser,
    Value,
    infer_text_type,
    parse_feedback,
    parse_key,
    parse_optional_feedback,
)
from pipeline.components.source_files import Record, find_files, read_records
from pipeline.components.source_storage import DataQualityError
from pipeline.components.source_tables import ColumnSet
from pipeline.components.spans import source_directory
from pipeline.data_config import DataConfig, TableConfig

MOST_DISTINCT_VALUES = 1000
"""Distinct values that are kept of a column; more make its cardinality high."""


@dataclasses.dataclass
class ColumnProfile:
    """The values of one column.

    Attributes:
      type: type that its feature will have.
      separator: what splits its cells, if anything does.
      rows: rows that were read.
      present: rows with a value.
      values: values in all of them.
      most_values: values in the row that has most.
      with_spaces: values that contain white space.
      distinct: the distinct values, the first `MOST_DISTINCT_VALUES` + 1 of them.
      minimum: smallest number, or None where there is none.
      maximum: largest number.
    """

    type: ColumnType = ColumnType.STRING
    separator: str | None = None
    rows: int = 0
    present: int = 0
    values: int = 0
    most_values: int = 0
    with_spaces: int = 0
    distinct: set[Value] = dataclasses.field(default_factory=set)
    minimum: int | float | None = None
    maximum: int | float | None = None

    def observe(self, values: Sequence[Value]) -> None:
        """Takes the values of one row into account."""
        self.rows += 1
        self.present += bool(values)
        self.values += len(values)
        self.most_values = max(self.most_values, len(values))
        for value in values:
            if len(self.distinct) <= MOST_DISTINCT_VALUES:
                self.distinct.add(value)
            number = _as_number(value)
            if number is None:
                self.with_spaces += any(character.isspace() for character in str(value))
            elif math.isfinite(number):
                self.minimum = number if self.minimum is None else min(self.minimum, number)
                self.maximum = number if self.maximum is None else max(self.maximum, number)

    @property
    def has_many_distinct(self) -> bool:
        """Whether there are more distinct values than were kept."""
        return len(self.distinct) > MOST_DISTINCT_VALUES


@dataclasses.dataclass(frozen=True)
class TableProfile:
    """One source table.

    Attributes:
      columns: profiles by feature name, in the order of the configuration.
      rows: rows that were read, malformed ones included.
      malformed: rows among them that the ingestion would reject for what they hold.
      is_complete: whether all of the table was read.
    """

    columns: dict[str, ColumnProfile]
    rows: int
    malformed: int
    is_complete: bool


def profile_tables(data: DataConfig, most_rows: int) -> dict[str, TableProfile]:
    """Profiles the source tables, under their names `interactions`, `items` and `users`.

    Args:
      data: where the tables are and which columns to take.
      most_rows: rows to read of each table, from the start.

    Raises:
      DataQualityError: naming the table and file if there is no file, one cannot be read, or no row is well-formed.
    """
    directory = source_directory(data)
    tables = {"interactions": data.interactions, "items": data.items, "users": data.users}
    return {
        name: _profile_table(data, directory, name, table, most_rows)
        for name, table in tables.items()
        if table is not None
    }


def _profile_table(data: DataConfig, directory: str, name: str, table: TableConfig, most_rows: int) -> TableProfile:
    keys = _key_parsers(data, name)
    positions = {column: list(table.columns).index(column) for column in keys}
    others = ColumnSet(table, keys)
    inference = others.new_inference()
    columns = {column: ColumnProfile(separator=spec.separator) for column, spec in table.columns.items()}
    rows = malformed = 0
    records = _records(directory, name, table)
    for record in itertools.islice(records, most_rows):
        rows += 1
        try:
            if record.reason:
                raise ValueError(record.reason)
            parsed = {column: keys[column](record.cells[at]) for column, at in positions.items()}
            values = {column: () if value is None else (value,) for column, value in parsed.items()}
            row = others.parse(record.cells)
        except ValueError:
            malformed += 1
            continue
        inference.observe(row)
        for column, cell in {**values, **dict(zip(others.names, row, strict=True))}.items():
            columns[column].observe(cell)
    if rows == malformed:
        raise DataQualityError(f"{name}: none of the {rows} rows read is well-formed; expected at least one")
    for column in others.names:
        columns[column].type = others.declared.get(column) or inference.types.get(column, ColumnType.STRING)
    if name == "interactions":
        columns[TIMESTAMP].type = ColumnType.INT
        if data.feedback is not None:
            columns[data.feedback].type = ColumnType.FLOAT
    return TableProfile(columns, rows, malformed, next(records, None) is None)


def _key_parsers(data: DataConfig, name: str) -> dict[str, Callable[[Any], Value | None]]:
    """Returns the parsers of the columns whose types the pipeline sets: ids, timestamp and feedback.

    Where the log has propensities, feedback may be missing: None.
    """

    def parse_id(cell: Any) -> str:
        return parse_key(cell).decode("utf-8")

    if name != "interactions":
        return {ITEM_ID if name == "items" else USER_ID: parse_id}
    timestamp = TimestampParser(data.timestamp_unit, data.earliest, data.latest)
    parse = parse_optional_feedback if data.propensity else parse_feedback
    feedback = {data.feedback: parse} if data.feedback else {}
    return {USER_ID: parse_id, ITEM_ID: parse_id, TIMESTAMP: timestamp, **feedback}


def _records(directory: str, name: str, table: TableConfig) -> Iterator[Record]:
    for file in find_files(directory, name, table):
        yield from read_records(file.path, name, table)


def _as_number(value: Value) -> int | float | None:
    if not isinstance(value, str):
        return value
    text_type = infer_text_type(value)
    if text_type is ColumnType.STRING:
        return None
    return int(value) if text_type is ColumnType.INT else float(value)
