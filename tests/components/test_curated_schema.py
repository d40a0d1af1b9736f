"""CuratedSchema: what it writes, what it refuses, and that it compiles for Kubeflow."""

import json
import re
from pathlib import Path

import pytest
from tfx import v1 as tfx
from tfx.types import standard_artifacts
from tfx.utils import io_utils

from modules.features import SchemaError, catalogue_schema, parse_schema
from pipeline.components.anomaly_gate import AnomalyGate
from pipeline.components.curated_schema import CuratedSchema, CuratedSchemaExecutor
from pipeline.config import load_config

SCHEMA_TEXT = load_config("movielens-100k").read_schema_text()


def execute(schema_text: str, folder: Path) -> dict:
    """Runs the executor; returns the two schemas as TFX's own reader reads them."""
    outputs = {}
    for key in ("schema", "catalogue_schema"):
        artifact = standard_artifacts.Schema()
        artifact.uri = str(folder / key)
        outputs[key] = [artifact]
    CuratedSchemaExecutor().Do({}, outputs, {"schema_text": schema_text})
    reader = io_utils.SchemaReader()
    return {key: reader.read(io_utils.get_only_uri_in_dir(artifacts[0].uri)) for key, artifacts in outputs.items()}


def test_writes_the_schema_and_the_catalogues_part_of_it(tmp_path):
    schemas = execute(SCHEMA_TEXT, tmp_path)

    assert schemas["schema"] == parse_schema(SCHEMA_TEXT)
    assert schemas["catalogue_schema"] == catalogue_schema(parse_schema(SCHEMA_TEXT))
    names = [feature.name for feature in schemas["catalogue_schema"].feature]
    assert names == ["item_id", "title", "release_year", "genres"]
    assert (tmp_path / "schema" / "schema.pbtxt").is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('tag: "user_id"', 'tag: "user"'), "exactly one feature must be tagged 'user_id'; received []"),
        (('tag: "multi_hot"', 'tag: "multihot"'), "feature 'genres' has unknown tags ['multihot']"),
        (("type: BYTES", "type: TEXT"), "schema_text is not a TFMD schema in text format: 9:9"),
    ],
)
def test_a_bad_schema_is_refused_when_defined_and_when_executed(change, message, tmp_path):
    bad = SCHEMA_TEXT.replace(*change)

    with pytest.raises(SchemaError) as defined:
        CuratedSchema(schema_text=bad)
    with pytest.raises(SchemaError) as executed:
        execute(bad, tmp_path)

    assert message in str(defined.value)
    assert str(defined.value) == str(executed.value)


def test_schema_and_gate_compile_for_kubeflow(tmp_path):
    pytest.importorskip("kfp")
    schema = CuratedSchema(schema_text=SCHEMA_TEXT)
    nodes, anomalies = [schema], {}
    for table, key in (("interaction", "schema"), ("catalogue", "catalogue_schema")):
        examples = tfx.components.ImportExampleGen(input_base=f"/data/{table}").with_id(f"{table}_examples")
        statistics = tfx.components.StatisticsGen(examples=examples.outputs["examples"]).with_id(f"{table}_statistics")
        validator = tfx.components.ExampleValidator(
            statistics=statistics.outputs["statistics"], schema=schema.outputs[key]
        ).with_id(f"{table}_validator")
        nodes += [examples, statistics, validator]
        anomalies[f"{table}_anomalies"] = validator.outputs["anomalies"]
    gate = AnomalyGate(**anomalies)
    compiled = tmp_path / "pipeline.json"
    kubeflow = tfx.orchestration.experimental
    kubeflow.KubeflowV2DagRunner(
        config=kubeflow.KubeflowV2DagRunnerConfig(default_image="registry/marquee:1"),
        output_dir=str(tmp_path),
        output_filename=compiled.name,
    ).run(tfx.dsl.Pipeline(pipeline_name="gated", pipeline_root="/root", components=[*nodes, gate]))

    specification = json.loads(compiled.read_text())["pipelineSpec"]
    tasks = specification["root"]["dag"]["tasks"]
    assert tasks["CuratedSchema"]["inputs"]["parameters"]["schema_text"] == {
        "runtimeValue": {"constantValue": {"stringValue": SCHEMA_TEXT}}
    }
    assert set(tasks["AnomalyGate"]["dependentTasks"]) == {"interaction_validator", "catalogue_validator"}
    titles = set(re.findall(r"title: (\S+)", json.dumps(specification["components"]).replace("\\n", "\n")))
    assert titles == {f"tfx.{kind}" for kind in ("Examples", "ExampleStatistics", "ExampleAnomalies", "Schema", "File")}
    commands = json.dumps(specification["deploymentSpec"])
    assert "pipeline.components.curated_schema.CuratedSchemaExecutor" in commands
    assert "pipeline.components.anomaly_gate.AnomalyGateExecutor" in commands


def test_schema_and_gate_run_in_kubeflows_container(tmp_path):
    pytest.importorskip("kfp")
    from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_run_executor as entry_point

    def run(executor: str, inputs: dict, outputs: dict[str, str], parameters: dict) -> dict:
        """Runs the command that a step's container runs; returns what it says of its output artifacts."""
        folder = tmp_path / executor.rpartition(".")[2]
        invocation = {
            "inputs": {"artifacts": inputs, "parameters": {k: {"stringValue": v} for k, v in parameters.items()}},
            "outputs": {
                "artifacts": {key: artifact(kind, folder / key) for key, kind in outputs.items()},
                "outputFile": str(folder / "output.json"),
            },
        }
        flags = [f"--executor_class_path={executor}", f"--json_serialized_invocation_args={json.dumps(invocation)}"]
        entry_point.main(entry_point._parse_flags(["run", *flags]))
        return json.loads((folder / "output.json").read_text())["artifacts"]

    def artifact(kind: str, uri: Path, **properties) -> dict:
        values = {name: {"stringValue": value} for name, value in properties.items()}
        content = {"name": str(uri), "type": {"schemaTitle": f"tfx.{kind}"}, "uri": str(uri), "properties": values}
        return {"artifacts": [content]}

    schemas = run(
        "pipeline.components.curated_schema.CuratedSchemaExecutor",
        {},
        {"schema": "Schema", "catalogue_schema": "Schema"},
        {"schema_text": SCHEMA_TEXT},
    )
    uri = Path(schemas["schema"]["artifacts"][0]["uri"])
    assert parse_schema((uri / "schema.pbtxt").read_text()) == parse_schema(SCHEMA_TEXT)

    anomalies = artifact("ExampleAnomalies", tmp_path / "anomalies", split_names='["train"]')
    (tmp_path / "anomalies" / "Split-train").mkdir(parents=True)
    (tmp_path / "anomalies" / "Split-train" / "SchemaDiff.pb").touch()  # an empty proto: no anomaly
    report = run(
        "pipeline.components.anomaly_gate.AnomalyGateExecutor",
        {"interaction_anomalies": anomalies, "catalogue_anomalies": anomalies},
        {"report": "File"},
        {},
    )
    (content,) = report["report"]["artifacts"]
    assert content["metadata"]["summary"] == "Clean: interactions (train); catalogue (train)."
    assert json.loads((Path(content["uri"]) / "report.json").read_text())["tables"]["catalogue"] == {"train": []}
