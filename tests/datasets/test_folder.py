"""Folders of tables appear whole, say when they are damaged, and never replace other people's files."""

from __future__ import annotations

import csv
import subprocess
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from pipeline.datasets.folder import FolderError, Table, damage, write_tables

TABLES: dict[str, Table] = {
    "items": {"item_id": ["1", "2"], "title": ["Á köldum klaka", ""]},
    "users": {"user_id": [1]},
}
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), max_size=6)


def test_files_are_utf8_with_a_header_and_checksums_that_coreutils_accept(tmp_path: Path) -> None:
    write_tables(tmp_path / "data", TABLES)
    assert (tmp_path / "data/items.tsv").read_bytes() == "item_id\ttitle\n1\tÁ köldum klaka\n2\t\n".encode()
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["SHA256SUMS", "items.tsv", "users.tsv"]
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path / "data", check=True)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert damage(tmp_path / "data") == []


@given(rows=st.lists(st.tuples(CELLS, CELLS), max_size=5))
@settings(max_examples=30, deadline=None)
def test_any_text_is_read_back(rows: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_tables(Path(folder) / "data", {"t": {"a": [row[0] for row in rows], "b": [row[1] for row in rows]}})
        with (Path(folder) / "data/t.tsv").open(encoding="utf-8", newline="") as file:
            assert [tuple(row) for row in csv.reader(file, delimiter="\t")] == [("a", "b"), *rows]


def test_damage_is_named(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    assert "SHA256SUMS is missing" in damage(directory)[0]
    write_tables(directory, TABLES)
    (directory / "items.tsv").write_text("item_id\n")
    (directory / "users.tsv").unlink()
    assert damage(directory) == [
        f"{directory / 'items.tsv'} differs from its checksum",
        f"{directory / 'users.tsv'} is missing",
    ]
    write_tables(directory, TABLES)
    assert damage(directory) == []


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    write_tables(tmp_path / "data", TABLES)
    with pytest.raises(ValueError):
        write_tables(tmp_path / "data", {"items": TABLES["items"], "users": {"user_id": [1], "age": []}})
    assert damage(tmp_path / "data") == []
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_other_files_are_not_replaced(tmp_path: Path) -> None:
    write_tables(tmp_path / "data", TABLES)
    (tmp_path / "data/notes.txt").write_text("mine")
    with pytest.raises(FolderError, match=r"notes\.txt"):
        write_tables(tmp_path / "data", TABLES)
    assert (tmp_path / "data/notes.txt").read_text() == "mine"
