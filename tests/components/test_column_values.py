"""Cells: splitting, conversion, inference and timestamps."""

import datetime
import decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.components.column_values import (
    ColumnType,
    TimestampParser,
    TypeInference,
    convert,
    infer_text_type,
    merge_types,
    parse_feedback,
    parse_key,
    split_cell,
)

UTC = datetime.timezone.utc


@pytest.mark.parametrize(
    ("cell", "separator", "expected"),
    [
        ("a|b", None, ("a|b",)),
        ("a||b|", "|", ("a", "b")),
        ("", None, ()),
        (None, "|", ()),
        (float("nan"), None, ()),
        (["a|b", None, "", "c"], "|", ("a", "b", "c")),
        (b"\xc3\xa9", None, ("é",)),
        (True, None, (1,)),
        (decimal.Decimal("1.5"), None, (1.5,)),
        (datetime.date(1997, 9, 20), None, ("1997-09-20",)),
        (datetime.datetime(1970, 1, 1, 0, 1), None, (60,)),
    ],
)
def test_split_cell(cell, separator, expected):
    assert split_cell(cell, separator) == expected


@pytest.mark.parametrize("cell", [b"\xff", {"a": 1}])
def test_split_cell_refuses_what_it_cannot_represent(cell):
    with pytest.raises(ValueError, match=r"utf-8|not supported"):
        split_cell(cell)


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_are_inferred_and_converted_exactly(number):
    assert infer_text_type(str(number)) is ColumnType.INT
    assert convert(str(number), ColumnType.INT) == number


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_numbers_are_inferred_and_converted_exactly(number):
    assert infer_text_type(repr(number)) is ColumnType.FLOAT
    assert convert(repr(number), ColumnType.FLOAT) == number


@pytest.mark.parametrize(
    "text", ["twenty", "1_000", " 1", "1 ", "nan", "inf", "1e39", "٣", str(2**63), "0x1", ".", "1.2.3"]
)
def test_other_texts_are_strings_and_do_not_convert_to_numbers(text):
    assert infer_text_type(text) is ColumnType.STRING
    with pytest.raises(ValueError, match="is not an integer"):
        convert(text, ColumnType.INT)


def test_conversion_between_types():
    assert convert(3.0, ColumnType.INT) == 3
    assert convert(3, ColumnType.STRING) == "3"
    for value, column_type in ((3.5, ColumnType.INT), (1e39, ColumnType.FLOAT), (float("inf"), ColumnType.FLOAT)):
        with pytest.raises(ValueError, match="is not a"):
            convert(value, column_type)


@given(st.lists(st.sampled_from(["1", "2.5", "x", ""]), max_size=6), st.integers(0, 6))
def test_inference_takes_the_widest_type_wherever_the_table_is_cut(cells, cut):
    parts = []
    for part in (cells[:cut], cells[cut:]):
        inference = TypeInference({"column": 0}, is_text=True)
        for cell in part:
            inference.observe([split_cell(cell)])
        parts.append(inference.types)
    ranks = {"1": ColumnType.INT, "2.5": ColumnType.FLOAT, "x": ColumnType.STRING}
    found = [ranks[cell] for cell in cells if cell]
    assert merge_types(parts) == ({"column": max(found)} if found else {})


def test_values_with_a_type_keep_it():
    inference = TypeInference({"a": 0, "b": 1, "c": 2}, is_text=False)
    inference.observe([("12",), (1, 2), (1.0,)])
    assert inference.types == {"a": ColumnType.STRING, "b": ColumnType.INT, "c": ColumnType.FLOAT}


def test_keys_are_bytes_and_hold_one_value():
    assert [parse_key(cell) for cell in ("é", 12, b"x", ["y"])] == ["é".encode(), b"12", b"x", b"y"]
    for cell in ("", None, ["a", "b"]):
        with pytest.raises(ValueError, match=r"empty|must hold one value"):
            parse_key(cell)


def test_feedback_is_one_finite_number():
    assert [parse_feedback(cell) for cell in ("4", 4, "4.5")] == [4.0, 4.0, 4.5]
    for cell in ("", "good", "nan", [1.0, 2.0]):
        with pytest.raises(ValueError, match=r"empty|is not a finite number|must hold one value"):
            parse_feedback(cell)


@pytest.mark.parametrize(
    ("unit", "cell", "expected"),
    [
        ("seconds", "881250949", 881250949),
        ("seconds", "881250949.0", 881250949),
        ("seconds", "8.81250949e8", 881250949),
        ("seconds", 881250949.75, 881250949),
        ("milliseconds", "881250949999", 881250949),
        ("milliseconds", datetime.datetime(1997, 12, 4, 15, 55, 49, 999, tzinfo=UTC), 881250949),
        ("seconds", datetime.datetime(1997, 12, 4, 15, 55, 49), 881250949),
        ("seconds", "315532800", 315532800),
    ],
)
def test_timestamps(unit, cell, expected):
    assert TimestampParser(unit, datetime.date(1980, 1, 1), datetime.date(2100, 1, 1))(cell) == expected


@pytest.mark.parametrize(
    ("unit", "cell", "message"),
    [
        ("seconds", "", "is empty"),
        ("seconds", None, "is empty"),
        ("seconds", "yesterday", "'yesterday' is not a number of seconds"),
        ("seconds", "1e999", "is not a finite number"),
        ("seconds", "315532799", r"outside of \[1980-01-01, 2100-01-01\) in seconds$"),
        ("seconds", "881250949000", "looks like milliseconds: set data.timestamp_unit"),
        ("milliseconds", "881250949", "looks like seconds: set data.timestamp_unit"),
    ],
)
def test_bad_timestamps(unit, cell, message):
    with pytest.raises(ValueError, match=message):
        TimestampParser(unit, datetime.date(1980, 1, 1), datetime.date(2100, 1, 1))(cell)
