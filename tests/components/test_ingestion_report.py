"""Judging what an ingestion counted."""

import pytest

from pipeline.components.ingestion_report import check_report, merge_reports
from pipeline.components.source_storage import DataQualityError

REPORT = {
    "items_rows": 1000,
    "items_rejected": 1,
    "items_first_rejected": [["items.csv", 7, "item_id: is empty"]],
    "users_rows": 0,
    "users_rejected": 0,
    "users_first_rejected": [],
}


def test_reports_are_merged_by_sums():
    assert merge_reports([{"rows": 2}, {"rows": 3, "problems": ["a"]}, {}, {"problems": ["b"]}]) == {
        "rows": 5,
        "problems": ["a", "b"],
    }
    assert merge_reports([]) == {}


def test_the_share_may_be_reached_but_not_exceeded():
    check_report(REPORT, ["items", "users"], 0.001, "rejected")
    with pytest.raises(DataQualityError) as error:
        check_report(REPORT, ["items", "users"], 0.0009, "rejected")
    assert str(error.value) == (
        "items: 1 of 1000 rows (0.10%) were rejected; at most 0.09% may be (data.max_rejected_share). The first:\n"
        "  items.csv:7: item_id: is empty\n"
        "All of them: rejected/items.jsonl"
    )


def test_unreadable_files_come_first():
    with pytest.raises(DataQualityError, match=r"^a is broken\nb is broken$"):
        check_report({**REPORT, "problems": ["b is broken", "a is broken"]}, ["items", "users"], 0.0, "rejected")
