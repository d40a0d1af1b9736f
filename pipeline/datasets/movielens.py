"""MovieLens-100K: 100,000 ratings of 1,682 titles by 943 users, from September 1997 to April 1998.

F. Maxwell Harper and Joseph A. Konstan, "The MovieLens Datasets: History and Context", ACM Transactions on Interactive
Intelligent Systems 5(4), 2015. GroupLens publishes it for research; it may not be redistributed, so it is fetched where
it is needed. The same content is in a Python package, which serves where GroupLens cannot be reached.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console

from pipeline.datasets.download import DownloadError, download, verify_checksum
from pipeline.datasets.folder import FolderError, Table, damage, foreign_files, write_tables

TERMS = (
    "MovieLens-100K is GroupLens' data: for research, with acknowledgement in publications; redistributing it and "
    "commercial use need their permission (https://grouplens.org/datasets/movielens/100k/)."
)

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""In the order of the flags in GroupLens' item file."""

_TITLE_AND_YEAR = re.compile(r"(?P<title>.+?)\s*\((?P<year>\d{4})\)(\s*\(V\))?\s*")  # (V) marks a video release.


class Source(Protocol):
    """Somewhere the data set can be had from."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def fetch(self, folder: Path, console: Console) -> Path:
        """Returns a verified ZIP archive, which it puts into `folder`. Raises DownloadError if it cannot be had."""

    def read(self, archive: zipfile.ZipFile) -> dict[str, Table]:
        """Returns the tables `interactions`, `items` and `users`, their rows in the source's order."""


@dataclasses.dataclass(frozen=True)
class GroupLensArchive:
    """GroupLens' own archive: `u.data`, `u.item` and `u.user`, without header lines, in ISO 8859-1."""

    url: str = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
    sha256: str = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
    timeout_seconds: float = 5.0

    @property
    def name(self) -> str:
        """What messages call it."""
        return "GroupLens"

    def fetch(self, folder: Path, console: Console) -> Path:
        """Downloads the archive, resuming an earlier download that broke off."""
        return download(
            self.url, folder / "ml-100k.zip", self.sha256, timeout_seconds=self.timeout_seconds, console=console
        )

    def read(self, archive: zipfile.ZipFile) -> dict[str, Table]:
        """Returns the tables. A title's flags become the names of its genres."""
        ratings = _read_rows(archive, "ml-100k/u.data", "\t", 4)
        movies = _read_rows(archive, "ml-100k/u.item", "|", 5 + len(GENRES))
        people = _read_rows(archive, "ml-100k/u.user", "|", 5)
        titles = [(item_id, title, _genres_of(flags)) for item_id, title, _, _, _, *flags in movies]
        return _tables(ratings, titles, people)


@dataclasses.dataclass(frozen=True)
class RecBoleWheel:
    """The example data set inside the Python package `recbole`, in UTF-8 with header lines.

    It differs from the original in three places, which are undone here: titles have no year behind them, the year of
    one video release went wrong, and the placeholder "unknown" (item 267) is misspelt.
    """

    requirement: str = "recbole==1.2.1"
    sha256: str = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"the Python package {self.requirement}"

    def fetch(self, folder: Path, console: Console) -> Path:
        """Lets pip download the wheel from whichever index it is configured for. Nothing is installed."""
        # fmt: off
        command = [
            sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input",
            "--disable-pip-version-check", "--retries", "1", "--dest", str(folder), self.requirement,
        ]
        # fmt: on
        with console.status(f"downloading {self.requirement}"):
            finished = subprocess.run(command, capture_output=True, text=True, check=False)
        if finished.returncode != 0:
            lines = [line.strip() for line in finished.stderr.splitlines() if line.strip()]
            reasons = [line for line in lines if line.lower().startswith("error")] or lines[-1:]
            raise DownloadError(f"pip exited with {finished.returncode}: {' '.join(reasons) or 'it said nothing'}")
        wheels = sorted(folder.glob("*.whl"))
        if len(wheels) != 1:
            raise DownloadError(f"pip wrote {[wheel.name for wheel in wheels]} to {folder}; expected one wheel")
        verify_checksum(wheels[0], self.sha256, wheels[0].name)
        return wheels[0]

    def read(self, archive: zipfile.ZipFile) -> dict[str, Table]:
        """Returns the tables."""
        folder = "recbole/dataset_example/ml-100k/ml-100k"
        _, *ratings = _read_rows(archive, f"{folder}.inter", "\t", 4, encoding="utf-8")
        _, *movies = _read_rows(archive, f"{folder}.item", "\t", 4, encoding="utf-8")
        _, *people = _read_rows(archive, f"{folder}.user", "\t", 5, encoding="utf-8")
        titles = [
            (item_id, "unknown" if title == "unkonwn" else f"{title} ({year})", genres.split(" "))
            for item_id, title, year, genres in movies
        ]
        return _tables(ratings, titles, people)


SOURCES: tuple[Source, ...] = (GroupLensArchive(), RecBoleWheel())
"""In the order in which they are tried."""


def fetch_movielens_100k(directory: Path, console: Console, sources: Sequence[Source] = SOURCES) -> None:
    """Puts MovieLens-100K into a folder as `interactions.tsv`, `items.tsv` and `users.tsv`.

    Whichever source it comes from, the files are the same. The folder appears only when complete; if it is complete
    already, nothing is done. What an interrupted download has brought is kept beside it for the next call.

    Args:
      directory: the folder to create.
      console: where progress is told.
      sources: where to look, in this order.

    Raises:
      DownloadError: if no source has it, naming each and what happened.
      FolderError: if the folder holds other files.
    """
    problems = damage(directory)
    if not problems:
        console.print(f"{directory} is complete: its files match their checksums.", markup=False)
        return
    if foreign := foreign_files(directory):
        raise FolderError(f"{directory} holds other files ({', '.join(foreign)}); expected a new or an empty folder")
    if directory.exists() and any(directory.iterdir()):
        console.print(f"{'; '.join(problems)}: fetching it again.", markup=False)
    console.print(TERMS, markup=False)

    kept = directory.with_name(f".{directory.name}.download")
    failures = []
    for source in sources:
        kept.mkdir(parents=True, exist_ok=True)
        try:
            archive_path = source.fetch(kept, console)
        except DownloadError as error:
            failures.append(f"{source.name}: {error}")
            console.print(f"not from {failures[-1]}", markup=False)
            continue
        with zipfile.ZipFile(archive_path) as archive:
            tables = source.read(archive)
        write_tables(directory, tables)
        shutil.rmtree(kept)
        rows = ", ".join(f"{len(next(iter(table.values()))):,} {name}" for name, table in tables.items())
        console.print(f"{directory}: {rows}, from {source.name}.", markup=False)
        return
    if not any(kept.iterdir()):
        kept.rmdir()
    raise DownloadError("MovieLens-100K cannot be had from any source:\n  " + "\n  ".join(failures))


def _read_rows(
    archive: zipfile.ZipFile, member: str, separator: str, fields: int, encoding: str = "iso-8859-1"
) -> list[list[str]]:
    """Returns the rows of one file, header line included.

    Raises:
      DownloadError: naming the file, the line, and the number of fields received and expected.
    """
    rows = []
    for number, line in enumerate(archive.read(member).decode(encoding).rstrip("\n").split("\n"), start=1):
        row = line.rstrip("\r").split(separator)
        if len(row) != fields:
            raise DownloadError(f"{member}, line {number}: {len(row)} fields; expected {fields}")
        rows.append(row)
    return rows


def _genres_of(flags: Sequence[str]) -> list[str]:
    return [genre for genre, flag in zip(GENRES, flags, strict=True) if flag == "1"]


def _tables(
    ratings: Sequence[Sequence[str]], titles: Sequence[tuple[str, str, list[str]]], people: Sequence[Sequence[str]]
) -> dict[str, Table]:
    """Names the columns, and takes the year out of titles such as `Toy Story (1995)`; no year is an empty cell."""
    items = []
    for item_id, title, genres in titles:
        match = _TITLE_AND_YEAR.fullmatch(title)
        name, year = (match["title"], match["year"]) if match else (title.strip(), "")
        items.append((item_id, name, year, "|".join(genres)))
    return {
        "interactions": _table(("user_id", "item_id", "rating", "timestamp"), ratings),
        "items": _table(("item_id", "title", "release_year", "genres"), items),
        "users": _table(("user_id", "age", "gender", "occupation", "zip_code"), people),
    }


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    return {name: [row[position] for row in rows] for position, name in enumerate(columns)}
