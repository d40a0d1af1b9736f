"""Transform: what is made of a file is in a file of its own, in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx.components.util import examples_utils
from tfx.proto import example_gen_pb2
from tfx.proto.transform_pb2 import SplitsConfig
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.channel_utils import as_channel
from tfx.utils import io_utils

from pipeline.components.example_shards import ShardFile, publish_shard
from pipeline.components.recommender_transform import RecommenderTransform

SCHEMA = text_format.Parse(
    'feature { name: "word" type: BYTES } feature { name: "place" type: INT }', schema_pb2.Schema()
)
FILES = [[b"c", b"a", b"a"], [b"b"], [b"a", b"c", b"c", b"c", b"unknown"]]


def preprocessing_fn(inputs: dict[str, Any]) -> dict[str, Any]:
    """Passes the place on, and counts words."""
    return {"place": inputs["place"], "word_id": tft.compute_and_apply_vocabulary(inputs["word"])}


def _write_examples(uri: Path) -> standard_artifacts.Examples:
    for number, words in enumerate(FILES):
        with ShardFile(f"{uri}/Split-train") as file:
            for place, word in enumerate(words):
                example = tf.train.Example()
                example.features.feature["word"].bytes_list.value.append(word)
                example.features.feature["place"].int64_list.value.append(100 * number + place)
                file.write(example.SerializeToString())
        publish_shard(file.path, f"{uri}/Split-train/data_tfrecord", number, len(FILES))
    (uri / "Split-eval").mkdir()
    examples = standard_artifacts.Examples()
    examples.uri, examples.split_names = str(uri), artifact_utils.encode_split_names(["train", "eval"])
    examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
    examples_utils.set_file_format(examples, "tfrecords_gzip")
    return examples


@pytest.fixture(scope="module", params=[True, False], ids=["without_statistics", "with_statistics"])
def transformed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transform")
    schema = standard_artifacts.Schema()
    schema.uri = str(folder / "schema")
    io_utils.write_pbtxt_file(f"{schema.uri}/schema.pbtxt", SCHEMA)
    examples = _write_examples(folder / "examples")
    component = RecommenderTransform(
        examples=as_channel([examples]),
        schema=as_channel([schema]),
        preprocessing_fn=f"{__name__}.preprocessing_fn",
        splits_config=SplitsConfig(analyze=["train"], transform=["train", "eval"]),
        disable_statistics=request.param,
        disable_analyzer_cache=True,
    )
    outputs = {}
    for name, channel in component.outputs.items():
        outputs[name] = [channel.type()]
        outputs[name][0].uri = str(folder / name)
        Path(outputs[name][0].uri).mkdir()
    component.executor_spec.executor_class().Do(
        {"examples": [examples], "schema": [schema]}, outputs, dict(component.exec_properties)
    )
    return folder


def _read(path: Path) -> list[tuple[int, int]]:
    features = [
        tf.train.Example.FromString(record).features.feature
        for record in tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator()
    ]
    assert all(set(example) == {"place", "word_id"} for example in features)
    return [(example["place"].int64_list.value[0], example["word_id"].int64_list.value[0]) for example in features]


def test_a_file_is_made_of_each_file_in_the_same_order(transformed: Path):
    files = sorted((transformed / "transformed_examples" / "Split-train").iterdir())

    assert [file.name for file in files] == [f"transformed_examples-0000{at}-of-00003.gz" for at in range(3)]
    ids = {b"c": 0, b"a": 1, b"unknown": 2, b"b": 3}  # By frequency, then, of equal ones, the last in the alphabet.
    expected = [[(100 * at + place, ids[word]) for place, word in enumerate(words)] for at, words in enumerate(FILES)]
    assert [_read(file) for file in files] == expected


def test_a_split_without_examples_has_an_empty_file(transformed: Path):
    (file,) = (transformed / "transformed_examples" / "Split-eval").iterdir()
    assert file.name == "transformed_examples-00000-of-00001.gz"
    assert _read(file) == []


def test_nothing_is_left_aside(transformed: Path):
    assert {path.name for path in (transformed / "transformed_examples").iterdir()} == {"Split-train", "Split-eval"}


def test_statistics_if_there_are_any_are_of_the_features_alone(transformed: Path):
    features = {}
    for when in ("pre", "post"):
        for file in (transformed / f"{when}_transform_stats").glob("*"):
            statistics = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes()).datasets[0]
            assert statistics.num_examples == sum(map(len, FILES))
            features[when] = {feature.path.step[0] for feature in statistics.features}
    assert features in ({}, {"pre": {"word", "place"}, "post": {"word_id", "place"}})
    assert ("pre_transform_stats" in {path.name for path in transformed.iterdir()}) == bool(features)
