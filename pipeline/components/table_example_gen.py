"""What the two ExampleGens that read source tables share: how they are configured, cached, run and checked."""

from __future__ import annotations

import abc
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import apache_beam as beam
from google.protobuf import json_format, struct_pb2
from tfx import types
from tfx.components.example_gen import base_example_gen_executor, component, driver, utils
from tfx.components.util import examples_utils
from tfx.dsl.io import fileio
from tfx.orchestration import data_types
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs
from tfx.types.component_spec import ExecutionParameter
from tfx.utils import proto_utils

from pipeline.components.covering_pattern import covering_pattern
from pipeline.components.example_shards import WriteShards
from pipeline.components.ingestion_report import Report, read_report
from pipeline.components.span_store import REPORT_FILE
from pipeline.components.spans import Span, find_window, fingerprint_all, has_spans, split_directory

REPORT_PATH_KEY = "report_path"
SHUFFLE_FOLDER_KEY = "shuffle_folder"
"""Property: a folder that all workers see, for the time of the Beam pipeline."""
_SHUFFLE_FOLDER = ".shuffle"
NEWEST_SPAN_KEY = "newest_span"
"""Number of the newest span to ingest, or `spans.LATEST`; only where the folder is one of spans."""
REACH = "reach"
"""Setting: how many spans before the newest one an ExampleGen may read, too."""
PATTERN = "pattern"
"""Setting: glob of the files of any span, of ExampleGens that read several."""


class TableExampleGenSpec(standard_component_specs.FileBasedExampleGenSpec):
    """The specification of file-based ExampleGens, and which span is the newest."""

    PARAMETERS: ClassVar = {
        **standard_component_specs.FileBasedExampleGenSpec.PARAMETERS,
        NEWEST_SPAN_KEY: ExecutionParameter(type=int, optional=True),
    }


class TableExampleGenDriver(driver.FileBasedDriver):
    """Finds the span to ingest, and fingerprints all the files that the executor will read.

    TFX's own driver fingerprints one span only, and does not find one whose number has leading zeros.
    """

    def resolve_exec_properties(
        self,
        exec_properties: dict[str, Any],
        pipeline_info: data_types.PipelineInfo,
        component_info: data_types.ComponentInfo,
    ) -> dict[str, Any]:
        """Fills in the span, its version, the fingerprint, and the span's number in the pattern.

        Raises:
          DataQualityError: if there is no span, or not the one wanted.
        """
        pattern = _input_config(exec_properties).splits[0].pattern
        if not has_spans(pattern):
            return super().resolve_exec_properties(exec_properties, pipeline_info, component_info)
        base = exec_properties[standard_component_specs.INPUT_BASE_KEY]
        reach = int(read_settings(exec_properties).get(REACH, 0))
        spans = find_window(base, pattern, newest_span(exec_properties), reach + 1)
        resolved = with_span(exec_properties, spans[-1])
        resolved[utils.SPAN_PROPERTY_NAME] = spans[-1].number
        resolved[utils.VERSION_PROPERTY_NAME] = spans[-1].version
        resolved[utils.FINGERPRINT_PROPERTY_NAME] = fingerprint_all(base, spans)
        return resolved


class TableExampleGen(component.FileBasedExampleGen):
    """Base of ExampleGens over source tables.

    A run is cached by the fingerprint of the tables' files and by its settings. The artifact's custom properties hold
    what was counted: rows, rejected rows, and so on.

    Args:
      directory: folder of the source files, possibly with a `{SPAN}`.
      patterns: globs of the tables' files, relative to it.
      split_names: splits that the executor writes.
      settings: what the executor needs to know; values as in JSON.
      base: stands for what `split_directory` finds fixed of the folder, to be said when the pipeline is submitted.
      newest_span: number of the newest span, if it is not the latest; may be said when the pipeline is submitted.
      reach: spans before the newest one that are read, too.

    Raises:
      ConfigError: if the patterns are not all equally deep below the folder.
    """

    SPEC_CLASS = TableExampleGenSpec
    DRIVER_CLASS = TableExampleGenDriver

    def __init__(
        self,
        directory: str,
        patterns: Sequence[str],
        split_names: Sequence[str],
        settings: Mapping[str, Any],
        base: RuntimeParameter | None = None,
        newest_span: int | RuntimeParameter | None = None,
        reach: int | None = None,
    ) -> None:
        fixed, folder = split_directory(directory)
        pattern = os.path.join(folder, covering_pattern(patterns))
        custom_config = example_gen_pb2.CustomConfig()
        struct = struct_pb2.Struct()
        struct.update(settings)
        if reach is not None:
            struct.update({PATTERN: pattern, REACH: reach})
        custom_config.custom_config.Pack(struct, deterministic=True)
        # Which example belongs to which split is the executor's decision; TFX insists on hash buckets all the same.
        splits = [example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=1) for name in split_names]
        spec = TableExampleGenSpec(
            input_base=base or fixed,
            input_config=utils.make_default_input_config(pattern),
            output_config=example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=splits)),
            custom_config=custom_config,
            output_data_format=example_gen_pb2.FORMAT_TF_EXAMPLE,
            output_file_format=example_gen_pb2.FORMAT_TFRECORDS_GZIP,
            examples=types.Channel(type=standard_artifacts.Examples),
            **({} if newest_span is None else {NEWEST_SPAN_KEY: newest_span}),
        )
        # The constructor of file-based ExampleGens knows no further parameter, so its parent's is called.
        super(component.FileBasedExampleGen, self).__init__(spec=spec)


class TableExampleGenExecutor(base_example_gen_executor.BaseExampleGenExecutor, abc.ABC):
    """Base of the executors: runs the Beam pipeline, then judges and publishes what was counted.

    Unlike in TFX's own ExampleGens, `GenerateExamplesByBeam` returns collections of
    `example_shards.ExampleBatch`, and it writes the report to `exec_properties[REPORT_PATH_KEY]`.
    """

    SPLIT_NAMES: ClassVar[tuple[str, ...]]
    """Splits that are written."""

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:
        """Not supported: several tables make one example."""
        raise NotImplementedError("source tables are joined; see GenerateExamplesByBeam")

    def SplitNames(self, exec_properties: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the splits that are written with these settings."""
        return self.SPLIT_NAMES

    @abc.abstractmethod
    def CheckReport(self, report: Report, exec_properties: Mapping[str, Any]) -> None:
        """Raises a `DataQualityError` if what was counted must not be used."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the splits.

        Raises:
          DataQualityError: see `source_tables`. The rejected rows have been written by then.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        examples = artifact_utils.get_single_instance(output_dict[standard_component_specs.EXAMPLES_KEY])
        examples.split_names = artifact_utils.encode_split_names(list(self.SplitNames(exec_properties)))
        for name, value in self.Ingest(examples.uri, exec_properties).items():
            if isinstance(value, int):
                examples.set_int_custom_property(name, value)
            elif isinstance(value, str):
                examples.set_string_custom_property(name, value)
        examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(examples, "tfrecords_gzip")

    def Ingest(self, uri: str, exec_properties: Mapping[str, Any]) -> Report:
        """Writes splits and report into a folder, and returns the report.

        Raises:
          DataQualityError: as `Do`.
        """
        shuffle_folder = os.path.join(uri, _SHUFFLE_FOLDER)
        properties = {
            **exec_properties,
            REPORT_PATH_KEY: os.path.join(uri, REPORT_FILE),
            SHUFFLE_FOLDER_KEY: shuffle_folder,
        }
        fileio.makedirs(shuffle_folder)
        try:
            with self._make_beam_pipeline() as pipeline:
                splits = self.GenerateExamplesByBeam(pipeline, properties)
                for name, batches in splits.items():
                    _ = batches | f"WriteSplit[{name}]" >> WriteShards(split_folder(uri, name))
        finally:
            fileio.rmtree(shuffle_folder)
        report = read_report(properties[REPORT_PATH_KEY])
        self.CheckReport(report, properties)
        return report


def split_folder(uri: str, name: str) -> str:
    """Returns where the files of a split are, below an artifact of examples."""
    return os.path.join(uri, f"Split-{name}")


def read_settings(exec_properties: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that were given to `TableExampleGen`."""
    custom_config = example_gen_pb2.CustomConfig()
    proto_utils.json_to_proto(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY], custom_config)
    struct = struct_pb2.Struct()
    custom_config.custom_config.Unpack(struct)
    return json_format.MessageToDict(struct)


def table_directory(exec_properties: Mapping[str, Any], table_pattern: str) -> str:
    """Returns the folder that the tables' patterns are relative to, of the span that is ingested.

    Args:
      exec_properties: the execution's properties, as resolved by the driver. Orchestrators that start executors
        without their driver leave the span open; then it is resolved here.
      table_pattern: the pattern of any of the tables.
    """
    base = exec_properties[standard_component_specs.INPUT_BASE_KEY]
    pattern = _input_config(exec_properties).splits[0].pattern
    if has_spans(pattern):
        pattern = find_window(base, pattern, newest_span(exec_properties))[-1].pattern
    folders = pattern.split("/")[: -len(table_pattern.split("/"))]
    return os.path.join(base, *folders)


def with_span(exec_properties: Mapping[str, Any], span: Span) -> dict[str, Any]:
    """Returns an execution's properties as they are when that span is to be ingested."""
    input_config = _input_config(exec_properties)
    for split in input_config.splits:
        split.pattern = span.pattern
    return {
        **exec_properties,
        standard_component_specs.INPUT_CONFIG_KEY: proto_utils.proto_to_json(input_config),
    }


def newest_span(exec_properties: Mapping[str, Any]) -> int | None:
    """Returns the number of the newest span: that which the driver found, else the one that was asked for, if any."""
    numbers = (exec_properties.get(key) for key in (utils.SPAN_PROPERTY_NAME, NEWEST_SPAN_KEY))
    return next((int(number) for number in numbers if number is not None), None)


def _input_config(exec_properties: Mapping[str, Any]) -> example_gen_pb2.Input:
    input_config = example_gen_pb2.Input()
    proto_utils.json_to_proto(exec_properties[standard_component_specs.INPUT_CONFIG_KEY], input_config)
    return input_config
