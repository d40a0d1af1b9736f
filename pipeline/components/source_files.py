"""Reading files of source tables: CSV, TSV, Parquet and TFRecord, on any file system that Apache Beam knows.

A file is read from start to end by one worker, because a CSV record may span lines; tables are read in parallel by
having several files.
"""

from __future__ import annotations

import collections
import csv
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow
import pyarrow.parquet
from google.protobuf import message

from pipeline.components.source_storage import DataQualityError, match_files, open_file
from pipeline.data_config import TableConfig

_CHUNK_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SourceFile(NamedTuple):
    """One file of a table."""

    number: int
    """Position among the table's files in order of their paths; of equal rows, that of the first file counts. Below 0
    for logs of earlier spans, which give history only."""
    path: str
    size_in_bytes: int


class Record(NamedTuple):
    """One row as it was read."""

    line: int
    """Line that it starts on, counted from 1; for Parquet and TFRecord, the number of the row."""
    cells: Sequence[Any]
    """Cells of the mapped columns, in the order of `TableConfig.columns`; empty if the row is malformed."""
    raw: Any
    """The row as text, or for Parquet and TFRecord its mapped cells."""
    reason: str | None
    """Why the row is malformed, or None."""


def find_files(directory: str, name: str, table: TableConfig) -> list[SourceFile]:
    """Lists the files of a table.

    Args:
      directory: folder that the table's pattern is relative to.
      name: name of the table, for messages.
      table: the table.

    Raises:
      DataQualityError: if no file matches, or one has no content.
    """
    pattern = os.path.join(directory, table.pattern)
    matches = match_files(pattern)
    if not matches:
        raise DataQualityError(f"{name}.pattern: no file matches {pattern!r}")
    for match in matches:
        if match.size_in_bytes == 0:
            raise DataQualityError(f"{name}: the file {match.path} is empty (0 bytes)")
    return [SourceFile(number, match.path, match.size_in_bytes) for number, match in enumerate(matches)]


def read_records(path: str, name: str, table: TableConfig) -> Iterator[Record]:
    """Yields the rows of a file, well-formed or not.

    Args:
      path: the file; `.gz` is decompressed.
      name: name of the table, for messages.
      table: format and columns.

    Raises:
      DataQualityError: if the file as a whole cannot be read: no header, a mapped column that it does not have,
        broken Parquet or TFRecord framing, or compressed data that are cut off or corrupt.
    """
    try:
        if table.format == "parquet":
            yield from _read_parquet(path, name, table)
        elif table.format == "tfrecord":
            yield from _read_tfrecord(path, table)
        else:
            yield from _read_text(path, name, table)
    except (EOFError, OSError, zlib.error) as error:
        raise DataQualityError(f"{path}: cannot be read to its end: {error}") from error


def raw_text(raw: Any) -> str:
    """Returns the text of `Record.raw`; bytes that are not UTF-8 are escaped."""
    if isinstance(raw, str):
        return raw.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return json.dumps(raw, default=str)


def _read_text(path: str, name: str, table: TableConfig) -> Iterator[Record]:
    with open_file(path) as file:
        split = _split_csv if table.format == "csv" else _split_plain
        records = split(_decode_lines(file), table.field_delimiter)
        header = next(records, None)
        if header is None:
            raise DataQualityError(f"{path}: the file is empty; expected a header line")
        if header.reason:
            raise DataQualityError(f"{path}:{header.line}: the header line is {header.reason}")
        positions = _locate_columns(path, name, table, header.cells)
        for line, cells, raw, reason in records:
            yield Record(line, [cells[position] for position in positions] if cells else (), raw, reason)


def _locate_columns(path: str, name: str, table: TableConfig, header: Sequence[str]) -> list[int]:
    sources = [column.source for column in table.columns.values()]
    missing = [source for source in sources if source not in header]
    question = f"; is the delimiter {table.field_delimiter!r} right?" if table.format in ("csv", "tsv") else ""
    if missing:
        raise DataQualityError(
            f"{path}: {name}.columns maps {missing}, which the file does not have. It has {list(header)}{question}"
        )
    ambiguous = sorted({source for source in sources if list(header).count(source) > 1})
    if ambiguous:
        raise DataQualityError(f"{path}: {name}.columns maps {ambiguous}, which the file has more than once")
    return [list(header).index(source) for source in sources]


def _decode_lines(file: Any) -> Iterator[tuple[int, str]]:
    """Yields lines with their numbers; bytes that are not UTF-8 become lone surrogates."""
    for number, line in enumerate(_read_lines(file), start=1):
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        yield number, line.decode("utf-8", "surrogateescape")


def _read_lines(file: Any) -> Iterator[bytes]:
    """Yields lines with their ends. Beam's decompressing files are no iterators, and read single lines slowly."""
    rest = b""
    while chunk := file.read(_CHUNK_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def _split_plain(lines: Iterator[tuple[int, str]], delimiter: str) -> Iterator[Record]:
    """Splits lines at the delimiter; no character but that one has a meaning."""
    width = None
    for number, text in lines:
        text = _strip_line_end(text)
        if text:
            record = _make_record(number, text.split(delimiter), text, width)
            width = width or len(record.cells)
            yield record


def _split_csv(lines: Iterator[tuple[int, str]], delimiter: str) -> Iterator[Record]:
    """Parses CSV as of RFC 4180.

    A record that spans lines and is malformed is most likely due to a stray quote: then only its first line is, and
    reading goes on at the second, lest one quote swallow the rows after it.
    """
    pending: collections.deque[tuple[int, str]] = collections.deque()
    width = None
    while True:
        first = pending.popleft() if pending else next(lines, None)
        if first is None:
            return
        number, text = first
        if text in ("\n", "\r\n"):
            continue
        if '"' not in text:
            record = _make_record(number, _strip_line_end(text).split(delimiter), text, width)
        else:
            record, rest = _parse_quoted(number, text, pending, lines, delimiter, width)
            pending.extendleft(reversed(rest))
        width = width or len(record.cells)
        yield record._replace(raw=_strip_line_end(record.raw))


def _parse_quoted(
    number: int,
    text: str,
    pending: collections.deque[tuple[int, str]],
    lines: Iterator[tuple[int, str]],
    delimiter: str,
    width: int | None,
) -> tuple[Record, list[tuple[int, str]]]:
    """Returns the record that starts with this line, and the lines to read again if it is malformed."""
    consumed: list[tuple[int, str]] = []

    def feed() -> Iterator[str]:
        yield text
        while (following := pending.popleft() if pending else next(lines, None)) is not None:
            consumed.append(following)
            yield following[1]

    try:
        cells = next(csv.reader(feed(), delimiter=delimiter, strict=True))
    except csv.Error as error:
        return Record(number, (), text, f"malformed CSV: {error}"), consumed
    record = _make_record(number, cells, text + "".join(line for _, line in consumed), width)
    if record.reason and consumed:
        return record._replace(raw=text), consumed
    return record, []


def _make_record(number: int, cells: list[str], raw: str, width: int | None) -> Record:
    if not raw.isascii():
        try:
            raw.encode("utf-8")
        except UnicodeEncodeError:
            return Record(number, (), raw, "not valid UTF-8")
    if width is not None and len(cells) != width:
        return Record(number, (), raw, f"has {len(cells)} fields; the header has {width}")
    return Record(number, cells, raw, None)


def _strip_line_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")


def _read_parquet(path: str, name: str, table: TableConfig) -> Iterator[Record]:
    with open_file(path, decompress=False) as file:
        try:
            parquet = pyarrow.parquet.ParquetFile(file)
            _locate_columns(path, name, table, parquet.schema_arrow.names)
            sources = [column.source for column in table.columns.values()]
            number = 0
            for batch in parquet.iter_batches(columns=sorted(set(sources))):
                for cells in zip(*(batch.column(source).to_pylist() for source in sources), strict=True):
                    number += 1
                    yield Record(number, cells, cells, None)
        except pyarrow.ArrowException as error:
            raise DataQualityError(f"{path}: not a readable Parquet file: {error}") from error


def _read_tfrecord(path: str, table: TableConfig) -> Iterator[Record]:
    # Imported here, since only this format needs them and they take seconds to load.
    import tensorflow as tf
    from apache_beam.io.tfrecordio import _TFRecordUtil

    sources = [column.source for column in table.columns.values()]
    with open_file(path) as file:
        number = 0
        while True:
            number += 1
            try:
                serialized = _TFRecordUtil.read_record(file)
            except (ValueError, EOFError, OSError, zlib.error) as error:
                raise DataQualityError(f"{path}: record {number} is broken: {error}") from error
            if serialized is None:
                return
            try:
                features = tf.train.Example.FromString(serialized).features.feature
            except message.DecodeError:
                yield Record(number, (), serialized.decode("utf-8", "surrogateescape"), "not a tf.train.Example")
                continue
            cells = [_feature_values(features[source]) if source in features else None for source in sources]
            yield Record(number, cells, cells, None)


def _feature_values(feature: Any) -> list[Any]:
    kind = feature.WhichOneof("kind")
    return list(getattr(feature, kind).value) if kind else []
