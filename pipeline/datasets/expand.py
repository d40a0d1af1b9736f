"""Writes the fractal expansion of a configured data set as Parquet files, without ever holding it in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.parquet
from rich.console import Console
from rich.progress import track

from modules import features
from pipeline.components.column_values import ColumnType, TimestampParser, convert, infer_text_type, parse_key
from pipeline.components.source_files import find_files, read_records
from pipeline.components.source_storage import DataQualityError
from pipeline.data_config import DataConfig, TableConfig
from pipeline.datasets.folder import new_folder
from pipeline.datasets.fractal import EventBlock, FractalExpansion

ROWS_PER_FILE = 500_000
"""Rows of the log per file, about: files are what ingestion reads in parallel."""

_ARROW_TYPES = {
    ColumnType.INT: pyarrow.int64(),
    ColumnType.FLOAT: pyarrow.float64(),
    ColumnType.STRING: pyarrow.string(),
}


class Expanded(NamedTuple):
    """What was written."""

    interactions: int
    users: int
    items: int


class ExpandError(ValueError):
    """A data set that cannot be expanded."""


def expand(
    data: DataConfig, directory: Path, interactions: int, item_copies: int, seed: int, console: Console
) -> Expanded:
    """Expands a data set.

    A copied id is the original's, a hyphen and the number of the copy. The other columns are copied.

    Args:
      data: the tables to expand, without spans or propensities.
      directory: the folder to write, see `folder.new_folder`: `interactions-*.parquet`, `items.parquet` and, with
        profiles, `users.parquet`, with the columns of the original.
      interactions: about how many events to write.
      item_copies: copies of the catalogue.
      seed: the same arguments write the same files.
      console: where progress goes.

    Raises:
      ExpandError: for malformed rows, too small a log, or a data set of another kind.
      DataQualityError: for files that cannot be read.
      FolderError: if the folder holds other files.
    """
    if data.propensity or "{" in data.directory:
        raise ExpandError("expected one log of interactions; received spans, or a log of impressions")
    parse = TimestampParser(data.timestamp_unit, data.earliest, data.latest)
    try:
        log = _Source.read(data, "interactions", data.interactions)
        items = _Source.read(data, "items", data.items)
        users = _Source.read(data, "users", data.users) if data.users else None
        catalogue_ids = items.keys(features.ITEM_ID)
        timestamps = np.array([parse(cell) for cell in log.cells(features.TIMESTAMP)], np.int64)
        user_ids, user_at = np.unique(log.keys(features.USER_ID), return_inverse=True)
        item_ids, item_at = np.unique(log.keys(features.ITEM_ID), return_inverse=True)
        plan = FractalExpansion(user_at, item_at, timestamps, interactions, item_copies, seed)
    except (ExpandError, DataQualityError):
        raise
    except ValueError as error:
        raise ExpandError(f"{data.directory}: {error}") from error
    with new_folder(directory) as folder:
        copies = np.repeat(np.arange(item_copies), len(items.rows))
        rows = np.tile(np.arange(len(items.rows)), item_copies)
        item_table = items.table(rows, {features.ITEM_ID: _copy_ids(catalogue_ids[rows], copies)})
        pyarrow.parquet.write_table(item_table, folder / "items.parquet")
        profiles = _Profiles(users, user_ids) if users else None
        writer = _LogWriter(folder, interactions)
        num_users = num_events = 0
        unit = 1 if data.timestamp_unit == "seconds" else 1000
        for number in track(range(len(plan.rates)), "copies of the users", console=console, transient=True):
            block = plan.block(number)
            writer.write(_log_table(log, block, number, user_ids, item_ids[item_at], unit))
            active = np.unique(block.users)
            num_events, num_users = num_events + len(block.rows), num_users + len(active)
            if profiles:
                profiles.add(active, number)
        writer.close()
        if profiles:
            profiles.write(folder / "users.parquet")
    return Expanded(num_events, num_users, item_table.num_rows)


def overrides(data: DataConfig, directory: Path) -> list[str]:
    """Returns the assignments that turn a data set's configuration into that of its expansion in a folder."""
    patterns = {"interactions": "interactions-*.parquet", "items": "items.parquet"}
    if data.users:
        patterns["users"] = "users.parquet"
    assignments = [f"data.directory={directory}"]
    for table, pattern in patterns.items():
        assignments += [f"data.{table}.pattern={pattern}", f"data.{table}.format=parquet"]
    return assignments


class _Source:
    """A source table in memory, with typed columns."""

    def __init__(self, table: TableConfig, rows: list[Sequence[Any]]) -> None:
        self.rows = rows
        self._names = list(table.columns)
        is_text = table.format in ("csv", "tsv")
        columns = zip(table.columns.values(), zip(*rows, strict=True), strict=True)
        self._arrays = {
            column.source: _typed(cells) if is_text and not column.separator and column.type != "string" else cells
            for column, cells in columns
        }
        self._columns = {name: column.source for name, column in table.columns.items()}
        self._tables = pyarrow.table(self._arrays)

    @classmethod
    def read(cls, data: DataConfig, name: str, table: TableConfig) -> _Source:
        """Reads a table; raises an `ExpandError` for a malformed row and for a table without rows."""
        rows = []
        for file in find_files(data.directory, name, table):
            for record in read_records(file.path, name, table):
                if record.reason:
                    raise ExpandError(f"{file.path}:{record.line}: {record.reason}")
                rows.append(record.cells)
        if not rows:
            raise ExpandError(f"{data.directory}: {name} has no rows")
        return cls(table, rows)

    def cells(self, name: str) -> list[Any]:
        """Returns the cells of a feature as they were read."""
        at = self._names.index(name)
        return [row[at] for row in self.rows]

    def keys(self, name: str) -> np.ndarray:
        """Returns the cells of a key as text; shape [rows]."""
        return np.array([parse_key(cell).decode() for cell in self.cells(name)], object)

    def table(self, rows: np.ndarray, replaced: dict[str, pyarrow.Array]) -> pyarrow.Table:
        """Returns rows by number, with other values for some features."""
        taken = self._tables.take(pyarrow.array(rows))
        for name, values in replaced.items():
            source = self._columns[name]
            taken = taken.set_column(taken.column_names.index(source), source, values)
        return taken


class _Profiles:
    """Gathers which copies of which users there are, and writes their profiles."""

    def __init__(self, source: _Source, user_ids: np.ndarray) -> None:
        self._source = source
        row_of = {key: row for row, key in enumerate(source.keys(features.USER_ID))}
        self._rows = np.array([row_of.get(key, -1) for key in user_ids])
        self._active: list[np.ndarray] = []
        self._numbers: list[int] = []

    def add(self, active: np.ndarray, number: int) -> None:
        """Takes the users who have events in a copy."""
        self._active.append(self._rows[active][self._rows[active] >= 0])
        self._numbers.append(number)

    def write(self, path: Path) -> None:
        """Writes the profiles, a copy of the users at a time."""
        keys = self._source.keys(features.USER_ID)
        with _parquet_writer(path, self._source.table(np.arange(0), {features.USER_ID: _copy_ids(keys[:0], 0)})) as out:
            for rows, number in zip(self._active, self._numbers, strict=True):
                out.write_table(self._source.table(rows, {features.USER_ID: _copy_ids(keys[rows], number)}))


class _LogWriter:
    """Writes the log to files of about `ROWS_PER_FILE` rows."""

    def __init__(self, folder: Path, interactions: int) -> None:
        self._folder = folder
        self._count = max(1, round(interactions / ROWS_PER_FILE))
        self._limit = interactions / self._count
        self._written = self._number = 0
        self._writer: pyarrow.parquet.ParquetWriter | None = None

    def write(self, table: pyarrow.Table) -> None:
        """Adds rows, to a new file if the current one is full."""
        if self._writer is None:
            path = self._folder / f"interactions-{self._number:05d}-of-{self._count:05d}.parquet"
            self._writer = _parquet_writer(path, table)
            self._number += 1
        self._writer.write_table(table)
        self._written += table.num_rows
        if self._number < self._count and self._written >= self._limit * self._number:
            self.close()

    def close(self) -> None:
        """Ends the current file."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None


def _parquet_writer(path: Path, table: pyarrow.Table) -> pyarrow.parquet.ParquetWriter:
    return pyarrow.parquet.ParquetWriter(path, table.schema)


def _log_table(
    log: _Source, block: EventBlock, number: int, user_ids: np.ndarray, item_ids: np.ndarray, unit: int
) -> pyarrow.Table:
    return log.table(
        block.rows,
        {
            features.USER_ID: _copy_ids(user_ids[block.users], number),
            features.ITEM_ID: _copy_ids(item_ids[block.rows], block.item_copies),
            features.TIMESTAMP: pyarrow.array(block.timestamps * unit),
        },
    )


def _copy_ids(keys: np.ndarray, copies: np.ndarray | int) -> pyarrow.Array:
    numbers = np.broadcast_to(copies, keys.shape)
    return pyarrow.array([f"{key}-{copy}" for key, copy in zip(keys, numbers, strict=True)], pyarrow.string())


def _typed(cells: Iterable[str]) -> pyarrow.Array:
    """Returns text as the narrowest type that holds all of it, as ingestion would infer it; empty cells are null."""
    texts = list(cells)
    column_type = max((infer_text_type(text) for text in texts if text), default=ColumnType.STRING)
    values = [convert(text, column_type) if text else None for text in texts]
    return pyarrow.array(values, _ARROW_TYPES[column_type])
