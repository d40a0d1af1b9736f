"""`marquee data expand`: the files it writes, and that the pipeline's ingestion takes them."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.components.source_files import find_files, read_records
from pipeline.components.source_tables import ColumnSet
from pipeline.config import load_config
from pipeline.data_config import DataConfig
from pipeline.datasets.folder import damage, write_tables
from pipeline.datasets.synthetic import SyntheticWorld

COLUMNS = {
    "interactions": ["user_id", "item_id", "timestamp", "rating"],
    "items": ["item_id"],
    "users": ["user_id"],
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expand") / "source"
    write_tables(folder, SyntheticWorld(users=40, items=30, interactions=800, seed=3).generate())
    return folder


def expand(source: Path, target: Path, *arguments: str):
    return CliRunner().invoke(
        app,
        [
            "data", "expand", "--config", "synthetic", "--set", f"data.directory={source}", "--directory", str(target),
            *arguments,
        ],
    )  # fmt: skip


def read(path: Path) -> list[dict]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def base(key: str) -> str:
    return key.rsplit("-", 1)[0]


def inferred_types(data: DataConfig, *names: str) -> dict[str, str]:
    """Returns the types that ingestion infers for the columns of some tables, by column."""
    types: dict[str, str] = {}
    for name in names:
        table = getattr(data, name)
        columns = ColumnSet(table, COLUMNS[name])
        inference = columns.new_inference()
        for file in find_files(data.directory, name, table):
            for record in read_records(file.path, name, table):
                inference.observe(columns.parse(record.cells))
        types |= {column: kind.name for column, kind in inference.types.items()}
    return types


def test_tables_are_copies_of_the_source(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.datasets.expand.ROWS_PER_FILE", 3000)
    result = expand(source, tmp_path / "large", "--interactions", "10000", "--item-copies", "3")
    assert result.exit_code == 0, result.output
    assert damage(tmp_path / "large") == []
    files = sorted((tmp_path / "large").glob("interactions-*.parquet"))
    assert [path.name for path in files] == [f"interactions-{number:05d}-of-00003.parquet" for number in range(3)]
    log = pyarrow.concat_tables(map(pyarrow.parquet.read_table, files))
    items = pyarrow.parquet.read_table(tmp_path / "large" / "items.parquet").to_pylist()
    users = pyarrow.parquet.read_table(tmp_path / "large" / "users.parquet").to_pylist()
    assert f"{log.num_rows:,} interactions, {len(items):,} items, {len(users):,} users" in result.output
    assert abs(log.num_rows - 10_000) < 500
    assert log.schema.field("timestamp").type == pyarrow.int64()

    originals = {(row["user_id"], row["item_id"]): row for row in read(source / "interactions.tsv")}
    ratings = {row["rating"] for row in originals.values()}
    assert {str(rating) for rating in log["rating"].to_pylist()} <= ratings
    assert set(log["item_id"].to_pylist()) <= {row["item_id"] for row in items}
    assert set(log["user_id"].to_pylist()) == {row["user_id"] for row in users}
    assert len({row["item_id"] for row in items}) == 90 == len(items)
    for name, key, rows in (("items", "item_id", items), ("users", "user_id", users)):
        by_key = {row[key]: row for row in read(source / f"{name}.tsv")}
        for row in rows:
            original = by_key[base(row[key])]
            for column, value in row.items():
                if column != key:
                    assert ("" if value is None else str(value)) == original[column], (name, column)


def test_the_same_arguments_write_the_same_files(source: Path, tmp_path: Path) -> None:
    for name, seed in (("one", "4"), ("two", "4"), ("three", "5")):
        assert expand(source, tmp_path / name, "--interactions", "2000", "--seed", seed).exit_code == 0
    sums = {name: (tmp_path / name / "SHA256SUMS").read_text() for name in ("one", "two", "three")}
    assert sums["one"] == sums["two"] != sums["three"]


def test_a_configuration_reads_the_expansion(source: Path, tmp_path: Path) -> None:
    result = expand(source, tmp_path / "large", "--interactions", "2000")
    command = result.output.strip().splitlines()[-1].split()
    assert command[:4] == ["marquee", "run", "--config", "synthetic"]
    assignments = [word.strip("'") for word in command[5::2]]
    data = load_config("synthetic", assignments).data
    types = inferred_types(data, "interactions", "items", "users")
    expected = inferred_types(load_config("synthetic", [f"data.directory={source}"]).data, "items", "users")
    assert {name: types[name] for name in expected} == expected
    assert expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--interactions", "500"], "expected at least the log's 800 interactions"),
        (["--interactions", "2000", "--set", "data.items.pattern=none.tsv"], "no file matches"),
        (["--interactions", "2000", "--set", "data.directory=spans-{SPAN}"], "received spans"),
    ],
)
def test_refusals_write_nothing(source: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = expand(source, tmp_path / "large", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert not (tmp_path / "large").exists()


def test_a_malformed_row_is_named(source: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in source.glob("*.tsv"):
        (broken / path.name).write_text(path.read_text())
    with (broken / "interactions.tsv").open("a") as file:
        file.write("u1\ti1\n")
    result = expand(broken, tmp_path / "large", "--interactions", "2000")
    assert result.exit_code == 1
    assert "interactions.tsv:802: has 2 fields" in result.stderr
