"""What the two ExampleGens that read source tables share: how they are configured, cached, run and checked."""

from __future__ import annotations

import abc
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import apache_beam as beam
from google.protobuf import json_format, struct_pb2
from tfx import types
from tfx.components.example_gen import base_example_gen_executor, component, input_processor, utils
from tfx.components.util import examples_utils
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from pipeline.components.example_shards import WriteShards
from pipeline.components.ingestion_report import Report, read_report
from pipeline.config_files import ConfigError

REPORT_PATH_KEY = "report_path"
REPORT_FILE = "ingestion_report.json"


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

    Raises:
      ConfigError: if the patterns are not all equally deep below the folder.
    """

    def __init__(
        self,
        directory: str,
        patterns: Sequence[str],
        split_names: Sequence[str],
        settings: Mapping[str, Any],
        base: RuntimeParameter | None = None,
    ) -> None:
        fixed, folder = split_directory(directory)
        pattern = os.path.join(folder, covering_pattern(patterns))
        custom_config = example_gen_pb2.CustomConfig()
        struct = struct_pb2.Struct()
        struct.update(settings)
        custom_config.custom_config.Pack(struct, deterministic=True)
        # Which example belongs to which split is the executor's decision; TFX insists on hash buckets all the same.
        splits = [example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=1) for name in split_names]
        super().__init__(
            input_base=base or fixed,
            input_config=utils.make_default_input_config(pattern),
            output_config=example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=splits)),
            custom_config=custom_config,
        )


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
        artifacts = output_dict[standard_component_specs.EXAMPLES_KEY]
        examples = artifact_utils.get_single_instance(artifacts)
        examples.split_names = artifact_utils.encode_split_names(list(self.SplitNames(exec_properties)))
        report_path = os.path.join(examples.uri, REPORT_FILE)
        exec_properties = {**exec_properties, REPORT_PATH_KEY: report_path}
        with self._make_beam_pipeline() as pipeline:
            splits = self.GenerateExamplesByBeam(pipeline, exec_properties)
            for name, batches in splits.items():
                _ = batches | f"WriteSplit[{name}]" >> WriteShards(artifact_utils.get_split_uri(artifacts, name))
        report = read_report(report_path)
        self.CheckReport(report, exec_properties)
        for name, value in report.items():
            if isinstance(value, int):
                examples.set_int_custom_property(name, value)
        examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)
        examples_utils.set_file_format(examples, "tfrecords_gzip")


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
    input_config = example_gen_pb2.Input()
    proto_utils.json_to_proto(exec_properties[standard_component_specs.INPUT_CONFIG_KEY], input_config)
    pattern = input_config.splits[0].pattern
    if "{" in pattern:
        processor = input_processor.FileBasedInputProcessor(base, input_config.splits)
        pattern = processor.get_pattern_for_span_version(pattern, *processor.resolve_span_and_version())
    folders = pattern.split("/")[: -len(table_pattern.split("/"))]
    return os.path.join(base, *folders)


def split_directory(directory: str) -> tuple[str, str]:
    """Splits a folder before the part that holds a `{SPAN}`: the fixed base, and the rest, empty without a span."""
    directory = directory.rstrip("/") or "/"
    if "{" not in directory:
        return directory, ""
    start = directory.rfind("/", 0, directory.index("{"))
    if start < 0:
        return ".", directory
    return directory[:start] or "/", directory[start + 1 :]


def covering_pattern(patterns: Sequence[str]) -> str:
    """Returns one glob that covers all of the globs, since an ExampleGen is fingerprinted by a single one.

    For `interactions.tsv`, `items.tsv` and `users.tsv` this is `*s.tsv`.

    Raises:
      ConfigError: if they are not equally deep.
    """
    columns = [pattern.split("/") for pattern in patterns]
    if len({len(parts) for parts in columns}) > 1:
        raise ConfigError(f"the patterns of the tables must all lie in folders of one depth; received {list(patterns)}")
    return "/".join(_covering_part(parts) for parts in zip(*columns, strict=True))


def _covering_part(parts: Sequence[str]) -> str:
    if len(set(parts)) == 1:
        return parts[0]
    prefix = _common_start(parts)
    suffix = _common_start([part[len(prefix) :][::-1] for part in parts])[::-1]
    return f"{prefix}*{suffix}"


def _common_start(texts: Sequence[str]) -> str:
    """Returns the characters that all texts begin with, up to the first wildcard."""
    same = itertools.takewhile(
        lambda column: len(set(column)) == 1 and column[0] not in "*?[]", zip(*texts, strict=False)
    )
    return "".join(column[0] for column in same)
