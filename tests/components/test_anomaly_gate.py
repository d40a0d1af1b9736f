"""AnomalyGate: run behind real ExampleValidators, its effect asserted on ML Metadata; and its wording."""

import json
from pathlib import Path

import ml_metadata
import pyarrow as pa
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import v1 as tfx
from tfx.types import standard_artifacts
from tfx.types.experimental import simple_artifacts

from modules.features import parse_schema, sub_schema
from pipeline.components.anomaly_gate import AnomalyGate, AnomalyGateExecutor
from pipeline.components.anomaly_wording import describe_anomalies
from pipeline.components.curated_schema import CuratedSchema

COMPLETE, FAILED = ml_metadata.proto.Execution.COMPLETE, ml_metadata.proto.Execution.FAILED

SCHEMA_TEXT = """
feature { name: "user_id" type: BYTES presence { min_fraction: 1 min_count: 1 } value_count { min: 1 max: 1 }
          annotation { tag: "user_id" } }
feature { name: "item_id" type: BYTES presence { min_fraction: 1 min_count: 1 } value_count { min: 1 max: 1 }
          annotation { tag: "item_id" } }
feature { name: "timestamp" type: INT presence { min_fraction: 1 min_count: 1 } value_count { min: 1 max: 1 }
          annotation { tag: "timestamp" } }
feature { name: "age" type: INT int_domain { min: 1 max: 120 } presence { min_fraction: 0.5 min_count: 1 }
          value_count { min: 1 max: 1 } annotation { tag: "user" tag: "continuous" } }
feature { name: "gender" type: BYTES domain: "gender" presence { min_fraction: 0.5 } value_count { min: 1 max: 1 }
          annotation { tag: "user" tag: "categorical" } }
feature { name: "score" type: FLOAT float_domain { min: 0 max: 1 disallow_nan: true disallow_inf: true }
          presence { min_fraction: 0 } value_count { min: 1 max: 1 } annotation { tag: "context" } }
feature { name: "title" type: BYTES presence { min_fraction: 0.99 min_count: 1 } value_count { min: 1 max: 1 }
          annotation { tag: "item" tag: "text" } }
feature { name: "history_item_ids" type: BYTES presence { min_fraction: 0 } value_count { min: 1 max: 2 }
          annotation { tag: "history" tag: "item_id" } }
feature { name: "seen_item_ids" type: BYTES presence { min_fraction: 0 } value_count { min: 1 }
          annotation { tag: "seen" } }
string_domain { name: "gender" value: "F" value: "M" }
"""
INTERACTION = {"user_id": [b"u"], "item_id": [b"i"], "timestamp": [1], "age": [30], "gender": [b"F"], "title": [b"t"]}
ENTRY = {"item_id": [b"i"], "title": [b"t"]}
ONE_OUTPUT_SPLIT = tfx.proto.Output(
    split_config=tfx.proto.SplitConfig(splits=[tfx.proto.SplitConfig.Split(name="all", hash_buckets=1)])
)


@tfx.dsl.components.component
def Downstream(marker: tfx.dsl.components.OutputArtifact[standard_artifacts.Model]) -> None:
    """A node ordered after the gate."""
    Path(marker.uri).joinpath("ran").touch()


def write_examples(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            example = tf.train.Example()
            for name, values in row.items():
                lists = {bytes: "bytes_list", int: "int64_list", float: "float_list"}
                getattr(example.features.feature[name], lists[type(values[0])]).value.extend(values)
            writer.write(example.SerializeToString())


def run_gated_pipeline(folder: Path, interactions: dict[str, list[dict]], catalogue: list[dict]) -> dict[str, list]:
    """Runs examples, statistics, schema, validators, the gate and a node after it.

    Returns:
      The pipeline's executions in ML Metadata by node, and the artifacts of the gate under `report`.
    """
    schema = CuratedSchema(schema_text=SCHEMA_TEXT)
    nodes, anomalies = [schema], {}
    tables = {"interaction": (interactions, "schema"), "catalogue": ({"all": catalogue}, "catalogue_schema")}
    for table, (splits, key) in tables.items():
        for split, rows in splits.items():
            write_examples(folder / table / split / "rows.tfrecord", rows)
        examples = tfx.components.ImportExampleGen(
            input_base=str(folder / table),
            input_config=tfx.proto.Input(
                splits=[tfx.proto.Input.Split(name=split, pattern=f"{split}/*") for split in splits]
            ),
            output_config=None if len(splits) > 1 else ONE_OUTPUT_SPLIT,
        ).with_id(f"{table}_examples")
        statistics = tfx.components.StatisticsGen(examples=examples.outputs["examples"]).with_id(f"{table}_statistics")
        validator = tfx.components.ExampleValidator(
            statistics=statistics.outputs["statistics"], schema=schema.outputs[key]
        ).with_id(f"{table}_validator")
        nodes += [examples, statistics, validator]
        anomalies[f"{table}_anomalies"] = validator.outputs["anomalies"]
    gate = AnomalyGate(**anomalies)
    downstream = Downstream()
    downstream.add_upstream_node(gate)
    metadata = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(folder / "metadata.sqlite"))
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="gated",
        pipeline_root=str(folder / "artifacts"),
        components=[*nodes, gate, downstream],
        metadata_connection_config=metadata,
        beam_pipeline_args=["--direct_running_mode=in_memory", "--direct_num_workers=1"],
    )
    error = None
    try:
        tfx.orchestration.LocalDagRunner().run(pipeline)
    except RuntimeError as caught:
        error = caught
    store = ml_metadata.MetadataStore(metadata)
    states: dict[str, list] = {}
    for context in store.get_contexts_by_type("node"):
        states[context.name.removeprefix("gated.")] = [
            execution.last_known_state for execution in store.get_executions_by_context(context.id)
        ]
    states["reports"] = store.get_artifacts_by_type(simple_artifacts.File.TYPE_NAME) if error is None else []
    states["error"] = [error]
    return states


def test_clean_data_pass_and_are_reported(tmp_path):
    history = {"history_item_ids": [b"a", b"b"], "score": [0.5]}
    states = run_gated_pipeline(
        tmp_path, {"train": [INTERACTION, INTERACTION], "test": [INTERACTION, {**INTERACTION, **history}]}, [ENTRY]
    )

    assert states["error"] == [None]
    assert states["AnomalyGate"] == [COMPLETE]
    assert states["Downstream"] == [COMPLETE]
    (report,) = states["reports"]
    summary = "Clean: interactions (train, test); catalogue (all)."
    assert report.custom_properties["summary"].string_value == summary
    document = json.loads((Path(report.uri) / "report.json").read_text())
    assert document["summary"] == summary
    assert document["tables"]["catalogue"] == {"all": ["item_id", "title"]}
    assert document["tables"]["interactions"]["test"] == document["tables"]["interactions"]["train"]


def test_bad_data_stop_the_run_with_a_sentence_per_column(tmp_path):
    no_title = {name: values for name, values in INTERACTION.items() if name != "title"}
    bad = {**no_title, "age": [b"thirty"], "device": [b"tv"], "history_item_ids": [b"a", b"b", b"c"]}
    states = run_gated_pipeline(
        tmp_path,
        {"train": [bad, bad], "test": [{**INTERACTION, "age": [b"40"], "gender": [b"X"]}]},
        [{"item_id": [b"i"]}, {"item_id": [b"j"]}],
    )

    assert str(states["error"][0]).splitlines()[1:] == [
        "  interactions: column 'age' should be INT but is BYTES (train, test); holds text that is no whole number, "
        'such as "thirty" (train).',
        "  interactions (train): column 'device' is in the data but not in the schema.",
        "  interactions (test): column 'gender' has unexpected values: 'X' (~100%); expected one of 'F', 'M'.",
        "  interactions (train): column 'history_item_ids' holds too many values in some examples; expected at most 2.",
        "  interactions (train): column 'title' is missing from every example; expected in at least 99 % of them.",
        "  catalogue (all): column 'title' is missing from every example; expected in at least 99 % of them.",
    ]
    assert states["interaction_validator"] == [COMPLETE]
    assert states["catalogue_validator"] == [COMPLETE]
    assert states["AnomalyGate"] == [FAILED]
    assert states.get("Downstream", []) == []
    assert not list(tmp_path.glob("artifacts/Downstream/marker/*/ran"))


def test_an_artifact_without_a_split_is_not_clean(tmp_path):
    artifact = standard_artifacts.ExampleAnomalies()
    artifact.uri, artifact.split_names = str(tmp_path), "[]"
    inputs = {"interaction_anomalies": [artifact], "catalogue_anomalies": [artifact]}

    with pytest.raises(RuntimeError, match=r"interactions: no split was validated; expected at least one\."):
        AnomalyGateExecutor().Do(inputs, {"report": [simple_artifacts.File()]}, {})


REQUIRED = {name: pa.array([values] * 3) for name, values in INTERACTION.items()}


@pytest.mark.parametrize(
    ("columns", "sentences"),
    [
        ({}, []),
        ({"history_item_ids": pa.array([None, [b"a"], [b"a", b"b"]])}, []),
        ({"history_item_ids": pa.nulls(3)}, []),
        (
            {"history_item_ids": pa.array([[], [b"a"], [b"a", b"b"]])},
            ["column 'history_item_ids' holds too few values in some examples; expected at least 1"],
        ),
        (
            {"age": pa.array([[0], [121], [30]])},
            ["column 'age' has values down to 0; expected 1 to 120; has values up to 121; expected 1 to 120"],
        ),
        ({"age": pa.array([[1.5], [2.0], [3.0]])}, ["column 'age' should be INT but is FLOAT"]),
        ({"gender": pa.array([[1], [2], [3]])}, ["column 'gender' should be BYTES but is INT"]),
        (
            {"gender": pa.array([[b"F, M (x)"], [b"F"], [b""]])},
            ["column 'gender' has unexpected values: '' (~33%), 'F, M (x)' (~33%); expected one of 'F', 'M'"],
        ),
        ({"gender": pa.array([[b"\xff"], [b"F"], [b"M"]])}, ["column 'gender' holds bytes that are not UTF-8 text"]),
        (
            {"gender": pa.array([None, None, [b"M"]])},
            ["column 'gender' is present in only 33.33 % of the examples; expected in at least 50 % of them"],
        ),
        (
            {"user_id": pa.array([None, [b"u"], [b"v"]])},
            ["column 'user_id' is present in only 66.67 % of the examples; expected in every example"],
        ),
        (
            {"title": pa.nulls(3)},
            ["column 'title' is missing from every example; expected in at least 99 % of them"],
        ),
        (
            {"score": pa.array([[float("nan")], [-2.0], [1.5]])},
            [
                "column 'score' has NaN values; expected numbers; has values down to -2; expected 0.0 to 1.0; "
                "has values up to 1.5; expected 0.0 to 1.0"
            ],
        ),
        (
            {"score": pa.array([[b"x"], [b"1"], [b"2"]])},
            ["column 'score' should be FLOAT but is BYTES; holds text that is no number, such as \"x\""],
        ),
    ],
)
def test_wording_of_what_data_validation_finds(columns, sentences):
    table = {**REQUIRED, **columns}
    statistics = stats_impl.generate_statistics_in_memory(
        pa.RecordBatch.from_arrays(list(table.values()), list(table)), tfdv.StatsOptions()
    )
    anomalies = tfdv.validate_statistics(statistics, parse_schema(SCHEMA_TEXT))

    assert describe_anomalies("interactions", {"train": anomalies}) == [
        f"interactions (train): {sentence}." for sentence in sentences
    ]


def test_wording_of_drift():
    schema = sub_schema(parse_schema(SCHEMA_TEXT), ["user_id", "gender"])
    (gender,) = (feature for feature in schema.feature if feature.name == "gender")
    gender.drift_comparator.infinity_norm.threshold = 0.1
    now, before = (
        stats_impl.generate_statistics_in_memory(
            pa.RecordBatch.from_arrays([pa.array([[b"u"]] * 4), pa.array(genders)], ["user_id", "gender"]),
            tfdv.StatsOptions(),
        )
        for genders in ([[b"F"], [b"F"], [b"F"], [b"M"]], [[b"F"], [b"M"], [b"M"], [b"M"]])
    )
    anomalies = tfdv.validate_statistics(now, schema, previous_statistics=before)

    assert describe_anomalies("interactions", {"train": anomalies}) == [
        "interactions (train): column 'gender' has changed: the Linfty distance between current and previous is 0.5; "
        "expected at most 0.1."
    ]


def test_wording_of_whole_splits_and_of_reasons_without_a_wording():
    empty = anomalies_pb2.Anomalies(data_missing=True)
    odd = anomalies_pb2.Anomalies()
    odd.dataset_anomaly_info.description = "The dataset has 3 examples, which is fewer than expected."
    odd.anomaly_info["'a.b'"].path.step.append("a.b")
    odd.anomaly_info["'a.b'"].description = "x" * 1000

    sentences = describe_anomalies("catalogue", {"all": empty, "odd": odd})

    assert sentences == [
        f"catalogue (odd): column 'a.b' does not match the schema: {'x' * 300}….",
        "catalogue: the split holds no example; expected at least one (all); does not match the schema: "
        "The dataset has 3 examples, which is fewer than expected (odd).",
    ]
