"""The compiled pipeline, executed step by step from a clean install: it pushes the model that a local run pushes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import yaml
from typer.testing import CliRunner

from modules.artifact_files import VERDICT_FILE
from pipeline.benchmark_inputs import read_test_examples
from pipeline.cli import app
from pipeline.config import PipelineConfig
from tests.end_to_end.compiled_pipeline import CompiledPipeline, StepError, install
from tests.end_to_end.conftest import FirstRuns
from tests.end_to_end.small_pipeline import COMPONENTS, RESOLVER, SMALL_TWO_TOWER, SMALL_WORLD

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]
pytest.importorskip("kfp")

EXAMPLES = 64


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("installed"))


def _compile(config: PipelineConfig, workspace: Path, data: str, *further: str) -> Path:
    """Compiles the small pipeline over a data directory, and returns the specification's file."""
    output = workspace.parent / f"{workspace.name}.yaml"
    settings = yaml.safe_dump(SMALL_TWO_TOWER, default_flow_style=True)
    overrides = [
        f"workspace={workspace}",
        f"data.directory={data}",
        f"model.settings={settings}",
        "evaluation.gate={rules: [{metric: ndcg@10, minimum: 0.001}]}",
        *further,
    ]
    arguments = ["compile", "--config", "synthetic", "--output", str(output)]
    result = CliRunner().invoke(app, [*arguments, *(part for one in overrides for part in ("--set", one))])
    assert result.exit_code == 0, result.output
    return output


def _recommend(model: Path, examples: list[bytes]) -> Mapping[str, np.ndarray]:
    loaded = tf.saved_model.load(str(model))
    answer = loaded.signatures["serving_default"](examples=tf.constant(examples))
    return {name: value.numpy() for name, value in answer.items()}


def test_the_package_is_installed_and_not_the_checkout(python: Path, tmp_path: Path):
    code = "import pipeline, modules, schemas, tfx; print(pipeline.__file__)"
    finished = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(finished.stdout.strip()).is_relative_to(python.parents[1])


def _span(source: Path, folder: Path) -> Path:
    """Makes a folder the only span of another."""
    folder.mkdir()
    shutil.copytree(source, folder / "span-1")
    return folder


def test_the_compiled_pipeline_pushes_what_a_local_run_pushes(first_runs: FirstRuns, python: Path, tmp_path: Path):
    local = first_runs.first.config
    data = _span(Path(local.data.directory), tmp_path / "data")
    # What is said at submission counts, not what was compiled.
    file = _compile(local, tmp_path / "cluster", "/nowhere/span-{SPAN}", "kubeflow.if_new=true")
    compiled = CompiledPipeline.load(file, python, tmp_path / "steps")
    parameters = {"data_directory": str(data)}
    compiled.run(parameters)

    surroundings = {"tfx-dag", "LookForNewData", "run-if-new", "RecordNewestData", "ReportFinalState"}
    assert compiled.states == dict.fromkeys({*COMPONENTS, *surroundings}, "SUCCEEDED")
    assert compiled.outputs[RESOLVER]["model"][0]["metadata"]["version"] == ""
    (examples,) = compiled.outputs["InteractionExampleGen"]["examples"]
    assert (
        examples["metadata"]["num_examples_train"] + examples["metadata"]["num_examples_eval"]
        < SMALL_WORLD.interactions
    )
    (report,) = (tmp_path / "cluster" / "final_states").iterdir()
    assert json.loads(report.read_text())["state"] == "SUCCEEDED"

    (pushed,) = (tmp_path / "cluster" / "serving" / local.serving.model_name).iterdir()
    (mine,) = (Path(local.serving_directory) / version for version in first_runs.first.new_versions)
    queries = read_test_examples(local, EXAMPLES)
    theirs, ours = _recommend(pushed, queries), _recommend(mine, queries)
    np.testing.assert_array_equal(theirs["item_ids"], ours["item_ids"])
    np.testing.assert_array_equal(theirs["scores"], ours["scores"])

    # The next run compares its model with the one that this run has pushed, here the same.
    compiled.run_again([RESOLVER, "RecommenderEvaluator"], parameters, tmp_path / "second")
    assert compiled.outputs[RESOLVER]["model"][0]["metadata"]["version"] == pushed.name
    verdict = json.loads((tmp_path / "second" / "RecommenderEvaluator" / "evaluation" / VERDICT_FILE).read_text())
    assert verdict["slices"]["overall"]["ndcg@10"]["change"] == 0

    _check_that_runs_without_new_data_are_skipped(file, python, tmp_path, data)


def _check_that_runs_without_new_data_are_skipped(file: Path, python: Path, tmp_path: Path, data: Path) -> None:
    """Runs the pipeline again on the same data, and on other data, of which ingestion can make nothing."""
    parameters = {"data_directory": str(data)}
    again = CompiledPipeline.load(file, python, tmp_path / "again")
    again.run(parameters)
    assert again.states == {
        "LookForNewData": "SUCCEEDED",
        "run-if-new": "SKIPPED",
        "tfx-dag": "SUCCEEDED",
        "ReportFinalState": "SUCCEEDED",
    }

    (data / "span-1" / "items.tsv").write_text("item_id\n")
    changed = CompiledPipeline.load(file, python, tmp_path / "changed")
    with pytest.raises(StepError, match="CatalogueExampleGen"):
        changed.run(parameters)
    assert changed.states["LookForNewData"] == "SUCCEEDED"
    # A run that failed has learned nothing: the next one tries again.
    with pytest.raises(StepError, match="CatalogueExampleGen"):
        CompiledPipeline.load(file, python, tmp_path / "once_more").run(parameters)


def test_a_failed_step_ends_the_run_and_is_reported(first_runs: FirstRuns, python: Path, tmp_path: Path):
    compiled = CompiledPipeline.load(
        _compile(first_runs.first.config, tmp_path / "cluster", "/nowhere"), python, tmp_path / "steps"
    )
    with pytest.raises(StepError, match="CatalogueExampleGen") as failure:
        compiled.run({})
    assert "/nowhere" in failure.value.log
    assert compiled.states["tfx-dag"] == "FAILED"
    assert "RecommenderTrainer" not in compiled.states
    (report,) = (tmp_path / "cluster" / "final_states").iterdir()
    written = json.loads(report.read_text())
    assert (written["state"], written["error"], written["run"]) == ("FAILED", "a step failed", "jobs/run-1")
