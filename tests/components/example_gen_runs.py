"""Runs the executors of the ExampleGens on tables written for a test, and reads what they wrote."""

from __future__ import annotations

import copy
import csv
import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import tensorflow as tf
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.types import standard_artifacts

from pipeline.data_config import DataConfig

Table = Mapping[str, Sequence[Any]]
"""Values by column."""


def make_data(directory: Path, **changes: Any) -> DataConfig:
    """Returns a configuration of three TSV tables, `interactions.tsv` and so on, with changes by field."""
    document = {
        "directory": str(directory),
        "interactions": {
            "pattern": "interactions.tsv",
            "format": "tsv",
            "columns": {"user_id": "user", "item_id": "item", "timestamp": "time", "rating": "rating"},
        },
        "items": {
            "pattern": "items.tsv",
            "format": "tsv",
            "columns": {"item_id": "item", "year": "year", "genres": {"source": "genres", "separator": "|"}},
        },
        "users": {"pattern": "users.tsv", "format": "tsv", "columns": {"user_id": "user", "age": "age"}},
        "feedback": "rating",
    }
    return DataConfig.model_validate({**copy.deepcopy(document), **changes})


def write_tsv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a table; missing values are None."""
    lines = ["\t".join("" if cell is None else str(cell) for cell in row) for row in (header, *rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_tables(
    directory: Path,
    interactions: Iterable[Sequence[Any]],
    items: Iterable[Sequence[Any]],
    users: Iterable[Sequence[Any]],
) -> None:
    """Writes the tables of `make_data`."""
    write_tsv(directory / "interactions.tsv", ["user", "item", "time", "rating"], interactions)
    write_tsv(directory / "items.tsv", ["item", "year", "genres"], items)
    write_tsv(directory / "users.tsv", ["user", "age"], users)


def write_table(path: Path, table: Table, separator: str) -> None:
    """Writes a table in the format that the path's suffix says; lists are joined in CSV and TSV."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(dict(table)), path)
        return
    rows = list(zip(*table.values(), strict=True))
    if path.suffixes[0] == ".tfrecord":
        options = "GZIP" if path.suffix == ".gz" else ""
        with tf.io.TFRecordWriter(str(path), options) as writer:
            for row in rows:
                writer.write(_to_example(dict(zip(table, row, strict=True))).SerializeToString())
        return
    delimiter = "," if ".csv" in path.suffixes else "\t"
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(table)
        writer.writerows([separator.join(cell) if isinstance(cell, list) else cell for cell in row] for row in rows)


def run_example_gen(component: FileBasedExampleGen, folder: Path) -> standard_artifacts.Examples:
    """Runs a component's executor without its driver; returns the artifact."""
    artifact = standard_artifacts.Examples()
    artifact.uri = str(folder)
    component.executor_spec.executor_class().Do({}, {"examples": [artifact]}, dict(component.exec_properties))
    return artifact


def read_split(folder: Path | str, split: str) -> list[tf.train.Example]:
    """Reads the examples of a split, in the order of the files."""
    return [tf.train.Example.FromString(serialized) for serialized in read_records(folder, split)]


def read_records(folder: Path | str, split: str) -> list[bytes]:
    """Reads the serialized examples of a split."""
    paths = sorted(Path(folder, f"Split-{split}").glob("*data_tfrecord-*-of-*.gz"))
    dataset = tf.data.TFRecordDataset([str(path) for path in paths], compression_type="GZIP")
    return list(dataset.as_numpy_iterator())


def to_dict(example: tf.train.Example) -> dict[str, list[Any]]:
    """Returns the values of an example's features."""
    return {
        name: list(getattr(feature, feature.WhichOneof("kind")).value)
        for name, feature in example.features.feature.items()
    }


def read_rejected(path: Path) -> list[tuple[int, str, str]]:
    """Reads line, reason and row of the rejected rows, in order of lines."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted((row["line"], row["reason"], row["row"]) for row in rows)


def _to_example(row: Mapping[str, Any]) -> tf.train.Example:
    example = tf.train.Example()
    for name, cell in row.items():
        for value in cell if isinstance(cell, list) else [cell]:
            feature = example.features.feature[name]
            if isinstance(value, int):
                feature.int64_list.value.append(value)
            elif isinstance(value, float):
                feature.float_list.value.append(value)
            elif value is not None:
                feature.bytes_list.value.append(value.encode("utf-8"))
    return example
