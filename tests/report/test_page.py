"""The page: whole without a network, complete, readable by machines for the blind, safe whatever titles say."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
from html.parser import HTMLParser

import pytest

from pipeline.pages.rendering import json_island
from pipeline.report.page import render_report
from tests.report.simulated import HOSTILE, content, empty_content, report

SECTIONS = ["headline", "gate", "metrics", "time", "learning", "data", "card", "users"]


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(content())


@pytest.fixture(scope="module")
def failed_page() -> str:
    return render_report(empty_content())


class _Outline(HTMLParser):
    """Ids, links to them, and what tables have for those who do not see them."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.tables: list[set[str]] = []
        self.unscoped_headers = 0
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.ids += [attributes["id"] or ""] if "id" in attributes else []
        self.targets += [(attributes["href"] or "")[1:]] if tag == "a" else []
        if tag == "table":
            self.tables.append(set())
        elif self.tables:
            self.tables[-1].add(tag)
        self.unscoped_headers += tag == "th" and "scope" not in attributes
        self.scripts += tag == "script"


def outline(page: str) -> _Outline:
    parser = _Outline()
    parser.feed(page)
    return parser


def text_of(page: str) -> str:
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_page_loads_nothing(page: str):
    ours = page[: page.index("<script>")] + page[page.index("<body>") :]
    assert set(re.findall(r"""(?:src|href)\s*=\s*["']([^"']*)""", ours)) == {f"#{name}" for name in SECTIONS[1:]}
    assert not re.findall(r"@import|url\(", ours)
    assert len(page) > 1_000_000, "the chart library must be inside"
    assert len(page.encode()) < 6_000_000


@pytest.mark.parametrize("which", ["page", "failed_page"])
def test_every_section_is_there_in_order_once(which: str, request: pytest.FixtureRequest):
    found = outline(request.getfixturevalue(which))
    assert [name for name in found.ids if name in SECTIONS] == SECTIONS
    assert len(found.ids) == len(set(found.ids))
    assert set(found.targets) <= set(found.ids)


def test_tables_have_captions_and_headers_with_a_scope(page: str):
    found = outline(page)
    assert len(found.tables) >= 8
    assert all({"caption", "thead", "th"} <= table for table in found.tables)
    assert found.unscoped_headers == 0


@pytest.mark.parametrize("which", ["page", "failed_page"])
def test_nothing_breaks_out(which: str, request: pytest.FixtureRequest):
    page = request.getfixturevalue(which)
    assert "<script>alert" not in page
    assert HOSTILE in text_of(page), "it is shown, though"
    assert outline(page).scripts == 3


def test_charts_have_their_places_and_hold_the_estimates(page: str):
    (island,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    figures = json.loads(island)
    assert set(figures) == {"slices-chart", "weeks-chart", "learning-chart-0", "learning-chart-1"}
    assert set(figures) <= set(outline(page).ids)
    baseline, model = figures["slices-chart"]["data"]
    assert dict(zip(model["y"], model["x"], strict=True))["gender=F"] == pytest.approx(0.09)
    assert baseline["x"][:3] == pytest.approx([0.08, 0.12, 0.115])
    assert not any("weeks" in label for label in model["y"])
    assert figures["weeks-chart"]["data"][-1]["x"] == [0, 2, 10]
    assert figures["weeks-chart"]["layout"]["xaxis"]["ticktext"] == ["0", "2", "10+"]
    curve, kept = figures["learning-chart-0"]["data"]
    assert curve["y"] == pytest.approx([2, 1, 2 / 3])
    assert kept["x"] == [2]


def test_what_it_says(page: str):
    text = text_of(page)
    for told in (
        "This model is better than the last blessed one: ndcg@10 changed by +0.0300 (95 %: +0.0200 to +0.0400).",
        "passed the gate and was pushed as version 7",
        "not judged 3 users, fewer than 20",
        "policy_value_ips: the mean weight of the impressions is 0.5",
        "Fitted in 3.0 s on train + validation",
        "dimension 8 tuned",
        "1997-09-20",
        "seed 17",
        "abc123",
        "3 rows of the source tables could not be used",
        "Took next:",
        "(place 1), Four (not on the list). Later: 5 more.",
    ):
        assert told in text, told


def test_a_refused_estimate_says_so_in_its_row(page: str):
    (cell,) = re.findall(
        r"<tr><td>policy_value_ips<th[^>]*>overall<td>1,000<td>250<td title=\"([^\"]*)\">refused", page
    )
    assert "certainly not 1" in cell
    assert "<tr><td>policy_value_snips<th" in page
    assert "<tr><td>off_policy_refusal" not in page


def test_a_failed_run_tells_why_and_what_is_missing(failed_page: str):
    text = text_of(failed_page)
    assert "✕ Failed" in text
    for told in (
        f"The run failed: interactions.tsv: {HOSTILE}",
        f"did not get to the gate. interactions.tsv: {HOSTILE} line 2",
        "did not get to the evaluation",
        "Nothing was fitted",
        "did not get to the statistics",
        "No earlier data",
        "There is no model to ask.",
    ):
        assert told in text, told


def test_a_model_that_was_refused_says_which_rule_it_broke():
    refused = report(blessed=False, pushed=None, blessing_failures=["ndcg@10 overall is 0.1; the gate asks for 0.2"])
    text = text_of(render_report(dataclasses.replace(content(), report=refused)))
    assert "✕ Not blessed" in text
    assert "It was not blessed, so nothing was pushed." in text
    assert "ndcg@10 overall is 0.1; the gate asks for 0.2" in text


def test_json_in_the_page_has_no_number_that_is_none():
    assert json.loads(json_island({"a": [math.nan, math.inf, 1.5], "b": (None,)})) == {
        "a": [None, None, 1.5],
        "b": [None],
    }
    assert "</" not in json_island(HOSTILE)
