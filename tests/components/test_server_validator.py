"""ServerValidator: blesses a good model, says what is wrong with a bad one, and compiles for Kubeflow.

Each model here costs the start of a server process; all that can be wrong with answers is in `test_answers`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tfx import types
from tfx import v1 as tfx
from tfx.components.util import model_utils
from tfx.types import artifact_utils, standard_artifacts

from pipeline.components.pusher import AtomicPusher
from pipeline.components.server_validator import ServerValidator, ServerValidatorExecutor
from tests.serving.saved_models import export_recommender, truncate

Exporter = Callable[[Path], object]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> types.Artifact:
    """Six labelled examples of users with and without a history, in two shards of the split `test`."""
    artifact = standard_artifacts.Examples()
    artifact.uri = str(tmp_path_factory.mktemp("examples"))
    artifact.split_names = artifact_utils.encode_split_names(["train", "test"])
    folder = Path(artifact.uri, "Split-test")
    folder.mkdir()
    for shard in range(2):
        file = folder / f"data_tfrecord-0000{shard}-of-00002.gz"
        with tf.io.TFRecordWriter(str(file), "GZIP") as writer:
            for number in range(shard, 6, 2):
                example = tf.train.Example()
                features = example.features.feature
                features["user_id"].bytes_list.value.append(b"u%d" % number)
                features["rating"].float_list.value.append(4.0)
                if number:
                    features["history_item_ids"].bytes_list.value.extend(b"i%d" % item for item in range(number))
                    features["history_timestamps"].int64_list.value.extend(range(number))
                    features["history_rating"].float_list.value.extend([3.0] * number)
                    features["seen_item_ids"].bytes_list.value.append(b"i9")
                writer.write(example.SerializeToString())
    return artifact


def validate(
    export: Exporter,
    examples: types.Artifact,
    folder: Path,
    split: str = "test",
    timeout_seconds: float = 60.0,
    latency_budget_milliseconds: float = 5000.0,
) -> types.Artifact:
    """Exports a model, runs the executor on it and returns the blessing."""
    model, blessing = standard_artifacts.Model(), standard_artifacts.InfraBlessing()
    model.uri, blessing.uri = str(folder / "model"), str(folder / "blessing")
    (folder / "model").mkdir()
    export(folder / "model" / "Format-Serving")
    parameters = {
        "model_name": "films",
        "split": split,
        "num_requests": 4,
        "timeout_seconds": timeout_seconds,
        "largest_batch": 16,
        "latency_budget_milliseconds": latency_budget_milliseconds,
    }
    ServerValidatorExecutor().Do({"model": [model], "examples": [examples]}, {"blessing": [blessing]}, parameters)
    return blessing


def test_blesses_a_good_model(tmp_path: Path, examples: types.Artifact):
    blessing = validate(export_recommender, examples, tmp_path)

    assert blessing.get_string_custom_property("reason") == ""
    assert blessing.get_int_custom_property("blessed") == 1
    assert model_utils.is_infra_validated(blessing)
    assert [file.name for file in Path(blessing.uri).iterdir()] == ["INFRA_BLESSED"]


@pytest.mark.parametrize(
    ("export", "reason"),
    [
        pytest.param(
            lambda path: export_recommender(path, fault="recommends seen titles"),
            "serving_default, example 2 of 4: 'i0' is already seen",
            id="seen titles",
        ),
        pytest.param(
            lambda path: truncate(export_recommender(path)),
            "the server could not load the model: Can't parse ",
            id="corrupt file",
        ),
    ],
)
def test_refuses_a_bad_model_with_a_reason(export: Exporter, reason: str, tmp_path: Path, examples: types.Artifact):
    blessing = validate(export, examples, tmp_path)

    assert blessing.get_string_custom_property("reason").startswith(reason)
    assert blessing.get_int_custom_property("blessed") == 0
    assert not model_utils.is_infra_validated(blessing)
    assert [file.name for file in Path(blessing.uri).iterdir()] == ["INFRA_NOT_BLESSED"]


def test_refuses_a_model_that_is_not_served_in_time(tmp_path: Path, examples: types.Artifact):
    blessing = validate(export_recommender, examples, tmp_path, timeout_seconds=0.1)
    assert "has not started within 0.1 s" in blessing.get_string_custom_property("reason")


def test_refuses_a_model_that_answers_too_slowly(tmp_path: Path, examples: types.Artifact):
    blessing = validate(export_recommender, examples, tmp_path, latency_budget_milliseconds=0.001)
    reason = blessing.get_string_custom_property("reason")
    assert reason.startswith("serving_default: 95 % of 100 single requests must be answered within 0.001 ms each; ")
    assert not model_utils.is_infra_validated(blessing)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_needs_examples(split: str, tmp_path: Path, examples: types.Artifact):
    Path(examples.uri, "Split-train").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=split):
        validate(export_recommender, examples, tmp_path, split=split)


@pytest.mark.parametrize(
    "parameter", ["num_requests", "timeout_seconds", "largest_batch", "latency_budget_milliseconds"]
)
def test_refuses_parameters_that_make_no_sense(parameter: str):
    channels = {
        "model": types.Channel(type=standard_artifacts.Model),
        "examples": types.Channel(type=standard_artifacts.Examples),
    }
    arguments: dict[str, Any] = {**channels, "model_name": "films", parameter: 0}
    with pytest.raises(ValueError, match=f"{parameter} must be positive; received 0"):
        ServerValidator(**arguments)


def test_compiles_for_kubeflow_with_the_pusher_behind_it(tmp_path: Path):
    kubeflow = pytest.importorskip("tfx.orchestration.kubeflow.v2.kubeflow_v2_dag_runner", exc_type=ImportError)
    model = tfx.dsl.Importer(source_uri="m", artifact_type=standard_artifacts.Model).with_id("model")
    data = tfx.dsl.Importer(
        source_uri="e", artifact_type=standard_artifacts.Examples, properties={"split_names": '["test"]'}
    ).with_id("data")
    validator = ServerValidator(model.outputs["result"], data.outputs["result"], "films", timeout_seconds=30)
    pusher = AtomicPusher(
        model=model.outputs["result"],
        infra_blessing=validator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory="gs://bucket/serving/films")
        ),
    )
    pipeline = tfx.dsl.Pipeline("films", "gs://bucket/root", components=[model, data, validator, pusher])
    file = tmp_path / "pipeline.json"
    config = kubeflow.KubeflowV2DagRunnerConfig(default_image="image")
    kubeflow.KubeflowV2DagRunner(config, output_filename=str(file)).run(pipeline)

    tasks = json.loads(file.read_text())["pipelineSpec"]["root"]["dag"]["tasks"]
    parameters = tasks["ServerValidator"]["inputs"]["parameters"]
    assert {
        name: next(iter(value["runtimeValue"]["constantValue"].values())) for name, value in parameters.items()
    } == {
        "model_name": "films",
        "split": "test",
        "num_requests": "16",
        "timeout_seconds": 30,
        "largest_batch": "64",
        "latency_budget_milliseconds": 250,
    }
    assert tasks["AtomicPusher"]["inputs"]["artifacts"]["infra_blessing"]["taskOutputArtifact"] == {
        "producerTask": "ServerValidator",
        "outputArtifactKey": "blessing",
    }
