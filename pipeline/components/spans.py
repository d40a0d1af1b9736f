"""Spans: the portions, by number or by day, that source data come in, and the window of them that a run learns from.

A folder's pattern holds `{SPAN}` or `{SPAN:3}` (a number, with leading zeros or without), or `{YYYY}`, `{MM}` and
`{DD}` (then a span's number is that of its day since 1970-01-01), and may hold `{VERSION}`: of a span's versions the
latest counts. Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import re
from collections.abc import Sequence
from typing import NamedTuple

from pipeline.components.source_storage import DataQualityError, match_files
from pipeline.data_config import DataConfig

LATEST = -1
"""In place of a span's number: the latest there is."""

_EPOCH = datetime.date(1970, 1, 1)
_PLACEHOLDER = re.compile(r"\{(SPAN|VERSION)(?::\d+)?\}|\{(YYYY|MM|DD)\}")
_DATE_PARTS = {"YYYY": r"\d{4}", "MM": r"\d{2}", "DD": r"\d{2}"}
_WILDCARDS = {r"\*": "[^/]*", r"\?": "[^/]"}


class Span(NamedTuple):
    """One portion of the source data."""

    number: int
    """Its number; of a day, the days since 1970-01-01."""
    version: int | None
    """Its version, the latest one; None where there are none."""
    pattern: str
    """Glob of its files, relative to the base folder, with nothing left open."""


def has_spans(pattern: str) -> bool:
    """Tells whether a folder or pattern is one of spans."""
    return _PLACEHOLDER.search(pattern) is not None


def find_spans(base: str, pattern: str) -> dict[int, Span]:
    """Returns the spans that have files, by number, of each the latest version.

    Args:
      base: folder that the pattern is relative to.
      pattern: glob of files, with placeholders for span, date and version.
    """
    folders = pattern.split("/")
    number_of_parts = 1 + max(at for at, part in enumerate(folders) if _PLACEHOLDER.search(part))
    matcher = re.compile(_expression("/".join(folders[:number_of_parts])))
    found: dict[int, Span] = {}
    for path, *_ in match_files(os.path.join(base, _PLACEHOLDER.sub("*", pattern))):
        parts = path[len(base.rstrip("/")) + 1 :].split("/")
        match = matcher.fullmatch("/".join(parts[:number_of_parts]))
        if match is None:
            continue
        number = _number(match)
        if number is None:
            continue
        version = int(match["VERSION"]) if "VERSION" in match.groupdict() else None
        if number not in found or (version or 0) >= (found[number].version or 0):
            found[number] = Span(number, version, "/".join([*parts[:number_of_parts], *folders[number_of_parts:]]))
    return found


def find_window(base: str, pattern: str, newest: int | None = None, length: int = 1) -> list[Span]:
    """Returns the newest span and those just before it that there are, in ascending order.

    Args:
      base: folder that the pattern is relative to.
      pattern: glob of files, with placeholders.
      newest: number of the newest span; None or `LATEST` for the latest there is.
      length: numbers that the window reaches over; missing ones are left out.

    Raises:
      DataQualityError: if there is no span, or not the one wanted.
    """
    spans = find_spans(base, pattern)
    if not spans:
        raise DataQualityError(f"data.directory: no file matches {os.path.join(base, pattern)!r} for any span")
    last = max(spans) if newest is None or newest == LATEST else newest
    if last not in spans:
        raise DataQualityError(
            f"data.directory: span {last} has no file that matches {os.path.join(base, pattern)!r}; there are the "
            f"spans {describe_numbers(sorted(spans))}"
        )
    return [spans[number] for number in range(last - length + 1, last + 1) if number in spans]


def last_spans(spans: Sequence[Span], length: int) -> list[Span]:
    """Returns, of spans in ascending order, those that a window of a length reaches back to from the newest."""
    return [span for span in spans if span.number > spans[-1].number - length]


def split_directory(directory: str) -> tuple[str, str]:
    """Splits a folder before the part that holds a placeholder: the fixed base, and the rest, empty without spans."""
    directory = directory.rstrip("/") or "/"
    if "{" not in directory:
        return directory, ""
    start = directory.rfind("/", 0, directory.index("{"))
    if start < 0:
        return ".", directory
    return directory[:start] or "/", directory[start + 1 :]


def source_directory(data: DataConfig) -> str:
    """Returns the folder of the source tables; of spans, that of the newest one.

    Raises:
      DataQualityError: if there is no span, or not the one wanted.
    """
    base, folder = split_directory(data.directory)
    if not folder:
        return data.directory
    spans = find_spans(base, f"{folder}/*")
    newest = max(spans, default=None) if data.newest_span is None else data.newest_span
    if newest is None:
        raise DataQualityError(
            f"data.directory: no folder matches {data.directory!r}; expected one with a number or a date, and files"
        )
    if newest not in spans:
        raise DataQualityError(
            f"data.window.newest: received {newest}; {data.directory!r} has the spans {describe_numbers(sorted(spans))}"
        )
    return os.path.join(base, os.path.dirname(spans[newest].pattern))


def fingerprint(base: str, span: Span) -> str:
    """Returns what changes when a file of the span is added, removed or written anew: its files, sizes and times."""
    digest = hashlib.sha256()
    for file in match_files(os.path.join(base, span.pattern)):
        digest.update(json.dumps([file.path.removeprefix(base), file.size_in_bytes, file.modified]).encode())
    return f"span-{span.number}:{digest.hexdigest()}"


def fingerprint_all(base: str, spans: Sequence[Span]) -> str:
    """Returns what changes when any of the spans does, or when there are others."""
    return "\n".join(fingerprint(base, span) for span in spans)


def describe_numbers(numbers: list[int]) -> str:
    """Returns numbers in words, e.g. `1 to 3, 5`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs)


def _expression(pattern: str) -> str:
    """Returns the regular expression of a pattern of folders, with a group for each placeholder."""
    parts, end = [], 0
    for match in _PLACEHOLDER.finditer(pattern):
        name = match[1] or match[2]
        parts += [_literal(pattern[end : match.start()]), f"(?P<{name}>{_DATE_PARTS.get(name, r'[0-9]+')})"]
        end = match.end()
    return "".join([*parts, _literal(pattern[end:])])


def _literal(text: str) -> str:
    escaped = re.escape(text)
    for wildcard, expression in _WILDCARDS.items():
        escaped = escaped.replace(wildcard, expression)
    return escaped


def _number(match: re.Match[str]) -> int | None:
    """Returns a span's number; None for a day that the calendar does not have."""
    groups = match.groupdict()
    if "SPAN" in groups:
        return int(groups["SPAN"])
    try:
        return (datetime.date(*(int(groups[part]) for part in _DATE_PARTS)) - _EPOCH).days
    except ValueError:
        return None
