"""The same pipeline, compiled for Kubeflow: what the SDK reads back has every component, in the same order."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli import app
from tests.end_to_end.small_pipeline import COMPONENTS

pytestmark = pytest.mark.end_to_end

kfp_components = pytest.importorskip("kfp.components")


def test_the_compiled_pipeline_holds_every_component_and_the_gate(tmp_path: Path):
    output = tmp_path / "recommender.yaml"
    workspace = "gs://bucket/marquee"
    result = CliRunner().invoke(
        app, ["compile", "--output", str(output), "--image", "registry/marquee:1.0", "--set", f"workspace={workspace}"]
    )
    assert result.exit_code == 0, result.output
    assert list(tmp_path.iterdir()) == [output]

    component = kfp_components.load_component_from_file(str(output))
    assert component.name == "movielens-100k"
    document = next(iter(yaml.safe_load_all(output.read_text(encoding="utf-8"))))
    assert document["root"]["dag"]["tasks"].keys() == {"tfx-dag", "ReportFinalState"}
    tasks = document["components"]["tfx-dag"]["dag"]["tasks"]
    assert tasks.keys() == set(COMPONENTS)
    assert "AnomalyGate" in tasks["Transform"]["dependentTasks"]
    assert {"InteractionValidator", "CatalogueValidator"} <= set(tasks["AnomalyGate"]["dependentTasks"])
    assert {"RecommenderEvaluator", "ServerValidator"} <= set(tasks["AtomicPusher"]["dependentTasks"])
    images = {
        executor["container"]["image"]
        for executor in document["deploymentSpec"]["executors"].values()
        if "container" in executor
    }
    assert images == {"registry/marquee:1.0"}
