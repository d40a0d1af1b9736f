"""Runs that are skipped if nothing new has come: the condition as the SDK would write it, and what it looks at.

The SDK reads the annotations of its components' functions, which therefore must not be postponed.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.components.newest_data import RecordNewestData, read_newest_data
from pipeline.components.source_storage import DataQualityError
from pipeline.config import PipelineConfig, load_config
from pipeline.config_files import ConfigError

pytest.importorskip("kfp")

from google.protobuf import json_format
from kfp import compiler, components, dsl
from kfp.pipeline_spec import pipeline_spec_pb2

from pipeline.components.spans import LATEST
from pipeline.kubeflow.compiler import compile_pipeline
from pipeline.kubeflow.look_for_new_data import look, main
from pipeline.kubeflow.only_if_new import DATA_FINGERPRINT, LOOK, RUN
from pipeline.pipeline import RECORD

IMAGE = "registry.example/marquee:1.0"
SPANS = "data.directory=gs://bucket/data/span-{SPAN}"


def _compile(folder: Path, *overrides: str, name: str = "recommender.yaml") -> dict[str, Any]:
    config = load_config("synthetic", ["workspace=gs://bucket/marquee", "kubeflow.if_new=true", *overrides])
    compile_pipeline(config, folder / name, IMAGE)
    return next(iter(yaml.safe_load_all((folder / name).read_text(encoding="utf-8"))))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return _compile(tmp_path_factory.mktemp("compiled"), SPANS)


def test_the_condition_is_what_the_sdk_makes_of_one(spec: dict[str, Any], tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # Of an image that is not used.

        @dsl.component
        def look_for_new_data() -> bool:
            return True

        @dsl.component
        def learn(directory: str) -> None: ...

        @dsl.component
        def report(status: dsl.PipelineTaskFinalStatus) -> None: ...

    @dsl.pipeline(name="reference")
    def reference(directory: str = "data") -> None:
        with dsl.ExitHandler(report()), dsl.If(look_for_new_data().output == True):  # noqa: E712
            learn(directory=directory)

    compiler.Compiler().compile(reference, str(tmp_path / "reference.yaml"))
    theirs = yaml.safe_load((tmp_path / "reference.yaml").read_text(encoding="utf-8"))
    expected = theirs["components"]["comp-exit-handler-1"]["dag"]["tasks"]["condition-2"]
    flag = "pipelinechannel--look-for-new-data-Output"
    ours = spec["components"]["tfx-dag"]["dag"]["tasks"][RUN]

    assert ours["triggerPolicy"]["condition"].replace("new_data", flag) == expected["triggerPolicy"]["condition"]
    assert ours["dependentTasks"] == [LOOK]
    assert len(expected["dependentTasks"]) == 1
    inputs = ours["inputs"]["parameters"]
    assert inputs["new_data"]["taskOutputParameter"] == {"producerTask": LOOK, "outputParameterKey": "new_data"}
    assert inputs["new_data"].keys() == expected["inputs"]["parameters"][flag].keys()
    definitions = spec["components"][RUN]["inputDefinitions"]["parameters"]
    assert definitions["new_data"] == theirs["components"]["comp-condition-2"]["inputDefinitions"]["parameters"][flag]
    assert definitions.keys() == inputs.keys()


def test_the_sdk_loads_it_and_what_a_step_finds_is_not_asked_for(spec: dict[str, Any]):
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    loaded = components.load_component_from_text(yaml.safe_dump(spec))
    assert loaded.component_spec.inputs.keys() == {"data_directory", "newest_span", "max_epochs", "feature_groups"}
    assert DATA_FINGERPRINT not in spec["components"]["tfx-dag"]["inputDefinitions"]["parameters"]


def test_all_steps_stand_behind_the_condition_and_the_last_one_remembers(spec: dict[str, Any]):
    tasks = spec["components"][RUN]["dag"]["tasks"]
    assert spec["components"]["tfx-dag"]["dag"]["tasks"].keys() == {LOOK, RUN}
    assert tasks[RECORD]["dependentTasks"] == ["AtomicPusher"]
    assert tasks[RECORD]["inputs"]["parameters"]["fingerprint"] == {"componentInputParameter": DATA_FINGERPRINT}
    assert [name for name, task in tasks.items() if RECORD in task.get("dependentTasks", [])] == []
    looking = spec["components"]["tfx-dag"]["dag"]["tasks"][LOOK]
    assert looking["cachingOptions"]["enableCache"] is tasks[RECORD]["cachingOptions"]["enableCache"] is False
    assert spec["deploymentSpec"]["executors"][f"{LOOK}_executor"]["container"]["image"] == IMAGE


@pytest.mark.parametrize("name", ["recommender.yaml", "recommender.json"])
def test_without_a_report_of_the_state_the_condition_is_the_pipelines_own(name: str, tmp_path: Path):
    document = _compile(tmp_path, SPANS, "kubeflow.report_final_state=false", name=name)
    spec = document.get("pipelineSpec", document)
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    assert spec["root"]["dag"]["tasks"].keys() == {LOOK, RUN}
    assert DATA_FINGERPRINT not in spec["root"]["inputDefinitions"]["parameters"]


def test_resources_are_those_of_the_configuration(tmp_path: Path):
    spec = _compile(tmp_path, SPANS, "kubeflow.resources={LookForNewData: {cpus: 1}}")
    assert spec["deploymentSpec"]["executors"][f"{LOOK}_executor"]["container"]["resources"] == {"cpuLimit": 1.0}


def test_data_that_do_not_come_in_spans_are_refused(tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"kubeflow.if_new: received true, .*span-\{SPAN\}, received 'gs://bucket/all'"
    ):
        _compile(tmp_path, "data.directory=gs://bucket/all")
    assert not list(tmp_path.iterdir())


def test_without_it_there_is_no_condition(tmp_path: Path):
    spec = _compile(tmp_path, SPANS, "kubeflow.if_new=false")
    assert not {LOOK, RUN, RECORD} & spec["components"].keys()


def _write_span(folder: Path, number: int, rows: str = "rows") -> None:
    span = folder / "data" / f"span-{number}"
    span.mkdir(parents=True, exist_ok=True)
    for name in ("interactions", "items", "users"):
        (span / f"{name}.tsv").write_text(f"{name}\n{rows}\n")


def _config(folder: Path, *overrides: str) -> PipelineConfig:
    return load_config("synthetic", [f"workspace={folder}", "data.directory=/elsewhere/span-{SPAN}", *overrides])


def _look(folder: Path, *overrides: str, newest: int = LATEST) -> tuple[bool, str]:
    config = _config(folder, *overrides)
    found = look(config.data, config.workspace, {"data_directory": str(folder / "data"), "newest_span": newest})
    return json.loads(found["new_data"]), found["fingerprint"]


def _record(workspace: Path, fingerprint: str) -> None:
    executor = RecordNewestData.EXECUTOR_SPEC.executor_class()
    executor.Do({}, {}, {"fingerprint": fingerprint, "workspace": str(workspace)})


def test_data_are_new_until_a_run_that_learned_from_them_ends_well(tmp_path: Path):
    _write_span(tmp_path, 1)
    is_new, fingerprint = _look(tmp_path)
    assert is_new
    assert _look(tmp_path) == (True, fingerprint), "nothing was recorded"

    _record(tmp_path, fingerprint)
    assert _look(tmp_path) == (False, fingerprint)
    recorded = read_newest_data(str(tmp_path))
    assert recorded is not None and recorded.recorded.endswith("+00:00")
    assert {path.name for path in tmp_path.iterdir()} == {"data", "newest_data.json"}

    _write_span(tmp_path, 2)
    is_new, second = _look(tmp_path)
    assert is_new
    assert _look(tmp_path, newest=1) == (False, fingerprint), "span 1 is as it was"
    _record(tmp_path, second)
    assert _look(tmp_path, newest=2) == (False, second)

    _write_span(tmp_path, 2, "other rows")
    assert _look(tmp_path)[0]


def test_every_span_of_the_window_counts_and_those_that_histories_reach_back_to(tmp_path: Path):
    window = "data.window={spans: 2, history_spans: 1}"
    for number in range(1, 5):
        _write_span(tmp_path, number)
    _record(tmp_path, _look(tmp_path, window)[1])
    _write_span(tmp_path, 1, "changed")
    assert not _look(tmp_path, window)[0]
    _write_span(tmp_path, 2, "changed")
    assert _look(tmp_path, window)[0]


def test_no_span_is_an_error_and_so_is_a_record_that_is_none(tmp_path: Path):
    with pytest.raises(DataQualityError, match="no file matches"):
        _look(tmp_path)
    _write_span(tmp_path, 1)
    (tmp_path / "newest_data.json").write_text("{}")
    with pytest.raises(ValueError, match=r"newest_data.json: received '\{\}'; expected JSON with fingerprint"):
        _look(tmp_path)


def test_the_step_writes_its_output_parameters_where_it_is_told_to(tmp_path: Path):
    _write_span(tmp_path, 1)
    config = _config(tmp_path)
    files = {name: tmp_path / "outputs" / name for name in ("new_data", "fingerprint")}
    executor_input = {
        # Numbers come as floats from a protocol buffer's Struct.
        "inputs": {"parameterValues": {"data_directory": str(tmp_path / "data"), "newest_span": -1.0}},
        "outputs": {"parameters": {name: {"outputFile": str(file)} for name, file in files.items()}},
    }
    main(
        [
            *("--data", config.data.model_dump_json()),
            *("--workspace", config.workspace),
            *("--executor_input", json.dumps(executor_input)),
        ]
    )
    assert files["new_data"].read_text() == "true"
    assert files["fingerprint"].read_text() == _look(tmp_path)[1]
