"""Keeps the examples of spans in the workspace, so that each is ingested once however many windows it is part of.

A kept span is known by what it was made from: its files, those of the spans that its histories reach back to, the
settings and the code. The store is no more than a cache: it may be deleted at any time while no run is going.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tfx.dsl.io import fileio

from pipeline.components.ingestion_report import Report, read_report

REPORT_FILE = "ingestion_report.json"
_COMPLETE = "COMPLETE"
_KEY_LENGTH = 16
_INGESTION_CODE = (
    "column_values.py",
    "example_encoding.py",
    "example_shards.py",
    "interaction_example_gen.py",
    "point_in_time.py",
    "source_files.py",
    "source_tables.py",
    "temporal_split.py",
)
_WINDOW_FILE = re.compile(r"(span-\d{8}-[0-9a-f]{16}\.\w+)\.")


class SpanStore:
    """Examples of spans, by what they were made from.

    Args:
      directory: where they are kept; made if it does not exist.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def find_or_add(self, name: str, build: Callable[[str], Any]) -> tuple[str, Report, bool]:
        """Returns a span's folder, its report, and whether it had to be ingested.

        Args:
          name: see `span_name`.
          build: writes splits and report into a folder. If it raises, nothing is kept.
        """
        folder = os.path.join(self._directory, name)
        complete = os.path.join(folder, _COMPLETE)
        added = not fileio.exists(complete)
        if added:
            aside = os.path.join(self._directory, f".{name}.{uuid.uuid4().hex}.tmp")
            try:
                build(aside)
                if fileio.exists(folder):  # What an interrupted run left; or another run was faster.
                    fileio.rmtree(folder)
                fileio.rename(aside, folder)
                # In object stores, folders do not move in one step.
                with fileio.open(complete, "w") as file:
                    file.write("")
            except BaseException:
                if fileio.exists(aside):
                    fileio.rmtree(aside)
                raise
        return folder, read_report(os.path.join(folder, REPORT_FILE)), added


def span_name(number: int, made_from: Sequence[Any]) -> str:
    """Returns the name that a span's examples are kept by.

    Args:
      number: the span's number.
      made_from: settings and fingerprints, values as in JSON.
    """
    digest = hashlib.sha256(json.dumps([_code_version(), *made_from], sort_keys=True).encode())
    return f"span-{number:08d}-{digest.hexdigest()[:_KEY_LENGTH]}"


def copy_part(source: str, target: str, name: str) -> None:
    """Copies a split of a kept span into a split of a window, which may hold other spans, too.

    Args:
      source: folder of the kept split.
      target: folder of the window's split.
      name: the span's name and that of the kept split, joined by a dot.
    """
    fileio.makedirs(target)
    for file in sorted(fileio.listdir(source)):
        fileio.copy(os.path.join(source, file), os.path.join(target, f"{name}.{file}"))


def parts_of(files: Sequence[str]) -> dict[str, str]:
    """Returns the globs of the parts that a window's split is made of, by name of the part; see `copy_part`.

    Empty if the files are not those of a window.
    """
    parts = {}
    for file in sorted(files):
        match = _WINDOW_FILE.match(os.path.basename(file))
        if match is None:
            return {}
        parts[match[1]] = os.path.join(os.path.dirname(file), f"{match[1]}.*")
    return parts


def span_of_part(name: str) -> int:
    """Returns the number of the span that a part is of."""
    return int(name.split("-")[1])


def _code_version() -> str:
    digest = hashlib.sha256()
    for name in _INGESTION_CODE:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()
