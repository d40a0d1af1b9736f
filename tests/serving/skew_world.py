"""A synthetic world as examples, and what a run and a server leave of it: what tests of skew are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_metadata
import numpy as np
from ml_metadata.proto import metadata_store_pb2
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tensorflow_serving.config import logging_config_pb2

from modules.features import parse_schema
from pipeline.datasets.synthetic import SyntheticWorld
from pipeline.serving.messages import example_pb2, prediction_log_pb2
from pipeline.serving.requests import HistoryEvent, RequestFormat, build_example
from pipeline.serving.server.request_log import RequestLogger
from pipeline.serving.skew.measure import Tolerances, compare_with_training
from pipeline.serving.skew.report import SkewReport
from pipeline.serving.skew.served import ServedExamples
from pipeline.serving.tensors import make_tensor, string_array

SCHEMA_FILE = Path(__file__).parents[2] / "schemas" / "synthetic" / "schema.pbtxt"
RUN = "2026-01-01T00:00:00.000001"
Change = Callable[[dict[str, Any], dict[str, Any]], None]


class World:
    """Interactions of a synthetic world as examples: with labels and items for training, without for requests."""

    def __init__(self) -> None:
        self.schema = parse_schema(SCHEMA_FILE.read_text(encoding="utf-8"))
        tables = SyntheticWorld(users=250, items=60, interactions=5000, seed=5).generate()
        self._log = tables["interactions"]
        self._people = {
            user: {name: tables["users"][name][row] for name in ("user_id", "age", "gender", "occupation")}
            for row, user in enumerate(tables["users"]["user_id"])
        }
        self._histories: list[list[HistoryEvent]] = []
        past: dict[str, list[HistoryEvent]] = {}
        for row in range(self.size):
            user, now = self._log["user_id"][row], self._log["timestamp"][row]
            events = past.setdefault(user, [])
            self._histories.append([event for event in events if event.timestamp < now])
            events.append(HistoryEvent(self._log["item_id"][row], now, float(self._log["rating"][row])))
        self._format = RequestFormat.from_schema(self.schema)
        self.training = ServedExamples(
            [self._training_example(row) for row in range(self.size)], "user_id"
        ).statistics()

    @property
    def size(self) -> int:
        return len(self._log["user_id"])

    def requests(self, seed: int, count: int, change: Change = lambda user, context: None) -> list[bytes]:
        """Draws requests, changed before they are built."""
        rows = np.random.default_rng(seed).choice(self.size, count, replace=False)
        return [self._request(row, change).SerializeToString() for row in rows]

    def _request(self, row: int, change: Change = lambda user, context: None) -> example_pb2.Example:
        user, context = dict(self._people[self._log["user_id"][row]]), {"device": self._log["device"][row]}
        change(user, context)
        now = self._log["timestamp"][row]
        return build_example(user, self._histories[row], context=context, timestamp=now, request_format=self._format)

    def _training_example(self, row: int) -> bytes:
        example = self._request(row)
        features = example.features.feature
        features["item_id"].bytes_list.value.append(self._log["item_id"][row].encode())
        features["rating"].float_list.value.append(self._log["rating"][row])
        return example.SerializeToString()

    def compare(
        self,
        examples: Sequence[bytes],
        tolerances: Tolerances | None = None,
        schema: schema_pb2.Schema | None = None,
    ) -> SkewReport:
        return compare_with_training(self.training, examples, schema or self.schema, tolerances or Tolerances(), RUN)


@functools.lru_cache(maxsize=1)
def make_world() -> World:
    """Returns the one world that all tests share."""
    return World()


def write_workspace(workspace: Path, statistics: statistics_pb2.DatasetFeatureStatistics) -> None:
    """Writes what a run leaves: its statistics, and ML Metadata that knows of them."""
    folder = workspace / "statistics" / "Split-train"
    folder.mkdir(parents=True)
    listed = statistics_pb2.DatasetFeatureStatisticsList(datasets=[statistics])
    (folder / "FeatureStats.pb").write_bytes(listed.SerializeToString())
    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = str(workspace / "metadata.sqlite")
    connection.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    store = ml_metadata.MetadataStore(connection)
    contexts = []
    for kind, name in (("pipeline_run", RUN), ("node", "films.InteractionStatistics")):
        type_id = store.put_context_type(metadata_store_pb2.ContextType(name=kind))
        contexts.append(metadata_store_pb2.Context(type_id=type_id, name=name))
    artifact = metadata_store_pb2.Artifact(
        type_id=store.put_artifact_type(metadata_store_pb2.ArtifactType(name="ExampleStatistics")),
        uri=str(workspace / "statistics"),
    )
    event = metadata_store_pb2.Event(type=metadata_store_pb2.Event.OUTPUT)
    event.path.steps.add(key="statistics")
    execution = metadata_store_pb2.Execution(
        type_id=store.put_execution_type(metadata_store_pb2.ExecutionType(name="InteractionStatistics"))
    )
    store.put_execution(execution, [(artifact, event)], contexts)


def log_requests(prefix: Path, requests: Sequence[Sequence[bytes]]) -> str:
    """Logs requests as a server does; returns the pattern of the files."""
    logger = RequestLogger(str(prefix), logging_config_pb2.SamplingConfig(sampling_rate=1.0))
    for examples in requests:
        log = prediction_log_pb2.PredictionLog()
        request = log.predict_log.request
        request.model_spec.name = "recommender"
        request.inputs["examples"].CopyFrom(make_tensor(string_array(list(examples))))
        logger.write(log)
    logger.close()
    return f"{prefix}-*.tfrecord"
