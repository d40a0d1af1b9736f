"""Folders of tables: written whole or not at all, and checked by a list of checksums inside."""

from __future__ import annotations

import contextlib
import csv
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.datasets.download import sha256_of

CHECKSUM_FILE = "SHA256SUMS"
"""Checksums of the folder's files, in the format of `sha256sum --check`."""

Table = Mapping[str, Sequence[Any]]
"""Column name to values, all of one length: strings, integers, or the empty string for a missing value."""


class FolderError(RuntimeError):
    """A folder that cannot be written to."""


def write_tables(directory: Path, tables: Mapping[str, Table]) -> None:
    """Writes each table to `<name>.tsv` (UTF-8, header line) and the checksums of all of them; see `new_folder`."""
    with new_folder(directory) as folder:
        for name, table in tables.items():
            _write_table(folder / f"{name}.tsv", table)


@contextlib.contextmanager
def new_folder(directory: Path) -> Iterator[Path]:
    """Gives a folder aside to write files to, which takes the directory's place, with their checksums, once complete.

    Args:
      directory: the folder to create, or to replace if it holds nothing but an earlier writing's files.

    Raises:
      FolderError: if the directory holds files that were not written this way.
    """
    foreign = foreign_files(directory)
    if foreign:
        raise FolderError(
            f"{directory} holds files that are no part of a data set written there before ({', '.join(foreign)}); "
            "expected a new or an empty folder"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as aside:
        # A folder inside, since the temporary one is readable by its owner only.
        complete = Path(aside) / "complete"
        complete.mkdir()
        yield complete
        checksums = [f"{sha256_of(path)}  {path.name}\n" for path in sorted(complete.iterdir())]
        (complete / CHECKSUM_FILE).write_text("".join(checksums), encoding="utf-8")
        if directory.exists():
            directory.rename(Path(aside) / "replaced")
        complete.rename(directory)


def damage(directory: Path) -> list[str]:
    """Returns what is wrong with a folder that `new_folder` made: nothing if it is complete and unaltered."""
    try:
        expected = _read_checksums(directory)
    except FileNotFoundError:
        return [f"{directory / CHECKSUM_FILE} is missing"]
    problems = []
    for name, sha256 in expected.items():
        path = directory / name
        if not path.is_file():
            problems.append(f"{path} is missing")
        elif sha256_of(path) != sha256:
            problems.append(f"{path} differs from its checksum")
    return problems


def foreign_files(directory: Path) -> list[str]:
    """Returns the names in a folder that its checksums do not list: all of them if it has no checksums."""
    if not directory.exists():
        return []
    try:
        own = {CHECKSUM_FILE, *_read_checksums(directory)}
    except FileNotFoundError:
        own = set()
    return sorted(path.name for path in directory.iterdir() if path.name not in own)


def _write_table(path: Path, table: Table) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))


def _read_checksums(directory: Path) -> dict[str, str]:
    lines = (directory / CHECKSUM_FILE).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("  ", 1) for line in lines]
    return {pair[-1]: pair[0] for pair in pairs}
