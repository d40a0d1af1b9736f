"""Source tables as Beam collections: parsing, rejecting, and joining by key.

What becomes of a row:

| row | outcome |
| --- | --- |
| wrong number of fields, malformed quoting, bytes that are not UTF-8 | rejected |
| empty `user_id` or `item_id` | rejected |
| timestamp missing, no number, or outside of [`earliest`, `latest`) | rejected, with a hint if its unit looks wrong |
| feedback missing or no number | rejected: histories record one per interaction |
| with `data.propensity`: feedback missing, propensity there | an impression that was not taken, and no interaction |
| propensity that is no probability in (0, 1], or not of one value for each position up to the row's | rejected |
| position that is no whole number from 1, or missing although there is a propensity | rejected |
| value that does not parse to the declared type of its column | rejected |
| interaction with an item that the catalogue does not have | rejected |
| second row of an item or user | rejected; the first, in order of file and line, is kept |
| second interaction of equal user, item and second | dropped and counted as a duplicate; the first is kept |
| interaction of a user without a profile | kept, without user columns; such users are counted |
| empty cell, null, NaN in a typed column | the example does not have the feature |

What fails the ingestion, with an error that names the file: no file for a pattern, an empty file, a header without a
mapped column, a broken Parquet or TFRecord file, a `.gz` file that is cut off or corrupt, more than
`max_rejected_share` rejected rows, no row left.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import apache_beam as beam

from modules import features
from pipeline.components import column_values
from pipeline.components.column_values import DECLARED_TYPES, ColumnType, Value
from pipeline.components.example_encoding import encode_feature
from pipeline.components.ingestion_report import PROBLEMS, RejectedRow
from pipeline.components.source_files import Record, SourceFile, find_files, read_records
from pipeline.components.source_storage import DataQualityError
from pipeline.data_config import DataConfig, TableConfig

REJECTED = "rejected"
REPORTS = "reports"
TYPES = "types"

_ROWS_PER_FLUSH = 50_000

Row = tuple[tuple[Value, ...], ...]
"""The values of each of a row's columns, keys left out."""


Event = tuple[Any, ...]
"""One row of a user: timestamp (seconds since 1970-01-01 UTC), item id, number of its file, line, feedback (0.0 if the
log has none, None if the title was shown and not taken), values of the context columns (`Row`); once joined by
`catalogue_join`, also the encoded columns of the item. Events sort by time, then item, then order of appearance. A
plain tuple, since named ones take several times as long to write and read."""


class ColumnSet:
    """Parses the columns of a table that are neither keys, timestamp nor feedback.

    Attributes:
      names: feature names of these columns.
    """

    def __init__(self, table: TableConfig, taken: Iterable[str]) -> None:
        taken = set(taken)
        # In order of names: settings that went through a protocol buffer's map have lost theirs.
        columns = sorted(
            (name, position, column)
            for position, (name, column) in enumerate(table.columns.items())
            if name not in taken
        )
        self.names = tuple(name for name, _, _ in columns)
        self.declared = {name: DECLARED_TYPES[column.type] for name, _, column in columns if column.type}
        self._parsers = [(name, at, column.separator, self.declared.get(name)) for name, at, column in columns]
        self._is_text = table.format in ("csv", "tsv")

    def parse(self, cells: Sequence[Any]) -> Row:
        """Returns the values of a record's cells; those of undeclared columns are not converted yet.

        Raises:
          ValueError: naming the column whose value does not parse.
        """
        if not self._parsers:
            return ()
        row = []
        for name, position, separator, declared in self._parsers:
            try:
                values = column_values.split_cell(cells[position], separator)
                if declared is not None:
                    values = tuple(column_values.convert(value, declared) for value in values)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            row.append(values)
        return tuple(row)

    def new_inference(self) -> column_values.TypeInference:
        """Returns an inference of the types of the undeclared columns, to be shown every row that is kept."""
        undeclared = {name: position for position, name in enumerate(self.names) if name not in self.declared}
        return column_values.TypeInference(undeclared, self._is_text)

    def encode(self, row: Row, inferred: Mapping[str, ColumnType]) -> bytes:
        """Encodes a row as features of an example (see `example_encoding.join_features`)."""
        parts = []
        for name, values in zip(self.names, row, strict=True):
            if values:
                column_type = self.declared.get(name) or inferred[name]
                converted = [column_values.convert(value, column_type) for value in values]
                parts.append(encode_feature(name, column_type, converted))
        return b"".join(parts)


class KeyedTable(NamedTuple):
    """Collections that `read_keyed_table` adds to a pipeline."""

    rows: beam.PCollection
    """`(key bytes, encoded features bytes)`, one per distinct key; the features exclude the key itself."""
    rejected: tuple[beam.PCollection, ...]
    """`(table name, RejectedRow)`."""
    reports: tuple[beam.PCollection, ...]
    """Partial reports."""


def read_keyed_table(pipeline: beam.Pipeline, directory: str, name: str, key: str, table: TableConfig) -> KeyedTable:
    """Reads the items or the users.

    Args:
      pipeline: the Beam pipeline.
      directory: folder that the table's pattern is relative to.
      name: `items` or `users`.
      key: the feature that identifies a row.
      table: the table.

    Raises:
      DataQualityError: if the table has no files, or an empty one.
    """
    columns = ColumnSet(table, [key])
    read = (
        pipeline
        | f"Create[{name}]" >> beam.Create(find_files(directory, name, table))
        | f"Distribute[{name}]" >> beam.Reshuffle()
        | f"Read[{name}]"
        >> beam.ParDo(_ReadKeyedRows(name, key, table)).with_outputs(REJECTED, REPORTS, TYPES, main="rows")
    )
    types = read[TYPES] | f"MergeTypes[{name}]" >> beam.CombineGlobally(column_values.merge_types)
    unique = (
        read["rows"]
        | f"Group[{name}]" >> beam.GroupByKey()
        | f"KeepFirst[{name}]"
        >> beam.FlatMapTuple(functools.partial(_keep_first, name, key)).with_outputs(REJECTED, main="rows")
    )
    rows = unique["rows"] | f"Encode[{name}]" >> beam.Map(_encode_row, columns, beam.pvalue.AsSingleton(types))
    return KeyedTable(rows, (read[REJECTED], unique[REJECTED]), (read[REPORTS],))


class ReadInteractions(beam.DoFn):
    """Reads files of interactions.

    Of files with numbers below 0, those of earlier spans, malformed rows are left out in silence, since they were
    rejected there, and titles that the catalogue no longer has are kept, for histories.

    Takes `SourceFile`s and, as a side input, a mapping with the catalogue's item ids as keys. Emits
    `(user_id, list of Event)`, and under the tags `REJECTED`, `REPORTS` and `TYPES` pairs of table name and
    `RejectedRow`, partial reports, and inferred types of the context columns. Without the side input items are not
    looked up and types not inferred, and it emits `(item_id, (user_id, Event, RejectedRow))` instead, what is rejected
    if there is no such item; see `catalogue_join`.
    """

    def __init__(self, data: DataConfig) -> None:
        self._data = data

    def process(self, file: SourceFile, items: Mapping[bytes, bytes] | None = None) -> Iterator[Any]:
        """Reads one file."""
        context = context_columns(self._data)
        parse = _EventParser(self._data, context, file.number)
        earlier = file.number < 0
        inference = context.new_inference()

        def check(record: Record) -> tuple[bytes, Event]:
            user_id, event = parse(record)
            if items is not None and not earlier:
                if event[1] not in items:
                    raise ValueError(unknown_item(event[1]))
                inference.observe(event[5])
            return user_id, event

        rows = _read_file(file, "interactions", self._data.interactions, check)
        if earlier:
            rows = ((key, row, raw) for key, row, raw in rows if key is not None)
        if items is None:
            yield from _by_item(file, rows)
            return
        by_user: dict[bytes, list[Event]] = collections.defaultdict(list)
        buffered = 0
        for user_id, event, _ in rows:
            if user_id is None:
                yield event
                continue
            by_user[user_id].append(event)
            buffered += 1
            if buffered == _ROWS_PER_FLUSH:
                yield from by_user.items()
                by_user.clear()
                buffered = 0
        yield from by_user.items()
        yield beam.pvalue.TaggedOutput(TYPES, inference.types)


class _EventParser:
    """Parses rows of interactions; what it raises names the column."""

    def __init__(self, data: DataConfig, context: ColumnSet, file_number: int) -> None:
        order = list(data.interactions.columns)
        self._user_at, self._item_at, self._time_at = (
            order.index(name) for name in (features.USER_ID, features.ITEM_ID, features.TIMESTAMP)
        )
        self._feedback = data.feedback
        self._feedback_at = order.index(data.feedback or features.TIMESTAMP)
        self._context = context
        self._shown = _ImpressionColumns(data) if data.propensity else None
        self._file_number = file_number
        self._parse_timestamp = column_values.TimestampParser(data.timestamp_unit, data.earliest, data.latest)
        self._item_ids: dict[bytes, bytes] = {}

    def __call__(self, record: Record) -> tuple[bytes, Event]:
        """Returns the user's id and the event."""
        line, cells, _, _ = record
        name = features.USER_ID
        try:
            user_id = column_values.parse_key(cells[self._user_at])
            name = features.ITEM_ID
            item_id = column_values.parse_key(cells[self._item_at])
            name = features.TIMESTAMP
            timestamp = self._parse_timestamp(cells[self._time_at])
            feedback: float | None = 0.0
            if self._feedback and not self._shown:
                name = self._feedback
                feedback = column_values.parse_feedback(cells[self._feedback_at])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        if self._shown:
            feedback = self._shown.check(cells)
        # One object for each title, which is held, and written aside, once.
        item_id = self._item_ids.setdefault(item_id, item_id)
        return user_id, (timestamp, item_id, self._file_number, line, feedback, self._context.parse(cells))


def _by_item(file: SourceFile, rows: Iterable[tuple[bytes | None, Any, Any]]) -> Iterator[Any]:
    for user_id, event, raw in rows:
        if user_id is None:
            yield event
            continue
        rejected = RejectedRow(file.path, event[3], unknown_item(event[1]), raw)
        yield event[1], (user_id, event, rejected)


def unknown_item(item_id: bytes) -> str:
    """Returns why an interaction is rejected whose item is not in the catalogue."""
    return f"{features.ITEM_ID}: unknown item {item_id.decode()!r}; the catalogue has no such row"


def context_columns(data: DataConfig) -> ColumnSet:
    """Returns the interactions' columns beyond user, item, timestamp and feedback."""
    taken = [features.USER_ID, features.ITEM_ID, features.TIMESTAMP, data.feedback or features.TIMESTAMP]
    types = {name: kind for name, kind in ((data.propensity, "float"), (data.position, "int")) if name}
    declared = {
        name: column.model_copy(update={"type": types[name]}) if name in types else column
        for name, column in data.interactions.columns.items()
    }
    return ColumnSet(data.interactions.model_copy(update={"columns": declared}), taken)


def propensity_at(data: DataConfig) -> int | None:
    """Returns where in the context columns of an `Event` the propensities are; None if the log has none."""
    return context_columns(data).names.index(data.propensity) if data.propensity else None


class _ImpressionColumns:
    """Feedback, propensity and position of the rows of a log of impressions."""

    def __init__(self, data: DataConfig) -> None:
        order = list(data.interactions.columns)
        self._names = {"feedback": data.feedback, "propensity": data.propensity, "position": data.position}
        self._at = {field: order.index(name) for field, name in self._names.items() if name}
        self._separator = data.interactions.columns[str(data.propensity)].separator

    def check(self, cells: Sequence[Any]) -> float | None:
        """Returns the feedback, None if the title was not taken.

        Raises:
          ValueError: naming the column that is malformed.
        """
        feedback = self._parse("feedback", column_values.parse_optional_feedback, cells)
        position = self._parse("position", column_values.parse_position, cells)
        propensities = self._parse(
            "propensity", lambda cell: column_values.parse_propensities(cell, self._separator, position), cells
        )
        if propensities and position is None and "position" in self._at:
            raise ValueError(f"{self._names['position']}: is empty, though the row has a propensity")
        if not propensities and feedback is None:
            raise ValueError(f"{self._names['feedback']}: is empty, and so is {self._names['propensity']}")
        return feedback

    def _parse(self, field: str, parser: Callable[[Any], Any], cells: Sequence[Any]) -> Any:
        return _named(str(self._names[field]), parser, cells[self._at[field]]) if field in self._at else None


class _ReadKeyedRows(beam.DoFn):
    """Reads files of a keyed table into `(key, (SourceFile, line, Row, raw row))`."""

    def __init__(self, name: str, key: str, table: TableConfig) -> None:
        self._name, self._key, self._table = name, key, table

    def process(self, file: SourceFile) -> Iterator[Any]:
        key_at = list(self._table.columns).index(self._key)
        columns = ColumnSet(self._table, [self._key])
        inference = columns.new_inference()

        def parse(record: Record) -> tuple[bytes, tuple[SourceFile, int, Row, Any]]:
            key = _named(self._key, column_values.parse_key, record.cells[key_at])
            row = columns.parse(record.cells)
            inference.observe(row)
            return key, (file, record.line, row, record.raw)

        for key, row, _ in _read_file(file, self._name, self._table, parse):
            yield row if key is None else (key, row)
        yield beam.pvalue.TaggedOutput(TYPES, inference.types)


def _read_file(
    file: SourceFile, name: str, table: TableConfig, parse: Callable[[Record], tuple[bytes, Any]]
) -> Iterator[tuple[bytes | None, Any, Any]]:
    """Yields what `parse` returns, and the raw row; for rejected rows and the report, None and a tagged output."""
    rows = 0
    try:
        for record in read_records(file.path, name, table):
            rows += 1
            reason = record.reason
            if reason is None:
                try:
                    key, value = parse(record)
                    yield key, value, record.raw
                    continue
                except ValueError as error:
                    reason = str(error)
            rejected = RejectedRow(file.path, record.line, reason, record.raw)
            yield None, beam.pvalue.TaggedOutput(REJECTED, (name, rejected)), None
    except DataQualityError as error:
        yield None, beam.pvalue.TaggedOutput(REPORTS, {PROBLEMS: [str(error)]}), None
    yield None, beam.pvalue.TaggedOutput(REPORTS, {f"{name}_rows": rows}), None


def _named(name: str, parser: Callable[[Any], Any], cell: Any) -> Any:
    try:
        return parser(cell)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _keep_first(
    name: str, key_name: str, key: bytes, rows: Iterable[tuple[SourceFile, int, Row, Any]]
) -> Iterator[Any]:
    (first_file, first_line, first_row, _), *others = sorted(rows, key=lambda row: (row[0].number, row[1]))
    yield key, first_row
    for file, line, _, raw in others:
        reason = f"{key_name}: second row of {key.decode()!r}; the first is {first_file.path}:{first_line}"
        yield beam.pvalue.TaggedOutput(REJECTED, (name, RejectedRow(file.path, line, reason, raw)))


def _encode_row(keyed: tuple[bytes, Row], columns: ColumnSet, types: Mapping[str, ColumnType]) -> tuple[bytes, bytes]:
    key, row = keyed
    return key, columns.encode(row, types)
