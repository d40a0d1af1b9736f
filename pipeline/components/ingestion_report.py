"""What an ingestion counted: rejected rows are written aside, and too many of them fail the run.

Steps emit partial reports, which are merged into one JSON file by the Beam pipeline itself. The executor reads it
when the pipeline is done, and decides there: errors raised inside of a Beam pipeline are hard to read.
"""

from __future__ import annotations

import heapq
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from tfx.dsl.io import fileio

from pipeline.components.source_files import raw_text
from pipeline.components.source_storage import DataQualityError

Report = dict[str, Any]
"""Numbers by name, e.g. `interactions_rows`, and lists of `problems` and of first rejected rows by table."""

PROBLEMS = "problems"
_SHOWN_ROWS = 5


class RejectedRow(NamedTuple):
    """A malformed row."""

    file: str
    line: int
    reason: str
    row: Any
    """As in `source_files.Record.raw`."""


def merge_reports(reports: Iterable[Report]) -> Report:
    """Merges partial reports: numbers are summed, lists concatenated."""
    merged: Report = {}
    for report in reports:
        for name, value in report.items():
            merged[name] = merged[name] + value if name in merged else value
    return merged


def write_report(
    pipeline: beam.Pipeline,
    rejected: Iterable[beam.PCollection],
    reports: Iterable[beam.PCollection],
    tables: Sequence[str],
    rejected_rows_directory: str,
    report_path: str,
) -> None:
    """Adds the steps that write rejected rows and the merged report.

    Args:
      pipeline: the Beam pipeline.
      rejected: pairs of a table's name and a `RejectedRow`.
      reports: partial reports.
      tables: names of all tables read; each gets a file, empty if no row was rejected.
      rejected_rows_directory: folder of the files `<table>.jsonl`, of which the previous run's are replaced.
      report_path: JSON file to write.
    """
    directories = pipeline | "Tables" >> beam.Create([(table, rejected_rows_directory) for table in tables])
    rejected_rows = list(rejected) | "FlattenRejected" >> beam.Flatten()
    counts = (
        {"directory": directories, "rows": rejected_rows}
        | "GroupRejected" >> beam.CoGroupByKey()
        | "WriteRejected" >> beam.MapTuple(_write_rejected_rows)
    )
    _ = (
        [counts, *reports]
        | "FlattenReports" >> beam.Flatten()
        | "MergeReports" >> beam.CombineGlobally(merge_reports)
        | "WriteReport" >> beam.Map(write_json, report_path)
    )


def read_report(path: str) -> Report:
    """Reads the report of a finished ingestion."""
    with fileio.open(path, "r") as file:
        return json.loads(file.read())


def write_json(report: Report, path: str) -> None:
    """Writes a report, aside first."""
    _replace_file(path, [json.dumps(report, indent=2, sort_keys=True)])


def check_report(
    report: Report, tables: Sequence[str], max_rejected_share: float, rejected_rows_directory: str
) -> None:
    """Fails an ingestion whose source data must not be learned from.

    Raises:
      DataQualityError: for files that could not be read, else for the tables of which more than `max_rejected_share`
        was rejected: with counts, the first rows, and where all of them are.
    """
    if report.get(PROBLEMS):
        raise DataQualityError("\n".join(sorted(report[PROBLEMS])))
    complaints = []
    for table in tables:
        rows, rejected = report.get(f"{table}_rows", 0), report.get(f"{table}_rejected", 0)
        if rejected > max_rejected_share * rows:
            shown = "".join(f"\n  {file}:{line}: {reason}" for file, line, reason in report[f"{table}_first_rejected"])
            complaints.append(
                f"{table}: {rejected} of {rows} rows ({rejected / rows:.2%}) were rejected; at most "
                f"{max_rejected_share:.2%} may be (data.max_rejected_share). The first:{shown}\n"
                f"All of them: {rejected_rows_path(rejected_rows_directory, table)}"
            )
    if complaints:
        raise DataQualityError("\n".join(complaints))


def rejected_rows_path(directory: str, table: str) -> str:
    """Returns the file of a table's rejected rows: JSON lines with file, line, reason and row."""
    return os.path.join(directory, f"{table}.jsonl")


def _write_rejected_rows(table: str, groups: dict[str, Iterable]) -> Report:
    (directory,) = groups["directory"]
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for rejected in groups["rows"]:
            count += 1
            yield json.dumps({**rejected._asdict(), "row": raw_text(rejected.row)}) + "\n"

    _replace_file(rejected_rows_path(directory, table), lines())
    first = heapq.nsmallest(_SHOWN_ROWS, ((row.file, row.line, row.reason) for row in groups["rows"]))
    return {f"{table}_rejected": count, f"{table}_first_rejected": first}


def _replace_file(path: str, chunks: Iterable[str]) -> None:
    fileio.makedirs(os.path.dirname(path))
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    with fileio.open(temporary, "w") as file:
        file.write("")  # Or a file without content would not come into being.
        for chunk in chunks:
            file.write(chunk)
    fileio.rename(temporary, path, overwrite=True)
