"""Reading CSV, TSV, Parquet and TFRecord files."""

import csv
import gzip
import io

import pyarrow
import pyarrow.parquet
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.components.source_files import find_files, raw_text, read_records
from pipeline.components.source_storage import DataQualityError
from pipeline.data_config import TableConfig

CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


def table(file_format, *names, **fields):
    return TableConfig(pattern="*", format=file_format, columns={name: name for name in names}, **fields)


def read(path, content, config):
    path.write_bytes(content)
    return list(read_records(str(path), "items", config))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(CELL, CELL), max_size=6), delimiter=st.sampled_from(",;\t"))
def test_csv_is_read_back_as_it_was_written(tmp_path, rows, delimiter):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(["a", "b"])
    starts = []
    for row in rows:
        starts.append(text.getvalue().count("\n") + 1)
        writer.writerow(row)
    records = read(tmp_path / "t.csv", text.getvalue().encode("utf-8"), table("csv", "b", "a", delimiter=delimiter))
    assert [(record.line, list(record.cells), record.reason) for record in records] == [
        (start, [b, a], None) for start, (a, b) in zip(starts, rows, strict=True)
    ]


def test_a_stray_quote_costs_its_line_only(tmp_path):
    content = b'a,b\n1,"open\n2,x\n3,"two\r\nlines"\n4,"x"y\n5,6\n'
    records = read(tmp_path / "t.csv", content, table("csv", "a", "b"))
    assert [(record.line, list(record.cells), record.reason and record.reason[:13]) for record in records] == [
        (2, [], "malformed CSV"),
        (3, ["2", "x"], None),
        (4, ["3", "two\r\nlines"], None),
        (6, [], "malformed CSV"),
        (7, ["5", "6"], None),
    ]
    assert records[0].raw == '1,"open'


def test_tsv_has_no_quotes(tmp_path):
    records = read(tmp_path / "t.tsv", b'\xef\xbb\xbfa\tb\r\n"x\t7" single\r\n\r\n"\t\r\n', table("tsv", "a", "b"))
    assert [(record.line, record.cells) for record in records] == [(2, ['"x', '7" single']), (4, ['"', ""])]


@pytest.mark.parametrize("file_format", ["csv", "tsv"])
def test_malformed_rows_are_told_apart(tmp_path, file_format):
    comma = b"," if file_format == "csv" else b"\t"
    content = b"\n".join([b"a,b", b"1", b"1,2,3", b"\xff,2", b"\xc3\xa9,2"]).replace(b",", comma)
    records = read(tmp_path / "t", content, table(file_format, "a", "b"))
    assert [record.reason for record in records] == [
        "has 1 fields; the header has 2",
        "has 3 fields; the header has 2",
        "not valid UTF-8",
        None,
    ]
    assert raw_text(records[2].raw) == "\\xff" + comma.decode() + "2"


def test_gzip_is_decompressed(tmp_path):
    assert [r.cells for r in read(tmp_path / "t.csv.gz", gzip.compress(b"a\n1\n"), table("csv", "a"))] == [["1"]]


@pytest.mark.parametrize(
    ("content", "names", "message"),
    [
        (
            b"user,item\n1,2\n",
            ["user", "item"],
            r"\['user', 'item'\].*has \['user,item'\]; is the delimiter '\\t' right",
        ),
        (b"a\ta\n1\t2\n", ["a"], r"maps \['a'\], which the file has more than once"),
        (b"\n", ["a"], "the file is empty; expected a header"),
        (b"\xff\n", ["a"], ":1: the header line is not valid UTF-8"),
    ],
)
def test_unusable_headers(tmp_path, content, names, message):
    with pytest.raises(DataQualityError, match=message):
        read(tmp_path / "t.tsv", content, table("tsv", *names))


def test_parquet_keeps_lists_and_nulls(tmp_path):
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"x": [0, 0], "b": [["p", "q"], None], "a": [1, None]}), path)
    records = list(read_records(str(path), "items", table("parquet", "a", "b")))
    assert [(record.line, record.cells) for record in records] == [(1, (1, ["p", "q"])), (2, (None, None))]
    assert raw_text(records[0].raw) == '[1, ["p", "q"]]'
    with pytest.raises(
        DataQualityError, match=r"maps \['c'\], which the file does not have. It has \['x', 'b', 'a'\]$"
    ):
        list(read_records(str(path), "items", table("parquet", "a", "c")))


@pytest.mark.parametrize(
    ("file_format", "message"), [("parquet", "not a readable Parquet"), ("tfrecord", "record 1 is")]
)
def test_broken_files_are_named(tmp_path, file_format, message):
    with pytest.raises(DataQualityError, match=f"broken: {message}"):
        read(tmp_path / "broken", b"x" * 40, table(file_format, "a"))


@pytest.mark.parametrize("file_format", ["csv", "tsv", "tfrecord"])
@pytest.mark.parametrize("fault", ["cut off", "corrupt", "no gzip"])
def test_broken_compression_is_named(tmp_path, file_format, fault):
    whole = gzip.compress(b"a\n" + bytes(range(32, 127)) * 2000 if file_format != "tfrecord" else b"\0" * 4000)
    middle = len(whole) // 2
    content = {"cut off": whole[:middle], "corrupt": whole[:middle] + b"\xff" * 99, "no gzip": b"a\n1\n"}[fault]
    with pytest.raises(DataQualityError, match=r"broken\.gz: (cannot be read to its end|record 1 is broken): \S"):
        read(tmp_path / "broken.gz", content, table(file_format, "a"))


def test_tfrecords(tmp_path):
    path = tmp_path / "t.tfrecord"
    example = tf.train.Example()
    example.features.feature["a"].bytes_list.value.extend([b"p", b"q"])
    example.features.feature["b"].SetInParent()
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(example.SerializeToString())
        writer.write(b"garbage")
    first, second = read_records(str(path), "items", table("tfrecord", "a", "b", "c"))
    assert (first.line, first.cells, first.reason) == (1, [[b"p", b"q"], [], None], None)
    assert (second.line, second.reason, raw_text(second.raw)) == (2, "not a tf.train.Example", "garbage")


def test_files_are_found_in_order(tmp_path):
    for name in ("items-2.csv", "items-10.csv", "users.csv"):
        (tmp_path / name).write_text("a\n")
    config = TableConfig(pattern="items-*.csv", format="csv", columns={"a": "a"})
    assert [(file.number, file.path) for file in find_files(str(tmp_path), "items", config)] == [
        (0, str(tmp_path / "items-10.csv")),
        (1, str(tmp_path / "items-2.csv")),
    ]
    (tmp_path / "items-3.csv").touch()
    with pytest.raises(DataQualityError, match=r"items: the file .*items-3.csv is empty \(0 bytes\)"):
        find_files(str(tmp_path), "items", config)
    with pytest.raises(DataQualityError, match=r"items.pattern: no file matches '.*elsewhere/items-\*.csv'"):
        find_files(str(tmp_path / "elsewhere"), "items", config)
