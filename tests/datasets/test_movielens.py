"""MovieLens-100K from each of its sources: the same tables, whole or not at all."""

from __future__ import annotations

import collections
import csv
import dataclasses
import hashlib
import io
import zipfile
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipeline.datasets import movielens
from pipeline.datasets.cli import data_app
from pipeline.datasets.download import DownloadError
from pipeline.datasets.folder import FolderError, damage
from pipeline.datasets.movielens import GroupLensArchive, RecBoleWheel, fetch_movielens_100k

RATINGS = "196\t242\t3\t881250949\n186\t302\t4\t891717742\n"
ANIMATION_CHILDRENS = "0|0|0|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0|0"
DRAMA_WESTERN = "0|0|0|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|1"
UNKNOWN = "1|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0|0"
GROUPLENS = {
    "ml-100k/u.data": RATINGS.encode(),
    "ml-100k/u.user": b"1|24|M|technician|85711\n8|36|F|other|05201\n",
    "ml-100k/u.item": (
        f"10|Cérémonie, La (1995)|01-Jan-1995||http://x|{DRAMA_WESTERN}\n"
        f"267|unknown||||{UNKNOWN}\n"
        f"1201|Shadow and Light (1996) |02-Apr-1996||http://x|{DRAMA_WESTERN}\n"
        f"1412|Land III: Giving (1995) (V)|01-Jan-1995||http://x|{ANIMATION_CHILDRENS}\n"
    ).encode("iso-8859-1"),
}
RECBOLE_FOLDER = "recbole/dataset_example/ml-100k/ml-100k"
RECBOLE = {
    f"{RECBOLE_FOLDER}.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + RATINGS.encode(),
    f"{RECBOLE_FOLDER}.user": (
        b"user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n"
        b"1\t24\tM\ttechnician\t85711\n8\t36\tF\tother\t05201\n"
    ),
    f"{RECBOLE_FOLDER}.item": (
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
        "10\tCérémonie, La\t1995\tDrama Western\n"
        "267\tunkonwn\tunkonwn\tunknown\n"
        "1201\tShadow and Light\t1996\tDrama Western\n"
        "1412\tLand III: Giving (1995)\tV\tAnimation Children's\n"
    ).encode(),
    "recbole-1.2.1.dist-info/METADATA": b"Metadata-Version: 2.1\nName: recbole\nVersion: 1.2.1\n",
    "recbole-1.2.1.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "recbole-1.2.1.dist-info/RECORD": b"",
}
ITEMS = (
    "item_id\ttitle\trelease_year\tgenres\n"
    "10\tCérémonie, La\t1995\tDrama|Western\n"
    "267\tunknown\t\tunknown\n"
    "1201\tShadow and Light\t1996\tDrama|Western\n"
    "1412\tLand III: Giving\t1995\tAnimation|Children's\n"
)


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def grouplens_at(server, content: bytes) -> GroupLensArchive:
    server.content = content
    return GroupLensArchive(server.url, hashlib.sha256(content).hexdigest())


@pytest.fixture
def recbole_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RecBoleWheel:
    """A tiny wheel in a folder that pip is told to look into, and nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / "recbole-1.2.1-py3-none-any.whl").write_bytes(archive_of(RECBOLE))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return RecBoleWheel(sha256=hashlib.sha256(archive_of(RECBOLE)).hexdigest())


@pytest.mark.parametrize(
    ("source", "files"), [(GroupLensArchive(), GROUPLENS), (RecBoleWheel(), RECBOLE)], ids=["grouplens", "recbole"]
)
def test_both_layouts_give_the_same_tables(source: movielens.Source, files: dict[str, bytes]) -> None:
    tables = source.read(zipfile.ZipFile(io.BytesIO(archive_of(files))))
    assert {name: list(table) for name, table in tables.items()} == {
        "interactions": ["user_id", "item_id", "rating", "timestamp"],
        "items": ["item_id", "title", "release_year", "genres"],
        "users": ["user_id", "age", "gender", "occupation", "zip_code"],
    }
    rows = {name: list(zip(*table.values(), strict=True)) for name, table in tables.items()}
    assert rows["interactions"] == [("196", "242", "3", "881250949"), ("186", "302", "4", "891717742")]
    assert rows["users"] == [("1", "24", "M", "technician", "85711"), ("8", "36", "F", "other", "05201")]
    assert rows["items"] == [tuple(line.split("\t")) for line in ITEMS.splitlines()[1:]]


def test_a_row_of_the_wrong_width_is_named() -> None:
    files = GROUPLENS | {"ml-100k/u.user": b"1|24|M|technician|85711\n2|53|F\n"}
    with pytest.raises(DownloadError, match=r"ml-100k/u\.user, line 2: 3 fields; expected 5"):
        GroupLensArchive().read(zipfile.ZipFile(io.BytesIO(archive_of(files))))


def test_a_cut_download_is_resumed_and_a_complete_folder_left_alone(file_server, tmp_path: Path) -> None:
    directory = tmp_path / "data/movielens-100k"
    source = grouplens_at(file_server, archive_of(GROUPLENS))
    file_server.cut_after = 200
    console = Console(record=True, width=300)
    fetch_movielens_100k(directory, console, [source])
    assert file_server.ranges == [None, "bytes=200-"]
    assert (directory / "items.tsv").read_text(encoding="utf-8") == ITEMS
    assert [path.name for path in directory.parent.iterdir()] == ["movielens-100k"]
    fetch_movielens_100k(directory, console, [source])
    assert len(file_server.ranges) == 2
    text = console.export_text()
    assert "2 interactions, 4 items, 2 users" in text
    assert "is complete" in text
    assert text.count("redistributing") == 1


def test_an_altered_folder_is_fetched_again(file_server, tmp_path: Path) -> None:
    source = grouplens_at(file_server, archive_of(GROUPLENS))
    fetch_movielens_100k(tmp_path / "data", Console(), [source])
    (tmp_path / "data/users.tsv").write_text("user_id\n")
    console = Console(record=True, width=300)
    fetch_movielens_100k(tmp_path / "data", console, [source])
    assert "users.tsv differs from its checksum" in console.export_text()
    assert damage(tmp_path / "data") == []


def test_a_folder_of_other_files_is_refused_before_anything_is_fetched(file_server, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FolderError, match=r"notes\.txt"):
        fetch_movielens_100k(tmp_path, Console(), [grouplens_at(file_server, archive_of(GROUPLENS))])
    assert file_server.ranges == []


def test_the_wheel_stands_in_for_an_archive_with_the_wrong_hash(
    file_server, recbole_wheel: RecBoleWheel, tmp_path: Path
) -> None:
    altered = dataclasses.replace(grouplens_at(file_server, b"<html>Please log in</html>"), sha256="0" * 64)
    console = Console(record=True, width=500)
    fetch_movielens_100k(tmp_path / "data", console, [altered, recbole_wheel])
    assert (tmp_path / "data/items.tsv").read_text(encoding="utf-8") == ITEMS
    assert f"expected {'0' * 64}" in console.export_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "wheels"]


def test_without_any_source_the_error_says_what_happened_with_each(
    refusing_url: str, recbole_wheel: RecBoleWheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    with pytest.raises(DownloadError) as caught:
        fetch_movielens_100k(tmp_path / "data", Console(), [GroupLensArchive(refusing_url), recbole_wheel])
    grouplens, wheel = str(caught.value).splitlines()[1:]
    assert refusing_url in grouplens
    assert "refused" in grouplens
    assert "recbole==1.2.1" in wheel
    assert "No matching distribution found" in wheel
    assert [path.name for path in tmp_path.iterdir()] == ["wheels"]


def test_an_altered_wheel_is_refused(recbole_wheel: RecBoleWheel, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"has SHA-256 {recbole_wheel.sha256}; expected {'1' * 64}"):
        fetch_movielens_100k(tmp_path / "data", Console(), [dataclasses.replace(recbole_wheel, sha256="1" * 64)])
    assert [path.name for path in tmp_path.iterdir()] == ["wheels"]


@pytest.mark.real_data
def test_the_real_data_set(tmp_path: Path) -> None:
    directory = tmp_path / "movielens-100k"
    result = CliRunner().invoke(data_app, ["movielens-100k", "--directory", str(directory)])
    assert result.exit_code == 0, result.output
    tables = {}
    for path in directory.glob("*.tsv"):
        with path.open(encoding="utf-8", newline="") as file:
            tables[path.stem] = list(csv.DictReader(file, delimiter="\t"))
    assert {name: len(rows) for name, rows in tables.items()} == {"interactions": 100_000, "items": 1_682, "users": 943}
    assert collections.Counter(row["rating"] for row in tables["interactions"]) == {
        "1": 6_110, "2": 11_370, "3": 27_145, "4": 34_174, "5": 21_201
    }  # fmt: skip
    assert [row["item_id"] for row in tables["items"] if not row["release_year"]] == ["267"]
    assert {genre for row in tables["items"] for genre in row["genres"].split("|")} == set(movielens.GENRES)
    titles = {row["item_id"]: row["title"] for row in tables["items"]}
    assert titles["50"] == "Star Wars"
    assert titles["543"] == "Misérables, Les"
