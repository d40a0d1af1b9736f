"""`SpanDrift`: how far the newest span of a window has moved from the one before it, feature by feature.

Where the schema has a `drift_comparator`, a feature beyond its threshold is an anomaly, which the anomaly gate stops a
run for. All others are measured and told all the same. The measures are those of TensorFlow Data Validation.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import apache_beam as beam
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx import types
from tfx.components.example_validator.executor import DEFAULT_FILE_NAME
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils
from tfx_bsl.tfxio import tf_example_record

from modules.features import ColumnTable, Role
from pipeline.components.span_store import parts_of, span_of_part
from pipeline.components.temporal_split import SPLIT_NAMES
from pipeline.report.drift import Drift, measure_drift

DRIFT_FILE = "drift.json"
SPLIT = "newest_span"
"""The only split of the anomalies."""
MOVED = "features_beyond_threshold"
PREVIOUS_SPAN = "previous_span"
"""Custom properties of the anomalies; the second is -1 where the window has one span only."""

_MOVES_ANYHOW = (Role.TIMESTAMP, Role.HISTORY, Role.SEEN)
_TOLD = 3

logger = logging.getLogger("marquee.drift")


class SpanDriftSpec(ComponentSpec):
    """Inputs and outputs of `SpanDrift`."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {}
    INPUTS: ClassVar = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS: ClassVar = {"anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies)}


class SpanDriftExecutor(base_beam_executor.BaseBeamExecutor):
    """Computes the statistics of the two newest spans and compares them."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the anomalies and all distances; never fails because of what it finds."""
        self._log_startup(input_dict, output_dict, exec_properties)
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        schema = io_utils.SchemaReader().read(
            io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
        )
        output = artifact_utils.get_single_instance(output_dict["anomalies"])
        output.split_names = artifact_utils.encode_split_names([SPLIT])
        files = _files_by_span(examples)
        *earlier, newest = sorted(files)
        anomalies, drifts = anomalies_pb2.Anomalies(), []
        compared = _comparators(schema)
        if earlier:
            now, before = self._statistics({"now": files[newest], "before": files[earlier[-1]]}, output.uri)
            anomalies = tfdv.validate_statistics(now, compared, previous_statistics=before)
            columns = ColumnTable.from_schema(schema)
            left_out = {name for role in _MOVES_ANYHOW for name in columns.names(role)}
            drifts = measure_drift(now.datasets[0], before.datasets[0], left_out)
            _tell(newest, earlier[-1], drifts, anomalies)
        else:
            anomalies.baseline.CopyFrom(compared)
        output.set_int_custom_property(MOVED, len(anomalies.anomaly_info))
        output.set_int_custom_property(PREVIOUS_SPAN, earlier[-1] if earlier else -1)
        split = artifact_utils.get_split_uri([output], SPLIT)
        io_utils.write_bytes_file(
            os.path.join(split, DEFAULT_FILE_NAME), anomalies.SerializeToString(deterministic=True)
        )
        document = [
            {"feature": one.feature, "measure": one.measure, "distance": one.distance, "told": one.told}
            for one in drifts
        ]
        io_utils.write_string_file(os.path.join(output.uri, DRIFT_FILE), json.dumps(document, indent=2))

    def _statistics(
        self, files: Mapping[str, Sequence[str]], folder: str
    ) -> list[statistics_pb2.DatasetFeatureStatisticsList]:
        paths = {name: os.path.join(folder, f"{name}.statistics") for name in files}
        with self._make_beam_pipeline() as pipeline:
            for name, patterns in files.items():
                records = tf_example_record.TFExampleRecord(list(patterns), telemetry_descriptors=["SpanDrift"])
                _ = (
                    pipeline
                    | f"Read[{name}]" >> records.BeamSource()
                    | f"Statistics[{name}]" >> tfdv.GenerateStatistics(tfdv.StatsOptions())
                    | f"Write[{name}]" >> _WriteStatistics(paths[name])
                )
        return [tfdv.load_stats_binary(paths[name]) for name in files]


class SpanDrift(base_beam_component.BaseBeamComponent):
    """Compares the newest span of a window with the one before it.

    Outputs `anomalies`, with `drift.json` beside them: the distance of every feature, the largest first. Custom
    properties: `features_beyond_threshold` and `previous_span`.

    Args:
      examples: examples of a window of spans.
      schema: its schema, of which the `drift_comparator`s count.
    """

    SPEC_CLASS = SpanDriftSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(SpanDriftExecutor)

    def __init__(self, examples: types.BaseChannel, schema: types.BaseChannel):
        super().__init__(
            SpanDriftSpec(
                examples=examples, schema=schema, anomalies=types.Channel(type=standard_artifacts.ExampleAnomalies)
            )
        )


class _WriteStatistics(beam.PTransform):
    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def expand(self, statistics: beam.PCollection) -> beam.PCollection:
        return statistics | "Write" >> beam.Map(_write, self._path)


def _write(statistics: statistics_pb2.DatasetFeatureStatisticsList, path: str) -> None:
    io_utils.write_bytes_file(path, statistics.SerializeToString(deterministic=True))


def _files_by_span(examples: types.Artifact) -> dict[int, list[str]]:
    """Returns globs of all examples of each span, whichever split they are in; impressions left out."""
    files: dict[int, list[str]] = {}
    for split in SPLIT_NAMES:
        uri = artifact_utils.get_split_uri([examples], split)
        for name, pattern in parts_of(fileio.glob(os.path.join(uri, "*"))).items():
            files.setdefault(span_of_part(name), []).append(pattern)
    return files


def _comparators(schema: schema_pb2.Schema) -> schema_pb2.Schema:
    """Returns what the schema says of drift and nothing else, since the rest is checked elsewhere."""
    compared = schema_pb2.Schema()
    for feature in schema.feature:
        if feature.HasField("drift_comparator"):
            one = compared.feature.add(name=feature.name, type=feature.type)
            one.drift_comparator.CopyFrom(feature.drift_comparator)
        else:
            compared.feature.add(name=feature.name, type=feature.type)
    return compared


def _tell(newest: int, previous: int, drifts: Sequence[Drift], anomalies: anomalies_pb2.Anomalies) -> None:
    most = ", ".join(f"{one.feature} {one.distance:.3f} ({one.measure})" for one in drifts[:_TOLD])
    beyond = len(anomalies.anomaly_info)
    logger.info(
        "drift from span %d to %d: most in %s; %d beyond the schema's thresholds", previous, newest, most, beyond
    )
