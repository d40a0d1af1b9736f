"""The shipped configuration on the real data: the numbers that every other model is measured against."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from pipeline.config import load_config
from pipeline.datasets.folder import damage
from pipeline.datasets.movielens import fetch_movielens_100k
from tests.end_to_end.small_pipeline import COMPONENTS, Run, run

pytestmark = [pytest.mark.end_to_end, pytest.mark.real_data, pytest.mark.slow]

LOCAL_DATA = Path("data/movielens-100k")


@pytest.fixture(scope="module")
def overrides(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A workspace of its own, and the data: those of `marquee data movielens-100k`, or fetched for this test."""
    folder = tmp_path_factory.mktemp("movielens")
    data = LOCAL_DATA
    if damage(data):
        data = folder / "movielens-100k"
        fetch_movielens_100k(data, Console())
    return [f"workspace={folder / 'workspace'}", f"data.directory={data.absolute()}"]


@pytest.fixture(scope="module")
def popularity(overrides: list[str]) -> Run:
    return run(
        load_config("movielens-100k", [*overrides, "model.family=popularity", "model.settings={window_days: null}"])
    )


def test_popularity_scores_what_an_independent_implementation_does(popularity: Run):
    report = popularity.report
    splits = {key: report.data[f"num_examples_{key}"] for key in ("train", "eval", "test", "catalogue")}
    assert splits == {"train": 79_999, "eval": 10_001, "test": 10_000, "catalogue": 1_682}
    assert report.example_counts["overall"] == 10_000
    overall = report.metrics["overall"]
    assert overall["ndcg@10"] == pytest.approx(0.0314, abs=0.002)
    assert overall["recall@10"] == pytest.approx(0.0687, abs=0.004)
    assert overall["mrr@10"] == pytest.approx(0.0204, abs=0.002)
    assert report.blessed
    assert [report.pushed and report.pushed.version] == popularity.new_versions


def test_two_towers_beat_popularity_twice_over(overrides: list[str], popularity: Run):
    two_tower = run(load_config("movielens-100k", overrides))
    assert two_tower.nodes("CACHED") == set(COMPONENTS[: COMPONENTS.index("RecommenderTrainer")])
    report = two_tower.report
    assert report.training["model"]["family"] == "two_tower"
    assert report.metrics["overall"]["ndcg@10"] > 0.066
    assert report.baseline_metrics["overall"] == pytest.approx(popularity.report.metrics["overall"], abs=1e-6)
    assert report.blessed
    assert [report.pushed and report.pushed.version] == two_tower.new_versions
