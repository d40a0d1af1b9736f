"""A small log on disk as the Trainer finds it: transform graph, transformed examples, catalogue and schema.

The raw rows are plain Python (feature name to list of values, absent when missing), so that tests can recompute in
NumPy what the graphs compute. The schema is that of the synthetic log with a shorter history and two columns more: a
continuous FLOAT and a categorical INT.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx_bsl.public import tfxio

from modules import features, preprocessing, trainer
from modules.catalogue import Catalogue, read_catalogue
from modules.features import ColumnTable
from modules.model_inputs import build_model_inputs
from modules.models.base import FitContext
from modules.training_data import TrainingData
from pipeline.config import SCHEMA_DIRECTORY
from pipeline.datasets.synthetic import SyntheticWorld

Row = dict[str, list[Any]]

HISTORY_LENGTH = 5
QUANTILE_BUCKETS = 4
TEXT_TOKENS = 3
TOP_K = 10
LIKE_THRESHOLD = 4.0
BANDS = {"age": [25, 45], "minutes": [0.5]}
GROUPS = ("ids", "user", "item", "context", "time_buckets", "continuous_time")
UNICODE_TITLE = "  L’ÉTÉ—हिन्दी:  №5_東京!!"
NEW_TITLES = ("new-1", "new-2")
SPLITS = ("train", "eval", "test")

_MORE_COLUMNS = """
feature { name: "minutes" type: FLOAT annotation { tag: "context" tag: "continuous" } value_count { min: 1 max: 1 } }
feature { name: "channel" type: INT annotation { tag: "context" tag: "categorical" } value_count { min: 1 max: 1 } }
"""


@dataclasses.dataclass(frozen=True)
class SmallWorld:
    """The log and the files made of it.

    Attributes:
      directory: folder of all files.
      schema_text: the raw schema.
      rows: raw rows by split, in order of time.
      titles: raw rows of the catalogue.
    """

    directory: Path
    schema_text: str
    rows: Mapping[str, list[Row]]
    titles: list[Row]

    @functools.cached_property
    def columns(self) -> ColumnTable:
        return ColumnTable.from_schema(features.parse_schema(self.schema_text))

    @functools.cached_property
    def transform(self) -> tft.TFTransformOutput:
        return tft.TFTransformOutput(str(self.directory / "transform"))

    @functools.cached_property
    def data(self) -> TrainingData:
        return TrainingData.from_patterns({name: [self.pattern(name)] for name in ("train", "eval")}, self.transform)

    @functools.cached_property
    def catalogue(self) -> Catalogue:
        return read_catalogue(self.pattern("catalogue"), self.columns, self.transform)

    @functools.cached_property
    def transformed(self) -> Mapping[str, Mapping[str, Any]]:
        """The whole transformed splits, in the order of `rows`; sparse features as `tf.SparseTensor`."""
        return {name: next(iter(self.data.batches(name, 100_000))) for name in ("train", "eval")}

    @functools.cached_property
    def transform_layer(self) -> tf.keras.Model:
        return self.transform.transform_features_layer()

    def pattern(self, name: str) -> str:
        return str(self.directory / name / "*")

    def transform_rows(self, rows: Sequence[Row], names: Iterable[str] | None = None) -> dict[str, Any]:
        """Transforms raw rows as serving does; `names` are the raw features to feed, by default those of queries."""
        raw_spec = self.transform.raw_feature_spec()
        names = [column.name for column in self.columns.query_columns] if names is None else names
        spec = {name: tf.io.VarLenFeature(raw_spec[name].dtype) for name in names}
        return self.transform_layer(tf.io.parse_example([serialize(row) for row in rows], spec))

    def fit_context(self, groups: Sequence[str] = GROUPS, seed: int = 5) -> FitContext:
        inputs = build_model_inputs(self.columns, self.transform, groups, QUANTILE_BUCKETS)
        return FitContext(inputs, seed, str(self.directory / "logs"), lambda line: None, LIKE_THRESHOLD)

    def train(self, name: str, family: str, settings: Mapping[str, Any], **further: Any) -> Path:
        """Runs the Trainer with `fn_args` of these arguments; returns the folder with `model` and `run`."""
        trainer.run_fn(self.fn_args(name, family, settings, **further))
        return self.directory / name

    def fn_args(
        self,
        name: str,
        family: str,
        settings: Mapping[str, Any],
        seed: int = 5,
        base_model: str | None = None,
        **config: Any,
    ) -> FnArgs:
        """Returns what the Trainer is told, with more in `custom_config`."""
        directory = self.directory / name
        return FnArgs(
            train_files=[self.pattern("train")],
            eval_files=[self.pattern("eval")],
            schema_path=str(self.directory / "schema.pbtxt"),
            transform_output=str(self.directory / "transform"),
            transform_graph_path=str(self.directory / "transform"),
            serving_model_dir=str(directory / "model"),
            model_run_dir=str(directory / "run"),
            base_model=base_model,
            custom_config={
                "catalogue_files": self.pattern("catalogue"),
                "model": {"family": family, "settings": dict(settings), "seed": seed, "refit": False},
                "feature_groups": list(GROUPS),
                "quantile_buckets": QUANTILE_BUCKETS,
                "bands": BANDS,
                "top_k": TOP_K,
                "like_threshold": LIKE_THRESHOLD,
                "genre_feature": "genres",
                **config,
            },
        )


def make_small_world(directory: Path) -> SmallWorld:
    """Draws the log, analyses the training split, and writes everything."""
    schema_text = (SCHEMA_DIRECTORY / "synthetic" / "schema.pbtxt").read_text(encoding="utf-8")
    schema_text = schema_text.replace("min: 1 max: 50", f"min: 1 max: {HISTORY_LENGTH}") + _MORE_COLUMNS
    rows, titles = _draw_rows(SyntheticWorld(users=90, items=50, interactions=2400, seed=3, days=60))
    world = SmallWorld(directory, schema_text, rows, titles)
    (directory / "schema.pbtxt").write_text(schema_text, encoding="utf-8")
    _write_records(directory / "catalogue" / "part-0.gz", map(serialize, reversed(titles)))
    _analyse_and_transform(world)
    return world


def serialize(row: Row) -> bytes:
    """Encodes a row as tf.Example."""
    example = tf.train.Example()
    for name, values in row.items():
        feature = example.features.feature[name]
        for value in values:
            if isinstance(value, str | bytes):
                feature.bytes_list.value.append(value.encode() if isinstance(value, str) else value)
            elif isinstance(value, float):
                feature.float_list.value.append(value)
            else:
                feature.int64_list.value.append(int(value))
    return example.SerializeToString()


def query_of(row: Row) -> Row:
    """Returns a row without what only labelled examples have."""
    labelled = ("item_id", "rating", "title", "release_year", "genres")
    return {name: values for name, values in row.items() if name not in labelled}


def _draw_rows(world: SyntheticWorld) -> tuple[dict[str, list[Row]], list[Row]]:
    tables = world.generate()
    people = {user["user_id"]: user for user in _records(tables["users"])}
    titles = {title["item_id"]: _title_row(title) for title in _records(tables["items"])}
    generator = np.random.default_rng(11)
    rows: list[Row] = []
    past: dict[str, list[tuple[str, int, float]]] = {user_id: [] for user_id in people}
    events = _records(tables["interactions"])
    most_popular = max(titles, key=lambda item_id: sum(event["item_id"] == item_id for event in events))
    titles[most_popular]["title"] = [UNICODE_TITLE]
    del titles[min(titles)]["genres"]
    for number, event in enumerate(events):
        person = people[event["user_id"]]
        row: Row = {
            "user_id": [event["user_id"]],
            "timestamp": [event["timestamp"]],
            "rating": [float(event["rating"])],
            "device": [event["device"]],
            "minutes": [float(np.float32(generator.exponential()))],
            "channel": [number % 3 - 1],
            **{name: [person[name]] for name in ("age", "gender", "occupation")},
            **titles[event["item_id"]],
        }
        if number < 2:
            row["minutes"] = [(float("inf"), float("nan"))[number]]
        for every, name in ((17, "age"), (11, "device"), (13, "minutes"), (7, "channel")):
            if number % every == 2:
                del row[name]
        earlier = [entry for entry in past[event["user_id"]] if entry[1] < event["timestamp"]]
        if earlier:
            recent = earlier[-HISTORY_LENGTH - number % 3 :]  # Sometimes longer than the schema allows.
            row["history_item_ids"], row["history_timestamps"], row["history_rating"] = map(
                list, zip(*recent, strict=True)
            )
            row["seen_item_ids"] = list(dict.fromkeys(item_id for item_id, _, _ in earlier))
        past[event["user_id"]].append((event["item_id"], event["timestamp"], float(event["rating"])))
        rows.append(row)
    new: list[Row] = [{"item_id": [item_id], "title": ["Never seen"], "genres": ["Drama"]} for item_id in NEW_TITLES]
    cuts = int(0.8 * len(rows)), int(0.9 * len(rows))
    for row in rows[cuts[0] :: 29]:  # After training somebody discovers a new title.
        row.update({"item_id": new[0]["item_id"], "title": new[0]["title"], "genres": new[0]["genres"]})
        del row["release_year"]
    splits = (rows[: cuts[0]], rows[cuts[0] : cuts[1]], rows[cuts[1] :])
    return dict(zip(SPLITS, splits, strict=True)), [*titles.values(), *new]


def _records(table: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def _title_row(title: Mapping[str, Any]) -> Row:
    return {
        **{name: [title[name]] for name in ("item_id", "title", "release_year")},
        "genres": title["genres"].split("|"),
    }


def _analyse_and_transform(world: SmallWorld) -> None:
    schema = features.parse_schema(world.schema_text)
    settings = {
        "schema_text": world.schema_text,
        "quantile_buckets": QUANTILE_BUCKETS,
        "text_tokens": TEXT_TOKENS,
        "max_vocabulary_size": 1000,
    }
    source = tfxio.TFExampleBeamRecord("inmem", telemetry_descriptors=["test"], schema=schema)
    options = beam.options.pipeline_options.PipelineOptions(["--direct_running_mode=in_memory"])
    with beam.Pipeline(options=options) as pipeline, tft_beam.Context(str(world.directory / "temporary")):
        raw = {
            name: pipeline
            | f"Create[{name}]" >> beam.Create([[serialize(row) for row in world.rows[name]]])
            | f"Flatten[{name}]" >> beam.FlatMap(lambda batch: batch)
            | f"Decode[{name}]" >> source.BeamSource()
            for name in ("train", "eval")
        }
        config = source.TensorAdapterConfig()
        fn = functools.partial(preprocessing.preprocessing_fn, custom_config=settings)
        train, transform_fn = (raw["train"], config) | tft_beam.AnalyzeAndTransformDataset(
            fn, output_record_batches=True
        )
        evaluation = ((raw["eval"], config), transform_fn) | tft_beam.TransformDataset(output_record_batches=True)
        transform_fn | tft_beam.WriteTransformFn(str(world.directory / "transform"))
        raw_metadata = str(world.directory / "transform" / tft.TFTransformOutput.RAW_METADATA_DIR)
        tft.DatasetMetadata(schema) | tft_beam.WriteMetadata(raw_metadata, pipeline)
        for name, (batches, metadata) in (("train", train), ("eval", evaluation)):
            encode = functools.partial(_encode, schema=metadata.schema)
            (
                batches
                | f"Encode[{name}]" >> beam.FlatMap(encode)
                | f"Write[{name}]"
                >> beam.io.WriteToTFRecord(str(world.directory / name / "part"), file_name_suffix=".gz", num_shards=1)
            )


def _encode(element: Any, schema: Any) -> list[bytes]:
    batch, _ = element
    return tfxio.RecordBatchToExamplesEncoder(schema).encode(batch)


def _write_records(path: Path, records: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
        for record in records:
            writer.write(record)
