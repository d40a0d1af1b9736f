"""Cells of source tables: splitting, parsing and type inference.

A column without a declared type gets the narrowest of int, float and string that holds all its values. Values of
Parquet and TFRecord files already have a type, and keep it; those of CSV and TSV files are text.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import functools
import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Value = str | int | float
"""One value of a cell, before conversion to its column's type."""

_INTEGER = re.compile(r"[+-]?[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LARGEST_FLOAT32 = 3.4028234663852886e38


class ColumnType(enum.IntEnum):
    """Type of a feature, ordered such that the wider of two holds the values of both."""

    INT = 1
    FLOAT = 2
    STRING = 3


DECLARED_TYPES = {"int": ColumnType.INT, "float": ColumnType.FLOAT, "string": ColumnType.STRING}


def split_cell(cell: Any, separator: str | None = None) -> tuple[Value, ...]:
    """Returns the values of a cell; none for an empty cell, a null or NaN.

    Args:
      cell: text, a number, a date or time (UTC unless it has a zone), or a list of these.
      separator: splits text into several values, of which the empty ones are dropped.

    Raises:
      ValueError: for bytes that are not UTF-8 and for values of any other type.
    """
    if isinstance(cell, str):
        if separator is None:
            return (cell,) if cell else ()
        return tuple(part for part in cell.split(separator) if part)
    if cell is None:
        return ()
    if isinstance(cell, int):
        return (int(cell),)
    if isinstance(cell, float):
        return () if math.isnan(cell) else (cell,)
    if isinstance(cell, bytes):
        return split_cell(cell.decode("utf-8"), separator)
    if isinstance(cell, Sequence):
        return tuple(value for part in cell for value in split_cell(part, separator))
    if isinstance(cell, datetime.datetime):
        return (math.floor(_epoch_seconds(cell)),)
    if isinstance(cell, datetime.date):
        return (cell.isoformat(),)
    if isinstance(cell, decimal.Decimal):
        return (float(cell),)
    raise ValueError(f"values of type {type(cell).__name__} are not supported; received {cell!r}")


def convert(value: Value, column_type: ColumnType) -> Value:
    """Converts a value to the type of its column.

    Raises:
      ValueError: if it does not parse, or lies outside the range of int64 or float32.
    """
    if column_type is ColumnType.STRING:
        return value if isinstance(value, str) else str(value)
    if column_type is ColumnType.INT:
        if (isinstance(value, str) and _INTEGER.fullmatch(value)) or (isinstance(value, float) and value.is_integer()):
            value = int(value)
        if isinstance(value, int) and -(2**63) <= value < 2**63:
            return value
        raise ValueError(f"{value!r} is not an integer of 64 bits")
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        number = float(value)
        if abs(number) <= LARGEST_FLOAT32:
            return number
    raise ValueError(f"{value!r} is not a finite number of 32 bits")


def parse_key(cell: Any) -> bytes:
    """Returns a user or item id.

    Raises:
      ValueError: if the cell is empty or holds several values.
    """
    if isinstance(cell, str) and cell:
        return cell.encode("utf-8")
    values = split_cell(cell)
    if not values:
        raise ValueError("is empty")
    return str(_single(values)).encode("utf-8")


def parse_feedback(cell: Any) -> float:
    """Returns the feedback of an interaction.

    Raises:
      ValueError: if the cell is empty, holds several values or no finite number. Histories record a feedback for
        each of their interactions, so an interaction cannot be without.
    """
    if isinstance(cell, str):
        return _parse_number_text(cell)
    values = split_cell(cell)
    if not values:
        raise ValueError("is empty")
    return float(convert(_single(values), ColumnType.FLOAT))


@functools.lru_cache(maxsize=1 << 16)
def _parse_number_text(text: str) -> float:
    if not text:
        raise ValueError("is empty")
    return float(convert(text, ColumnType.FLOAT))


def parse_optional_feedback(cell: Any) -> float | None:
    """Returns the feedback of a row of a log of impressions, None if the cell is empty: shown, not taken.

    Raises:
      ValueError: see `parse_feedback`.
    """
    return parse_feedback(cell) if split_cell(cell) else None


def parse_position(cell: Any) -> int | None:
    """Returns a position in a list, from 1; None if the cell is empty.

    Raises:
      ValueError: if the cell holds several values or no whole number of at least 1.
    """
    values = split_cell(cell)
    if not values:
        return None
    position = int(convert(_single(values), ColumnType.INT))
    if position < 1:
        raise ValueError(f"{position} is no position; expected 1 or more")
    return position


def parse_propensities(cell: Any, separator: str | None, position: int | None) -> tuple[float, ...]:
    """Returns the propensities of a row; none if the cell is empty.

    Args:
      cell: the probability of what was shown or, with a separator, those of the title at positions 1, 2, ...
      separator: what splits the cell, or None.
      position: the row's position, or None where the log has none.

    Raises:
      ValueError: for what is no number, lies outside of (0, 1] (of [0, 1] at other positions than the row's own), or
        does not reach to the row's position; and without a separator if there are several.
    """
    if isinstance(cell, float) and math.isnan(cell):
        raise ValueError("nan is not a probability")
    if isinstance(cell, Sequence) and any(isinstance(value, float) and math.isnan(value) for value in cell):
        raise ValueError(f"{list(cell)} holds nan, which is not a probability")
    values = split_cell(cell, separator)
    if not values:
        return ()
    parts = len(cell.split(separator)) if isinstance(cell, str) and separator else len(values)
    if parts != len(values) or (isinstance(cell, Sequence) and not isinstance(cell, str) and None in cell):
        raise ValueError(f"{cell!r} lacks the probability at some position; write 0 where it is 0")
    if separator is None:
        _single(values)
    numbers = tuple(float(convert(value, ColumnType.FLOAT)) for value in values)
    own = 0 if separator is None else (position or 1) - 1
    if own >= len(numbers):
        raise ValueError(f"{len(numbers)} probabilities do not reach to position {own + 1}; received {list(numbers)}")
    # Rounded to the 32 bits of an example: what is 0 there could not be divided by.
    if not struct.unpack("<f", struct.pack("<f", numbers[own]))[0] > 0 or any(
        not 0 <= number <= 1 for number in numbers
    ):
        raise ValueError(f"{cell!r} is not a probability in (0, 1]")
    return numbers


class TimestampParser:
    """Parses timestamps into whole seconds since 1970-01-01 UTC, rounding down.

    Args:
      unit: `seconds` or `milliseconds`, the unit of numbers; dates and times of Parquet files need none.
      earliest: first day (UTC) that is accepted.
      latest: first day (UTC) that is too late.
    """

    def __init__(self, unit: str, earliest: datetime.date, latest: datetime.date) -> None:
        self._unit = unit
        self._earliest, self._latest = earliest, latest
        self._first, self._end = _day_start(earliest), _day_start(latest)

    def __call__(self, cell: Any) -> int:
        """Returns the timestamp in seconds.

        Raises:
          ValueError: if the cell is empty, no number, or outside of [earliest, latest).
        """
        if isinstance(cell, datetime.datetime):
            seconds = math.floor(_epoch_seconds(cell))
        elif type(cell) is int or (isinstance(cell, str) and cell.isascii() and cell.isdecimal()):
            seconds = int(cell) if self._unit == "seconds" else int(cell) // 1000
        else:
            seconds = self._parse_number(cell)
        if not self._first <= seconds < self._end:
            raise ValueError(
                f"{cell!r} is outside of [{self._earliest}, {self._latest}) in {self._unit}{self._hint(seconds)}"
            )
        return seconds

    def _parse_number(self, cell: Any) -> int:
        values = split_cell(cell)
        if not values:
            raise ValueError("is empty")
        value = _single(values)
        if isinstance(value, str):
            if not _NUMBER.fullmatch(value):
                raise ValueError(f"{value!r} is not a number of {self._unit}")
            value = int(value) if _INTEGER.fullmatch(value) else float(value)
        if isinstance(value, float) and math.isinf(value):
            raise ValueError(f"{value!r} is not a finite number of {self._unit}")
        return math.floor(value) if self._unit == "seconds" else math.floor(value) // 1000

    def _hint(self, seconds: int) -> str:
        if self._unit == "seconds" and self._first <= seconds // 1000 < self._end:
            return "; this looks like milliseconds: set data.timestamp_unit"
        if self._unit == "milliseconds" and self._first <= seconds * 1000 < self._end:
            return "; this looks like seconds: set data.timestamp_unit"
        return ""


class TypeInference:
    """Keeps the narrowest type of each undeclared column that holds all values seen so far.

    Args:
      columns: names of the undeclared columns, with their positions in a row.
      is_text: whether values are text to be parsed, or have types already.
    """

    def __init__(self, columns: Mapping[str, int], is_text: bool) -> None:
        self._columns = columns
        self._type_of = infer_text_type if is_text else _native_type
        self.types: dict[str, ColumnType] = {}

    def observe(self, row: Sequence[tuple[Value, ...]]) -> None:
        """Takes the values of one row into account."""
        for name, position in self._columns.items():
            known = self.types.get(name, ColumnType.INT)
            if row[position] and known is not ColumnType.STRING:
                self.types[name] = max(known, *map(self._type_of, row[position]))


def merge_types(inferences: Iterable[Mapping[str, ColumnType]]) -> dict[str, ColumnType]:
    """Merges what was inferred from parts of a table: the wider type wins."""
    merged: dict[str, ColumnType] = {}
    for types in inferences:
        for name, column_type in types.items():
            merged[name] = max(merged.get(name, column_type), column_type)
    return merged


@functools.lru_cache(maxsize=1 << 16)
def infer_text_type(text: str) -> ColumnType:
    """Returns the narrowest type of a text; integers beyond 64 bits are strings, to keep their digits."""
    if _INTEGER.fullmatch(text):
        return ColumnType.INT if -(2**63) <= int(text) < 2**63 else ColumnType.STRING
    if _NUMBER.fullmatch(text) and abs(float(text)) <= LARGEST_FLOAT32:
        return ColumnType.FLOAT
    return ColumnType.STRING


def _native_type(value: Value) -> ColumnType:
    if isinstance(value, int):
        return ColumnType.INT
    return ColumnType.FLOAT if isinstance(value, float) else ColumnType.STRING


def _single(values: tuple[Value, ...]) -> Value:
    if len(values) != 1:
        raise ValueError(f"must hold one value; received {list(values)}")
    return values[0]


def _epoch_seconds(moment: datetime.datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)).timestamp()


def _day_start(day: datetime.date) -> int:
    return int(datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.timezone.utc).timestamp())
