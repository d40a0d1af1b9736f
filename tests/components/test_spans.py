"""Which spans there are, and which of them a window holds."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.components.source_storage import DataQualityError
from pipeline.components.spans import (
    describe_numbers,
    find_spans,
    find_window,
    fingerprint,
    source_directory,
    split_directory,
)
from tests.components.example_gen_runs import make_data


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")


@pytest.mark.parametrize(
    ("directory", "expected"),
    [
        ("data/movies", ("data/movies", "")),
        ("data/movies/", ("data/movies", "")),
        ("data/span-{SPAN}", ("data", "span-{SPAN}")),
        ("/{SPAN}/raw", ("/", "{SPAN}/raw")),
        ("{SPAN}", (".", "{SPAN}")),
        ("gs://bucket/a/{SPAN:3}/v{VERSION}", ("gs://bucket/a", "{SPAN:3}/v{VERSION}")),
        ("data/{YYYY}/{MM}-{DD}", ("data", "{YYYY}/{MM}-{DD}")),
    ],
)
def test_the_folder_is_split_before_the_span(directory, expected):
    assert split_directory(directory) == expected


def test_numbers_may_have_leading_zeros_and_other_folders_are_none(tmp_path):
    _touch(tmp_path, "span-9/a.tsv", "span-010/a.tsv", "span-x/a.tsv", "span-11-old/a.tsv", "span-12/b.csv")
    spans = find_spans(str(tmp_path), "span-{SPAN}/*.tsv")
    assert {number: span.pattern for number, span in spans.items()} == {9: "span-9/*.tsv", 10: "span-010/*.tsv"}


def test_of_each_span_the_latest_version_counts(tmp_path):
    _touch(tmp_path, "s1/v2/a.tsv", "s1/v10/a.tsv", "s2/v1/a.tsv")
    spans = find_spans(str(tmp_path), "s{SPAN}/v{VERSION}/a.tsv")
    assert {n: (span.version, span.pattern) for n, span in spans.items()} == {
        1: (10, "s1/v10/a.tsv"),
        2: (1, "s2/v1/a.tsv"),
    }


def test_days_are_numbered_from_1970(tmp_path):
    _touch(tmp_path, "1970-01-02/a.tsv", "2026-02-28/a.tsv", "2026-02-30/a.tsv")
    spans = find_spans(str(tmp_path), "{YYYY}-{MM}-{DD}/a.tsv")
    day = (datetime.date(2026, 2, 28) - datetime.date(1970, 1, 1)).days
    assert {n: span.pattern for n, span in spans.items()} == {1: "1970-01-02/a.tsv", day: "2026-02-28/a.tsv"}


def test_a_window_leaves_out_what_is_missing(tmp_path):
    _touch(tmp_path, *(f"span-{number}/a.tsv" for number in (1, 2, 4, 5, 7)))
    base, pattern = str(tmp_path), "span-{SPAN}/*.tsv"
    assert [span.number for span in find_window(base, pattern)] == [7]
    assert [span.number for span in find_window(base, pattern, length=3)] == [5, 7]
    assert [span.number for span in find_window(base, pattern, newest=4, length=10)] == [1, 2, 4]
    with pytest.raises(DataQualityError, match=r"span 6 has no file .*; there are the spans 1 to 2, 4 to 5, 7$"):
        find_window(base, pattern, newest=6)
    with pytest.raises(DataQualityError, match=r"no file matches .*/day-.* for any span"):
        find_window(base, "day-{SPAN}/*.tsv")


def test_the_fingerprint_changes_with_the_files(tmp_path):
    _touch(tmp_path, "span-1/a.tsv")
    (span,) = find_window(str(tmp_path), "span-{SPAN}/*.tsv")
    before = fingerprint(str(tmp_path), span)
    assert fingerprint(str(tmp_path), span) == before
    _touch(tmp_path, "span-1/b.tsv")
    assert fingerprint(str(tmp_path), span) != before


def test_the_tables_of_the_newest_span_are_looked_up(tmp_path):
    _touch(tmp_path, "span-9/a.tsv", "span-010/a.tsv")
    pattern = f"{tmp_path}/span-{{SPAN}}"
    assert source_directory(make_data(Path(pattern))) == f"{tmp_path}/span-010"
    assert source_directory(make_data(Path(pattern), window={"newest": 9})) == f"{tmp_path}/span-9"
    assert source_directory(make_data(tmp_path)) == str(tmp_path)
    with pytest.raises(DataQualityError, match=r"data\.window\.newest: received 3; .* has the spans 9 to 10$"):
        source_directory(make_data(Path(pattern), window={"newest": 3}))
    with pytest.raises(DataQualityError, match=r"data\.directory: no folder matches"):
        source_directory(make_data(tmp_path / "day-{SPAN:3}"))


@given(st.sets(st.integers(0, 30), min_size=1))
def test_numbers_in_words_say_which(numbers):
    told = describe_numbers(sorted(numbers))
    found = set()
    for part in told.split(", "):
        match = re.fullmatch(r"(\d+)(?: to (\d+))?", part)
        assert match
        found |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    assert found == numbers
