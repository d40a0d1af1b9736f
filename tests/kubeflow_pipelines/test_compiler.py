"""What the compiler adds to TFX's specification: read back from the files that it writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import FEATURE_GROUPS, PipelineConfig, load_config
from pipeline.config_files import ConfigError

pytest.importorskip("kfp")

from google.protobuf import json_format
from kfp import components
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.kubeflow.compiler import SOURCES, compile_pipeline
from pipeline.pipeline import BASELINE

IMAGE = "registry.example/marquee:1.0"


def _config(*overrides: str) -> PipelineConfig:
    return load_config("synthetic", ["workspace=gs://bucket/marquee", "data.directory=gs://bucket/data", *overrides])


def _compile(folder: Path, *overrides: str) -> dict[str, Any]:
    output = folder / "recommender.yaml"
    compile_pipeline(_config(*overrides), output, IMAGE)
    return next(iter(yaml.safe_load_all(output.read_text(encoding="utf-8"))))


def _tasks(spec: dict[str, Any]) -> dict[str, Any]:
    return (
        spec["components"]["tfx-dag"]["dag"]["tasks"]
        if "tfx-dag" in spec["components"]
        else spec["root"]["dag"]["tasks"]
    )


def _container(spec: dict[str, Any], name: str) -> dict[str, Any]:
    return spec["deploymentSpec"]["executors"][f"{name}_executor"]["container"]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _compile(tmp_path_factory.mktemp("compiled"))


def test_the_sdk_loads_the_file_and_knows_every_field(spec: dict[str, Any], tmp_path: Path):
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    loaded = components.load_component_from_text(yaml.safe_dump(spec))
    assert loaded.component_spec.inputs.keys() == {"data_directory", "max_epochs", "feature_groups"}
    assert spec["schemaVersion"] == "2.1.0"
    assert spec["defaultPipelineRoot"] == "gs://bucket/marquee/artifacts"


def test_parameters_have_the_defaults_of_the_configuration_and_reach_the_steps(spec: dict[str, Any]):
    definitions = spec["root"]["inputDefinitions"]["parameters"]
    assert {name: one["defaultValue"] for name, one in definitions.items()} == {
        "data_directory": "gs://bucket/data",
        "max_epochs": 6,
        "feature_groups": ",".join(FEATURE_GROUPS),
    }
    handed_on = spec["root"]["dag"]["tasks"]["tfx-dag"]["inputs"]["parameters"]
    assert handed_on == {name: {"componentInputParameter": name} for name in definitions}
    assert spec["components"]["tfx-dag"]["inputDefinitions"]["parameters"].keys() == definitions.keys()
    tasks = _tasks(spec)
    for source in SOURCES:
        assert tasks[source]["inputs"]["parameters"]["input_base"] == {"componentInputParameter": "data_directory"}
    given = tasks["RecommenderTrainer"]["inputs"]["parameters"]
    assert {name for name, value in given.items() if "componentInputParameter" in value} == {
        "max_epochs",
        "feature_groups",
    }


def test_the_fixed_part_of_a_directory_with_spans_is_the_parameter(tmp_path: Path):
    spec = _compile(tmp_path, "data.directory=gs://bucket/data/span-{SPAN}/day")
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["data_directory"]["defaultValue"] == "gs://bucket/data"
    assert parameters["newest_span"]["defaultValue"] == -1
    for source in SOURCES:
        task = _tasks(spec)[source]
        assert "span-{SPAN}/day/" in json.dumps(task)
        assert task["inputs"]["parameters"]["newest_span"] == {"componentInputParameter": "newest_span"}


def test_a_window_of_spans_has_the_same_nodes_as_here(tmp_path: Path):
    spec = _compile(tmp_path, "data.directory=gs://bucket/data/span-{SPAN}", "data.window={spans: 3, newest: 7}")
    assert spec["root"]["inputDefinitions"]["parameters"]["newest_span"]["defaultValue"] == 7
    tasks = _tasks(spec)
    assert tasks["AnomalyGate"]["inputs"]["artifacts"]["drift_anomalies"]["taskOutputArtifact"]["producerTask"] == (
        "SpanDrift"
    )
    assert "updated_analyzer_cache" in spec["components"]["Transform"]["outputDefinitions"]["artifacts"]


def test_a_closed_form_model_has_no_epochs(tmp_path: Path):
    spec = _compile(tmp_path, "model.family=ease", "model.settings={}")
    assert spec["root"]["inputDefinitions"]["parameters"].keys() == {"data_directory", "feature_groups"}


def test_the_state_in_which_a_run_ends_is_reported_whatever_happens(spec: dict[str, Any]):
    task = spec["root"]["dag"]["tasks"]["ReportFinalState"]
    assert task["triggerPolicy"]["strategy"] == "ALL_UPSTREAM_TASKS_COMPLETED"
    assert task["inputs"]["parameters"]["final_status"]["taskFinalStatus"]["producerTask"] == "tfx-dag"
    assert task["inputs"]["parameters"]["workspace"]["runtimeValue"]["constant"] == "gs://bucket/marquee"


def test_sources_are_looked_at_each_time_and_other_steps_cached(spec: dict[str, Any]):
    cached = {name for name, task in _tasks(spec).items() if task.get("cachingOptions", {}).get("enableCache")}
    assert {"Transform", "RecommenderTrainer", "RecommenderEvaluator"} <= cached
    assert cached.isdisjoint({*SOURCES, BASELINE})


def test_there_is_no_resolver_since_kubeflow_pipelines_refuses_them(spec: dict[str, Any]):
    assert all(executor.keys() == {"container"} for executor in spec["deploymentSpec"]["executors"].values())
    assert _tasks(spec)[BASELINE]["inputs"]["parameters"]["serving_directory"]["runtimeValue"]["constant"] == (
        "gs://bucket/marquee/serving/recommender"
    )
    evaluated = _tasks(spec)["RecommenderEvaluator"]["inputs"]["artifacts"]["baseline_model"]
    assert evaluated["taskOutputArtifact"]["producerTask"] == BASELINE


def test_steps_are_retried_unless_their_failure_is_a_verdict(spec: dict[str, Any]):
    tasks = _tasks(spec)
    assert tasks["RecommenderTrainer"]["retryPolicy"] == {
        "maxRetryCount": 2,
        "backoffDuration": "60s",
        "backoffFactor": 2.0,
        "backoffMaxDuration": "3600s",
    }
    assert "retryPolicy" not in tasks["AnomalyGate"]


def test_options_are_those_of_the_configuration(tmp_path: Path):
    spec = _compile(
        tmp_path,
        "kubeflow.resources={default: {cpus: 1, memory_gigabytes: 2.5}, "
        "RecommenderTrainer: {cpus: 8, accelerator: nvidia.com/gpu, accelerator_count: 2}}",
        "kubeflow.retries.max_retries=0",
        "kubeflow.cache=false",
        "kubeflow.report_final_state=false",
    )
    assert _container(spec, "Transform")["resources"] == {"cpuLimit": 1.0, "memoryLimit": 2.5}
    assert _container(spec, "RecommenderTrainer")["resources"] == {
        "cpuLimit": 8.0,
        "accelerator": {"type": "nvidia.com/gpu", "count": "2"},
    }
    assert not any("retryPolicy" in task for task in _tasks(spec).values())
    assert all(task["cachingOptions"]["enableCache"] is False for task in _tasks(spec).values())
    assert "ReportFinalState" not in spec["components"] and "tfx-dag" not in spec["components"]
    assert spec["root"]["inputDefinitions"]["parameters"]["max_epochs"]["defaultValue"] == 6


@pytest.mark.parametrize(
    ("override", "field"),
    [("kubeflow.resources={Trainer: {cpus: 1}}", "resources"), ("kubeflow.never_retried=[Gate]", "never_retried")],
)
def test_a_component_that_does_not_exist_is_refused(override: str, field: str, tmp_path: Path):
    with pytest.raises(
        ConfigError, match=rf"kubeflow.{field}: received (Trainer|Gate); expected some of AnomalyGate, "
    ):
        _compile(tmp_path, override)
    assert not list(tmp_path.iterdir())


def test_a_json_file_is_a_job_for_vertex_whose_drivers_look_at_the_sources(tmp_path: Path):
    output = tmp_path / "recommender.json"
    compile_pipeline(_config(), output, IMAGE)
    job = pipeline_spec_pb2.PipelineJob()
    json_format.Parse(output.read_text(encoding="utf-8"), job)
    written = json.loads(output.read_text(encoding="utf-8"))
    assert written["runtimeConfig"]["gcsOutputDirectory"] == "gs://bucket/marquee/artifacts"
    tasks = _tasks(written["pipelineSpec"])
    assert all(tasks[source]["cachingOptions"]["enableCache"] for source in SOURCES)
    assert {f"{BASELINE}-model-resolver", f"{BASELINE}-model-blessing-resolver"} <= tasks.keys()
    assert "preCacheCheck" in _container(written["pipelineSpec"], SOURCES[0])["lifecycle"]


def test_the_same_configuration_gives_the_same_file(tmp_path: Path):
    texts = []
    for name in ("a.yaml", "b.yaml"):
        compile_pipeline(_config(), tmp_path / name, IMAGE)
        texts.append((tmp_path / name).read_text(encoding="utf-8"))
    assert texts[0] == texts[1]
