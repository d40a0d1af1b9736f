"""The page: whole without a network, true to the results, and safe whatever titles say."""

from __future__ import annotations

import html
import json
import re

import pytest

from pipeline.study.page import render_page
from pipeline.study.results import StudyResults
from pipeline.study.runner import write_results
from tests.study.test_claims import AS_IN_THE_PAPER, simulate


@pytest.fixture(scope="module")
def results() -> StudyResults:
    return simulate(AS_IN_THE_PAPER)


@pytest.fixture(scope="module")
def page(results: StudyResults) -> str:
    return render_page(results)


def island(page: str, name: str):
    (text,) = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_the_page_loads_nothing(page: str):
    ours = page[: page.index("<script>")] + page[page.index("<body>") :]
    assert not re.findall(r"""(?:src|href)\s*=|@import|url\(""", ours)
    assert page.count("Plotly.react") >= 1
    assert len(page) > 1_000_000, "the chart library must be inside"


def test_the_page_holds_the_results_and_every_claim(page: str, results: StudyResults):
    assert StudyResults.model_validate(island(page, "results")) == results
    text = html.unescape(page)
    for claim in results.claims:
        assert claim.statement in text
        assert claim.reason in text
    assert "<td>train + validation</td>" in text, "a refit says what it was fitted on"


def test_every_chart_has_its_place(page: str, results: StudyResults):
    figures = island(page, "figures")
    assert set(figures) == {
        "cost-seconds",
        "cost-memory",
        *(f"{chart}-{task.name}" for task in results.tasks for chart in ("scores", "ladder")),
    }
    for name in figures:
        assert page.count(f'id="{name}"') == 1


def test_charts_show_the_estimates_and_their_intervals(page: str, results: StudyResults):
    task = results.tasks[0]
    chart = island(page, "figures")[f"scores-{task.name}"]
    dots = {
        x: (x - low, x + high)
        for trace in chart["data"]
        for x, low, high in zip(trace["x"], trace["error_x"]["arrayminus"], trace["error_x"]["array"], strict=True)
    }
    estimates = [scores[task.headline_metric] for scores in task.scores.values()]
    assert len(dots) == len(estimates)
    for estimate in estimates:
        assert dots[estimate.value] == pytest.approx((estimate.lower, estimate.upper))
    assert chart["layout"]["yaxis"]["categoryarray"][-1] == "Two towers: with time in buckets" or len(estimates) > 4


def test_titles_cannot_break_out(results: StudyResults):
    hostile = "</script><script>alert(1)</script>"
    page = render_page(results.model_copy(update={"title": hostile}))
    assert hostile not in page
    assert island(page, "results")["title"] == hostile


def test_files_are_replaced_whole(results: StudyResults, tmp_path):
    document, page = write_results(results, tmp_path / "new")
    assert StudyResults.model_validate_json(document.read_text(encoding="utf-8")) == results
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["study.html", "study.json"]
