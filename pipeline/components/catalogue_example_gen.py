"""`CatalogueExampleGen`: one tf.Example per item, in order of item ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import apache_beam as beam
from tfx.dsl.components.base import executor_spec
from tfx.orchestration.data_types import RuntimeParameter

from modules import features
from pipeline.components.column_values import ColumnType
from pipeline.components.example_encoding import encode_feature, join_features
from pipeline.components.example_shards import ExampleBatch
from pipeline.components.ingestion_report import Report, check_report, write_report
from pipeline.components.source_storage import DataQualityError
from pipeline.components.source_tables import read_keyed_table
from pipeline.components.table_example_gen import (
    REPORT_PATH_KEY,
    TableExampleGen,
    TableExampleGenExecutor,
    read_settings,
    table_directory,
)
from pipeline.data_config import DataConfig, TableConfig

CATALOGUE = "catalogue"
"""Name of the only split."""


class CatalogueExampleGenExecutor(TableExampleGenExecutor):
    """Reads the items and writes them as one sorted shard."""

    SPLIT_NAMES = (CATALOGUE,)

    def GenerateExamplesByBeam(
        self, pipeline: beam.Pipeline, exec_properties: dict[str, Any]
    ) -> dict[str, beam.PCollection]:
        """Builds the Beam pipeline; returns batches of examples of the one split."""
        settings = read_settings(exec_properties)
        table = TableConfig.model_validate(settings["items"])
        directory = table_directory(exec_properties, table.pattern)
        items = read_keyed_table(pipeline, directory, "items", features.ITEM_ID, table)
        counts = items.rows | "CountItems" >> beam.combiners.Count.Globally() | "ReportItems" >> beam.Map(_report_items)
        write_report(
            pipeline,
            items.rejected,
            [*items.reports, counts],
            ["items"],
            settings["rejected_rows_directory"],
            exec_properties[REPORT_PATH_KEY],
        )
        return {CATALOGUE: items.rows | "ToExamples" >> beam.MapTuple(_to_batch)}

    def CheckReport(self, report: Report, exec_properties: Mapping[str, Any]) -> None:
        """Raises a `DataQualityError` for too many rejected rows or no item at all."""
        settings = read_settings(exec_properties)
        check_report(report, ["items"], settings["max_rejected_share"], settings["rejected_rows_directory"])
        if not report[f"num_examples_{CATALOGUE}"]:
            raise DataQualityError("items: the catalogue has no item; the files hold no rows")


class CatalogueExampleGen(TableExampleGen):
    """Turns the items table into examples.

    Outputs `examples` with the split `catalogue`. Custom properties of the artifact: `items_rows`, `items_rejected`,
    `num_examples_catalogue`. Only the items' files and configuration decide on whether a cached run is reused.

    Args:
      data: the tables, of which only the items are read.
      rejected_rows_directory: folder of the rejected rows, `items.jsonl`.
      base: see `TableExampleGen`.
      newest_span: see `TableExampleGen`.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(CatalogueExampleGenExecutor)

    def __init__(
        self,
        data: DataConfig,
        rejected_rows_directory: str,
        base: RuntimeParameter | None = None,
        newest_span: int | RuntimeParameter | None = None,
    ) -> None:
        super().__init__(
            directory=data.directory,
            patterns=[data.items.pattern],
            split_names=CatalogueExampleGenExecutor.SPLIT_NAMES,
            settings={
                "items": data.items.model_dump(mode="json"),
                "max_rejected_share": data.max_rejected_share,
                "rejected_rows_directory": rejected_rows_directory,
            },
            base=base,
            newest_span=newest_span,
        )


def _to_batch(item_id: bytes, columns: bytes) -> ExampleBatch:
    example = join_features([encode_feature(features.ITEM_ID, ColumnType.STRING, [item_id]), columns])
    return (0, 1), [(item_id, example)]


def _report_items(count: int) -> Report:
    return {f"num_examples_{CATALOGUE}": count}
