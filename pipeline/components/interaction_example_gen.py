"""`InteractionExampleGen`: one tf.Example per interaction, split by global time.

An example holds the interaction (`user_id`, `item_id` bytes, `timestamp` int64 seconds, the feedback float, context
columns), the columns of its user and item, and the user's history strictly before it (see `point_in_time`).
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import apache_beam as beam
from tfx.dsl.components.base import executor_spec

from modules import features
from pipeline.components import column_values, temporal_split
from pipeline.components.column_values import ColumnType
from pipeline.components.example_encoding import encode_feature, join_features
from pipeline.components.example_shards import shard_count, stable_hash
from pipeline.components.ingestion_report import Report, check_report, write_report
from pipeline.components.point_in_time import encode_histories, order_events
from pipeline.components.source_files import find_files
from pipeline.components.source_storage import DataQualityError
from pipeline.components.source_tables import (
    REJECTED,
    REPORTS,
    TYPES,
    Event,
    ReadInteractions,
    context_columns,
    read_keyed_table,
)
from pipeline.components.table_example_gen import (
    REPORT_PATH_KEY,
    TableExampleGen,
    TableExampleGenExecutor,
    read_settings,
    table_directory,
)
from pipeline.components.temporal_split import SPLIT_NAMES, Cuts
from pipeline.data_config import DataConfig

_EXAMPLES_PER_BATCH = 1000

UserEvents = tuple[bytes, bytes, list[Event]]
"""A user's id, encoded columns (empty without a profile) and events in order of time."""


class InteractionExampleGenExecutor(TableExampleGenExecutor):
    """Joins the tables, cuts the splits and writes the examples, on any Beam runner.

    The catalogue is held in memory by every worker. Interactions are grouped by user; the events of one user are
    held in memory, too.
    """

    SPLIT_NAMES = temporal_split.SPLIT_NAMES

    def GenerateExamplesByBeam(
        self, pipeline: beam.Pipeline, exec_properties: dict[str, Any]
    ) -> dict[str, beam.PCollection]:
        """Builds the Beam pipeline; returns batches of examples by split."""
        data, rejected_rows_directory = _read_config(exec_properties)
        directory = table_directory(exec_properties, data.interactions.pattern)
        items = read_keyed_table(pipeline, directory, "items", features.ITEM_ID, data.items)
        catalogue = beam.pvalue.AsDict(items.rows)
        read = (
            pipeline
            | "Create[interactions]" >> beam.Create(find_files(directory, "interactions", data.interactions))
            | "Distribute[interactions]" >> beam.Reshuffle()
            | "Read[interactions]"
            >> beam.ParDo(ReadInteractions(data), catalogue).with_outputs(REJECTED, REPORTS, TYPES, main="events")
        )
        types = read[TYPES] | "MergeTypes[interactions]" >> beam.CombineGlobally(column_values.merge_types)
        grouped = {"events": read["events"]}
        rejected, reports = [*items.rejected, read[REJECTED]], [*items.reports, read[REPORTS]]
        if data.users:
            users = read_keyed_table(pipeline, directory, "users", features.USER_ID, data.users)
            grouped["users"] = users.rows
            rejected.extend(users.rejected)
            reports.extend(users.reports)
        ordered = (
            grouped
            | "GroupByUser" >> beam.CoGroupByKey()
            | "OrderEvents" >> beam.FlatMapTuple(_order_user).with_outputs(REPORTS, main="users")
        )
        cuts = (
            ordered["users"]
            | "Timestamps" >> beam.Map(_timestamps)
            | "FindCuts" >> temporal_split.FindCuts(data.splits)
        )
        reports.extend([ordered[REPORTS], cuts | "ReportCuts" >> beam.Map(_report_cuts)])
        write_report(
            pipeline, rejected, reports, _table_names(data), rejected_rows_directory, exec_properties[REPORT_PATH_KEY]
        )
        splits = ordered["users"] | "Assemble" >> beam.ParDo(
            _AssembleExamples(data), catalogue, beam.pvalue.AsSingleton(types), beam.pvalue.AsSingleton(cuts)
        ).with_outputs(*SPLIT_NAMES)
        return {name: splits[name] for name in SPLIT_NAMES}

    def CheckReport(self, report: Report, exec_properties: Mapping[str, Any]) -> None:
        """Raises a `DataQualityError` for too many rejected rows, no interaction at all, or an empty split."""
        data, rejected_rows_directory = _read_config(exec_properties)
        check_report(report, _table_names(data), data.max_rejected_share, rejected_rows_directory)
        if not report["interactions_accepted"]:
            raise DataQualityError("interactions: there is no interaction to learn from; the files hold no rows")
        empty = [name for name in SPLIT_NAMES if not report[f"num_examples_{name}"]]
        if empty:
            raise DataQualityError(
                f"interactions: no events fall into the splits {empty}; {report['interactions_accepted']} events, "
                f"shares {data.splits.train} and {data.splits.validation}, cut at the timestamps "
                f"{report['eval_start_timestamp']} and {report['test_start_timestamp']}"
            )


class InteractionExampleGen(TableExampleGen):
    """Turns the interaction log, the catalogue and the user profiles into examples.

    Outputs `examples` with the splits `train`, `eval` and `test`, in order of time. Custom properties of the
    artifact: `<table>_rows` and `<table>_rejected`; `interactions_accepted`, `interactions_duplicates`,
    `unknown_users`; `num_examples_<split>`; `eval_start_timestamp`, `test_start_timestamp`.

    Args:
      data: tables, splits and histories.
      rejected_rows_directory: folder of the rejected rows, `<table>.jsonl`.

    Raises:
      ConfigError: if table patterns are not equally deep.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(InteractionExampleGenExecutor)

    def __init__(self, data: DataConfig, rejected_rows_directory: str) -> None:
        tables = [data.interactions, data.items, *([data.users] if data.users else [])]
        super().__init__(
            directory=data.directory,
            patterns=[table.pattern for table in tables],
            split_names=InteractionExampleGenExecutor.SPLIT_NAMES,
            settings={
                # What counts as liked does not change the examples.
                "data": data.model_dump(mode="json", exclude={"like_threshold"}),
                "rejected_rows_directory": rejected_rows_directory,
            },
        )


class _AssembleExamples(beam.DoFn):
    """Emits `example_shards.ExampleBatch`es of one user, tagged by split."""

    def __init__(self, data: DataConfig) -> None:
        self._data = data

    def process(
        self,
        user: UserEvents,
        catalogue: Mapping[bytes, bytes],
        context_types: Mapping[str, ColumnType],
        cuts: Cuts,
    ) -> Iterator[beam.pvalue.TaggedOutput]:
        user_id, user_columns, events = user
        data = self._data
        context = context_columns(data)
        shards = {name: shard_count(count) for name, count in zip(SPLIT_NAMES, cuts.num_examples, strict=True)}
        batches: dict[tuple[str, int], list[tuple[bytes, bytes]]] = collections.defaultdict(list)
        user_part = encode_feature(features.USER_ID, ColumnType.STRING, [user_id]) + user_columns
        for history, simultaneous in encode_histories(events, data.history_length, data.feedback):
            timestamp = simultaneous[0][0]
            split = cuts.split_of(timestamp)
            shared = user_part + encode_feature(features.TIMESTAMP, ColumnType.INT, [timestamp]) + history
            for _, item_id, _, _, feedback, values in simultaneous:
                parts = [
                    shared,
                    encode_feature(features.ITEM_ID, ColumnType.STRING, [item_id]),
                    catalogue[item_id],
                    context.encode(values, context_types),
                ]
                if data.feedback:
                    parts.append(encode_feature(data.feedback, ColumnType.FLOAT, [feedback]))
                order = stable_hash(user_id, item_id, b"%d" % timestamp)
                shard = int.from_bytes(order, "big") % shards[split]
                batch = batches[split, shard]
                batch.append((order, join_features(parts)))
                if len(batch) == _EXAMPLES_PER_BATCH:
                    yield beam.pvalue.TaggedOutput(split, ((shard, shards[split]), batch))
                    del batches[split, shard]
        for (split, shard), batch in batches.items():
            yield beam.pvalue.TaggedOutput(split, ((shard, shards[split]), batch))


def _order_user(user_id: bytes, groups: Mapping[str, Any]) -> Iterator[Any]:
    events, duplicates = order_events(itertools.chain.from_iterable(groups["events"]))
    if not events:
        return
    profiles = list(groups.get("users", [b""]))
    yield user_id, b"".join(profiles), events
    yield beam.pvalue.TaggedOutput(
        REPORTS, {"interactions_duplicates": duplicates, "unknown_users": 0 if profiles else 1}
    )


def _timestamps(user: UserEvents) -> list[int]:
    return [timestamp for timestamp, *_ in user[2]]


def _report_cuts(cuts: Cuts) -> Report:
    return {
        "interactions_accepted": sum(cuts.num_examples),
        "interactions_duplicates": 0,
        "unknown_users": 0,
        "eval_start_timestamp": cuts.eval_start,
        "test_start_timestamp": cuts.test_start,
        **{f"num_examples_{name}": count for name, count in zip(SPLIT_NAMES, cuts.num_examples, strict=True)},
    }


def _table_names(data: DataConfig) -> tuple[str, ...]:
    return ("items", "users", "interactions") if data.users else ("items", "interactions")


def _read_config(exec_properties: Mapping[str, Any]) -> tuple[DataConfig, str]:
    settings = read_settings(exec_properties)
    return DataConfig.model_validate(settings["data"]), settings["rejected_rows_directory"]
