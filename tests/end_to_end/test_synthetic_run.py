"""The small run: from the tables to a pushed model, then once more from the cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tensorflow as tf
from typer.testing import CliRunner

from pipeline.cli import app
from tests.end_to_end.conftest import FirstRuns
from tests.end_to_end.small_pipeline import COMPONENTS, RESOLVER, SMALL_WORLD, summarise

pytestmark = [pytest.mark.end_to_end, pytest.mark.small_run]


def test_every_component_runs_once(first_runs: FirstRuns):
    assert first_runs.first.states == dict.fromkeys(COMPONENTS, "COMPLETE")
    assert first_runs.first.report.state == "complete"
    assert first_runs.first.new_artifacts == {
        "Examples": 3,
        "ExampleStatistics": 2,
        "Schema": 2,
        "ExampleAnomalies": 2,
        "File": 1,
        "TransformGraph": 1,
        "Model": 1,
        "ModelRun": 1,
        "ModelEvaluation": 1,
        "ModelBlessing": 1,
        "InfraBlessing": 1,
        "PushedModel": 1,
    }


def test_the_report_holds_data_training_and_metrics(first_runs: FirstRuns):
    report = first_runs.first.report
    assert {key: report.data[f"num_examples_{key}"] for key in ("train", "eval", "test", "catalogue")} == {
        "train": 3_200,
        "eval": 400,
        "test": 400,
        "catalogue": SMALL_WORLD.items,
    }
    assert report.anomalies is not None
    assert report.anomalies.startswith("Clean")
    assert [epoch["epoch"] for epoch in report.training["epochs"]] == [1, 2]
    assert all(epoch["loss"] > 0 and 0 < epoch["validation_ndcg@10"] < 1 for epoch in report.training["epochs"])

    assert report.example_counts["overall"] == 400
    assert 0 < report.metrics["overall"]["ndcg@10"] < 1
    lower, upper = report.intervals["overall"]["ndcg@10"]
    assert lower < report.metrics["overall"]["ndcg@10"] < upper
    assert not report.baseline_metrics


def test_slices_are_raw_derived_multivalued_and_crossed(first_runs: FirstRuns):
    counts = first_runs.first.report.example_counts
    metrics = first_runs.first.report.metrics
    assert metrics.keys() == counts.keys()
    for feature in ("gender", "device", "age_band", "user_activity", "title_popularity", "hour"):
        values = [name for name in counts if name.startswith(f"{feature}=") and "," not in name]
        assert len(values) > 1
        assert sum(counts[name] for name in values) == 400, f"the values of {feature} must split the events"
    # A title has up to three genres and counts in the slice of each.
    genres = [name for name in counts if name.startswith("genres=")]
    assert len(genres) == 12
    assert sum(counts[name] for name in genres) > 400
    assert counts["age_band=<25, gender=F"] + counts["age_band=<25, gender=M"] == counts["age_band=<25"]
    assert all(0 <= values["ndcg@10"] <= 1 for values in metrics.values())


def test_a_blessed_servable_model_is_pushed_whole(first_runs: FirstRuns):
    report = first_runs.first.report
    assert (report.blessed, report.blessing_failures) == (True, [])
    assert (report.servable, report.servable_reason) == (True, "")
    assert report.pushed is not None
    assert first_runs.first.new_versions == [report.pushed.version]

    folder = Path(report.pushed.destination)
    assert (folder / "assets.extra" / "tf_serving_warmup_requests").stat().st_size > 0
    model = tf.saved_model.load(str(folder))
    assert {"serving_default", "rank", "similar"} <= set(model.signatures)
    answer = model.signatures["serving_default"](examples=tf.constant([b""]))
    assert sorted(answer["item_ids"].numpy()[0]) == [item_id.encode() for item_id in SMALL_WORLD.item_ids]


def test_status_prints_the_report_as_json(first_runs: FirstRuns):
    first = first_runs.first.report
    arguments = ["--config", "synthetic", "--set", f"workspace={first_runs.folder / 'workspace'}"]
    result = CliRunner().invoke(app, ["status", "--json", "--run", first.run_id, *arguments])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["metrics"]["overall"]["ndcg@10"] == first.metrics["overall"]["ndcg@10"]
    assert [document["pushed"]["version"]] == first_runs.first.new_versions
    assert document["components"]["RecommenderTrainer"]["seconds"] > 0.1
    assert document["components"].keys() == set(COMPONENTS)


def test_the_summary_names_components_slices_and_version(first_runs: FirstRuns):
    printed = summarise(first_runs.first.report)
    for expected in (*COMPONENTS, "3,200 train", "ndcg@10", "age_band=25-44", "genres=Sci-Fi", "user_activity=new"):
        assert expected in printed
    assert f"Pushed as version {first_runs.first.new_versions[0]}" in printed


def test_progress_names_each_component(first_runs: FirstRuns):
    finished = [line.split()[1] for line in first_runs.first.output.splitlines() if "✓" in line]
    assert finished == list(first_runs.first.states)
    cached = [line.split()[1:] for line in first_runs.second.output.splitlines() if "=" in line]
    assert cached == [[name, "cached"] for name in first_runs.second.states if name != RESOLVER]


def test_the_second_run_is_cached(first_runs: FirstRuns):
    second = first_runs.second
    assert second.states == {**dict.fromkeys(COMPONENTS, "CACHED"), RESOLVER: "COMPLETE"}
    assert second.new_artifacts == {}
    assert second.new_versions == []
    assert second.report.metrics == first_runs.first.report.metrics
