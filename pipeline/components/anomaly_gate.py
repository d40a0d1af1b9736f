"""`AnomalyGate`: stops a run whose data does not match its schema, and says why in plain words.

ExampleValidator only records anomalies. The gate raises unless every split of the interactions and of the catalogue
is clean, so that nothing ordered after it runs on bad data.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from absl import logging
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types
from tfx.components.example_validator.executor import DEFAULT_FILE_NAME
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.types.experimental import simple_artifacts
from tfx.utils import io_utils

from pipeline.components.anomaly_wording import describe_anomalies

REPORT_FILE_NAME = "report.json"
REPORT_KEY = "report"
SUMMARY_PROPERTY = "summary"
_TABLES = {"interaction_anomalies": "interactions", "catalogue_anomalies": "catalogue"}
_DRIFT = {"drift_anomalies": "drift"}


class AnomalyError(RuntimeError):
    """The data does not match the schema. The message has one sentence per table and column."""


class AnomalyGateSpec(ComponentSpec):
    """Inputs and outputs of `AnomalyGate`."""

    PARAMETERS: ClassVar[dict[str, ExecutionParameter]] = {}
    INPUTS: ClassVar = {
        **{key: ChannelParameter(type=standard_artifacts.ExampleAnomalies) for key in _TABLES},
        **{key: ChannelParameter(type=standard_artifacts.ExampleAnomalies, optional=True) for key in _DRIFT},
    }
    # A stock type: Kubeflow's container entry point cannot import types of our own.
    OUTPUTS: ClassVar = {REPORT_KEY: ChannelParameter(type=simple_artifacts.File)}


class AnomalyGateExecutor(base_executor.BaseExecutor):
    """Reads the anomalies of both tables; writes the report of a clean check, or raises."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Checks every split of every table.

        Raises:
          AnomalyError: unless all splits of both tables are clean and there is at least one of each.
        """
        checked = {
            table: read_anomalies(artifact_utils.get_single_instance(input_dict[key]))
            for key, table in {**_TABLES, **_DRIFT}.items()
            if key in _TABLES or input_dict.get(key)
        }
        problems = [problem for table, splits in checked.items() for problem in describe_anomalies(table, splits)]
        if problems:
            message = "the data does not match the schema:\n  " + "\n  ".join(problems)
            logging.error("AnomalyGate: %s", message)
            raise AnomalyError(message)
        summary = "Clean: " + "; ".join(f"{table} ({', '.join(splits)})" for table, splits in checked.items()) + "."
        logging.info("AnomalyGate: %s", summary)
        report = artifact_utils.get_single_instance(output_dict[REPORT_KEY])
        report.set_string_custom_property(SUMMARY_PROPERTY, summary)
        document = {"summary": summary, "tables": {table: _report(splits) for table, splits in checked.items()}}
        io_utils.write_string_file(os.path.join(report.uri, REPORT_FILE_NAME), json.dumps(document, indent=2))


class AnomalyGate(base_component.BaseComponent):
    """Passes only clean data. Order nodes after it with `node.add_upstream_node(gate)`.

    Outputs: `report`, a `File` artifact with `report.json` and the custom property `summary`. Only clean data get one.
    """

    SPEC_CLASS = AnomalyGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(AnomalyGateExecutor)

    def __init__(
        self,
        interaction_anomalies: types.BaseChannel,
        catalogue_anomalies: types.BaseChannel,
        drift_anomalies: types.BaseChannel | None = None,
    ):
        """Takes the `anomalies` outputs of two ExampleValidators, and of `SpanDrift`.

        Args:
          interaction_anomalies: channel of `ExampleAnomalies` of the interactions.
          catalogue_anomalies: channel of `ExampleAnomalies` of the catalogue.
          drift_anomalies: channel of `ExampleAnomalies` of the newest span against the one before it.
        """
        super().__init__(
            AnomalyGateSpec(
                interaction_anomalies=interaction_anomalies,
                catalogue_anomalies=catalogue_anomalies,
                drift_anomalies=drift_anomalies,
                report=types.Channel(type=simple_artifacts.File),
            )
        )


def read_anomalies(artifact: types.Artifact) -> dict[str, anomalies_pb2.Anomalies]:
    """Reads the `Anomalies` of every split of an `ExampleAnomalies` artifact, by name of the split."""
    splits = {}
    for split in artifact_utils.decode_split_names(artifact.split_names):
        path = os.path.join(artifact_utils.get_split_uri([artifact], split), DEFAULT_FILE_NAME)
        splits[split] = anomalies_pb2.Anomalies.FromString(io_utils.read_bytes_file(path))
    return splits


def _report(splits: Mapping[str, anomalies_pb2.Anomalies]) -> dict[str, Sequence[str]]:
    """Returns, by split, the names of the columns that were checked."""
    return {
        split: sorted(feature.name for feature in anomalies.baseline.feature) for split, anomalies in splits.items()
    }
