"""Analysis and page: figures that are known, sentences that follow from them, and a page that holds them all."""

from __future__ import annotations

import html
import json
import math
import re

import pytest

from pipeline.simulation.page import render_page, scatter_id
from pipeline.simulation.results import Finding, SimulationResults
from pipeline.simulation.runner import write_results
from tests.simulation.small import simulate_results, simulation_config

NAMES = [f"m{number}" for number in range(6)]
RIGHT = {name: 0.1 * number + 0.05 for number, name in enumerate(NAMES)}
WRONG = {name: -value for name, value in RIGHT.items()}
REFUSED = dict.fromkeys(NAMES, math.nan)
PARTLY = {**RIGHT, "m0": math.nan}
METRICS = {
    "ndcg@10": WRONG,
    "policy_value_pbm": RIGHT,
    "policy_value_ips": REFUSED,
    "policy_value_dr": PARTLY,
    "gini": WRONG,
}


@pytest.fixture(scope="module")
def results() -> SimulationResults:
    return simulate_results(METRICS)


@pytest.fixture(scope="module")
def page(results: SimulationResults) -> str:
    return render_page(results)


def finding(results: SimulationResults, key: str) -> Finding:
    return next(found for found in results.findings if found.key == key)


def test_correlations_picks_and_regrets_are_those_of_the_figures(results: SimulationResults):
    metrics = {metric.name: metric for metric in results.metrics}
    right, wrong = metrics["policy_value_pbm"], metrics["ndcg@10"]
    assert right.spearman is not None
    assert wrong.spearman is not None
    assert wrong.kendall is not None
    assert (right.spearman.value, right.spearman.lower) == pytest.approx((1, 1))
    assert (wrong.spearman.value, wrong.kendall.value) == pytest.approx((-1, -1))
    assert {pick.model for pick in right.picks} == {"m5"}
    assert right.regret == 0
    assert {pick.model for pick in wrong.picks} == {"m0"}
    assert wrong.regret == pytest.approx(0.5, abs=0.01)
    assert metrics["gini"].spearman == right.spearman, "of which less is better"
    assert [metric.kind for metric in results.metrics] == ["off_policy"] * 3 + ["logged"] * 2
    (pair,) = results.weighting
    assert (pair.model, pair.unweighted) == ("m5", "m4")
    assert pair.change.lower < 0.1 < pair.change.upper
    assert pair.change.lower > 0.08


def test_refused_figures_are_shown_as_refused(results: SimulationResults, page: str):
    metrics = {metric.name: metric for metric in results.metrics}
    assert metrics["policy_value_ips"].spearman is None
    assert metrics["policy_value_ips"].refused == 12
    assert metrics["policy_value_ips"].picks[0].model is None
    assert metrics["policy_value_dr"].refused == 2
    assert metrics["policy_value_dr"].spearman is not None
    assert "refused for too many models" in page
    assert "the log is too short." in page
    assert "policy_value_dr of Model 0 in world 1" in page
    assert '<td class="number">2 of 12</td>' in page


def test_sentences_follow_the_figures(results: SimulationResults):
    turned = simulate_results({"ndcg@10": RIGHT, "policy_value_pbm": WRONG})
    assert "wrong way round" in finding(results, "naive_order").statement
    assert "almost as online value" in finding(results, "rule_order").statement
    assert "almost as online value" in finding(turned, "naive_order").statement
    assert "wrong way round" in finding(turned, "rule_order").statement
    assert "better than ndcg@10 does, by more than chance" in finding(results, "comparison").statement
    assert "worse than ndcg@10 does, by more than chance" in finding(turned, "comparison").statement
    assert "loses 83" in finding(results, "choice").statement
    assert "wins 83" in finding(results, "choice").statement
    assert "loses even more" in finding(turned, "choice").statement
    assert "gains 20" in finding(results, "weighting").statement
    assert "wrong for 1 of 1" in finding(results, "weighting").detail


def test_a_refused_rule_is_told(results: SimulationResults):
    refused = simulate_results({"ndcg@10": RIGHT, "policy_value_pbm": REFUSED})
    assert "says nothing here" in finding(refused, "rule_order").statement
    assert refused.spearman_difference is None
    assert "</html>" in render_page(refused)
    missing = simulate_results({"ndcg@10": RIGHT})
    assert "says nothing here" in finding(missing, "rule_order").statement


def test_the_page_loads_nothing_and_holds_everything(results: SimulationResults, page: str):
    ours = page[: page.index("<script>")] + page[page.index("<body>") :]
    assert not re.findall(r"""(?:src|href)\s*=|@import|url\(""", ours)
    (text,) = re.findall(r'<script type="application/json" id="results">(.*?)</script>', page, re.DOTALL)
    assert SimulationResults.model_validate(json.loads(text)) == results
    told = html.unescape(page)
    for found in results.findings:
        assert found.statement in told
        assert found.detail in told
    (text,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    charts = json.loads(text)
    compared = ("ndcg@10", "policy_value_pbm")
    scatters = {scatter_id(metric, seed) for metric in compared for seed in (1, 2)}
    assert set(charts) == {"correlations", "online", "exposure", *scatters}
    for name in charts:
        assert page.count(f'id="{name}"') == 1
    for heading in (
        "Which figure foretells online value", "Said and earned", "What choosing by it costs", "What the models earn",
        "The log", "How it was measured",
    ):  # fmt: skip
        assert f"<h2>{heading}</h2>" in page


def test_scatter_plots_show_said_and_earned(results: SimulationResults, page: str):
    (text,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    chart = json.loads(text)[scatter_id("policy_value_pbm", 1)]
    dots = {(x, y) for trace in chart["data"] for x, y in zip(trace["x"], trace["y"], strict=True)}
    models = results.worlds[0].models.values()
    assert dots == {(model.metrics["policy_value_pbm"], model.online.value) for model in models}


def test_titles_cannot_break_out():
    hostile = "</script><script>alert(1)</script>"
    page = render_page(simulate_results(METRICS, simulation_config().model_copy(update={"title": hostile})))
    assert hostile not in page


def test_files_are_replaced_whole(results: SimulationResults, tmp_path):
    document, page = write_results(results, tmp_path / "new")
    assert SimulationResults.model_validate_json(document.read_text(encoding="utf-8")) == results
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
